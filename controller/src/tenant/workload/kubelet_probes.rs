//! The probes of a tenant's containers, paced for a quick start (features 2.8).

use apiservice::v1alpha1::{Component, ProbeSpec, Probes};
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The probes of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Failing it restarts the container.
    pub liveness: Probe,
    /// Failing it takes the pod out of the Service.
    pub readiness: Option<Probe>,
    /// Until it passes, the others wait.
    pub startup: Option<Probe>,
}

/// The probes of a component, with the user's timing over ours. Controller
/// manager and scheduler have readiness and startup probes only on request.
pub fn of(component: Component, port: i32, given: Option<&Probes>) -> Set {
    let timing = Timing::of(given, component);
    let server = component == Component::ApiServer;
    let (live, started, ready) = if server {
        (LIVES, STARTED, SERVES)
    } else {
        ("/healthz", "/healthz", "/healthz")
    };
    let pace = if server { LIVENESS } else { PATIENT };
    Set {
        liveness: probe(live, port, timing.liveness, pace),
        readiness: (server || timing.readiness.is_some())
            .then(|| probe(ready, port, timing.readiness, READINESS)),
        startup: (server || timing.startup.is_some())
            .then(|| probe(started, port, timing.startup, STARTUP)),
    }
}

/// When an API server may get traffic: all its checks but two, which sleep for a
/// second before they look whether the default roles and priority classes are
/// stored. Nobody is let in on their word: a tenant's Ready is earned by a probe
/// that needs its roles (rule 15), and bootstrap writes those that it binds.
pub const SERVES: &str = "/readyz?exclude=poststarthook/rbac/bootstrap-roles\
     &exclude=poststarthook/scheduling/bootstrap-system-priority-classes";
/// Whether a restart could help. A datastore that is away is not mended by one: with its
/// check in liveness, an outage restarted every tenant's API server, and then
/// all of them came at the datastore at once. Readiness has the check.
const LIVES: &str = "/livez?exclude=etcd";
/// The same for the startup probe, without which there is no readiness probe.
const STARTED: &str = "/livez?exclude=etcd&exclude=poststarthook/rbac/bootstrap-roles\
     &exclude=poststarthook/scheduling/bootstrap-system-priority-classes";

/// The checks of readiness that are left out where the overrides with these ordinals hold nothing
/// but events: a tenant serves without them. kube-apiserver numbers its checks so.
pub fn bear(readiness: &mut Probe, overrides: impl Iterator<Item = usize>) {
    let path = readiness
        .http_get
        .as_mut()
        .and_then(|get| get.path.as_mut());
    let Some(path) = path else { return };
    for at in overrides {
        for check in ["etcd-override", "etcd-override-readiness"] {
            path.push_str(&format!("&exclude={check}-{at}"));
        }
    }
}

/// Period, timeout and failures of a probe, in seconds and times.
#[derive(Clone, Copy)]
struct Pace {
    period: i32,
    timeout: i32,
    failures: i32,
}

/// Every second, so that a start is not lengthened by waiting for a probe; two
/// seconds of patience, because the start of many tenants slows a node down.
const READINESS: Pace = Pace {
    period: 1,
    timeout: 2,
    failures: 3,
};
/// Five minutes to start, looked at every second.
const STARTUP: Pace = Pace {
    period: 1,
    timeout: 2,
    failures: 300,
};
/// Restarting a control plane makes a crowded node worse: be slow to do it.
const LIVENESS: Pace = Pace {
    period: 10,
    timeout: 15,
    failures: 8,
};
/// The same without a startup probe before it. A pod is not Ready while a
/// startup probe of any container has not passed, and these two wait for the
/// API server, which does not wait for them.
const PATIENT: Pace = Pace {
    period: 10,
    timeout: 15,
    failures: 30,
};

/// The user's timing for one component: its own over the one for all.
#[derive(Default)]
struct Timing {
    liveness: Option<ProbeSpec>,
    readiness: Option<ProbeSpec>,
    startup: Option<ProbeSpec>,
}

impl Timing {
    fn of(probes: Option<&Probes>, component: Component) -> Self {
        let Some(probes) = probes else {
            return Timing::default();
        };
        let own = match component {
            Component::ApiServer => probes.api_server.as_ref(),
            Component::ControllerManager => probes.controller_manager.as_ref(),
            Component::Scheduler => probes.scheduler.as_ref(),
            Component::Kine => None,
        };
        let over = |own: Option<&ProbeSpec>, all: Option<&ProbeSpec>| match (own, all) {
            (Some(own), Some(all)) => Some(ProbeSpec {
                initial_delay_seconds: own.initial_delay_seconds.or(all.initial_delay_seconds),
                timeout_seconds: own.timeout_seconds.or(all.timeout_seconds),
                period_seconds: own.period_seconds.or(all.period_seconds),
                success_threshold: own.success_threshold.or(all.success_threshold),
                failure_threshold: own.failure_threshold.or(all.failure_threshold),
            }),
            (own, all) => own.or(all).cloned(),
        };
        Timing {
            liveness: over(
                own.and_then(|own| own.liveness.as_ref()),
                probes.liveness.as_ref(),
            ),
            readiness: over(
                own.and_then(|own| own.readiness.as_ref()),
                probes.readiness.as_ref(),
            ),
            startup: over(
                own.and_then(|own| own.startup.as_ref()),
                probes.startup.as_ref(),
            ),
        }
    }
}

fn probe(path: &str, port: i32, user: Option<ProbeSpec>, timing: Pace) -> Probe {
    let user = user.unwrap_or_default();
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: user.initial_delay_seconds,
        period_seconds: Some(user.period_seconds.unwrap_or(timing.period)),
        timeout_seconds: Some(user.timeout_seconds.unwrap_or(timing.timeout)),
        failure_threshold: Some(user.failure_threshold.unwrap_or(timing.failures)),
        success_threshold: Some(user.success_threshold.unwrap_or(1)),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(probe: &Probe) -> &str {
        let path = probe.http_get.as_ref().and_then(|get| get.path.as_deref());
        path.expect("a probe over HTTP")
    }

    #[test]
    fn a_datastore_that_is_away_restarts_nothing() {
        let set = of(Component::ApiServer, 6443, None);
        assert!(path(&set.liveness).contains("exclude=etcd"));
        assert!(path(set.startup.as_ref().unwrap()).contains("exclude=etcd"));
        let mut readiness = set.readiness.unwrap();
        assert!(!path(&readiness).contains("exclude=etcd"));
        bear(&mut readiness, [1].into_iter());
        let told = "&exclude=etcd-override-1&exclude=etcd-override-readiness-1";
        assert!(path(&readiness).ends_with(told), "{}", path(&readiness));
    }
}
