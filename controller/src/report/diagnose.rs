//! Why a tenant's pods do not run, in words: from the states that kubelet,
//! scheduler and the Deployment's controller leave behind to one reason and
//! what to do about it.

use apiservice::condition::reason;
use apiservice::names::container;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};

use crate::tenant::World;

/// One reason and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One of [`apiservice::condition::reason`].
    pub reason: &'static str,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// Events older than this tell of troubles that may be over.
const FRESH: SignedDuration = SignedDuration::from_mins(3);
/// Longest quotation of somebody else's words in a message, in characters.
const QUOTE: usize = 300;

/// The nearest cause for pods that do not serve, or `None` if nothing but time
/// seems to be missing.
pub fn of_pods(world: &World) -> Option<Trouble> {
    refused(world)
        .or_else(|| living(world).find_map(|pod| of_containers(world, pod)))
        .or_else(|| living(world).find_map(unscheduled))
        .or_else(|| living(world).find_map(|pod| not_started(world, pod)))
}

fn living(world: &World) -> impl Iterator<Item = &Pod> {
    let pods = world.pods.iter().map(AsRef::as_ref);
    pods.filter(|pod: &&Pod| pod.metadata.deletion_timestamp.is_none())
}

/// The Deployment's controller could not create pods.
fn refused(world: &World) -> Option<Trouble> {
    let deployment = world.deployment().into_iter().flat_map(|deployment| {
        let status = deployment.status.as_ref();
        status
            .into_iter()
            .flat_map(|status| status.conditions.iter().flatten())
    });
    let deployment = deployment
        .filter(|it| it.type_ == "ReplicaFailure" && it.status == "True")
        .map(|it| it.message.clone());
    let sets = world.replica_sets.iter().flat_map(|set| {
        let status = set.status.as_ref();
        status
            .into_iter()
            .flat_map(|status| status.conditions.iter().flatten())
    });
    let sets = sets
        .filter(|it| it.type_ == "ReplicaFailure" && it.status == "True")
        .map(|it| it.message.clone());
    let message = deployment.chain(sets).flatten().next()?;
    Some(if message.contains("exceeded quota") {
        Trouble {
            reason: reason::QUOTA_EXCEEDED,
            message: format!(
                "A quota of namespace {} leaves no room for the pods: {}. Raise it or lower \
                 spec.controlPlane.deployment.resources.",
                world.namespace(),
                quote(&message)
            ),
        }
    } else {
        Trouble {
            reason: reason::POD_REJECTED,
            message: format!(
                "The management cluster refuses the pods: {}. Change what the message names in \
                 spec.controlPlane.deployment, or the policy.",
                quote(&message)
            ),
        }
    })
}

fn of_containers(world: &World, pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let all = || status.container_statuses.iter().flatten();
    // They come by their names, and what holds up the API server says more.
    let is_tunnel = |it: &&ContainerStatus| it.name == container::KONNECTIVITY;
    init.chain(all().filter(|it| !is_tunnel(it)))
        .chain(all().filter(is_tunnel))
        .find_map(|container| of_container(world, pod, container))
}

fn of_container(world: &World, pod: &Pod, container: &ContainerStatus) -> Option<Trouble> {
    let state = container.state.as_ref()?;
    if let Some(ended) = state
        .terminated
        .as_ref()
        .filter(|ended| ended.exit_code != 0)
    {
        return Some(crashed(container, Some(ended)));
    }
    let waiting = state.waiting.as_ref()?;
    let said = waiting.message.clone().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ErrImageNeverPull" => {
            let said = pull_error(world, pod, &said);
            Some(unpulled(container, &said))
        }
        "InvalidImageName" => Some(Trouble {
            reason: reason::IMAGE_NOT_FOUND,
            message: format!(
                "{:?} is not the name of an image. Correct \
                 spec.controlPlane.deployment.registrySettings.",
                container.image
            ),
        }),
        "CrashLoopBackOff" => {
            let last = container
                .last_state
                .as_ref()
                .and_then(|last| last.terminated.as_ref());
            Some(crashed(container, last))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Trouble {
                reason: reason::CONTAINER_CONFIG_INVALID,
                message: format!(
                    "Container {} cannot be started: {}. Check what \
                     spec.controlPlane.deployment mounts and refers to.",
                    container.name,
                    quote(&said)
                ),
            })
        }
        _ => None,
    }
}

/// What the registry said. While backing off, kubelets of older versions say
/// it in events only.
fn pull_error(world: &World, pod: &Pod, said: &str) -> String {
    let short = said.is_empty() || (said.starts_with("Back-off") && !said.contains("rror"));
    if !short {
        return said.to_owned();
    }
    let event = fresh(world, pod).find(|event| {
        event.reason.as_deref() == Some("Failed")
            && event
                .message
                .as_deref()
                .is_some_and(|message| message.contains("pull"))
    });
    event
        .and_then(|event| event.message.clone())
        .unwrap_or_else(|| said.to_owned())
}

fn unpulled(container: &ContainerStatus, said: &str) -> Trouble {
    let image = &container.image;
    let settings = match container.name.as_str() {
        container::KONNECTIVITY => "spec.addons.konnectivity.server",
        container::KINE => "controller.kine.image of the installation's values",
        _ => "spec.kubernetes.version and spec.controlPlane.deployment.registrySettings",
    };
    let lower = said.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    // Docker's registry answers "denied" both for what is private and for
    // what does not exist, and some say both in one line: the more certain
    // words first.
    if any(&[
        "manifest unknown",
        "not found",
        "does not exist",
        "name unknown",
    ]) && !any(&["no such host", "lookup "])
    {
        return Trouble {
            reason: reason::IMAGE_NOT_FOUND,
            message: format!(
                "Image {image} does not exist. Check {settings}. ({})",
                quote(said)
            ),
        };
    }
    let remedy = if any(&["unauthorized", "denied", "forbidden", "401", "403"]) {
        "The registry refuses access: give the ServiceAccount of the pods an imagePullSecret."
    } else if container.name == container::KINE {
        "Check that the nodes reach the registry, or name another one in controller.kine.image \
         of the installation's values."
    } else {
        "Check that the nodes reach the registry, or name another one in \
         spec.controlPlane.deployment.registrySettings.registry."
    };
    Trouble {
        reason: reason::IMAGE_PULL_FAILED,
        message: format!("Image {image} cannot be pulled. {remedy} ({})", quote(said)),
    }
}

fn crashed(container: &ContainerStatus, last: Option<&ContainerStateTerminated>) -> Trouble {
    let how = match last {
        Some(last) if last.reason.as_deref() == Some("OOMKilled") => {
            return Trouble {
                reason: reason::CRASH_LOOP,
                message: format!(
                    "Container {} needs more memory than its limit. Raise \
                     spec.controlPlane.deployment.resources.",
                    container.name
                ),
            };
        }
        Some(last) => {
            let said = last
                .message
                .as_deref()
                .map(|said| tail(said.trim()))
                .unwrap_or_default();
            format!("with code {}: {said}", last.exit_code)
        }
        None => "again and again".to_owned(),
    };
    let times = match container.restart_count {
        ..=1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let arguments = match container.name.as_str() {
        container::KONNECTIVITY => "spec.addons.konnectivity.server.extraArgs",
        _ => "spec.controlPlane.deployment.extraArgs",
    };
    Trouble {
        reason: reason::CRASH_LOOP,
        message: format!(
            "Container {} has ended {times}, last {how}. Check {arguments} and the container's log.",
            container.name,
        ),
    }
}

fn unscheduled(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|it| {
        it.type_ == "PodScheduled"
            && it.status == "False"
            && it.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(Trouble {
        reason: reason::UNSCHEDULABLE,
        message: format!(
            "No node takes the pods: {}. Add nodes, or change requests, nodeSelector, tolerations \
             or affinity in spec.controlPlane.deployment.",
            quote(found.message.as_deref().unwrap_or_default())
        ),
    })
}

/// A pod that is on a node and has no container yet, with a complaint.
fn not_started(world: &World, pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let started = status.container_statuses.iter().flatten();
    if started
        .into_iter()
        .any(|it| it.state.as_ref().is_some_and(|it| it.waiting.is_none()))
    {
        return None;
    }
    fresh(world, pod).find_map(|event| {
        let said = quote(event.message.as_deref().unwrap_or_default());
        match event.reason.as_deref()? {
            "FailedMount" | "FailedAttachVolume" => Some(Trouble {
                reason: reason::VOLUME_NOT_MOUNTED,
                message: format!("A volume cannot be mounted: {said}."),
            }),
            "FailedCreatePodSandBox" => Some(Trouble {
                reason: reason::POD_NOT_STARTED,
                message: format!(
                    "The node cannot set a pod up: {said}. Look at its network plug-in and \
                     container runtime."
                ),
            }),
            _ => None,
        }
    })
}

/// Recent events about a pod.
fn fresh<'a>(world: &'a World, pod: &'a Pod) -> impl Iterator<Item = &'a Event> {
    let events = world.events.iter().map(AsRef::as_ref);
    events.filter(move |event: &&Event| {
        event.involved_object.uid == pod.metadata.uid
            && seen(event).is_none_or(|at| world.now.duration_since(at) <= FRESH)
    })
}

fn seen(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let event_time = event.event_time.as_ref().map(|time| time.0);
    series.map(|time| time.0).or(last).or(event_time)
}

/// What keeps a load balancer from giving an address, if its controller says.
pub fn of_service(world: &World) -> Option<String> {
    let uid = world.service()?.metadata.uid.as_ref()?;
    let event = world.events.iter().find(|event| {
        event.involved_object.uid.as_ref() == Some(uid)
            && event.type_.as_deref() == Some("Warning")
            && seen(event).is_none_or(|at| world.now.duration_since(at) <= FRESH)
    })?;
    event.message.as_deref().map(quote)
}

/// Somebody else's words on one line, cut, and without the last full stop.
pub fn quote(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = without_codes(&line);
    let line = line.trim_end_matches('.');
    let mut cut: String = line.chars().take(QUOTE).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}

/// Without the numbers that the operating system gives errors: the words beside
/// them say the same.
fn without_codes(line: &str) -> String {
    let mut rest = line;
    let mut found = String::with_capacity(line.len());
    while let Some(start) = rest.find(" (os error ") {
        let Some(length) = rest[start..].find(')') else {
            break;
        };
        found.push_str(&rest[..start]);
        rest = &rest[start + length + 1..];
    }
    found.push_str(rest);
    found
}

/// The end of a log, where the cause stands.
fn tail(said: &str) -> String {
    let line = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let skip = line.chars().count().saturating_sub(QUOTE);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_words_without_codes_and_show_where_they_were_cut() {
        assert_eq!(
            quote("connect:\n refused (os error 111); again (os error 111)."),
            "connect: refused; again"
        );
        assert_eq!(quote("cut (os error"), "cut (os error");
        let long = quote(&"word ".repeat(QUOTE));
        assert!(long.ends_with('…'), "{long}");
        assert_eq!(long.chars().count(), QUOTE + 1);
    }
}
