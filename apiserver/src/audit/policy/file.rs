//! A policy as it is written: read and checked in Kubernetes' words. Once, at start: as by
//! kube-apiserver, another policy is another start.

use std::path::{Path as FilePath, PathBuf};

use apiservice::field::{self, Path};
use apiservice::forms;
use serde_json::{Map, Value};

use super::Policy;
use crate::decode::{self, Media, Unreadable};

const API_VERSION: &str = "audit.k8s.io/v1";
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [&str; 4] = [
    "RequestReceived",
    "ResponseStarted",
    "ResponseComplete",
    "Panic",
];
const FIELDS: [&str; 6] = [
    "kind",
    "apiVersion",
    "metadata",
    "rules",
    "omitStages",
    "omitManagedFields",
];
const RULE: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];
const RESOURCES: [&str; 3] = ["group", "resources", "resourceNames"];

/// Why a policy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("loading audit policy file: failed to read file path {path:?}: {error}")]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("loading audit policy file: {why}: from file {}", path.display())]
    Policy { path: PathBuf, why: String },
}

/// The policy in a file.
///
/// # Errors
/// When it cannot be read or is not a valid policy.
pub fn load(path: &FilePath) -> Result<Policy, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        error,
    })?;
    let (policy, unknown) = parse(&bytes).map_err(|why| Error::Policy {
        path: path.to_owned(),
        why,
    })?;
    if !unknown.is_empty() {
        // As by Kubernetes: what a newer release may know stops nobody.
        tracing::warn!(
            unknown = unknown.join(", "),
            "the audit policy contains errors, falling back to lenient decoding"
        );
    }
    Ok(policy)
}

/// The policy, and what a strict reader has to say about it.
fn parse(bytes: &[u8]) -> Result<(Policy, Vec<String>), String> {
    let parsed = decode::parse(Media::Either, bytes).map_err(|error| match error {
        // Not in the decoder's words: they may quote it, and it may be another file.
        Unreadable::Syntax(_) | Unreadable::Message(_) => {
            format!("failed decoding: {}", place(bytes))
        }
        Unreadable::TooMany => "failed decoding: the file is too large".to_owned(),
    })?;
    let (value, mut strict) = (parsed.value, parsed.duplicates);
    is_a_policy(&value).map_err(|why| format!("failed decoding: {why}"))?;
    let problems = problems(&value);
    if !problems.is_empty() {
        return Err(problems.summary());
    }
    strict.extend(unknown_fields(&value));
    let policy: Policy =
        serde_json::from_value(value).map_err(|error| format!("failed decoding: {error}"))?;
    if policy.rules.is_empty() {
        return Err("loaded illegal policy with 0 rules".to_owned());
    }
    Ok((policy, strict))
}

/// Where a file cannot be read.
fn place(bytes: &[u8]) -> String {
    let read = serde_saphyr::from_slice::<serde::de::IgnoredAny>(bytes);
    match read.err().and_then(|error| error.location()) {
        Some(at) => format!("it is no YAML: line {}, column {}", at.line(), at.column()),
        None => "it is no YAML".to_owned(),
    }
}

fn is_a_policy(value: &Value) -> Result<(), String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        (_, "") => Err("Object 'Kind' is missing".to_owned()),
        ("", _) => Err("Object 'apiVersion' is missing".to_owned()),
        (API_VERSION, "Policy") => Ok(()),
        (version, kind) => Err(format!(
            "no kind {kind:?} is registered for version {version:?}"
        )),
    }
}

/// What is not valid. Values of another type are told when it is decoded.
fn problems(value: &Value) -> field::Errors {
    let mut found = stages(&value["omitStages"], &Path::new("omitStages"));
    let rules = value["rules"].as_array().into_iter().flatten();
    for (position, rule) in rules.enumerate() {
        let path = Path::new("rules").index(position);
        found.extend(level(&rule["level"], &path.child("level")));
        let urls = path.child("nonResourceURLs");
        found.append(paths(&rule["nonResourceURLs"], &urls));
        found.append(resources(&rule["resources"], &path.child("resources")));
        found.append(stages(&rule["omitStages"], &path.child("omitStages")));
        let some = |key: &str| rule[key].as_array().is_some_and(|list| !list.is_empty());
        if some("nonResourceURLs") && (some("resources") || some("namespaces")) {
            found.push(field::Error::invalid(
                &urls,
                rule["nonResourceURLs"].clone(),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
    }
    found
}

fn level(value: &Value, path: &Path) -> Option<field::Error> {
    match value.as_str() {
        None | Some("") => Some(field::Error::required(path, "")),
        Some(level) if LEVELS.contains(&level) => None,
        Some(level) => Some(field::Error::not_supported(path, level, &LEVELS)),
    }
}

fn stages(value: &Value, path: &Path) -> field::Errors {
    let invalid = texts(value).filter(|(_, stage)| !STAGES.contains(stage));
    let detail = || format!("allowed stages are {}", STAGES.join(","));
    invalid
        .map(|(position, stage)| field::Error::invalid(&path.index(position), stage, detail()))
        .collect()
}

fn paths(value: &Value, path: &Path) -> field::Errors {
    let mut found = field::Errors::new();
    for (position, url) in texts(value).filter(|(_, url)| *url != "*") {
        let mut invalid = |detail: &str| {
            found.push(field::Error::invalid(&path.index(position), url, detail));
        };
        if !url.starts_with('/') {
            invalid("non-resource URL rules must begin with a '/' character");
        }
        if url
            .char_indices()
            .any(|(at, c)| c == '*' && at + 1 < url.len())
        {
            invalid("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    found
}

fn resources(value: &Value, path: &Path) -> field::Errors {
    let mut found = field::Errors::new();
    // Kubernetes names the list and not the entry.
    for entry in value.as_array().into_iter().flatten() {
        let group = entry["group"].as_str().unwrap_or_default();
        let complaints = match group {
            "" | "*" => Vec::new(),
            group => forms::subdomain_complaints(group),
        };
        if !complaints.is_empty() {
            let detail = complaints.join(",");
            found.push(field::Error::invalid(&path.child("group"), group, detail));
        }
        let some = |key: &str| entry[key].as_array().is_some_and(|list| !list.is_empty());
        if some("resourceNames") && !some("resources") {
            found.push(field::Error::invalid(
                &path.child("resourceNames"),
                entry["resourceNames"].clone(),
                "using resourceNames requires at least one resource",
            ));
        }
    }
    found
}

fn texts(value: &Value) -> impl Iterator<Item = (usize, &str)> {
    let list = value.as_array().into_iter().flatten().enumerate();
    list.filter_map(|(position, text)| Some((position, text.as_str()?)))
}

fn unknown_fields(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |object: Option<&Map<String, Value>>, known: &[&str], path: &str| {
        let keys = object.into_iter().flat_map(Map::keys);
        let unknown = keys.filter(|key| !known.contains(&key.as_str()));
        found.extend(unknown.map(|key| format!("unknown field \"{path}{key}\"")));
    };
    look(value.as_object(), &FIELDS, "");
    let rules = value["rules"].as_array().into_iter().flatten();
    for (rule, position) in rules.zip(0..) {
        look(rule.as_object(), &RULE, &format!("rules[{position}]."));
        let entries = rule["resources"].as_array().into_iter().flatten();
        for (entry, at) in entries.zip(0..) {
            let path = format!("rules[{position}].resources[{at}].");
            look(entry.as_object(), &RESOURCES, &path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &str) -> String {
        format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rules}]}}")
    }

    fn refusal(policy: &str) -> String {
        parse(policy.as_bytes()).unwrap_err()
    }

    /// R9.10.
    #[test]
    fn a_policy_is_refused_in_kubernetes_words() {
        let required = "rules[0].level: Required value";
        let level = r#"rules[0].level: Unsupported value: "Most": supported values: "None", "Metadata", "Request", "RequestResponse""#;
        let slash = r#"rules[0].nonResourceURLs[0]: Invalid value: "a": non-resource URL rules must begin with a '/' character"#;
        let star = r#"rules[0].nonResourceURLs[1]: Invalid value: "/*/a": non-resource URL wildcards '*' must be the final character of the rule"#;
        let both = r#"rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#;
        let stage = r#"rules[0].omitStages[0]: Invalid value: "Last": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"#;
        let names = r#"rules[0].resources.resourceNames: Invalid value: ["a"]: using resourceNames requires at least one resource"#;
        for (rule, expected) in [
            ("{}", required),
            ("{level: Most}", level),
            ("{level: None, nonResourceURLs: [a]}", slash),
            ("{level: None, nonResourceURLs: ['*', '/*/a']}", star),
            (
                "{level: None, nonResourceURLs: [/a], namespaces: [b]}",
                both,
            ),
            ("{level: None, omitStages: [Last]}", stage),
            ("{level: None, resources: [{resourceNames: [a]}]}", names),
        ] {
            assert_eq!(refusal(&rules(rule)), expected);
        }
        let group = refusal(&rules("{level: None, resources: [{group: a/v1}]}"));
        let expected = r#"rules[0].resources.group: Invalid value: "a/v1": a lowercase RFC 1123 subdomain must"#;
        assert!(group.starts_with(expected), "{group}");
        let two = refusal(&rules("{level: Most}, {}"));
        assert_eq!(two, format!("[{level}, rules[1].level: Required value]"));
        assert_eq!(refusal(&rules("")), "loaded illegal policy with 0 rules");
    }

    /// R9.10.
    #[test]
    fn what_is_no_policy_is_refused() {
        for (text, expected) in [
            ("", "failed decoding: "),
            ("[]", "failed decoding: Object 'Kind' is missing"),
            (
                "kind: Policy",
                "failed decoding: Object 'apiVersion' is missing",
            ),
            (
                "{apiVersion: audit.k8s.io/v1beta1, kind: Policy}",
                r#"failed decoding: no kind "Policy" is registered for version "audit.k8s.io/v1beta1""#,
            ),
            (
                &rules("{level: None, users: a}"),
                "failed decoding: invalid type: string",
            ),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        for text in [
            "a: [1\nb: hunter2",
            "a: *hunter2",
            "a: \"hunter2",
            "- !!hunter2 : }",
        ] {
            let refusal = refusal(text);
            assert!(
                refusal.starts_with("failed decoding: it is no YAML"),
                "{refusal}"
            );
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
        let error = load(FilePath::new("/nowhere/policy.yaml"))
            .unwrap_err()
            .to_string();
        let expected =
            r#"loading audit policy file: failed to read file path "/nowhere/policy.yaml": "#;
        assert!(error.starts_with(expected), "{error}");
    }

    /// R9.10: unknown fields are told and stop nobody.
    #[test]
    fn unknown_fields_are_told() {
        let text = rules("{level: None, user: [a], resources: [{kind: b}]}");
        let (policy, strict) = parse(text.as_bytes()).unwrap();
        assert_eq!(policy.rules.len(), 1);
        let expected = [
            r#"unknown field "rules[0].user""#,
            r#"unknown field "rules[0].resources[0].kind""#,
        ];
        assert_eq!(strict, expected);
        let whole = "
            apiVersion: audit.k8s.io/v1
            kind: Policy
            metadata: {name: a}
            omitStages: [RequestReceived]
            omitManagedFields: true
            rules:
            - level: RequestResponse
              users: [a]
              userGroups: [b]
              verbs: [get]
              resources: [{group: g, resources: [r], resourceNames: [a]}]
              namespaces: ['']
              omitStages: [Panic]
              omitManagedFields: false
            - {level: None, nonResourceURLs: ['/a*']}";
        let (policy, strict) = parse(whole.as_bytes()).unwrap();
        assert!(strict.is_empty(), "{strict:?}");
        assert!(policy.omit_managed_fields);
        assert_eq!(policy.rules[0].omit_managed_fields, Some(false));
        assert_eq!(policy.rules[1].non_resource_urls, ["/a*"]);
    }
}
