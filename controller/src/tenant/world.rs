//! What a plan may look at: facts that were gathered before it, without any
//! way to gather more. Everything here is a value; nothing does I/O.
//!
//! Facts that may be unknown say so. An unknown fact never leads to a
//! deletion, a regeneration or a claim that something is broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::assignment::{Assigned, Unassigned};
use apiservice::endpoint::Endpoint;
use apiservice::v1alpha1::{
    DataStore, KonnectivityAgentMode, MigrationStatus, TenantControlPlane, WritePermissions,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, PodCondition, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::kinds::Inventory;
use crate::cluster::routes::Gateway;
use crate::cluster::served::Served;
use crate::tenant::backing::beside::{self, Beside, Override};
use crate::tenant::backing::facts::{Elsewhere, StoreFacts};
use crate::tenant::backing::limits::SizeFact;
use crate::tenant::pki::terms::Terms;
use crate::tenant::plan::ObjectKey;
use crate::tenant::turns::{Limits, Turn};
use crate::tenant::{objects, ran};

/// Everything that [`crate::tenant::plan()`] may know about one tenant.
#[derive(Clone, Debug)]
pub struct World {
    /// The clock of this pass.
    pub now: Timestamp,
    /// The tenant as our API served it.
    pub tenant: Arc<TenantControlPlane>,
    /// What the operator's administrator chose.
    pub settings: Arc<Settings>,
    /// Which DataStore this pass assigns, or why none; `None` if the tenant has one.
    pub assignment: Option<Result<Assigned, Unassigned>>,
    /// The DataStore that [`crate::cluster::chosen::choose`] names, if it exists.
    pub data_store: Option<Arc<DataStore>>,
    /// False while the cache of DataStores has not been filled, so that an
    /// absent one is not yet known to be missing.
    pub data_stores_known: bool,
    /// Why that DataStore, which is not seen, cannot be taken for one that was deleted.
    pub data_store_unseen: Option<String>,
    /// Why the objects in the tenant's namespace can be neither seen nor written, in a
    /// sentence; none of them is below then. A tenant that is not being deleted is left
    /// alone.
    pub unreached: Option<String>,
    /// What observers know about the tenant's place in that DataStore.
    pub store: StoreFacts,
    /// The deletion of this tenant's data is already recorded on the DataStore
    /// (rule 18), so that the finalizer need not wait.
    pub deferred: bool,
    /// The other DataStores that may have the claim of a tenant that is being
    /// deleted; none once the claim is known.
    pub elsewhere: Vec<Elsewhere>,
    /// Which of the tenant's places beside its main one this is the world of
    /// ([`crate::tenant::backing::overrides`]); `None`: the main one.
    pub beside: Option<Beside>,
    /// The places beside the main one, those of before included.
    pub overrides: Vec<Override>,
    /// The last move of the tenant's data to another DataStore, if there was one.
    pub migration: Option<MigrationStatus>,
    /// Objects found under the names that the tenant uses, ours or not.
    pub owned: Inventory,
    /// Which optional kinds the management cluster has.
    pub optional: Served,
    /// The Gateways that the tenant refers to, as far as they are there and can be seen.
    pub gateways: Vec<Arc<Gateway>>,
    /// False while Gateways have not been listed, so that an absent one is not yet known
    /// to be missing.
    pub gateways_known: bool,
    /// Pods that carry the tenant's name label.
    pub pods: Vec<Arc<Pod>>,
    /// ReplicaSets that carry the tenant's name label.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// False while pods and ReplicaSets have not been listed.
    pub pods_known: bool,
    /// When this controller saw first that the tenant is being deleted.
    pub deleting_since: Option<Timestamp>,
    /// Warning events about the tenant's Service, Deployment, ReplicaSets and
    /// pods, in any order.
    pub events: Vec<Arc<Event>>,
    /// What the probe last saw.
    pub probe: ProbeFacts,
    /// What came of keeping in the tenant what belongs there.
    pub inside: InsideFacts,
    /// How much the tenant has in its DataStore, as far as it is known.
    pub size: SizeFact,
    /// What the tenant's nodes were told last; `None` if this process has told nothing yet.
    pub told: Option<ForNodes>,
    /// Since when the probe ought to see something.
    pub observed_since: Option<Timestamp>,
    /// Objects that somebody keeps changing back, with the instant of the next
    /// attempt (rule 20).
    pub contested: BTreeMap<ObjectKey, Timestamp>,
    /// Whether the pods may be rolled for a reason other than the spec (rule 29).
    pub turn: Turn,
}

/// The image of an installation that names no other: kine's own release.
pub const KINE_IMAGE: &str = "rancher/kine:v0.16.4";

/// What the administrator of the operator chose; the same for all tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the operator and of Steward's own API server.
    pub operator_namespace: String,
    /// ServiceAccount of Steward's own API server, the subject of rule 13.
    pub api_server_service_account: String,
    /// DataStore that comes first among equals for tenants that name none.
    pub default_data_store: Option<String>,
    /// Registry in place of the default one, for tenants that name no other.
    pub registry: String,
    /// Image of kine, for tenants whose database does not speak etcd's protocol.
    pub kine_image: String,
    /// Image of the relay to an etcd of an override, which is this program's own; `None` if it
    /// was not told.
    pub relay_image: Option<String>,
    /// For how long certificates are made, and when they are made anew.
    pub certificates: Terms,
    /// DNS domain of the management cluster, for the Service's names.
    pub management_domain: String,
    /// How long a load balancer may take before its silence is reported.
    pub address_patience: jiff::SignedDuration,
    /// Tenants whose pods are rolled at a time for a reason other than their own spec.
    pub rolls: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            operator_namespace: "steward-system".into(),
            api_server_service_account: "steward-apiserver".into(),
            default_data_store: None,
            registry: "registry.k8s.io".into(),
            kine_image: KINE_IMAGE.into(),
            relay_image: None,
            certificates: Terms::default(),
            management_domain: "cluster.local".into(),
            address_patience: jiff::SignedDuration::from_secs(15),
            rolls: Limits::default(),
        }
    }
}

/// What the tenant's own API answered to a client with a fresh certificate of
/// the group `steward:admin` (rule 15).
#[derive(Clone, Debug, Default)]
pub struct ProbeFacts {
    /// Through `status.controlPlaneEndpoint`.
    pub endpoint: Option<PathFact>,
    /// Through the Service's name or address inside the management cluster.
    pub service: Option<PathFact>,
    /// Since when the Service has led to the tenant and its endpoint has not.
    pub inside_since: Option<Timestamp>,
    /// Whether the tenant's own admission lets the probe write; `None` if not known.
    pub admission: Option<Admission>,
}

/// What a tenant's nodes are told of it, as a pass found it out. Not taken from its status:
/// who may write that could send nodes elsewhere and have add-ons rolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForNodes {
    /// Its API server for nodes and pods.
    pub endpoint: Endpoint,
    /// The servers of its tunnel, if it has one.
    pub agents: Option<Endpoint>,
    /// The newest version of Kubernetes that serves; `None` while no pod does.
    pub version: Option<String>,
}

/// What came of keeping in a tenant's API what belongs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsideFacts {
    /// The generation of the tenant that is there as a whole; `None` until something was
    /// written after the first Ready.
    pub generation: Option<i64>,
    /// Which add-ons are there; `None` until it is known.
    pub addons: Option<Addons>,
    /// Which writes are refused to its users; `None` until it is known.
    pub blocked: Option<WritePermissions>,
    /// What could not be looked at or written at the last attempt.
    pub problems: Vec<InsideProblem>,
}

impl InsideFacts {
    /// The same but for the words in which something was refused: they may hold the time
    /// of day.
    pub fn is_same(&self, other: &InsideFacts) -> bool {
        let about = |facts: &InsideFacts| -> Vec<String> {
            let problems = facts.problems.iter();
            problems.map(|it| it.about.clone()).collect()
        };
        self.generation == other.generation
            && self.addons == other.addons
            && self.blocked == other.blocked
            && about(self) == about(other)
    }

    /// The problems as a sentence each, if there are any.
    pub fn told(&self) -> Option<String> {
        let problems = self.problems.iter().take(InsideProblem::TOLD);
        let sentences: Vec<String> = problems.map(ToString::to_string).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }
}

/// What could not be looked at or written in a tenant, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideProblem {
    /// What, without anything that the tenant said.
    pub about: String,
    /// What was said about it, cut to the length of a quotation.
    pub said: String,
}

impl InsideProblem {
    /// As many are told in a condition.
    pub const TOLD: usize = 5;
}

impl std::fmt::Display for InsideProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}.", self.about, self.said)
    }
}

/// Which of the add-ons that we install are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addons {
    /// Cluster DNS.
    pub core_dns: bool,
    /// Service addresses on the nodes.
    pub kube_proxy: bool,
    /// The agents of the tunnel, and how they run.
    pub konnectivity: Option<KonnectivityAgentMode>,
}

/// What the tenant's own webhooks, policies and quotas make of the probe's writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// They let it write.
    Passes,
    /// They refuse, in these words, while the API server writes what they are not
    /// asked about.
    Refuses(String),
}

/// One path to the tenant and what became of the last probe along it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFact {
    /// When the probe **started**. A probe that started before something broke
    /// proves nothing about it.
    pub started: Timestamp,
    /// `host:port` that was asked.
    pub address: String,
    /// What became of it.
    pub result: Result<(), ProbeFailure>,
}

/// A probe that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// How it failed.
    pub kind: ProbeFailureKind,
    /// What the network, TLS or the tenant's API said.
    pub message: String,
}

/// How a probe can fail, nearest cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailureKind {
    /// The name does not resolve.
    Unresolvable,
    /// Nothing listens: connection refused or reset.
    Refused,
    /// No answer within the deadline while connecting: no route, or dropped.
    TimedOut,
    /// Connected, but no answer within the deadline (a stopped process).
    Silent,
    /// The serving certificate is not one of this tenant's authority, or not
    /// for this name.
    Untrusted,
    /// The tenant's API does not accept the tenant's certificates (401).
    Unauthenticated,
    /// It cannot be asked: what would sign our certificate is missing.
    Unasked,
    /// The bindings of `steward:admin` are missing or too small (403).
    Forbidden,
    /// The API answers that its storage fails.
    Storage,
    /// It answers, but does not read what it should.
    Read,
    /// It reads, but does not write.
    Write,
    /// It reads and writes, but a watch does not deliver.
    Watch,
}

/// Whose object this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Controlled by this tenant's uid.
    Ours,
    /// Anything else, uncontrolled objects included (rule 20).
    Foreign,
}

/// Whether a pod passes its readiness probe.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|it| it.status == "True")
}

/// What the kubelet says of a pod as a whole.
pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == "Ready")
}

impl World {
    /// The tenant's name. The API server refuses objects without one.
    pub fn name(&self) -> &str {
        self.tenant.metadata.name.as_deref().unwrap_or_default()
    }

    /// The tenant's namespace.
    pub fn namespace(&self) -> &str {
        self.tenant
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// `namespace/name`, as logs have it.
    pub fn tenant_name(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// The tenant's uid, which owner references and claims carry.
    pub fn uid(&self) -> &str {
        self.tenant.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The uid by which this place in a database is claimed: the tenant's own for its main one.
    pub fn claimant(&self) -> String {
        match &self.beside {
            None => self.uid().to_owned(),
            Some(beside) => beside.claimant(self.uid()),
        }
    }

    /// Name of the Secret with the credentials for this place.
    pub fn config_secret(&self) -> String {
        beside::config_secret(self.name(), self.beside.as_ref())
    }

    /// Name of the Secret with the certificate for this place.
    pub fn certificate_secret(&self) -> String {
        beside::certificate_secret(self.name(), self.beside.as_ref())
    }

    /// Whether `meta` is controlled by this tenant's uid.
    pub fn ownership(&self, meta: &ObjectMeta) -> Ownership {
        if objects::is_controlled_by(meta, self.uid()) {
            Ownership::Ours
        } else {
            Ownership::Foreign
        }
    }

    /// Whether `meta` is controlled by this tenant's uid.
    pub fn ours(&self, meta: &ObjectMeta) -> bool {
        self.ownership(meta) == Ownership::Ours
    }

    /// The pause annotation stops everything, deletion included (features 2.13).
    pub fn is_paused(&self) -> bool {
        objects::is_paused(&self.tenant.metadata)
    }

    /// Zero replicas, as asked.
    pub fn is_asleep(&self) -> bool {
        objects::is_asleep(&self.tenant)
    }

    /// Somebody deletes the tenant.
    pub fn is_leaving(&self) -> bool {
        self.tenant.metadata.deletion_timestamp.is_some()
    }

    /// Whether nothing is done for the tenant, nor anything said of its parts, because they
    /// cannot be seen, or because not all of its spec is held. Its deletion needs nothing but
    /// its place in the datastore.
    pub fn is_left_alone(&self) -> bool {
        (self.unreached.is_some() || self.tenant.spec.is_cut) && !self.is_leaving()
    }

    /// Whether our finalizer is on the tenant.
    pub fn has_finalizer(&self) -> bool {
        let mut finalizers = self.tenant.metadata.finalizers.iter().flatten();
        finalizers.any(|finalizer| finalizer == apiservice::names::FINALIZER)
    }

    /// Pods that pass their readiness probe.
    pub fn serving(&self) -> usize {
        self.pods.iter().filter(|pod| is_ready(pod)).count()
    }

    /// A Secret under one of our names, if it is there and ours.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.owned
            .get::<Secret>(name)
            .map(AsRef::as_ref)
            .filter(|found| self.ours(&found.metadata))
    }

    /// What has the name of the tenant's Service, ours or not.
    pub fn service(&self) -> Option<&Service> {
        self.owned.get(self.name()).map(AsRef::as_ref)
    }

    /// What has the name of the tenant's Deployment, ours or not.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.owned
            .get(&apiservice::names::workload(self.name()))
            .map(AsRef::as_ref)
    }

    /// The tenant has served before, so that losing its keys would cut off
    /// whoever trusts them (rule 19).
    pub fn was_ready(&self) -> bool {
        ran::was_ready(&self.tenant, &self.owned)
    }
}
