//! What the schema of a DataStore cannot say.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde_json::Value;

use crate::endpoint::ends_in_number;
use crate::field::{Error, Errors, Path};
use crate::forms::subdomain_complaints;
use crate::resource::BorrowedRight;
use crate::rule::{Holds, Rule, at};
use crate::v1alpha1::{DataStoreSpec, Driver, annotations};

const SPEC: &[&str] = &["spec"];

/// Whether a ContentRef below `spec` has a value or says where one is.
fn has_content(spec: &Value, path: &[&str]) -> bool {
    at(spec, path).is_some_and(|reference| {
        reference
            .get("content")
            .and_then(Value::as_str)
            .is_some_and(|content| !content.is_empty())
            || reference
                .get("secretReference")
                .is_some_and(Value::is_object)
    })
}

fn is_etcd(spec: &Value) -> bool {
    spec["driver"] == "etcd"
}

/// The rules, in the words of users.
pub(super) const RULES: &[Rule] = &[
    Rule {
        path: &["spec", "driver"],
        blame: &[],
        cel: "self == oldSelf",
        message: "the driver cannot be changed; create another DataStore and move the tenants",
        holds: Holds::Since(|old, new| old == new),
    },
    Rule {
        path: SPEC,
        blame: &["tlsConfig"],
        cel: "self.driver != 'etcd' || (has(self.tlsConfig) && has(self.tlsConfig.certificateAuthority.privateKey) && ((has(self.tlsConfig.certificateAuthority.privateKey.content) && size(self.tlsConfig.certificateAuthority.privateKey.content) > 0) || has(self.tlsConfig.certificateAuthority.privateKey.secretReference)))",
        message: "with driver etcd, certificateAuthority.privateKey needs content or secretReference: it signs the tenants' client certificates",
        holds: Holds::Now(|spec| {
            !is_etcd(spec)
                || has_content(spec, &["tlsConfig", "certificateAuthority", "privateKey"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &["tlsConfig"],
        cel: "self.driver != 'etcd' || (has(self.tlsConfig) && has(self.tlsConfig.clientCertificate) && ((has(self.tlsConfig.clientCertificate.certificate.content) && size(self.tlsConfig.clientCertificate.certificate.content) > 0) || has(self.tlsConfig.clientCertificate.certificate.secretReference)))",
        message: "with driver etcd, clientCertificate.certificate needs content or secretReference",
        holds: Holds::Now(|spec| {
            !is_etcd(spec) || has_content(spec, &["tlsConfig", "clientCertificate", "certificate"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &["tlsConfig"],
        cel: "self.driver != 'etcd' || (has(self.tlsConfig) && has(self.tlsConfig.clientCertificate) && ((has(self.tlsConfig.clientCertificate.privateKey.content) && size(self.tlsConfig.clientCertificate.privateKey.content) > 0) || has(self.tlsConfig.clientCertificate.privateKey.secretReference)))",
        message: "with driver etcd, clientCertificate.privateKey needs content or secretReference",
        holds: Holds::Now(|spec| {
            !is_etcd(spec) || has_content(spec, &["tlsConfig", "clientCertificate", "privateKey"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &["tlsConfig"],
        cel: "self.driver == 'etcd' || !has(self.tlsConfig) || !has(self.tlsConfig.clientCertificate) || (has(self.tlsConfig.clientCertificate.certificate.content) && size(self.tlsConfig.clientCertificate.certificate.content) > 0) || has(self.tlsConfig.clientCertificate.certificate.secretReference)",
        message: "clientCertificate.certificate needs content or secretReference; leave clientCertificate out if the database asks for none",
        holds: Holds::Now(|spec| {
            is_etcd(spec)
                || at(spec, &["tlsConfig", "clientCertificate"]).is_none()
                || has_content(spec, &["tlsConfig", "clientCertificate", "certificate"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &["basicAuth"],
        cel: "self.driver == 'etcd' || !has(self.basicAuth) || (has(self.basicAuth.username.content) && size(self.basicAuth.username.content) > 0) || has(self.basicAuth.username.secretReference)",
        message: "basicAuth.username needs content or secretReference",
        holds: Holds::Now(|spec| {
            is_etcd(spec)
                || at(spec, &["basicAuth"]).is_none()
                || has_content(spec, &["basicAuth", "username"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &["basicAuth"],
        cel: "self.driver == 'etcd' || !has(self.basicAuth) || (has(self.basicAuth.password.content) && size(self.basicAuth.password.content) > 0) || has(self.basicAuth.password.secretReference)",
        message: "basicAuth.password needs content or secretReference",
        holds: Holds::Now(|spec| {
            is_etcd(spec)
                || at(spec, &["basicAuth"]).is_none()
                || has_content(spec, &["basicAuth", "password"])
        }),
    },
    Rule {
        path: SPEC,
        blame: &[],
        cel: "self.driver == 'etcd' || has(self.tlsConfig) || has(self.basicAuth)",
        message: "set basicAuth, tlsConfig or both: a database without either would be open to everyone",
        holds: Holds::Now(|spec| {
            is_etcd(spec)
                || at(spec, &["tlsConfig"]).is_some()
                || at(spec, &["basicAuth"]).is_some()
        }),
    },
    Rule {
        path: &["spec", "tenantLimits"],
        blame: &[],
        cel: "has(self.bytes) || has(self.objects)",
        message: "set bytes, objects or both",
        holds: Holds::Now(|limits| {
            ["bytes", "objects"]
                .iter()
                .any(|limit| at(limits, &[limit]).is_some())
        }),
    },
];

/// Where a spec has ContentRefs, and whether their values are secret themselves.
const CONTENTS: [(&[&str], bool); 6] = [
    (&["basicAuth", "username"], false),
    (&["basicAuth", "password"], true),
    (AUTHORITY, false),
    (&["tlsConfig", "certificateAuthority", "privateKey"], true),
    (&["tlsConfig", "clientCertificate", "certificate"], false),
    (&["tlsConfig", "clientCertificate", "privateKey"], true),
];

/// What a database is known by.
const AUTHORITY: &[&str] = &["tlsConfig", "certificateAuthority", "certificate"];

/// One ContentRef of a spec, as it is written: what Secrets it leads to does not depend on
/// whether the rest of the spec can be decoded.
struct Reference<'a> {
    path: Path,
    is_secret: bool,
    /// A value that stands there.
    is_inline: bool,
    secret: Option<Secret<'a>>,
}

/// The Secret that a ContentRef names.
#[derive(Clone, Copy, PartialEq)]
struct Secret<'a> {
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    key: Option<&'a str>,
}

/// Every reference of a spec.
fn references(spec: &Value) -> Vec<Reference<'_>> {
    let all = CONTENTS.into_iter().filter_map(|(place, is_secret)| {
        let found = at(spec, place)?;
        let path = place
            .iter()
            .fold(Path::new("spec"), |path, name| path.child(name));
        let content = found.get("content").and_then(Value::as_str);
        let secret = at(found, &["secretReference"]).map(|secret| {
            let text = |field: &str| secret.get(field).and_then(Value::as_str);
            Secret {
                namespace: text("namespace"),
                name: text("name"),
                key: text("keyPath"),
            }
        });
        Some(Reference {
            path,
            is_secret,
            is_inline: content.is_some_and(|content| !content.is_empty()),
            secret,
        })
    });
    all.collect()
}

fn decoded(object: &Value) -> Result<DataStoreSpec, serde_json::Error> {
    DataStoreSpec::deserialize(&object["spec"])
}

/// Field rules that are not published.
pub(super) fn check(new: &Value, old: Option<&Value>) -> Errors {
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return Errors::new();
    }
    let spec = match decoded(new) {
        Ok(spec) => spec,
        Err(error) => {
            return Errors::from(Error::invalid_whole(&Path::new("spec"), error.to_string()));
        }
    };
    // What was stored by another version may not decode; then all is new.
    let before = old.and_then(|old| decoded(old).ok()).unwrap_or_default();
    let mut errors = Errors::new();
    endpoints(&spec.endpoints, &before.endpoints, &mut errors);
    let references = references(&new["spec"]).into_iter();
    for reference in references.filter(|reference| !reference.is_inline) {
        if let Some(secret) = reference.secret {
            let path = reference.path.child("secretReference");
            for (field, value) in [("name", secret.name), ("namespace", secret.namespace)] {
                if value.is_none_or(str::is_empty) {
                    let detail = "a Secret is found by name and namespace";
                    errors.push(Error::required(&path.child(field), detail));
                }
            }
        }
    }
    errors
}

/// What was there before is not blamed again.
fn endpoints(new: &[String], old: &[String], errors: &mut Errors) {
    let path = Path::new("spec.endpoints");
    let mut counted: HashMap<&str, usize> = HashMap::new();
    old.iter()
        .for_each(|it| *counted.entry(it).or_default() += 1);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (position, endpoint) in new.iter().enumerate() {
        let path = path.index(position);
        let so_far = seen.entry(endpoint).or_default();
        *so_far += 1;
        let so_far = *so_far;
        let before = counted.get(endpoint.as_str()).copied().unwrap_or(0);
        if before == 0
            && so_far == 1
            && let Some(detail) = endpoint_complaint(endpoint)
        {
            errors.push(Error::invalid(&path, endpoint.as_str(), detail));
        }
        if so_far > before.max(1) {
            errors.push(Error::duplicate(&path, endpoint.as_str()));
        }
    }
}

fn endpoint_complaint(endpoint: &str) -> Option<&'static str> {
    const FORM: &str = "must be host:port, for example etcd.example.com:2379";
    if endpoint.contains("://") {
        return Some("must be host:port without a scheme, for example etcd.example.com:2379");
    }
    if endpoint.trim() != endpoint {
        return Some("must not begin or end with a blank");
    }
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        return Some(FORM);
    };
    // parse alone would take a sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Some(FORM);
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return (!matches!(inner, Some(Ok(_)))).then_some(
            "must have an IPv6 address between the brackets, for example [2001:db8::1]:2379",
        );
    }
    if host.contains(':') {
        return Some("must have an IPv6 address in brackets, for example [2001:db8::1]:2379");
    }
    if ends_in_number(host) {
        return host.parse::<Ipv4Addr>().is_err().then_some(FORM);
    }
    // Resolvers take more than Kubernetes does: capitals, underscores, and a
    // dot at the end.
    let name = host.strip_suffix('.').unwrap_or(host);
    let name = name.to_ascii_lowercase().replace('_', "0");
    (!subdomain_complaints(&name).is_empty()).then_some(FORM)
}

/// Warnings about a write.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let Ok(spec) = decoded(new) else {
        // It is refused.
        return Vec::new();
    };
    let references = references(&new["spec"]).into_iter();
    let mut warnings: Vec<String> = references
        .filter(|reference| reference.is_secret && reference.is_inline)
        .map(|Reference { path, .. }| {
            format!("{path}.content: everyone who may read this DataStore may read the secret in it; use secretReference instead")
        })
        .collect();
    if spec.driver.has_passwords() && spec.basic_auth.is_none() {
        let what = match spec.driver {
            Driver::NATS => {
                "the credentials of a user of the system account and a signing key of the operator"
            }
            _ => "the administrator's user name and password",
        };
        warnings.push(format!(
            "spec.basicAuth: driver {} needs {what}",
            spec.driver.as_str()
        ));
    }
    if spec.driver.has_passwords() && spec.tls_config.is_none() {
        warnings.push(
            "spec.tlsConfig: without it nobody verifies to which server passwords and data are sent"
                .to_owned(),
        );
    }
    if spec.driver.endpoints(&spec.endpoints).len() < spec.endpoints.len() {
        warnings.push(format!(
            "spec.endpoints: with driver {} only the first one is used",
            spec.driver.as_str()
        ));
    }
    if !spec.driver.is_built() {
        warnings.push(format!(
            "spec.driver: {} is accepted but not acted upon yet; tenants can be placed on {} only",
            spec.driver.as_str(),
            Driver::BUILT
        ));
    }
    warnings.extend(annotations::unknown(new, old, &annotations::OF_DATA_STORES));
    warnings
}

/// Rule 8: a DataStore makes us read Secrets, so the requester must be allowed
/// to read them. Who changes where their content is sent, or whom it is shown
/// to, is asked for all of them, as if they were new.
pub(super) fn borrowed(new: &Value, old: Option<&Value>) -> Vec<BorrowedRight> {
    let new = &new["spec"];
    let old = old.map_or(&Value::Null, |old| &old["spec"]);
    let same = |place: &[&str]| at(new, place) == at(old, place);
    let known = match same(&["endpoints"]) && same(AUTHORITY) {
        true => references(old),
        false => Vec::new(),
    };
    let before: Vec<Secret<'_>> = known.into_iter().filter_map(|known| known.secret).collect();
    let references = references(new).into_iter();
    let added = references.filter_map(|reference| {
        let secret = reference.secret.filter(|secret| !before.contains(secret))?;
        Some(BorrowedRight {
            verb: "get",
            group: "",
            resource: "secrets",
            subresource: "",
            namespace: secret.namespace.map(str::to_owned),
            name: secret.name.map(str::to_owned),
            field: reference.path.child("secretReference").to_string(),
            or: None,
        })
    });
    added.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The schema refuses it before; without it nothing of this is judged as a spec that has
    /// nothing.
    #[test]
    fn what_does_not_decode_is_not_taken_for_an_empty_spec() {
        let secret = json!({"secretReference": {"name": "s", "namespace": "n", "keyPath": "k"}});
        let mut object = json!({"spec": {
            "driver": "PostgreSQL", "endpoints": ["no port"],
            "basicAuth": {"username": secret, "password": secret},
        }});
        let rights = borrowed(&object, None);
        assert_eq!(rights.len(), 2);
        object["spec"]["capacity"] = json!({"bytes": 1.5});
        assert_eq!(borrowed(&object, None), rights);
        let errors = check(&object, None);
        assert_eq!(errors.len(), 1);
        let told = errors[0].to_string();
        assert!(
            told.starts_with("spec: Invalid value: invalid type: floating point `1.5`"),
            "{told}"
        );
        assert_eq!(warnings(&object, None), [""; 0]);
        // Before, there was nothing of which could be said that it was allowed already.
        let mut new = object.clone();
        new["spec"]["capacity"] = json!({"bytes": 1});
        assert_eq!(check(&new, Some(&object)).len(), 1);
    }

    #[test]
    fn many_endpoints_are_looked_up() {
        let many: Vec<String> = (0..60_000).map(|it| format!("n{it}:2379")).collect();
        let started = std::time::Instant::now();
        let told = |new: &[String], old: &[String]| {
            let mut errors = Errors::new();
            endpoints(new, old, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            texts.join("; ")
        };
        assert_eq!(told(&many, &[]), "");
        assert_eq!(told(&many, &many), "");
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
        let of = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let twice = of(&["a:1", "b", "a:1", "b"]);
        assert_eq!(
            told(&twice, &[]),
            "spec.endpoints[1]: Invalid value: \"b\": must be host:port, for example \
             etcd.example.com:2379; spec.endpoints[2]: Duplicate value: \"a:1\"; \
             spec.endpoints[3]: Duplicate value: \"b\""
        );
        assert_eq!(
            told(&twice, &of(&["b", "b", "a:1"])),
            "spec.endpoints[2]: Duplicate value: \"a:1\""
        );
    }
}
