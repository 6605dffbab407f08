//! A database beside a cluster that is up: it ends with the run, and says by which
//! DataStore it is reached.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::cluster::Lab;
use super::super::directories::{self, Directories};
use super::super::error::{Doing, Error, Result};
use super::super::process::Program;
use super::super::programs::{KINE, NATS};
use super::super::{databases, images};
use super::running::{Driver, Names, Place, Running};

/// How long a server may take to be made and to answer.
const COMING: Duration = Duration::from_secs(60);

/// Fetches what is needed, loads kine into the cluster, starts a database of its own
/// process, and gives the manifest of its DataStore and of the Secret with its administrator.
/// The DataStore of the first one is called `default`, those of others as their kind. One that
/// is there already is given again.
pub fn start(lab: &Lab, driver: Driver, say: &mut dyn FnMut(&str)) -> Result<String> {
    let directories = lab.directories();
    {
        let _lock = directories.lock_cache(say)?;
        match driver {
            Driver::Sql(_) => databases::fetch(directories, say)?,
            Driver::Nats => NATS.build(directories, say)?,
        }
        KINE.build(directories, say)?;
    }
    let name = driver.name().to_lowercase();
    let directory = lab.directory().path().join("databases");
    let manifest = directory.join(&name).join("datastore.json");
    let read =
        || std::fs::read_to_string(&manifest).doing(|| format!("read {}", manifest.display()));
    if manifest.exists() {
        return read();
    }
    let is_first = !directory.exists();
    directories::create(&directory.join(&name))?;
    let image = lab.directory().path().join("kine.tar");
    images::build_kine(directories, &image)?;
    lab.load_image(&image)?;
    let own = std::env::current_exe().doing(|| "find the lab's own program".into())?;
    let program = Program::new(&format!("database-{name}"), own).args([
        "serve-database".into(),
        "--kind".into(),
        name.clone().into(),
        "--address".into(),
        // It runs in the network of the run.
        lab.addresses().node().to_string().into(),
        "--manifest".into(),
        manifest.clone().into_os_string(),
        "--data-store".into(),
        if is_first {
            "default".into()
        } else {
            name.clone().into()
        },
    ]);
    let process = lab.spawn(program)?;
    let began = Instant::now();
    while !manifest.exists() {
        process.check()?;
        if began.elapsed() > COMING {
            return Err(Error::Refused(format!(
                "the database does not answer within {} s; `lab logs database-{name}` has what it says",
                COMING.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    read()
}

/// Runs a database until this process ends.
pub fn serve(
    directories: &Directories,
    driver: Driver,
    address: IpAddr,
    manifest: &Path,
    data_store: &str,
) -> Result<()> {
    // What tenants write goes with the run.
    let place = Place {
        address,
        within: manifest.parent().map(Path::to_owned),
        password: uuid::Uuid::new_v4().to_string(),
    };
    let server =
        Running::start(directories, driver, place).doing(|| "start the database".into())?;
    let secret = match data_store {
        "default" => "database-admin".to_owned(),
        other => format!("database-admin-{other}"),
    };
    let names = Names {
        data_store,
        secret: &secret,
        namespace: "steward-system",
        address,
    };
    let items = server.objects(driver, &names);
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": items});
    // It is looked for: whole or not there.
    let draft = manifest.with_extension("draft");
    directories::write(&draft, format!("{objects:#}\n"))?;
    std::fs::rename(&draft, manifest).doing(|| format!("create {}", manifest.display()))?;
    loop {
        std::thread::park();
    }
}
