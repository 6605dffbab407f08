//! What a real NATS keeps from a tenant who uses its own credentials, and what it does not.

mod lab;

use async_nats::Client;
use bytes::Bytes;
use lab::claim;
use lab::nats::{Nats, ask, connection, enter, start, tenant};
use lab::sql::secret;
use serde_json::json;
use storage::tenancy::{Access, Claim, Data, Tenancy, connect};

struct Two {
    server: Nats,
    tenancy: Box<dyn Tenancy>,
    /// Who attacks.
    a: Claim,
    /// Who is attacked.
    b: Claim,
    as_a: Client,
    as_b: Client,
}

async fn two() -> Two {
    let server = start();
    let tenancy = connect(connection(&server)).unwrap();
    // One name is the beginning of the other.
    let (a, b) = (
        claim("1", "tenant", "user"),
        claim("2", "tenant_b", "user_b"),
    );
    for claim in [&a, &b] {
        let prepared = tenancy.prepare(claim, Some(&secret()), Data::New).await;
        prepared.unwrap();
    }
    let as_a = tenant(&server, &a).await.unwrap();
    let as_b = tenant(&server, &b).await.unwrap();
    for (client, schema) in [(&as_a, "tenant"), (&as_b, "tenant_b")] {
        let put = ask(client, &format!("$KV.{schema}.key"), "mine").await;
        assert_eq!(put.unwrap()["seq"], 1);
    }
    Two {
        server,
        tenancy,
        a,
        b,
        as_a,
        as_b,
    }
}

/// What is not answered, or with an error, was refused.
async fn refused(client: &Client, subject: &str, payload: &str) {
    if let Ok(answer) = ask(client, subject, payload).await {
        panic!("{subject} {payload}: {answer}");
    }
}

/// Nothing of the other has changed.
async fn assert_unharmed(two: &Two) {
    let info = ask(&two.as_b, "$JS.API.STREAM.INFO.KV_tenant_b", "").await;
    let info = info.unwrap();
    assert_eq!(info["state"]["messages"], 1, "{info}");
    assert_eq!(info["state"]["last_seq"], 1, "{info}");
    for claim in [&two.a, &two.b] {
        let access = two.tenancy.check(claim, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact));
    }
}

#[tokio::test]
async fn others_buckets_are_out_of_reach() {
    let two = two().await;
    for call in [
        "STREAM.INFO.KV_tenant_b",
        "STREAM.DELETE.KV_tenant_b",
        "STREAM.PURGE.KV_tenant_b",
        "STREAM.SNAPSHOT.KV_tenant_b",
        "STREAM.MSG.GET.KV_tenant_b",
        "STREAM.MSG.DELETE.KV_tenant_b",
        "STREAM.UPDATE.KV_tenant_b",
        "STREAM.CREATE.KV_tenant_b",
        "DIRECT.GET.KV_tenant_b",
        "DIRECT.GET.KV_tenant_b.$KV.tenant_b.key",
        "CONSUMER.CREATE.KV_tenant_b",
        "CONSUMER.CREATE.KV_tenant_b.c.$KV.tenant_b.>",
        "CONSUMER.NAMES.KV_tenant_b",
        "STREAM.INFO.steward_claims",
        "STREAM.MSG.GET.steward_claims",
        "STREAM.NAMES",
        "STREAM.LIST",
    ] {
        let payload = json!({
            "name": "KV_tenant_b", "stream_name": "KV_tenant_b", "seq": 1,
            "subjects": ["$KV.tenant_b.>"],
        });
        refused(&two.as_a, &format!("$JS.API.{call}"), "").await;
        refused(&two.as_a, &format!("$JS.API.{call}"), &payload.to_string()).await;
    }
    refused(&two.as_a, "$KV.tenant_b.key", "theirs").await;
    refused(&two.as_a, "claims.schema.aa", "{}").await;
    assert_unharmed(&two).await;
}

/// What rights on subjects cannot keep apart, for it is in the body of a request: accounts do.
#[tokio::test]
async fn streams_and_consumers_lead_nowhere() {
    let mut two = two().await;
    let external = json!({ "api": "$JS.API", "deliver": "x" });
    for (config, own) in [
        (json!({ "mirror": { "name": "KV_tenant_b" } }), Some(0)),
        (json!({ "sources": [{ "name": "KV_tenant_b" }] }), Some(0)),
        (json!({ "subjects": ["$KV.tenant_b.>"] }), Some(0)),
        (
            json!({
                "subjects": ["$KV.tenant.>"],
                "republish": { "src": "$KV.tenant.key", "dest": "$KV.tenant_b.key" },
            }),
            Some(1),
        ),
        (
            json!({ "mirror": { "name": "KV_tenant_b", "external": external } }),
            // Through the interface of another account, which nobody exports.
            None,
        ),
    ] {
        // The bucket is lost: only then may the tenant make one.
        two.server.stop();
        for account in std::fs::read_dir(two.server.directory().join("jetstream")).unwrap() {
            let lost = account.unwrap().path().join("streams/KV_tenant");
            let _ = std::fs::remove_dir_all(lost);
        }
        two.server.start_again().unwrap();
        let as_a = tenant(&two.server, &two.a).await.unwrap();
        let as_b = tenant(&two.server, &two.b).await.unwrap();
        let mut config = config;
        config["name"] = json!("KV_tenant");
        config["num_replicas"] = json!(1);
        let create = "$JS.API.STREAM.CREATE.KV_tenant";
        let created = ask(&as_a, create, &config.to_string()).await;
        assert_eq!(created.is_ok(), own.is_some(), "{config}: {created:?}");
        let Some(own) = own else { continue };
        ask(&as_b, "$KV.tenant_b.key", "secret").await.unwrap();
        let before = ask(&as_b, "$JS.API.STREAM.INFO.KV_tenant_b", "")
            .await
            .unwrap();
        let _ = ask(&as_a, "$KV.tenant.key", "evil").await;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let info = ask(&as_a, "$JS.API.STREAM.INFO.KV_tenant", "")
            .await
            .unwrap();
        assert_eq!(info["state"]["messages"], own, "{info}");
        // A second stream there cannot be.
        let other = json!({ "name": "other", "subjects": ["y"], "num_replicas": 1 });
        refused(&as_a, "$JS.API.STREAM.CREATE.other", &other.to_string()).await;
        let after = ask(&as_b, "$JS.API.STREAM.INFO.KV_tenant_b", "")
            .await
            .unwrap();
        assert_eq!(after["state"]["last_seq"], before["state"]["last_seq"]);
    }
}

/// What a consumer of one's own delivers to subjects of another account stays in one's own.
#[tokio::test]
async fn consumers_deliver_nothing_to_others() {
    let two = two().await;
    let consumer = json!({
        "stream_name": "KV_tenant",
        "config": { "deliver_subject": "$KV.tenant_b.key", "ack_policy": "none" },
    });
    // Somebody has to listen, for it to deliver.
    let create = "$JS.API.CONSUMER.CREATE.KV_tenant";
    ask(&two.as_a, create, &consumer.to_string()).await.unwrap();
    ask(&two.as_a, "$KV.tenant.key", "evil").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_unharmed(&two).await;
}

/// The bucket with its settings is not the tenant's to change.
#[tokio::test]
async fn ones_own_bucket_is_only_used() {
    let two = two().await;
    for call in [
        "DELETE",
        "PURGE",
        "SNAPSHOT",
        "MSG.DELETE",
        "RESTORE",
        "LEADER.STEPDOWN",
    ] {
        let payload = r#"{"seq":1,"deliver_subject":"_INBOX.x"}"#;
        refused(
            &two.as_a,
            &format!("$JS.API.STREAM.{call}.KV_tenant"),
            payload,
        )
        .await;
        refused(&two.as_a, &format!("$JS.API.STREAM.{call}.KV_tenant"), "").await;
    }
    for sealed in [json!({ "sealed": true }), json!({ "max_msgs": 1 })] {
        let mut config = sealed;
        config["name"] = json!("KV_tenant");
        config["subjects"] = json!(["$KV.tenant.>"]);
        config["num_replicas"] = json!(1);
        for call in ["UPDATE", "CREATE"] {
            let subject = format!("$JS.API.STREAM.{call}.KV_tenant");
            refused(&two.as_a, &subject, &config.to_string()).await;
        }
    }
    ask(&two.as_a, "$KV.tenant.other", "still").await.unwrap();
}

#[tokio::test]
async fn the_server_is_the_administrators() {
    let two = two().await;
    for subject in [
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.VARZ",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.CLAIMS.PACK",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "$JS.API.SERVER.REMOVE",
        "$JS.API.META.LEADER.STEPDOWN",
        "$JS.API.ACCOUNT.PURGE.X",
        "$JS.API.SERVER.STREAM.MOVE",
    ] {
        refused(&two.as_a, subject, "").await;
        refused(&two.as_a, subject, "{}").await;
    }
    let id = two.as_a.server_info().server_id;
    for what in ["VARZ", "CONNZ", "RELOAD", "KICK", "LDM", "JSZ", "ACCOUNTZ"] {
        refused(&two.as_a, &format!("$SYS.REQ.SERVER.{id}.{what}"), "").await;
    }
    // An account of one's own making, also if it were signed by the operator's key: nobody
    // takes it from a tenant.
    let token = std::fs::read_dir(two.server.directory().join("accounts")).unwrap();
    for entry in token {
        let token = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        refused(&two.as_a, "$SYS.REQ.CLAIMS.UPDATE", &token).await;
    }
    assert_unharmed(&two).await;
}

/// Messages of others are not heard, whatever is listened to.
#[tokio::test]
async fn nobody_listens_to_others() {
    use futures::StreamExt;
    let two = two().await;
    let mut heard = Vec::new();
    for subject in [">", "$KV.>", "$JS.>", "$SYS.>", "*", "_INBOX.>"] {
        // Those that are refused end.
        heard.push(two.as_a.subscribe(subject).await.unwrap());
    }
    two.as_a.flush().await.unwrap();
    for _ in 0..3 {
        ask(&two.as_b, "$KV.tenant_b.loud", "secret").await.unwrap();
        let payload = Bytes::from_static(b"secret");
        two.as_b.publish("_INBOX.x", payload).await.unwrap();
    }
    two.as_b.flush().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for mut subscription in heard {
        let next = tokio::time::timeout(std::time::Duration::from_millis(50), subscription.next());
        if let Ok(Some(message)) = next.await {
            panic!("heard {}: {:?}", message.subject, message.payload);
        }
    }
}

/// Who had the schema before gets nothing of who has it now, with what he kept.
#[tokio::test]
async fn a_former_tenants_credentials_open_nothing() {
    let two = two().await;
    let former = lab::nats::credentials(&two.a);
    for step in 0..3 {
        let done = match step {
            0 => two.tenancy.revoke(&two.a).await,
            1 => two.tenancy.drop_data(&two.a).await,
            _ => two.tenancy.release(&two.a).await,
        };
        done.unwrap();
        assert!(
            enter(&two.server, &former).await.is_err(),
            "after step {step}"
        );
    }
    // The next one has the same names, and even the same password.
    let next = claim("3", &two.a.schema, &two.a.user);
    let prepared = two.tenancy.prepare(&next, Some(&secret()), Data::New).await;
    prepared.unwrap();
    assert!(enter(&two.server, &former).await.is_err());
    let info = "$JS.API.STREAM.INFO.KV_tenant";
    assert!(ask(&two.as_a, info, "").await.is_err(), "what was open");
    tenant(&two.server, &next).await.unwrap();
    // Nor does one that is late do anything to the next one.
    for late in [
        two.tenancy.revoke(&two.a).await,
        two.tenancy.drop_data(&two.a).await,
        two.tenancy.release(&two.a).await,
    ] {
        assert!(late.is_err(), "{late:?}");
    }
    assert_eq!(
        two.tenancy.check(&next, Some(&secret())).await,
        Ok(Access::Exact)
    );
    // After a restart it is the same.
    let mut server = two.server;
    server.stop();
    server.start_again().unwrap();
    assert!(enter(&server, &former).await.is_err());
    tenant(&server, &next).await.unwrap();
}

/// The password signs users, in its own account alone and with no more rights than its own.
#[tokio::test]
async fn the_password_makes_nobody_more() {
    let two = two().await;
    let claim = |uid: &str, schema: &str, user: &str| Claim {
        user: user.to_owned(),
        ..lab::claim(uid, schema, "x")
    };
    // Another name in its own account is the same tenant.
    let same = tenant(&two.server, &claim("1", "tenant", "root"))
        .await
        .unwrap();
    ask(&same, "$KV.tenant.key", "x").await.unwrap();
    refused(&same, "$JS.API.STREAM.DELETE.KV_tenant", "").await;
    // With a password of its own nobody enters another's account.
    let other = storage::tenancy::Password::new("only-the-other-knows");
    let c = claim("3", "tenant_c", "user_c");
    let prepared = two.tenancy.prepare(&c, Some(&other), Data::New).await;
    prepared.unwrap();
    assert!(tenant(&two.server, &c).await.is_err());
}
