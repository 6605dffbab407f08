//! How much is said of a request: a Policy of `audit.k8s.io/v1` (R9.10). Pure.

pub mod file;

use serde::Deserialize;

use super::event::{Level, Stage};
use super::secrets;
use crate::authn::Identity;
use crate::authz::Attributes;

/// Rules in order; the first that matches counts, and without one nothing is said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    pub rules: Vec<Rule>,
    /// Of all rules, beside their own.
    pub omit_stages: Vec<Stage>,
    /// Of rules that say nothing about it.
    pub omit_managed_fields: bool,
}

/// For which requests, and how much. What is empty restricts nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub level: Level,
    pub users: Vec<String>,
    pub user_groups: Vec<String>,
    pub verbs: Vec<String>,
    pub resources: Vec<GroupResources>,
    /// The empty text stands for what has no namespace.
    pub namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: Option<bool>,
}

/// Resources of a group: `pods`, `pods/log`, `pods/*`, `*/scale`, `*`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupResources {
    /// Empty: the core group; `*`: any.
    pub group: String,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
}

/// What is said of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// What is said of a request. `who` is absent where nobody was recognised.
    pub fn verdict(&self, who: Option<&Identity>, what: &Attributes) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(who, what));
        let own = rule.map_or(&[][..], |rule| &rule.omit_stages);
        let level = rule.map_or(Level::None, |rule| rule.level);
        Verdict {
            level: match secrets::are_carried(what) {
                true => level.min(Level::Metadata),
                false => level,
            },
            omit_stages: self.omit_stages.iter().chain(own).copied().collect(),
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn matches(&self, who: Option<&Identity>, what: &Attributes) -> bool {
        let is_among = |list: &[String], text: &String| list.is_empty() || list.contains(text);
        let user = self.users.is_empty() || who.is_some_and(|who| self.users.contains(&who.user));
        let groups = || who.map_or(&[][..], |who| &who.groups);
        let group = self.user_groups.is_empty()
            || groups()
                .iter()
                .any(|group| self.user_groups.contains(group));
        if !user || !group || !is_among(&self.verbs, &what.verb) {
            return false;
        }
        match &what.path {
            _ if !self.namespaces.is_empty() || !self.resources.is_empty() => {
                what.path.is_none()
                    && is_among(&self.namespaces, &what.namespace)
                    && self.matches_resource(what)
            }
            _ if self.non_resource_urls.is_empty() => true,
            Some(path) => self.non_resource_urls.iter().any(|url| is_path(url, path)),
            None => false,
        }
    }

    fn matches_resource(&self, what: &Attributes) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|entry| entry.matches(what))
    }
}

impl GroupResources {
    fn matches(&self, what: &Attributes) -> bool {
        if self.group != "*" && self.group != what.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&what.name);
        named && self.resources.iter().any(|entry| is_resource(entry, what))
    }
}

fn is_resource(entry: &str, what: &Attributes) -> bool {
    let (resource, subresource) = (what.resource.as_str(), what.subresource.as_str());
    if entry == "*" {
        return true;
    }
    match entry.split_once('/') {
        None => entry == resource && subresource.is_empty(),
        // As by Kubernetes, `pods/*` is also the pod itself.
        Some((of, "*")) if of == resource => true,
        Some(("*", part)) => !subresource.is_empty() && part == subresource,
        Some((of, part)) => of == resource && !subresource.is_empty() && part == subresource,
    }
}

fn is_path(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => url == path,
    }
}

#[cfg(test)]
mod tests;
