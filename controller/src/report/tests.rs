//! What is told when something is wrong, cause by cause.

use std::sync::Arc;

use apiservice::condition::tenant as condition;
use apiservice::v1alpha1::{Phase, ServiceType, WritePermissions};
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, Event, LoadBalancerIngress,
    LoadBalancerStatus, ObjectReference, PodCondition, ServiceStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::tenant::backing::facts::{AccessFact, StoreProblem, StoreProblemKind};
use crate::tenant::plan::{Outcome, Step};
use crate::tenant::testing::{Lab, pod};
use crate::tenant::world::{
    Addons, Admission, InsideFacts, InsideProblem, ProbeFailureKind as Kind,
};

fn unready(lab: &mut Lab) {
    lab.world.pods = vec![Arc::new(pod(0, false))];
}

fn store_problem(lab: &mut Lab, kind: StoreProblemKind) {
    let message = "etcd says so".to_owned();
    lab.world.store.health = Some(Err(StoreProblem { kind, message }));
}

/// rule 15: each cause turns Ready False with its own reason, and back.
#[test]
fn ready_is_lost_with_its_own_reason_and_regained() {
    type Break = fn(&mut Lab);
    let table: [(&str, &str, Break); 11] = [
        ("rights revoked", "DataStoreAccessRevoked", |lab| {
            lab.world.store.access = Some(AccessFact::Revoked("role not found".to_owned()));
        }),
        (
            "rights revoked, seen by the probe first",
            "DataStoreAccessRevoked",
            |lab| {
                lab.probe(Err((Kind::Write, "etcdserver: permission denied")));
            },
        ),
        ("no space", "DataStoreFull", |lab| {
            store_problem(lab, StoreProblemKind::Full)
        }),
        (
            "no space, seen by the probe first",
            "DataStoreFull",
            |lab| {
                lab.probe(Err((
                    Kind::Write,
                    "etcdserver: mvcc: database space exceeded",
                )));
            },
        ),
        ("database stopped", "DataStoreUnreachable", |lab| {
            store_problem(lab, StoreProblemKind::Unreachable);
            unready(lab);
            lab.probe(Err((Kind::Refused, "connection refused")));
        }),
        ("every replica stopped", "NoReplicaAvailable", |lab| {
            unready(lab);
            lab.probe(Err((Kind::Silent, "deadline exceeded")));
        }),
        ("selector broken", "ServiceSelectorChanged", |lab| {
            let service = lab.service_mut();
            service.spec.as_mut().unwrap().selector = None;
        }),
        (
            "serving certificate swapped",
            "ServingCertificateMismatch",
            |lab| {
                lab.probe(Err((Kind::Untrusted, "unknown issuer")));
            },
        ),
        ("route cut", "EndpointUnreachable", |lab| {
            lab.probe(Err((Kind::TimedOut, "no route to host")));
        }),
        ("watches do not deliver", "ProbeFailed", |lab| {
            lab.probe(Err((Kind::Watch, "no event within 2 s")));
        }),
        ("bindings deleted inside", "BootstrapIncomplete", |lab| {
            lab.probe(Err((Kind::Forbidden, "configmaps is forbidden")));
        }),
    ];
    for (case, reason, damage) in table {
        let mut lab = Lab::ready();
        lab.later(4);
        damage(&mut lab);
        lab.pass();
        assert_eq!(
            lab.condition(condition::READY),
            format!("False {reason}"),
            "{case}\n{}",
            lab.told()
        );
        let phase = lab.told();
        assert!(phase.contains("phase NotReady"), "{case}: {phase}");

        // What was seen before the break does not make it Ready again.
        let since = lab.world.now;
        lab.run_pods();
        lab.world.store = Lab::ready().world.store;
        lab.probe(Ok(()));
        lab.world.probe.endpoint.as_mut().unwrap().started = since;
        lab.pass();
        assert!(
            lab.condition(condition::READY).starts_with("False"),
            "{case}\n{}",
            lab.told()
        );

        lab.later(2);
        lab.probe(Ok(()));
        lab.pass();
        assert_eq!(
            lab.condition(condition::READY),
            "True Ready",
            "{case}\n{}",
            lab.told()
        );
    }
}

#[test]
fn one_replica_of_several_is_a_condition_of_its_own() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.deployment.replicas = 2;
    lab.pass();
    lab.run_pods();
    lab.later(4);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(
        lab.condition(condition::REPLICAS_AVAILABLE),
        "True AsExpected"
    );
    lab.world.pods = vec![Arc::new(pod(0, true)), Arc::new(pod(1, false))];
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");
    assert_eq!(
        lab.condition(condition::REPLICAS_AVAILABLE),
        "False ReplicasMissing"
    );
}

/// rule 15: a way that worked is cut. Ready is lost, and regained with it.
#[test]
fn the_way_to_the_endpoint_is_cut() {
    let mut lab = Lab::ready();
    lab.later(4);
    lab.probe(Ok(()));
    lab.pass();
    let inside = lab.world.probe.service.clone();
    lab.probe(Err((Kind::TimedOut, "i/o timeout")));
    lab.world.probe.service = inside;
    for _ in 0..2 {
        lab.pass();
        assert_eq!(
            lab.condition(condition::ENDPOINT_REACHABLE),
            "Unknown EndpointRouteLost"
        );
        assert_eq!(lab.condition(condition::READY), "False EndpointRouteLost");
    }
    lab.later(4);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");
}

/// rule 15: a controller that stands where the endpoint was never reached.
#[test]
fn the_endpoint_was_never_reached() {
    let mut lab = Lab::ready();
    let status = Arc::make_mut(&mut lab.world.tenant)
        .status
        .as_mut()
        .unwrap();
    for condition in status.conditions.iter_mut() {
        if condition.type_ == condition::ENDPOINT_REACHABLE {
            condition.reason = "EndpointNotReachableFromController".to_owned();
            condition.status = "Unknown".to_owned();
        }
    }
    lab.later(4);
    lab.probe(Ok(()));
    let inside = lab.world.probe.service.clone();
    lab.probe(Err((Kind::TimedOut, "i/o timeout")));
    lab.world.probe.service = inside;
    lab.pass();
    assert_eq!(
        lab.condition(condition::ENDPOINT_REACHABLE),
        "Unknown EndpointNotReachableFromController"
    );
    assert_eq!(
        lab.condition(condition::READY),
        "True EndpointNotReachableFromController"
    );
}

/// An installation with a registry of its own, for clusters without a way to others.
#[test]
fn where_images_come_from_is_told_where_the_spec_does_not_tell() {
    let told = |own: &str, named: &str| {
        let mut lab = Lab::ready();
        Arc::make_mut(&mut lab.world.settings).registry = own.to_owned();
        let deployment = &mut lab.spec().control_plane.deployment;
        deployment.registry_settings.registry = named.to_owned();
        lab.pass();
        assert_eq!(lab.condition(condition::SPEC_SUPPORTED), "True AsExpected");
        let status = lab.world.tenant.status.as_ref().unwrap();
        let found = apiservice::condition::get(&status.conditions, condition::SPEC_SUPPORTED);
        found.unwrap().message.clone()
    };
    let (usual, mirror) = ("registry.k8s.io", "mirror.example.com/k8s");
    for (own, named) in [(usual, usual), (usual, "own.example.com"), (mirror, mirror)] {
        assert_eq!(told(own, named), "", "{own} {named}");
    }
    // The API writes the default into each object: nobody can see who asked for it.
    let said = told(mirror, usual);
    let from = "Images come from mirror.example.com/k8s, the registry of this installation";
    assert!(
        said.starts_with(from) && said.contains("registry.k8s.io/, with a slash"),
        "{said}"
    );
    for named in ["registry.k8s.io/", "own.example.com"] {
        let said = told(mirror, named);
        let from = format!("Images come from {}, as", named.trim_end_matches('/'));
        assert!(said.starts_with(&from) && said.contains(mirror), "{said}");
    }
    // It is no news beside what is.
    let mut lab = Lab::ready();
    Arc::make_mut(&mut lab.world.settings).registry = mirror.to_owned();
    lab.spec().addons.get_or_insert_default().tcp_proxy = Some(Default::default());
    lab.pass();
    let told = "SpecSupported False FieldsNotSupported: Accepted and not acted upon yet: \
                spec.addons.tcpProxy. Images come from mirror";
    assert!(lab.told().contains(told), "{}", lab.told());
}

fn generation_of(lab: &Lab, kind: &str) -> i64 {
    let status = lab.world.tenant.status.as_ref().unwrap();
    let found = apiservice::condition::get(&status.conditions, kind).unwrap();
    found.observed_generation.unwrap()
}

/// `kubectl wait` compares the condition's generation, kstatus reads Reconciling:
/// none believes that a change is done while the pods of before serve.
#[test]
fn ready_of_a_generation_means_that_it_serves() {
    let mut lab = Lab::ready();
    assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");
    let first = generation_of(&lab, condition::READY);
    assert_eq!(Some(first), lab.world.tenant.metadata.generation);

    let network = &mut lab.spec().network_profile;
    network.cert_sans = vec!["life.example.com".to_owned()];
    for _ in 0..3 {
        lab.pass();
        lab.later(2);
        assert_eq!(lab.condition(condition::READY), "True Ready");
        for kind in [condition::PROGRESSING, condition::RECONCILING] {
            assert_eq!(lab.condition(kind), "True RollingOut");
        }
        assert_eq!(generation_of(&lab, condition::READY), first);
    }
    lab.run_pods();
    lab.pass();
    assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");
    assert_eq!(lab.condition(condition::RECONCILING), "False AsExpected");
    assert_eq!(generation_of(&lab, condition::READY), first + 1);

    // A replica that is missing later is no change.
    lab.world.pods.clear();
    let deployment = lab.deployment_mut();
    deployment.status.as_mut().unwrap().available_replicas = Some(0);
    lab.pass();
    assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");

    // Asleep is what was asked for.
    lab.spec().control_plane.deployment.replicas = 0;
    lab.pass();
    assert_eq!(lab.condition(condition::PROGRESSING), "True RollingOut");
    lab.run_pods();
    lab.pass();
    assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");
}

/// rule 15: Ready is what a probe found, and found lately.
#[test]
fn ready_by_an_old_fact_is_unknown() {
    let mut lab = Lab::ready();
    lab.nothing_for(31);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "Unknown ProbeOverdue");
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "Unknown ProbeOverdue");
    lab.later(2);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");

    // The same if there never was one since this controller began.
    let mut lab = Lab::ready();
    lab.world.observed_since = Some(lab.world.now);
    lab.world.probe = Default::default();
    lab.nothing_for(29);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");
    lab.nothing_for(2);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "Unknown ProbeOverdue");
}

fn pause(lab: &mut Lab) {
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    let paused = apiservice::names::ANNOTATION_PAUSED.to_owned();
    annotations.insert(paused, String::new());
}

/// Nobody probes it, so Ready says what was seen last.
#[test]
fn a_paused_tenant_is_not_overdue() {
    let mut lab = Lab::ready();
    pause(&mut lab);
    for _ in 0..3 {
        lab.nothing_for(3600);
        lab.pass();
        assert_eq!(lab.condition(condition::READY), "True Ready");
        assert_eq!(lab.condition(condition::PAUSED), "True Paused");
    }
    lab.tenant().metadata.annotations = None;
    lab.world.observed_since = Some(lab.world.now);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");
    lab.nothing_for(31);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "Unknown ProbeOverdue");
}

/// The release before had no such condition.
#[test]
fn what_served_before_an_upgrade_of_steward_is_no_progress() {
    let mut lab = Lab::ready();
    lab.spec();
    lab.pass();
    let generation = lab.world.tenant.metadata.generation;
    assert_eq!(Some(generation_of(&lab, condition::READY)), generation);
    let older = |lab: &mut Lab| {
        let status = lab.tenant().status.as_mut().unwrap();
        let new = [condition::PROGRESSING, condition::RECONCILING];
        status
            .conditions
            .retain(|it| !new.contains(&it.type_.as_str()));
    };
    older(&mut lab);
    pause(&mut lab);
    for _ in 0..2 {
        lab.pass();
        assert_eq!(lab.condition(condition::PROGRESSING), "False AsExpected");
        assert_eq!(Some(generation_of(&lab, condition::READY)), generation);
    }

    // What was asked for while nobody looked is still to be done.
    older(&mut lab);
    lab.spec();
    lab.pass();
    assert_eq!(lab.condition(condition::PROGRESSING), "True Paused");
    assert_eq!(Some(generation_of(&lab, condition::READY)), generation);
}

/// rule 15: whoever is to mend a broken webhook needs a tenant that is Ready.
#[test]
fn what_the_tenants_own_admission_refuses_is_not_the_end_of_ready() {
    let mut lab = Lab::ready();
    lab.later(4);
    lab.probe(Ok(()));
    let said = "failed calling webhook \"nobody.example.com\"";
    lab.world.probe.admission = Some(Admission::Refuses(said.to_owned()));
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");
    assert_eq!(
        lab.condition(condition::WRITES_ADMITTED),
        "False AdmissionRefuses"
    );
    assert!(lab.told().contains(said), "{}", lab.told());
    lab.world.probe.admission = Some(Admission::Passes);
    lab.pass();
    assert_eq!(lab.condition(condition::WRITES_ADMITTED), "True AsExpected");
}

/// rule 15: a first start where only clients reach the endpoint gets there as fast
/// as any other, also one that was slow or began asleep.
#[test]
fn a_first_start_where_the_endpoint_cannot_be_reached() {
    for (kind, seconds) in [
        (Kind::TimedOut, 1),
        (Kind::Unresolvable, 1),
        (Kind::Refused, 5),
    ] {
        for began in [5, 600] {
            let mut lab = Lab::new();
            for _ in 0..3 {
                lab.pass();
            }
            lab.later(began);
            lab.probe(Err((kind, "no way")));
            lab.pass();
            lab.run_pods();
            lab.probe(Ok(()));
            let inside = lab.world.probe.service.clone();
            lab.probe(Err((kind, "no way")));
            lab.world.probe.service = inside;
            lab.world.probe.inside_since = Some(lab.world.now);
            lab.pass();
            assert!(
                lab.condition(condition::READY).starts_with("False"),
                "{}",
                lab.told()
            );
            lab.later(seconds);
            lab.world.probe.service.as_mut().unwrap().started = lab.world.now;
            lab.pass();
            assert_eq!(
                lab.condition(condition::READY),
                "True EndpointNotReachableFromController",
                "{kind:?}: {}",
                lab.told()
            );
            assert_eq!(
                lab.condition(condition::ENDPOINT_REACHABLE),
                "Unknown EndpointNotReachableFromController"
            );
        }
    }
}

/// A load balancer's name takes minutes until it resolves. One that was declared is
/// as its owner has it.
#[test]
fn a_first_start_waits_for_a_name_to_resolve() {
    for (declared, seconds) in [(false, 120), (true, 1)] {
        let mut lab = Lab::new();
        let name = "tenant-1.lb.example.com";
        lab.spec().control_plane.service.service_type = ServiceType::LoadBalancer;
        if declared {
            lab.spec().network_profile.address = Some(name.to_owned());
        }
        lab.pass();
        let service = lab.service_mut();
        service.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus {
                ingress: Some(vec![LoadBalancerIngress {
                    hostname: Some(name.to_owned()),
                    ..LoadBalancerIngress::default()
                }]),
            }),
            ..ServiceStatus::default()
        });
        lab.pass();
        lab.pass();
        lab.run_pods();
        lab.probe(Ok(()));
        let inside = lab.world.probe.service.clone();
        lab.probe(Err((Kind::Unresolvable, "no such host")));
        lab.world.probe.endpoint.as_mut().unwrap().address = format!("{name}:6443");
        lab.world.probe.service = inside;
        lab.world.probe.inside_since = Some(lab.world.now);
        lab.pass();
        lab.later(seconds - 1);
        lab.pass();
        assert_eq!(lab.condition(condition::READY), "False Provisioning");
        let says = lab.told().contains("does not resolve yet");
        assert_eq!(says, !declared, "{}", lab.told());
        lab.later(1);
        lab.pass();
        assert_eq!(
            lab.condition(condition::READY),
            "True EndpointNotReachableFromController",
            "{}",
            lab.told()
        );
    }
}

#[test]
fn a_restart_of_the_controller_forgets_nothing() {
    let mut lab = Lab::ready();
    let before = lab.world.tenant.status.clone();
    lab.later(60);
    lab.world.probe = Default::default();
    lab.world.store.health = None;
    lab.world.store.access = None;
    lab.world.store.held = None;
    let plan = lab.pass();
    assert!(plan.is_quiet(), "{plan}");
    assert_eq!(before, lab.world.tenant.status);
}

/// A label removed by hand is not a lost key: the pass that finds the Secret
/// again does not cry.
#[test]
fn what_is_found_again_was_not_lost() {
    let mut lab = Lab::ready();
    lab.lose_secret("tenant-1-ca");
    let plan = lab.plan();
    let found = |step: &Step| match step {
        Step::Recheck(_) => Outcome::Done,
        _ => Outcome::Unchanged,
    };
    let outcomes: Vec<_> = plan.steps.iter().map(found).collect();
    lab.report(&plan, &outcomes);
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
    let outcomes = vec![Outcome::Unchanged; plan.steps.len()];
    lab.report(&plan, &outcomes);
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False KeyMaterialLost"
    );
}

fn container(lab: &mut Lab, state: ContainerState) {
    let mut broken = pod(0, false);
    let status = broken.status.as_mut().unwrap();
    let container = &mut status.container_statuses.as_mut().unwrap()[0];
    container.state = Some(state);
    container.restart_count = 3;
    lab.world.pods = vec![Arc::new(broken)];
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn event(lab: &mut Lab, reason: &str, message: &str) {
    let event = Event {
        involved_object: ObjectReference {
            uid: Some("pod-0".to_owned()),
            ..Default::default()
        },
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_timestamp: Some(Time(lab.world.now)),
        ..Event::default()
    };
    lab.world.events.push(Arc::new(event));
}

fn refused(lab: &mut Lab, message: &str) {
    lab.world.pods.clear();
    let live = lab.deployment_mut();
    live.status = Some(Default::default());
    live.status.as_mut().unwrap().conditions = Some(vec![DeploymentCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        message: Some(message.to_owned()),
        ..DeploymentCondition::default()
    }]);
}

/// Pods that never start: what the tenant's owner reads.
fn unschedulable(number: i32) -> k8s_openapi::api::core::v1::Pod {
    let mut broken = pod(number, false);
    let status = broken.status.as_mut().unwrap();
    status.container_statuses = None;
    status.conditions = Some(vec![PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some("0/1 nodes are available: 1 Insufficient cpu.".to_owned()),
        ..PodCondition::default()
    }]);
    broken
}

/// While the pods of before serve, nothing else tells why the new ones do not come.
#[test]
fn what_holds_a_roll_up_is_told() {
    let mut lab = Lab::ready();
    lab.spec().network_profile.cert_sans = vec!["life.example.com".to_owned()];
    lab.pass();
    lab.world.pods.push(Arc::new(unschedulable(1)));
    lab.pass();
    assert!(lab.condition(condition::READY).starts_with("True"));
    let told = lab.told();
    let said = "Progressing True RollingOut: The pods are not all as the spec asks yet: No node \
                takes the pods: 0/1 nodes are available";
    assert!(told.contains(said), "{told}");
}

/// Containers come by their names, the tunnel's before the API server's.
#[test]
fn trouble_of_the_tunnel_has_a_remedy_of_its_own_and_comes_last() {
    let mut lab = Lab::ready();
    let mut broken = pod(0, false);
    let all = broken.status.as_mut().unwrap();
    let all = all.container_statuses.as_mut().unwrap();
    let mut tunnel = all[0].clone();
    tunnel.name = "konnectivity-server".to_owned();
    tunnel.image = "proxy-server:none".to_owned();
    tunnel.state = Some(waiting("ErrImagePull", "manifest unknown"));
    all.insert(0, tunnel);
    lab.world.pods = vec![Arc::new(broken.clone())];
    lab.probe(Err((Kind::Refused, "connection refused")));
    lab.pass();
    let told = lab.told();
    let said = "Image proxy-server:none does not exist. Check spec.addons.konnectivity.server.";
    assert!(told.contains(said), "{told}");
    let all = broken.status.as_mut().unwrap();
    let all = all.container_statuses.as_mut().unwrap();
    all[1].state = Some(waiting("ErrImagePull", "manifest unknown"));
    lab.world.pods = vec![Arc::new(broken)];
    lab.pass();
    assert!(!lab.told().contains(said), "{}", lab.told());
}

#[test]
fn trouble_of_pods_has_a_reason_and_a_remedy() {
    type Break = fn(&mut Lab);
    let table: [(&str, &str, Break); 12] = [
        ("ImageNotFound", "spec.kubernetes.version", |lab| {
            let message = "Back-off pulling image \"x\": ErrImagePull: rpc error: code = NotFound \
                           desc = failed to resolve reference: registry.k8s.io/kube-apiserver:v1.29.0: not found";
            container(lab, waiting("ImagePullBackOff", message));
        }),
        (
            "ImagePullFailed",
            "Check that the nodes reach the registry",
            |lab| {
                let message =
                    "failed to do request: Head: dial tcp: lookup registry.k8s.io: no such host";
                container(lab, waiting("ErrImagePull", message));
            },
        ),
        ("ImagePullFailed", "imagePullSecret", |lab| {
            container(
                lab,
                waiting("ErrImagePull", "unexpected status: 401 Unauthorized"),
            );
        }),
        ("ImageNotFound", "registrySettings", |lab| {
            container(
                lab,
                waiting("ImagePullBackOff", "Back-off pulling image \"x\""),
            );
            event(
                lab,
                "Failed",
                "Failed to pull image \"x\": manifest unknown",
            );
        }),
        ("ImageNotFound", "registrySettings", |lab| {
            container(lab, waiting("InvalidImageName", ""));
        }),
        ("ContainerConfigInvalid", "secret \"x\" not found", |lab| {
            container(
                lab,
                waiting("CreateContainerConfigError", "secret \"x\" not found"),
            );
        }),
        ("CrashLoopBackOff", "unknown flag: --nonsense", |lab| {
            let ended = ContainerStateTerminated {
                exit_code: 1,
                message: Some("usage\nError: unknown flag: --nonsense\n".to_owned()),
                ..ContainerStateTerminated::default()
            };
            container(
                lab,
                ContainerState {
                    terminated: Some(ended),
                    ..ContainerState::default()
                },
            );
        }),
        ("Unschedulable", "Insufficient cpu", |lab| {
            lab.world.pods = vec![Arc::new(unschedulable(0))];
        }),
        ("QuotaExceeded", "Raise it", |lab| {
            refused(
                lab,
                "pods \"x\" is forbidden: exceeded quota: small, requested: pods=1",
            );
        }),
        ("PodRejected", "PodSecurity", |lab| {
            refused(
                lab,
                "pods \"x\" is forbidden: violates PodSecurity \"restricted\"",
            );
        }),
        ("VolumeNotMounted", "not found", |lab| {
            container(lab, waiting("ContainerCreating", ""));
            event(
                lab,
                "FailedMount",
                "MountVolume.SetUp failed: configmap \"audit\" not found",
            );
        }),
        ("PodNotStarted", "network plug-in", |lab| {
            container(lab, waiting("ContainerCreating", ""));
            event(
                lab,
                "FailedCreatePodSandBox",
                "plugin type=\"bridge\" failed",
            );
        }),
    ];
    for (reason, said, damage) in table {
        let mut lab = Lab::new();
        for _ in 0..3 {
            lab.pass();
        }
        damage(&mut lab);
        let before = lab.world.tenant.status.clone();
        lab.pass();
        for type_ in [
            condition::READY,
            condition::WORKLOAD_AVAILABLE,
            condition::REPLICAS_AVAILABLE,
        ] {
            assert_eq!(
                lab.condition(type_),
                format!("False {reason}"),
                "{}",
                lab.told()
            );
        }
        assert!(lab.told().contains(said), "{said} in\n{}", lab.told());
        let events = super::events(before.as_ref(), lab.world.tenant.status.as_ref().unwrap());
        assert_eq!(events.len(), 1, "one event for one cause: {events:?}");
        assert!(
            events[0].warning && events[0].reason == reason,
            "{events:?}"
        );
        let again = super::events(
            lab.world.tenant.status.as_ref(),
            lab.world.tenant.status.as_ref().unwrap(),
        );
        assert!(again.is_empty(), "{again:?}");
    }
}

#[test]
fn events_of_an_ordinary_life() {
    let mut lab = Lab::new();
    let mut told = Vec::new();
    let mut pass = |lab: &mut Lab| {
        let before = lab.world.tenant.status.clone();
        lab.pass();
        let after = lab.world.tenant.status.as_ref().unwrap();
        told.extend(
            super::events(before.as_ref(), after)
                .into_iter()
                .map(|it| it.reason),
        );
    };
    pass(&mut lab);
    pass(&mut lab);
    for kind in [Kind::Refused, Kind::Forbidden] {
        lab.later(2);
        lab.probe(Err((kind, "not yet")));
        pass(&mut lab);
        lab.run_pods();
    }
    lab.later(2);
    lab.probe(Ok(()));
    pass(&mut lab);
    lab.spec().control_plane.deployment.replicas = 0;
    pass(&mut lab);
    lab.run_pods();
    lab.probe(Err((Kind::Refused, "connection refused")));
    pass(&mut lab);
    lab.spec().control_plane.deployment.replicas = 1;
    pass(&mut lab);
    lab.run_pods();
    lab.later(5);
    lab.probe(Ok(()));
    pass(&mut lab);
    assert_eq!(told, ["Ready", "Ready"]);
}

#[test]
fn what_is_kept_inside_is_a_condition_of_its_own() {
    let mut lab = Lab::ready();
    lab.pass();
    assert_eq!(
        lab.condition(condition::CLUSTER_CONFIGURED),
        "True AsExpected"
    );
    lab.world.inside.addons = Some(Addons {
        core_dns: true,
        kube_proxy: false,
        konnectivity: None,
    });
    lab.pass();
    let addons = |lab: &Lab| lab.world.tenant.status.clone().unwrap().addons.unwrap();
    let first = addons(&lab).core_dns.unwrap();
    assert!(first.enabled && addons(&lab).kube_proxy.is_none());
    lab.later(60);
    lab.pass();
    assert_eq!(
        addons(&lab).core_dns.unwrap(),
        first,
        "no write without a change"
    );

    lab.world.inside.problems = vec![InsideProblem {
        about: "Cannot create X".to_owned(),
        said: "no".to_owned(),
    }];
    lab.pass();
    let told = lab.condition(condition::CLUSTER_CONFIGURED);
    assert_eq!(told, "False ConfigurationIncomplete");
    assert!(
        lab.condition(condition::READY).starts_with("True"),
        "{}",
        lab.told()
    );

    lab.world.inside = InsideFacts {
        addons: Some(Addons::default()),
        ..InsideFacts::default()
    };
    lab.pass();
    assert!(!addons(&lab).core_dns.unwrap().enabled);
}

/// Features 2.9, where the word hides an upgrade for ever.
#[test]
fn a_tenant_that_refuses_writes_says_so_once_it_does() {
    let mut lab = Lab::ready();
    let word = |lab: &mut Lab| {
        lab.later(5);
        lab.probe(Ok(()));
        lab.pass();
        let resources = lab.tenant().status.clone().unwrap().kubernetes_resources;
        resources.unwrap().version.unwrap().status
    };
    let blocked = |creation| WritePermissions {
        block_creation: creation,
        ..WritePermissions::default()
    };
    lab.spec().write_permissions = Some(blocked(true));
    assert_eq!(word(&mut lab), Phase::Ready, "nothing refuses yet");
    lab.world.inside.blocked = Some(blocked(true));
    assert_eq!(word(&mut lab), Phase::WriteLimited);
    // A controller that has just begun knows nothing of it.
    lab.world.inside.blocked = None;
    assert_eq!(word(&mut lab), Phase::WriteLimited);
    lab.spec().write_permissions = None;
    lab.world.inside.blocked = Some(blocked(true));
    assert_eq!(word(&mut lab), Phase::WriteLimited, "it refuses still");
    lab.world.inside.blocked = Some(blocked(false));
    assert_eq!(word(&mut lab), Phase::Ready);
}

#[test]
fn how_a_tenant_stands_to_its_limits_is_told_and_a_quiet_one_is_not_written() {
    use crate::tenant::backing::limits::{SizeFact, Standing};
    use apiservice::v1alpha1::DataStoreTenantLimits;
    use storage::tenancy::contents::Usage;

    let mut lab = Lab::ready();
    let kind = condition::STORAGE_WITHIN_LIMITS;
    let told = |lab: &Lab| {
        let all = &lab.world.tenant.status.as_ref().unwrap().conditions;
        let found = apiservice::condition::get(all, kind)?;
        Some(format!("{} {}", found.status, found.reason))
    };
    let usage = |lab: &Lab| {
        let storage = lab.world.tenant.status.as_ref()?.storage.clone()?;
        Some(storage.usage?.objects)
    };
    // As the observer finds it.
    let size = |lab: &mut Lab, objects| {
        lab.world.size.usage = Some(Usage { bytes: 5, objects });
        let limits = crate::tenant::backing::limits::of(lab.world.data_store.as_deref());
        let standing = lab.world.size.standing(limits, &lab.world.tenant);
        lab.world.size.standing = Some(standing);
        let before = lab.world.tenant.status.clone();
        lab.pass();
        let after = lab.world.tenant.status.clone();
        let events = super::events(before.as_ref(), after.as_ref().unwrap());
        let events = events.iter().map(|it| it.reason);
        (before != after, events.collect::<Vec<_>>())
    };
    lab.pass();
    assert_eq!((told(&lab), usage(&lab)), (None, None));
    size(&mut lab, 300);
    assert_eq!((told(&lab), usage(&lab)), (None, Some(300)), "no limit");
    assert_eq!(size(&mut lab, 310), (false, vec![]), "too little");

    let limit = |lab: &mut Lab, limits| {
        let store = Arc::make_mut(lab.world.data_store.as_mut().unwrap());
        store.spec.tenant_limits = limits;
    };
    let thousand = DataStoreTenantLimits {
        objects: Some(1000),
        ..DataStoreTenantLimits::default()
    };
    limit(&mut lab, Some(thousand));
    size(&mut lab, 310);
    assert_eq!(told(&lab).unwrap(), "True AsExpected");
    assert_eq!(size(&mut lab, 312), (false, vec![]), "quiet");
    assert_eq!(size(&mut lab, 800).1, ["NearLimit"]);
    assert_eq!(told(&lab).unwrap(), "True NearLimit");
    assert_eq!(size(&mut lab, 1000).1, ["LimitExceeded"]);
    assert_eq!(told(&lab).unwrap(), "False LimitExceeded");
    assert!(lab.condition(condition::READY).starts_with("True"));
    assert_eq!(size(&mut lab, 990), (false, vec![]), "within the margin");
    // A controller that has just begun.
    lab.world.size = SizeFact::default();
    lab.pass();
    assert_eq!(told(&lab).unwrap(), "False LimitExceeded");
    lab.world.size.standing = Some(Standing::Exceeded);
    lab.pass();
    assert_eq!(told(&lab).unwrap(), "Unknown Unknown", "not for long");
    assert_eq!(size(&mut lab, 700), (true, vec![]));
    assert_eq!(told(&lab).unwrap(), "True AsExpected");
    limit(&mut lab, None);
    lab.pass();
    assert_eq!(told(&lab), None);
}

/// Who may write status could otherwise send nodes elsewhere, and have add-ons rolled.
#[test]
fn nodes_are_told_what_is_and_not_what_the_status_says() {
    let mut lab = Lab::ready();
    let told = |lab: &Lab| super::for_nodes(&lab.seen()).unwrap();
    let wanted = told(&lab);
    assert_eq!(wanted.endpoint.to_string(), "10.0.0.10:6443");
    assert_eq!(wanted.version.as_deref(), Some("v1.36.3"));
    let status = lab.tenant().status.as_mut().unwrap();
    status.control_plane_endpoint = Some("192.0.2.66:6443".to_owned());
    let resources = status.kubernetes_resources.as_mut().unwrap();
    resources.version.as_mut().unwrap().version = Some("v1.99.0".to_owned());
    assert_eq!(told(&lab), wanted);
    // Nodes have an address of their own, where the tenant names one.
    lab.spec().network_profile.advertise_address = Some("203.0.113.7".to_owned());
    for _ in 0..2 {
        lab.pass();
        lab.run_pods();
        lab.later(15);
    }
    assert_eq!(told(&lab).endpoint.to_string(), "203.0.113.7:6443");
    lab.tell_nodes();
    let wanted = told(&lab);
    // While no pod serves, what was known stands.
    let mut facts = crate::facts::TenantFacts::default();
    facts.tell_nodes(Some(wanted.clone()));
    lab.world.pods.clear();
    facts.tell_nodes(super::for_nodes(&lab.seen()));
    let known = facts.for_nodes.unwrap();
    assert_eq!(
        (known.endpoint.to_string().as_str(), known.version),
        ("203.0.113.7:6443", wanted.version)
    );
}
