//! Arguments of containers, made of three layers and read back.
//!
//! Managed flags always win, because certificates, addresses and storage hang on them; defaults
//! hold unless the user sets the same flag; the user's flags follow as they are written, in
//! their order, repeated or not.

use apiservice::names::container;
use apiservice::v1alpha1::{Component, flag_name, managed_flags};
use k8s_openapi::api::apps::v1::Deployment;

/// Names and values.
pub type Flags = Vec<(&'static str, String)>;

/// [`layers`] of a component. Where its data is, is nobody else's to say, also where this
/// tenant's API server is started without the flags of another driver.
pub fn layers_of(
    component: Component,
    managed: Flags,
    defaults: Flags,
    extra: &[String],
) -> Vec<String> {
    let of_data = |flag: &&&str| component == Component::Kine || flag.starts_with("etcd-");
    let reserved: Vec<&str> = managed_flags(component)
        .iter()
        .filter(of_data)
        .copied()
        .collect();
    let extra: Vec<String> = extra
        .iter()
        .filter(|argument| !reserved.contains(&flag_name(argument).as_str()))
        .cloned()
        .collect();
    layers(managed, defaults, &extra)
}

/// The arguments out of managed flags, defaults and what the user adds.
pub(super) fn layers(mut managed: Flags, defaults: Flags, extra: &[String]) -> Vec<String> {
    managed.extend(defaults.into_iter().filter(|(name, _)| {
        let replaced = match *name {
            // Both say who decides about access.
            "authorization-mode" => names(extra, "authorization-config"),
            _ => false,
        };
        !replaced && !names(extra, name)
    }));
    managed.sort_unstable();
    let ours: Vec<&str> = managed.iter().map(|(name, _)| *name).collect();
    let kept = extra
        .iter()
        .filter(|argument| !ours.contains(&flag_name(argument).as_str()))
        .cloned();
    let written = managed
        .iter()
        .map(|(name, value)| format!("--{name}={value}"));
    written.chain(kept).collect()
}

/// The value of an argument that the API server of a Deployment is started with.
pub fn api_server_argument<'a>(of: &'a Deployment, flag: &str) -> Option<&'a str> {
    let pod = of.spec.as_ref()?.template.spec.as_ref()?;
    let mut containers = pod.containers.iter();
    let server = containers.find(|it| it.name == container::API_SERVER)?;
    let mut arguments = server.args.iter().flatten();
    arguments.find_map(|it| it.strip_prefix("--")?.strip_prefix(flag)?.strip_prefix('='))
}

fn names(extra: &[String], name: &str) -> bool {
    extra.iter().any(|argument| flag_name(argument) == name)
}
