//! Reading a MigrationRequest.

use std::time::Duration;

use apiservice::field::{self, Path};
use apiservice::forms::subdomain_complaints;
use apiservice::v1alpha1::MigrationRequest;
use serde_json::{Value, json};

use crate::authz::Permit;
use crate::object::meta;
use crate::options::go_duration;
use crate::registry::Request;
use crate::status::Failure;
use crate::subresource::body;

/// The kind of what is sent.
pub(super) const KIND: &str = "MigrationRequest";
/// The longest time for which a DataStore keeps what was moved elsewhere: a year.
const LONGEST: Duration = Duration::from_secs(8760 * 60 * 60);

/// A MigrationRequest, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The DataStore, if the caller names one.
    pub(super) target: Option<String>,
    /// A Go duration.
    pub(super) retention: Option<String>,
    /// Preconditions.
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
}

impl Asked {
    /// An empty body leaves all to the server.
    pub(super) fn parse<V>(request: &Request, permit: &Permit<V>) -> Result<Asked, Failure> {
        let body = body::read(KIND, MigrationRequest::schema(), request, permit)?;
        let name = permit.name().unwrap_or_default();
        Self::again(&body.unwrap_or_default(), name)
    }

    /// The same of what admission has made of it.
    pub(super) fn again(body: &Value, name: &str) -> Result<Asked, Failure> {
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let spec = &body["spec"];
        let asked = Asked {
            target: text(&spec["target"]),
            retention: text(&spec["sourceRetention"]),
            uid: text(&meta(body, "uid").into()),
            version: text(&meta(body, "resourceVersion").into()),
        };
        let errors = asked.errors();
        match errors.is_empty() {
            true => Ok(asked),
            false => Err(body::invalid(KIND, name, errors)),
        }
    }

    fn errors(&self) -> field::Errors {
        let path = Path::new("spec");
        let mut errors = field::Errors::new();
        if let Some(target) = &self.target {
            let path = path.child("target");
            let complaints = subdomain_complaints(target).into_iter();
            errors.extend(complaints.map(|why| field::Error::invalid(&path, target.as_str(), why)));
        }
        if let Some(text) = &self.retention {
            let why = match go_duration(text) {
                None => Some("must be a duration such as 24h or 0s, not below zero"),
                Some(duration) if duration > LONGEST => Some("must be less than or equal to 8760h"),
                Some(_) => None,
            };
            let path = path.child("sourceRetention");
            errors.extend(why.map(|why| field::Error::invalid(&path, text.as_str(), why)));
        }
        errors
    }

    /// The request as admission sees it, for this tenant.
    pub(super) fn frame(&self, tenant: &Value) -> Value {
        let mut frame = json!({
            "apiVersion": tenant["apiVersion"],
            "kind": KIND,
            "metadata": {"name": meta(tenant, "name"), "namespace": meta(tenant, "namespace")},
            "spec": {},
        });
        for (part, name, value) in [
            ("metadata", "uid", &self.uid),
            ("metadata", "resourceVersion", &self.version),
            ("spec", "target", &self.target),
            ("spec", "sourceRetention", &self.retention),
        ] {
            if let Some(value) = value {
                frame[part][name] = value.as_str().into();
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(spec: Value) -> Result<Asked, String> {
        Asked::again(&json!({"spec": spec}), "t").map_err(|failure| failure.to_string())
    }

    /// R8.29.
    #[test]
    fn what_is_asked_is_checked() {
        let full = json!({"target": "b", "sourceRetention": "1h30m"});
        let asked = again(full.clone()).unwrap();
        assert_eq!(asked.frame(&json!({}))["spec"], full);
        assert_eq!(asked.frame(&json!({}))["metadata"].get("uid"), None);
        for nothing in [json!({}), json!({"target": "", "sourceRetention": ""})] {
            assert_eq!(again(nothing), Ok(Asked::default()));
        }
        for fine in ["0s", "0", "8760h"] {
            assert!(again(json!({"sourceRetention": fine})).is_ok(), "{fine}");
        }
        let of = "MigrationRequest.steward.butlerlabs.dev \"t\" is invalid: spec.";
        for (spec, why) in [
            (
                json!({"sourceRetention": "8760h1s"}),
                "sourceRetention: Invalid value: \"8760h1s\": must be less than or equal to 8760h",
            ),
            (
                json!({"sourceRetention": "-1h"}),
                "sourceRetention: Invalid value: \"-1h\": must be a duration such as 24h or 0s, not below zero",
            ),
            (
                json!({"sourceRetention": "1d"}),
                "sourceRetention: Invalid value: \"1d\": must be a duration such as 24h or 0s, not below zero",
            ),
        ] {
            assert_eq!(again(spec).unwrap_err(), format!("{of}{why}"));
        }
        // A name leads to no other key of the store.
        for name in ["a/b", "..", "A", "a\n"] {
            let error = again(json!({"target": name})).unwrap_err();
            assert!(error.contains("a lowercase RFC 1123 subdomain"), "{error}");
        }
    }
}
