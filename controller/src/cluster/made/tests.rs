use std::sync::Arc;

use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::*;

fn labelled(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        uid: Some(format!("uid-of-{namespace}-{name}")),
        resource_version: Some("1".into()),
        labels: Some([(names::LABEL_NAME.into(), "a".into())].into()),
        annotations: Some([("a".into(), "x".repeat(200_000))].into()),
        ..ObjectMeta::default()
    }
}

/// With tenant `a` in this namespace, or with none.
fn caches(namespace: Option<&str>) -> Caches {
    let caches = Caches::default();
    if let Some(namespace) = namespace {
        come(&caches, namespace);
    }
    caches
}

/// Tenant `a` comes.
fn come(caches: &Caches, namespace: &str) {
    let tenant = json!({
        "metadata": {"name": "a", "namespace": namespace, "uid": "u"},
        "spec": {"kubernetes": {"version": "v1.36.3"}},
    });
    let tenant: TenantControlPlane = serde_json::from_value(tenant).unwrap();
    caches.tenants.put(Arc::new(tenant));
}

fn go(caches: &Caches, namespace: &str) {
    let name = NamespacedName::new(namespace, "a");
    caches.tenants.forget(&name, "u");
    assert!(caches.tenants.is_empty());
}

/// A pod as large as anybody can make one.
fn pod(namespace: &str, name: &str) -> Pod {
    let long = || "x".repeat(100_000);
    let container = Container {
        name: container::API_SERVER.to_owned(),
        image: Some(long()),
        ..Container::default()
    };
    let condition = PodCondition {
        type_: "Ready".into(),
        reason: Some(long()),
        message: Some(long()),
        ..PodCondition::default()
    };
    let status = ContainerStatus {
        image: long(),
        ..ContainerStatus::default()
    };
    Pod {
        metadata: labelled(namespace, name),
        status: Some(PodStatus {
            phase: Some("Running".into()),
            container_statuses: Some(vec![status; 20]),
            conditions: Some(vec![condition; 20]),
            message: Some(long()),
            pod_ip: Some(long()),
            ..PodStatus::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container; 3],
            ..PodSpec::default()
        }),
    }
}

/// A ReplicaSet with as many annotations with our prefix as anybody can give it.
fn set(namespace: &str, name: &str) -> ReplicaSet {
    let forged = |number| {
        (
            format!("{number}.steward.butlerlabs.dev/k"),
            "x".repeat(300),
        )
    };
    let mut many: BTreeMap<String, String> = (0..32).map(forged).collect();
    for key in LABELS_READ.iter().chain(ANNOTATIONS_READ.iter()) {
        many.insert(key.clone(), "x".repeat(300));
    }
    let condition = ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        message: Some("x".repeat(3000)),
        ..ReplicaSetCondition::default()
    };
    let mut metadata = labelled(namespace, name);
    metadata.annotations = Some(many.clone());
    ReplicaSet {
        metadata,
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(many.clone()),
                    annotations: Some(many),
                    ..ObjectMeta::default()
                }),
                spec: None,
            }),
            ..ReplicaSetSpec::default()
        }),
        status: Some(ReplicaSetStatus {
            conditions: Some(vec![condition; 5]),
            ..ReplicaSetStatus::default()
        }),
    }
}

fn event(namespace: &str, number: usize) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(format!("e{number}")),
            namespace: Some(namespace.into()),
            uid: Some(format!("{namespace}-{number}")),
            resource_version: Some(number.to_string()),
            annotations: Some([("a".into(), "x".repeat(2_000))].into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            namespace: Some(namespace.into()),
            kind: Some("Pod".into()),
            name: Some("a-1".into()),
            uid: Some("u".repeat(9000)),
            field_path: Some("x".repeat(9000)),
            ..ObjectReference::default()
        },
        message: Some("ä".repeat(10_000)),
        reason: Some("Failed".into()),
        ..Event::default()
    }
}

#[test]
fn what_is_made_with_a_label_is_held_of_tenants_and_in_few_words() {
    let none = caches(None);
    assert!(none.kept(pod("n", "p")).is_none() && none.kept(set("n", "r")).is_none());
    let caches = caches(Some("n"));
    let held = caches.kept(pod("n", "p")).unwrap();
    assert!(bytes(&*held) < 25_000, "{}", bytes(&*held));
    let status = held.status.as_ref().unwrap();
    assert_eq!(status.conditions.as_ref().unwrap().len(), 1);
    let held = caches.kept(set("n", "r")).unwrap();
    assert!(bytes(&*held) < 8_000, "{}", bytes(&*held));
    let spec = held.spec.as_ref().unwrap();
    let meta = spec.template.as_ref().unwrap().metadata.as_ref().unwrap();
    let labels = meta.labels.as_ref().unwrap();
    assert!(LABELS_READ.iter().all(|key| labels.contains_key(key)));
    assert_eq!(labels.len(), LABELS_READ.len());
}

/// Whoever may create in two namespaces makes all they can, and others write Events in many.
fn flood(caches: &Caches) -> usize {
    for namespace in ["one", "two"] {
        let mut forged = set(namespace, "r");
        for number in 0..10_000 {
            forged.metadata.name = Some(format!("r{number}"));
            forged.metadata.uid = Some(format!("{namespace}-{number}"));
            let kept = caches.kept(forged.clone());
            kept.map(|set| caches.replica_sets.put(set));
        }
    }
    for namespace in 0..500 {
        for number in 0..20 {
            let event = caches.kept(event(&format!("n{namespace}"), number));
            event.map(|event| caches.events.put(event));
        }
    }
    for number in 0..2_000 {
        let event = caches.kept(event("one", number));
        event.map(|event| caches.events.put(event));
    }
    let sets = caches.replica_sets.all();
    let sets: usize = sets.iter().map(|set| set.weight()).sum();
    let events = caches.events.all();
    sets + events.iter().map(|event| event.weight()).sum::<usize>()
}

#[test]
fn what_strangers_make_by_the_thousand_is_bounded_in_bytes() {
    assert_eq!(flood(&caches(None)), 0);
    let of_one = caches(Some("one"));
    let held = flood(&of_one);
    assert!(held < 32 * MIB, "{held}");
    assert!(!of_one.replica_sets.is_whole("one"));
    assert!(of_one.replica_sets.is_whole("two"), "nobody's");
    assert!(of_one.events.of(&NamespacedName::new("n1", "")).is_empty());

    // Others are there as before.
    come(&of_one, "other");
    of_one
        .replica_sets
        .put(of_one.kept(set("other", "r")).unwrap());
    assert_eq!(
        of_one
            .replica_sets
            .of(&NamespacedName::new("other", "a"))
            .len(),
        1
    );
    come(&of_one, "two");
    let held = flood(&of_one);
    assert!(held < 32 * MIB, "{held}");
    assert_eq!(
        of_one
            .replica_sets
            .of(&NamespacedName::new("other", "a"))
            .len(),
        1
    );
}

/// Its clean-up waits until its pods have ended.
#[test]
fn pods_of_a_tenant_that_is_gone_are_held_as_names() {
    let caches = caches(Some("n"));
    caches.pods.put(caches.kept(pod("n", "p")).unwrap());
    go(&caches, "n");
    let held = caches.kept(pod("n", "p")).unwrap();
    assert!(bytes(&*held) < 1000, "{}", bytes(&*held));
    assert_eq!(
        held.status.as_ref().unwrap().phase.as_deref(),
        Some("Running")
    );
    assert!(caches.kept(pod("n", "new")).is_none());
    // After a restart, what a DataStore remembers says of whom.
    let store = json!({
        "metadata": {"name": "s", "uid": "s"},
        "spec": {"driver": "etcd", "endpoints": ["e:2379"]},
        "status": {"pendingCleanups": [
            {"uid": "u", "namespace": "n", "name": "a", "schema": "s", "user": "u"},
        ]},
    });
    let store: DataStore = serde_json::from_value(store).unwrap();
    caches.data_stores.put(Arc::new(store));
    assert!(caches.kept(pod("n", "new")).is_some() && caches.kept(set("n", "new")).is_some());
    assert!(caches.kept(pod("other", "new")).is_none());
}

/// The watches are not in step: what came first is looked for.
#[test]
fn what_was_passed_over_is_looked_for_once_its_tenant_is_known() {
    let caches = caches(None);
    let name = NamespacedName::new("n", "a");
    let asked = |caches: &Caches| caches.looks.depth();
    come(&caches, "n");
    caches.meet(&name);
    assert_eq!(asked(&caches), 0, "the first list finds all");
    go(&caches, "n");
    caches.meet(&name);
    caches.pods.begin_list("n");
    assert!(caches.kept(event("n", 1)).is_none());
    come(&caches, "n");
    caches.meet(&name);
    assert_eq!(asked(&caches), 1);
    caches.meet(&name);
    assert!(caches.kept(event("n", 1)).is_some());
    assert_eq!(asked(&caches), 1, "it is met once");
}

#[test]
fn pods_of_one_namespace_are_counted() {
    let cache = Cache::default();
    let pod = |namespace: &str, number: usize| {
        let mut metadata = labelled(namespace, &format!("p{number}"));
        metadata.annotations = None;
        Arc::new(Pod {
            metadata,
            ..Pod::default()
        })
    };
    for number in 0..MADE_IN_NAMESPACE + 10 {
        cache.put(pod("loud", number));
    }
    cache.put(pod("quiet", 1));
    assert_eq!(cache.len(), MADE_IN_NAMESPACE + 1);
    assert!(cache.is_whole("quiet") && !cache.is_whole("loud"));
    cache.remove(&pod("loud", 1));
    cache.put(pod("loud", MADE_IN_NAMESPACE + 20));
    assert_eq!(cache.len(), MADE_IN_NAMESPACE + 1);
    cache.replace("loud", vec![]);
    assert!(cache.is_whole("loud"));
}

/// Anybody may write Events, of 250 kB each.
#[test]
fn events_of_strangers_are_pruned_and_capped_by_namespace() {
    let caches = caches(Some("quiet"));
    come(&caches, "loud");
    let cache = Cache::default();
    let quiet = caches.kept(event("quiet", 1)).unwrap();
    assert!(bytes(&*quiet) < 2000, "{} bytes are held", bytes(&*quiet));
    assert_eq!(quiet.reason.as_deref(), Some("Failed"));
    assert_eq!(quiet.message.as_ref().unwrap().len(), MESSAGE);
    cache.put(quiet);
    for number in 0..Event::MOST + 50 {
        cache.put(caches.kept(event("loud", number)).unwrap());
    }
    let loud = cache.of(&NamespacedName::new("loud", ""));
    assert_eq!(loud.len(), Event::MOST);
    let has = |number| {
        let name = NamespacedName::new("loud", format!("e{number}"));
        cache.get(&name).is_some()
    };
    assert!(!has(49) && has(50), "the oldest go");
    assert_eq!(cache.of(&NamespacedName::new("quiet", "")).len(), 1);
    let mut other = event("quiet", 2);
    other.involved_object.kind = Some("Node".into());
    assert!(caches.kept(other.clone()).is_none());
    // Of no tenant, or of something that no object is called.
    other.involved_object.kind = Some("Pod".into());
    for name in ["b-1".to_owned(), format!("a{}", "-x".repeat(1000))] {
        other.involved_object.name = Some(name);
        assert!(caches.kept(other.clone()).is_none());
    }
}

/// An owner says nothing here: anybody can name one.
#[test]
fn a_reference_to_a_tenant_that_is_not_there_is_nobodys() {
    let mut forged = pod("n", "p");
    forged.metadata.owner_references = Some(vec![OwnerReference {
        api_version: apiservice::api_version(),
        kind: "TenantControlPlane".into(),
        name: "b".into(),
        uid: "u".into(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    assert!(caches(Some("n")).kept(forged).is_none());
}

/// Of what pods run with, the parts are compared that are renewed.
#[test]
fn what_is_read_of_a_template_is_held() {
    for (part, _) in crate::tenant::pki::expiry::mounted("a") {
        let label = names::pod_hash_label(part);
        let by_label = part != names::component::DATASTORE_CERTIFICATE;
        assert!(!by_label || LABELS_READ.contains(&label), "{label}");
    }
}
