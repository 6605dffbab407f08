//! A PostgreSQL or a MariaDB with TLS, in a directory of its own, that ends with the thread
//! that started it.
//!
//! This file needs nothing else of the lab: tests of the crate `storage`, which the lab
//! depends on, include it by its path.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// Both servers refuse to run as root. This one needs no entry in any file.
const NOBODY: u32 = 65534;

/// Name of the administrator in each of them.
pub const ADMINISTRATOR: &str = "admin";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The distribution's version.
    PostgreSql,
    /// The distribution's version; speaks MySQL's protocol.
    MariaDb,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// An authority that signs certificates of servers and clients.
pub struct Authority {
    /// Its certificate, PEM.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a new key");
        let cert = params.self_signed(&key).expect("a signature").pem();
        let issuer = Issuer::new(params, key);
        Authority { cert, issuer }
    }

    /// A client's certificate.
    pub fn client(&self, common_name: &str) -> Pair {
        self.sign(common_name, ExtendedKeyUsagePurpose::ClientAuth, &[])
    }

    /// A server's certificate for these names and addresses.
    pub fn server(&self, hosts: &[String]) -> Pair {
        self.sign("server", ExtendedKeyUsagePurpose::ServerAuth, hosts)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, hosts: &[String]) -> Pair {
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a new key");
        let cert = params.signed_by(&key, &self.issuer).expect("a signature");
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// What a server is to be like.
pub struct Settings {
    /// Where it listens.
    pub addresses: Vec<IpAddr>,
    /// 0: one that is free.
    pub port: u16,
    /// What its certificate is for, beside the addresses.
    pub names: Vec<String>,
    /// The administrator's password.
    pub password: String,
    /// Further lines of its configuration.
    pub configuration: String,
    /// Where its directory is made, which goes with this value; without it, where
    /// temporary files are.
    pub within: Option<PathBuf>,
    /// Whether its log has all statements, with all that is in them.
    pub log_statements: bool,
    /// PostgreSQL's `pg_hba.conf`, instead of passwords for everybody.
    pub hba: Option<String>,
    /// A PostgreSQL that follows another one, which it never hears of, and only reads.
    pub standby: bool,
}

impl Settings {
    /// On this machine only.
    pub fn local(password: &str) -> Self {
        Settings {
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            port: 0,
            names: vec!["localhost".to_owned()],
            password: password.to_owned(),
            configuration: String::new(),
            within: None,
            log_statements: true,
            hba: None,
            standby: false,
        }
    }
}

/// A running server.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Who signed its certificate, and whose clients it knows.
    pub authority: Authority,
    /// Its port at each address.
    pub port: u16,
    /// As in the settings.
    pub password: String,
    child: Child,
    directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where [`super::fetch`] unpacked the servers.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// In the lab's cache.
    pub fn in_cache(cache: &Path) -> Result<Self> {
        let root = cache.join("databases");
        match root.is_dir() {
            true => Ok(Programs { root }),
            false => Err(Error::other(
                "there are no databases to test with; run: make lab-build",
            )),
        }
    }

    /// The directory of PostgreSQL's programs, below the root.
    fn postgresql(&self) -> Result<PathBuf> {
        let mut versions: Vec<_> = std::fs::read_dir(self.root.join("usr/lib/postgresql"))?
            .map(|entry| {
                let version = entry?.file_name();
                Ok(Path::new("usr/lib/postgresql").join(version).join("bin"))
            })
            .collect::<Result<_>>()?;
        versions.sort();
        versions.pop().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Directories of libraries, those of the machine's architecture.
    fn libraries(&self, seen: &Programs) -> String {
        let mut found = Vec::new();
        for parent in ["usr/lib", "lib"] {
            let entries = std::fs::read_dir(self.root.join(parent));
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_string_lossy().ends_with("-linux-gnu") {
                    let path = seen.root.join(parent).join(name);
                    found.push(path.display().to_string());
                }
            }
        }
        found.join(":")
    }

    /// The same programs where everybody may read them: the cache may be root's alone.
    fn seen_from(&self, directory: &Path) -> Result<Self> {
        if !is_root() {
            return Ok(self.clone());
        }
        let root = directory.join("programs");
        std::fs::create_dir(&root)?;
        Ok(Programs { root })
    }

    /// A command that runs without root's rights, with the programs mounted for itself.
    fn command(&self, seen: &Programs, program: &Path) -> Command {
        let mut command = match is_root() {
            false => Command::new("env"),
            true => {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "--propagation=private", "sh", "-c"])
                    .arg("mount --bind \"$0\" \"$1\" && shift && exec setpriv \"$@\"")
                    .args([&self.root, &seen.root])
                    .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
                    .args(["--clear-groups", "--inh-caps=-all", "--no-new-privs"])
                    .args(["--pdeathsig=KILL", "env"]);
                command
            }
        };
        // For the program alone: these libraries need not fit those before it.
        command
            .arg(format!("LD_LIBRARY_PATH={}", self.libraries(seen)))
            .arg("LC_ALL=C")
            .arg(program)
            .current_dir("/");
        command
    }

    /// Starts a server and waits until it answers.
    pub fn start(&self, kind: Kind, settings: &Settings) -> Result<Server> {
        let mut builder = tempfile::Builder::new();
        builder
            .prefix("steward-db-")
            .permissions(std::fs::Permissions::from_mode(0o700));
        let directory = match &settings.within {
            Some(within) => builder.tempdir_in(within)?,
            None => builder.tempdir()?,
        };
        if is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let authority = Authority::new(&format!("lab {}", directory.path().display()));
        let addresses = settings.addresses.iter().map(IpAddr::to_string);
        let hosts: Vec<String> = addresses.chain(settings.names.iter().cloned()).collect();
        let pair = authority.server(&hosts);
        for (name, text) in [
            ("ca.crt", &authority.cert),
            ("server.crt", &pair.cert),
            ("server.key", &pair.key),
        ] {
            write(directory.path(), name, text)?;
        }
        let port = match settings.port {
            0 => free_port(&settings.addresses)?,
            port => port,
        };
        let place = Place {
            programs: self,
            seen: self.seen_from(directory.path())?,
            directory: directory.path(),
        };
        let mut command = match kind {
            Kind::PostgreSql => place.postgres(settings, port)?,
            Kind::MariaDb => place.mariadb(settings, port)?,
        };
        let log = std::fs::File::create(directory.path().join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Server {
            kind,
            authority,
            port,
            password: settings.password.clone(),
            child,
            directory,
        };
        server.wait(settings.addresses[0])?;
        Ok(server)
    }
}

/// Where one server is made.
struct Place<'a> {
    programs: &'a Programs,
    seen: Programs,
    directory: &'a Path,
}

impl Place<'_> {
    fn command(&self, program: &Path) -> Command {
        self.programs
            .command(&self.seen, &self.seen.root.join(program))
    }

    fn postgres(&self, settings: &Settings, port: u16) -> Result<Command> {
        let directory = self.directory;
        let programs = self.programs.postgresql()?;
        let data = directory.join("data");
        let secret = write(directory, "secret", &settings.password)?;
        let mut initdb = self.command(&programs.join("initdb"));
        initdb
            .arg(path("--pgdata=", &data))
            .arg(path("--pwfile=", &secret))
            .arg(format!("--username={ADMINISTRATOR}"))
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"])
            .arg("--no-sync");
        complete(&mut initdb, "")?;
        if settings.standby {
            write(&data, "standby.signal", "")?;
        }
        let hba = settings.hba.clone().unwrap_or_else(|| {
            "hostssl all all all scram-sha-256\nhostnossl all all all scram-sha-256\n".to_owned()
        });
        let hba = write(directory, "hba", &hba)?;
        let addresses: Vec<_> = settings.addresses.iter().map(IpAddr::to_string).collect();
        let file = |name: &str| directory.join(name).display().to_string();
        let configuration = format!(
            "listen_addresses = '{}'\nport = {port}\nunix_socket_directories = ''\n\
             hba_file = '{}'\nident_file = '{}'\nssl = on\nssl_ca_file = '{}'\nssl_cert_file = '{}'\n\
             ssl_key_file = '{}'\nfsync = off\njit = off\nshared_buffers = 16MB\n\
             log_statement = '{}'\n{}",
            addresses.join(","),
            hba.display(),
            file("data/pg_ident.conf"),
            file("ca.crt"),
            file("server.crt"),
            file("server.key"),
            match settings.log_statements {
                true => "all",
                false => "none",
            },
            settings.configuration,
        );
        let configuration = write(directory, "conf", &configuration)?;
        let mut command = self.command(&programs.join("postgres"));
        command
            .arg(path("--data_directory=", &data))
            .arg(path("--config_file=", &configuration));
        Ok(command)
    }

    fn mariadb(&self, settings: &Settings, port: u16) -> Result<Command> {
        let directory = self.directory;
        let data = directory.join("data");
        std::fs::create_dir(&data)?;
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY))?;
        }
        let share = self.seen.root.join("usr/share/mysql");
        let daemon = || {
            let mut command = self.command(Path::new("usr/sbin/mariadbd"));
            command
                .arg("--no-defaults")
                .arg(path("--basedir=", &self.seen.root.join("usr")))
                .arg(path("--lc-messages-dir=", &share))
                .arg(path("--character-sets-dir=", &share.join("charsets")))
                .arg(path("--datadir=", &data))
                .arg(path("--tmpdir=", directory))
                .args(["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"])
                .args(["--innodb-data-file-path=ibdata1:4M:autoextend"])
                .arg("--innodb-flush-log-at-trx-commit=0");
            command
        };
        let mut sql = String::from("create database mysql;\nuse mysql;\n");
        for name in [
            "mysql_system_tables.sql",
            "mysql_performance_tables.sql",
            "mysql_system_tables_data.sql",
        ] {
            sql.push_str(&std::fs::read_to_string(
                self.programs.root.join("usr/share/mysql").join(name),
            )?);
            sql.push('\n');
        }
        sql.push_str(
            "delete from mysql.global_priv where User <> 'mariadb.sys';\nflush privileges;\n",
        );
        let password = settings.password.replace('\\', "\\\\").replace('\'', "''");
        sql.push_str(&format!(
            "create user '{ADMINISTRATOR}'@'%' identified by '{password}';\n\
             grant all on *.* to '{ADMINISTRATOR}'@'%' with grant option;\n"
        ));
        complete(daemon().arg("--bootstrap").arg("--skip-networking"), &sql)?;
        let mut command = daemon();
        let addresses: Vec<_> = settings.addresses.iter().map(IpAddr::to_string).collect();
        command
            .arg(format!("--bind-address={}", addresses.join(",")))
            .arg(format!("--port={port}"))
            .arg(path("--socket=", &directory.join("socket")))
            .arg(path("--pid-file=", &directory.join("pid")))
            .arg(path("--ssl-ca=", &directory.join("ca.crt")))
            .arg(path("--ssl-cert=", &directory.join("server.crt")))
            .arg(path("--ssl-key=", &directory.join("server.key")))
            .args(settings.configuration.split_whitespace());
        Ok(command)
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, format!("{text}\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    if is_root() {
        chown(&path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(path)
}

impl Server {
    /// `host:port` on this machine.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its directory: `data`, `log`, and the certificates `ca.crt`, `server.crt`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// `STOP`, `CONT` or `KILL`, to the process that listens.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        let done = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()?;
        done.success()
            .then_some(())
            .ok_or_else(|| Error::other("kill"))
    }

    /// The same to all of the server: PostgreSQL has a process for each connection.
    pub fn signal_all(&self, signal: &str) -> Result<()> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(children)?;
        self.signal(signal)?;
        for child in children.split_whitespace() {
            // One that has ended meanwhile is no failure.
            Command::new("kill")
                .args([&format!("-{signal}"), child])
                .stderr(Stdio::null())
                .status()?;
        }
        Ok(())
    }

    fn wait(&mut self, address: IpAddr) -> Result<()> {
        let begin = Instant::now();
        let ready = match self.kind {
            Kind::PostgreSql => "database system is ready to accept",
            Kind::MariaDb => "ready for connections",
        };
        while !self.log().contains(ready) || TcpStream::connect((address, self.port)).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > Duration::from_secs(60) {
                let log = self.log();
                let text = format!("{:?} does not start ({ended:?}): {log}", self.kind);
                return Err(Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Runs a command to its end.
fn complete(command: &mut Command, input: &str) -> Result<()> {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why on its own.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::other(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&text)
    )))
}

fn path(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn free_port(addresses: &[IpAddr]) -> Result<u16> {
    let address = addresses.first().copied();
    let address = address.ok_or_else(|| Error::other("a server needs an address"))?;
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}
