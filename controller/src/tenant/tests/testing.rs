//! A world for tests: it carries plans out as a management cluster, a database
//! and a tenant would, in memory and without delay.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use apiservice::pki::{self, Entropy, Pair, Validity};
use apiservice::v1alpha1::{
    DataStore, DataStoreSpec, Driver, ServiceType, TenantControlPlane, TenantControlPlaneSpec,
    TlsConfig,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodCondition, PodStatus, Secret,
    Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::cluster::cache::Cached;
use crate::cluster::caches::Caches;
use crate::cluster::kept;
use crate::cluster::kinds::{Inventory, ObjectKind, Owned};
use crate::cluster::name::NamespacedName;
use crate::report;
use crate::tenant::backing::beside::{self, Beside, Override};
use crate::tenant::backing::facts::{
    AccessFact, CredentialsFact, Held, StoreCredentials, StoreFacts, StoreHealth,
};
use crate::tenant::backing::overrides;
use crate::tenant::plan::{Object, Outcome, Plan, Step};
use crate::tenant::turns::{Roll, Turn};
use crate::tenant::world::{PathFact, ProbeFacts, ProbeFailure, ProbeFailureKind, Settings, World};
use kube::ResourceExt;
use storage::tenancy::{Claim, Stage};

pub const UID: &str = "3d0c0a5e-0000-4000-8000-000000000001";

/// A claim of a tenant that serves.
pub fn claim() -> Claim {
    Claim {
        uid: "1".to_owned(),
        namespace: "n".to_owned(),
        name: "t".to_owned(),
        schema: "s".to_owned(),
        user: "u".to_owned(),
        role: None,
        stage: Stage::Serving,
        prefix: None,
        replicas: None,
    }
}

/// A world and what carries plans out in it.
#[derive(Clone)]
pub struct Lab {
    pub world: World,
    /// The bindings are in the tenant's own storage.
    pub bound: bool,
    /// The answer to a plan that asks for a turn; given at once where it is `Unasked`.
    pub turn: Turn,
    /// Drivers of the DataStores of overrides; those that are not named are of etcd.
    pub drivers: BTreeMap<String, Driver>,
    /// What is known of places beside the main one, by the uid that claims them.
    pub places: BTreeMap<String, StoreFacts>,
    version: u64,
}

/// 2026-01-01T00:00:00Z.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

pub fn authority() -> Pair {
    let end = start()
        .checked_add(SignedDuration::from_hours(24 * 365 * 10))
        .unwrap();
    let validity = Validity {
        not_before: start(),
        not_after: end,
    };
    pki::authority("etcd-ca", validity, &Entropy).unwrap()
}

impl Lab {
    /// A tenant that was just created, in a cluster with a healthy DataStore.
    pub fn new() -> Self {
        let mut spec = TenantControlPlaneSpec::default();
        spec.kubernetes.version = "v1.36.3".to_owned();
        spec.data_store = Some("default".to_owned());
        spec.control_plane.deployment.replicas = 1;
        spec.control_plane.service.service_type = ServiceType::ClusterIP;
        let mut tenant = TenantControlPlane::new("tenant-1", spec);
        tenant.metadata.namespace = Some("tenants".to_owned());
        tenant.metadata.uid = Some(UID.to_owned());
        tenant.metadata.generation = Some(1);
        tenant.metadata.creation_timestamp = Some(Time(start()));

        let endpoints = vec!["etcd-0.etcd.steward-system.svc:2379".to_owned()];
        let spec = DataStoreSpec {
            endpoints: endpoints.clone(),
            ..DataStoreSpec::default()
        };
        let authority = authority();
        let credentials = StoreCredentials {
            endpoints,
            authority: authority.cert,
            authority_key: Some(authority.key),
            client: None,
        };
        let settings = Settings {
            default_data_store: Some("default".to_owned()),
            relay_image: Some("steward-controller:test".to_owned()),
            ..Settings::default()
        };
        Lab {
            version: 1,
            drivers: BTreeMap::new(),
            places: BTreeMap::new(),
            bound: false,
            turn: Turn::Unasked,
            world: World {
                now: start(),
                tenant: Arc::new(tenant),
                settings: Arc::new(settings),
                data_store: Some(Arc::new(DataStore::new("default", spec))),
                data_stores_known: true,
                data_store_unseen: None,
                assignment: None,
                unreached: None,
                store: StoreFacts {
                    password: None,
                    credentials: CredentialsFact::Known(Arc::new(credentials)),
                    health: Some(Ok(StoreHealth::default())),
                    trial: Some(Ok(())),
                    access: None,
                    held: None,
                    cleanup: None,
                    unclaimed: false,
                },
                deferred: false,
                elsewhere: Vec::new(),
                beside: None,
                overrides: Vec::new(),
                migration: None,
                owned: Inventory::default(),
                optional: Default::default(),
                gateways: Vec::new(),
                gateways_known: true,
                pods: Vec::new(),
                replica_sets: Vec::new(),
                pods_known: true,
                deleting_since: None,
                events: Vec::new(),
                probe: ProbeFacts::default(),
                inside: Default::default(),
                size: Default::default(),
                told: None,
                observed_since: None,
                contested: BTreeMap::new(),
                turn: Turn::Unasked,
            },
        }
    }

    /// The same with a database that kine is needed for, with TLS.
    pub fn with(driver: Driver) -> Self {
        let mut lab = Lab::new();
        let store = lab.world.data_store.as_mut().unwrap();
        let spec = &mut Arc::make_mut(store).spec;
        spec.driver = driver;
        spec.endpoints = vec!["db-0.example:5432".to_owned()];
        spec.tls_config = Some(TlsConfig::default());
        let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
            unreachable!("they are known")
        };
        let known = Arc::make_mut(known);
        known.endpoints = spec.endpoints.clone();
        known.authority_key = None;
        lab
    }

    /// The same, Ready and quiet; always the same tenant with the same keys.
    pub fn ready() -> Self {
        static READY: LazyLock<Lab> = LazyLock::new(Lab::bring_up);
        READY.clone()
    }

    fn bring_up() -> Self {
        let mut lab = Lab::new();
        for _ in 0..3 {
            lab.pass();
        }
        lab.bring_ready();
        lab
    }

    /// Its pods run, and its API answers.
    pub fn bring_ready(&mut self) {
        self.run_pods();
        self.later(5);
        self.probe(Ok(()));
        self.pass();
        self.pass();
    }

    /// Time goes by, and the probe goes on to find well what is well.
    pub fn later(&mut self, seconds: i64) {
        self.nothing_for(seconds);
        let probe = &mut self.world.probe;
        for fact in [&mut probe.endpoint, &mut probe.service] {
            if let Some(fact) = fact.as_mut().filter(|fact| fact.result.is_ok()) {
                fact.started = self.world.now;
            }
        }
    }

    /// Time goes by without a probe.
    pub fn nothing_for(&mut self, seconds: i64) {
        self.world.now = self
            .world
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    pub fn tenant(&mut self) -> &mut TenantControlPlane {
        Arc::make_mut(&mut self.world.tenant)
    }

    pub fn spec(&mut self) -> &mut TenantControlPlaneSpec {
        let tenant = Arc::make_mut(&mut self.world.tenant);
        tenant.metadata.generation = tenant.metadata.generation.map(|number| number + 1);
        &mut tenant.spec
    }

    /// As in a pass: once, and again when the plan takes a turn.
    pub fn plan(&self) -> Plan {
        let mut world = self.seen();
        let plan = crate::tenant::plan(&world, &Entropy);
        if plan.roll.is_none() {
            return plan;
        }
        let given = Turn::Given(Roll {
            at: self.world.now,
            before: crate::tenant::turns::Before::Ready,
        });
        world.turn = match &self.turn {
            Turn::Unasked => given,
            other => other.clone(),
        };
        crate::tenant::plan(&world, &Entropy)
    }

    /// The world as the caches hold it: a plan and a report see nothing else.
    pub fn seen(&self) -> World {
        fn kept<K: Cached + Clone>(all: &mut [Arc<K>], caches: &Caches, of: &NamespacedName) {
            for object in all {
                let mut own = K::clone(object);
                let meta = own.meta_mut();
                meta.namespace = Some(of.namespace.clone());
                let labels = meta.labels.get_or_insert_default();
                labels.insert(apiservice::names::LABEL_NAME.into(), of.name.clone());
                *object = caches.kept(own).unwrap();
            }
        }
        let mut world = self.world.clone();
        let (caches, of) = (
            Caches::default(),
            NamespacedName::of(&world.tenant.metadata),
        );
        caches.tenants.put(world.tenant.clone());
        kept(&mut world.pods, &caches, &of);
        kept(&mut world.replica_sets, &caches, &of);
        world.overrides = self.overrides();
        // What belongs inside is kept there, where it can be.
        if world.was_ready() && world.inside.problems.is_empty() {
            world.inside.generation = world.tenant.metadata.generation;
            world.inside.addons.get_or_insert_default();
        }
        world
    }

    /// The places beside the main one, in DataStores that are well.
    fn overrides(&self) -> Vec<Override> {
        static AUTHORITY: LazyLock<Pair> = LazyLock::new(authority);
        let tenant = &self.world.tenant;
        let of = |(beside, wanted): (Beside, bool)| {
            let driver = self.drivers.get(&beside.data_store).copied();
            let driver = driver.unwrap_or(Driver::Etcd);
            let endpoints = vec![format!("{}.example:2379", beside.data_store)];
            let mut spec = DataStoreSpec {
                endpoints: endpoints.clone(),
                tls_config: Some(TlsConfig::default()),
                ..DataStoreSpec::default()
            };
            spec.driver = driver;
            let credentials = StoreCredentials {
                endpoints,
                authority: AUTHORITY.cert.clone(),
                authority_key: (!driver.has_passwords()).then(|| AUTHORITY.key.clone()),
                client: None,
            };
            let known = self.places.get(&beside.claimant(self.world.uid())).cloned();
            let known = known.unwrap_or_default();
            Override {
                data_store: Some(Arc::new(DataStore::new(&beside.data_store, spec))),
                unseen: None,
                store: StoreFacts {
                    credentials: CredentialsFact::Known(Arc::new(credentials)),
                    health: known.health.or(Some(Ok(StoreHealth::default()))),
                    trial: Some(Ok(())),
                    ..known
                },
                deferred: false,
                wanted,
                beside,
            }
        };
        let wanted = beside::wanted(&tenant.spec.data_store_overrides);
        let wanted = wanted.into_iter().map(|it| (it, true));
        let former = overrides::former_of(tenant, &self.world.owned).into_iter();
        wanted.chain(former.map(|it| (it, false))).map(of).collect()
    }

    /// Plans, carries out, reports, keeps the status.
    pub fn pass(&mut self) -> Plan {
        self.tell_nodes();
        let plan = self.plan();
        let seen = self.seen();
        let outcomes: Vec<_> = plan.steps.iter().map(|step| self.carry_out(step)).collect();
        let status = report::status(&seen, &plan, &outcomes);
        self.tenant().status = Some(status);
        plan
    }

    /// As a pass begins.
    pub fn tell_nodes(&mut self) {
        let mut facts = crate::facts::TenantFacts {
            for_nodes: self.world.told.clone(),
            ..Default::default()
        };
        facts.tell_nodes(report::for_nodes(&self.seen()));
        self.world.told = facts.for_nodes;
    }

    /// Reports outcomes other than the lab's.
    pub fn report(&mut self, plan: &Plan, outcomes: &[Outcome]) {
        let status = report::status(&self.seen(), plan, outcomes);
        self.tenant().status = Some(status);
    }

    pub fn carry_out(&mut self, step: &Step) -> Outcome {
        match step {
            Step::AddFinalizer => {
                let finalizers = vec![apiservice::names::FINALIZER.to_owned()];
                self.tenant().metadata.finalizers = Some(finalizers);
            }
            Step::ReleaseFinalizer => self.tenant().metadata.finalizers = None,
            Step::Create(object) | Step::Apply(object) => self.store(object),
            Step::Delete { key, .. } if key.kind != ObjectKind::Deployment => {
                self.world.owned.remove(key.kind, &key.name);
            }
            Step::Delete { .. } => {
                self.lose_deployment();
                self.world.pods.clear();
            }
            Step::DeleteBestEffort { key, .. } | Step::DeleteFormer { key, .. } => {
                self.world.owned.remove(key.kind, &key.name);
            }
            Step::ClearReplaceRequest(_) => {
                let annotations = self.tenant().metadata.annotations.get_or_insert_default();
                annotations.remove(apiservice::names::ANNOTATION_REPLACE_LOST_KEYS);
            }
            Step::Grant(grant) if grant.claim.uid != self.world.uid() => {
                let (uid, places) = (self.world.uid().to_owned(), self.overrides());
                let mut places = places.iter().map(|it| &it.beside);
                let place = places
                    .find(|it| it.claimant(&uid) == grant.claim.uid)
                    .unwrap();
                let facts = StoreFacts {
                    access: Some(AccessFact::Granted),
                    password: grant.password.clone(),
                    held: Some(Held {
                        data_store: place.data_store.clone(),
                        claim: grant.claim.clone(),
                    }),
                    ..StoreFacts::default()
                };
                self.places.insert(grant.claim.uid.clone(), facts);
            }
            Step::Grant(grant) => {
                self.world.store.access = Some(AccessFact::Granted);
                self.world.store.password = grant.password.clone();
                self.world.store.held = Some(Held {
                    data_store: "default".to_owned(),
                    claim: grant.claim.clone(),
                });
            }
            Step::NoteEmpty(claim) => {
                let uid = self.world.uid().to_owned();
                let status = self.tenant().status.get_or_insert_default();
                crate::tenant::backing::store::note_empty(status, &uid, claim);
            }
            // The DataStore sees to it at once.
            Step::DeferDeletion { claim, .. } if claim.uid != self.world.uid() => {
                self.places.remove(&claim.uid);
            }
            Step::RevokeAccess(claim) | Step::DropData(claim) | Step::ReleaseClaim(claim)
                if claim.uid != self.world.uid() =>
            {
                self.places.remove(&claim.uid);
            }
            Step::RevokeAccess(_) | Step::DropData(_) | Step::ReleaseClaim(_) => {
                self.world.store.access = None;
            }
            Step::DeferDeletion { .. } => self.world.deferred = true,
            Step::Recheck(_) | Step::Wait(_) | Step::Event(_) => return Outcome::Unchanged,
        }
        Outcome::Done
    }

    fn store(&mut self, object: &Object) {
        self.version += 1;
        let mut object = object.clone();
        let name = object.meta().name.clone().unwrap();
        object.meta_mut().resource_version = Some(self.version.to_string());
        object.meta_mut().uid = Some(format!(
            "uid-of-{}-{name}",
            object.kind().name().to_lowercase()
        ));
        object.meta_mut().creation_timestamp = Some(Time(self.world.now));
        match &mut object {
            Object::Service(object) => {
                let spec = object.spec.as_mut().unwrap();
                spec.cluster_ip = Some("10.0.0.10".to_owned());
                object.status = self.world.service().and_then(|old| old.status.clone());
            }
            Object::Deployment(object) => {
                let old = self.world.deployment();
                let number = old.and_then(|old| old.metadata.generation).unwrap_or(0);
                object.metadata.generation = Some(number + 1);
                object.status = old.and_then(|old| old.status.clone());
            }
            _ => {}
        }
        self.world.owned.insert(object);
    }

    /// What is kept inside is written if it can be; whether it is there.
    pub fn bind(&mut self) -> bool {
        self.bound |= !self.world.tenant.was_ready();
        self.bound
    }

    pub fn deployment_mut(&mut self) -> &mut Deployment {
        let name = self.world.name().to_owned();
        self.world.owned.get_mut(&name).unwrap()
    }

    /// From now on the Deployment is as its cache holds it.
    pub fn hold_deployment(&mut self) {
        let mut annotations = self.deployment_mut().metadata.annotations.iter().flatten();
        if annotations.any(|(name, _)| name == kept::HELD_WITHOUT) {
            // Nothing was written since.
            return;
        }
        let caches = Caches::default();
        caches.tenants.put(self.world.tenant.clone());
        let held = caches.kept(self.deployment_mut().clone()).unwrap();
        *self.deployment_mut() = Deployment::clone(&held);
    }

    pub fn service_mut(&mut self) -> &mut Service {
        let name = self.world.name().to_owned();
        self.world.owned.get_mut(&name).unwrap()
    }

    pub fn secret_mut(&mut self, name: &str) -> &mut Secret {
        self.world.owned.get_mut(name).unwrap()
    }

    /// Somebody changes what a Secret remembers of whether the tenant ran.
    pub fn note_of(&mut self, secret: &str, text: &str) {
        let annotations = &mut self.secret_mut(secret).metadata.annotations;
        let annotations = annotations.get_or_insert_default();
        annotations.insert(
            apiservice::names::ANNOTATION_RAN.to_owned(),
            text.to_owned(),
        );
    }

    /// The Role or the RoleBinding of rule 13.
    pub fn signer_mut<K: Owned>(&mut self) -> &mut K {
        let name = apiservice::names::kubeconfig_signer(self.world.name());
        self.world.owned.get_mut(&name).unwrap()
    }

    pub fn secret_names(&self) -> Vec<String> {
        let secrets = self.world.owned.of::<Secret>();
        secrets.map(|secret| secret.name_any()).collect()
    }

    /// Somebody deletes a Secret.
    pub fn lose_secret(&mut self, name: &str) {
        let lost = self.world.owned.remove(ObjectKind::Secret, name);
        assert!(lost.is_some(), "{name} is there");
    }

    /// Somebody deletes the Deployment.
    pub fn lose_deployment(&mut self) {
        self.lose_all(ObjectKind::Deployment);
    }

    /// Somebody deletes all objects of a kind.
    pub fn lose_all(&mut self, kind: ObjectKind) {
        let all = self.world.owned.iter().filter(|held| held.kind() == kind);
        let names: Vec<String> = all.filter_map(|held| held.meta().name.clone()).collect();
        for name in names {
            self.world.owned.remove(kind, &name);
        }
    }

    /// All pods of the Deployment as it is now run and are ready.
    pub fn run_pods(&mut self) {
        let deployment = self.deployment_mut();
        let replicas = deployment.spec.as_ref().unwrap().replicas.unwrap();
        deployment.status = Some(DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: Some(replicas),
            updated_replicas: Some(replicas),
            ready_replicas: Some(replicas),
            available_replicas: Some(replicas),
            ..DeploymentStatus::default()
        });
        let template = deployment.spec.as_ref().unwrap().template.spec.clone();
        let running = |number| {
            let mut pod = pod(number, true);
            pod.spec = template.clone();
            pod.metadata.owner_references = Some(vec![owner("ReplicaSet", SET)]);
            Arc::new(pod)
        };
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        self.world.pods = (0..replicas).map(running).collect();
        // It is that of the pods, and makes no more of them.
        let set = ReplicaSet {
            metadata: ObjectMeta {
                uid: Some(SET.to_owned()),
                owner_references: Some(vec![owner("Deployment", &uid)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                ..ReplicaSetSpec::default()
            }),
            ..ReplicaSet::default()
        };
        let sets = &mut self.world.replica_sets;
        sets.retain(|it| it.metadata.uid.as_deref() != Some(SET));
        sets.push(Arc::new(set));
    }

    pub fn probe(&mut self, result: Result<(), (ProbeFailureKind, &str)>) {
        let fact = PathFact {
            started: self.world.now,
            address: "10.0.0.10:6443".to_owned(),
            result: result.map_err(|(kind, message)| ProbeFailure {
                kind,
                message: message.to_owned(),
            }),
        };
        self.world.probe.service = Some(fact.clone());
        self.world.probe.endpoint = Some(fact);
    }

    pub fn condition(&self, kind: &str) -> String {
        let status = self.world.tenant.status.as_ref().unwrap();
        let found = apiservice::condition::get(&status.conditions, kind).unwrap();
        format!("{} {}", found.status, found.reason)
    }

    /// Conditions and the rest that people look at first.
    pub fn told(&self) -> String {
        let Some(status) = &self.world.tenant.status else {
            return String::new();
        };
        let mut text = String::new();
        for it in &status.conditions {
            text.push_str(&format!(
                "  {} {} {}: {}\n",
                it.type_, it.status, it.reason, it.message
            ));
        }
        let version = status
            .kubernetes_resources
            .as_ref()
            .and_then(|it| it.version.clone());
        let version = version.unwrap_or_default();
        let (phase, version) = (
            version.status.as_str(),
            version.version.unwrap_or("none".into()),
        );
        let endpoint = status.control_plane_endpoint.as_deref().unwrap_or("none");
        text + &format!("  phase {phase}, installed {version}, endpoint {endpoint}\n")
    }
}

/// A pod of the tenant.
pub fn pod(number: i32, ready: bool) -> Pod {
    let state = ContainerState {
        running: Some(ContainerStateRunning::default()),
        ..ContainerState::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("tenant-1-{number}")),
            uid: Some(format!("pod-{number}")),
            ..ObjectMeta::default()
        },
        status: Some(PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "Ready".to_owned(),
                status: if ready { "True" } else { "False" }.to_owned(),
                ..PodCondition::default()
            }]),
            container_statuses: Some(vec![ContainerStatus {
                name: "kube-apiserver".to_owned(),
                image: "registry.k8s.io/kube-apiserver:v1.36.3".to_owned(),
                state: Some(state),
                ..ContainerStatus::default()
            }]),
            ..PodStatus::default()
        }),
        ..Pod::default()
    }
}

/// The uid of the ReplicaSet that has made the pods of a [`Lab`].
const SET: &str = "set";

fn owner(kind: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        kind: kind.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// The first lines of a plan's steps.
pub fn brief(plan: &Plan) -> String {
    plan.to_string()
        .lines()
        .filter(|line| !line.starts_with("    "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What differs from run to run: hashes over random keys.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, word) in text
        .split_inclusive(|c: char| !c.is_ascii_hexdigit())
        .enumerate()
    {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        let hash = digits.len() == 32 && index > 0;
        out.push_str(if hash { "<hash>" } else { digits });
        out.push_str(&word[digits.len()..]);
    }
    out
}

/// Compares with `golden/<name>.txt`; `UPDATE_GOLDEN=1` writes it.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are steered by the environment"
)]
pub fn golden(name: &str, text: &str) {
    let found = masked(text);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, (wanted, found))) = wanted
        .lines()
        .zip(found.lines())
        .enumerate()
        .find(|(_, (wanted, found))| wanted != found)
    {
        panic!(
            "{name}.txt:{}\n  golden: {wanted}\n  found:  {found}\nUPDATE_GOLDEN=1 rewrites it",
            number + 1
        );
    }
    assert_eq!(
        wanted.lines().count(),
        found.lines().count(),
        "{name}.txt has another length"
    );
}
