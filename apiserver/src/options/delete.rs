//! DeleteOptions.

use apiservice::field::{self, Path};
use apiservice::told::{MAX_PATH, short};
use serde_json::{Value, json};

use super::{Query, invalid_options, validate_dry_run};
use crate::status::Failure;

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents first.
    Foreground,
    /// The object first.
    Background,
    /// Dependents stay.
    Orphan,
}

/// DeleteOptions, from the body or else from the query (R3.61).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Do everything but store.
    pub dry_run: bool,
    /// Of no effect: nothing here ends by and by. Admission is told of it.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` as it was given.
    policy: Option<Propagation>,
    /// Whether there were preconditions, be it none.
    conditional: bool,
    /// Includes what `orphanDependents` says.
    pub propagation: Option<Propagation>,
    /// `orphanDependents=false` was given: an unfinished deletion is a 202.
    pub orphan_dependents: Option<bool>,
    /// Precondition: the object has this uid.
    pub uid: Option<String>,
    /// Precondition: the object is at this version.
    pub resource_version: Option<String>,
}

impl Delete {
    /// From the query of a request without a body.
    pub fn from_query(query: Query<'_>) -> Result<Self, Failure> {
        let grace = query.integer("gracePeriodSeconds")?;
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        Self::checked(
            grace,
            &dry_run,
            query.first("propagationPolicy"),
            query.boolean("orphanDependents"),
            None,
            None,
        )
    }

    /// From a decoded body.
    pub fn from_body(body: &Value) -> Result<Self, Failure> {
        let Some(object) = body.as_object() else {
            return Err(bad_delete_options(
                "json: cannot unmarshal into Go value of type v1.DeleteOptions",
            ));
        };
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
        if !matches!(kind, "" | "DeleteOptions") {
            let version = object.get("apiVersion").and_then(Value::as_str);
            let [kind, version] = [kind, version.unwrap_or("")].map(|it| short(it, MAX_PATH));
            return Err(Failure::BadRequest(format!(
                "{kind} in version {version:?} cannot be handled as a DeleteOptions"
            )));
        }
        let text = |value: Option<&Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(bad_delete_options(&format!("{name} must be a string"))),
        };
        let grace = match object.get("gracePeriodSeconds") {
            None | Some(Value::Null) => None,
            Some(value) if value.is_i64() => value.as_i64(),
            Some(_) => return Err(bad_delete_options("gracePeriodSeconds must be an integer")),
        };
        let orphan = match object.get("orphanDependents") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(orphan)) => Some(*orphan),
            Some(_) => return Err(bad_delete_options("orphanDependents must be a boolean")),
        };
        let dry_run = match object.get("dryRun") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) if values.iter().all(Value::is_string) => {
                values.iter().filter_map(Value::as_str).collect()
            }
            Some(_) => return Err(bad_delete_options("dryRun must be a list of strings")),
        };
        let preconditions = object.get("preconditions");
        let precondition =
            |name: &str| preconditions.and_then(|preconditions| preconditions.get(name));
        let conditional = preconditions.is_some_and(Value::is_object);
        let checked = Self::checked(
            grace,
            &dry_run,
            text(object.get("propagationPolicy"), "propagationPolicy")?.as_deref(),
            orphan,
            text(precondition("uid"), "preconditions.uid")?,
            text(
                precondition("resourceVersion"),
                "preconditions.resourceVersion",
            )?,
        )?;
        Ok(Self {
            conditional,
            ..checked
        })
    }

    /// As DeleteOptions, with what was given.
    pub fn to_value(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = Value::from(seconds);
        }
        if self.conditional {
            options["preconditions"] = json!({});
        }
        let preconditions = [
            ("uid", &self.uid),
            ("resourceVersion", &self.resource_version),
        ];
        for (name, text) in preconditions {
            if let Some(text) = text {
                options["preconditions"][name] = Value::from(text.as_str());
            }
        }
        if let Some(orphan) = self.orphan_dependents {
            options["orphanDependents"] = Value::from(orphan);
        }
        if let Some(policy) = self.policy {
            options["propagationPolicy"] = Value::from(match policy {
                Propagation::Foreground => "Foreground",
                Propagation::Background => "Background",
                Propagation::Orphan => "Orphan",
            });
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    fn checked(
        grace_period_seconds: Option<i64>,
        dry_run: &[&str],
        policy: Option<&str>,
        orphan_dependents: Option<bool>,
        uid: Option<String>,
        resource_version: Option<String>,
    ) -> Result<Self, Failure> {
        let mut errors = field::Errors::new();
        let path = Path::new("propagationPolicy");
        if let (Some(_), Some(policy)) = (orphan_dependents, policy) {
            errors.push(field::Error::invalid(
                &path,
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        let mut propagation = orphan_dependents.map(|orphan| match orphan {
            true => Propagation::Orphan,
            false => Propagation::Background,
        });
        let mut given = None;
        match policy {
            None => {}
            Some("Foreground") => given = Some(Propagation::Foreground),
            Some("Background") => given = Some(Propagation::Background),
            Some("Orphan") => given = Some(Propagation::Orphan),
            Some(other) => errors.push(field::Error::not_supported(
                &path,
                other,
                &["Foreground", "Background", "Orphan", "nil"],
            )),
        }
        propagation = given.or(propagation);
        validate_dry_run(dry_run, &mut errors);
        invalid_options("DeleteOptions", errors)?;
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            grace_period_seconds,
            policy: given,
            conditional: false,
            propagation,
            orphan_dependents,
            uid,
            resource_version,
        })
    }
}

fn bad_delete_options(why: &str) -> Failure {
    Failure::BadRequest(format!(
        "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::pairs;
    use super::*;

    /// R3.61.
    #[test]
    fn delete_options() {
        let body = Delete::from_body(&json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground",
            "preconditions": {"uid": "u"}, "gracePeriodSeconds": 0,
        }))
        .unwrap();
        assert_eq!(body.propagation, Some(Propagation::Foreground));
        assert_eq!(body.uid.as_deref(), Some("u"));
        let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
        assert_eq!(Delete::from_body(&both).unwrap_err().code().as_u16(), 422);
        assert_eq!(
            Delete::from_body(&json!({"kind": "Pod"}))
                .unwrap_err()
                .code()
                .as_u16(),
            400
        );
        let pairs = pairs("orphanDependents=false");
        let query = Delete::from_query(Query::new(&pairs)).unwrap();
        assert_eq!(query.propagation, Some(Propagation::Background));
    }
}
