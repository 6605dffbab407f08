//! A database beside a cluster that is up: it ends with the run, and says by which
//! DataStore it is reached.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::cluster::Lab;
use super::super::directories;
use super::super::error::{Doing, Error, Result};
use super::super::process::Program;
use super::super::programs::KINE;
use super::super::{databases, images};
use super::server::{ADMINISTRATOR, Kind, Programs, Settings};

/// How long a server may take to be made and to answer.
const COMING: Duration = Duration::from_secs(60);

/// Fetches what is needed, loads kine into the cluster, starts a database of its own
/// process, and gives the manifest of its DataStore, which is called `default`, and of the
/// Secret with its administrator.
pub fn start(lab: &Lab, kind: Kind, say: &mut dyn FnMut(&str)) -> Result<String> {
    let directories = lab.directories();
    {
        let _lock = directories.lock_cache(say)?;
        databases::fetch(directories, say)?;
        KINE.build(directories, say)?;
    }
    let image = lab.directory().path().join("kine.tar");
    images::build_kine(directories, &image)?;
    lab.load_image(&image)?;
    let manifest = lab.directory().path().join("datastore.json");
    let own = std::env::current_exe().doing(|| "find the lab's own program".into())?;
    let program = Program::new("database", own).args([
        "serve-database".into(),
        "--kind".into(),
        name_of(kind).into(),
        "--address".into(),
        // It runs in the network of the run.
        lab.addresses().node().to_string().into(),
        "--manifest".into(),
        manifest.clone().into_os_string(),
    ]);
    let process = lab.spawn(program)?;
    let began = Instant::now();
    while !manifest.exists() {
        process.check()?;
        if began.elapsed() > COMING {
            return Err(Error::Refused(format!(
                "the database does not answer within {} s; `lab logs database` has what it says",
                COMING.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::fs::read_to_string(&manifest).doing(|| format!("read {}", manifest.display()))
}

/// Runs a database until this process ends.
pub fn serve(cache: &Path, kind: Kind, address: IpAddr, manifest: &Path) -> Result<()> {
    // What tenants write is nobody's business, and all of it goes with the run.
    let settings = Settings {
        addresses: vec![address],
        within: manifest.parent().map(Path::to_owned),
        log_statements: false,
        ..Settings::local(&uuid::Uuid::new_v4().to_string())
    };
    let server = Programs::in_cache(cache)
        .and_then(|programs| programs.start(kind, &settings))
        .doing(|| "start the database".into())?;
    let within = |key: &str| json!({"secretReference": {"name": SECRET, "namespace": SYSTEM, "keyPath": key}});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": SYSTEM},
            "stringData": {
                "username": ADMINISTRATOR,
                "password": server.password,
                "ca.crt": server.authority.cert,
            },
        },
        {
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "default"},
            "spec": {
                "driver": name_of(kind),
                "endpoints": [format!("{address}:{}", server.port)],
                "basicAuth": {"username": within("username"), "password": within("password")},
                "tlsConfig": {"certificateAuthority": {"certificate": within("ca.crt")}},
            },
        },
    ]});
    // It is looked for: whole or not there.
    let draft = manifest.with_extension("draft");
    directories::write(&draft, format!("{objects:#}\n"))?;
    std::fs::rename(&draft, manifest).doing(|| format!("create {}", manifest.display()))?;
    loop {
        std::thread::park();
    }
}

/// Namespace of the Secret.
const SYSTEM: &str = "steward-system";
const SECRET: &str = "database-admin";

/// As `DataStore.spec.driver` has it.
fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::PostgreSql => "PostgreSQL",
        Kind::MariaDb => "MySQL",
    }
}
