//! Every field of a DataStore: what of it reaches its tenants, and that what is changed or
//! taken out leaves nothing behind, in them and in the DataStore's own status.

use std::sync::{Arc, LazyLock};

use apiservice::v1alpha1::{DataStore, Driver, data_store};
use apiservice::{Resource, names};
use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::cluster::caches::Caches;
use crate::datastores::credentials;
use crate::datastores::report::status;
use crate::datastores::world::World;
use crate::tenant::removals::{fingerprint, remove, set, settle};
use crate::tenant::testing::{Lab, authority, start};

/// Who is given what a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaches {
    /// The tenants' objects, and so their pods; or their status.
    Tenants,
    /// We ourselves, when we ask the database; or whoever assigns tenants.
    Us,
}
use Reaches::{Tenants, Us};

/// Whether the API takes a spec in which it is changed, and one without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Free,
    Stays,
    Fixed,
}
use Life::{Fixed, Free, Stays};

struct Row {
    path: &'static str,
    values: [Value; 2],
    reaches: Reaches,
    life: Life,
}

fn content(text: &str) -> Value {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    json!({"content": encoded})
}

/// Every field of the spec; a test holds it against the schema.
fn table() -> Vec<Row> {
    let row = |path, one, other, reaches, life| Row {
        path,
        values: [one, other],
        reaches,
        life,
    };
    let [one, other] = [authority(), authority()];
    let pair = |pair: &apiservice::pki::Pair| json!({"certificate": content(&pair.cert), "privateKey": content(&pair.key)});
    let tls = "/tlsConfig/certificateAuthority/certificate";
    let key = "/tlsConfig/certificateAuthority/privateKey";
    let client = "/tlsConfig/clientCertificate";
    let taint = |key: &str| json!([{"key": key, "effect": "NoSchedule"}]);
    vec![
        row("/driver", json!("MySQL"), json!("NATS"), Tenants, Fixed),
        row(
            "/endpoints",
            json!(["db-1.example:5432"]),
            json!(["a:1", "b:2"]),
            Tenants,
            Stays,
        ),
        row(
            "/basicAuth/username",
            content("one"),
            content("other"),
            Us,
            Stays,
        ),
        row(
            "/basicAuth/password",
            content("one"),
            content("other"),
            Us,
            Stays,
        ),
        row(
            tls,
            content(&one.cert),
            content(&other.cert),
            Tenants,
            Stays,
        ),
        // With it each tenant is given a certificate of its own, in place of a copy of ours.
        row(
            key,
            content(&AUTHORITY.key),
            content(&format!("{}\n", AUTHORITY.key)),
            Tenants,
            Free,
        ),
        row(client, pair(&one), pair(&other), Tenants, Free),
        row("/capacity/tenants", json!(1), json!(2), Us, Free),
        row("/capacity/bytes", json!(1), json!(2), Us, Free),
        row(
            "/tenantLimits",
            json!({"bytes": 1, "objects": 1, "warnAtPercent": 50}),
            json!({"objects": 2}),
            // A condition of theirs, and no object.
            Tenants,
            Free,
        ),
        row("/taints", taint("a"), taint("b"), Us, Free),
    ]
}

/// That of the database, as long as no row names another.
static AUTHORITY: LazyLock<apiservice::pki::Pair> = LazyLock::new(authority);

fn base() -> DataStore {
    let store = json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "DataStore",
        "metadata": {"name": "default", "uid": "store", "generation": 1},
        "spec": {
            "driver": "PostgreSQL",
            "endpoints": ["db-0.example:5432"],
            "basicAuth": {"username": content("admin"), "password": content("secret")},
            "tlsConfig": {"certificateAuthority": {"certificate": content(&AUTHORITY.cert)}},
        },
    });
    serde_json::from_value(store).unwrap()
}

/// The DataStore after a change, if the API takes it.
fn changed(store: &DataStore, change: impl FnOnce(&mut Value)) -> Result<DataStore, Vec<String>> {
    let resource: &Resource = &data_store::RESOURCE;
    let old = serde_json::to_value(store).unwrap();
    let mut new = old.clone();
    change(&mut new["spec"]);
    resource.normalize(&mut new);
    resource.default(&mut new);
    let errors = resource.validate(&new, Some(&old));
    match errors.is_empty() {
        true => Ok(serde_json::from_value(new).unwrap()),
        false => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

/// A DataStore, and a tenant in it that has taken in what it says.
#[derive(Clone)]
struct Pair {
    store: DataStore,
    lab: Lab,
}

impl Pair {
    fn new() -> Self {
        let mut lab = Lab::with(Driver::PostgreSQL);
        let store = base();
        give(&mut lab, &store);
        for _ in 0..3 {
            lab.pass();
        }
        lab.bring_ready();
        settle(&mut lab);
        Pair { store, lab }
    }

    fn after(&self, change: impl FnOnce(&mut Value)) -> Result<Self, Vec<String>> {
        let mut after = self.clone();
        after.store = changed(&self.store, change)?;
        give(&mut after.lab, &after.store);
        settle(&mut after.lab);
        after.store.status = Some(told(&after.store));
        Ok(after)
    }

    /// What there is of the tenant, and what it has of the database's certificates.
    fn tenant(&self) -> (String, Option<String>) {
        let name = names::datastore_certificate("tenant-1");
        let secret = self.lab.world.owned.get::<Secret>(&name);
        let data = secret.map(|secret| format!("{:?}", secret.data));
        (fingerprint(&self.lab), data)
    }

    /// What there is of both.
    fn seen(&self) -> (String, Option<String>, Value) {
        let (tenant, data) = self.tenant();
        let tls = self.store.spec.tls_config.as_ref();
        // What is made for a tenant is another one each time.
        let own = tls.is_some_and(|tls| tls.certificate_authority.private_key.is_some());
        let told = serde_json::to_value(told(&self.store)).unwrap();
        (tenant, data.filter(|_| !own), told)
    }
}

fn give(lab: &mut Lab, store: &DataStore) {
    lab.world.data_store = Some(Arc::new(store.clone()));
    lab.world.store.credentials = credentials::fact(store, &Caches::default());
}

fn told(store: &DataStore) -> apiservice::v1alpha1::DataStoreStatus {
    let caches = Caches::default();
    status(&World {
        gap: credentials::resolve(store, &caches).err(),
        certificates: credentials::certificates(store, &caches),
        ..World::of(store.clone(), start())
    })
}

#[test]
fn every_field_of_a_data_store_has_its_row() {
    fn uncovered(schema: &Value, path: &str, rows: &[Row], missing: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else {
            return missing.push(path.to_owned());
        };
        for (name, property) in properties {
            let path = format!("{path}/{name}");
            if !rows.iter().any(|row| row.path == path) {
                uncovered(property, &path, rows, missing);
            }
        }
    }
    let schema = data_store::RESOURCE.schema().at(&["spec"]);
    let mut missing = Vec::new();
    uncovered(schema.unwrap(), "", &table(), &mut missing);
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn what_is_taken_out_of_a_data_store_is_gone() {
    let without = Pair::new();
    for row in table() {
        let (path, [one, other]) = (row.path, &row.values);
        let with = without.after(|spec| set(spec, path, one));
        assert_eq!(with.is_ok(), row.life != Fixed, "{path} set");
        let Ok(with) = with else { continue };
        let reached = with.tenant() != without.tenant();
        assert_eq!(reached, row.reaches == Tenants, "{path} reaches tenants");

        let changed = with.after(|spec| set(spec, path, other)).unwrap();
        let never = without.after(|spec| set(spec, path, other)).unwrap();
        assert_eq!(changed.seen(), never.seen(), "{path} changed");

        let removed = changed.after(|spec| remove(spec, path));
        let emptied = changed.after(|spec| set(spec, path, &Value::Null));
        for answer in [&removed, &emptied] {
            assert_eq!(answer.is_ok(), row.life == Free, "{path} removed");
        }
        for after in removed.into_iter().chain(emptied) {
            assert_eq!(after.seen(), without.seen(), "{path} removed");
        }
        let back = changed.after(|spec| *spec = serde_json::to_value(&without.store.spec).unwrap());
        assert_eq!(back.unwrap().seen(), without.seen(), "{path} as it was");
    }
}
