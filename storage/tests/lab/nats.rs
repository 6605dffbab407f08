//! A real NATS, for one test.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use storage::tenancy::{Claim, Connection};
use tempfile::TempDir;

use super::sql::{Kine, secret};

pub use super::sql::nats::{Nats, Settings};

pub fn start() -> Nats {
    start_with(&Settings::local())
}

pub fn start_with(settings: &Settings) -> Nats {
    Nats::start(&super::newest("nats-server", "STEWARD_NATS"), settings).unwrap()
}

/// A cluster that takes streams.
pub async fn start_cluster(count: usize) -> Vec<Nats> {
    let program = super::newest("nats-server", "STEWARD_NATS");
    let servers = Nats::start_cluster(&program, count).unwrap();
    is_whole(&servers).await;
    servers
}

/// Until all of them follow a leader.
pub async fn is_whole(servers: &[Nats]) {
    let begin = std::time::Instant::now();
    loop {
        let mut current = 0;
        for server in servers {
            let Ok(system) = enter(server, &server.system).await else {
                continue;
            };
            let id = system.server_info().server_id;
            let asked = ask(&system, &format!("$SYS.REQ.SERVER.{id}.HEALTHZ"), "").await;
            let status = asked.map(|it| it["data"]["status"].clone());
            current += usize::from(status == Ok(serde_json::json!("ok")));
        }
        if current == servers.len() {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{}",
            servers[0].log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// As the administrator of a `DataStore` connects.
pub fn connection(server: &Nats) -> Connection {
    Connection {
        driver: "NATS".to_owned(),
        endpoints: vec![server.endpoint()],
        ca_pem: Some(server.authority.cert.clone().into_bytes()),
        client_cert: None,
        client_key: None,
        username: Some(server.system.clone()),
        password: Some(server.operator.clone()),
        deadline: Connection::DEADLINE,
    }
}

/// With a file of credentials.
pub async fn enter(server: &Nats, credentials: &str) -> Result<Client, async_nats::ConnectError> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(server.authority.cert.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ConnectOptions::with_credentials(credentials)
        .unwrap()
        .tls_client_config(tls)
        .max_reconnects(1)
        .request_timeout(Some(Duration::from_millis(400)))
        .connect(format!("nats://{}", server.endpoint()))
        .await
}

/// The claim as it is stored after its grant, in a NATS that is no cluster.
pub fn granted(claim: &Claim) -> Claim {
    Claim {
        replicas: Some(1),
        ..claim.clone()
    }
}

/// As a tenant.
pub async fn tenant(server: &Nats, claim: &Claim) -> Result<Client, async_nats::ConnectError> {
    enter(server, &credentials(claim)).await
}

pub fn credentials(claim: &Claim) -> String {
    storage::tenancy::nats::credentials(claim, &secret()).unwrap()
}

/// A request, and what is answered if anything is.
pub async fn ask(client: &Client, subject: &str, payload: &str) -> Result<Value, String> {
    let payload = Bytes::from(payload.to_owned());
    let answer = client.request(subject.to_owned(), payload).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
    match answer["error"]["description"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer),
    }
}

/// A file with a tenant's credentials.
pub struct File {
    directory: TempDir,
}

impl File {
    pub fn of(claim: &Claim) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("creds"), credentials(claim)).unwrap();
        File { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("creds")
    }
}

/// What the controller gives to kine.
pub fn endpoint(server: &Nats, claim: &Claim, file: &File) -> String {
    format!(
        "nats://{}?bucket={}&noEmbed&replicas={}&credsFile={}",
        server.endpoint(),
        claim.schema,
        storage::tenancy::nats::replicas(1),
        file.path().display()
    )
}

/// The same of a cluster.
pub fn endpoint_of(servers: &[Nats], claim: &Claim, file: &File) -> String {
    let others = servers[1..]
        .iter()
        .map(|it| format!(",nats://{}", it.endpoint()));
    format!(
        "nats://{}?bucket={}&noEmbed&replicas={}&credsFile={}{}",
        servers[0].endpoint(),
        claim.schema,
        storage::tenancy::nats::copies(claim, servers.len()),
        file.path().display(),
        others.collect::<String>()
    )
}

pub fn kine(server: &Nats, claim: &Claim, file: &File) -> Kine {
    let authority = server.directory().join("ca.crt");
    Kine::start_with(&authority, &endpoint(server, claim, file))
}
