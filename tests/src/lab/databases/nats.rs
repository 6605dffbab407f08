//! A NATS in operator mode, with JetStream and TLS, in a directory of its own, that ends with
//! the thread that started it.
//!
//! As [`super::server`] this file needs nothing else of the lab.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::Authority;

/// What a server is to be like.
pub struct Settings {
    /// Where it listens.
    pub address: IpAddr,
    /// 0: one that is free.
    pub port: u16,
    /// Where its directory is made, which goes with this value; without it, where temporary
    /// files are.
    pub within: Option<PathBuf>,
    /// Whether it is in operator mode. If not, everybody is let in.
    pub operator: bool,
    /// Whether accounts may be deleted.
    pub allow_delete: bool,
    /// Whether there is JetStream.
    pub jetstream: bool,
    /// Bytes that JetStream may store.
    pub storage: u64,
}

impl Settings {
    /// On this machine only.
    pub fn local() -> Self {
        Settings {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            within: None,
            operator: true,
            allow_delete: true,
            jetstream: true,
            storage: 1 << 30,
        }
    }
}

/// A running server.
pub struct Nats {
    /// Who signed its certificate.
    pub authority: Arc<Authority>,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Credentials of a user of the system account.
    pub system: String,
    /// Seed of a signing key of the operator.
    pub operator: String,
    /// Seed of another one, to which it may be changed.
    pub next_operator: String,
    program: PathBuf,
    child: Child,
    directory: TempDir,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Nats {
    /// Starts a server and waits until it answers.
    pub fn start(program: &Path, settings: &Settings) -> Result<Self> {
        let authority = Arc::new(Authority::new("lab NATS"));
        let mut server = Nats::spawn(program, settings, &Trust::new(), &authority, "")?;
        server.wait()?;
        Ok(server)
    }

    /// Starts a cluster of servers on this machine. The caller waits until they have a leader.
    pub fn start_cluster(program: &Path, count: usize) -> Result<Vec<Self>> {
        let authority = Arc::new(Authority::new("lab NATS"));
        let trust = Trust::new();
        let settings = Settings::local();
        let ports = (0..count)
            .map(|_| free_port(settings.address))
            .collect::<Result<Vec<_>>>()?;
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("\"nats://{}:{port}\"", settings.address))
            .collect();
        let spawn = |port: &u16| {
            let cluster = format!(
                "cluster {{ name: lab, listen: \"{}:{port}\", routes: [{}] }}\n",
                settings.address,
                routes.join(", ")
            );
            Nats::spawn(program, &settings, &trust, &authority, &cluster)
        };
        let mut servers = ports.iter().map(spawn).collect::<Result<Vec<_>>>()?;
        for server in &mut servers {
            server.wait()?;
        }
        Ok(servers)
    }

    fn spawn(
        program: &Path,
        settings: &Settings,
        trust: &Trust,
        authority: &Arc<Authority>,
        more: &str,
    ) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("steward-nats-");
        let directory = match &settings.within {
            Some(within) => builder.tempdir_in(within)?,
            None => builder.tempdir()?,
        };
        let at = directory.path();
        let pair = authority.server(&[settings.address.to_string(), "localhost".to_owned()]);
        for (name, text) in [
            ("ca.crt", &authority.cert),
            ("server.crt", &pair.cert),
            ("server.key", &pair.key),
        ] {
            std::fs::write(at.join(name), text)?;
        }
        let port = match settings.port {
            0 => free_port(settings.address)?,
            port => port,
        };
        let text = configuration(settings, port, at, trust) + more;
        std::fs::write(at.join("conf"), text)?;
        let child = run(program, at)?;
        Ok(Nats {
            authority: Arc::clone(authority),
            address: settings.address,
            port,
            system: trust.system_credentials(),
            operator: seed(&trust.signer),
            next_operator: seed(&trust.next_signer),
            program: program.to_owned(),
            child,
            directory,
        })
    }

    fn wait(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect((self.address, self.port)).is_err() {
            if self.child.try_wait()?.is_some() || begin.elapsed() > Duration::from_secs(30) {
                return Err(Error::other(format!("it does not start: {}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `host:port`.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Its directory: `ca.crt`, `log`, `accounts`, `jetstream`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// `STOP`, `CONT` or `KILL`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        let done = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()?;
        match done.success() {
            true => Ok(()),
            false => Err(Error::other(format!("kill -{signal}: {done}"))),
        }
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it stored.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = run(&self.program, self.directory.path())?;
        self.wait()
    }
}

fn free_port(address: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

fn run(program: &Path, directory: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))?;
    // The kernel ends it with the thread of the test, also when that is killed.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .arg("--config")
        .arg(directory.join("conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn configuration(settings: &Settings, port: u16, at: &Path, trust: &Trust) -> String {
    let at = at.display();
    let mut text = format!(
        "server_name: \"{port}\"\nlisten: \"{}:{port}\"\n\
         tls {{ cert_file: \"{at}/server.crt\", key_file: \"{at}/server.key\" }}\n",
        settings.address
    );
    if settings.jetstream {
        text.push_str(&format!(
            "jetstream {{ store_dir: \"{at}\", max_file_store: {} }}\n",
            settings.storage
        ));
    }
    if settings.operator {
        text.push_str(&format!(
            "operator: \"{}\"\nsystem_account: {system}\n\
             resolver {{ type: full, dir: \"{at}/accounts\", allow_delete: {} }}\n\
             resolver_preload {{ {system}: \"{}\" }}\n",
            trust.operator_token(),
            settings.allow_delete,
            trust.system_token(),
            system = trust.system.public_key(),
        ));
    }
    text
}

/// The operator and its system account.
struct Trust {
    operator: KeyPair,
    signer: KeyPair,
    next_signer: KeyPair,
    system: KeyPair,
    system_signer: KeyPair,
}

impl Trust {
    fn new() -> Self {
        Trust {
            operator: KeyPair::new_operator(),
            signer: KeyPair::new_operator(),
            next_signer: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            system_signer: KeyPair::new_account(),
        }
    }

    fn operator_token(&self) -> String {
        let nats = json!({
            "signing_keys": [self.signer.public_key(), self.next_signer.public_key()],
            "strict_signing_key_usage": true,
            "system_account": self.system.public_key(),
            "type": "operator",
            "version": 2,
        });
        token(&self.operator, &self.operator.public_key(), nats)
    }

    fn system_token(&self) -> String {
        let limits = json!({
            "conn": -1, "data": -1, "exports": -1, "imports": -1, "leaf": -1, "payload": -1,
            "subs": -1, "wildcards": true,
        });
        let nats = json!({
            "limits": limits,
            "signing_keys": [self.system_signer.public_key()],
            "type": "account",
            "version": 2,
        });
        token(&self.signer, &self.system.public_key(), nats)
    }

    fn system_credentials(&self) -> String {
        let user = KeyPair::new_user();
        let nats = json!({
            "data": -1,
            "issuer_account": self.system.public_key(),
            "payload": -1,
            "subs": -1,
            "type": "user",
            "version": 2,
        });
        let token = token(&self.system_signer, &user.public_key(), nats);
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            seed(&user)
        )
    }
}

fn seed(pair: &KeyPair) -> String {
    pair.seed().expect("a key that was made here")
}

fn token(signer: &KeyPair, subject: &str, nats: Value) -> String {
    let payload = json!({
        "iat": 1,
        "iss": signer.public_key(),
        "jti": subject,
        "name": "lab",
        "nats": nats,
        "sub": subject,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "ed25519-nkey", "typ": "JWT" });
    let signed = format!("{}.{}", part(&header), part(&payload));
    let signature = signer.sign(signed.as_bytes()).expect("a key with a seed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
