//! What a tenant costs in the controller's memory: all that the caches hold of it.

use std::process::Command;
use std::sync::Arc;

use apiservice::names;
use apiservice::v1alpha1::TenantControlPlane;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::cache::{Cache, Cached};
use crate::cluster::caches::Caches;
use crate::tenant::objects;
use crate::tenant::pki::kubeconfig;
use crate::tenant::plan::Object;
use crate::tenant::testing::Lab;
use crate::tenant::tests::large;

/// What the child reads; see [`child`].
const BODY: &str = "STEWARD_TEST_KUBECONFIG";
/// The same for [`child_of_tenants`].
const TENANT: &str = "STEWARD_TEST_TENANT";
const COPIES: usize = 20;
const MIB: usize = 1024 * 1024;

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

/// Reads a kubeconfig in a process of its own, and says what that took.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how a test tells itself its case"
)]
fn child() {
    let Ok(path) = std::env::var(BODY) else {
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    // The reader's own pages.
    kubeconfig::embedded("users: [{user: {}}]");
    // The largest it has been is what it is now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let read = kubeconfig::embedded(&text);
    let took = status("VmHWM:").saturating_sub(before);
    std::fs::write(format!("{path}.took"), format!("{took} {}", read.is_some())).unwrap();
}

/// Reads a tenant a number of times in a process of its own, and says what that took.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how a test tells itself its case"
)]
fn child_of_tenants() {
    let Ok(path) = std::env::var(TENANT) else {
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let caches = Caches::default();
    let read = || {
        let tenant = serde_json::from_str::<TenantControlPlane>(&text).unwrap();
        caches.kept(tenant).unwrap()
    };
    // The reader's own pages.
    let first = read();
    let before = status("VmRSS:");
    let held: Vec<_> = (0..COPIES).map(|_| read()).collect();
    let took = status("VmRSS:").saturating_sub(before);
    std::fs::write(format!("{path}.took"), format!("{}", took / held.len())).unwrap();
    drop(first);
}

/// What a child says that is given this.
fn said(child: &str, variable: &str, text: &str) -> String {
    let directory = std::env::temp_dir();
    let name = format!("steward-{child}-{}", std::process::id());
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tenant::tests::memory::{child}")])
        .env(variable, &path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let told = directory.join(format!("{}.took", path.display()));
    let found = std::fs::read_to_string(&told).unwrap();
    for file in [path, told] {
        std::fs::remove_file(file).unwrap();
    }
    found
}

/// Bytes that reading it took, and whether there is a certificate.
fn took(text: &str) -> (usize, bool) {
    let found = said("child", BODY, text);
    let (took, there) = found.split_once(' ').unwrap();
    (took.parse().unwrap(), there == "true")
}

/// `explanation/limits.md` tells the figure.
#[test]
fn the_heaviest_tenants_take_no_more_memory_than_is_said() {
    let bytes_of = |tenant: &Value| -> usize {
        let said = said("child_of_tenants", TENANT, &tenant.to_string());
        said.parse().unwrap()
    };
    for (name, count, tenant) in large::largest() {
        let bytes = bytes_of(&tenant);
        eprintln!("{name}: {} KiB of {count}", bytes / 1024);
        assert!(bytes < MIB, "{name}: {bytes} bytes of {count}");
    }
    // Of an older release.
    let mut heavy = large::tenant(|_| {});
    let sources = json!({"sources": vec![json!({}); 250_000]});
    let volumes = json!([{"name": "v", "projected": sources}]);
    heavy["spec"]["controlPlane"]["deployment"]["additionalVolumes"] = volumes;
    let bytes = bytes_of(&heavy);
    assert!(bytes < MIB, "{bytes}");
}

/// Whoever may edit Secrets of a namespace writes there what they like, as much as is held of
/// one. A value of 128 KiB took hundreds of MiB.
#[test]
fn a_kubeconfig_that_somebody_wrote_takes_little_memory() {
    let lab = Lab::ready();
    let secret = lab.world.secret(&names::admin_kubeconfig("tenant-1"));
    let ours = objects::text(secret.unwrap(), names::key::ADMIN_CONF).unwrap();
    let (_, there) = took(&ours);
    assert!(there, "{ours}");
    let list = |bytes: usize, item: &str| item.repeat(bytes / item.len());
    for (name, more) in [
        (
            "merged keys",
            format!(
                "{{b: {}[{}]{}}}",
                "{<<: ".repeat(14),
                list(30_000, "[],"),
                "}".repeat(14)
            ),
        ),
        (
            "many merged keys",
            format!(
                "{}[{}]{}",
                "{<<: ".repeat(60),
                list(120_000, "[],"),
                "}".repeat(60)
            ),
        ),
        (
            "integers",
            format!(
                "{}[{}]{}",
                "{1: ".repeat(14),
                list(30_000, "[],"),
                "}".repeat(14)
            ),
        ),
        (
            "aliases",
            format!("[&a [{}], {}]", list(3_000, "x,"), list(30_000, "*a,")),
        ),
        ("maps", format!("[{}]", list(120_000, "{a: 0},"))),
    ] {
        let (took, there) = took(&format!("{ours}x: {more}\n"));
        eprintln!("{name}: {} KiB", took / 1024);
        assert!(took < 8 * MIB, "{name}: {} MiB", took / MIB);
        assert!(!there, "{name}");
    }
}

const TENANTS: usize = 100;
const WARNINGS: usize = 10;

/// What is held of one kind: its values, and its text for all that these lead to.
fn bytes<K: Cached + Serialize>(cache: &Cache<K>) -> usize {
    let all = cache.all();
    let sizes = all
        .iter()
        .map(|it| size_of::<K>() + serde_json::to_vec(&**it).unwrap().len());
    sizes.sum()
}

/// An object of the lab's tenant, as one of another.
fn of<K: DeserializeOwned>(number: usize, object: &Value) -> K {
    let text = object
        .to_string()
        .replace("tenant-1", &format!("tenant-{number}"));
    serde_json::from_str(&text).unwrap()
}

fn put<K: Cached + DeserializeOwned>(cache: &Cache<K>, caches: &Caches, n: usize, object: &Value) {
    cache.put(caches.kept(of::<K>(n, object)).unwrap());
}

/// What somebody says of a pod of the tenant that does not come up.
fn warning(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("tenant-1-0.{number}"), "namespace": "tenants", "uid": "e"},
        "involvedObject": {"kind": "Pod", "namespace": "tenants", "name": "tenant-1-0", "uid": "p"},
        "reason": "Failed", "type": "Warning", "message": "x".repeat(1000),
    })
}

fn filled(lab: &Lab) -> Caches {
    let caches = Caches::default();
    let seen = lab.seen();
    let tenant = serde_json::to_value(&*lab.world.tenant).unwrap();
    let pod = serde_json::to_value(&*seen.pods[0]).unwrap();
    let mut set = serde_json::to_value(&*seen.replica_sets[0]).unwrap();
    for number in 0..TENANTS {
        let tenant: TenantControlPlane = of(number, &tenant);
        caches.tenants.put(Arc::new(tenant));
        for found in lab.world.owned.iter() {
            let value = Object::from(found.clone()).value().unwrap();
            found
                .kind()
                .cache(&caches)
                .remember(of(number, &value), &caches);
        }
        for replica in 0..3 {
            let mut pod = pod.clone();
            pod["metadata"]["name"] = json!(format!("tenant-1-{replica}"));
            put::<Pod>(&caches.pods, &caches, number, &pod);
        }
        for old in 0..2 {
            set["metadata"]["name"] = json!(format!("tenant-1-set-{old}"));
            put::<ReplicaSet>(&caches.replica_sets, &caches, number, &set);
        }
        for event in 0..WARNINGS {
            put::<Event>(&caches.events, &caches, number, &warning(event));
        }
    }
    caches
}

/// `explanation/limits.md` tells the figure.
#[test]
fn a_tenant_costs_no_more_memory_than_is_said() {
    let caches = filled(&Lab::ready());
    let counts = [
        caches.pods.len(),
        caches.replica_sets.len(),
        caches.events.len(),
    ];
    assert_eq!(counts, [3 * TENANTS, 2 * TENANTS, WARNINGS * TENANTS]);
    assert!(
        caches.secrets.len() >= 12 * TENANTS,
        "{}",
        caches.secrets.len()
    );
    let held = [
        ("tenants", bytes(&caches.tenants)),
        ("secrets", bytes(&caches.secrets)),
        ("config maps", bytes(&caches.config_maps)),
        ("services", bytes(&caches.services)),
        ("deployments", bytes(&caches.deployments)),
        ("roles", bytes(&caches.roles) + bytes(&caches.role_bindings)),
        ("pods", bytes(&caches.pods)),
        ("replica sets", bytes(&caches.replica_sets)),
        ("events", bytes(&caches.events)),
    ];
    let each: usize = held.iter().map(|(_, bytes)| bytes / TENANTS).sum();
    let parts = held.map(|(kind, bytes)| format!("{kind} {}", bytes / TENANTS));
    eprintln!("{each} bytes for each tenant: {}", parts.join(", "));
    assert!(each < 128 * 1024, "{each}: {parts:?}");
}
