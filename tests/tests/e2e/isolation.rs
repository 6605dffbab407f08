//! What one tenant's own credentials can do to another: nothing. (The whole of
//! what etcd has is tried in `storage/tests/etcd_isolation.rs`; here it is the
//! real Secret of a real tenant.)

use std::fmt::Debug;

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, Error, GetOptions, Txn, TxnOp, WatchOptions,
};
use serde_json::Value;
use tests::installed::{TENANTS, object_path, tenant_path};

use crate::ready;
use crate::stage::Stage;

/// The other tenant. The first one's schema is a prefix of this one's.
pub const OTHER: &str = "a-b";

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
    let found = a.get(format!("/{own}/"), Some(prefix())).await.unwrap();
    assert!(
        found.kvs().len() > 50,
        "the tenant's own keys: {}",
        found.kvs().len()
    );

    let pods = format!("/{other}/pods/");
    let key = format!("/{other}/namespaces/default");
    refused("get", a.get(key.as_str(), None).await);
    refused("list", a.get(pods.as_str(), Some(prefix())).await);
    refused("put", a.put(key.as_str(), "mine", None).await);
    refused("delete", a.delete(key.as_str(), None).await);
    refused("watch", watch(&mut a, &pods).await);
    let compare = Compare::version(key.as_str(), CompareOp::Greater, 0);
    let read = Txn::new()
        .when([compare])
        .and_then([TxnOp::get(key.as_str(), None)]);
    refused("transaction", a.txn(read).await);
    refused(
        "all keys",
        a.get("", Some(GetOptions::new().with_all_keys())).await,
    );
    refused(
        "keys from its own on",
        a.get(format!("/{own}/"), Some(GetOptions::new().with_from_key()))
            .await,
    );
    let claim = format!("/steward.butlerlabs.dev/claims/schema/{own}");
    refused("its own claim", a.put(claim, "mine", None).await);
    refused("compact", a.compact(1, None).await);
    refused(
        "alarm",
        a.alarm(AlarmAction::Activate, AlarmType::Nospace, None)
            .await,
    );
    refused("users", a.user_list().await);
    refused("roles", a.role_add("more").await);
    refused("authentication", a.auth_disable().await);
    let mut root = stage.it.etcd().await;
    let still = root.get(key.as_str(), None).await.unwrap();
    assert_eq!(still.count(), 1, "{key} is gone");

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

#[track_caller]
fn refused<T: Debug>(what: &str, answer: Result<T, Error>) {
    match answer {
        Err(Error::GRpcStatus(status)) if status.message().contains("permission denied") => {}
        Err(Error::WatchError(why)) if why.contains("permission denied") => {}
        other => panic!("{what} was not refused: {other:?}"),
    }
}

async fn schema(stage: &Stage, name: &str) -> String {
    let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
    word(&tenant["status"]["storage"]["setup"]["schema"])
}

async fn endpoint(stage: &Stage, name: &str) -> String {
    let tenant = stage.it.get(&tenant_path(name)).await.unwrap();
    word(&tenant["status"]["controlPlaneEndpoint"])
}

fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
