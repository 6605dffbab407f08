//! Resources in other DataStores, pass by pass.

use apiservice::names::{self, container};
use apiservice::v1alpha1::{DataStoreOverride, Driver};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::overrides::claimant;
use crate::tenant::backing::beside;
use crate::tenant::backing::facts::{StoreProblem, StoreProblemKind};
use crate::tenant::plan::{Plan, Step};
use crate::tenant::removals::settle;
use crate::tenant::testing::{Lab, UID, brief, golden};

fn all(rows: &[(&str, &str)]) -> Vec<DataStoreOverride> {
    let one = |(resource, store): &(&str, &str)| DataStoreOverride {
        resource: Some((*resource).to_owned()),
        data_store: Some((*store).to_owned()),
    };
    rows.iter().map(one).collect()
}

/// A tenant that is Ready, with these overrides from its beginning.
fn ready(rows: &[(&str, &str)]) -> Lab {
    let mut lab = fresh(rows);
    for _ in 0..3 {
        lab.pass();
    }
    lab.bring_ready();
    settle(&mut lab);
    lab
}

fn fresh(rows: &[(&str, &str)]) -> Lab {
    let mut lab = Lab::new();
    lab.drivers.insert("pg".to_owned(), Driver::PostgreSQL);
    lab.spec().data_store_overrides = all(rows);
    lab
}

/// Somebody deletes the tenant.
fn deleted(lab: &mut Lab) {
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp = Some(Time(now));
    lab.world.deleting_since = Some(now);
}

fn pod(lab: &Lab) -> PodSpec {
    let spec = lab.world.deployment().expect("a Deployment").spec.clone();
    spec.unwrap().template.spec.unwrap()
}

fn sidecar<'a>(pod: &'a PodSpec, name: &str, store: &str) -> Option<&'a Container> {
    let name = format!("{name}-{}", names::override_mark(store));
    let mut all = pod.init_containers.iter().flatten();
    all.find(|it| it.name == name)
}

fn flag(pod: &PodSpec, name: &str) -> Option<String> {
    let mut all = pod.containers.iter();
    let server = all.find(|it| it.name == container::API_SERVER).unwrap();
    let mut all = server.args.iter().flatten();
    let value = |it: &String| Some(it.strip_prefix(&format!("--{name}="))?.to_owned());
    all.find_map(value)
}

fn claims(plan: &Plan, of: impl Fn(&Step) -> Option<&storage::tenancy::Claim>) -> Vec<String> {
    let all = plan.steps.iter().filter_map(of);
    all.map(|claim| claim.uid.clone()).collect()
}

/// The whole plan of a tenant with events in PostgreSQL and objects in another etcd.
#[test]
fn what_is_planned_for_overrides() {
    let mut lab = fresh(&[("/events", "pg"), ("/configmaps", "other")]);
    let mut text = String::new();
    for number in 1..=3 {
        text.push_str(&format!("pass {number}\n"));
        let plan = lab.pass();
        text.push_str(&plan.to_string());
    }
    lab.bring_ready();
    settle(&mut lab);
    text.push_str(&lab.told());
    let storage = lab.world.tenant.status.clone().unwrap().storage.unwrap();
    for it in &storage.overrides {
        let setup = it.setup.clone().unwrap();
        text.push_str(&format!(
            "  {} ({}): {} as {} of {}\n",
            it.data_store_name,
            it.driver.clone().unwrap(),
            it.resources.join(" "),
            setup.user.unwrap(),
            setup.schema.unwrap(),
        ));
    }
    golden("overrides", &text);
}

#[test]
fn each_place_has_names_rights_and_a_way_of_its_own() {
    let lab = ready(&[
        ("/events", "pg"),
        ("/configmaps", "other"),
        ("apps/replicasets", "other"),
    ]);
    let pod = pod(&lab);
    assert_eq!(
        flag(&pod, "etcd-servers-overrides").unwrap(),
        "/events#http://127.0.0.1:2390,/configmaps#http://127.0.0.1:2391,\
         apps/replicasets#http://127.0.0.1:2391"
    );
    assert_eq!(flag(&pod, "etcd-prefix").unwrap(), "/tenants_tenant_1");
    let relay = sidecar(&pod, container::RELAY, "other").unwrap();
    let arguments = relay.args.clone().unwrap();
    assert!(
        arguments.contains(&"--listen=127.0.0.1:2391".to_owned()),
        "{arguments:?}"
    );
    assert!(
        arguments.contains(&"--endpoints=other.example:2379".to_owned()),
        "{arguments:?}"
    );
    assert_eq!(relay.image.as_deref(), Some("steward-controller:test"));
    let kine = sidecar(&pod, container::KINE, "pg").unwrap();
    let arguments = kine.args.clone().unwrap();
    for wanted in [
        "--listen-address=tcp://127.0.0.1:2390",
        "--metrics-bind-address=:2400",
    ] {
        assert!(arguments.iter().any(|it| it == wanted), "{arguments:?}");
    }
    let claim = |store: &str| {
        let facts = &lab.places[&claimant(UID, store)];
        facts.held.clone().unwrap().claim
    };
    let (pg, other) = (claim("pg"), claim("other"));
    let main = lab.world.store.held.clone().unwrap().claim;
    assert_eq!(pg.prefix.as_deref(), Some("/tenants_tenant_1"));
    assert_eq!(other.schema, "tenants_tenant_1");
    assert!(other.user != main.user && other.uid != main.uid && pg.user != other.user);
    // Neither is told of the other's credentials, nor of those of the main place.
    let secrets = |of: &Container| serde_json::to_string(&(&of.env, &of.volume_mounts)).unwrap();
    assert!(!secrets(kine).contains(&names::override_mark("other")));
    assert!(!secrets(relay).contains(&names::override_mark("pg")));
    // A tenant serves without its events, and does not without its ConfigMaps.
    let mut servers = pod.containers.iter();
    let server = servers.find(|it| it.name == container::API_SERVER).unwrap();
    let probe = server.readiness_probe.clone().unwrap();
    let path = probe.http_get.unwrap().path.unwrap();
    assert!(path.contains("exclude=etcd-override-0"), "{path}");
    assert!(!path.contains("etcd-override-1"), "{path}");
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
}

/// Behind kine, the main place has no certificate that etcd's client could show elsewhere.
#[test]
fn an_override_in_etcd_beside_a_main_place_behind_kine() {
    let mut lab = Lab::with(Driver::PostgreSQL);
    lab.spec().data_store_overrides = all(&[("/events", "other")]);
    for _ in 0..3 {
        lab.pass();
    }
    let pod = pod(&lab);
    assert_eq!(flag(&pod, "etcd-servers").unwrap(), "unix:///uds/kine");
    assert_eq!(flag(&pod, "etcd-compaction-interval").unwrap(), "0");
    assert!(flag(&pod, "etcd-servers-overrides").is_some());
    let named = |name: &str| {
        pod.init_containers
            .iter()
            .flatten()
            .any(|it| it.name == name)
    };
    assert!(named(container::KINE), "its own is as it was");
}

/// One that is added, and one that is taken out: nothing of it is left.
#[test]
fn events_come_and_go() {
    let mut lab = Lab::ready();
    settle(&mut lab);
    lab.spec().data_store_overrides = all(&[("/events", "pg")]);
    lab.drivers.insert("pg".to_owned(), Driver::PostgreSQL);
    settle(&mut lab);
    assert!(sidecar(&pod(&lab), container::KINE, "pg").is_some());
    let own = claimant(UID, "pg");
    assert!(lab.places.contains_key(&own));
    lab.spec().data_store_overrides.clear();
    let plan = lab.pass();
    let deferred = |step: &Step| matches!(step, Step::DeferDeletion { .. });
    assert!(
        !plan.steps.iter().any(deferred),
        "its pods run:\n{}",
        brief(&plan)
    );
    assert!(sidecar(&pod(&lab), container::KINE, "pg").is_none());
    let plan = lab.pass();
    assert!(
        !plan.steps.iter().any(deferred),
        "they are being rolled:\n{}",
        brief(&plan)
    );
    lab.run_pods();
    let plan = lab.pass();
    let gone = claims(&plan, |step| match step {
        Step::DeferDeletion {
            claim, data_store, ..
        } if data_store == "pg" => Some(claim),
        _ => None,
    });
    assert_eq!(gone, [own.as_str()]);
    settle(&mut lab);
    let place = beside::Beside::in_store("pg", 0);
    let config = beside::config_secret("tenant-1", Some(&place));
    assert!(!lab.secret_names().contains(&config));
    let storage = lab.world.tenant.status.clone().unwrap().storage.unwrap();
    assert!(storage.overrides.is_empty());
}

#[test]
fn all_places_are_emptied_when_the_tenant_goes() {
    let mut lab = ready(&[("/events", "pg"), ("/configmaps", "other")]);
    deleted(&mut lab);
    lab.pass();
    let plan = lab.plan();
    let mut wanted = vec![UID.to_owned(), claimant(UID, "pg"), claimant(UID, "other")];
    wanted.sort();
    let mut dropped = claims(&plan, |step| match step {
        Step::DropData(claim) => Some(claim),
        _ => None,
    });
    dropped.sort();
    assert_eq!(dropped, wanted, "{}", brief(&plan));
    let mut released = claims(&plan, |step| match step {
        Step::ReleaseClaim(claim) => Some(claim),
        _ => None,
    });
    released.sort();
    assert_eq!(released, wanted);
}

/// Rule 18: the finalizer does not wait for the database of an override either.
#[test]
fn a_dead_database_of_an_override_holds_no_deletion_up() {
    let mut lab = ready(&[("/events", "pg")]);
    let own = claimant(UID, "pg");
    lab.places.get_mut(&own).unwrap().health = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "connection refused".to_owned(),
    }));
    // A living tenant is told, and goes on.
    settle(&mut lab);
    assert_eq!(
        lab.condition("DataStoreReady"),
        "False DataStoreUnreachable"
    );
    assert_eq!(lab.condition("Ready"), "True Ready");
    deleted(&mut lab);
    let plan = lab.pass();
    let deferred = claims(&plan, |step| match step {
        Step::DeferDeletion { claim, .. } => Some(claim),
        _ => None,
    });
    assert_eq!(deferred, [own.as_str()], "{}", brief(&plan));
    let revoked = claims(&plan, |step| match step {
        Step::RevokeAccess(claim) => Some(claim),
        _ => None,
    });
    assert_eq!(revoked, [UID]);
    let ends = |step: &Step| matches!(step, Step::ReleaseFinalizer);
    assert!(lab.plan().steps.iter().any(ends), "{}", brief(&lab.plan()));
}

/// An installation that was not told its own image says so, and changes nothing.
#[test]
fn without_an_image_there_is_no_relay() {
    let mut lab = Lab::ready();
    settle(&mut lab);
    std::sync::Arc::make_mut(&mut lab.world.settings).relay_image = None;
    lab.spec().data_store_overrides = all(&[("/events", "other")]);
    lab.pass();
    assert_eq!(lab.condition("DataStoreReady"), "False DriverNotSupported");
    assert!(flag(&pod(&lab), "etcd-servers-overrides").is_none());
}
