//! The Scale of an object and an object with the replicas of a Scale (R3.74, 8.4), by the
//! fields that the resource's row names. Pure.

use apiservice::field::{self, Path};
use apiservice::told::{self, Paths, Place};
use apiservice::{Resource, ScalePaths};
use serde_json::{Map, Value, json};

use crate::admission;
use crate::decode;
use crate::managed::scale::API_VERSION;
use crate::object::{meta, metadata, set_meta};
use crate::options::FieldValidation;
use crate::registry::ownership;
use crate::status::Failure;
use crate::warnings::Warnings;

const MAX_REPLICAS: i64 = i32::MAX as i64;

/// The Scale of an object, as admission sees it.
///
/// # Errors
/// For an object without replicas.
pub fn seen(resource: &'static Resource, object: &Value) -> Result<Value, Failure> {
    let paths = ownership::scale_paths(resource).ok_or(Failure::UnknownPath)?;
    scale(paths, object)
}

/// Gives an object the replicas of the Scale that admission has made of its own.
///
/// # Errors
/// For what is no Scale, or none of this object.
pub fn take(
    resource: &'static Resource,
    object: &Value,
    mut changed: Value,
    warnings: &Warnings,
) -> Result<Value, Failure> {
    let paths = ownership::scale_paths(resource).ok_or(Failure::UnknownPath)?;
    complete(&mut changed, Vec::new(), FieldValidation::Ignore, warnings)
        .map_err(Failure::Internal)?;
    admission::match_name(&changed, meta(object, "name"))?;
    scaled(paths, object, &changed)
}

fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter()
        .try_fold(object, |value, segment| value.get(segment))
}

/// The Scale of an object.
pub fn scale(paths: &ScalePaths, object: &Value) -> Result<Value, Failure> {
    let Some(replicas) = at(object, paths.spec_replicas).and_then(Value::as_i64) else {
        return Err(Failure::Internal(format!(
            "the spec replicas field \".{}\" does not exist",
            paths.spec_replicas.join(".")
        )));
    };
    let mut metadata = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let present = at(object, paths.status_replicas).and_then(Value::as_i64);
    let mut status = json!({"replicas": present.unwrap_or(0)});
    let selector = at(object, paths.label_selector).and_then(Value::as_str);
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        status["selector"] = Value::from(selector);
    }
    // As Kubernetes' own type is written: clients that know no types see no 0 either.
    let spec = match replicas {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    Ok(json!({
        "kind": "Scale", "apiVersion": API_VERSION, "metadata": metadata,
        "spec": spec, "status": status,
    }))
}

/// The object with the replicas of a Scale, and its resourceVersion and uid as
/// preconditions; without a version the write is unconditional.
pub fn scaled(paths: &ScalePaths, old: &Value, scale: &Value) -> Result<Value, Failure> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let refused = match replicas {
        ..0 => Some("must be greater than or equal to 0".to_owned()),
        0..=MAX_REPLICAS => None,
        _ => Some(format!("must be less than or equal to {MAX_REPLICAS}")),
    };
    if let Some(why) = refused {
        let path = Path::new("spec.replicas");
        return Err(Failure::Invalid {
            kind: "Scale".to_owned(),
            group: "autoscaling".to_owned(),
            name: meta(scale, "name").to_owned(),
            errors: field::Error::invalid(&path, replicas, why).into(),
        });
    }
    let mut new = old.clone();
    for field in ["resourceVersion", "uid"] {
        let text = meta(scale, field);
        if !text.is_empty() {
            set_meta(&mut new, field, Some(Value::from(text)));
        }
    }
    let mut place = &mut new;
    for segment in paths.spec_replicas {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[*segment];
    }
    *place = Value::from(replicas);
    Ok(new)
}

/// Checks and tidies a Scale; the error is the decoder's text.
pub fn complete(
    scale: &mut Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), String> {
    let Some(fields) = scale.as_object() else {
        let name = metadata::type_name(scale);
        return Err(format!(
            "json: cannot unmarshal {name} into Go value of type v1.Scale"
        ));
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or("");
    let shown = |key: &str| told::short(text(key), told::MAX_TEXT);
    if !matches!(text("kind"), "" | "Scale") {
        return Err(format!(
            "no kind {:?} is registered for version \"v1\"",
            shown("kind")
        ));
    }
    if !matches!(text("apiVersion"), "" | API_VERSION) {
        let given = shown("apiVersion");
        return Err(format!(
            "no kind \"Scale\" is registered for version {given:?}"
        ));
    }
    let known = |key: &str| matches!(key, "kind" | "apiVersion" | "metadata" | "spec" | "status");
    let mut unknown = Paths::default();
    for key in fields.keys().filter(|key| !known(key)) {
        unknown.add(&Place::Field(&Place::Root, key));
    }
    match fields.get("spec") {
        None | Some(Value::Null) => {}
        Some(Value::Object(spec)) => {
            let around = Place::Field(&Place::Root, "spec");
            for key in spec.keys().filter(|key| *key != "replicas") {
                unknown.add(&Place::Field(&around, key));
            }
        }
        Some(other) => {
            let name = metadata::type_name(other);
            return Err(format!(
                "json: cannot unmarshal {name} into Go struct field Scale.spec of type v1.ScaleSpec"
            ));
        }
    }
    match &scale["spec"]["replicas"] {
        Value::Null => {}
        Value::Number(number) if number.is_i64() => {}
        other => {
            let name = metadata::type_name(other);
            return Err(format!(
                "json: cannot unmarshal {name} into Go struct field ScaleSpec.spec.replicas of type int32"
            ));
        }
    }
    let mut unknown = unknown.into_vec();
    unknown.extend(metadata::complete(scale)?);
    decode::judge(duplicates, unknown, validation, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> &'static ScalePaths {
        ownership::scale_paths(apiservice::find("tenantcontrolplanes").unwrap()).unwrap()
    }

    /// R3.74.
    #[test]
    fn there_and_back() {
        let mut object = json!({"metadata": {"name": "a", "resourceVersion": "7", "labels": {}}});
        assert!(scale(paths(), &object).is_err());
        let wanted = json!({"metadata": {"name": "a"}, "spec": {"replicas": 3}});
        object = scaled(paths(), &object, &wanted).unwrap();
        let scale = scale(paths(), &object).unwrap();
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(
            scale["metadata"],
            json!({"name": "a", "resourceVersion": "7"})
        );
        let none = json!({"metadata": {"name": "a"}, "spec": {}});
        let asleep = scaled(paths(), &object, &none).unwrap();
        assert_eq!(asleep["spec"]["controlPlane"]["deployment"]["replicas"], 0);
        assert_eq!(super::scale(paths(), &asleep).unwrap()["spec"], json!({}));
        for (replicas, why) in [
            (-1, "must be greater than or equal to 0"),
            (
                3_000_000_000_i64,
                "must be less than or equal to 2147483647",
            ),
        ] {
            let scale = json!({"metadata": {"name": "a"}, "spec": {"replicas": replicas}});
            assert_eq!(
                scaled(paths(), &object, &scale).unwrap_err().to_string(),
                format!(
                    "Scale.autoscaling \"a\" is invalid: spec.replicas: Invalid value: {replicas}: {why}"
                )
            );
        }
    }

    #[test]
    fn unknown_fields_are_told_up_to_the_cap() {
        let mut body = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}});
        for n in 0..30_000 {
            body["spec"][format!("x{n:05}")] = json!(1);
        }
        let warnings = Warnings::default();
        let strict = FieldValidation::Strict;
        let error = complete(&mut body.clone(), Vec::new(), strict, &warnings).unwrap_err();
        assert_eq!(error.matches("unknown field").count(), decode::MAX_STRICT);
        assert!(error.ends_with("unknown field \"spec.x00099\""), "{error}");
        complete(&mut body, Vec::new(), FieldValidation::Warn, &warnings).unwrap();
        assert_eq!(warnings.texts().len(), decode::MAX_STRICT);
    }
}
