//! Rules that a schema's types cannot say.
//!
//! Each rule stands twice in one row: as CEL, published in the schema so that
//! clients and CRD tools see it, and as the function that is run (R6.22).

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::field::{Error, Path};
use crate::schema::{self, Schema};

/// One rule about one node of an object.
pub struct Rule {
    /// The properties from the root to the node. A missing node has no rules.
    pub path: &'static [&'static str],
    /// The field to blame, below the node; empty blames the node.
    pub blame: &'static [&'static str],
    /// The rule in CEL: `self` is the node, `oldSelf` the one before.
    pub cel: &'static str,
    /// What is wrong and what to do.
    pub message: &'static str,
    /// Whether it holds.
    pub holds: Holds,
}

/// How a rule is judged.
pub enum Holds {
    /// By the node alone.
    Now(fn(&Value) -> bool),
    /// By the node as it was and as it is; it holds when there was none.
    Since(fn(&Value, &Value) -> bool),
}

impl Rule {
    /// What the rule says of a change. `old` is the whole object before it.
    ///
    /// A rule about the present does not blame what has not changed (R6.14).
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Option<Error> {
        let node = at(new, self.path)?;
        let old = old.and_then(|old| at(old, self.path));
        let holds = match self.holds {
            Holds::Now(holds) => old == Some(node) || holds(node),
            Holds::Since(holds) => old.is_none_or(|old| holds(old, node)),
        };
        if holds {
            return None;
        }
        let path = self.path.iter().chain(self.blame);
        let path = path.fold(Path::root(), |path, name| path.child(name));
        Some(match node {
            Value::Object(_) | Value::Array(_) => Error::invalid_whole(&path, self.message),
            value => Error::invalid(&path, value.clone(), self.message),
        })
    }

    fn published(&self) -> Value {
        let mut rule = json!({"rule": self.cel, "message": self.message});
        if !self.blame.is_empty() {
            rule["fieldPath"] = format!(".{}", self.blame.join(".")).into();
        }
        rule
    }
}

/// Puts the rules into a schema, as `x-kubernetes-validations` of their nodes.
///
/// # Errors
/// Names a rule whose path the schema does not have.
pub fn publish(schema: &mut Value, rules: &[Rule]) -> Result<(), String> {
    let mut done: Vec<&[&str]> = Vec::new();
    for rule in rules {
        if done.contains(&rule.path) {
            continue;
        }
        done.push(rule.path);
        let here: Value = rules
            .iter()
            .filter(|other| other.path == rule.path)
            .map(Rule::published)
            .collect();
        if !schema::extend(schema, rule.path, "x-kubernetes-validations", here) {
            return Err(format!("no field {}", rule.path.join(".")));
        }
    }
    Ok(())
}

/// The value at a path of properties.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter()
        .try_fold(object, |value, name| value.get(name))
        .filter(|value| !value.is_null())
}

/// The schema of a kind from its spec, its status and its rules.
///
/// # Errors
/// Names what cannot be compiled; a test of this crate excludes it.
pub fn kind_schema(
    description: &str,
    mut spec: Value,
    mut status: Value,
    rules: &[Rule],
) -> Result<Schema, String> {
    if let Value::Object(status) = &mut status {
        status.insert("description".to_owned(), "What is observed.".into());
    }
    if let Value::Object(spec) = &mut spec {
        spec.insert("description".to_owned(), "What is wanted.".into());
    }
    // In the words that stand in every kind of Kubernetes.
    let standard = &schema::of_type::<ConfigMap>()["properties"];
    let mut schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": standard["apiVersion"],
            "kind": standard["kind"],
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    });
    publish(&mut schema, rules)?;
    Schema::new(schema)
}
