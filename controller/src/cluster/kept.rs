//! What is held of the objects of the management cluster.
//!
//! Anybody can make objects with our labels, of a MiB each and by the thousand. Each is
//! cut while it is read (`pieces.rs`), and then to what is read of it before it is held, and most are not held at all, so that they cost
//! nobody but whoever makes them. Everything that a list or a watch says, and every answer
//! to a write, comes through [`Cached::keep`].

use std::collections::BTreeMap;

use apiservice::bulk;
use apiservice::v1alpha1::TenantControlPlane;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PodSpec, Secret, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::cache::Cached;
use crate::cluster::caches::Caches;
use crate::cluster::kinds::{ObjectKind, Owned};
use crate::cluster::name::{NamespacedName, tenant_of, tenant_reference};
use crate::cluster::routes::{
    Gateway, GatewaySpec, IngressRouteTcp, TlsRoute, TlsRouteStatus, TlsRouteV1Alpha2,
};

/// Its spec is light ([`bulk`]), or cut.
impl Cached for TenantControlPlane {
    fn keep(&mut self, _: &Caches) -> bool {
        trim_metadata(&mut self.metadata);
        true
    }

    /// None: a tenant is part of nothing, whatever labels somebody puts on it.
    fn group(&self) -> Option<NamespacedName> {
        None
    }
}
impl Cached for Secret {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |secret| {
            let data = secret.data.iter_mut().flat_map(|data| data.iter_mut());
            empty_the_largest(data.map(|(_, value)| &mut value.0));
            false
        })
    }
}
impl Cached for ConfigMap {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |map| {
            map.binary_data = None;
            let data = map.data.iter_mut().flat_map(|data| data.values_mut());
            empty_the_largest(data);
            false
        })
    }
}
impl Cached for Service {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |service| {
            if is_large(&service.status) {
                service.status = None;
            }
            if !is_large(&service.spec) {
                return false;
            }
            let spec = service.spec.take().map(addresses_of_ours);
            service.spec = spec.filter(|spec| !is_large(spec));
            true
        })
    }
}
impl Cached for Deployment {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |deployment| {
            if is_large(&deployment.status) {
                deployment.status = None;
            }
            let is_large_spec = |it: &&mut _| takes_more(it, POD);
            let Some(spec) = deployment.spec.as_mut().filter(is_large_spec) else {
                return false;
            };
            let (template, pod) = (&mut spec.template.metadata, &mut spec.template.spec);
            *template = template.take().map(of_ours).filter(|it| !is_large(it));
            *pod = pod
                .take()
                .map(containers_of_ours)
                .filter(|it| !is_large(it));
            true
        })
    }
}
impl Cached for Role {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |role| {
            if is_large(&role.rules) {
                role.rules = None;
            }
            false
        })
    }
}
impl Cached for RoleBinding {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |binding| {
            if is_large(&binding.subjects) {
                binding.subjects = None;
            }
            false
        })
    }
}
impl Cached for Ingress {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |ingress| {
            if is_large(&ingress.status) {
                ingress.status = None;
            }
            let is_cut = is_large(&ingress.spec);
            if is_cut {
                ingress.spec = None;
            }
            is_cut
        })
    }
}
impl Cached for TlsRoute {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |route| {
            if is_large(&route.spec) {
                route.spec = Default::default();
            }
            trim_route(&mut route.status);
            false
        })
    }
}
impl Cached for TlsRouteV1Alpha2 {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |route| {
            if is_large(&route.spec) {
                route.spec = Default::default();
            }
            trim_route(&mut route.status);
            false
        })
    }
}
impl Cached for IngressRouteTcp {
    fn keep(&mut self, caches: &Caches) -> bool {
        keep_owned(self, caches, |route| {
            if is_large(&route.spec) {
                route.spec = Default::default();
            }
            false
        })
    }
}
/// Gateways and listeners of each that are held: there are few, and anybody may make some.
const GATEWAYS_IN_NAMESPACE: usize = 200;
const LISTENERS: usize = 64;

impl Cached for Gateway {
    const MOST_IN_NAMESPACE: usize = GATEWAYS_IN_NAMESPACE;

    fn keep(&mut self, _: &Caches) -> bool {
        let mut listeners = std::mem::take(&mut self.spec.listeners);
        listeners.truncate(LISTENERS);
        let mut status = self.status.take().unwrap_or_default();
        trim_said(&mut status.conditions);
        *self = Gateway {
            metadata: ObjectMeta {
                labels: None,
                annotations: None,
                ..bare(&self.metadata)
            },
            spec: GatewaySpec { listeners },
            status: Some(status),
        };
        true
    }

    fn group(&self) -> Option<NamespacedName> {
        None
    }
}

/// What controllers say of a route, as far as it is told on.
fn trim_route(status: &mut Option<TlsRouteStatus>) {
    let Some(status) = status else { return };
    status.parents.truncate(PARENTS);
    for parent in &mut status.parents {
        trim_said(&mut parent.conditions);
    }
}

/// Some conditions, with the beginnings of their messages.
fn trim_said(all: &mut Vec<Condition>) {
    all.truncate(CONDITIONS);
    for condition in all {
        condition.message = cut(std::mem::take(&mut condition.message), MESSAGE);
    }
}

/// A route has 32 parents at most.
const PARENTS: usize = 32;
/// Conditions of a Gateway, or of one parent of a route, that are held.
const CONDITIONS: usize = 16;

/// Bytes of one part of an object of a tenant that are held. Ours have a tenth of it, and
/// what a spec may ask for fits (`v1alpha1::too_large`).
pub const PART: usize = 128 * 1024;

/// Bytes that a Deployment's spec takes as types ([`bulk::weight`]), in [`PART`] bytes of text
/// with what the API fills in: a map counts there as 32 bytes and what is filled into it, and
/// here as what an element of a list takes with that. Parts of other kinds have few elements.
const POD: usize = 6 * bulk::MOST;

/// Whether a part of an object is larger than any of ours. What is taken out for it is
/// not as it is wanted, and is put right.
fn is_large(part: &impl Serialize) -> bool {
    takes_more(part, bulk::MOST)
}

/// Whether a part has more than [`PART`] bytes of text, or more than these as types: three
/// bytes of text, an empty map in a list, may be half a kilobyte.
fn takes_more(part: &impl Serialize, most: usize) -> bool {
    const LIGHT: usize = 2 * 1024;
    let heavy = || serde_json::to_value(part).is_ok_and(|part| bulk::weight(&part) > most);
    counted(part, PART).map_or(true, |bytes| bytes > LIGHT && heavy())
}

/// Bytes of an object as text.
pub(super) fn bytes(object: &impl Serialize) -> usize {
    counted(object, usize::MAX).unwrap_or(usize::MAX)
}

/// Bytes of something as text, if there are no more than `most`.
fn counted(part: &impl Serialize, most: usize) -> Result<usize, serde_json::Error> {
    struct Count(usize, usize);
    impl std::io::Write for &mut Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            match self.0 > self.1 {
                true => Err(std::io::ErrorKind::FileTooLarge.into()),
                false => Ok(bytes.len()),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0, most);
    serde_json::to_writer(&mut count, part)?;
    Ok(count.0)
}

/// Values as they are, as long as the smallest of them have [`PART`] bytes in all; the
/// others are emptied.
fn empty_the_largest<'a, T: Default + AsRef<[u8]> + 'a>(values: impl Iterator<Item = &'a mut T>) {
    let mut values: Vec<&mut T> = values.collect();
    values.sort_by_key(|value| value.as_ref().len());
    let mut bytes = 0;
    for value in values {
        bytes += value.as_ref().len();
        if bytes > PART {
            *value = T::default();
        }
    }
}

/// Whose an object with a name of a tenant's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// That tenant's: read as a whole.
    Tenants,
    /// Somebody else's, and in the way.
    InTheWay,
    /// It has no such name.
    Nobodys,
}

/// What anybody can make with our labels, each of a MiB, is held only as far as it
/// matters: as a whole if a tenant that is there controls it, and as a name if it has a
/// name of such a tenant's.
///
/// `trim` takes out what is larger than any of ours, and says whether that was of its spec.
fn keep_owned<K: Owned + Default>(
    object: &mut K,
    caches: &Caches,
    trim: fn(&mut K) -> bool,
) -> bool {
    match standing(caches, K::KIND, object.meta()) {
        Standing::Tenants => {
            let spec = trim(object);
            let meta = object.meta_mut();
            let [annotations, labels] = trim_metadata(meta);
            let parts = [
                ("spec", spec),
                ("annotations", annotations),
                ("labels", labels),
            ];
            note_cut(meta, &parts);
            true
        }
        Standing::InTheWay => {
            let meta = bare(object.meta());
            *object = K::default();
            *object.meta_mut() = meta;
            true
        }
        Standing::Nobodys => false,
    }
}

/// Leaves the annotations and labels of others out where they are too many to be held, and
/// says of each whether they are.
fn trim_metadata(meta: &mut ObjectMeta) -> [bool; 2] {
    meta.owner_references = controller_of(meta).map(|owner| vec![owner]);
    [&mut meta.annotations, &mut meta.labels].map(|map| {
        let is_cut = is_large(map);
        if is_cut && let Some(map) = map {
            map.retain(|key, _| apiservice::names::is_ours(key));
        }
        is_cut
    })
}

/// Labels and annotations of ours in the metadata of a template: by them is known which
/// DataStore and which certificates pods are given.
fn of_ours(meta: ObjectMeta) -> ObjectMeta {
    let ours = |map: Option<BTreeMap<String, String>>| {
        let all = map.into_iter().flatten();
        Some(
            all.filter(|(key, _)| apiservice::names::is_ours(key))
                .collect(),
        )
    };
    ObjectMeta {
        labels: ours(meta.labels),
        annotations: ours(meta.annotations),
        ..ObjectMeta::default()
    }
}

/// Our own containers, with what is read of them.
fn containers_of_ours(pod: PodSpec) -> PodSpec {
    let ours = |all: Vec<Container>| -> Vec<Container> {
        let ours = all
            .into_iter()
            .filter(|it| apiservice::names::container::ALL.contains(&it.name.as_str()));
        ours.map(|it| Container {
            name: it.name,
            image: it.image,
            args: it.args,
            env: it.env,
            ..Container::default()
        })
        .collect()
    };
    PodSpec {
        containers: ours(pod.containers),
        init_containers: pod.init_containers.map(ours),
        ..PodSpec::default()
    }
}

/// Where a Service leads and how it is reached, with the ports of ours.
fn addresses_of_ours(spec: ServiceSpec) -> ServiceSpec {
    use apiservice::names::{PORT_API_SERVER, PORT_API_SERVER_FORMER, PORT_KONNECTIVITY};
    let ours = [PORT_API_SERVER, PORT_API_SERVER_FORMER, PORT_KONNECTIVITY];
    let is_ours = |it: &ServicePort| it.name.as_deref().is_some_and(|it| ours.contains(&it));
    let ports = spec.ports.into_iter().flatten().filter(is_ours);
    ServiceSpec {
        ports: Some(ports.collect()),
        type_: spec.type_,
        selector: spec.selector,
        cluster_ip: spec.cluster_ip,
        cluster_ips: spec.cluster_ips,
        load_balancer_class: spec.load_balancer_class,
        ..ServiceSpec::default()
    }
}

/// Names the parts of an object that are not held as a whole. It is never written: what
/// comes over the wire under this key is taken out.
pub const HELD_WITHOUT: &str = "held-without.steward.butlerlabs.dev/parts";

fn note_cut(meta: &mut ObjectMeta, parts: &[(&str, bool)]) {
    let cut: Vec<&str> = parts.iter().filter(|it| it.1).map(|it| it.0).collect();
    if !cut.is_empty() {
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(HELD_WITHOUT.to_owned(), cut.join(","));
    } else if let Some(annotations) = &mut meta.annotations {
        annotations.remove(HELD_WITHOUT);
    }
}

/// How much of the spec of an object is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// All.
    Whole,
    /// A part, and so much is wanted that nobody need have changed it: an older release took
    /// what it is made of. It is as it was written, as far as anybody can tell.
    Beyond,
    /// A part, and it is larger than it is wanted: it is to be put right.
    Enlarged,
}

/// How much of the spec of an object is held that is wanted so.
pub fn spec_of(wanted: &Value, held: &ObjectMeta) -> Spec {
    let annotations = held.annotations.as_ref();
    let cut = annotations.and_then(|it| it.get(HELD_WITHOUT));
    match cut.is_some_and(|cut| is_named(cut, "spec")) {
        false => Spec::Whole,
        true if bulk::as_kept(&wanted["spec"]) > PART => Spec::Beyond,
        true => Spec::Enlarged,
    }
}

fn is_named(cut: &str, part: &str) -> bool {
    cut.split(',').any(|it| it == part)
}

/// Takes out of an object, as it is wanted, what cannot be compared with what is held of it.
pub fn leave_comparable(wanted: &mut Value, held: &ObjectMeta) {
    let annotations = held.annotations.as_ref();
    let Some(cut) = annotations.and_then(|it| it.get(HELD_WITHOUT)) else {
        return;
    };
    for part in ["annotations", "labels"] {
        if is_named(cut, part)
            && let Some(map) = wanted["metadata"][part].as_object_mut()
        {
            map.retain(|key, _| apiservice::names::is_ours(key));
        }
    }
    if spec_of(wanted, held) == Spec::Beyond
        && let Some(object) = wanted.as_object_mut()
    {
        let spec = object.get_mut("spec").and_then(Value::as_object_mut);
        if spec.and_then(|spec| spec.remove("template")).is_none() {
            object.remove("spec");
        }
    }
}

/// Bytes of somebody's words that are kept.
pub(super) const MESSAGE: usize = 1024;

/// The beginning of a text.
pub(super) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.shrink_to_fit();
    }
    text
}

/// The end of a text.
pub(super) fn end(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.drain(..text.ceil_char_boundary(text.len() - most));
        text.shrink_to_fit();
    }
    text
}

/// The controller of an object, without what nobody reads.
fn controller_of(meta: &ObjectMeta) -> Option<OwnerReference> {
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(OwnerReference {
        api_version: cut(owner.api_version.clone(), NAME),
        kind: cut(owner.kind.clone(), NAME),
        name: cut(owner.name.clone(), NAME),
        uid: cut(owner.uid.clone(), NAME),
        controller: Some(true),
        block_owner_deletion: None,
    })
}

/// Bytes of a name that is kept.
pub(super) const NAME: usize = 253;

/// What tells one object from another, and whose it is.
pub(super) fn bare(meta: &ObjectMeta) -> ObjectMeta {
    let name = apiservice::names::LABEL_NAME;
    let label = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get_key_value(name));
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        creation_timestamp: meta.creation_timestamp.clone(),
        deletion_timestamp: meta.deletion_timestamp.clone(),
        owner_references: controller_of(meta).map(|owner| vec![owner]),
        labels: label.map(|(key, value)| [(key.clone(), value.clone())].into()),
        ..ObjectMeta::default()
    }
}

/// Whose an object is, by the tenants that there are.
fn standing(caches: &Caches, kind: ObjectKind, meta: &ObjectMeta) -> Standing {
    let tenant = tenant_of(meta).and_then(|tenant| caches.tenants.get(&tenant));
    let Some(tenant) = tenant else {
        return Standing::Nobodys;
    };
    let name = meta.name.as_deref().unwrap_or_default();
    let of = tenant.metadata.name.as_deref().unwrap_or_default();
    if !kind.is_name_of(of, name) {
        return Standing::Nobodys;
    }
    let owner = tenant_reference(meta);
    match owner.is_some_and(|owner| Some(&owner.uid) == tenant.metadata.uid.as_ref()) {
        true => Standing::Tenants,
        false => Standing::InTheWay,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apiservice::names;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::apps::v1::DeploymentSpec;
    use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
    use k8s_openapi::api::rbac::v1::{PolicyRule, Subject};

    use super::*;
    use crate::cluster::cache::Cache;

    const MIB: usize = 1024 * 1024;

    fn labelled(name: &str) -> ObjectMeta {
        let labels = [
            (
                "steward.butlerlabs.dev/project".to_owned(),
                "steward".to_owned(),
            ),
            ("steward.butlerlabs.dev/name".to_owned(), "a".to_owned()),
        ];
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("tenants".into()),
            uid: Some(format!("uid-of-{name}")),
            labels: Some(labels.into()),
            annotations: Some([("a".into(), "x".repeat(200_000))].into()),
            ..ObjectMeta::default()
        }
    }

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "steward.butlerlabs.dev/v1alpha1".into(),
            kind: "TenantControlPlane".into(),
            name: "a".into(),
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }
    }

    /// With tenant `a`, or with none.
    fn caches(tenant: Option<&str>) -> Caches {
        let caches = Caches::default();
        if let Some(uid) = tenant {
            let tenant = serde_json::json!({
                "metadata": {"name": "a", "namespace": "tenants", "uid": uid},
                "spec": {"kubernetes": {"version": "v1.36.3"}},
            });
            let tenant: TenantControlPlane = serde_json::from_value(tenant).unwrap();
            caches.tenants.put(Arc::new(tenant));
        }
        caches
    }

    fn size<K: Serialize>(object: &K) -> usize {
        serde_json::to_string(object).unwrap().len()
    }

    /// What strangers make of each kind of the table, with the right name, a label, and
    /// the uid of whatever they like in the reference to its owner.
    fn forged<K: Owned + Default>(name: &str, fill: fn(&mut K)) {
        let mut object = K::default();
        *object.meta_mut() = labelled(name);
        fill(&mut object);
        assert!(size(&object) > MIB, "{name}");
        let held = |caches: &Caches, name: &str, owned_by: Option<&str>| {
            let mut object = object.clone();
            object.meta_mut().name = Some(name.to_owned());
            object.meta_mut().owner_references = owned_by.map(|uid| vec![owner(uid); 100]);
            caches.kept(object).map(|held| size(&*held))
        };
        // Of a tenant that is not there, or with a name that it has not.
        assert_eq!(held(&caches(None), name, Some("u")), None, "{name}");
        assert_eq!(
            held(&caches(Some("u")), "a-other", Some("u")),
            None,
            "{name}"
        );
        // In the way of one that is there.
        for owned_by in [None, Some("another")] {
            let held = held(&caches(Some("u")), name, owned_by).unwrap();
            assert!(held < 1000, "{name}: {held} bytes");
        }
        // Its own, overwritten by whoever may write in its namespace.
        let held = held(&caches(Some("u")), name, Some("u")).unwrap();
        assert!(held < 400 * 1024, "{name}: {held} bytes");
    }

    #[test]
    fn what_strangers_make_is_held_as_a_name_or_not_at_all() {
        forged::<Secret>("a-ca", |it| {
            let value = ByteString(vec![7; 2 * MIB]);
            it.data = Some([("k".into(), value)].into());
        });
        forged::<ConfigMap>("a-kubeadmconfig", |it| {
            it.data = Some([("k".into(), "x".repeat(MIB))].into());
            it.binary_data = Some([("b".into(), ByteString(vec![7; MIB]))].into());
        });
        forged::<Service>("a", |it| {
            it.spec = Some(ServiceSpec {
                external_name: Some("x".repeat(2 * MIB)),
                ..ServiceSpec::default()
            });
        });
        forged::<Deployment>("a", |it| {
            let container = Container {
                env: Some(vec![EnvVar {
                    value: Some("x".repeat(2 * MIB)),
                    ..EnvVar::default()
                }]),
                ..Container::default()
            };
            it.spec = Some(DeploymentSpec {
                template: PodTemplateSpec {
                    spec: Some(PodSpec {
                        containers: vec![container],
                        ..PodSpec::default()
                    }),
                    ..PodTemplateSpec::default()
                },
                ..DeploymentSpec::default()
            });
        });
        forged::<Role>("a-kubeconfig-signer", |it| {
            it.rules = Some(vec![PolicyRule {
                verbs: vec!["x".repeat(2 * MIB)],
                ..PolicyRule::default()
            }]);
        });
        forged::<RoleBinding>("a-kubeconfig-signer", |it| {
            it.subjects = Some(vec![Subject {
                name: "x".repeat(2 * MIB),
                ..Subject::default()
            }]);
        });
    }

    #[test]
    fn what_a_tenant_controls_is_held_as_it_is() {
        let mut secret = Secret {
            metadata: labelled("a-ca"),
            data: Some([("k".into(), ByteString(vec![7; 8_000]))].into()),
            ..Secret::default()
        };
        secret.metadata.owner_references = Some(vec![owner("u")]);
        secret.metadata.annotations = Some([("theirs".to_owned(), "x".to_owned())].into());
        let held = caches(Some("u")).kept(secret.clone()).unwrap();
        assert_eq!(*held, secret);
        // A value that somebody adds takes nothing from ours.
        let data = secret.data.as_mut().unwrap();
        data.insert("a".into(), ByteString(vec![7; MIB]));
        secret.metadata.annotations = labelled("a").annotations;
        let annotations = secret.metadata.annotations.as_mut().unwrap();
        annotations.insert(apiservice::names::ANNOTATION_APPLIED.into(), "h".into());
        let held = caches(Some("u")).kept(secret.clone()).unwrap();
        let data = held.data.as_ref().unwrap();
        assert_eq!((data["k"].0.len(), data["a"].0.len()), (8_000, 0));
        let held = held.metadata.annotations.as_ref().unwrap();
        assert_eq!(held.len(), 2);
        assert_eq!(held[names::ANNOTATION_APPLIED], "h");
        assert_eq!(held[HELD_WITHOUT], "annotations");
    }

    /// Another tenant of the name has come: what was held is judged anew.
    #[test]
    fn a_new_tenant_of_a_name_does_not_find_what_was_cut_for_the_one_before() {
        let caches = caches(Some("u"));
        let name = NamespacedName::new("tenants", "a");
        // At the start objects may be listed before the last tenant was met.
        let mut own = Secret {
            metadata: labelled("a-sa-certificate"),
            ..Secret::default()
        };
        own.metadata.owner_references = Some(vec![owner("u")]);
        caches.secrets.put(caches.kept(own.clone()).unwrap());
        caches.meet(&name);
        assert_eq!(caches.secrets.len(), 1);
        caches.secrets.remove(&own);
        let mut secret = Secret {
            metadata: labelled("a-ca"),
            data: Some([("k".into(), ByteString(vec![7; 8]))].into()),
            ..Secret::default()
        };
        secret.metadata.owner_references = Some(vec![owner("next")]);
        caches.secrets.put(caches.kept(secret).unwrap());
        assert!(caches.secrets.of(&name)[0].data.is_none());
        caches.meet(&name);
        assert_eq!(caches.secrets.len(), 1, "the same tenant");
        let cut = caches.secrets.of(&name)[0].clone();
        let before = caches.tenants.get(&name).unwrap();
        let mut next = TenantControlPlane::clone(&before);
        next.metadata.uid = Some("next".into());
        let next = Arc::new(next);
        caches.tenants.put(next.clone());
        caches.meet(&name);
        assert!(caches.secrets.is_empty());

        // The same if it is seen that there is none in between.
        caches.tenants.put(before.clone());
        caches.meet(&name);
        caches.secrets.put(cut);
        caches.tenants.remove(&before);
        caches.meet(&name);
        caches.tenants.put(next);
        caches.meet(&name);
        assert!(caches.secrets.is_empty());
    }

    /// Whoever may write a tenant's objects finds types that are many times their text.
    #[test]
    fn what_is_large_as_types_is_not_held_either() {
        let caches = caches(Some("u"));
        let own = |mut meta: ObjectMeta| {
            meta.owner_references = Some(vec![owner("u")]);
            meta
        };
        let volumes = |sources: usize| {
            let sources = vec![serde_json::json!({}); sources];
            serde_json::json!([{"name": "v", "projected": {"sources": sources}}])
        };
        let deployment = |sources: usize| -> Arc<Deployment> {
            let mut object: Deployment = serde_json::from_value(serde_json::json!({
                "spec": {"selector": {}, "template": {
                    "metadata": {"labels": {names::LABEL_POD_DATASTORE: "d", "other": "o"}},
                    "spec": {"volumes": volumes(sources), "containers": [
                        {"name": "kube-apiserver", "args": ["--secure-port=6443"], "tty": true},
                        {"name": "other"},
                    ]},
                }},
            }))
            .unwrap();
            object.metadata = own(labelled("a"));
            caches.kept(object).unwrap()
        };
        let held = deployment(40_000);
        let text = serde_json::to_value(&held.spec).unwrap();
        assert!(bulk::weight(&text) < 10_000, "{text}");
        let template = &text["template"];
        let labels = serde_json::json!({names::LABEL_POD_DATASTORE: "d"});
        assert_eq!(template["metadata"]["labels"], labels);
        let containers = serde_json::json!([
            {"name": "kube-apiserver", "args": ["--secure-port=6443"]},
        ]);
        assert_eq!(template["spec"]["containers"], containers);
        assert!(
            held.metadata
                .annotations
                .as_ref()
                .unwrap()
                .contains_key(HELD_WITHOUT)
        );
        let fits = deployment(1_000);
        let pod = fits.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        assert_eq!(pod.containers.len(), 2);

        // The note is ours: what somebody writes there means nothing.
        let mut forged = Deployment::clone(&fits);
        forged
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(HELD_WITHOUT.to_owned(), "spec".to_owned());
        let held = caches.kept(forged).unwrap();
        let annotations = held.metadata.annotations.clone().unwrap_or_default();
        assert_ne!(
            annotations.get(HELD_WITHOUT).map(String::as_str),
            Some("spec")
        );

        let mut service: Service =
            serde_json::from_value(serde_json::json!({"spec": {"ports": []}})).unwrap();
        let port = ServicePort::default();
        service.spec.as_mut().unwrap().ports = Some(vec![port; 5_000]);
        service.metadata = own(labelled("a"));
        service.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.1".to_owned());
        let held = caches.kept(service).unwrap().spec.clone().unwrap();
        assert_eq!(held.ports, Some(vec![]));
        assert_eq!(held.cluster_ip.as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn gateways_of_strangers_are_held_in_few_words() {
        let listener = |number: usize| {
            serde_json::json!({
                "name": format!("l{number}"), "port": 1, "protocol": "TLS",
                "tls": {"mode": "Passthrough", "options": {"a": "x".repeat(1000)}},
            })
        };
        let condition = |number: usize| {
            serde_json::json!({
                "type": format!("T{number}"), "status": "True", "reason": "R",
                "message": "x".repeat(MIB), "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let gateway = |name: &str| -> Gateway {
            serde_json::from_value(serde_json::json!({
                "metadata": {
                    "name": name, "namespace": "edge", "uid": name,
                    "annotations": {"a": "x".repeat(MIB)}, "labels": {"a": "b"},
                },
                "spec": {"listeners": (0..1000).map(listener).collect::<Vec<_>>()},
                "status": {"conditions": (0..20).map(condition).collect::<Vec<_>>()},
            }))
            .unwrap()
        };
        let caches = Caches::default();
        let held = caches.kept(gateway("a")).unwrap();
        let size = serde_json::to_vec(&held.metadata).unwrap().len();
        assert!(size < 200, "{size}");
        assert_eq!(held.spec.listeners.len(), LISTENERS);
        let said = &held.status.as_ref().unwrap().conditions;
        assert_eq!((said.len(), said[0].message.len()), (CONDITIONS, MESSAGE));
        let cache: Cache<Gateway> = Cache::default();
        for number in 0..GATEWAYS_IN_NAMESPACE + 10 {
            let mut one = Gateway::clone(&held);
            one.metadata.name = Some(format!("g{number}"));
            cache.put(Arc::new(one));
        }
        assert_eq!(cache.len(), GATEWAYS_IN_NAMESPACE);
    }
}
