//! What is asked to be admitted.

use apiservice::Resource;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::audit::Annotations;
use crate::authn::Identity;
use crate::authz;
use crate::options::Query;
use crate::status::{Failure, Subject};
use crate::warnings::Warnings;

/// Requests, as tests have them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Who asks, and what is told him.
    pub(crate) struct Asked {
        pub(crate) identity: Identity,
        warnings: Warnings,
        annotations: Annotations,
    }

    impl Asked {
        pub(crate) fn by(identity: Identity) -> Self {
            Self {
                identity,
                warnings: Warnings::default(),
                annotations: Annotations::default(),
            }
        }

        /// A user of whom nothing but the name is known.
        pub(crate) fn by_user(user: &str) -> Self {
            Self::by(Identity {
                user: user.to_owned(),
                uid: None,
                groups: Vec::new(),
                extra: Default::default(),
            })
        }

        /// The creation of `n/one`.
        pub(crate) fn creation(&self) -> Attributes<'_> {
            Attributes {
                operation: Operation::Create,
                resource: apiservice::find("tenantcontrolplanes").unwrap(),
                subresource: "",
                namespace: Some("n"),
                name: "one".to_owned(),
                identity: &self.identity,
                dry_run: false,
                options: json!({}),
                deadline: Instant::now() + std::time::Duration::from_secs(30),
                warnings: &self.warnings,
                annotations: &self.annotations,
            }
        }
    }
}

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// As rules and reviews name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One request, as it is seen by admission, and where to say what beside the answer.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub operation: Operation,
    pub resource: &'static Resource,
    /// Empty for the object itself.
    pub subresource: &'static str,
    pub namespace: Option<&'a str>,
    /// Empty while it is to be generated.
    pub name: String,
    pub identity: &'a Identity,
    pub dry_run: bool,
    /// CreateOptions, UpdateOptions or DeleteOptions.
    pub options: Value,
    /// When the answer is due.
    pub deadline: Instant,
    pub warnings: &'a Warnings,
    pub annotations: &'a Annotations,
}

impl Attributes<'_> {
    /// Among whom what all share is divided.
    pub fn caller(&self) -> &str {
        crate::limits::holder(self.identity)
    }

    /// Group, version and kind of what is written.
    pub fn kind(&self) -> (&'static str, &'static str, &'static str) {
        kind_of(self.resource, self.subresource)
    }

    /// The name in refusals: one of a collection is not named.
    pub fn shown_name(&self) -> &str {
        match self.name.as_str() {
            "" => "Unknown",
            name => name,
        }
    }

    /// The 403 of a plug-in (`R.G "N" is forbidden: WHY`).
    pub fn refused(&self, why: &str) -> Failure {
        authz::refused(Subject::of(self.resource, self.shown_name()), why)
    }

    /// Nothing is asked, ignored or stored any more once the answer is due: what was cut off by
    /// then was not let pass by anybody.
    ///
    /// # Errors
    /// 504 afterwards.
    pub fn in_time(&self) -> Result<(), Failure> {
        in_time(self.deadline)
    }

    /// The request without its objects, as an AdmissionReview and an expression have it.
    pub fn to_request(&self, uid: &str) -> Map<String, Value> {
        let (group, version, kind) = self.kind();
        let kind = json!({"group": group, "version": version, "kind": kind});
        let resource = json!({
            "group": apiservice::GROUP,
            "version": apiservice::VERSION,
            "resource": self.resource.plural,
        });
        let mut request = Map::new();
        let mut set = |name: &str, value: Value| request.insert(name.to_owned(), value);
        set("uid", Value::from(uid));
        set("kind", kind.clone());
        set("resource", resource.clone());
        set("requestKind", kind);
        set("requestResource", resource);
        if !self.subresource.is_empty() {
            set("subResource", Value::from(self.subresource));
            set("requestSubResource", Value::from(self.subresource));
        }
        if !self.name.is_empty() {
            set("name", Value::from(self.name.as_str()));
        }
        if let Some(namespace) = self.namespace {
            set("namespace", Value::from(namespace));
        }
        set("operation", Value::from(self.operation.as_str()));
        set("userInfo", user(self.identity));
        set("dryRun", Value::from(self.dry_run));
        set("options", self.options.clone());
        request
    }
}

/// Group, version and kind of what is written to a resource, or to a subresource of it.
pub fn kind_of(
    resource: &'static Resource,
    subresource: &str,
) -> (&'static str, &'static str, &'static str) {
    let ours = |kind| (apiservice::GROUP, apiservice::VERSION, kind);
    match resource.subresource(subresource) {
        None => ours(resource.kind),
        Some(part) if part.group.is_empty() => ours(part.kind),
        Some(part) => (part.group, part.version, part.kind),
    }
}

/// Whether an answer is not due yet.
///
/// # Errors
/// 504 afterwards.
pub fn in_time(deadline: Instant) -> Result<(), Failure> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(late()),
    }
}

/// The answer to a request whose time is over.
pub fn late() -> Failure {
    Failure::Timeout("request did not complete within the allotted timeout".to_owned())
}

fn user(identity: &Identity) -> Value {
    let mut user = Map::new();
    if !identity.user.is_empty() {
        user.insert("username".to_owned(), Value::from(identity.user.as_str()));
    }
    if let Some(uid) = identity.uid.as_deref().filter(|uid| !uid.is_empty()) {
        user.insert("uid".to_owned(), Value::from(uid));
    }
    if !identity.groups.is_empty() {
        user.insert("groups".to_owned(), json!(identity.groups));
    }
    if !identity.extra.is_empty() {
        user.insert("extra".to_owned(), json!(identity.extra));
    }
    Value::Object(user)
}

/// The options of a write, from its query.
pub fn write_options(operation: Operation, query: Query<'_>) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update | Operation::Delete => "UpdateOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if query.first("dryRun").is_some() {
        options["dryRun"] = json!(["All"]);
    }
    for name in ["fieldManager", "fieldValidation"] {
        if let Some(text) = query.first(name).filter(|text| !text.is_empty()) {
            options[name] = Value::from(text);
        }
    }
    options
}
