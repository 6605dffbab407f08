//! Requests whose bodies are never in an event, whatever the policy says (R9.11, R8.31).

use apiservice::resource::{Part, Resource};
use apiservice::v1alpha1::data_store;
use serde_json::Value;

use crate::authz::Attributes;
use crate::target::percent_decode;

/// The kind that may have keys in it (rule 10): it is treated as the policies that Kubernetes
/// recommends treat Secrets.
static KEYS: &Resource = &data_store::RESOURCE;

/// Whether bodies of such requests carry secrets, or may.
pub fn are_carried(attributes: &Attributes) -> bool {
    if attributes.group != apiservice::GROUP || attributes.path.is_some() {
        return false;
    }
    let part = apiservice::find(&attributes.resource)
        .and_then(|resource| resource.subresource(&attributes.subresource))
        .map(|subresource| subresource.part);
    let credential = match part {
        Some(Part::Kubeconfig | Part::JoinToken) => true,
        Some(Part::Status | Part::Scale(_) | Part::Migrate) | None => false,
    };
    credential || are_kept(&attributes.resource)
}

/// Whether objects of this plural may have keys in them.
pub fn are_kept(plural: &str) -> bool {
    plural == KEYS.plural
}

/// Takes out of a Status what may quote the body of a request that carries secrets.
pub fn unquote(status: &mut Value) {
    if let Some(status) = status.as_object_mut() {
        status.remove("message");
    }
    let details = status.get_mut("details").and_then(Value::as_object_mut);
    if let Some(details) = details {
        details.remove("causes");
    }
}

/// Characters of a token that are its id.
const ID: usize = 6;

/// The URL with no more of a token than its id: whoever revokes one may paste all of it.
pub fn without_token(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else {
        return uri.to_owned();
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if percent_decode(name, true) == "token" && value.len() > ID => {
            let id: String = value.chars().take(ID).collect();
            format!("{name}={id}...")
        }
        _ => pair.to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::target::Target;

    fn carried(path: &str) -> bool {
        let path = format!("/apis/steward.butlerlabs.dev/v1alpha1/{path}");
        are_carried(&Attributes::of(&Target::parse(&Method::GET, &path, &[])))
    }

    /// R8.31, R9.11.
    #[test]
    fn credentials_and_data_stores_carry_secrets() {
        for path in ["kubeconfig", "jointoken", "jointoken/more"] {
            let path = format!("namespaces/a/tenantcontrolplanes/t/{path}");
            assert!(carried(&path), "{path}");
        }
        for path in ["datastores", "datastores/a", "datastores/a/status"] {
            assert!(carried(path), "{path}");
        }
        for path in [
            "",
            "/t",
            "/t/status",
            "/t/scale",
            "/t/migrate",
            "/t/kubeconfigs",
        ] {
            let path = format!("namespaces/a/tenantcontrolplanes{path}");
            assert!(!carried(&path), "{path}");
        }
        let other = Target::parse(&Method::GET, "/apis/g/v/datastores", &[]);
        assert!(!are_carried(&Attributes::of(&other)));
    }

    /// R9.11: nothing of a body comes back in the words of a refusal.
    #[test]
    fn refusals_quote_nothing() {
        let mut status = json!({
            "code": 422, "reason": "Invalid", "message": "password: Invalid value: \"x\"",
            "details": {"name": "a", "causes": [{"message": "x"}]},
        });
        unquote(&mut status);
        let expected = json!({"code": 422, "reason": "Invalid", "details": {"name": "a"}});
        assert_eq!(status, expected);
        let mut plain = json!({"code": 400, "message": "x"});
        unquote(&mut plain);
        assert_eq!(plain, json!({"code": 400}));
    }

    #[test]
    fn of_a_token_the_id_is_told() {
        for (uri, expected) in [
            ("/a", "/a"),
            ("/a?token=abcdef&x=1", "/a?token=abcdef&x=1"),
            (
                "/a?x=1&token=abcdef.0123456789abcdef",
                "/a?x=1&token=abcdef...",
            ),
            ("/a?%74oken=abcdef%2e0123456789", "/a?%74oken=abcdef..."),
            ("/a?token", "/a?token"),
        ] {
            assert_eq!(without_token(uri), expected);
        }
    }
}
