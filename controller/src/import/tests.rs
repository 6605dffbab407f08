use apiservice::names;
use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::old::Old;
use super::owned::{self, Tenant};
use super::{proof, translate};
use crate::args::Operator;

const UID: &str = "7d0c1f9e-3f0b-4c39-9d34-0d5c6f0f1a2b";

/// A tenant as Kamaji has it.
fn theirs() -> Value {
    json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": {
            "name": "t", "namespace": "n", "uid": UID, "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2025-02-03T04:05:06Z",
            "labels": {"team": "a", "kamaji.clastix.io/x": "y"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "kamaji.clastix.io/soot": "failed",
                "kamaji.clastix.io/kubeconfig-secret-key": "admin.svc",
            },
            "finalizers": [
                "finalizer.kamaji.clastix.io", "finalizer.kamaji.clastix.io/soot", "other/one",
            ],
            "ownerReferences": [{"apiVersion": "c/v1", "kind": "K", "name": "k", "uid": "1"}],
        },
        "spec": {
            "dataStore": "default",
            "controlPlane": {
                "deployment": {"replicas": 2, "inventedByThem": {"a": 1}},
                "service": {"serviceType": "ClusterIP"},
            },
            "kubernetes": {"version": "v1.36.3", "kubelet": {}},
            "networkProfile": {"port": 6443, "clusterDomain": "a.b"},
        },
        "status": {"storage": {
            "dataStoreName": "default",
            "setup": {"schema": UID, "user": "n_t"},
        }},
    })
}

#[test]
fn a_tenant_of_kamaji_is_one_of_ours() {
    let made = translate::tenant(&Old::of(Operator::Kamaji), &theirs());
    assert_eq!(made.refused, Vec::<String>::new());
    assert_eq!(
        made.unknown,
        ["spec.controlPlane.deployment.inventedByThem"]
    );
    let meta = &made.object["metadata"];
    assert_eq!(
        *meta,
        json!({
            "name": "t", "namespace": "n",
            "creationTimestamp": "2025-02-03T04:05:06Z",
            "labels": {"team": "a", "steward.butlerlabs.dev/x": "y"},
            "annotations": {
                "steward.butlerlabs.dev/import-uid": UID,
                "steward.butlerlabs.dev/kubeconfig-secret-key": "admin.svc",
            },
            "finalizers": ["other/one", "finalizer.steward.butlerlabs.dev"],
            "ownerReferences": [{"apiVersion": "c/v1", "kind": "K", "name": "k", "uid": "1"}],
        })
    );
    let spec = &made.object["spec"];
    assert_eq!(spec["dataStoreSchema"], UID);
    assert_eq!(spec["dataStoreUsername"], "n_t");
    assert_eq!(
        spec["controlPlane"]["deployment"]["extraArgs"]["apiServer"],
        json!(["--service-account-issuer=https://kubernetes.default.svc.cluster.local"])
    );
    assert!(made.object.get("status").is_none());
    assert_eq!(made.object["apiVersion"], "steward.butlerlabs.dev/v1alpha1");
    assert_eq!(made.notes.len(), 2, "{:?}", made.notes);
}

/// The example of the specification, which has the fields that most people set.
#[test]
fn what_cannot_be_kept_is_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut theirs = theirs();
        change(&mut theirs);
        translate::tenant(&Old::of(Operator::Kamaji), &theirs).refused
    };
    let refused = |change: &dyn Fn(&mut Value), word: &str| {
        let why = with(change);
        assert!(why.len() == 1 && why[0].contains(word), "{why:?}");
    };
    refused(&|it| it["status"] = json!({}), "never set up");
    refused(&|it| it["spec"]["dataStore"] = json!("b"), "end its move");
    refused(
        &|it| it["metadata"]["deletionTimestamp"] = json!("x"),
        "being deleted",
    );
    refused(
        &|it| it["spec"]["dataStoreOverrides"] = json!([{"resource": "/events"}]),
        "dataStoreOverrides",
    );
    assert_eq!(with(&|_| ()), Vec::<String>::new());
}

#[test]
fn objects_change_hands_once() {
    let old = Old::of(Operator::Kamaji);
    let tenant = Tenant {
        name: "t",
        uid: UID,
        version: "v1.36.3",
    };
    let owner = json!({
        "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "TenantControlPlane", "name": "t",
        "uid": UID, "controller": true, "blockOwnerDeletion": true,
    });
    let mut secret = json!({"metadata": {
        "name": names::ca("t"), "resourceVersion": "5",
        "labels": {"kamaji.clastix.io/component": "ca"},
        "ownerReferences": [owner, {"uid": "2", "kind": "Other"}],
    }});
    assert!(owned::is_theirs(&old, &secret, UID));
    let change = owned::change(&old, &secret, &tenant).unwrap();
    assert_eq!(
        change,
        json!({"metadata": {
            "resourceVersion": "5",
            "annotations": {"steward.butlerlabs.dev/ran": "v1.36.3"},
            "labels": names::labels("t", "ca"),
            "ownerReferences": [{"uid": "2", "kind": "Other"}, {
                "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
                "name": "t", "uid": UID, "controller": true,
            }],
        }})
    );
    json_patch_merge(&mut secret, &change);
    assert!(!owned::is_theirs(&old, &secret, UID));
    assert_eq!(owned::change(&old, &secret, &tenant), None);
    // Neither what is another's nor what nobody has.
    let stranger = json!({"metadata": {"name": "t-ca", "ownerReferences": [{"uid": "2"}]}});
    assert_eq!(owned::change(&old, &stranger, &tenant), None);
    let nobodys = json!({"metadata": {"name": "t-ca"}});
    assert_eq!(owned::change(&old, &nobodys, &tenant), None);

    let mut service = json!({
        "metadata": {"resourceVersion": "3"},
        "spec": {"selector": {"kamaji.clastix.io/name": "t"}},
    });
    let change = owned::selector(&service, "t").unwrap();
    json_patch_merge(&mut service, &change);
    let ours = json!({"steward.butlerlabs.dev/name": "t"});
    assert_eq!(service["spec"]["selector"], ours);
    assert_eq!(owned::selector(&service, "t"), None);
    let deployment = |labels: &Value| json!({"spec": {"selector": {"matchLabels": labels}}});
    assert!(!owned::selects_otherwise(&deployment(&ours), "t"));
    let theirs = json!({"kamaji.clastix.io/name": "t"});
    assert!(owned::selects_otherwise(&deployment(&theirs), "t"));
}

/// RFC 7396.
fn json_patch_merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        match value.is_null() {
            true => drop(into.as_object_mut().unwrap().remove(key)),
            false => json_patch_merge(&mut into[key], value),
        }
    }
}

#[test]
fn names_have_to_be_proved() {
    let now: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
    let validity = Validity {
        not_before: now - SignedDuration::from_hours(1),
        not_after: now + SignedDuration::from_hours(1),
    };
    let authority = |name: &str| pki::authority(name, validity, &Entropy).unwrap();
    let (ours, another) = (authority("etcd"), authority("another"));
    let signed = |user: &str| {
        let leaf = Leaf {
            subject: Subject {
                common_name: user.to_owned(),
                organizations: Vec::new(),
            },
            usage: Usage::Client,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            validity,
        };
        pki::sign(&ours, &leaf, &Entropy).unwrap()
    };
    let secret = |data: &[(&str, &str)]| Secret {
        data: Some(
            data.iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    };
    let claim = proof::claim(
        &translate::tenant(&Old::of(Operator::Kamaji), &theirs()).object,
        UID,
    );
    let config = secret(&[("DB_SCHEMA", UID), ("DB_USER", "n_t")]);
    let pair = signed("n_t");
    let certificate = |cert: &str, key: &str| secret(&[("server.crt", cert), ("server.key", key)]);
    let good = certificate(&pair.cert, &pair.key);
    let doubts = |config: &Secret, certificate: &Secret, authority: &str| {
        proof::doubts(&claim, Some(config), Some(certificate), authority, now)
    };
    assert_eq!(doubts(&config, &good, &ours.cert), Vec::<String>::new());
    let one = |why: Vec<String>, word: &str| {
        assert!(why.len() == 1 && why[0].contains(word), "{why:?}");
    };
    let other = secret(&[("DB_SCHEMA", "z"), ("DB_USER", "n_t")]);
    one(doubts(&other, &good, &ours.cert), "DB_SCHEMA");
    let stranger = signed("z");
    let strange = certificate(&stranger.cert, &stranger.key);
    one(doubts(&config, &strange, &ours.cert), "is for \"z\"");
    one(doubts(&config, &good, &another.cert), "authority");
    let mixed = certificate(&pair.cert, &stranger.key);
    one(doubts(&config, &mixed, &ours.cert), "does not belong");
    one(doubts(&config, &secret(&[]), &ours.cert), "no certificate");

    let twice = [("a", &claim), ("b", &claim)];
    assert_eq!(proof::shared(twice.into_iter()), []);
    let twice = [("a", &claim), ("a", &claim)];
    assert_eq!(proof::shared(twice.into_iter()).len(), 2);
}

#[test]
fn the_version_is_that_of_the_image() {
    let running = |image: &str| {
        let containers = json!([{"name": "x", "image": "a:v1"},
            {"name": "kube-apiserver", "image": image}]);
        proof::version(&json!({"spec": {"template": {"spec": {"containers": containers}}}}))
    };
    let version = Some("v1.36.3".to_owned());
    assert_eq!(running("r:5000/kube-apiserver:v1.36.3"), version);
    assert_eq!(running("kube-apiserver:v1.36.3-fips"), version);
    assert_eq!(running("kube-apiserver:latest"), None);
}
