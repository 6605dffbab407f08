//! Validation of `metadata`, in Kubernetes' words (contract 3.12).

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::field::{Error, MAX_ERRORS, Path};
use crate::resource::{Resource, Scope};

/// What names a kind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain, as most kinds.
    Subdomain,
    /// A DNS label that begins with a letter, because a Service gets the name.
    ServiceLabel,
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SERVICE_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SERVICE_LABEL_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A text that must match a pattern as a whole.
struct Form {
    pattern: &'static str,
    regex: LazyLock<Option<Regex>>,
}

macro_rules! form {
    ($pattern:expr) => {
        Form {
            pattern: $pattern,
            // The patterns above are constants that a test compiles.
            regex: LazyLock::new(|| Regex::new(&format!("^(?:{})$", $pattern)).ok()),
        }
    };
}

static LABEL_FORM: Form = form!(LABEL);
static SUBDOMAIN_FORM: Form = form!(SUBDOMAIN);
static SERVICE_LABEL_FORM: Form = form!(SERVICE_LABEL);
static QUALIFIED_FORM: Form = form!(QUALIFIED);
static LABEL_VALUE_FORM: Form = form!(LABEL_VALUE);

impl Form {
    fn takes(&self, text: &str) -> bool {
        self.regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }

    /// The complaint about a text, if it does not match.
    fn complaint(&self, text: &str, words: &str, examples: &[&str]) -> Option<String> {
        (!self.takes(text)).then(|| {
            let examples: Vec<String> = examples.iter().map(|one| format!("'{one}'")).collect();
            format!(
                "{words} (e.g. {}, regex used for validation is '{}')",
                examples.join(",  or "),
                self.pattern
            )
        })
    }
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// What is wrong with a DNS-1123 label, such as a namespace's name.
pub fn label_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 63).then(|| too_long(63));
    let form = LABEL_FORM.complaint(text, LABEL_TEXT, &["my-name", "123-abc"]);
    let form = form.map(|form| match SUBDOMAIN_FORM.takes(text) {
        true => "must not contain dots".to_owned(),
        false => form,
    });
    long.into_iter().chain(form).collect()
}

/// What is wrong with a DNS-1123 subdomain.
pub fn subdomain_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 253).then(|| too_long(253));
    let form = SUBDOMAIN_FORM.complaint(text, SUBDOMAIN_TEXT, &["example.com"]);
    long.into_iter().chain(form).collect()
}

/// What is wrong with the key of a label or annotation, or with a finalizer.
pub fn qualified_name_complaints(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut all = Vec::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                all.push("prefix part must be non-empty".to_owned());
            } else {
                let complaints = subdomain_complaints(prefix);
                all.extend(complaints.iter().map(|one| format!("prefix part {one}")));
            }
            name
        }
        _ => {
            let form = Form::complaint(&QUALIFIED_FORM, "/", QUALIFIED_TEXT, &examples);
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                form.unwrap_or_default()
            )];
        }
    };
    if name.is_empty() {
        all.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        all.push(format!("name part {}", too_long(63)));
    }
    if let Some(form) = QUALIFIED_FORM.complaint(name, QUALIFIED_TEXT, &examples) {
        all.push(format!("name part {form}"));
    }
    all
}

/// What is wrong with the value of a label.
pub fn label_value_complaints(text: &str) -> Vec<String> {
    let long = (text.len() > 63).then(|| too_long(63));
    let examples = ["MyValue", "my_value", "12345"];
    let form = LABEL_VALUE_FORM.complaint(text, LABEL_VALUE_TEXT, &examples);
    long.into_iter().chain(form).collect()
}

impl NameRule {
    /// What is wrong with a name; `prefix` if something will be appended.
    pub fn complaints(self, name: &str, prefix: bool) -> Vec<String> {
        // A prefix may end in a dash, since more follows.
        let masked = match name.strip_suffix('-') {
            Some(start) if prefix && !start.is_empty() => format!("{start}a"),
            _ => name.to_owned(),
        };
        match self {
            Self::Subdomain => subdomain_complaints(&masked),
            Self::ServiceLabel => {
                let long = (masked.len() > 63).then(|| too_long(63));
                let examples = ["my-name", "abc-123"];
                let form = SERVICE_LABEL_FORM.complaint(&masked, SERVICE_LABEL_TEXT, &examples);
                long.into_iter().chain(form).collect()
            }
        }
    }
}

/// What is wrong with the metadata of an object: on create when `old` is
/// `None`, else on the change from it.
pub fn validate_metadata(meta: &Value, old: Option<&Value>, resource: &Resource) -> Vec<Error> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    match old {
        None => created(meta, resource.scope, resource.name_rule, &path, &mut errors),
        Some(old) => updated(meta, old, &path, &mut errors),
    }
    maps(meta, &path, &mut errors);
    owners(meta, &path.child("ownerReferences"), &mut errors);
    finalizers(meta, &path.child("finalizers"), &mut errors);
    managers(meta, &path.child("managedFields"), &mut errors);
    errors
}

/// R3.80: what a client says about managers and could be read.
fn managers(meta: &Value, path: &Path, errors: &mut Vec<Error>) {
    let list = meta.get("managedFields").and_then(Value::as_array);
    for (position, entry) in list.into_iter().flatten().enumerate() {
        let path = path.index(position);
        let name = text(entry, "manager");
        if name.len() > MAX_MANAGER {
            errors.push(Error::too_long(&path.child("manager"), MAX_MANAGER as u64));
        }
        let hidden = name.char_indices().find(|(_, c)| c.is_control());
        if let Some((position, c)) = hidden {
            let code = u32::from(c);
            let detail = format!("invalid character U+{code:04X} (at position {position})");
            errors.push(Error::invalid(&path.child("manager"), name, detail));
        }
        if text(entry, "subresource").len() > MAX_SUBRESOURCE {
            let path = path.child("subresource");
            errors.push(Error::too_long(&path, MAX_SUBRESOURCE as u64));
        }
        if errors.len() >= MAX_ERRORS {
            return;
        }
    }
}

/// Bytes of the name of a manager of fields.
pub const MAX_MANAGER: usize = 128;
/// Bytes of the name of its subresource.
const MAX_SUBRESOURCE: usize = 256;

fn text<'a>(meta: &'a Value, field: &str) -> &'a str {
    meta.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts<'a>(meta: &'a Value, field: &str) -> Vec<&'a str> {
    let list = meta.get(field).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn created(meta: &Value, scope: Scope, rule: NameRule, path: &Path, errors: &mut Vec<Error>) {
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        for complaint in rule.complaints(generate, true) {
            errors.push(Error::invalid(
                &path.child("generateName"),
                generate,
                complaint,
            ));
        }
    }
    let name = text(meta, "name");
    if name.is_empty() {
        let detail = "name or generateName is required";
        errors.push(Error::required(&path.child("name"), detail));
    } else {
        for complaint in rule.complaints(name, false) {
            errors.push(Error::invalid(&path.child("name"), name, complaint));
        }
    }
    let namespace = text(meta, "namespace");
    let at = path.child("namespace");
    match scope {
        Scope::Namespaced if namespace.is_empty() => errors.push(Error::required(&at, "")),
        Scope::Namespaced => {
            for complaint in label_complaints(namespace) {
                errors.push(Error::invalid(&at, namespace, complaint));
            }
        }
        Scope::Cluster if !namespace.is_empty() => {
            errors.push(Error::forbidden(&at, "not allowed on this type"));
        }
        Scope::Cluster => {}
    }
}

fn updated(meta: &Value, old: &Value, path: &Path, errors: &mut Vec<Error>) {
    if old
        .get("deletionTimestamp")
        .is_some_and(|time| !time.is_null())
    {
        let before: HashSet<&str> = texts(old, "finalizers").into_iter().collect();
        let mut added = texts(meta, "finalizers");
        added.retain(|name| !before.contains(name));
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            // One message is told of them, however many there are.
            let names = added.iter().take(MAX_ERRORS);
            let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                names.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), detail));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (new, before) = (meta.get(field), old.get(field));
        let absent = |value: Option<&Value>| value.is_none_or(Value::is_null);
        if new != before && !(absent(new) && absent(before)) {
            let value = new.cloned().unwrap_or_default();
            errors.push(Error::invalid(
                &path.child(field),
                value,
                "field is immutable",
            ));
        }
    }
}

fn maps(meta: &Value, path: &Path, errors: &mut Vec<Error>) {
    let none = Map::new();
    let map = |field: &str| meta.get(field).and_then(Value::as_object).unwrap_or(&none);
    let labels = path.child("labels");
    for (key, value) in map("labels") {
        for complaint in qualified_name_complaints(key) {
            errors.push(Error::invalid(&labels, key.as_str(), complaint));
        }
        let value = value.as_str().unwrap_or_default();
        for complaint in label_value_complaints(value) {
            errors.push(Error::invalid(&labels, value, complaint));
        }
    }
    let annotations = path.child("annotations");
    let mut size = 0;
    for (key, value) in map("annotations") {
        for complaint in qualified_name_complaints(&key.to_lowercase()) {
            errors.push(Error::invalid(&annotations, key.as_str(), complaint));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(&annotations, ANNOTATIONS_MAX as u64));
    }
}

fn owners(meta: &Value, path: &Path, errors: &mut Vec<Error>) {
    let Some(references) = meta.get("ownerReferences").and_then(Value::as_array) else {
        return;
    };
    let mut controller: Option<String> = None;
    for reference in references {
        let api_version = text(reference, "apiVersion");
        // The version is what follows the group; "v1" has no group.
        if api_version.rsplit('/').next().is_none_or(str::is_empty) {
            let detail = "version must not be empty";
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                api_version,
                detail,
            ));
        }
        for field in ["kind", "name", "uid"] {
            if text(reference, field).is_empty() {
                errors.push(Error::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if api_version == "v1" && text(reference, "kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, reference.clone(), detail));
        }
        if reference.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text(reference, "kind"), text(reference, "name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(Error::invalid(path, references.clone(), detail));
                }
            }
        }
    }
}

fn finalizers(meta: &Value, path: &Path, errors: &mut Vec<Error>) {
    let all = texts(meta, "finalizers");
    for &name in &all {
        for complaint in qualified_name_complaints(name) {
            errors.push(Error::invalid(path, name, complaint));
        }
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, all, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts_of(meta: Value, old: Option<Value>) -> Vec<String> {
        let tenants = crate::find("tenantcontrolplanes").unwrap();
        validate_metadata(&meta, old.as_ref(), tenants)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// R3.77.
    #[test]
    fn names_are_judged_by_the_rule_of_the_kind() {
        assert!(texts_of(json!({"name": "tenant-1", "namespace": "a"}), None).is_empty());
        assert!(
            texts_of(
                json!({"name": "t-1", "generateName": "t-", "namespace": "a"}),
                None
            )
            .is_empty()
        );
        assert_eq!(
            texts_of(json!({"name": "1a", "namespace": "a"}), None),
            [
                "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            texts_of(json!({}), None),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            subdomain_complaints("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        let long = "a".repeat(64);
        assert_eq!(
            NameRule::ServiceLabel.complaints(&long, false),
            ["must be no more than 63 bytes"]
        );
    }

    /// R3.66, R3.79.
    #[test]
    fn labels_annotations_owners_and_finalizers_are_judged() {
        let meta = json!({
            "name": "a", "namespace": "a",
            "labels": {"-x": "y", "ok": "no spaces"},
            "annotations": {"UPPER.case/Key": "x".repeat(300_000)},
            "finalizers": ["orphan", "foregroundDeletion", "a b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}],
        });
        let texts = texts_of(meta, None);
        assert_eq!(texts.len(), 6, "{texts:#?}");
        assert!(
            texts[0]
                .starts_with("metadata.labels: Invalid value: \"-x\": name part must consist of")
        );
        assert!(
            texts[1].starts_with(
                "metadata.labels: Invalid value: \"no spaces\": a valid label must be"
            )
        );
        assert_eq!(
            texts[2],
            "metadata.annotations: Too long: may not be more than 262144 bytes"
        );
        assert_eq!(
            texts[3],
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"
        );
    }

    /// A megabyte of finalizers: comparing each with each would take minutes.
    #[test]
    fn many_finalizers_are_compared_once() {
        let names = |from: usize| -> Vec<String> {
            (from..from + 100_000).map(|n| format!("a.b/{n}")).collect()
        };
        let old = json!({"name": "a", "namespace": "n", "finalizers": names(0),
            "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let mut new = old.clone();
        new["finalizers"] = json!(names(100_000));
        let began = std::time::Instant::now();
        let mut errors = Vec::new();
        updated(&new, &old, &Path::new("metadata"), &mut errors);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].detail.len() < 5_000);
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }

    /// R3.49, R3.51.
    #[test]
    fn what_identifies_an_object_does_not_change() {
        let old = json!({"name": "a", "namespace": "n", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let mut new = old.clone();
        new["uid"] = "2".into();
        new["finalizers"] = json!(["x.y/z"]);
        assert_eq!(
            texts_of(new, Some(old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.y/z\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }
}
