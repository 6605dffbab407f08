//! The part of the status that lists objects: names, checksums, states
//! (features 1.3).

use apiservice::names::{self, component};
use apiservice::v1alpha1::{
    AddonStatus, AddonsStatus, CertificatesStatus, ConfigMapStatus, DeploymentResourceStatus,
    KonnectivityAgentMode, KonnectivityAgentStatus, KonnectivityStatus, KubeadmConfigStatus,
    KubeconfigsStatus, KubernetesResourcesStatus, ObjectStatus, SecretStatus,
    ServiceResourceStatus, StorageOverrideStatus, StorageSetupStatus, StorageStatus,
    TenantControlPlaneStatus,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::kinds::ObjectKind;
use crate::report::{judgement, routes};
use crate::tenant::backing::beside::Override;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::AccessFact;
use crate::tenant::backing::limits;
use crate::tenant::backing::overrides;
use crate::tenant::network::service;
use crate::tenant::pki::expiry;
use crate::tenant::plan::{Object, Outcome, Plan, Step};
use crate::tenant::{World, objects};

/// Writes storage, certificates, kubeconfigs and the kubeadm configuration.
pub fn fill(
    world: &World,
    plan: &Plan,
    outcomes: &[Outcome],
    status: &mut TenantControlPlaneStatus,
) {
    let written = Written {
        world,
        plan,
        outcomes,
    };
    let name = world.name();

    let old = status.certificates.take().unwrap_or_default();
    status.certificates = some(CertificatesStatus {
        ca: written.secret(&names::ca(name), old.ca),
        client_ca: written.secret(&names::client_ca(name), old.client_ca),
        api_server: written.secret(&names::api_server(name), old.api_server),
        api_server_kubelet_client: written.secret(
            &names::api_server_kubelet_client(name),
            old.api_server_kubelet_client,
        ),
        front_proxy_ca: written.secret(&names::front_proxy_ca(name), old.front_proxy_ca),
        front_proxy_client: written
            .secret(&names::front_proxy_client(name), old.front_proxy_client),
        sa: written.secret(&names::service_account(name), old.sa),
        etcd: old.etcd,
    });

    let old = status.kubeconfig.take().unwrap_or_default();
    status.kubeconfig = some(KubeconfigsStatus {
        admin: written.secret(&names::admin_kubeconfig(name), old.admin),
        controller_manager: written.secret(
            &names::controller_manager_kubeconfig(name),
            old.controller_manager,
        ),
        scheduler: written.secret(&names::scheduler_kubeconfig(name), old.scheduler),
    });

    let old = status.storage.take().unwrap_or_default();
    status.storage = some(storage(&written, old));
    let old = status.addons.take().unwrap_or_default();
    let tunnel = konnectivity(&written, old.konnectivity.clone());
    status.addons = some(AddonsStatus {
        konnectivity: tunnel,
        ..old
    });
    if let Some(there) = world.inside.addons {
        let old = status.addons.take().unwrap_or_default();
        let addon = |is_there: bool, old: Option<AddonStatus>| {
            let same = old.as_ref().is_some_and(|old| old.enabled == is_there);
            match same || !is_there && old.is_none() {
                true => old,
                false => Some(AddonStatus {
                    enabled: is_there,
                    last_update: Some(judgement::now(world)),
                }),
            }
        };
        status.addons = some(AddonsStatus {
            core_dns: addon(there.core_dns, old.core_dns.clone()),
            kube_proxy: addon(there.kube_proxy, old.kube_proxy.clone()),
            ..old
        });
    }
    status.kubeadmconfig =
        written.config_map(&names::kubeadm_config(name), status.kubeadmconfig.take());
}

/// The tunnel's objects on both sides. Once it was installed, it is told that it is not.
fn konnectivity(
    written: &Written<'_>,
    old: Option<KonnectivityStatus>,
) -> Option<KonnectivityStatus> {
    let world = written.world;
    let name = world.name();
    if world.tenant.spec.konnectivity().is_none() {
        let none = KonnectivityStatus::default();
        let said = old.filter(|old| old.enabled || *old == none);
        return said.map(|_| none);
    }
    let old = old.unwrap_or_default();
    let mut new = KonnectivityStatus {
        config_map: written.values(&names::konnectivity_egress_selector_configuration(name)),
        certificate: written.secret(
            &names::konnectivity_certificate(name),
            old.certificate.clone(),
        ),
        kubeconfig: written.secret(
            &names::konnectivity_kubeconfig(name),
            old.kubeconfig.clone(),
        ),
        service: tunnel_port(world),
        gateway: routes::tunnel_status(world),
        ..old.clone()
    };
    let Some(there) = world.inside.addons else {
        return Some(new);
    };
    new.enabled = there.konnectivity.is_some();
    let object = |namespace: Option<&str>, object: &str, old: Option<ObjectStatus>| {
        let same = old.filter(|old| old.name.as_deref() == Some(object));
        same.unwrap_or_else(|| ObjectStatus {
            name: Some(object.to_owned()),
            namespace: namespace.map(str::to_owned),
            last_update: Some(judgement::now(world)),
        })
    };
    let system = Some("kube-system");
    let agent = names::KONNECTIVITY_AGENT;
    new.sa = there.konnectivity.map(|_| object(system, agent, old.sa));
    new.clusterrolebinding = there
        .konnectivity
        .map(|_| object(None, names::KONNECTIVITY_SERVER, old.clusterrolebinding));
    new.agent = there.konnectivity.map(|mode| {
        let mode = match mode {
            KonnectivityAgentMode::Deployment => "Deployment",
            _ => "DaemonSet",
        };
        let same = old.agent.filter(|old| old.mode.as_deref() == Some(mode));
        same.unwrap_or_else(|| KonnectivityAgentStatus {
            name: Some(agent.to_owned()),
            namespace: system.map(str::to_owned),
            last_update: Some(judgement::now(world)),
            mode: Some(mode.to_owned()),
        })
    });
    Some(new)
}

/// The Service, if it leads to the tunnel's servers.
fn tunnel_port(world: &World) -> Option<ServiceResourceStatus> {
    let live = world.service().filter(|live| world.ours(&live.metadata))?;
    let mut ports = live.spec.iter().flat_map(|it| it.ports.iter().flatten());
    let port = ports.find(|it| it.name.as_deref() == Some(names::PORT_KONNECTIVITY))?;
    Some(ServiceResourceStatus {
        service: live.status.clone().unwrap_or_default(),
        name: names::workload(world.name()),
        namespace: world.namespace().to_owned(),
        port: port.port,
    })
}

/// `Some`, unless there is nothing in it.
fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn storage(written: &Written<'_>, old: StorageStatus) -> StorageStatus {
    let world = written.world;
    let chosen = claim::data_store(world);
    let driver = world
        .data_store
        .as_deref()
        .map(|it| it.spec.driver.as_str().to_owned());
    let config = written.secret(&names::datastore_config(world.name()), old.config);
    let checksum = config.as_ref().and_then(|config| config.checksum.clone());
    StorageStatus {
        driver: driver.or(old.driver),
        assignment: match &world.assignment {
            Some(Ok(assigned)) => Some(assigned.message.clone()),
            Some(Err(_)) => None,
            None => old
                .assignment
                .filter(|_| world.tenant.spec.data_store.is_none()),
        },
        data_store_name: chosen.or(old.data_store_name),
        setup: if written.granted() {
            Some(setup(world, checksum, old.setup))
        } else {
            old.setup
        },
        config,
        certificate: written.secret(&names::datastore_certificate(world.name()), old.certificate),
        usage: limits::told(
            &world.size,
            limits::of(world.data_store.as_deref()),
            &world.tenant,
            &judgement::now(world),
        ),
        overrides: overrides(written, &old.overrides),
    }
}

/// The places beside the main one: those that are wanted, and those of before until their
/// clean-up is recorded.
fn overrides(written: &Written<'_>, old: &[StorageOverrideStatus]) -> Vec<StorageOverrideStatus> {
    let of = |it: &Override| {
        let world = overrides::at(written.world, it);
        let written = Written {
            world: &world,
            ..*written
        };
        let name = &it.beside.data_store;
        let old = old.iter().find(|old| old.data_store_name == *name).cloned();
        if !it.wanted {
            return old.filter(|_| !it.deferred && !written.defers());
        }
        let old = old.unwrap_or_default();
        let driver = world.data_store.as_deref();
        let driver = driver.map(|it| it.spec.driver.as_str().to_owned());
        let config = written.secret(&world.config_secret(), old.config);
        let checksum = config.as_ref().and_then(|config| config.checksum.clone());
        Some(StorageOverrideStatus {
            data_store_name: name.clone(),
            driver: driver.or(old.driver),
            resources: it.beside.resources.clone(),
            setup: match written.granted() {
                true => Some(setup(&world, checksum, old.setup)),
                false => old.setup,
            },
            config,
            certificate: written.secret(&world.certificate_secret(), old.certificate),
        })
    };
    written.world.overrides.iter().filter_map(of).collect()
}

fn setup(
    world: &World,
    checksum: Option<String>,
    old: Option<StorageSetupStatus>,
) -> StorageSetupStatus {
    let claim = claim::claim(world);
    let old = old.unwrap_or_default();
    let mut new = StorageSetupStatus {
        schema: Some(claim.schema),
        user: Some(claim.user),
        checksum: checksum.or(old.checksum.clone()),
        last_update: old.last_update.clone(),
    };
    if new != old || old.last_update.is_none() {
        new.last_update = Some(judgement::now(world));
    }
    new
}

/// What is there after the pass: what it wrote, else what it found.
struct Written<'a> {
    world: &'a World,
    plan: &'a Plan,
    outcomes: &'a [Outcome],
}

impl Written<'_> {
    fn done(&self) -> impl Iterator<Item = &Step> {
        self.plan
            .steps
            .iter()
            .zip(self.outcomes)
            .filter_map(|(step, outcome)| {
                matches!(outcome, Outcome::Done | Outcome::Unchanged).then_some(step)
            })
    }

    fn object(&self, kind: ObjectKind, name: &str) -> Option<&Object> {
        self.done().find_map(|step| match step {
            Step::Create(object) | Step::Apply(object) => Some(object.as_ref())
                .filter(|it| it.kind() == kind && it.meta().name.as_deref() == Some(name)),
            _ => None,
        })
    }

    fn granted(&self) -> bool {
        let confirmed = claim::held(self.world).is_some();
        confirmed && self.world.store.access == Some(AccessFact::Granted)
            || self.done().any(|step| {
                matches!(step, Step::Grant(grant) if grant.claim.uid == self.world.claimant())
            })
    }

    /// Whether the clean-up of this place is recorded now.
    fn defers(&self) -> bool {
        let claimant = self.world.claimant();
        self.done()
            .any(|step| matches!(step, Step::DeferDeletion { claim, .. } if claim.uid == claimant))
    }

    /// Name, checksum and time of the last change of a Secret's content, and when the
    /// first ends of that and of what pods run with in its place.
    fn secret(&self, name: &str, old: Option<SecretStatus>) -> Option<SecretStatus> {
        let secret = match self.object(ObjectKind::Secret, name) {
            Some(Object::Secret(secret)) => Some(secret),
            _ => self.world.secret(name),
        };
        let Some(secret) = secret else { return old };
        let checksum = objects::checksum(&objects::data(secret));
        let old = old.unwrap_or_default();
        let same = old.checksum.as_deref() == Some(checksum.as_str()) && old.last_update.is_some();
        // What pods mount may end before what the Secret holds by now.
        let mounted = expiry::mounted(self.world.name()).any(|(_, mounted)| mounted == name);
        if same && old.expires.is_some() && !mounted {
            return Some(SecretStatus {
                secret_name: Some(name.to_owned()),
                ..old
            });
        }
        Some(SecretStatus {
            secret_name: Some(name.to_owned()),
            checksum: Some(checksum),
            last_update: if same {
                old.last_update
            } else {
                Some(judgement::now(self.world))
            },
            expires: expiry::ends_in_use(self.world, name, secret).map(Time),
        })
    }

    /// Checksum of a ConfigMap's content.
    fn config_map_checksum(&self, name: &str) -> Option<String> {
        let live = self.world.owned.get::<ConfigMap>(name);
        let live = live
            .filter(|live| self.world.ours(&live.metadata))
            .map(AsRef::as_ref);
        let found = match self.object(ObjectKind::ConfigMap, name) {
            Some(Object::ConfigMap(object)) => Some(object),
            _ => live,
        };
        Some(objects::checksum(found?.data.as_ref()?))
    }

    /// Name and checksum of a ConfigMap.
    fn values(&self, name: &str) -> Option<ConfigMapStatus> {
        Some(ConfigMapStatus {
            checksum: Some(self.config_map_checksum(name)?),
            name: Some(name.to_owned()),
        })
    }

    fn config_map(
        &self,
        name: &str,
        old: Option<KubeadmConfigStatus>,
    ) -> Option<KubeadmConfigStatus> {
        let Some(checksum) = self.config_map_checksum(name) else {
            return old;
        };
        let old = old.unwrap_or_default();
        let same = old.checksum.as_deref() == Some(checksum.as_str()) && old.last_update.is_some();
        Some(KubeadmConfigStatus {
            configmap_name: Some(name.to_owned()),
            checksum: Some(checksum),
            last_update: if same {
                old.last_update
            } else {
                Some(judgement::now(self.world))
            },
        })
    }
}

/// Deployment and Service as they stand, and what was said of the rest.
pub fn resources(world: &World, before: &TenantControlPlaneStatus) -> KubernetesResourcesStatus {
    let old = before.kubernetes_resources.clone().unwrap_or_default();
    let live = world.deployment().filter(|live| world.ours(&live.metadata));
    let deployment = live.map(|live| {
        let was = old.deployment.clone().unwrap_or_default();
        let mut new = DeploymentResourceStatus {
            deployment: live.status.clone().unwrap_or_default(),
            selector: selector(world),
            name: names::workload(world.name()),
            namespace: world.namespace().to_owned(),
            last_update: was.last_update.clone(),
        };
        if new != was || was.last_update.is_none() {
            new.last_update = Some(judgement::now(world));
        }
        new
    });
    let live = world.service().filter(|live| world.ours(&live.metadata));
    let service = live.map(|live| ServiceResourceStatus {
        service: live.status.clone().unwrap_or_default(),
        name: names::workload(world.name()),
        namespace: world.namespace().to_owned(),
        port: world.tenant.spec.network_profile.port,
    });
    KubernetesResourcesStatus {
        deployment,
        service: service.or(old.service),
        ingress: routes::ingress_status(world),
        gateway: routes::gateway_status(world),
        ..old
    }
}

/// The certificates of a tenant by the part that they are, and when each ends.
pub fn certificate_ends(
    status: &TenantControlPlaneStatus,
) -> impl Iterator<Item = (&'static str, Timestamp)> {
    let of = |part, secret: &Option<SecretStatus>| {
        let ends = secret.as_ref()?.expires.as_ref()?;
        Some((part, ends.0))
    };
    let certificates = status.certificates.as_ref().map(|all| {
        [
            of(component::CA, &all.ca),
            of(component::CLIENT_CA, &all.client_ca),
            of(component::FRONT_PROXY_CA, &all.front_proxy_ca),
            of(component::API_SERVER, &all.api_server),
            of(
                component::API_SERVER_KUBELET_CLIENT,
                &all.api_server_kubelet_client,
            ),
            of(component::FRONT_PROXY_CLIENT, &all.front_proxy_client),
        ]
    });
    let kubeconfigs = status.kubeconfig.as_ref().map(|all| {
        [
            of(component::ADMIN_KUBECONFIG, &all.admin),
            of(
                component::CONTROLLER_MANAGER_KUBECONFIG,
                &all.controller_manager,
            ),
            of(component::SCHEDULER_KUBECONFIG, &all.scheduler),
        ]
    });
    let tunnel = status.addons.as_ref();
    let tunnel = tunnel.and_then(|addons| addons.konnectivity.as_ref());
    let tunnel = tunnel.map(|all| {
        [
            of(component::KONNECTIVITY_CERTIFICATE, &all.certificate),
            of(component::KONNECTIVITY_KUBECONFIG, &all.kubeconfig),
        ]
    });
    let storage = status.storage.as_ref();
    let storage = storage.map(|storage| of(component::DATASTORE_CERTIFICATE, &storage.certificate));
    let all = certificates.into_iter().flatten();
    all.chain(kubeconfigs.into_iter().flatten())
        .chain(tunnel.into_iter().flatten())
        .chain(storage)
        .flatten()
}

/// The label selector of the pods in its string form, which scaling reads.
fn selector(world: &World) -> String {
    let pairs = service::selector(world);
    pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
