//! Objects that are encrypted on disk, as an administrator turns that on (R9.19): a running
//! server, its file, and what kubectl sees meanwhile.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use tests::served::{DATA_STORE, Served, eventually};

const SOON: Duration = Duration::from_secs(60);
/// In a DataStore, where it is to be found by nobody.
const SECRET: &str = "bm9ib2R5LWlzLXRvLXJlYWQtdGhpcw==";
const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn write(served: &Served, providers: &[&str]) -> PathBuf {
    let file = served.files().join("encryption.yaml");
    let providers: String = providers.iter().map(|it| format!("  - {it}\n")).collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: ['*.steward.butlerlabs.dev']\n  providers:\n{providers}"
    );
    // As a Secret is: whole or not there.
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(&draft, &file).unwrap();
    file
}

fn aesgcm(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, secret)| format!("{{name: {name}, secret: {secret}}}"))
        .collect();
    format!("aesgcm: {{keys: [{}]}}", keys.join(", "))
}

/// How often a text is in the files of the store.
fn on_disk(served: &Served, text: &str) -> usize {
    let files = std::fs::read_dir(served.data()).unwrap();
    files
        .map(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
            bytes
                .windows(text.len())
                .filter(|it| *it == text.as_bytes())
                .count()
        })
        .sum()
}

fn uid(served: &Served) -> String {
    served.kubectl(&[
        "get",
        "datastore",
        "kept",
        "-o",
        "jsonpath={.metadata.uid}/{.metadata.resourceVersion}/{.spec.basicAuth.password.content}",
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_encrypted_its_key_is_changed_and_it_is_read_again() {
    let mut served = Served::cluster().await;
    served.start_process().await;
    served.wait_until_served().await;
    let mut store: serde_json::Value = serde_json::from_str(&yaml(&served, DATA_STORE)).unwrap();
    store["metadata"]["name"] = "kept".into();
    store["spec"]["basicAuth"] = serde_json::json!({
        "username": {"content": "YQ=="}, "password": {"content": SECRET},
    });
    let file = served.files().join("store.json");
    std::fs::write(&file, store.to_string()).unwrap();
    served.kubectl(&["create", "-f", &file.display().to_string()]);
    let before = uid(&served);
    assert!(before.ends_with(SECRET), "{before}");
    assert!(on_disk(&served, SECRET) > 0);

    // Turned on: what was there is encrypted by itself.
    served.stop().await;
    let config = write(&served, &[&aesgcm(&[("key1", ONE)]), "identity: {}"]);
    served.add_flags([
        format!("--encryption-provider-config={}", config.display()),
        "--encryption-provider-config-automatic-reload".to_owned(),
    ]);
    served.start_process().await;
    served.wait_until_served().await;
    eventually("nothing is readable on disk", SOON, || {
        on_disk(&served, SECRET) == 0
    })
    .await;
    assert_eq!(uid(&served), before);
    assert!(on_disk(&served, "k8s:enc:aesgcm:v1:key1:") > 0);

    // Another key, while it runs; a watch goes on through it.
    write(&served, &[&aesgcm(&[("key2", OTHER), ("key1", ONE)])]);
    eventually("all is kept with the new key", SOON, || {
        on_disk(&served, "k8s:enc:aesgcm:v1:key1:") == 0
    })
    .await;
    served.kubectl(&["annotate", "datastore", "kept", "a=b"]);
    let now = uid(&served);
    assert_ne!(now, before);

    // A file that lacks it changes nothing while the server runs, and keeps it from serving
    // after a restart, with the reason.
    write(&served, &[&aesgcm(&[("key1", ONE)])]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    served.kubectl(&["annotate", "datastore", "kept", "c=d"]);
    served.stop().await;
    served.start_process().await;
    let refused = || served.try_kubectl(&["get", "datastore", "kept"]);
    eventually("the reason is told", SOON, || {
        let said = refused();
        said.code != 0 && said.stderr.contains("key2")
    })
    .await;
    write(&served, &[&aesgcm(&[("key2", OTHER)])]);
    served.wait_until_served().await;
    assert!(uid(&served).ends_with(SECRET));
    served.stop().await;
}

/// The same as JSON.
fn yaml(served: &Served, text: &str) -> String {
    let file = served.files().join("example.yaml");
    std::fs::write(&file, text).unwrap();
    served.kubectl(&[
        "create",
        "--dry-run=client",
        "-o",
        "json",
        "-f",
        &file.display().to_string(),
    ])
}
