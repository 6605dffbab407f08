//! Tenants that ask for as much as they may, and those of an older release that ask for more.

use std::sync::Arc;

use apiservice::bulk;
use apiservice::condition::tenant as condition;
use apiservice::names;
use apiservice::v1alpha1::{Driver, TenantControlPlane};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::cluster::kept::PART;
use crate::cluster::pieces;
use crate::tenant::objects;
use crate::tenant::plan::{ObjectKind, Step};
use crate::tenant::testing::Lab;

/// A tenant with this in its spec, as the API server completes it.
pub(super) fn tenant(change: impl FnOnce(&mut Value)) -> Value {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    let mut object = json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {"name": "tenant-1", "namespace": "tenants"},
        "spec": {
            "controlPlane": {"deployment": {}, "service": {"serviceType": "ClusterIP"}},
            "kubernetes": {"version": "v1.36.3", "kubelet": {}}, "dataStore": "default",
        },
    });
    change(&mut object["spec"]);
    resource.default(&mut object);
    object
}

fn is_admitted(tenant: &Value) -> bool {
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    resource.validate(tenant, None).is_empty()
}

/// What the pods of a tenant can be made large with, so many times.
type Family = (&'static str, fn(&mut Value, usize));

fn repeated(count: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..count).map(one).collect()
}

const FAMILIES: [Family; 13] = [
    ("texts", |spec, count| {
        let env = json!([{"name": "a", "value": "x".repeat(count)}]);
        let container = json!({"name": "c", "image": "i", "env": env});
        spec["controlPlane"]["deployment"]["additionalContainers"] = json!([container]);
    }),
    ("variables", |spec, count| {
        let env = repeated(count, |it| json!({"name": format!("n{it}"), "value": "v"}));
        let container = json!({"name": "c", "image": "i", "env": env});
        spec["controlPlane"]["deployment"]["additionalContainers"] = json!([container]);
    }),
    ("containers", |spec, count| {
        let one = |it: usize| json!({"name": format!("c{it}"), "image": "i", "livenessProbe": {}});
        spec["controlPlane"]["deployment"]["additionalContainers"] = repeated(count, one);
    }),
    ("volumes", |spec, count| {
        let one = |it: usize| json!({"name": format!("v{it}"), "secret": {}});
        spec["controlPlane"]["deployment"]["additionalVolumes"] = repeated(count, one);
    }),
    ("sources", |spec, count| {
        let sources = repeated(count, |_| json!({}));
        let volume = json!({"name": "v", "projected": {"sources": sources}});
        spec["controlPlane"]["deployment"]["additionalVolumes"] = json!([volume]);
    }),
    ("registry", |spec, count| {
        let registry = "x".repeat(count);
        spec["controlPlane"]["deployment"]["registrySettings"]["registry"] = json!(registry);
    }),
    ("resources", |spec, count| {
        let limits: serde_json::Map<String, Value> = (0..count)
            .map(|it| (format!("example.com/n{it}"), json!("1")))
            .collect();
        spec["controlPlane"]["deployment"]["resources"] = json!({"limits": limits});
    }),
    ("arguments", |spec, count| {
        let arguments = repeated(1, |_| json!(format!("--v={}", "x".repeat(count))));
        spec["controlPlane"]["deployment"]["extraArgs"] = json!({"apiServer": arguments});
    }),
    ("mounts", |spec, count| {
        let one = |it: usize| json!({"name": "v", "mountPath": format!("/{it}")});
        let mounts = json!({"apiServer": repeated(count, one)});
        spec["controlPlane"]["deployment"]["additionalVolumeMounts"] = mounts;
    }),
    ("spread", |spec, count| {
        let one = |_| json!({"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "b"});
        spec["controlPlane"]["deployment"]["topologySpreadConstraints"] = repeated(count, one);
    }),
    ("labels", |spec, count| {
        let annotations = json!({"annotations": {"a": "x".repeat(count)}});
        spec["controlPlane"]["deployment"]["podAdditionalMetadata"] = annotations;
    }),
    ("tunnel", |spec, count| {
        let arguments = json!([format!("--v={}", "x".repeat(count))]);
        let server = json!({"port": 8132, "extraArgs": arguments});
        spec["addons"] = json!({"konnectivity": {"server": server}});
    }),
    ("plug-ins", |spec, count| {
        let plugins = repeated(count, |_| json!("ValidatingAdmissionWebhook"));
        spec["kubernetes"]["admissionControllers"] = plugins;
    }),
];

/// With the most endpoints that a DataStore may have.
fn lab(driver: Driver) -> Lab {
    let mut lab = match driver {
        Driver::Etcd => Lab::new(),
        driver => Lab::with(driver),
    };
    let host = format!("{}com", "x.".repeat(120));
    let endpoints: Vec<String> = (0..64).map(|it| format!("n{it}.{host}:2379")).collect();
    let store = Arc::make_mut(lab.world.data_store.as_mut().unwrap());
    store.spec.endpoints = endpoints.clone();
    let credentials = &mut lab.world.store.credentials;
    if let crate::tenant::backing::facts::CredentialsFact::Known(known) = credentials {
        Arc::make_mut(known).endpoints = endpoints;
    }
    lab
}

fn pass_held(lab: &mut Lab) -> crate::tenant::Plan {
    let plan = lab.pass();
    lab.hold_deployment();
    plan
}

/// The largest tenants that are admitted, of each family, and their numbers.
pub(super) fn largest() -> impl Iterator<Item = (&'static str, usize, Value)> {
    FAMILIES.into_iter().map(|(name, family)| {
        let of = |count: usize| tenant(|spec| family(spec, count));
        assert!(is_admitted(&of(1)), "{name}");
        let mut doubled = (1..18).map(|power| 1 << power);
        let mut beyond = doubled.find(|it| !is_admitted(&of(*it))).unwrap();
        let mut fits = beyond / 2;
        while beyond - fits > 1 {
            let half = fits.midpoint(beyond);
            match is_admitted(&of(half)) {
                true => fits = half,
                false => beyond = half,
            }
        }
        (name, fits, of(fits))
    })
}

#[tokio::test]
async fn what_is_admitted_makes_pods_that_can_be_held() {
    for (name, fits, largest) in largest() {
        let largest: TenantControlPlane = serde_json::from_value(largest).unwrap();
        assert!(!largest.spec.is_cut, "{name}");
        for driver in [Driver::Etcd, Driver::PostgreSQL] {
            let mut lab = lab(driver);
            lab.tenant().spec = largest.spec.clone();
            for _ in 0..3 {
                lab.pass();
            }
            let wanted = serde_json::to_value(&lab.deployment_mut().spec).unwrap();
            let kept = bulk::as_kept(&wanted);
            eprintln!("{name} {driver:?}: {fits}, {kept} bytes");
            assert!(kept <= PART, "{name} {driver:?}: {kept} bytes of {fits}");
            lab.hold_deployment();
            let held = serde_json::to_value(&lab.deployment_mut().spec).unwrap();
            assert_eq!(held, wanted, "{name}");
            // And that are read as a whole.
            let live = json!({"metadata": {"name": "a"}, "spec": wanted});
            let read = pieces::tests::read(&live.to_string(), pieces::Bounds::STRANGERS).await;
            assert!(read == live, "{name}: {kept} bytes");
        }
    }
}

/// A container with so many bytes.
fn container(bytes: usize) -> Container {
    Container {
        name: "large".to_owned(),
        image: Some("i".to_owned()),
        env: Some(vec![EnvVar {
            name: "A".to_owned(),
            value: Some("x".repeat(bytes)),
            ..EnvVar::default()
        }]),
        ..Container::default()
    }
}

#[test]
fn pods_that_are_larger_than_what_is_held_are_written_once() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.deployment.additional_containers = vec![container(2 * PART)];
    let plan = pass_held(&mut lab);
    assert!(plan.rolls, "{plan}");
    for _ in 0..2 {
        let plan = pass_held(&mut lab);
        assert!(
            plan.is_quiet() && !plan.rolls && plan.roll.is_none(),
            "{plan}"
        );
    }
    lab.run_pods();
    lab.later(5);
    pass_held(&mut lab);
    assert_eq!(
        lab.condition(condition::SPEC_SUPPORTED),
        "False SpecTooLarge"
    );
    assert_eq!(lab.condition(condition::READY), "True Ready");
    assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");
    // What is held is compared, and another wish is another.
    let name = names::LABEL_POD_DATASTORE;
    let template = &mut lab.deployment_mut().spec.as_mut().unwrap().template;
    let labels = template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
    assert!(labels.contains_key(name), "{labels:?}");
    lab.spec().control_plane.deployment.additional_containers = vec![container(2 * PART + 1)];
    let plan = pass_held(&mut lab);
    assert!(plan.rolls && !plan.is_quiet(), "{plan}");
    assert!(pass_held(&mut lab).is_quiet());
    // One that fits again.
    lab.spec().control_plane.deployment.additional_containers = vec![container(1000)];
    assert!(!pass_held(&mut lab).is_quiet());
    assert!(pass_held(&mut lab).is_quiet());
    assert_eq!(lab.condition(condition::SPEC_SUPPORTED), "True AsExpected");
    // Somebody makes them larger than they are wanted.
    let spec = lab.deployment_mut().spec.as_mut().unwrap();
    let pod = spec.template.spec.as_mut().unwrap();
    pod.containers.push(container(2 * PART));
    lab.hold_deployment();
    let plan = pass_held(&mut lab);
    let applies =
        |step: &Step| matches!(step, Step::Apply(it) if it.kind() == ObjectKind::Deployment);
    assert!(plan.steps.iter().any(applies), "{plan}");
    assert!(!plan.rolls, "it is put right");
    assert!(pass_held(&mut lab).is_quiet());
}

/// So are those of objects whose annotations an older release took, or others made many.
#[test]
fn annotations_that_are_more_than_what_is_held_are_written_once() {
    let mut lab = Lab::ready();
    let more = |bytes: usize| {
        let annotations = [("a".to_owned(), "x".repeat(bytes))].into();
        Some(apiservice::v1alpha1::AdditionalMetadata {
            annotations,
            ..Default::default()
        })
    };
    lab.spec().control_plane.deployment.additional_metadata = more(2 * PART);
    assert!(!pass_held(&mut lab).is_quiet());
    assert!(pass_held(&mut lab).is_quiet());
    lab.spec().control_plane.deployment.additional_metadata = more(PART / 2);
    assert!(!pass_held(&mut lab).is_quiet());
    let annotations = lab.deployment_mut().metadata.annotations.as_mut().unwrap();
    annotations.insert("others".to_owned(), "x".repeat(PART));
    lab.hold_deployment();
    let held = lab.deployment_mut().metadata.clone();
    assert_eq!(objects::annotation(&held, "others"), None);
    assert!(pass_held(&mut lab).is_quiet());
}

#[test]
fn a_tenant_of_whose_spec_not_all_is_held_is_left_alone_and_says_so() {
    let heavy = tenant(|spec| FAMILIES[4].1(spec, 250_000));
    let read = || serde_json::from_value::<TenantControlPlane>(heavy.clone()).unwrap();
    assert!(read().spec.is_cut);
    let mut lab = Lab::ready();
    lab.tenant().spec = read().spec;
    for _ in 0..2 {
        let plan = lab.pass();
        assert!(plan.steps.is_empty() && plan.roll.is_none(), "{plan}");
    }
    assert_eq!(lab.condition(condition::READY), "Unknown SpecTooLarge");
    assert!(lab.told().contains("more than 512 KiB"), "{}", lab.told());
    // It can be deleted.
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp = Some(Time(now));
    assert!(!lab.plan().steps.is_empty());

    let mut fresh = Lab::new();
    fresh.tenant().spec = read().spec;
    assert!(fresh.pass().steps.is_empty());
    assert_eq!(fresh.condition(condition::READY), "Unknown SpecTooLarge");
}
