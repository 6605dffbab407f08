//! A real etcd with TLS and authentication, for one test; SQL servers are in [`sql`].

#![allow(
    clippy::disallowed_methods,
    reason = "tests find their programs by the environment"
)]
// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use storage::tenancy::{Claim, Connection, Stage};
use tempfile::TempDir;

pub mod nats;
pub mod sql;

/// Where the lab keeps what it builds and fetches.
pub fn cache() -> PathBuf {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => panic!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    cache.join("steward-lab")
}

/// The program that `make lab-build` makes, or that a variable names.
pub fn newest(program: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let built = std::fs::read_dir(cache())
        .into_iter()
        .flatten()
        .filter_map(|key| Some(key.ok()?.path().join(program)))
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    built.unwrap_or_else(|| {
        panic!("there is no {program} to test with; run: make lab-build (or set {variable})")
    })
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

pub struct Authority {
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        let name = format!("lab {}", rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Authority { cert, issuer }
    }

    pub fn client(&self, common_name: &str) -> Pair {
        self.sign(common_name, ExtendedKeyUsagePurpose::ClientAuth, &[])
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, hosts: &[&str]) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Pair { cert, key }
    }
}

pub struct Etcd {
    pub authority: Authority,
    pub endpoint: String,
    child: Child,
    directory: TempDir,
}

impl Etcd {
    /// Starts one that takes names from client certificates; authentication is
    /// off.
    pub fn start() -> Self {
        Etcd::start_with(&["--client-cert-auth"])
    }

    pub fn start_with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        // etcd's own gateway connects to it as a client.
        let mut server = authority.sign(
            "server",
            ExtendedKeyUsagePurpose::ServerAuth,
            &["127.0.0.1", "localhost"],
        );
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = file("ca.crt", &authority.cert);
        let cert = file("server.crt", &server.cert);
        server.key.push('\n');
        let key = file("server.key", &server.key);
        let (client, peer) = (free_port(), free_port());
        let client = format!("127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        // The kernel ends it with the thread of the test, also when that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(newest("etcd", "STEWARD_ETCD"))
            .args(["--name=lab", "--log-level=warn"])
            .arg(arg("--data-dir", directory.path()))
            .arg(format!("--listen-client-urls=https://{client}"))
            .arg(format!("--advertise-client-urls=https://{client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=lab={peer}"))
            .arg(arg("--trusted-ca-file", &ca))
            .arg(arg("--cert-file", &cert))
            .arg(arg("--key-file", &key))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut etcd = Etcd {
            authority,
            endpoint: client,
            child,
            directory,
        };
        etcd.wait();
        etcd
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        while std::net::TcpStream::connect(&self.endpoint).is_err() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || begin.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(self.directory.path().join("log"));
                panic!("etcd does not start ({ended:?}): {}", log.unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `STOP`, `CONT` or `KILL`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(done.unwrap().success());
    }

    /// As the administrator of a `DataStore` connects.
    pub fn connection(&self, pair: &Pair) -> Connection {
        Connection {
            driver: "etcd".to_owned(),
            endpoints: vec![self.endpoint.clone()],
            ca_pem: Some(self.authority.cert.clone().into_bytes()),
            client_cert: Some(pair.cert.clone().into_bytes()),
            client_key: Some(pair.key.clone().into_bytes()),
            username: None,
            password: None,
            deadline: Connection::DEADLINE,
        }
    }

    /// As the API server of a tenant connects.
    pub async fn client(&self, pair: &Pair) -> Client {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.authority.cert))
            .identity(Identity::from_pem(&pair.cert, &pair.key));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_timeout(Duration::from_secs(10));
        let endpoint = format!("https://{}", self.endpoint);
        Client::connect([endpoint], Some(options)).await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn claim(uid: &str, schema: &str, user: &str) -> Claim {
    Claim {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        name: format!("tenant-{uid}"),
        schema: schema.to_owned(),
        user: user.to_owned(),
        role: None,
        stage: Stage::Serving,
        prefix: None,
        replicas: None,
    }
}

fn arg(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
