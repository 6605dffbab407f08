//! Structural schemas, as a CustomResourceDefinition has them: one source, the
//! Rust types of `v1alpha1`; one JSON form for clients; one compiled form for
//! the walkers that prune, default and validate (contract 6.2, 6.3).

mod default;
mod format;
mod node;
mod prune;
mod repair;
mod structural;
mod validate;

use serde_json::Value;

use crate::field;
use node::Node;

pub use structural::{extend, of_type};

/// The schema of a kind.
pub struct Schema {
    json: Value,
    root: Node,
}

impl Schema {
    /// Compiles a structural schema.
    ///
    /// # Errors
    /// When a pattern in it is not a regular expression or a node has no type;
    /// the text names the path.
    pub fn new(json: Value) -> Result<Self, String> {
        let root = Node::compile(&json, &field::Path::root())?;
        Ok(Self { json, root })
    }

    /// Removes the fields that the schema does not have, and returns their
    /// paths, sorted: `spec.foo`, `spec.list[0].bar` (R6.4, R6.7).
    ///
    /// `apiVersion`, `kind` and `metadata` of the object are left alone.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Drops nulls where null is not allowed, then fills in the static
    /// defaults (R6.1, R6.8).
    pub fn default(&self, object: &mut Value) {
        default::drop_nulls(&self.root, object);
        default::fill(&self.root, object);
    }

    /// Mends what an older release stored and nobody can read: a number at an integer
    /// becomes the nearest integer of its format, a time that Go or our types do not read is
    /// left out, or 1970 where there has to be one.
    pub fn repair(&self, object: &mut Value) {
        repair::repair(&self.root, object);
    }

    /// What is wrong with the object below `path`, in Kubernetes' words (R6.11).
    pub fn validate(&self, object: &Value, path: &field::Path) -> field::Errors {
        validate::validate(&self.root, object, None, path)
    }

    /// The same for a change from `old`: what has not changed is not blamed
    /// (R6.14).
    pub fn validate_update(
        &self,
        object: &Value,
        old: &Value,
        path: &field::Path,
    ) -> field::Errors {
        validate::validate(&self.root, object, Some(old), path)
    }

    /// The schema as OpenAPI v3, without references.
    pub fn open_api(&self) -> &Value {
        &self.json
    }

    /// The part of the schema at a path of properties; lists and maps are
    /// stepped into by `[]`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter()
            .try_fold(&self.json, |schema, &segment| match segment {
                "[]" => schema
                    .get("items")
                    .or_else(|| schema.get("additionalProperties")),
                name => schema.get("properties")?.get(name),
            })
    }
}

#[cfg(test)]
mod tests;
