//! The tunnel to nodes that the API server cannot reach: what comes with its field and
//! what goes with it.

use apiservice::names;
use apiservice::pki;
use apiservice::v1alpha1::{Konnectivity, KonnectivityAgentMode, KonnectivityStatus, ServiceType};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::tenant::objects;
use crate::tenant::pki::kubeconfig;
use crate::tenant::plan::{Object, Outcome, Plan, Step};
use crate::tenant::testing::{Lab, brief, golden};
use crate::tenant::world::Addons;

const CERTIFICATE: &str = "tenant-1-konnectivity-certificate";
const KUBECONFIG: &str = "tenant-1-konnectivity-kubeconfig";

fn wish(lab: &mut Lab, tunnel: Option<Konnectivity>) {
    lab.spec().addons.get_or_insert_default().konnectivity = tunnel;
}

/// Ready, with the tunnel's pods running.
fn with_tunnel() -> Lab {
    let mut lab = Lab::ready();
    wish(&mut lab, Some(Konnectivity::default()));
    lab.pass();
    lab.run_pods();
    lab.later(5);
    lab.pass();
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    lab
}

fn status(lab: &Lab) -> Option<KonnectivityStatus> {
    let status = lab.world.tenant.status.clone();
    status.unwrap().addons.and_then(|all| all.konnectivity)
}

fn deletes(plan: &Plan) -> usize {
    let steps = plan.steps.iter();
    steps
        .filter(|step| matches!(step, Step::Delete { .. }))
        .count()
}

fn certificate(lab: &Lab) -> String {
    objects::text(lab.world.secret(CERTIFICATE).unwrap(), "tls.crt").unwrap()
}

/// The one in the kubeconfig, which the server shows.
fn shown(lab: &Lab) -> String {
    let secret = lab.world.secret(KUBECONFIG).unwrap();
    let text = objects::text(secret, "konnectivity-server.conf").unwrap();
    kubeconfig::embedded(&text).unwrap().cert
}

#[test]
fn it_comes_in_one_roll() {
    let mut lab = Lab::ready();
    wish(&mut lab, Some(Konnectivity::default()));
    let plan = lab.pass();
    assert!(plan.rolls && plan.roll.is_none(), "its spec asks for it");
    golden("konnectivity", &plan.to_string());
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));

    let info = pki::inspect(&certificate(&lab)).unwrap();
    assert_eq!(info.subject.common_name, names::KONNECTIVITY_SERVER);
    assert_eq!(info.subject.organizations, [""; 0], "nobody's master");
    assert_eq!(shown(&lab), certificate(&lab));
    let secret = lab.world.secret(CERTIFICATE).unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));

    lab.pass();
    let before = status(&lab).unwrap();
    assert!(!before.enabled && before.agent.is_none());
    assert!(before.certificate.unwrap().expires.is_some());
    assert!(before.config_map.unwrap().checksum.is_some());
    assert_eq!(before.service.unwrap().port, 8132);
    let there = |mode| {
        Some(Addons {
            konnectivity: Some(mode),
            ..Addons::default()
        })
    };
    lab.world.inside.addons = there(KonnectivityAgentMode::DaemonSet);
    lab.pass();
    let first = status(&lab).unwrap();
    assert!(first.enabled);
    let agent = first.agent.clone().unwrap();
    assert_eq!(agent.name.as_deref(), Some("konnectivity-agent"));
    assert_eq!(agent.mode.as_deref(), Some("DaemonSet"));
    lab.later(60);
    lab.pass();
    assert_eq!(status(&lab).unwrap(), first, "no write without a change");
    lab.world.inside.addons = there(KonnectivityAgentMode::Deployment);
    lab.pass();
    let moved = status(&lab).unwrap();
    assert_eq!(moved.agent.unwrap().mode.as_deref(), Some("Deployment"));
    assert_eq!(moved.sa, first.sa);
}

#[test]
fn its_objects_go_when_no_pod_has_them() {
    let mut lab = with_tunnel();
    wish(&mut lab, None);
    let plan = lab.pass();
    assert!(plan.rolls && deletes(&plan) == 0, "{}", brief(&plan));
    // Pods of before are still there.
    let status = lab.deployment_mut().status.as_mut().unwrap();
    (status.replicas, status.updated_replicas) = (Some(2), Some(1));
    assert_eq!(deletes(&lab.pass()), 0);
    lab.run_pods();
    let plan = lab.pass();
    assert_eq!(deletes(&plan), 3, "{}", brief(&plan));
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    let ports = lab.world.service().unwrap().spec.clone().unwrap().ports;
    assert_eq!(ports.unwrap().len(), 1);
}

/// What others have under these names is theirs, and no news where there is no tunnel.
#[test]
fn objects_of_others_stay() {
    let mut lab = with_tunnel();
    lab.secret_mut(CERTIFICATE).metadata.owner_references = None;
    wish(&mut lab, None);
    lab.pass();
    lab.run_pods();
    assert_eq!(deletes(&lab.pass()), 2);
    assert!(lab.world.owned.get::<Secret>(CERTIFICATE).is_some());
    assert!(lab.condition("ObjectsOwned").starts_with("True"));
}

#[test]
fn both_copies_of_the_certificate_are_made_anew_together() {
    let mut lab = with_tunnel();
    for asked in [CERTIFICATE, KUBECONFIG] {
        let before = certificate(&lab);
        let meta = &mut lab.secret_mut(asked).metadata;
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
        let plan = lab.pass();
        assert!(plan.rolls, "one of this tenant alone: {}", brief(&plan));
        assert_ne!(certificate(&lab), before, "{asked}");
        assert_eq!(shown(&lab), certificate(&lab), "{asked}");
        assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
        lab.run_pods();
    }
    // Changed by hand.
    let data = lab.secret_mut(KUBECONFIG).data.as_mut().unwrap();
    data.insert(
        "konnectivity-server.conf".to_owned(),
        ByteString(Vec::new()),
    );
    lab.pass();
    assert_eq!(shown(&lab), certificate(&lab));
    // With everything else that pods mount.
    let sum =
        |lab: &Lab, name: &str| objects::checksum(&objects::data(lab.world.secret(name).unwrap()));
    let other = "tenant-1-scheduler-kubeconfig";
    let before = (certificate(&lab), sum(&lab, other));
    lab.later(340 * 24 * 3600);
    lab.pass();
    assert_ne!(certificate(&lab), before.0);
    assert_ne!(sum(&lab, other), before.1);
    assert_eq!(shown(&lab), certificate(&lab));
}

#[test]
fn a_node_port_is_the_port() {
    let mut lab = Lab::ready();
    let spec = lab.spec();
    spec.control_plane.service.service_type = ServiceType::NodePort;
    let mut tunnel = Konnectivity::default();
    tunnel.server.port = 30132;
    wish(&mut lab, Some(tunnel));
    lab.pass();
    let ports = lab.world.service().unwrap().spec.clone().unwrap().ports;
    let ports = ports.unwrap();
    let port = ports
        .iter()
        .find(|it| it.name.as_deref() == Some("konnectivity-server"));
    assert_eq!(port.unwrap().node_port, Some(30132));

    // Of two ports that one is told which the cluster refuses.
    wish(&mut lab, Some(Konnectivity::default()));
    let plan = lab.plan();
    let refuses = |step: &Step| match step {
        Step::Apply(object) if matches!(**object, Object::Service(_)) => Outcome::Failed {
            reason: "ApplyFailed".to_owned(),
            message: "spec.ports[1].nodePort: Invalid value: 8132: provided port is not in the \
                      valid range"
                .to_owned(),
            retry: true,
            finding: None,
        },
        _ => Outcome::NotReached,
    };
    let outcomes: Vec<_> = plan.steps.iter().map(refuses).collect();
    lab.report(&plan, &outcomes);
    let told = "With serviceType NodePort, spec.addons.konnectivity.server.port (8132) must be";
    assert!(lab.told().contains(told), "{}", lab.told());
}
