//! Reading a KubeconfigRequest.

use apiservice::field::{self, Path};
use apiservice::v1alpha1::{KubeconfigRequest, KubeconfigRole};
use serde_json::Value;

use crate::authz::Permit;
use crate::registry::Request;
use crate::status::Failure;
use crate::subresource::body::{self, seconds};

/// The kind of what is sent.
pub(super) const KIND: &str = "KubeconfigRequest";
/// Seconds; as for a TokenRequest.
const SHORTEST: i64 = 600;

/// A KubeconfigRequest, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) role: KubeconfigRole,
    /// How long the certificate is to be valid; never above the longest.
    pub(super) seconds: u32,
}

impl Asked {
    /// An empty body asks for the defaults.
    pub(super) fn parse<V>(
        request: &Request,
        permit: &Permit<V>,
        longest: u32,
    ) -> Result<Asked, Failure> {
        let Some(body) = body::read(KIND, KubeconfigRequest::schema(), request, permit)? else {
            return Ok(Asked {
                role: KubeconfigRole::default(),
                seconds: longest,
            });
        };
        let name = permit.name().unwrap_or_default();
        let asked = Self::check(&body, longest);
        let asked = asked.map_err(|errors| body::invalid(KIND, name, errors))?;
        body::shortened(request, &body["spec"]["expirationSeconds"], asked.seconds);
        Ok(asked)
    }

    /// The same of what admission has made of it.
    pub(super) fn again(body: &Value, name: &str, longest: u32) -> Result<Asked, Failure> {
        Self::check(body, longest).map_err(|errors| body::invalid(KIND, name, errors))
    }

    fn check(body: &Value, longest: u32) -> Result<Asked, field::Errors> {
        let spec = &body["spec"];
        let path = Path::new("spec");
        let mut errors = field::Errors::new();
        let role = match &spec["role"] {
            Value::Null => KubeconfigRole::default(),
            Value::String(text) if text == "admin" => KubeconfigRole::Admin,
            Value::String(text) if text == "view" => KubeconfigRole::View,
            other => {
                let path = path.child("role");
                let error = field::Error::not_supported(&path, other.clone(), &["admin", "view"]);
                errors.push(error);
                KubeconfigRole::View
            }
        };
        let granted = match seconds(&spec["expirationSeconds"]) {
            None => longest,
            // As a TokenRequest: more than the longest is granted the longest.
            Some(wanted) if wanted >= SHORTEST => {
                u32::try_from(wanted).unwrap_or(longest).min(longest)
            }
            Some(wanted) => {
                let path = path.child("expirationSeconds");
                let why = "may not specify a duration less than 10 minutes";
                errors.push(field::Error::invalid(&path, wanted, why));
                longest
            }
        };
        if errors.is_empty() {
            Ok(Asked {
                role,
                seconds: granted,
            })
        } else {
            Err(errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::authn::Identity;
    use crate::authz::verb;
    use crate::warnings::Warnings;

    const LONGEST: u32 = 86_400;

    /// What a body asks for, or the text of the refusal, and the warnings.
    fn asked(body: &Value) -> (Result<Asked, String>, Vec<String>) {
        let request = Request {
            headers: Default::default(),
            query: Arc::default(),
            body: body.to_string().into(),
            path: String::new(),
            caller: "alice".to_owned(),
            deadline: tokio::time::Instant::now() + Duration::from_secs(30),
            warnings: Warnings::default(),
            annotations: Default::default(),
            held: Default::default(),
        };
        let identity = Identity {
            user: "alice".to_owned(),
            uid: None,
            groups: Vec::new(),
            extra: Default::default(),
        };
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let permit: Permit<verb::Create> =
            Permit::for_test(identity, resource, Some("n"), Some("t"), None);
        let asked = Asked::parse(&request, &permit, LONGEST);
        let asked = asked.map_err(|failure| failure.to_string());
        (asked, request.warnings.texts())
    }

    fn refusal(spec: Value) -> String {
        let (asked, _) = asked(&json!({"spec": spec}));
        asked.unwrap_err()
    }

    #[test]
    fn requests_are_checked_and_shortened_to_the_longest() {
        let shortened = |wanted: i64| {
            vec![format!(
                "requested expiration of {wanted} seconds shortened to 86400 seconds"
            )]
        };
        for (spec, role, seconds, warnings) in [
            (json!(null), KubeconfigRole::Admin, LONGEST, vec![]),
            (
                json!({"role": "view", "expirationSeconds": null}),
                KubeconfigRole::View,
                LONGEST,
                vec![],
            ),
            (
                json!({"expirationSeconds": 600.0}),
                KubeconfigRole::Admin,
                600,
                vec![],
            ),
            (
                json!({"expirationSeconds": LONGEST}),
                KubeconfigRole::Admin,
                LONGEST,
                vec![],
            ),
            (
                json!({"expirationSeconds": 86_401}),
                KubeconfigRole::Admin,
                LONGEST,
                shortened(86_401),
            ),
            (
                json!({"expirationSeconds": i64::MAX}),
                KubeconfigRole::Admin,
                LONGEST,
                shortened(i64::MAX),
            ),
        ] {
            let found = asked(&json!({"spec": spec}));
            assert_eq!(found, (Ok(Asked { role, seconds }), warnings), "{spec}");
        }
        let both = refusal(json!({"role": "root", "expirationSeconds": 599}));
        for text in [
            r#"spec.role: Unsupported value: "root": supported values: "admin", "view""#,
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ] {
            assert!(both.contains(text), "{both}");
        }
    }

    /// R6.11.
    #[test]
    fn a_wrong_type_is_told_as_for_any_object() {
        let name = r#"KubeconfigRequest.steward.butlerlabs.dev "t" is invalid: "#;
        for (spec, error) in [
            (
                json!({"expirationSeconds": "1h"}),
                r#"spec.expirationSeconds: Invalid value: "string": spec.expirationSeconds in body must be of type integer: "string""#,
            ),
            (
                json!({"role": 5}),
                r#"spec.role: Invalid value: "integer": spec.role in body must be of type string: "integer""#,
            ),
            (
                json!([]),
                r#"spec: Invalid value: "array": spec in body must be of type object: "array""#,
            ),
        ] {
            assert_eq!(refusal(spec), format!("{name}{error}"));
        }
        let (list, _) = asked(&json!([]));
        assert!(list.unwrap_err().contains("cannot unmarshal array"));
    }

    /// An unknown field could be one that was to narrow what is minted.
    #[test]
    fn unknown_fields_are_refused_whatever_the_validation() {
        let body = json!({
            "metadata": {"bogus": 1}, "spec": {"role": "view", "bogus": 1}, "bogus": {},
        });
        let texts = [
            r#"unknown field "bogus""#,
            r#"unknown field "metadata.bogus""#,
            r#"unknown field "spec.bogus""#,
        ];
        let (refused, warnings) = asked(&body);
        assert_eq!(
            refused.unwrap_err(),
            format!(
                r#"KubeconfigRequest in version "v1alpha1" cannot be handled as a KubeconfigRequest: strict decoding error: {}"#,
                texts.join(", ")
            )
        );
        assert!(warnings.is_empty());
    }
}
