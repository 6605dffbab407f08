//! Plans as text: for people, logs and golden files. Key material is described
//! by what a certificate says, never printed.

use std::fmt;

use apiservice::names::key;
use apiservice::pki;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::tenant::pki::kubeconfig;
use crate::tenant::plan::{Claim, Object, Outcome, Plan, Step};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if let Some(at) = self.revisit {
            writeln!(f, "look again at {at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.stage())?;
        match self {
            Step::AddFinalizer => write!(f, "add the finalizer"),
            Step::Create(object) => write!(f, "create {}{object}", object.key()),
            Step::Apply(object) => write!(f, "apply {}{object}", object.key()),
            Step::Recheck(key) => write!(f, "look for {key}"),
            Step::Delete { key, uid } | Step::DeleteFormer { key, uid } => {
                write!(f, "delete {key} (uid {uid})")
            }
            Step::DeleteBestEffort { key, uid } => write!(f, "remove {key} (uid {uid})"),
            Step::ClearReplaceRequest(names) => {
                write!(f, "the keys of {} were replaced", names.join(", "))
            }
            Step::Grant(grant) => write!(f, "claim and grant {}", Names(&grant.claim)),
            Step::RevokeAccess(claim) => write!(f, "revoke {}", Names(claim)),
            Step::DropData(claim) => write!(f, "drop the data of {}", Names(claim)),
            Step::NoteEmpty(claim) => write!(f, "note that nothing is left of {}", Names(claim)),
            Step::ReleaseClaim(claim) => write!(f, "release {}", Names(claim)),
            Step::DeferDeletion {
                claim,
                data_store,
                known: _,
                why,
            } => {
                write!(
                    f,
                    "record on DataStore {data_store} the removal of {}: {why}",
                    Names(claim)
                )
            }
            Step::Wait(waiting) => {
                let kind = if waiting.problem { "trouble" } else { "wait" };
                write!(
                    f,
                    "{kind} {} {}: {}",
                    waiting.condition, waiting.reason, waiting.message
                )
            }
            Step::ReleaseFinalizer => write!(f, "release the finalizer"),
            Step::Event(event) => {
                let kind = if event.warning { "warn" } else { "tell" };
                write!(f, "{kind} {}: {}", event.reason, event.message)
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => write!(f, "done"),
            Outcome::Unchanged => write!(f, "unchanged"),
            Outcome::Failed {
                reason, message, ..
            } => write!(f, "failed: {reason}: {message}"),
            Outcome::NotReached => write!(f, "not reached"),
        }
    }
}

/// The names of a claim.
struct Names<'a>(&'a Claim);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim {
            uid,
            namespace,
            name,
            schema,
            user,
            role: _,
            stage: _,
            prefix: _,
            replicas: _,
        } = self.0;
        write!(
            f,
            "schema {schema}, user {user} for {namespace}/{name} ({uid})"
        )
    }
}

/// What an object says, without key material, indented below its step.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Secret(secret) => describe_secret(f, secret),
            other => match other.value() {
                Ok(value) => lines(f, &value, 2),
                Err(error) => write!(f, " ({error})"),
            },
        }
    }
}

fn describe_secret(f: &mut fmt::Formatter<'_>, secret: &Secret) -> fmt::Result {
    for (key, value) in secret.data.iter().flatten() {
        let text = String::from_utf8_lossy(&value.0);
        let said = match (key.as_str(), text.as_ref()) {
            (key::DB_PASSWORD, password) if !password.is_empty() => "a password".to_owned(),
            _ => content(&text),
        };
        write!(f, "\n    {key}: {said}")?;
    }
    Ok(())
}

fn content(text: &str) -> String {
    if let Ok(info) = pki::inspect(text) {
        let mut said = format!("certificate of {}", info.subject.common_name);
        for group in &info.subject.organizations {
            said.push_str(&format!(", group {group}"));
        }
        if info.is_ca {
            said.push_str(", authority");
        }
        let names = info.dns_names.iter().cloned();
        let names = names.chain(info.ip_addresses.iter().map(ToString::to_string));
        let names = names.collect::<Vec<_>>().join(" ");
        if !names.is_empty() {
            said.push_str(&format!(", for {names}"));
        }
        return format!("{said}, until {}", info.not_after);
    }
    if let Some(pair) = kubeconfig::embedded(text) {
        let server = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("server: "));
        let server = server.unwrap_or("?").trim_matches('"');
        return format!("kubeconfig of {server} with {}", content(&pair.cert));
    }
    if text.contains("PRIVATE KEY") {
        return "private key".to_owned();
    }
    if text.contains("PUBLIC KEY") {
        return "public key".to_owned();
    }
    format!("{text:?}")
}

/// A JSON value as indented lines, near to YAML.
fn lines(f: &mut fmt::Formatter<'_>, value: &Value, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            write!(f, "\n{indent}{key}:")?;
            lines(f, value, depth + 1)
        }),
        Value::Array(elements) => elements.iter().try_for_each(|element| {
            write!(f, "\n{indent}-")?;
            lines(f, element, depth + 1)
        }),
        Value::String(text) => write!(f, " {text}"),
        other => write!(f, " {other}"),
    }
}
