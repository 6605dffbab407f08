//! The life of tenants in a real NATS.

mod lab;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lab::claim;
use lab::nats::{
    File, Nats, Settings, ask, connection, credentials, enter, granted, kine, start, start_with,
    tenant,
};
use lab::sql::{Kine, secret};
use nkeys::KeyPair;
use serde_json::{Value, json};
use storage::tenancy::{
    Access, Alarm, Claim, Compaction, Connection, Data, Password, Tenancy, TenancyError, connect,
};

fn ready() -> (Nats, Box<dyn Tenancy>) {
    let server = start();
    let tenancy = connect(connection(&server)).unwrap();
    (server, tenancy)
}

async fn prepare(tenancy: &dyn Tenancy, claim: &Claim) -> Result<(), TenancyError> {
    tenancy.prepare(claim, Some(&secret()), Data::New).await
}

/// The accounts, with their tokens, and what JetStream stores, by names. Of an account that
/// was deleted the server keeps the token under another name, and an empty directory.
fn everything(server: &Nats) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in walk(&server.directory().join("accounts")) {
        if path.extension().is_some_and(|end| end == "jwt") {
            let token = std::fs::read_to_string(&path).unwrap();
            found.insert(path.display().to_string(), token);
        }
    }
    for path in walk(&server.directory().join("jetstream")) {
        if path.ends_with("meta.inf") {
            found.insert(path.display().to_string(), String::new());
        }
    }
    found
}

fn payload(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

fn account_of(claim: &Claim) -> String {
    let credentials = credentials(claim);
    let user = payload(credentials.lines().nth(1).unwrap());
    user["nats"]["issuer_account"].as_str().unwrap().to_owned()
}

/// What JetStream stores of one account.
fn stored(server: &Nats, claim: &Claim) -> Vec<std::path::PathBuf> {
    walk(&server.directory().join("jetstream").join(account_of(claim)))
}

/// The account's token, read.
fn account(server: &Nats, claim: &Claim) -> Value {
    let account = account_of(claim);
    let files = walk(&server.directory().join("accounts"));
    let file = files
        .iter()
        .find(|it| it.ends_with(format!("{account}.jwt")));
    payload(&std::fs::read_to_string(file.unwrap()).unwrap())
}

/// As somebody does who has the operator's key.
async fn edit_account(server: &Nats, claim: &Claim, edit: impl FnOnce(&mut Value)) {
    let operator = KeyPair::from_seed(&server.operator).unwrap();
    let mut token = account(server, claim);
    edit(&mut token["nats"]);
    token["iat"] = json!(token["iat"].as_u64().unwrap() + 1);
    token["jti"] = json!("edited");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "ed25519-nkey", "typ": "JWT" });
    let signed = format!("{}.{}", part(&header), part(&token));
    let signature = URL_SAFE_NO_PAD.encode(operator.sign(signed.as_bytes()).unwrap());
    let system = enter(server, &server.system).await.unwrap();
    let token = format!("{signed}.{signature}");
    let answer = ask(&system, "$SYS.REQ.CLAIMS.UPDATE", &token)
        .await
        .unwrap();
    assert_eq!(answer["data"]["code"], 200, "{answer}");
}

/// The files below a directory. What its server removes meanwhile is not there.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
        entries => entries.unwrap(),
    };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn a_tenant_lives_and_leaves_nothing() {
    let (server, tenancy) = ready();
    let fresh = tenancy.verify().await.unwrap();
    assert!(fresh.authentication);
    assert_eq!(fresh.gaps, Vec::<String>::new());
    assert_eq!(fresh.alarms, []);
    assert!(fresh.version.starts_with("2."), "{}", fresh.version);
    assert_eq!(fresh.quota, Some(1 << 30));
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    let a = claim("1", "default_tenant-1", "default_user-1");
    assert_eq!(
        tenancy.check(&a, Some(&secret())).await,
        Ok(Access::Unclaimed)
    );
    let none = tenancy.prepare(&a, None, Data::New).await.unwrap_err();
    assert!(none.to_string().contains("needs a password"), "{none}");

    // One that comes and goes, so that what remains of everybody is there.
    let first = claim("0", "first", "first");
    prepare(&*tenancy, &first).await.unwrap();
    tenancy.revoke(&first).await.unwrap();
    tenancy.drop_data(&first).await.unwrap();
    tenancy.release(&first).await.unwrap();
    let before = everything(&server);

    prepare(&*tenancy, &a).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Exact));
    assert_eq!(tenancy.claims("1").await, Ok(vec![granted(&a)]));

    // What is as it should be is not written again (rule 20).
    let quiet = everything(&server);
    assert_ne!(quiet, before);
    prepare(&*tenancy, &a).await.unwrap();
    assert_eq!(everything(&server), quiet);

    let open = tenant(&server, &a).await.unwrap();
    let value = "x".repeat(10_000);
    for key in 0..20 {
        let subject = format!("$KV.{}.{key}", a.schema);
        ask(&open, &subject, &value).await.unwrap();
    }
    assert!(!stored(&server, &a).is_empty());
    assert_eq!(tenancy.remaining(&a).await, Ok(2));
    let early = tenancy.release(&a).await;
    assert!(matches!(early, Err(TenancyError::Refused(_))), "{early:?}");
    let claimants = tenancy.claimants().await.unwrap();
    assert!(claimants.iter().eq([&a.uid]), "{claimants:?}");
    assert_eq!(tenancy.compact_older_than(5).await, Ok(Compaction::NotOurs));

    tenancy.revoke(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    let info = format!("$JS.API.STREAM.INFO.KV_{}", a.schema);
    assert!(ask(&open, &info, "").await.is_err(), "what is open ends");
    assert!(tenant(&server, &a).await.is_err());
    assert_eq!(tenancy.remaining(&a).await, Ok(2));
    let revoked = tenancy.check(&a, None).await;
    assert!(matches!(revoked, Ok(Access::Differs(_))), "{revoked:?}");
    tenancy.drop_data(&a).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
    // Until it is released nobody else may have the name (rule 18).
    let other = claim("2", &a.schema, "other");
    let taken = prepare(&*tenancy, &other).await;
    assert!(
        matches!(taken, Err(TenancyError::SchemaTaken { .. })),
        "{taken:?}"
    );
    tenancy.release(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Unclaimed));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    assert_eq!(everything(&server), before);
    assert_eq!(stored(&server, &a), Vec::<std::path::PathBuf>::new());
    prepare(&*tenancy, &other).await.unwrap();
    let log = server.log();
    assert!(!log.contains(secret().expose()), "in the server's log");
}

/// A server takes no token for an account that was deleted which it had for it before.
#[tokio::test]
async fn one_that_comes_again_at_once_gets_in() {
    let (server, tenancy) = ready();
    let a = claim("1", "again", "again");
    let now = || UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut hit = false;
    for _ in 0..5 {
        prepare(&*tenancy, &a).await.unwrap();
        assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
        assert!(tenant(&server, &a).await.is_ok());
        tenancy.revoke(&a).await.unwrap();
        let closed = account(&server, &a)["iat"].as_u64().unwrap();
        tenancy.drop_data(&a).await.unwrap();
        tenancy.release(&a).await.unwrap();
        // The account begins closed as well, in the second of which the last token is.
        while now() < closed {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        hit |= now() == closed;
    }
    assert!(hit, "slower than a second each time");
}

#[tokio::test]
async fn kine_works_with_the_tenants_own_credentials() {
    let (server, tenancy) = ready();
    let a = claim("1", "default_a", "default_a-1");
    prepare(&*tenancy, &a).await.unwrap();
    let file = File::of(&a);
    let mut beside = kine(&server, &a, &file);
    beside.work().await;
    // Another one, as a second pod or the next has it.
    let mut next = kine(&server, &a, &file);
    let mut client = next.client().await;
    let found = client.get("/registry/pods/x", None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"2");
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    // Compaction and a deletion, which writes twice.
    let done = client.delete("/registry/pods/x", None).await;
    drop(done);
    for log in [beside.log(), next.log()] {
        assert!(
            !log.to_lowercase().contains("permissions violation"),
            "{log}"
        );
    }
    // After a restart of the server it goes on.
    let mut server = server;
    server.stop();
    server.start_again().unwrap();
    let begin = std::time::Instant::now();
    while !matches!(
        Kine::create(&mut client, "/registry/pods/y").await,
        Ok(true)
    ) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", next.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));

    tenancy.revoke(&a).await.unwrap();
    assert!(Kine::create(&mut client, "/registry/pods/z").await.is_err());
}

#[tokio::test]
async fn kine_refuses_a_server_of_strangers() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let file = File::of(&a);
    Kine::refuses_strangers(&lab::nats::endpoint(&server, &a, &file));
}

#[tokio::test]
async fn names_belong_to_whom_they_were_given() {
    let (_server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    for (other, what) in [
        (claim("2", "a", "v"), "schema \"a\""),
        (claim("2", "b", "u"), "user \"u\""),
    ] {
        let taken = prepare(&*tenancy, &other).await.unwrap_err();
        let text = format!("{what} is claimed by tenant control plane default/tenant-1 (uid 1)");
        assert_eq!(taken.to_string(), text);
        for touched in [
            tenancy.revoke(&other).await,
            tenancy.drop_data(&other).await,
            tenancy.release(&other).await,
        ] {
            assert!(
                matches!(touched, Err(TenancyError::SchemaTaken { .. })),
                "{touched:?}"
            );
        }
        // What was refused holds nothing.
        assert_eq!(tenancy.claims("2").await, Ok(vec![]));
    }
    // The same tenant with another name has two claims, or none.
    for other in [claim("1", "a", "v"), claim("1", "b", "u")] {
        let refused = prepare(&*tenancy, &other).await;
        assert!(
            matches!(refused, Err(TenancyError::Refused(_))),
            "{refused:?}"
        );
    }
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let second = claim("1", "c", "w");
    prepare(&*tenancy, &second).await.unwrap();
    let both = vec![granted(&a), granted(&second)];
    assert_eq!(tenancy.claims("1").await, Ok(both));
}

#[tokio::test]
async fn of_many_who_claim_one_wins() {
    let (server, tenancy) = ready();
    // Each by a connection of its own, as different replicas of a controller.
    let others: Vec<_> = (0..6)
        .map(|uid| {
            let tenancy = connect(connection(&server)).unwrap();
            (tenancy, claim(&uid.to_string(), "a", "u"))
        })
        .collect();
    let all = others
        .iter()
        .map(|(tenancy, claim)| prepare(&**tenancy, claim));
    let done = futures::future::join_all(all).await;
    assert_eq!(done.iter().filter(|it| it.is_ok()).count(), 1, "{done:?}");
    let claimants = tenancy.claimants().await.unwrap();
    assert_eq!(claimants.len(), 1);
    for (result, (_, claim)) in done.iter().zip(&others) {
        match result {
            Ok(()) => assert!(claimants.contains(&claim.uid)),
            Err(error) => {
                assert!(
                    matches!(error, TenancyError::SchemaTaken { .. }),
                    "{error:?}"
                );
                assert!(tenant(&server, claim).await.is_err());
            }
        }
    }
}

#[tokio::test]
async fn rights_are_put_right() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let open = tenant(&server, &a).await.unwrap();
    // A key of somebody's is added to those that sign its users.
    let stranger = KeyPair::new_account();
    edit_account(&server, &a, |nats| {
        let mut own = nats["signing_keys"][1].clone();
        own["key"] = json!(stranger.public_key());
        nats["signing_keys"].as_array_mut().unwrap().push(own);
    })
    .await;
    let other = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(matches!(other, Access::Differs(_)), "{other:?}");
    tenancy
        .prepare(&a, Some(&secret()), Data::Kept)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert!(
        !account(&server, &a)
            .to_string()
            .contains(&stranger.public_key())
    );
    // The account is deleted by somebody, with its data where it was.
    ask(&open, "$KV.a.key", "value").await.unwrap();
    let system = enter(&server, &server.system).await.unwrap();
    let listed = ask(&system, "$SYS.REQ.CLAIMS.LIST", "").await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 3, "{listed}");
    let mut server = server;
    server.stop();
    for file in walk(&server.directory().join("accounts")) {
        let token = std::fs::read_to_string(&file).unwrap();
        if token.len() > 1500 {
            std::fs::remove_file(file).unwrap();
        }
    }
    server.start_again().unwrap();
    let gone = tenancy.check(&a, Some(&secret())).await;
    let gone = match gone {
        // The connection that was open may be the first to find out.
        Err(TenancyError::Unreachable(_)) => tenancy.check(&a, Some(&secret())).await,
        other => other,
    };
    assert!(matches!(gone, Ok(Access::Differs(_))), "{gone:?}");
    tenancy
        .prepare(&a, Some(&secret()), Data::Kept)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let open = tenant(&server, &a).await.unwrap();
    let last = r#"{"last_by_subj":"$KV.a.key"}"#;
    let found = ask(&open, "$JS.API.STREAM.MSG.GET.KV_a", last)
        .await
        .unwrap();
    assert_eq!(found["message"]["data"], "dmFsdWU=");
}

/// Pods have the password of before until they are replaced, and the server would end their
/// connections at once.
#[tokio::test]
async fn a_former_password_lets_in_until_pods_have_the_new_one() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let file = File::of(&a);
    let mut kine = kine(&server, &a, &file);
    let mut client = kine.client().await;
    let open = tenant(&server, &a).await.unwrap();
    let info = "$JS.API.STREAM.INFO.KV_a";

    let next = Password::new("another-password-1");
    let other = tenancy.check(&a, Some(&next)).await.unwrap();
    assert!(matches!(other, Access::Differs(_)), "{other:?}");
    tenancy.prepare(&a, Some(&next), Data::Kept).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    let before = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(matches!(before, Access::Differs(_)), "{before:?}");
    let with_next = storage::tenancy::nats::credentials(&a, &next).unwrap();
    for (number, password) in ["once", "again"].into_iter().enumerate() {
        ask(&open, info, "").await.expect(password);
        tenant(&server, &a).await.expect(password);
        enter(&server, &with_next).await.expect(password);
        let key = format!("/registry/pods/{number}");
        assert!(Kine::create(&mut client, &key).await.unwrap());
        // What is made again does not change anything.
        tenancy.prepare(&a, Some(&next), Data::Kept).await.unwrap();
    }
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    let log = server.log();
    assert!(!log.contains("Authentication"), "{log}");

    // Its time is over.
    edit_account(&server, &a, |nats| {
        let text = nats["description"].as_str().unwrap();
        let (key, until) = text.rsplit_once(' ').unwrap();
        let past = until.parse::<u64>().unwrap() - 601;
        nats["description"] = json!(format!("{key} {past}"));
    })
    .await;
    ask(&open, info, "").await.expect("nobody has ended it yet");
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Former));
    tenancy.prepare(&a, Some(&next), Data::Kept).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    assert!(ask(&open, info, "").await.is_err(), "what is open ends");
    assert!(tenant(&server, &a).await.is_err());
    enter(&server, &with_next).await.unwrap();
}

#[tokio::test]
async fn data_that_is_gone_is_not_made_anew_in_silence() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    // Nobody knows of it: another datastore.
    let kept = tenancy.prepare(&a, Some(&secret()), Data::Kept).await;
    assert!(matches!(kept, Err(TenancyError::DataLost(_))), "{kept:?}");
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    prepare(&*tenancy, &a).await.unwrap();
    // Its streams are lost; an API server that starts makes the bucket anew.
    let mut server = server;
    server.stop();
    let streams = server.directory().join("jetstream");
    for account in std::fs::read_dir(&streams).unwrap() {
        let lost = account.unwrap().path().join("streams/KV_a");
        let _ = std::fs::remove_dir_all(lost);
    }
    server.start_again().unwrap();
    let tenancy = connect(connection(&server)).unwrap();
    let lost = tenancy.check(&a, Some(&secret())).await;
    assert!(matches!(lost, Ok(Access::Lost(_))), "{lost:?}");
    let kept = tenancy.prepare(&a, Some(&secret()), Data::Kept).await;
    assert!(matches!(kept, Err(TenancyError::DataLost(_))), "{kept:?}");
    let file = File::of(&a);
    kine(&server, &a, &file).client().await;
    let anew = tenancy.check(&a, Some(&secret())).await;
    assert!(
        matches!(&anew, Ok(Access::Lost(what)) if what.contains("made anew")),
        "{anew:?}"
    );
    // Who says so begins anew.
    prepare(&*tenancy, &a).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
}

#[tokio::test]
async fn hostile_names_are_refused_and_leave_nothing() {
    let (server, tenancy) = ready();
    prepare(&*tenancy, &claim("0", "first", "first"))
        .await
        .unwrap();
    let before = everything(&server);
    for bad in [
        ">",
        "*",
        "a.b",
        "a b",
        "a\r\nPUB x 1",
        "../a",
        "",
        "a>",
        "é",
    ] {
        let refused = prepare(&*tenancy, &claim("1", bad, "u")).await;
        assert!(matches!(refused, Err(TenancyError::Refused(_))), "{bad:?}");
    }
    for bad in [">", "*", "a b", "a\r\n", "", "a,b", "é"] {
        let refused = prepare(&*tenancy, &claim("1", "s", bad)).await;
        assert!(matches!(refused, Err(TenancyError::Refused(_))), "{bad:?}");
    }
    assert_eq!(everything(&server), before);
    // A uid is anything, and a name that is almost another's is another's.
    let hostile = claim("a/b > * \r\n \u{1f4a9}", "first_", "first.x");
    prepare(&*tenancy, &hostile).await.unwrap();
    assert_eq!(
        tenancy.check(&hostile, Some(&secret())).await,
        Ok(Access::Exact)
    );
    assert_eq!(
        tenancy.claims(&hostile.uid).await,
        Ok(vec![granted(&hostile)])
    );
    File::of(&hostile);
    assert!(credentials(&hostile).starts_with("-----BEGIN"));
}

#[tokio::test]
async fn servers_that_do_not_keep_tenants_apart_are_refused() {
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 3] = [
        (|it| it.operator = false, "operator mode"),
        (|it| it.allow_delete = false, "allow_delete: true"),
        (
            |it| it.jetstream = false,
            "JetStream of the NATS server is off",
        ),
    ];
    for (change, what) in cases {
        let mut settings = Settings::local();
        change(&mut settings);
        let server = start_with(&settings);
        let tenancy = connect(connection(&server)).unwrap();
        for refused in [
            tenancy.verify().await.map(drop),
            prepare(&*tenancy, &claim("1", "a", "u")).await,
        ] {
            let Err(TenancyError::Refused(text)) = refused else {
                panic!("{what}: {refused:?}");
            };
            assert!(text.contains(what), "{text}");
        }
    }
}

#[tokio::test]
async fn credentials_that_are_not_the_administrators() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let with = |change: fn(&mut Connection, &Nats)| {
        let mut connection = connection(&server);
        change(&mut connection, &server);
        connect(connection)
    };
    // Another operator's key.
    let stranger = with(|it, _| it.password = Some(start().operator.clone())).unwrap();
    let refused = stranger.verify().await;
    assert!(
        matches!(refused, Err(TenancyError::Unauthenticated(_))),
        "{refused:?}"
    );
    // A user of no system account.
    let user = with(|it, _| it.username = Some(credentials(&claim("1", "a", "u")))).unwrap();
    let refused = user.verify().await;
    assert!(refused.is_err(), "{refused:?}");
    // A user of another server's system account.
    let user = with(|it, _| it.username = Some(start().system.clone())).unwrap();
    let refused = user.verify().await;
    assert!(
        matches!(refused, Err(TenancyError::Unauthenticated(_))),
        "{refused:?}"
    );
    // Another authority.
    let other = with(|it, _| it.ca_pem = Some(start().authority.cert.clone().into_bytes()));
    let refused = other.unwrap().verify().await;
    assert!(
        matches!(refused, Err(TenancyError::Unauthenticated(_))),
        "{refused:?}"
    );
    // Nobody there.
    let away = with(|it, _| it.endpoints = vec![format!("127.0.0.1:{}", lab::free_port())]);
    let refused = away.unwrap().verify().await;
    assert!(
        matches!(refused, Err(TenancyError::Unreachable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    let (mut server, tenancy) = ready();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    server.stop();
    let away = tenancy.verify().await;
    assert!(
        matches!(away, Err(TenancyError::Unreachable(_))),
        "{away:?}"
    );
    let away = tenancy.claims("1").await;
    assert!(
        matches!(away, Err(TenancyError::Unreachable(_))),
        "{away:?}"
    );
    server.start_again().unwrap();
    tenancy.verify().await.unwrap();
    assert_eq!(tenancy.claims("1").await, Ok(vec![granted(&a)]));
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
}

/// What the administrator does holds at each server of a cluster, and data outlives one.
#[tokio::test]
async fn a_cluster_is_one_server() {
    let servers = lab::nats::start_cluster(3).await;
    let tenancy = connect(Connection {
        endpoints: servers.iter().map(Nats::endpoint).collect(),
        ..connection(&servers[0])
    })
    .unwrap();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    for server in &servers {
        let open = tenant(server, &a).await.unwrap();
        let info = ask(&open, "$JS.API.STREAM.INFO.KV_a", "").await.unwrap();
        assert_eq!(info["config"]["num_replicas"], 3, "{info}");
    }
    // kine has to ask for the same number of copies.
    let file = File::of(&a);
    let three = lab::nats::endpoint_of(&servers, &a, &file);
    let authority = servers[0].directory().join("ca.crt");
    Kine::start_with(&authority, &three).work().await;

    let mut servers = servers;
    servers[2].stop();
    let begin = std::time::Instant::now();
    while tenancy.check(&a, Some(&secret())).await != Ok(Access::Exact) {
        assert!(begin.elapsed() < Duration::from_secs(40));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    servers[2].start_again().unwrap();
    lab::nats::is_whole(&servers).await;
    tenancy.revoke(&a).await.unwrap();
    for server in &servers {
        let shut = async || tenant(server, &a).await.is_err();
        let begin = std::time::Instant::now();
        while !shut().await {
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{}",
                server.endpoint()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    tenancy.drop_data(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
    tenancy.release(&a).await.unwrap();
    assert!(tenancy.claimants().await.unwrap().is_empty());
    for server in &servers {
        assert!(tenant(server, &a).await.is_err());
        assert_eq!(stored(server, &a), Vec::<std::path::PathBuf>::new());
    }
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = start_with(&Settings {
        storage: 300_000,
        ..Settings::local()
    });
    let tenancy = connect(connection(&server)).unwrap();
    let a = claim("1", "a", "u");
    prepare(&*tenancy, &a).await.unwrap();
    let open = tenant(&server, &a).await.unwrap();
    let value = "x".repeat(50_000);
    let mut refused = None;
    for key in 0..20 {
        if let Err(error) = ask(&open, &format!("$KV.a.{key}"), &value).await {
            refused = Some(error);
        }
    }
    let health = tenancy.verify().await.unwrap();
    assert!(refused.is_some());
    assert_eq!(health.alarms, [Alarm::NoSpace], "{health:?}");
    // It can still be deleted.
    tenancy.revoke(&a).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.verify().await.unwrap().alarms, []);
}
