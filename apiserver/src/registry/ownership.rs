//! Who owns which fields of what is written: [`crate::managed`] at the endpoints of our
//! resources.

use std::collections::HashMap;
use std::sync::LazyLock;

use apiservice::{RESOURCES, Resource, ScalePaths, resource};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admission::Part;
use crate::managed::managers::Managers;
use crate::managed::{Inapplicable, Tracker, scale, written};
use crate::object::set_meta;
use crate::status::{Cause, Failure};
use crate::warnings::Warnings;

/// The kind that replicas are written as.
const SCALE: &str = "Scale";

/// The endpoints of one resource.
struct Endpoints {
    object: Tracker,
    place: Tracker,
    status: Tracker,
    replicas: Tracker,
}

/// Compiled once from what we publish.
static ALL: LazyLock<HashMap<&'static str, Endpoints>> = LazyLock::new(|| {
    let document = apiservice::openapi::v3_group_version();
    let schemas = document["components"]["schemas"].as_object();
    let schemas = schemas.cloned().unwrap_or_default();
    let tracker = |schema: &str, kind, subresource, ignored: &[&str]| {
        let tracker = Tracker::new(&schemas, schema, kind, subresource, ignored);
        #[allow(
            clippy::expect_used,
            reason = "our own schemas, which a test compiles; without them nothing is served"
        )]
        tracker.expect("our schemas are structural")
    };
    let endpoints = |resource: &'static Resource| {
        let schema = apiservice::openapi::schema_name(resource);
        let kind = || (resource.api_version(), resource.kind);
        // What an endpoint does not take (R5.24).
        let status: &[&str] = if resource.has_status() {
            &["status"]
        } else {
            &[]
        };
        let scale_kind = (scale::API_VERSION.to_owned(), SCALE);
        let scale_schema = apiservice::openapi::SCALE;
        Endpoints {
            object: tracker(&schema, kind(), "", status),
            place: tracker(&schema, kind(), "migrate", status),
            status: tracker(&schema, kind(), "status", &["metadata", "spec"]),
            replicas: tracker(scale_schema, scale_kind, "scale", &[]),
        }
    };
    let all = RESOURCES.iter().copied();
    all.map(|resource| (resource.plural, endpoints(resource)))
        .collect()
});

/// Compiles what the first write would else wait for.
pub fn prepare() {
    LazyLock::force(&ALL);
}

fn of(resource: &Resource, part: Part) -> &'static Tracker {
    let endpoints = &ALL[resource.plural];
    match part {
        Part::Main => &endpoints.object,
        Part::Place => &endpoints.place,
        Part::Status => &endpoints.status,
        Part::Replicas => &endpoints.replicas,
    }
}

/// Records who changed what in `new`, which replaces `live` or is created.
pub fn record(
    resource: &'static Resource,
    part: Part,
    live: Option<&Value>,
    new: &mut Value,
    manager: &str,
    now: Timestamp,
) {
    let tracker = of(resource, part);
    match (part, live, scale_paths(resource)) {
        (Part::Replicas, Some(live), Some(paths)) => {
            let managers = Managers::stored(live).unwrap_or_default();
            let before = seen_as_scale(paths, live, &managers);
            let mut after = seen_as_scale(paths, new, &managers);
            tracker.update(Some(&before), &mut after, manager, now);
            set_from_scale(resource, paths, new, managers, &after);
        }
        _ => tracker.update(live, new, manager, now),
    }
}

/// The live object, or nothing, with a configuration.
///
/// # Errors
/// 400 and 500 for what is no configuration of the kind, 409 for fields of others.
pub fn apply(
    resource: &'static Resource,
    part: Part,
    live: Option<&Value>,
    config: &Value,
    by: Applied<'_>,
) -> Result<Value, Failure> {
    let applied = of(resource, part).apply(live, config, by.manager, by.force, by.now);
    applied.map_err(|why| match why {
        Inapplicable::Misdirected(why) => Failure::BadRequest(why),
        Inapplicable::TooMany => {
            let why = "the object has too many values for a configuration to be applied";
            Failure::TooLarge(why.to_owned())
        }
        Inapplicable::Untyped(why) => Failure::Unexplained(why),
        Inapplicable::Conflicts(conflicts) => Failure::ApplyConflict {
            message: conflicts.to_string(),
            causes: conflicts
                .causes()
                .into_iter()
                .map(|(manager, field)| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {manager}"),
                    field,
                })
                .collect(),
        },
    })
}

/// Who applies, and how.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    pub manager: &'a str,
    pub force: bool,
    pub now: Timestamp,
}

/// Applies a configuration of a Scale, which is made of `live` and given to `scaled`, which
/// makes the new object of it.
///
/// # Errors
/// As [`apply`], and those of `scaled`.
pub fn apply_scale(
    resource: &'static Resource,
    paths: &ScalePaths,
    (live, mut scale): (&Value, Value),
    config: &Value,
    by: Applied<'_>,
    scaled: impl FnOnce(Value) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let managers = Managers::stored(live).unwrap_or_default();
    let owners = scale::to_scale(&managers, paths.spec_replicas);
    set_meta(&mut scale, "managedFields", owners.encode());
    let applied = apply(resource, Part::Replicas, Some(&scale), config, by)?;
    let mut new = scaled(applied.clone())?;
    set_from_scale(resource, paths, &mut new, managers, &applied);
    Ok(new)
}

/// What counts of the Scale of an object.
fn seen_as_scale(paths: &ScalePaths, object: &Value, managers: &Managers) -> Value {
    let replicas = paths
        .spec_replicas
        .iter()
        .try_fold(object, |value, name| value.get(name));
    let mut scale = json!({
        "apiVersion": scale::API_VERSION, "kind": SCALE,
        "metadata": {"uid": object["metadata"]["uid"]},
        "spec": {"replicas": replicas},
    });
    let owners = scale::to_scale(managers, paths.spec_replicas);
    set_meta(&mut scale, "managedFields", owners.encode());
    scale
}

fn set_from_scale(
    resource: &Resource,
    paths: &ScalePaths,
    new: &mut Value,
    managers: Managers,
    scale: &Value,
) {
    let owners = Managers::stored(scale).unwrap_or_default();
    let version = resource.api_version();
    let all = scale::to_object(managers, owners, paths.spec_replicas, &version);
    set_meta(new, "managedFields", all.encode());
}

/// The managers of an object's replicas, as its Scale has them.
pub fn managers_of_scale(resource: &'static Resource, object: &Value) -> Option<Value> {
    let paths = scale_paths(resource)?;
    let managers = Managers::stored(object).unwrap_or_default();
    scale::to_scale(&managers, paths.spec_replicas).encode()
}

/// R5.29: what admission has made of the managers of an object stays if they can be read;
/// otherwise they are as they were, and the client is told.
pub fn keep_readable(before: Option<Value>, new: &mut Value, warnings: &Warnings) {
    let managers = &new["metadata"]["managedFields"];
    if *managers == before.clone().unwrap_or_default() {
        return;
    }
    if let Err(why) = Managers::stored(new) {
        let why = apiservice::told::cut(why, apiservice::told::MAX_TEXT);
        warnings.add(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {why}"
        ));
        set_meta(new, "managedFields", before);
    }
}

/// Where a resource has its replicas.
pub fn scale_paths(resource: &'static Resource) -> Option<&'static ScalePaths> {
    let mut rows = resource.subresources.iter();
    rows.find_map(|subresource| match &subresource.part {
        resource::Part::Scale(paths) => Some(paths),
        _ => None,
    })
}

/// What changes nothing but times is not written (R5.26).
pub fn settle(old: &Value, new: &mut Value) {
    written::keep_times(old, new);
}
