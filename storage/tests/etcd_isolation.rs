//! What a tenant's own certificate can do in an etcd that it shares: everything
//! that the protocol has, over the whole key space, with names that are prefixes
//! of each other. The module documentation of `storage::tenancy::etcd` says in
//! words what this test says in code; keep them the same.

mod lab;

use std::fmt::Debug;

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, DeleteOptions, DowngradeOptions, Error,
    GetOptions, LeaseTimeToLiveOptions, MemberAddOptions, Permission, PutOptions, Txn, TxnOp,
    WatchOptions,
};
use lab::{Etcd, claim};
use storage::tenancy::etcd::bootstrap;
use storage::tenancy::{Access, Data, Tenancy, connect};

/// The tenant that tries: its schema is a prefix of the others'.
const OWN: &str = "/a/";
/// Keys that are not its own: other tenants', the claims, the administrator's,
/// those just outside its range, and the ends of the key space.
const FOREIGN: [&str; 14] = [
    "/ab/x",
    "/a-b/x",
    "/a",
    "/a0",
    "/a.",
    "/A/x",
    "/",
    "a/",
    "\0",
    "\u{10FFFF}",
    "/registry/pods/x",
    "/steward.butlerlabs.dev/claims/schema/a",
    "/steward.butlerlabs.dev/claims/user/a",
    "/steward.butlerlabs.dev/claims/schema/ab",
];
/// Ranges that reach beyond its own.
const WIDE: [(&str, &str); 9] = [
    ("/a/", "/a1"),
    ("/a", "/a0"),
    ("/a", "/b"),
    ("/a/", "\0"),
    ("/", "0"),
    ("\0", "\0"),
    ("/a0", "/b"),
    ("/ab/", "/ab0"),
    ("/steward.butlerlabs.dev/", "/steward.butlerlabs.dev0"),
];

struct Lab {
    etcd: Etcd,
    tenancy: Box<dyn Tenancy>,
    root: Client,
    a: Client,
    b: Client,
}

async fn lab() -> Lab {
    let etcd = Etcd::start();
    let root = etcd.authority.client("root");
    bootstrap(etcd.connection(&root)).await.unwrap();
    let tenancy = connect(etcd.connection(&root)).unwrap();
    for (uid, name) in [("1", "a"), ("2", "ab"), ("3", "a-b")] {
        tenancy
            .prepare(&claim(uid, name, name), None, Data::New)
            .await
            .unwrap();
    }
    let mut lab = Lab {
        a: etcd.client(&etcd.authority.client("a")).await,
        b: etcd.client(&etcd.authority.client("ab")).await,
        root: etcd.client(&root).await,
        tenancy,
        etcd,
    };
    for key in ["/ab/x", "/a-b/x", "/registry/pods/x", "/a/x"] {
        lab.root.put(key, "secret", None).await.unwrap();
    }
    lab
}

#[track_caller]
fn refused<T: Debug>(what: &str, answer: Result<T, Error>) {
    match answer {
        Err(Error::GRpcStatus(status)) => assert!(
            status.message().contains("permission denied"),
            "{what}: refused, but with {status:?}"
        ),
        // A watch and a keep-alive are refused in their own words.
        Err(Error::WatchError(_) | Error::LeaseKeepAliveError(_)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn keys() {
    let lab = lab().await;
    let mut a = lab.a;
    a.put("/a/y", "1", None).await.unwrap();
    let all = GetOptions::new().with_prefix();
    assert_eq!(a.get(OWN, Some(all)).await.unwrap().count(), 2);
    let (_, mut events) = watch(&mut a, OWN, "/a0").await.unwrap();
    a.delete("/a/y", None).await.unwrap();
    assert!(events.message().await.unwrap().is_some());

    for key in FOREIGN {
        refused(key, a.get(key, None).await);
        let old = GetOptions::new().with_serializable().with_revision(2);
        refused(key, a.get(key, Some(old)).await);
        let count = GetOptions::new().with_count_only();
        refused(key, a.get(key, Some(count)).await);
        refused(key, a.put(key, "mine", None).await);
        refused(key, a.delete(key, None).await);
        refused(key, watch(&mut a, key, "").await);
    }
    for (from, to) in WIDE {
        let what = format!("{from:?} to {to:?}");
        let range = GetOptions::new().with_range(to);
        refused(&what, a.get(from, Some(range.clone())).await);
        let few = range.with_limit(1).with_keys_only();
        refused(&what, a.get(from, Some(few)).await);
        let range = DeleteOptions::new().with_range(to);
        refused(&what, a.delete(from, Some(range)).await);
        refused(&what, watch(&mut a, from, to).await);
    }
}

async fn watch(
    client: &mut Client,
    from: &str,
    to: &str,
) -> Result<(i64, etcd_client::WatchStream), Error> {
    let mut options = WatchOptions::new().with_start_revision(1).with_prev_key();
    if !to.is_empty() {
        options = options.with_range(to);
    }
    let mut stream = client.watch(from, Some(options)).await?;
    let answer = stream.message().await?;
    match answer {
        Some(answer) if answer.canceled() => {
            Err(Error::WatchError(answer.cancel_reason().to_owned()))
        }
        Some(answer) => Ok((answer.watch_id(), stream)),
        None => Err(Error::WatchError("ended".to_owned())),
    }
}

impl Lab {
    async fn txn(&mut self, txn: Txn) -> Result<(), Error> {
        self.a.txn(txn).await.map(drop)
    }
}

#[tokio::test]
async fn transactions() {
    let mut lab = lab().await;
    let own = || TxnOp::put("/a/x", "1", None);
    lab.txn(Txn::new().and_then([own()])).await.unwrap();
    for key in FOREIGN {
        let operations = [
            TxnOp::get(key, None),
            TxnOp::put(key, "mine", None),
            TxnOp::put(key, "mine", Some(PutOptions::new().with_prev_key())),
            TxnOp::delete(key, None),
            TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key())),
        ];
        for operation in operations {
            let what = format!("{operation:?}");
            let op = || operation.clone();
            let nested = TxnOp::txn(Txn::new().and_then([op()]));
            let deep = TxnOp::txn(Txn::new().or_else([nested.clone()]));
            refused(&what, lab.txn(Txn::new().and_then([op()])).await);
            refused(&what, lab.txn(Txn::new().or_else([op()])).await);
            refused(&what, lab.txn(Txn::new().and_then([own(), op()])).await);
            refused(&what, lab.txn(Txn::new().and_then([nested])).await);
            refused(&what, lab.txn(Txn::new().and_then([deep])).await);
        }
        // A comparison tells about a key, too.
        for compare in [
            Compare::value(key, CompareOp::Equal, "secret"),
            Compare::create_revision(key, CompareOp::Greater, 0),
            Compare::version("/a/x", CompareOp::Equal, 1).with_range("/b"),
        ] {
            let compared = Txn::new().when([compare]).and_then([own()]);
            refused(key, lab.txn(compared.clone()).await);
            let nested = Txn::new().and_then([TxnOp::txn(compared)]);
            refused(key, lab.txn(nested).await);
        }
    }
    let mut root = lab.root;
    let untouched = root.get("/ab/x", None).await.unwrap();
    assert_eq!(untouched.kvs()[0].value(), b"secret");
    assert_eq!(untouched.kvs()[0].version(), 1);
}

#[tokio::test]
async fn leases() {
    let lab = lab().await;
    let (mut a, mut b) = (lab.a, lab.b);
    let own = a.lease_grant(600, None).await.unwrap().id();
    let with = |lease| Some(PutOptions::new().with_lease(lease));
    a.put("/a/leased", "1", with(own)).await.unwrap();
    a.lease_keep_alive(own).await.unwrap();

    let theirs = b.lease_grant(600, None).await.unwrap().id();
    b.put("/ab/leased", "1", with(theirs)).await.unwrap();
    refused("revoke", a.lease_revoke(theirs).await);
    refused("attach", a.put("/a/x", "1", with(theirs)).await);
    let inside = Txn::new().and_then([TxnOp::put("/a/x", "1", with(theirs))]);
    refused("attach in a transaction", a.txn(inside).await);
    let keys = LeaseTimeToLiveOptions::new().with_keys();
    let keys = a.lease_time_to_live(theirs, Some(keys)).await;
    refused("keys of a lease", keys);
    refused("list while others have leases", a.leases().await);
    let renewed = async {
        let (mut keeper, mut stream) = a.lease_keep_alive(theirs).await?;
        keeper.keep_alive().await?;
        stream.message().await
    };
    refused("renew", renewed.await);
    assert_eq!(b.get("/ab/leased", None).await.unwrap().count(), 1);

    // What etcd does allow, each of it said in the documentation.
    let known = a.lease_time_to_live(theirs, None).await.unwrap();
    assert!(
        known.ttl() > 0,
        "the time left of a known lease can be read"
    );
    b.delete("/ab/leased", None).await.unwrap();
    let unattached = b.lease_grant(600, None).await.unwrap().id();
    let listed = a.leases().await.unwrap();
    assert!(listed.leases().iter().any(|l| l.id() == unattached));
    a.lease_revoke(unattached).await.unwrap();
}

#[tokio::test]
async fn maintenance() {
    let lab = lab().await;
    let (mut a, mut root) = (lab.a, lab.root);
    let revision = root.get("x", None).await.unwrap();
    let revision = revision.header().unwrap().revision();
    refused("compact", a.compact(revision, None).await);
    refused("compact", a.compact(1, None).await);
    for alarm in [AlarmType::None, AlarmType::Nospace, AlarmType::Corrupt] {
        for action in [AlarmAction::Activate, AlarmAction::Deactivate] {
            refused("alarm", a.alarm(action, alarm, None).await);
        }
    }
    refused("defragment", a.defragment().await);
    refused("hash", a.hash().await);
    refused("hash of keys", a.hash_kv(0).await);
    let snapshot = async { a.snapshot().await?.message().await };
    refused("snapshot", snapshot.await);
    refused("move leader", a.move_leader(1).await);
    let mut maintenance = a.maintenance_client();
    let downgrade = DowngradeOptions::Enable("3.5".to_owned());
    refused("downgrade", maintenance.downgrade(downgrade).await);
    let peer = ["http://127.0.0.1:1"];
    let learner = MemberAddOptions::new().with_is_learner();
    refused("add member", a.member_add(peer, Some(learner)).await);
    let id = root.member_list().await.unwrap().members()[0].id();
    let update = a.member_update(id, [peer[0].to_owned()]);
    refused("update member", update.await);
    refused("remove member", a.member_remove(id).await);
    refused("promote member", a.member_promote(id).await);

    // What etcd does allow.
    assert!(!a.status().await.unwrap().version().is_empty());
    let none = a.alarm(AlarmAction::Get, AlarmType::None, None).await;
    assert!(none.unwrap().alarms().is_empty());
    assert_eq!(a.member_list().await.unwrap().members().len(), 1);
}

#[tokio::test]
async fn users_and_roles() {
    let lab = lab().await;
    let mut a = lab.a;
    refused("switch off", a.auth_disable().await);
    refused("switch on", a.auth_enable().await);
    refused("list users", a.user_list().await);
    refused("list roles", a.role_list().await);
    for user in ["root", "ab", "a-b"] {
        refused("get user", a.user_get(user).await);
        refused("get role", a.role_get(user).await);
        refused("delete user", a.user_delete(user).await);
        refused("delete role", a.role_delete(user).await);
        refused("password", a.user_change_password(user, "x").await);
        refused("take a role", a.user_grant_role("a", user).await);
        refused("take a role", a.user_revoke_role(user, user).await);
        let range = Permission::read_write("/ab/").with_range_end("/ab0");
        refused("grant", a.role_grant_permission(user, range.clone()).await);
        refused("grant", a.role_grant_permission("a", range).await);
        let revoked = a.role_revoke_permission(user, "/ab/", None).await;
        refused("revoke permission", revoked);
    }
    refused("password", a.user_change_password("a", "x").await);
    refused("delete itself", a.user_delete("a").await);
    refused("add user", a.user_add("c", "x", None).await);
    refused("add role", a.role_add("c").await);

    // What etcd does allow.
    assert_eq!(a.user_get("a").await.unwrap().roles(), ["a"]);
    assert_eq!(a.role_get("a").await.unwrap().permissions().len(), 1);

    for (uid, name) in [("1", "a"), ("2", "ab"), ("3", "a-b")] {
        let access = lab.tenancy.check(&claim(uid, name, name), None).await;
        assert_eq!(access, Ok(Access::Exact), "{name}");
    }
}

/// A certificate of the right authority without a user, and one whose user was
/// revoked, are nobody.
#[tokio::test]
async fn nobody() {
    let lab = lab().await;
    let nobody = lab.etcd.authority.client("nobody");
    let mut nobody = lab.etcd.client(&nobody).await;
    lab.tenancy.revoke(&claim("1", "a", "a")).await.unwrap();
    let mut revoked = lab.a;
    for client in [&mut nobody, &mut revoked] {
        for key in ["/a/x", "/ab/x", "/nobody/x", "/"] {
            assert!(client.get(key, None).await.is_err());
            assert!(client.put(key, "1", None).await.is_err());
            assert!(client.delete(key, None).await.is_err());
            assert!(watch(client, key, "").await.is_err());
        }
        assert!(client.compact(1, None).await.is_err());
        assert!(client.auth_disable().await.is_err());
        assert!(client.user_list().await.is_err());
        let raise = client.alarm(AlarmAction::Activate, AlarmType::Nospace, None);
        assert!(raise.await.is_err());
    }
}
