//! Drift, contest and refusal: what is put right, object by object, and what
//! is told where that is not possible (rule 20).

use apiservice::condition::{reason, tenant as condition};
use apiservice::v1alpha1::{AdditionalPort, ServiceType};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, PodSpec, ServicePort};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cluster::kinds::ObjectKind;
use crate::tenant::plan::{Object, Outcome, Step};
use crate::tenant::testing::{Lab, brief};

fn pod(lab: &mut Lab) -> &mut PodSpec {
    let live = lab.deployment_mut();
    live.spec.as_mut().unwrap().template.spec.as_mut().unwrap()
}

/// Every object of ours: deleted, it comes back (keys excepted, rule 19); edited,
/// it is put right; and nothing else is touched.
#[test]
fn drift_is_repaired_object_by_object() {
    for name in Lab::ready().secret_names() {
        let keys = [
            "-ca",
            "-client-ca",
            "-front-proxy-ca-certificate",
            "-sa-certificate",
        ]
        .iter()
        .any(|suffix| name == format!("tenant-1{suffix}"));
        let mut lab = Lab::ready();
        lab.lose_secret(&name);
        let plan = lab.pass();
        let created = brief(&plan).contains(&format!("create Secret tenants/{name}\n"));
        assert_eq!(created, !keys, "{name}: {}", brief(&plan));

        let mut lab = Lab::ready();
        let secret = lab.secret_mut(&name);
        secret.metadata.labels = None;
        let plan = lab.pass();
        assert_eq!(
            brief(&plan)
                .lines()
                .filter(|line| line.contains("apply"))
                .count(),
            1,
            "{}",
            brief(&plan)
        );
        assert!(
            brief(&plan).contains(&format!("apply Secret tenants/{name}\n")),
            "{name}"
        );
        assert!(lab.plan().is_quiet(), "{name}: {}", brief(&lab.plan()));
    }
    type Damage = fn(&mut Lab);
    let table: [(&str, &str, Damage); 12] = [
        (
            "the host's network",
            "apply Deployment tenants/tenant-1",
            |lab| pod(lab).host_network = Some(true),
        ),
        (
            "a variable of a container",
            "apply Deployment tenants/tenant-1",
            |lab| {
                pod(lab).containers[0].env = Some(vec![EnvVar {
                    name: "GODEBUG".to_owned(),
                    ..EnvVar::default()
                }]);
            },
        ),
        (
            "a whole container",
            "apply Deployment tenants/tenant-1",
            |lab| {
                pod(lab).containers.push(Container {
                    name: "more".to_owned(),
                    ..Container::default()
                });
            },
        ),
        (
            "a port of the Service",
            "apply Service tenants/tenant-1",
            |lab| {
                let service = lab.service_mut();
                let ports = service.spec.as_mut().unwrap().ports.as_mut().unwrap();
                ports.push(ServicePort {
                    name: Some("more".to_owned()),
                    port: 22,
                    ..ServicePort::default()
                });
            },
        ),
        (
            "the selector of the Service",
            "apply Service tenants/tenant-1",
            |lab| {
                let service = lab.service_mut();
                service.spec.as_mut().unwrap().selector = None;
            },
        ),
        (
            "the port of the Service",
            "apply Service tenants/tenant-1",
            |lab| {
                let service = lab.service_mut();
                service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 1;
            },
        ),
        (
            "an argument of a container",
            "apply Deployment tenants/tenant-1",
            |lab| {
                let live = lab.deployment_mut();
                let pod = live.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
                pod.containers[0]
                    .args
                    .as_mut()
                    .unwrap()
                    .push("--insecure".to_owned());
            },
        ),
        ("the replicas", "apply Deployment tenants/tenant-1", |lab| {
            let live = lab.deployment_mut();
            live.spec.as_mut().unwrap().replicas = Some(7);
        }),
        (
            "the Role",
            "apply Role tenants/tenant-1-kubeconfig-signer",
            |lab| {
                let live: &mut Role = lab.signer_mut();
                live.rules.as_mut().unwrap()[0]
                    .verbs
                    .push("list".to_owned());
            },
        ),
        (
            "a foreign subject",
            "apply RoleBinding tenants/tenant-1-kubeconfig-signer",
            |lab| {
                let live: &mut RoleBinding = lab.signer_mut();
                let mut more = live.subjects.as_ref().unwrap()[0].clone();
                more.name = "mallory".to_owned();
                live.subjects.as_mut().unwrap().push(more);
            },
        ),
        (
            "the Deployment deleted",
            "create Deployment tenants/tenant-1",
            |lab| {
                lab.lose_deployment();
            },
        ),
        (
            "the ConfigMap",
            "apply ConfigMap tenants/tenant-1-kubeadmconfig",
            |lab| {
                let owned = &mut lab.world.owned;
                let live = owned.get_mut::<ConfigMap>("tenant-1-kubeadmconfig");
                live.unwrap().data.as_mut().unwrap().clear();
            },
        ),
    ];
    for (case, expected, damage) in table {
        let mut lab = Lab::ready();
        damage(&mut lab);
        let plan = lab.pass();
        let text = brief(&plan);
        let writes: Vec<_> = text
            .lines()
            .filter(|line| line.contains("apply") || line.contains("create"))
            .collect();
        assert_eq!(writes.len(), 1, "{case}: {text}");
        assert!(writes[0].ends_with(expected), "{case}: {text}");
        assert!(lab.plan().is_quiet(), "{case}: {}", brief(&lab.plan()));
    }
}

#[test]
fn contested_objects_rest() {
    let mut lab = Lab::ready();
    let service = lab.service_mut();
    service.spec.as_mut().unwrap().selector = None;
    let at = lab
        .world
        .now
        .checked_add(jiff::SignedDuration::from_secs(60))
        .unwrap();
    let key = Object::Service(crate::tenant::network::service::wanted(&lab.world)).key();
    lab.world.contested.insert(key, at);
    let plan = lab.pass();
    assert!(plan.is_quiet(), "{plan}");
    assert_eq!(plan.revisit, Some(at));
    assert_eq!(lab.condition(condition::OBJECTS_OWNED), "False Contested");
    // What is fought over rests, another wish does not.
    let mut other = lab.clone();
    other.spec().control_plane.service.additional_ports = vec![AdditionalPort {
        name: "extra".to_owned(),
        port: 80,
        target_port: IntOrString::Int(8080),
        ..AdditionalPort::default()
    }];
    assert!(brief(&other.plan()).contains("apply Service"));
    lab.later(61);
    assert!(!lab.plan().is_quiet());
}

#[test]
fn emptied_fields_of_the_service_are_cleared() {
    let mut lab = Lab::new();
    let spec = lab.spec();
    spec.control_plane.service.service_type = ServiceType::LoadBalancer;
    spec.network_profile.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned()];
    spec.control_plane.service.additional_ports = vec![AdditionalPort {
        name: "extra".to_owned(),
        port: 80,
        target_port: IntOrString::Int(8080),
        ..AdditionalPort::default()
    }];
    lab.pass();
    assert!(
        !brief(&lab.plan()).contains("Service tenants/tenant-1"),
        "it is quiet"
    );
    let spec = lab.spec();
    spec.network_profile.load_balancer_source_ranges.clear();
    spec.control_plane.service.additional_ports.clear();
    let plan = lab.pass();
    let applied = plan.steps.iter().find_map(|step| match step {
        Step::Apply(object) if object.kind() == ObjectKind::Service => {
            Some(object.value().unwrap())
        }
        _ => None,
    });
    let applied = applied.expect("the Service is applied without them");
    assert!(applied.pointer("/spec/loadBalancerSourceRanges").is_none());
    assert_eq!(
        applied
            .pointer("/spec/ports")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// A write that the API refuses is in conditions, each where it belongs.
#[test]
fn refused_writes_are_told() {
    let failed = |reason: &str, message: &str| Outcome::Failed {
        reason: reason.to_owned(),
        message: message.to_owned(),
        retry: true,
        finding: None,
    };
    let table = [
        (
            ObjectKind::Service,
            "ApplyFailed",
            "Service \"tenant-1\" is invalid: spec.ports[0].nodePort: Invalid value: 6443: provided port is not in the valid range",
            condition::ADDRESS_ASSIGNED,
            "False ServiceRefused",
        ),
        (
            ObjectKind::Service,
            reason::NAME_TAKEN,
            "Service tenants/tenant-1 is controlled by ReplicaSet x",
            condition::OBJECTS_OWNED,
            "False NameTaken",
        ),
        (
            ObjectKind::Secret,
            "ApplyFailed",
            "secrets is forbidden: exceeded quota",
            condition::CERTIFICATES_READY,
            "False RequestRefused",
        ),
        (
            ObjectKind::Secret,
            reason::FORBIDDEN,
            "secrets is forbidden: User cannot create",
            condition::CERTIFICATES_READY,
            "False Forbidden",
        ),
    ];
    for (kind, reason, message, type_, expected) in table {
        let mut lab = Lab::new();
        let plan = lab.plan();
        let outcomes: Vec<_> = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Create(object) if object.kind() == kind => failed(reason, message),
                _ => Outcome::NotReached,
            })
            .collect();
        lab.report(&plan, &outcomes);
        assert_eq!(lab.condition(type_), expected, "{}", lab.told());
        assert!(
            lab.condition(condition::READY).starts_with("False"),
            "{}",
            lab.told()
        );
    }
}

/// All names that are taken are told at once, with the remedy once.
#[test]
fn every_name_that_is_taken_is_named() {
    let mut lab = Lab::ready();
    lab.tenant().metadata.uid = Some("uid-of-the-heir".to_owned());
    lab.pass();
    let status = lab.world.tenant.status.clone().unwrap();
    let owned = apiservice::condition::get(&status.conditions, condition::OBJECTS_OWNED).unwrap();
    for name in [
        "Service tenants/tenant-1,",
        "Secret tenants/tenant-1-ca,",
        "Secret tenants/tenant-1-sa-certificate,",
        "Secret tenants/tenant-1-api-server-certificate,",
        "Secret tenants/tenant-1-admin-kubeconfig,",
        "ConfigMap tenants/tenant-1-kubeadmconfig: each is left ",
        "Deployment tenants/tenant-1,",
        "RoleBinding tenants/tenant-1-kubeconfig-signer,",
    ] {
        assert!(owned.message.contains(name), "{name}: {}", owned.message);
    }

    // What the cache does not show is found when it is written.
    let mut lab = Lab::new();
    let plan = lab.plan();
    let outcomes: Vec<_> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Create(object)
                if matches!(object.kind(), ObjectKind::Service | ObjectKind::Role) =>
            {
                let waiting =
                    crate::tenant::objects::taken(&lab.world, &object.key(), &Default::default());
                Outcome::Failed {
                    reason: waiting.reason.to_owned(),
                    message: waiting.message,
                    retry: false,
                    finding: waiting.finding,
                }
            }
            _ => Outcome::NotReached,
        })
        .collect();
    lab.report(&plan, &outcomes);
    let told = lab.told();
    let line = told
        .lines()
        .find(|line| line.contains("ObjectsOwned False NameTaken"))
        .unwrap();
    let both = "Service tenants/tenant-1, Role tenants/tenant-1-kubeconfig-signer: each exists";
    assert!(line.contains(both), "{line}");
    assert_eq!(line.matches("Delete or rename it").count(), 1, "{line}");
}

/// What is said is put together from its parts, whatever words are in them.
#[test]
fn the_same_of_several_objects_is_told_once() {
    let mut lab = Lab::ready();
    for kind in [
        ObjectKind::Service,
        ObjectKind::Role,
        ObjectKind::Deployment,
    ] {
        let name = if kind == ObjectKind::Role {
            "tenant-1-kubeconfig-signer"
        } else {
            "tenant-1"
        };
        let key = crate::tenant::plan::ObjectKey {
            kind,
            namespace: "tenants".to_owned(),
            name: name.to_owned(),
        };
        lab.world
            .contested
            .insert(key, lab.world.now + jiff::SignedDuration::from_secs(60));
    }
    lab.service_mut().metadata.labels = None;
    lab.signer_mut::<Role>().metadata.labels = None;
    let owned = &mut lab.world.owned;
    let map = owned.get_mut::<ConfigMap>("tenant-1-kubeadmconfig");
    map.unwrap().metadata.labels = None;
    let plan = lab.plan();
    // A refusal in the words of an API, which only look like ours.
    let outcomes: Vec<_> = (plan.steps.iter())
        .map(|_| Outcome::Failed {
            reason: reason::CONTESTED.to_owned(),
            message: "Service tenants/tenant-1 has been modified".to_owned(),
            retry: false,
            finding: None,
        })
        .collect();
    lab.report(&plan, &outcomes);
    let told = lab.told();
    let line = told
        .lines()
        .find(|line| line.contains("ObjectsOwned False"));
    let line = line.unwrap_or_else(|| panic!("{told}"));
    for words in [
        "Service tenants/tenant-1, Role tenants/tenant-1-kubeconfig-signer: \
         metadata.labels keeps being changed back.",
        "Service tenants/tenant-1 has been modified",
    ] {
        assert!(line.contains(words), "{line}");
    }
}

/// What the management cluster refuses shows also where no pods are wanted.
#[test]
fn a_refused_deployment_is_told_while_asleep() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.deployment.replicas = 0;
    lab.world.pods.clear();
    let plan = lab.plan();
    let outcomes: Vec<_> = plan
        .steps
        .iter()
        .map(|_| Outcome::Failed {
            reason: "Invalid".to_owned(),
            message: "Deployment.apps \"tenant-1\" is invalid: defaultMode".to_owned(),
            retry: false,
            finding: None,
        })
        .collect();
    lab.report(&plan, &outcomes);
    for part in [condition::WORKLOAD_AVAILABLE, condition::REPLICAS_AVAILABLE] {
        assert_eq!(lab.condition(part), "False PodRejected");
    }
}

/// Changes of our own need no more than an apply; what others own in parts that
/// are ours has to be taken out first.
#[test]
fn only_what_others_own_is_taken_out() {
    let mut lab = Lab::ready();
    let live = |lab: &Lab| {
        let live = lab.world.deployment().unwrap().clone();
        Object::Deployment(live).value().unwrap()
    };
    let before = live(&lab);
    lab.spec().kubernetes.version = "v1.36.4".to_owned();
    let plan = lab.plan();
    let object = plan.steps.iter().find_map(|step| match step {
        Step::Apply(object) if object.kind() == ObjectKind::Deployment => {
            Some(object.as_ref().clone())
        }
        _ => None,
    });
    let object = object.unwrap();
    assert!(crate::tenant::objects::drifted_in(&object, &before).is_some());
    assert!(!crate::tenant::objects::needs_taking_out(&object, &before));
    pod(&mut lab).host_pid = Some(true);
    assert!(crate::tenant::objects::needs_taking_out(
        &object,
        &live(&lab)
    ));

    // What was applied before and is otherwise now was changed by others.
    let mut lab = Lab::ready();
    let wanted = Object::Deployment(lab.world.deployment().unwrap().clone());
    pod(&mut lab).containers[0].args = Some(Vec::new());
    assert!(crate::tenant::objects::needs_taking_out(
        &wanted,
        &live(&lab)
    ));
}
