//! Command lines of the three components (features 2.8).

use apiservice::admission_plugins::admission_plugins;
use apiservice::v1alpha1::{Component, EGRESS_SELECTOR_FLAG};
use apiservice::version::KubernetesVersion;

use crate::tenant::backing::backed::Backing;
use crate::tenant::backing::wiring;
use crate::tenant::network::exposure::Exposure;
use crate::tenant::workload::arguments::{Flags, layers_of};
use crate::tenant::workload::files::{CONTROLLER_MANAGER_CONFIG, PKI, SCHEDULER_CONFIG};
use crate::tenant::workload::konnectivity;
use crate::tenant::world::World;

/// The arguments of one component.
pub fn arguments(
    world: &World,
    component: Component,
    exposure: &Exposure,
    place: &Backing,
) -> Vec<String> {
    let extra = world
        .tenant
        .spec
        .control_plane
        .deployment
        .extra_args
        .as_ref();
    let extra = extra.map_or(&[][..], |extra| extra.of(component));
    let (managed, defaults) = match component {
        Component::ApiServer => api_server(world, exposure, place),
        Component::ControllerManager => controller_manager(world),
        Component::Scheduler => scheduler(),
        // Where there is one, it is planned with what it serves.
        Component::Kine => return Vec::new(),
    };
    layers_of(component, managed, defaults, extra)
}

/// Requested plug-ins that the version does not have.
pub fn dropped_plugins(world: &World) -> Vec<String> {
    let kubernetes = &world.tenant.spec.kubernetes;
    match kubernetes.version.parse::<KubernetesVersion>() {
        Ok(version) => admission_plugins(&version, &kubernetes.admission_controllers).dropped,
        Err(_) => Vec::new(),
    }
}

fn api_server(world: &World, exposure: &Exposure, place: &Backing) -> (Flags, Flags) {
    let spec = &world.tenant.spec;
    let kubelet = spec.kubernetes.kubelet.preferred_address_types.iter();
    let kubelet: Vec<&str> = kubelet.map(|kind| kind.as_str()).collect();
    let plugins = match spec.kubernetes.version.parse::<KubernetesVersion>() {
        Ok(version) => {
            admission_plugins(&version, &spec.kubernetes.admission_controllers).effective
        }
        Err(_) => spec.kubernetes.admission_controllers.clone(),
    };
    let pki = |file: &str| format!("{PKI}/{file}");
    let mut managed = vec![
        ("advertise-address", exposure.advertise.to_string()),
        // The users' authority of rule 13 is trusted beside the cluster's.
        ("client-ca-file", pki("client-ca.crt")),
        ("enable-admission-plugins", plugins.join(",")),
        (
            "kubelet-client-certificate",
            pki("apiserver-kubelet-client.crt"),
        ),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", kubelet.join(",")),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        (
            "requestheader-allowed-names",
            "front-proxy-client".to_owned(),
        ),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("secure-port", exposure.local.port.to_string()),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        (
            "service-cluster-ip-range",
            spec.network_profile.service_ranges().join(","),
        ),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ];
    managed.extend(wiring::of(world, place).flags);
    if spec.konnectivity().is_some() {
        managed.push((EGRESS_SELECTOR_FLAG, konnectivity::selector_file()));
    }
    let issuer = format!(
        "https://kubernetes.default.svc.{}",
        spec.network_profile.cluster_domain
    );
    let defaults = vec![
        ("allow-privileged", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".to_owned(),
        ),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("service-account-issuer", issuer),
        // A pod that goes keeps answering until every node's rules know of it.
        ("shutdown-delay-duration", "3s".to_owned()),
    ];
    (managed, defaults)
}

fn controller_manager(world: &World) -> (Flags, Flags) {
    let spec = &world.tenant.spec;
    let pki = |file: &str| format!("{PKI}/{file}");
    let config = format!("{CONTROLLER_MANAGER_CONFIG}/controller-manager.conf");
    let pods = spec.network_profile.pod_ranges();
    let mut managed = vec![
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config.clone()),
        ("client-ca-file", pki("client-ca.crt")),
        ("cluster-signing-cert-file", pki("ca.crt")),
        ("cluster-signing-key-file", pki("ca.key")),
        ("kubeconfig", config),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("root-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        (
            "service-cluster-ip-range",
            spec.network_profile.service_ranges().join(","),
        ),
    ];
    if !pods.is_empty() {
        managed.push(("cluster-cidr", pods.join(",")));
    }
    let defaults = vec![
        // Without a range there is nothing to divide among nodes, and the
        // controller manager would not start.
        ("allocate-node-cidrs", (!pods.is_empty()).to_string()),
        ("bind-address", "0.0.0.0".to_owned()),
        ("cluster-name", world.name().to_owned()),
        ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
        // Its start asks some two hundred requests of the API server beside it; at its
        // own limit of 20 a second a new tenant's namespaces would have no
        // ServiceAccount, and its nodes no rights, for five seconds longer.
        ("kube-api-burst", "400".to_owned()),
        ("kube-api-qps", "200".to_owned()),
        ("leader-elect", "true".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
    ];
    (managed, defaults)
}

fn scheduler() -> (Flags, Flags) {
    let config = format!("{SCHEDULER_CONFIG}/scheduler.conf");
    let managed = vec![
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config.clone()),
        ("kubeconfig", config),
    ];
    let defaults = vec![
        ("bind-address", "0.0.0.0".to_owned()),
        ("leader-elect", "true".to_owned()),
    ];
    (managed, defaults)
}

#[cfg(test)]
mod tests {
    use apiservice::v1alpha1::{Component, managed_flags};

    use super::{Backing, api_server, controller_manager, scheduler};
    use crate::tenant::backing::beside::Beside;
    use crate::tenant::testing::Lab;
    use crate::tenant::workload::arguments::layers;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    /// What the API warns of at the write is what is left out here.
    #[test]
    fn the_managed_flags_are_the_published_ones() {
        let lab = Lab::ready();
        let exposure = crate::tenant::network::exposure::of(&lab.world).unwrap();
        let beside = Some(Beside {
            resources: vec!["/events".to_owned()],
            ..Beside::in_store("events", 0)
        });
        let beside = Backing {
            beside,
            ..Backing::default()
        };
        let place = Backing {
            overrides: vec![beside],
            ..Backing::default()
        };
        for (component, (managed, _)) in [
            (
                Component::ApiServer,
                api_server(&lab.world, &exposure, &place),
            ),
            (Component::ControllerManager, controller_manager(&lab.world)),
            (Component::Scheduler, scheduler()),
        ] {
            let mut names: Vec<&str> = managed.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            assert_eq!(names, managed_flags(component), "{component:?}");
        }
    }

    /// The controller manager does not start with an empty range to divide.
    #[test]
    fn without_pod_ranges_none_are_given_to_nodes() {
        let mut lab = Lab::ready();
        lab.spec().network_profile.pod_cidr = String::new();
        let (managed, defaults) = controller_manager(&lab.world);
        assert!(!managed.iter().any(|(name, _)| *name == "cluster-cidr"));
        assert!(defaults.contains(&("allocate-node-cidrs", "false".to_owned())));
    }

    #[test]
    fn layers_of_arguments() {
        let managed = vec![
            ("tls-cert-file", "/ours".to_owned()),
            ("secure-port", "6443".to_owned()),
        ];
        let defaults = vec![
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("allow-privileged", "true".to_owned()),
        ];
        let table: [(&str, &[&str], &[&str]); 7] = [
            (
                "however they are spelled",
                &["--tls_cert_file=/theirs", "--secure_port=1"],
                &[
                    "--allow-privileged=true",
                    "--authorization-mode=Node,RBAC",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                ],
            ),
            (
                "a default is replaced in the same spelling",
                &["--authorization_mode=RBAC", "--allow_privileged=false"],
                &[
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                    "--authorization_mode=RBAC",
                    "--allow_privileged=false",
                ],
            ),
            (
                "no arguments of the user",
                &[],
                &[
                    "--allow-privileged=true",
                    "--authorization-mode=Node,RBAC",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                ],
            ),
            (
                "managed flags cannot be replaced, with or without a value",
                &["--tls-cert-file=/theirs", "--secure-port"],
                &[
                    "--allow-privileged=true",
                    "--authorization-mode=Node,RBAC",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                ],
            ),
            (
                "defaults can",
                &["--allow-privileged=false"],
                &[
                    "--authorization-mode=Node,RBAC",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                    "--allow-privileged=false",
                ],
            ),
            (
                "repeated flags stay, in their order",
                &["--v=2", "--oidc-signing-algs=a", "--v=4"],
                &[
                    "--allow-privileged=true",
                    "--authorization-mode=Node,RBAC",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                    "--v=2",
                    "--oidc-signing-algs=a",
                    "--v=4",
                ],
            ),
            (
                "a file of authorizers replaces the mode",
                &["--authorization-config=/etc/authz.yaml"],
                &[
                    "--allow-privileged=true",
                    "--secure-port=6443",
                    "--tls-cert-file=/ours",
                    "--authorization-config=/etc/authz.yaml",
                ],
            ),
        ];
        for (case, extra, expected) in table {
            let found = layers(managed.clone(), defaults.clone(), &owned(extra));
            assert_eq!(found, owned(expected), "{case}");
        }
    }
}
