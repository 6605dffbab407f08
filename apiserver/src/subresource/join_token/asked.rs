//! Reading a JoinTokenRequest.

use apiservice::field::{self, Path};
use apiservice::v1alpha1::{JoinTokenRequest, JoinTokenUsage};
use serde_json::{Value, json};

use crate::authz::Permit;
use crate::registry::Request;
use crate::status::Failure;
use crate::subresource::body::{self, seconds};

/// The kind of what is sent.
pub(super) const KIND: &str = "JoinTokenRequest";
/// Seconds.
const SHORTEST: i64 = 60;
/// The group that may join nodes.
const JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";
/// What Kubernetes demands of a group, and how many there are at most.
const GROUP_PREFIX: &str = "system:bootstrappers:";
const GROUP_REST: usize = 256;
const GROUPS: usize = 32;
/// Bytes.
const DESCRIPTION: usize = 1024;

/// A JoinTokenRequest, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// How long the token is to be valid; never above the longest.
    pub(super) seconds: u32,
    /// In the order of [`JoinTokenUsage::ALL`].
    pub(super) usages: Vec<JoinTokenUsage>,
    pub(super) groups: Vec<String>,
    pub(super) description: String,
}

impl Asked {
    /// An empty body asks for the defaults.
    pub(super) fn parse<V>(
        request: &Request,
        permit: &Permit<V>,
        longest: u32,
    ) -> Result<Asked, Failure> {
        let body = body::read(KIND, JoinTokenRequest::schema(), request, permit)?;
        let spec = body.map_or(Value::Null, |mut body| body["spec"].take());
        let name = permit.name().unwrap_or_default();
        let asked = Self::check(&spec, longest);
        let asked = asked.map_err(|errors| body::invalid(KIND, name, errors))?;
        body::shortened(request, &spec["ttlSeconds"], asked.seconds);
        Ok(asked)
    }

    /// The same of what admission has made of it.
    pub(super) fn again(body: &Value, name: &str, longest: u32) -> Result<Asked, Failure> {
        Self::check(&body["spec"], longest).map_err(|errors| body::invalid(KIND, name, errors))
    }

    fn check(spec: &Value, longest: u32) -> Result<Asked, field::Errors> {
        let path = Path::new("spec");
        let mut errors = field::Errors::new();
        let granted = match seconds(&spec["ttlSeconds"]) {
            None => longest,
            Some(wanted) if wanted >= SHORTEST => {
                u32::try_from(wanted).unwrap_or(longest).min(longest)
            }
            Some(wanted) => {
                let why = "may not specify a duration less than 60 seconds";
                errors.push(field::Error::invalid(
                    &path.child("ttlSeconds"),
                    wanted,
                    why,
                ));
                longest
            }
        };
        let usages = usages(&spec["usages"], &path.child("usages"), &mut errors);
        let lets_in = usages.contains(&JoinTokenUsage::Authentication);
        let groups = groups(&spec["groups"], lets_in, &path.child("groups"), &mut errors);
        let description = spec["description"].as_str().unwrap_or_default();
        if description.len() > DESCRIPTION {
            let path = path.child("description");
            errors.push(field::Error::too_long(&path, DESCRIPTION as u64));
        }
        match errors.is_empty() {
            true => Ok(Asked {
                seconds: granted,
                usages,
                groups,
                description: description.to_owned(),
            }),
            false => Err(errors),
        }
    }

    /// The spec of the answer: what was granted.
    pub(super) fn to_value(&self) -> Value {
        let mut spec = json!({
            "ttlSeconds": self.seconds,
            "usages": self.usages,
            "groups": self.groups,
        });
        if !self.description.is_empty() {
            spec["description"] = self.description.as_str().into();
        }
        spec
    }

    pub(super) fn usage_names(&self) -> Vec<&'static str> {
        let usages = self.usages.iter();
        usages.map(|usage| usage.as_str()).collect()
    }
}

fn usages(value: &Value, path: &Path, errors: &mut field::Errors) -> Vec<JoinTokenUsage> {
    let Value::Array(given) = value else {
        return JoinTokenUsage::ALL.to_vec();
    };
    let known = JoinTokenUsage::ALL.map(JoinTokenUsage::as_str);
    if given.is_empty() {
        // Whoever narrows it to nothing does not want everything.
        let why = "leave it out for all usages, or give at least one";
        errors.push(field::Error::required(path, why));
    }
    let wrong = |(_, usage): &(usize, &Value)| !known.iter().any(|known| *usage == known);
    if let Some((position, usage)) = given.iter().enumerate().find(wrong) {
        let path = path.index(position);
        errors.push(field::Error::not_supported(&path, usage.clone(), &known));
    }
    let all = JoinTokenUsage::ALL.into_iter();
    all.filter(|usage| given.iter().any(|given| given == usage.as_str()))
        .collect()
}

fn groups(value: &Value, lets_in: bool, path: &Path, errors: &mut field::Errors) -> Vec<String> {
    let Value::Array(given) = value else {
        let default = lets_in.then(|| JOINING.to_owned());
        return default.into_iter().collect();
    };
    if given.len() > GROUPS {
        errors.push(field::Error::too_many(path, given.len(), GROUPS as u64));
        return Vec::new();
    }
    if !given.is_empty() && !lets_in {
        let why = "are of use with the usage authentication only";
        errors.push(field::Error::forbidden(path, why));
    }
    let mut groups: Vec<String> = Vec::with_capacity(given.len());
    for (position, group) in given.iter().enumerate() {
        let group = group.as_str().unwrap_or_default();
        if !is_group(group) {
            let why = r"must match \Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z";
            errors.push(field::Error::invalid(&path.index(position), group, why));
        } else if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups
}

fn is_group(group: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    group.strip_prefix(GROUP_PREFIX).is_some_and(|rest| {
        rest.len() <= GROUP_REST
            && rest
                .bytes()
                .all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
            && rest.bytes().last().is_some_and(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subresource::join_token::tests::{permit, request};

    const LONGEST: u32 = 86_400;

    fn asked(body: &str) -> (Result<Asked, String>, Vec<String>) {
        let request = request(body, "");
        let asked = Asked::parse(&request, &permit(), LONGEST);
        let asked = asked.map_err(|failure| failure.to_string());
        (asked, request.warnings.texts())
    }

    fn refusal(spec: Value) -> String {
        asked(&json!({"spec": spec}).to_string()).0.unwrap_err()
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        for body in ["", "{}", r#"{"spec": {"usages": null, "groups": null}}"#] {
            let default = Asked {
                seconds: LONGEST,
                usages: JoinTokenUsage::ALL.to_vec(),
                groups: vec![JOINING.to_owned()],
                description: String::new(),
            };
            assert_eq!(asked(body), (Ok(default), vec![]), "{body}");
        }
    }

    #[test]
    fn what_is_given_is_granted_and_shortened_to_the_longest() {
        let body = json!({"spec": {
            "ttlSeconds": 86_401, "usages": ["authentication", "authentication"],
            "groups": ["system:bootstrappers:a", "system:bootstrappers:a"],
            "description": "for rack 7",
        }});
        let (granted, warnings) = asked(&body.to_string());
        let granted = granted.unwrap();
        assert_eq!(
            granted.to_value(),
            json!({
                "ttlSeconds": LONGEST, "usages": ["authentication"],
                "groups": ["system:bootstrappers:a"], "description": "for rack 7",
            })
        );
        let shortened = "requested expiration of 86401 seconds shortened to 86400 seconds";
        assert_eq!(warnings, [shortened]);
        let (short, warnings) = asked(r#"{"spec": {"ttlSeconds": 60}}"#);
        assert_eq!((short.unwrap().seconds, warnings), (60, vec![]));
        // No group comes with a token that lets nobody in.
        let (signs, _) = asked(r#"{"spec": {"usages": ["signing"]}}"#);
        assert_eq!(signs.unwrap().groups, [""; 0]);
        // None at all can be wanted.
        let (none, _) = asked(r#"{"spec": {"groups": []}}"#);
        assert_eq!(none.unwrap().groups, [""; 0]);
    }

    #[test]
    fn what_cannot_be_granted_is_told() {
        let name = r#"JoinTokenRequest.steward.butlerlabs.dev "t" is invalid: "#;
        let group = r#"must match \Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z"#;
        let long = format!("system:bootstrappers:{}", "a".repeat(257));
        let bad = |group: &str| json!({"groups": [group]});
        for (spec, error) in [
            (
                json!({"ttlSeconds": 59}),
                "spec.ttlSeconds: Invalid value: 59: may not specify a duration less than 60 seconds"
                    .to_owned(),
            ),
            (
                json!({"ttlSeconds": 0}),
                "spec.ttlSeconds: Invalid value: 0: may not specify a duration less than 60 seconds"
                    .to_owned(),
            ),
            (
                json!({"ttlSeconds": "1h"}),
                r#"spec.ttlSeconds: Invalid value: "string": spec.ttlSeconds in body must be of type integer: "string""#
                    .to_owned(),
            ),
            (
                json!({"usages": ["signing", "admin"]}),
                r#"spec.usages[1]: Unsupported value: "admin": supported values: "authentication", "signing""#
                    .to_owned(),
            ),
            (
                json!({"usages": []}),
                "spec.usages: Required value: leave it out for all usages, or give at least one"
                    .to_owned(),
            ),
            (
                json!({"usages": ["signing"], "groups": ["system:bootstrappers:a"]}),
                "spec.groups: Forbidden: are of use with the usage authentication only".to_owned(),
            ),
            (
                bad("system:masters"),
                format!(r#"spec.groups[0]: Invalid value: "system:masters": {group}"#),
            ),
            (
                bad("system:bootstrappers:"),
                format!(r#"spec.groups[0]: Invalid value: "system:bootstrappers:": {group}"#),
            ),
            (
                bad("system:bootstrappers:a:"),
                format!(r#"spec.groups[0]: Invalid value: "system:bootstrappers:a:": {group}"#),
            ),
            (
                bad("system:bootstrappers:a\n"),
                format!(r#"spec.groups[0]: Invalid value: "system:bootstrappers:a\n": {group}"#),
            ),
            (
                json!({"description": "x".repeat(DESCRIPTION + 1)}),
                "spec.description: Too long: may not be more than 1024 bytes".to_owned(),
            ),
            (
                json!({"groups": vec!["system:bootstrappers:a"; 33]}),
                "spec.groups: Too many: 33: must have at most 32 items".to_owned(),
            ),
        ] {
            assert_eq!(refusal(spec), format!("{name}{error}"));
        }
        assert!(refusal(bad(&long)).contains(group));
        assert!(is_group(&long[..long.len() - 1]));
    }

    /// An unknown field could be one that was to narrow what is minted.
    #[test]
    fn unknown_fields_are_refused_whatever_the_validation() {
        for query in ["", "fieldValidation=Ignore"] {
            let request = request(r#"{"spec": {"nodeName": "a"}}"#, query);
            let refused = Asked::parse(&request, &permit(), LONGEST).unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.contains(r#"unknown field "spec.nodeName""#),
                "{refused}"
            );
        }
    }
}
