//! A request whose time is over while the store is held.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::time::{Duration, Instant};

use http::Request;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tests::served::{GROUP_VERSION, Served};

/// The administrator, who asks our server itself: kube-apiserver ends what it forwards at the
/// same time, and breaks the connection off.
async fn direct(served: &Served) -> kube::Client {
    let config = Kubeconfig::read_from(served.lab.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options);
    let mut config = config.await.unwrap();
    let port = served.running().address.port();
    config.cluster_url = format!("https://127.0.0.1:{port}").parse().unwrap();
    config.accept_invalid_certs = true;
    // What is answered is looked at here.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

/// R9.4, R9.6: writes that wait for the database are answered when their time is over, and are
/// not done when it is free again.
#[tokio::test(flavor = "multi_thread")]
async fn writes_end_with_their_requests_while_the_store_is_held() {
    let mut served = Served::cluster().await;
    served.start_here().await;
    served.wait_until_served().await;
    let client = direct(&served).await;
    let collection = format!("{GROUP_VERSION}/namespaces/default/tenantcontrolplanes");
    let tenant = |name: &str| {
        json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": {"name": name},
            "spec": {"dataStore": "default", "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
                "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
        })
    };
    let create = async |name: &str, timeout: &str| {
        let request = Request::post(format!("{collection}?timeout={timeout}"))
            .header("content-type", "application/json")
            .body(Body::from(tenant(name).to_string().into_bytes()));
        let answer = client.send(request.unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let text = answer.into_body().collect_bytes().await.unwrap();
        (code, String::from_utf8(text.to_vec()).unwrap())
    };
    let file = served.data().join(storage::sqlite::FILE);
    let options = SqliteConnectOptions::new().filename(file);
    let mut holder = options.connect().await.unwrap();
    let begin = sqlx::query("BEGIN IMMEDIATE");
    begin.execute(&mut holder).await.unwrap();
    // The first waits in a transaction, the others for it.
    for round in 0..3 {
        let began = Instant::now();
        let names = (0..4)
            .map(|n| format!("late-{round}-{n}"))
            .collect::<Vec<_>>();
        let answers = names.iter().map(|name| create(name, "1s"));
        for (code, text) in futures::future::join_all(answers).await {
            assert_eq!(code, 504, "{text}");
            let words = "request did not complete within the allotted timeout";
            assert!(text.contains(words), "{text}");
        }
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    }
    let rollback = sqlx::query("ROLLBACK");
    rollback.execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    let (code, text) = create("after", "30s").await;
    assert_eq!(code, 201, "{text}");
    let all = served.get(&collection).await.unwrap();
    let names = all["items"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|it| it["metadata"]["name"].clone()).collect();
    assert_eq!(names, [json!("after")]);
    served.stop().await;
}
