//! Clients and raw requests: the same for every server that is measured.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, Kubeconfig};
use serde_json::Value;

use crate::failure::{Doing, Failure, Result};

/// The group and version that is measured.
pub const GROUP_VERSION: &str = "/apis/steward.butlerlabs.dev/v1alpha1";

/// The settings of a kubeconfig, without compression: answers are compared by
/// what the server does, not by how well it packs.
pub async fn config(kubeconfig: Kubeconfig) -> Result<Config> {
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .map_err(|error| Failure::Said(format!("a kubeconfig cannot be used: {error}")))?;
    config.disable_compression = true;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(config)
}

/// The settings of a kubeconfig in a file.
pub async fn config_of(file: &Path) -> Result<Config> {
    let read = Kubeconfig::read_from(file);
    config(read.map_err(|error| Failure::Said(format!("{}: {error}", file.display())))?).await
}

/// Nobody, at a server whose certificate is not looked at: for health checks.
pub fn anonymous(server: &str) -> Result<Client> {
    let uri = server
        .parse()
        .map_err(|error| Failure::Said(format!("{server}: {error}")))?;
    let mut config = Config::new(uri);
    config.accept_invalid_certs = true;
    config.connect_timeout = Some(Duration::from_secs(2));
    client(config)
}

/// A client with connections of its own.
pub fn client(config: Config) -> Result<Client> {
    Client::try_from(config).doing(|| "make a client".into())
}

fn request(
    method: &str,
    path: &str,
    kind: &str,
    body: Vec<u8>,
) -> kube::Result<http::Request<Vec<u8>>> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, kind)
        .body(body)
        .map_err(kube::Error::HttpError)
}

/// GET of JSON.
pub async fn get(client: &Client, path: &str) -> kube::Result<Value> {
    client
        .request(request("GET", path, "application/json", Vec::new())?)
        .await
}

/// GET of a body as it is.
pub async fn get_text(client: &Client, path: &str) -> kube::Result<String> {
    client
        .request_text(request("GET", path, "application/json", Vec::new())?)
        .await
}

/// POST of bytes that are JSON; the answer is read and not parsed.
pub async fn post_bytes(client: &Client, path: &str, body: Vec<u8>) -> kube::Result<String> {
    client
        .request_text(request("POST", path, "application/json", body)?)
        .await
}

/// POST of JSON.
pub async fn post(client: &Client, path: &str, body: &Value) -> kube::Result<String> {
    post_bytes(client, path, body.to_string().into_bytes()).await
}

/// PATCH, merged.
pub async fn merge(client: &Client, path: &str, patch: &Value) -> kube::Result<String> {
    let body = patch.to_string().into_bytes();
    client
        .request_text(request(
            "PATCH",
            path,
            "application/merge-patch+json",
            body,
        )?)
        .await
}

/// DELETE.
pub async fn delete(client: &Client, path: &str) -> kube::Result<String> {
    client
        .request_text(request("DELETE", path, "application/json", Vec::new())?)
        .await
}

/// Whether the server said that it is not there.
pub fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Asks /readyz every 20 ms until it is 200. A connection that is refused
/// costs the server nothing, and afterwards one connection is kept.
pub async fn until_ready(client: &Client, patience: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(deadline, get_text(client, "/readyz")).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => return Err(Failure::Said(format!("/readyz: not within {patience:?}"))),
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::Said(format!("/readyz: not within {patience:?}")));
        }
    }
}
