//! The life of tenants in a real etcd.

mod lab;

use std::time::{Duration, Instant};

use etcd_client::{Client, Permission, RoleRevokePermissionOptions, Txn, TxnOp, UserAddOptions};
use lab::{Authority, Etcd, claim};
use storage::tenancy::etcd::bootstrap;
use storage::tenancy::{
    Access, Alarm, Claim, Compaction, Connection, Data, Stage, Tenancy, TenancyError, connect,
};

async fn ready() -> (Etcd, Box<dyn Tenancy>, Client) {
    let etcd = Etcd::start();
    let root = etcd.authority.client("root");
    bootstrap(etcd.connection(&root)).await.unwrap();
    let tenancy = connect(etcd.connection(&root)).unwrap();
    let client = etcd.client(&root).await;
    (etcd, tenancy, client)
}

async fn revision(tenancy: &dyn Tenancy) -> u64 {
    tenancy.verify().await.unwrap().revision
}

#[tokio::test]
async fn set_up_turns_authentication_on_once() {
    let etcd = Etcd::start();
    let root = etcd.connection(&etcd.authority.client("root"));
    let tenancy = connect(root.clone()).unwrap();

    let health = tenancy.verify().await.unwrap();
    assert!(!health.authentication);
    let refused = tenancy
        .prepare(&claim("1", "a", "a"), None, Data::New)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("authentication"), "{refused}");

    // A certificate that is not root's must not lock everybody out.
    let other = etcd.connection(&etcd.authority.client("admin"));
    let refused = bootstrap(other).await.unwrap_err();
    assert!(
        matches!(refused, TenancyError::Unauthenticated(_)),
        "{refused}"
    );
    assert!(!tenancy.verify().await.unwrap().authentication);

    bootstrap(root.clone()).await.unwrap();
    bootstrap(root).await.unwrap();
    let health = tenancy.verify().await.unwrap();
    assert!(health.authentication);
    assert_eq!(health.gaps, Vec::<String>::new());
    assert_eq!(health.alarms, []);
    assert!(health.version.starts_with("3."));
    assert!(health.size > 0);

    let other = etcd.connection(&etcd.authority.client("admin"));
    let refused = bootstrap(other).await.unwrap_err();
    assert!(!matches!(refused, TenancyError::Unreachable(_)));
}

#[tokio::test]
async fn set_up_leaves_an_etcd_alone_that_ignores_certificates() {
    let etcd = Etcd::start_with(&[]);
    let root = etcd.connection(&etcd.authority.client("root"));
    let refused = bootstrap(root.clone()).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("authentication stays off"), "{text}");
    let health = connect(root).unwrap().verify().await.unwrap();
    assert!(!health.authentication);
}

#[tokio::test]
async fn a_tenant_lives_and_leaves_nothing() {
    let (etcd, tenancy, mut root) = ready().await;
    let before = everything(&mut root).await;
    let a = claim("1", "default_tenant-1", "default_user-1");
    tenancy.prepare(&a, None, Data::New).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Exact));

    // What is as it should be is not written again (rule 20).
    let quiet = revision(&*tenancy).await;
    tenancy.prepare(&a, None, Data::New).await.unwrap();
    assert_eq!(revision(&*tenancy).await, quiet);

    let mut tenant = etcd.client(&etcd.authority.client(&a.user)).await;
    for n in 0..1_203 {
        let key = format!("/{}/registry/{n:04}", a.schema);
        tenant.put(key, vec![b'x'; 100], None).await.unwrap();
    }
    assert_eq!(tenancy.remaining(&a).await, Ok(1_205));
    let early = tenancy.release(&a).await;
    assert!(matches!(early, Err(TenancyError::Refused(_))), "{early:?}");
    let claimants = tenancy.claimants().await.unwrap();
    assert!(claimants.iter().eq([&a.uid]), "{claimants:?}");

    tenancy.revoke(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    assert!(tenant.get("/default_tenant-1/x", None).await.is_err());
    assert_eq!(tenancy.remaining(&a).await, Ok(1_203));
    assert!(matches!(
        tenancy.check(&a, None).await,
        Ok(Access::Differs(_))
    ));
    tenancy.drop_data(&a).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
    // Until it is released nobody else may have the name (rule 18).
    let taken = tenancy
        .prepare(&claim("2", &a.schema, "other"), None, Data::New)
        .await;
    assert!(matches!(taken, Err(TenancyError::SchemaTaken { .. })));
    tenancy.release(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Unclaimed));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    assert_eq!(everything(&mut root).await, before);
    tenancy
        .prepare(&claim("2", &a.schema, &a.user), None, Data::New)
        .await
        .unwrap();
}

/// rule 17: a tenant is created again under the name of one that was deleted, and
/// processes of the one before still hold its certificate.
#[tokio::test]
async fn a_certificate_of_the_tenant_before_opens_nothing() {
    let (etcd, tenancy, mut root) = ready().await;
    let of = |uid: &str| Claim {
        role: Some(Claim::role_of("a_b", uid)),
        stage: Stage::Serving,
        prefix: None,
        replicas: None,
        ..claim(uid, "a_b", &format!("a_b_{uid}"))
    };
    let key = "/a_b/registry/x";
    let (before, after) = (of("1"), of("2"));
    tenancy.prepare(&before, None, Data::New).await.unwrap();
    let mut old = etcd.client(&etcd.authority.client(&before.user)).await;
    old.put(key, "old", None).await.unwrap();
    tenancy.revoke(&before).await.unwrap();
    tenancy.drop_data(&before).await.unwrap();
    tenancy.release(&before).await.unwrap();

    tenancy.prepare(&after, None, Data::New).await.unwrap();
    let mut new = etcd.client(&etcd.authority.client(&after.user)).await;
    new.put(key, "new", None).await.unwrap();
    // Both the connection that it has open and one that it makes now.
    let again = etcd.client(&etcd.authority.client(&before.user)).await;
    for mut old in [old, again] {
        assert!(old.get(key, None).await.is_err());
        assert!(old.put(key, "old", None).await.is_err());
        assert!(old.delete(key, None).await.is_err());
    }
    // Nor does a leader of before that is late with its last step open anything.
    let late = tenancy.prepare(&before, None, Data::New).await;
    assert!(matches!(late, Err(TenancyError::SchemaTaken { .. })));
    root.user_add("a_b_1", "", Some(UserAddOptions::new().with_no_pwd()))
        .await
        .unwrap();
    let granted = root.user_grant_role("a_b_1", before.role()).await;
    assert!(granted.is_err(), "the role is gone with its tenant");
    let found = new.get(key, None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"new");
    assert_eq!(tenancy.check(&after, None).await, Ok(Access::Exact));
}

/// rule 17: whoever is late with dropping data deletes nothing of the tenant that
/// has the names now.
#[tokio::test]
async fn data_is_dropped_only_while_the_claim_stands() {
    let (_etcd, tenancy, mut root) = ready().await;
    let (before, after) = (claim("1", "a", "u"), claim("2", "a", "u"));
    tenancy.prepare(&before, None, Data::New).await.unwrap();
    let key = |n: usize| format!("/a/registry/{n:06}");
    let all: Vec<_> = (0..30_000).collect();
    for some in all.chunks(100) {
        let puts: Vec<_> = some
            .iter()
            .map(|n| TxnOp::put(key(*n), "x", None))
            .collect();
        root.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let next = serde_json::to_vec(&after).unwrap();
    let handed_over = async {
        while !root.get(key(0), None).await.unwrap().kvs().is_empty() {}
        let claims = ["schema/a", "user/u"].map(|name| {
            let key = format!("/steward.butlerlabs.dev/claims/{name}");
            TxnOp::put(key, next.clone(), None)
        });
        let puts = [claims.to_vec(), vec![TxnOp::put(key(99_999), "new", None)]].concat();
        root.txn(Txn::new().and_then(puts)).await.unwrap();
    };
    let (dropped, ()) = tokio::join!(tenancy.drop_data(&before), handed_over);
    assert!(
        matches!(dropped, Err(TenancyError::SchemaTaken { .. })),
        "{dropped:?}"
    );
    let kept = root.get(key(99_999), None).await.unwrap();
    assert_eq!(kept.kvs()[0].value(), b"new");
}

/// A claim made before claims named a role keeps the role of that time.
#[tokio::test]
async fn claims_of_earlier_versions_keep_their_role() {
    let (_etcd, tenancy, mut root) = ready().await;
    let old = claim("1", "a", "a");
    tenancy.prepare(&old, None, Data::New).await.unwrap();
    let key = "/steward.butlerlabs.dev/claims/schema/a";
    let stored = root.get(key, None).await.unwrap();
    let stored = stored.kvs()[0].value_str().unwrap().to_owned();
    assert!(!stored.contains("role"), "{stored}");
    let found = tenancy.claims("1").await.unwrap();
    assert_eq!(found, [old]);
    assert_eq!(found[0].role(), "a");
    let mut other = found[0].clone();
    other.role = Some("root".to_owned());
    let refused = tenancy.prepare(&other, None, Data::New).await;
    assert!(matches!(refused, Err(TenancyError::Refused(_))));
}

/// All keys, users and roles.
async fn everything(root: &mut Client) -> (Vec<Vec<u8>>, Vec<String>, Vec<String>) {
    let all = etcd_client::GetOptions::new().with_all_keys();
    let keys = root.get("", Some(all)).await.unwrap();
    let keys = keys.kvs().iter().map(|pair| pair.key().to_vec()).collect();
    let users = root.user_list().await.unwrap().users().to_vec();
    let roles = root.role_list().await.unwrap().roles().to_vec();
    (keys, users, roles)
}

#[tokio::test]
async fn a_name_belongs_to_who_claimed_it_first() {
    let (_etcd, tenancy, mut root) = ready().await;
    let first = claim("1", "a", "u");
    tenancy.prepare(&first, None, Data::New).await.unwrap();
    root.put("/a/registry/x", "1", None).await.unwrap();
    for (thief, what) in [
        (claim("2", "a", "v"), "schema \"a\""),
        (claim("2", "b", "u"), "user \"u\""),
    ] {
        let taken = Err(TenancyError::SchemaTaken {
            what: what.to_owned(),
            uid: "1".to_owned(),
            namespace: "default".to_owned(),
            name: "tenant-1".to_owned(),
        });
        assert_eq!(tenancy.prepare(&thief, None, Data::New).await, taken);
        assert_eq!(tenancy.check(&thief, None).await.map(|_| ()), taken);
        // The thief's own deletion touches nothing of the holder's.
        assert_eq!(tenancy.revoke(&thief).await, taken);
        assert_eq!(tenancy.drop_data(&thief).await, taken);
        assert_eq!(tenancy.release(&thief).await, taken);
        assert_eq!(tenancy.remaining(&thief).await.map(|_| ()), taken);
    }
    assert_eq!(tenancy.check(&first, None).await, Ok(Access::Exact));
    assert_eq!(root.get("/a/registry/x", None).await.unwrap().count(), 1);
    // Nothing was left behind of the attempts.
    let (_, users, roles) = everything(&mut root).await;
    assert_eq!((users.len(), roles.len()), (2, 2));
}

#[tokio::test]
async fn many_who_want_one_name_at_once() {
    let (_etcd, tenancy, _root) = ready().await;
    let wanting = (1..=8).map(|uid| claim(&uid.to_string(), "a", "a"));
    let wanting: Vec<_> = wanting.collect();
    let asked = wanting
        .iter()
        .map(|claim| tenancy.prepare(claim, None, Data::New));
    let answers = futures::future::join_all(asked).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.is_ok()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    for answer in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(
            matches!(
                answer,
                TenancyError::SchemaTaken { .. } | TenancyError::Refused(_)
            ),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn what_others_left_is_not_taken_over() {
    let (_etcd, tenancy, mut root) = ready().await;
    root.put("/registry/pods/x", "1", None).await.unwrap();
    root.user_add("alice", "secret", None).await.unwrap();
    root.role_add("backup").await.unwrap();
    for (schema, user, word) in [
        ("registry", "u", "1 keys under /registry/"),
        ("s", "alice", "user \"alice\""),
        ("backup", "u", "role \"backup\""),
    ] {
        let refused = tenancy
            .prepare(&claim("1", schema, user), None, Data::New)
            .await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
        // It is not ours to delete either.
        let claim = claim("1", schema, user);
        tenancy.revoke(&claim).await.unwrap();
        tenancy.drop_data(&claim).await.unwrap();
        tenancy.release(&claim).await.unwrap();
    }
    let (keys, users, roles) = everything(&mut root).await;
    assert_eq!(keys, [b"/registry/pods/x".to_vec()]);
    assert_eq!(users, ["alice", "root"]);
    assert_eq!(roles, ["backup", "root"]);
}

/// What Kamaji leaves in an etcd, and only that, is claimed when an administrator says so.
#[tokio::test]
async fn the_place_of_another_operators_tenant_is_adopted() {
    let (_etcd, tenancy, mut root) = ready().await;
    let theirs = claim("1", "s", "u");
    let refused = |outcome: Result<bool, TenancyError>, word: &str| {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    };
    refused(tenancy.adopt(&theirs).await, "no place of a kube-apiserver");
    root.put("/s/namespaces/kube-system", "1", None)
        .await
        .unwrap();
    refused(tenancy.adopt(&theirs).await, "user \"u\"");
    root.role_add("s").await.unwrap();
    let range = |from: &str, to: &str| Permission::read_write(from).with_range_end(to);
    root.role_grant_permission("s", range("/", "0"))
        .await
        .unwrap();
    let options = UserAddOptions::new().with_no_pwd();
    root.user_add("u", "", Some(options)).await.unwrap();
    root.user_grant_role("u", "s").await.unwrap();
    refused(tenancy.adopt(&theirs).await, "role \"s\"");
    let wide = RoleRevokePermissionOptions::new().with_range_end("0");
    root.role_revoke_permission("s", "/", Some(wide))
        .await
        .unwrap();
    root.role_grant_permission("s", range("/s/", "/s0"))
        .await
        .unwrap();
    assert_eq!(tenancy.claims("1").await.unwrap(), []);
    assert!(tenancy.may_adopt(&theirs).await.unwrap());
    assert_eq!(tenancy.claims("1").await.unwrap(), []);
    assert!(tenancy.adopt(&theirs).await.unwrap());
    assert!(!tenancy.adopt(&theirs).await.unwrap(), "once");
    assert_eq!(
        tenancy.claims("1").await.unwrap(),
        std::slice::from_ref(&theirs)
    );
    assert_eq!(tenancy.check(&theirs, None).await.unwrap(), Access::Exact);
    tenancy.prepare(&theirs, None, Data::Kept).await.unwrap();
    // Neither is it given to another, nor another place to it.
    let taken = tenancy.adopt(&claim("2", "s", "u")).await.unwrap_err();
    assert!(matches!(taken, TenancyError::SchemaTaken { .. }), "{taken}");
    refused(tenancy.adopt(&claim("1", "z", "z")).await, "has claimed");
}

#[tokio::test]
async fn drift_is_seen_and_repaired() {
    let (_etcd, tenancy, mut root) = ready().await;
    let a = claim("1", "a", "u");
    tenancy.prepare(&a, None, Data::New).await.unwrap();
    root.role_add("more").await.unwrap();
    for drift in 0..6 {
        match drift {
            0 => {
                let all = Permission::read_write("").with_all_keys();
                root.role_grant_permission("a", all).await.map(drop)
            }
            1 => {
                let read = Permission::read("/a/").with_range_end("/a0");
                root.role_grant_permission("a", read).await.map(drop)
            }
            2 => root.user_grant_role("u", "more").await.map(drop),
            3 => root.user_revoke_role("u", "a").await.map(drop),
            4 => root.user_delete("u").await.map(drop),
            _ => root.role_delete("a").await.map(drop),
        }
        .unwrap();
        let seen = tenancy.check(&a, None).await.unwrap();
        assert!(matches!(seen, Access::Differs(_)), "drift {drift}");
        tenancy.prepare(&a, None, Data::New).await.unwrap();
        assert_eq!(
            tenancy.check(&a, None).await,
            Ok(Access::Exact),
            "drift {drift}"
        );
    }
}

#[tokio::test]
async fn somebody_compacts() {
    let (_etcd, tenancy, mut root) = ready().await;
    for n in 0..20 {
        root.put("/x", n.to_string(), None).await.unwrap();
    }
    let old = revision(&*tenancy).await - 5;
    assert_eq!(
        tenancy.compact_older_than(0).await,
        Ok(Compaction::ByOthers)
    );
    assert_eq!(tenancy.compact_older_than(old).await, Ok(Compaction::ByUs));
    let again = tenancy.compact_older_than(old).await;
    assert_eq!(again, Ok(Compaction::ByOthers));
    let earlier = tenancy.compact_older_than(old - 5).await;
    assert_eq!(earlier, Ok(Compaction::ByOthers));
    let later = tenancy.compact_older_than(old + 2).await;
    assert_eq!(later, Ok(Compaction::ByUs));
}

#[tokio::test]
async fn a_full_datastore_says_so() {
    let etcd = Etcd::start_with(&["--client-cert-auth", "--quota-backend-bytes=2000000"]);
    let root = etcd.authority.client("root");
    bootstrap(etcd.connection(&root)).await.unwrap();
    let tenancy = connect(etcd.connection(&root)).unwrap();
    let mut client = etcd.client(&root).await;
    let mut n = 0;
    while client
        .put(format!("/x/{n}"), vec![0; 200_000], None)
        .await
        .is_ok()
    {
        n += 1;
        assert!(n < 100, "the quota does not bite");
    }
    let health = tenancy.verify().await.unwrap();
    assert_eq!(health.alarms, [Alarm::NoSpace]);
    let full = tenancy
        .prepare(&claim("1", "a", "a"), None, Data::New)
        .await;
    assert!(matches!(full, Err(TenancyError::NoSpace(_))), "{full:?}");
}

#[tokio::test]
async fn silence_and_absence_end_by_the_deadline() {
    let (etcd, tenancy, _root) = ready().await;
    tenancy.verify().await.unwrap();
    etcd.signal("STOP");
    let begin = Instant::now();
    let silent = tenancy.verify().await.unwrap_err();
    assert!(matches!(silent, TenancyError::Unreachable(_)), "{silent}");
    assert!(begin.elapsed() < Connection::DEADLINE + Duration::from_secs(3));
    etcd.signal("CONT");
    // What was asked while it stood still may yet end in a reset.
    let begin = Instant::now();
    while let Err(error) = tenancy.verify().await {
        assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
        assert!(begin.elapsed() < Connection::DEADLINE, "{error}");
    }
    etcd.signal("KILL");
    let limit = Connection::DEADLINE + Duration::from_secs(3);
    let begin = Instant::now();
    // The connection of before is reset; the next one is refused.
    loop {
        let absent = tenancy.verify().await.unwrap_err();
        assert!(matches!(absent, TenancyError::Unreachable(_)), "{absent}");
        assert!(begin.elapsed() < limit, "{absent}");
        if absent.to_string().contains("refused") {
            break;
        }
    }
}

#[tokio::test]
async fn strangers_are_told_apart() {
    let (etcd, _tenancy, _root) = ready().await;
    let patience = Duration::from_secs(2);
    let verify = async |connection: Connection| {
        let connection = Connection {
            deadline: patience,
            ..connection
        };
        connect(connection).unwrap().verify().await.unwrap_err()
    };
    let foreign = Authority::new();
    let root = etcd.authority.client("root");

    let mut server = etcd.connection(&root);
    server.ca_pem = Some(foreign.cert.clone().into_bytes());
    let error = verify(server).await;
    assert!(matches!(error, TenancyError::Unauthenticated(_)), "{error}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let error = verify(etcd.connection(&foreign.client("root"))).await;
    assert!(matches!(error, TenancyError::Unauthenticated(_)), "{error}");

    let error = verify(etcd.connection(&etcd.authority.client("somebody"))).await;
    assert!(error.to_string().contains("root"), "{error}");
    assert!(!matches!(error, TenancyError::Unreachable(_)), "{error}");

    let mut broken = etcd.connection(&root);
    broken.client_key = Some(foreign.client("root").key.into_bytes());
    let error = connect(broken).err().unwrap();
    assert!(matches!(error, TenancyError::Refused(_)), "{error}");
    let mut other = etcd.connection(&root);
    other.driver = "MySQL".to_owned();
    let error = connect(other).err().unwrap();
    assert!(error.to_string().contains("\"MySQL\""), "{error}");
}

/// Rule 17: what a tenant has is asked of the datastore, by uid, among any number of
/// claims of others.
#[tokio::test]
async fn claims_are_found_by_uid() {
    let (_etcd, tenancy, mut root) = ready().await;
    let first = claim("1", "z", "z");
    let second = claim("1", "b", "c");
    for claim in [&first, &second, &claim("2", "m", "m")] {
        tenancy.prepare(claim, None, Data::New).await.unwrap();
    }
    for n in 0..1_203 {
        let key = format!("/steward.butlerlabs.dev/claims/schema/other-{n:04}");
        let name = format!("other-{n:04}");
        let value = serde_json::to_vec(&claim("9", &name, &name)).unwrap();
        root.put(key, value, None).await.unwrap();
    }
    assert_eq!(
        tenancy.claims("1").await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(tenancy.claims("9").await.unwrap().len(), 1_203);
    assert_eq!(tenancy.claims("3").await.unwrap(), []);
    tenancy.revoke(&first).await.unwrap();
    tenancy.release(&first).await.unwrap();
    assert_eq!(tenancy.claims("1").await.unwrap(), [second]);
}
