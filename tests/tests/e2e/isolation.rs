//! What one tenant's own credentials can do to another: nothing. (The whole of
//! what etcd has is tried in `storage/tests/etcd_isolation.rs`; here it is the
//! real Secret of a real tenant.)

use std::fmt::Debug;
use std::time::{Duration, Instant};

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, Error, GetOptions, Txn, TxnOp, WatchOptions,
};
use serde_json::{Value, json};
use tests::installed::{TENANTS, object_path, of_etcd, tenant_path};

use crate::life::seconds;
use crate::ready;
use crate::stage::{COMING, Stage};

/// The other tenant. The first one's schema is a prefix of this one's.
pub const OTHER: &str = "a-b";
/// One whose status says what is not so.
const LIAR: &str = "liar";
/// A false status is put right within this.
const RIGHT: Duration = Duration::from_secs(10);

pub async fn run(stage: &Stage) {
    drop(stage.tenant(ready::NAME, 1).await);
    drop(stage.tenant(OTHER, 1).await);
    let (own, other) = (schema(stage, ready::NAME).await, schema(stage, OTHER).await);
    assert!(other.starts_with(&own), "{own} is no prefix of {other}");

    let path = object_path(TENANTS, "secrets", "a-datastore-certificate");
    let secret = stage.it.get(&path).await.unwrap();
    let mut a = stage
        .it
        .etcd_as(&secret, ["ca.crt", "server.crt", "server.key"])
        .await;
    let prefix = || GetOptions::new().with_prefix();
    let found = of_etcd(async || a.get(format!("/{own}/"), Some(prefix())).await)
        .await
        .unwrap();
    assert!(
        found.kvs().len() > 50,
        "the tenant's own keys: {}",
        found.kvs().len()
    );

    let pods = format!("/{other}/pods/");
    let key = format!("/{other}/namespaces/default");
    refused("get", async || a.get(key.as_str(), None).await).await;
    refused("list", async || a.get(pods.as_str(), Some(prefix())).await).await;
    refused("put", async || a.put(key.as_str(), "mine", None).await).await;
    refused("delete", async || a.delete(key.as_str(), None).await).await;
    refused("watch", async || watch(&mut a, &pods).await).await;
    let compare = Compare::version(key.as_str(), CompareOp::Greater, 0);
    let read = Txn::new()
        .when([compare])
        .and_then([TxnOp::get(key.as_str(), None)]);
    refused("transaction", async || a.txn(read.clone()).await).await;
    refused("all keys", async || {
        a.get("", Some(GetOptions::new().with_all_keys())).await
    })
    .await;
    refused("keys from its own on", async || {
        a.get(format!("/{own}/"), Some(GetOptions::new().with_from_key()))
            .await
    })
    .await;
    let claim = format!("/steward.butlerlabs.dev/claims/schema/{own}");
    refused("its own claim", async || {
        a.put(claim.as_str(), "mine", None).await
    })
    .await;
    refused("compact", async || a.compact(1, None).await).await;
    refused("alarm", async || {
        a.alarm(AlarmAction::Activate, AlarmType::Nospace, None)
            .await
    })
    .await;
    refused("users", async || a.user_list().await).await;
    refused("roles", async || a.role_add("more").await).await;
    refused("authentication", async || a.auth_disable().await).await;
    let mut root = stage.it.etcd().await;
    let still = of_etcd(async || root.get(key.as_str(), None).await)
        .await
        .unwrap();
    assert_eq!(still.count(), 1, "{key} is gone");

    names_in_status(stage, &other).await;

    // And a user's credentials for one tenant at the other's door.
    let kubeconfig = stage.it.kubeconfig(ready::NAME);
    let server = format!("--server=https://{}", endpoint(stage, OTHER).await);
    let asked = ["get", "namespaces", &server];
    let said = stage.it.kubectl_with(&kubeconfig, &asked);
    assert!(
        said.code != 0 && said.stderr.contains("certificate"),
        "{}",
        said.text()
    );
    let trusting = [&asked[..], &["--insecure-skip-tls-verify"]].concat();
    // kubectl does not show both an authority and that it is not to be looked at.
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let without: Vec<_> = text
        .lines()
        .filter(|line| !line.contains("certificate-authority-data"))
        .collect();
    std::fs::write(&kubeconfig, without.join("\n")).unwrap();
    let said = stage.it.kubectl_with(&kubeconfig, &trusting);
    let strange = ["Unauthorized", "must be logged in", "provide credentials"];
    assert!(
        said.code != 0 && strange.iter().any(|word| said.stderr.contains(word)),
        "{}",
        said.text()
    );
}

/// Rule 17: names in status move nothing. Whoever may write it could otherwise have
/// a tenant serve the data of another, or leave its own claimed for ever.
async fn names_in_status(stage: &Stage, other: &str) {
    let story = stage.tenant(LIAR, 1).await;
    let own = schema(stage, LIAR).await;
    let user = place(stage, LIAR, "user").await;
    let before = given(stage).await;
    for lie in [other, "tenants_nobody"] {
        let began = Instant::now();
        say(stage, lie).await;
        let what = format!("status says {own} again and not {lie}");
        let took = story
            .until(began, RIGHT, &what, |object| {
                let setup = &object["status"]["storage"]["setup"];
                setup["schema"] == own.as_str() && setup["user"] == user.as_str()
            })
            .await;
        stage.note(format!("status put right ({lie})"), seconds(took));
        // Long enough for whatever would follow the lie.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(given(stage).await, before, "{lie} was followed");
        story.stayed_ready(began);
    }
    // The claim is released whatever status says, so the name is free again.
    say(stage, "tenants_nobody").await;
    stage.remove(LIAR).await;
    let began = Instant::now();
    stage.create(&tests::installed::tenant(LIAR, 1)).await;
    story.ready(began, COMING).await;
    drop(story);
    stage.remove(LIAR).await;
}

/// Writes schema and user into the status of [`LIAR`].
async fn say(stage: &Stage, schema: &str) {
    let path = format!("{}/status", tenant_path(LIAR));
    let setup = json!({"schema": schema, "user": schema});
    let patch = json!({"status": {"storage": {"setup": setup}}});
    stage.it.patch(&path, &patch).await.unwrap();
}

/// What the pods of [`LIAR`] are given: the Deployment's spec and the Secrets.
async fn given(stage: &Stage) -> Vec<Value> {
    let deployment = object_path(TENANTS, "deployments", LIAR);
    let mut all = vec![stage.it.get(&deployment).await.unwrap()["spec"].take()];
    for secret in ["liar-datastore-config", "liar-datastore-certificate"] {
        let path = object_path(TENANTS, "secrets", secret);
        all.push(stage.it.get(&path).await.unwrap()["data"].take());
    }
    all
}

async fn watch(client: &mut Client, prefix: &str) -> Result<(), Error> {
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch(prefix, Some(options)).await?;
    while let Some(answer) = stream.message().await? {
        if answer.canceled() {
            return Err(Error::WatchError(answer.cancel_reason().to_owned()));
        }
        if !answer.created() {
            break;
        }
    }
    Ok(())
}

async fn refused<T: Debug>(what: &str, ask: impl AsyncFnMut() -> Result<T, Error>) {
    match of_etcd(ask).await {
        Err(Error::GRpcStatus(status)) if status.message().contains("permission denied") => {}
        Err(Error::WatchError(why)) if why.contains("permission denied") => {}
        other => panic!("{what} was not refused: {other:?}"),
    }
}

async fn schema(stage: &Stage, name: &str) -> String {
    place(stage, name, "schema").await
}

async fn place(stage: &Stage, name: &str, what: &str) -> String {
    let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
    word(&tenant["status"]["storage"]["setup"][what])
}

async fn endpoint(stage: &Stage, name: &str) -> String {
    let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
    word(&tenant["status"]["controlPlaneEndpoint"])
}

fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
