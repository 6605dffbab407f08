//! Flux, as kustomize-controller works.

use serde_json::{Value, json};
use tests::lab::programs::FLUX;
use tests::served::{DATA_STORE, Served, TENANT, contains};

use crate::cluster::{data_store, edit, finalizer, get, managers, namespace, report, tenant};
use crate::tool::Tool;

const NAMESPACE: &str = "flux";

struct Flux(Tool);

impl Flux {
    fn ask(&mut self, deed: &str, objects: &str, patience: u32) -> Value {
        let request = json!({"do": deed, "objects": objects, "patience": patience});
        self.0.ask(&request)
    }

    /// What it did with each object, in order of their names.
    #[track_caller]
    fn does(&mut self, deed: &str, objects: &str, wanted: &[(&str, &str)]) -> Value {
        let answer = self.ask(deed, objects, 10_000);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        let wanted: serde_json::Map<_, _> = wanted
            .iter()
            .map(|(name, action)| ((*name).to_owned(), json!(action)))
            .collect();
        assert_eq!(answer["actions"], Value::Object(wanted), "{deed}");
        answer
    }

    /// The end of a wait: nothing, or what is said of it. It looks five times a second, and
    /// does not end in the midst of that.
    fn wait(&mut self, objects: &str) -> String {
        let answer = self.ask("wait", objects, 1_100);
        answer["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// R8.43, R8.44.
pub fn flux_keeps_tenants(served: &Served) {
    namespace(served, NAMESPACE);
    namespace(served, "tenants");
    let mut flux = Flux(Tool::go(&FLUX, served));
    drift_is_found_and_corrected(served, &mut flux);
    what_kubectl_owned_is_taken_over(served, &mut flux);
    immutable_fields_are_recognised(served, &mut flux);
    statuses_are_understood(served, &mut flux);
    what_left_the_repository_is_pruned(served, &mut flux);
    flux.0.end();
}

/// R8.43: with the objects that the documentation shows.
fn drift_is_found_and_corrected(served: &Served, flux: &mut Flux) {
    let (both, key) = (
        format!("{DATA_STORE}---\n{TENANT}"),
        "TenantControlPlane/tenants/tenant-1",
    );
    let store = "DataStore/default";
    flux.does("diff", &both, &[(store, "created"), (key, "created")]);
    flux.does("apply", &both, &[(store, "created"), (key, "created")]);
    let first = get(served, "tenants", "tenant-1");
    flux.does("apply", &both, &[(store, "unchanged"), (key, "unchanged")]);
    assert_eq!(get(served, "tenants", "tenant-1"), first);

    let replicas = r#"{"spec":{"controlPlane":{"deployment":{"replicas":5}}}}"#;
    edit(served, "tenants", "tenant-1", replicas);
    let answer = flux.does("diff", &both, &[(store, "unchanged"), (key, "configured")]);
    let [live, merged] = [0, 1].map(|side| {
        let spec = &answer["drift"][key][side];
        spec["controlPlane"]["deployment"]["replicas"].clone()
    });
    assert_eq!((live, merged), (json!(5), json!(2)));
    flux.does("apply", &both, &[(store, "unchanged"), (key, "configured")]);
    let after = get(served, "tenants", "tenant-1");
    assert_eq!(after["spec"], first["spec"]);
    assert_eq!(managers(&after), ["kustomize-controller/Apply/"]);
    flux.does("diff", &both, &[(store, "unchanged"), (key, "unchanged")]);
    // Status and finalizer are the controller's, and no drift.
    finalizer(served, "tenants", "tenant-1", true);
    report(
        served,
        ("tenants", "tenant-1"),
        &[("Ready", "True", "Ready")],
        0,
    );
    flux.does("apply", &both, &[(store, "unchanged"), (key, "unchanged")]);
    finalizer(served, "tenants", "tenant-1", false);
    flux.does("delete", &both, &[(store, "deleted"), (key, "deleted")]);
    assert_eq!(get(served, "tenants", "tenant-1"), Value::Null);
}

/// R8.43: the managers of kubectl are patched out of managedFields.
fn what_kubectl_owned_is_taken_over(served: &Served, flux: &mut Flux) {
    let addon = tenant(NAMESPACE, "taken", 2, "  addons:\n    kubeProxy: {}\n");
    served.lab.apply(&addon).unwrap();
    let before = get(served, NAMESPACE, "taken");
    contains(
        &managers(&before).join(" "),
        "kubectl-client-side-apply/Update/",
    );
    let key = "TenantControlPlane/flux/taken";
    flux.does("apply", &addon, &[(key, "configured")]);
    let after = get(served, NAMESPACE, "taken");
    assert_eq!(managers(&after), ["kustomize-controller/Apply/"]);
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations, &Value::Null, "kubectl's annotation is gone");
    assert_eq!(
        after["spec"]["addons"],
        json!({"kubeProxy": before["spec"]["addons"]["kubeProxy"]})
    );
    // Owned by nobody else, what leaves the repository leaves the object.
    let without = tenant(NAMESPACE, "taken", 2, "");
    flux.does("apply", &without, &[(key, "configured")]);
    let after = get(served, NAMESPACE, "taken");
    assert_eq!(after["spec"]["addons"]["kubeProxy"], Value::Null);
}

/// R8.43: who forces makes the object anew.
fn immutable_fields_are_recognised(served: &Served, flux: &mut Flux) {
    let domain = |name| format!("  networkProfile:\n    clusterDomain: {name}\n");
    let with = |name| tenant(NAMESPACE, "fixed", 1, &domain(name));
    let key = "TenantControlPlane/flux/fixed";
    flux.does("apply", &with("one.local"), &[(key, "created")]);
    let uid = get(served, NAMESPACE, "fixed")["metadata"]["uid"].clone();
    let refused = flux.ask("apply", &with("two.local"), 0);
    assert_eq!(refused["immutable"], true, "{refused}");
    contains(
        refused["error"].as_str().unwrap(),
        "spec.networkProfile.clusterDomain",
    );
    assert_eq!(get(served, NAMESPACE, "fixed")["metadata"]["uid"], uid);
    let forced = json!({"do": "apply", "objects": with("two.local"), "force": true});
    let forced = flux.0.ask(&forced);
    assert_eq!(forced["actions"][key], "created", "{forced}");
    let after = get(served, NAMESPACE, "fixed");
    assert_ne!(after["metadata"]["uid"], uid);
    assert_eq!(
        after["spec"]["networkProfile"]["clusterDomain"],
        "two.local"
    );
}

/// R8.44.
fn statuses_are_understood(served: &Served, flux: &mut Flux) {
    let object = tenant(NAMESPACE, "waited", 1, "");
    let key = "TenantControlPlane/flux/waited";
    flux.does("apply", &object, &[(key, "created")]);
    let ready = ("Ready", "True", "Ready");
    for (conditions, behind, wanted) in [
        (&[][..], 0, ""),
        (&[("Ready", "False", "NotYet")], 0, "status: 'InProgress'"),
        (&[("Ready", "Unknown", "NotYet")], 0, "status: 'InProgress'"),
        (
            &[ready, ("Reconciling", "True", "Rolling")],
            0,
            "status: 'InProgress'",
        ),
        (&[("Stalled", "True", "Stuck")], 0, "status: 'Failed'"),
        (&[ready], 0, ""),
    ] {
        report(served, (NAMESPACE, "waited"), conditions, behind);
        let said = flux.wait(&object);
        assert!(
            said.contains(wanted) && said.is_empty() == wanted.is_empty(),
            "{conditions:?}: {said}"
        );
    }
    // A change of the spec that nobody has looked at.
    let changed = tenant(NAMESPACE, "waited", 2, "");
    flux.does("apply", &changed, &[(key, "configured")]);
    contains(&flux.wait(&changed), "status: 'InProgress'");
    report(served, (NAMESPACE, "waited"), &[ready], 0);
    assert_eq!(flux.wait(&changed), "");
}

/// R8.43, R8.44: only what is Flux's is deleted, and it waits for finalizers.
fn what_left_the_repository_is_pruned(served: &Served, flux: &mut Flux) {
    let (waited, key) = (
        tenant(NAMESPACE, "waited", 2, ""),
        "TenantControlPlane/flux/waited",
    );
    finalizer(served, NAMESPACE, "waited", true);
    let refused = flux.ask("delete", &waited, 1_000);
    contains(refused["error"].as_str().unwrap(), "termination timeout");
    contains(&flux.wait(&waited), "status: 'Terminating'");
    finalizer(served, NAMESPACE, "waited", false);
    flux.does("delete", &waited, &[(key, "deleted")]);
    let other = tenant(NAMESPACE, "other", 1, "");
    let all = format!("{}{other}", data_store(NAMESPACE));
    served.lab.apply(&all).unwrap();
    flux.does(
        "delete",
        &all,
        &[
            ("TenantControlPlane/flux/other", "skipped"),
            ("DataStore/flux", "skipped"),
        ],
    );
    assert_ne!(get(served, NAMESPACE, "other"), Value::Null);
}
