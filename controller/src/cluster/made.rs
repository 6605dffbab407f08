//! What is held of pods, ReplicaSets and Events, which others make for tenants.
//!
//! Anybody can make them by the thousand with any tenant's label, and they carry no
//! reference to the tenant that would prove anything. So they are held as far as they are
//! read, of tenants that are there, and all of a kind together are bounded in bytes
//! ([`Cached::MOST_BYTES`]). What came before its tenant was known is looked for when it is
//! (`looks.rs`).

use std::{collections::BTreeMap, sync::LazyLock};

use apiservice::names::{self, container};
use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Event, ObjectReference, Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::cache::{Cache, Cached};
use crate::cluster::caches::Caches;
use crate::cluster::kept::{MESSAGE, NAME, bare, bytes, cut, end};
use crate::cluster::name::{NamespacedName, tenant_of};

/// Pods and ReplicaSets that are held of one namespace: anybody there can make them with
/// a tenant's label.
const MADE_IN_NAMESPACE: usize = 8_000;
const MIB: usize = 1024 * 1024;
/// Container statuses that are held of one pod.
const CONTAINERS: usize = 16;

/// Whose label a pod or a ReplicaSet carries.
enum Whose {
    /// That of a tenant that is there.
    Tenants,
    /// That of one that is gone, whose clean-up waits until its pods have ended.
    Former,
    /// That of none.
    Nobodys,
}

fn whose<K: Cached>(object: &K, caches: &Caches, held: &Cache<K>) -> Whose {
    let Some(tenant) = tenant_of(object.meta()) else {
        return Whose::Nobodys;
    };
    if caches.tenants.get(&tenant).is_some() {
        return Whose::Tenants;
    }
    let before = held.get(&NamespacedName::of(object.meta()));
    let was_held = before.is_some_and(|it| it.meta().uid == object.meta().uid);
    match was_held || is_cleaned_up_later(caches, &tenant) {
        true => Whose::Former,
        false => Whose::Nobodys,
    }
}

/// Whether a DataStore remembers a tenant that is gone.
fn is_cleaned_up_later(caches: &Caches, tenant: &NamespacedName) -> bool {
    let stores = caches.data_stores.all();
    let entries = stores.iter().flat_map(|store| &store.status);
    let mut entries = entries.flat_map(|status| &status.pending_cleanups);
    entries.any(|entry| {
        entry.namespace.as_ref() == Some(&tenant.namespace)
            && entry.name.as_ref() == Some(&tenant.name)
    })
}

impl Cached for ReplicaSet {
    const MOST_IN_NAMESPACE: usize = MADE_IN_NAMESPACE;
    const MOST_BYTES: usize = 24 * MIB;

    fn weight(&self) -> usize {
        size_of::<Self>() + bytes(self)
    }

    fn keep(&mut self, caches: &Caches) -> bool {
        let whose = whose(self, caches, &caches.replica_sets);
        let spec = self.spec.take().unwrap_or_default();
        let status = self.status.take().unwrap_or_default();
        let metadata = bare(&self.metadata);
        let replicas = spec.replicas;
        *self = match whose {
            Whose::Nobodys => return false,
            Whose::Former => ReplicaSet {
                metadata,
                spec: Some(ReplicaSetSpec {
                    replicas,
                    ..ReplicaSetSpec::default()
                }),
                status: None,
            },
            Whose::Tenants => ReplicaSet {
                metadata: ObjectMeta {
                    annotations: read(self.metadata.annotations.take(), &ANNOTATIONS_READ),
                    ..metadata
                },
                spec: Some(ReplicaSetSpec {
                    replicas,
                    template: spec
                        .template
                        .and_then(|template| template.metadata)
                        .map(template),
                    ..ReplicaSetSpec::default()
                }),
                status: Some(ReplicaSetStatus {
                    replicas: status.replicas,
                    conditions: status.conditions.map(failures),
                    ..ReplicaSetStatus::default()
                }),
            },
        };
        true
    }
}

/// What a ReplicaSet's pods were made with.
fn template(meta: ObjectMeta) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: read(meta.labels, &LABELS_READ),
            annotations: read(meta.annotations, &ANNOTATIONS_READ),
            ..ObjectMeta::default()
        }),
        spec: None,
    }
}

/// The one condition of a ReplicaSet that is read: it cannot make pods.
fn failures(all: Vec<ReplicaSetCondition>) -> Vec<ReplicaSetCondition> {
    let failures = all.into_iter().filter(|it| it.type_ == "ReplicaFailure");
    let failures = failures.take(1).map(|it| ReplicaSetCondition {
        status: cut(it.status, NAME),
        reason: it.reason.map(|reason| cut(reason, NAME)),
        message: it.message.map(|message| cut(message, MESSAGE)),
        ..it
    });
    failures.collect()
}

/// The annotations that are read of a ReplicaSet and of its template.
static ANNOTATIONS_READ: LazyLock<Vec<String>> = LazyLock::new(|| {
    let read = [
        names::ANNOTATION_CERTIFICATES_END,
        names::ANNOTATION_STORAGE_CERTIFICATE,
    ];
    read.map(str::to_owned).into()
});

/// The labels that are read of a template: which Secrets its pods were made with.
static LABELS_READ: LazyLock<Vec<String>> = LazyLock::new(|| {
    let secrets = names::secrets("t");
    let parts = secrets.iter().filter_map(|name| name.strip_prefix("t-"));
    parts.map(names::pod_hash_label).collect()
});

/// Those with these keys, with the beginnings of their values. Named one by one: of a prefix
/// there may be any number.
fn read(
    all: Option<BTreeMap<String, String>>,
    keys: &[String],
) -> Option<BTreeMap<String, String>> {
    let mut all = all?;
    let read = keys.iter().filter_map(|key| all.remove_entry(key));
    Some(read.map(|(key, value)| (key, cut(value, NAME))).collect())
}

impl Cached for Pod {
    const MOST_IN_NAMESPACE: usize = MADE_IN_NAMESPACE;
    const MOST_BYTES: usize = 48 * MIB;

    fn weight(&self) -> usize {
        size_of::<Self>() + bytes(self)
    }

    fn keep(&mut self, caches: &Caches) -> bool {
        let whose = whose(self, caches, &caches.pods);
        let status = self.status.take().unwrap_or_default();
        let containers = self.spec.take().map(|spec| spec.containers);
        let metadata = bare(&self.metadata);
        let phase = status.phase.map(|phase| cut(phase, NAME));
        *self = match whose {
            Whose::Nobodys => return false,
            Whose::Former => Pod {
                metadata,
                spec: None,
                status: Some(PodStatus {
                    phase,
                    ..PodStatus::default()
                }),
            },
            Whose::Tenants => Pod {
                metadata,
                spec: containers.and_then(api_server),
                status: Some(PodStatus {
                    phase,
                    pod_ip: status.pod_ip.map(|ip| cut(ip, NAME)),
                    conditions: status.conditions.map(conditions),
                    container_statuses: status.container_statuses.map(told),
                    init_container_statuses: status.init_container_statuses.map(told),
                    ..PodStatus::default()
                }),
            },
        };
        true
    }
}

/// What version a pod runs.
fn api_server(containers: Vec<Container>) -> Option<PodSpec> {
    let mut all = containers.into_iter();
    let server = all.find(|it| it.name == container::API_SERVER)?;
    Some(PodSpec {
        containers: vec![Container {
            name: server.name,
            image: server.image.map(|image| cut(image, MESSAGE)),
            ..Container::default()
        }],
        ..PodSpec::default()
    })
}

/// The conditions that are read of a pod, each once.
fn conditions(mut all: Vec<PodCondition>) -> Vec<PodCondition> {
    let read = ["PodScheduled", "Ready"].into_iter().filter_map(|type_| {
        let at = all.iter().position(|it| it.type_ == type_)?;
        let it = all.swap_remove(at);
        Some(PodCondition {
            status: cut(it.status, NAME),
            reason: it.reason.map(|reason| cut(reason, NAME)),
            message: it.message.map(|message| cut(message, MESSAGE)),
            ..it
        })
    });
    read.collect()
}

fn told(all: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let some = all.into_iter().take(CONTAINERS);
    some.map(container_status).collect()
}

/// What is read of a container's status.
fn container_status(status: ContainerStatus) -> ContainerStatus {
    let ended = |it: ContainerStateTerminated| ContainerStateTerminated {
        exit_code: it.exit_code,
        reason: it.reason.map(|reason| cut(reason, NAME)),
        // The last lines tell.
        message: it.message.map(|message| end(message, MESSAGE)),
        ..ContainerStateTerminated::default()
    };
    let state = |it: ContainerState| ContainerState {
        running: it.running,
        terminated: it.terminated.map(ended),
        waiting: it.waiting.map(|it| ContainerStateWaiting {
            reason: it.reason.map(|reason| cut(reason, NAME)),
            message: it.message.map(|message| cut(message, MESSAGE)),
        }),
    };
    ContainerStatus {
        name: cut(status.name, NAME),
        image: cut(status.image, MESSAGE),
        ready: status.ready,
        started: status.started,
        restart_count: status.restart_count,
        state: status.state.map(state),
        last_state: status.last_state.map(state),
        ..ContainerStatus::default()
    }
}

impl Cached for Event {
    const MOST: usize = 1000;
    const MOST_BYTES: usize = 16 * MIB;

    fn weight(&self) -> usize {
        size_of::<Self>() + bytes(self)
    }

    fn keep(&mut self, caches: &Caches) -> bool {
        if tenant_near(caches, self).is_none() {
            return false;
        }
        let meta = std::mem::take(&mut self.metadata);
        let about = std::mem::take(&mut self.involved_object);
        *self = Event {
            metadata: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: about.kind,
                namespace: about.namespace.map(|namespace| cut(namespace, NAME)),
                name: about.name,
                uid: about.uid.map(|uid| cut(uid, NAME)),
                ..ObjectReference::default()
            },
            reason: self.reason.take().map(|reason| cut(reason, 128)),
            message: self.message.take().map(|message| cut(message, MESSAGE)),
            type_: self.type_.take().map(|type_| cut(type_, NAME)),
            last_timestamp: self.last_timestamp.take(),
            event_time: self.event_time.take(),
            series: self.series.take(),
            ..Event::default()
        };
        true
    }

    /// By the namespace of what it is about: which tenant that is, is decided
    /// when it is looked up.
    fn group(&self) -> Option<NamespacedName> {
        Some(NamespacedName::new(
            self.involved_object.namespace.clone()?,
            "",
        ))
    }
}

/// The tenant that an event of the management cluster is about: the one whose
/// name is the longest beginning of the object's.
pub fn tenant_near(caches: &Caches, event: &Event) -> Option<NamespacedName> {
    let about = &event.involved_object;
    if !matches!(
        about.kind.as_deref(),
        Some("Pod" | "ReplicaSet" | "Deployment" | "Service")
    ) {
        return None;
    }
    let namespace = about.namespace.clone()?;
    // Nobody checks what an Event says that it is about; no object has a longer name.
    let mut name = about.name.as_deref().filter(|name| name.len() <= NAME)?;
    loop {
        let candidate = NamespacedName::new(namespace.clone(), name);
        if caches.tenants.get(&candidate).is_some() {
            return Some(candidate);
        }
        name = name.rsplit_once('-')?.0;
    }
}

#[cfg(test)]
mod tests;
