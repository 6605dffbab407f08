//! What is told when something is wrong, cause by cause.

use std::sync::Arc;

use apiservice::condition::tenant as condition;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, Event, ObjectReference,
    PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::tenant::plan::{Outcome, Step};
use crate::tenant::testing::{Lab, pod};
use crate::tenant::world::{AccessFact, ProbeFailureKind as Kind, StoreProblem, StoreProblemKind};

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
            let service = Arc::make_mut(lab.world.owned.service.as_mut().unwrap());
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

#[test]
fn a_restart_of_the_controller_forgets_nothing() {
    let mut lab = Lab::ready();
    let before = lab.world.tenant.status.clone();
    lab.later(60);
    lab.world.probe = Default::default();
    lab.world.probe.bindings = Some(true);
    lab.world.store.health = None;
    lab.world.store.access = None;
    lab.pass();
    assert_eq!(before, lab.world.tenant.status);
}

/// A label removed by hand is not a lost key: the pass that finds the Secret
/// again does not cry.
#[test]
fn what_is_found_again_was_not_lost() {
    let mut lab = Lab::ready();
    lab.world.owned.secrets.remove("tenant-1-ca");
    let plan = lab.plan();
    let found = |step: &Step| match step {
        Step::Look(_) => Outcome::Done,
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
    let live = Arc::make_mut(lab.world.owned.deployment.as_mut().unwrap());
    live.status = Some(Default::default());
    live.status.as_mut().unwrap().conditions = Some(vec![DeploymentCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        message: Some(message.to_owned()),
        ..DeploymentCondition::default()
    }]);
}

/// Pods that never start: what the tenant's owner reads.
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
            let mut broken = pod(0, false);
            let status = broken.status.as_mut().unwrap();
            status.container_statuses = None;
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("Unschedulable".to_owned()),
                message: Some("0/1 nodes are available: 1 Insufficient cpu.".to_owned()),
                ..PodCondition::default()
            }]);
            lab.world.pods = vec![Arc::new(broken)];
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
