//! Objects as rows of a `meta.k8s.io` Table, with the columns and ages that a
//! CRD prints (contract R4.8). Pure: the time is passed in.

use apiservice::Resource;
use apiservice::resource::Column;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::accept::{IncludeObject, MetaVersion};
use crate::object;

/// The name of the object; always the first column.
const NAME: Column = Column {
    name: "Name",
    json_path: ".metadata.name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique within its namespace and resource",
    priority: 0,
};

/// The heading of a column that says how an object is doing, and what stands
/// there once the object is being deleted: the same as for Pods and Namespaces.
const STATUS: &str = "Status";
const TERMINATING: &str = "Terminating";

/// Columns of `autoscaling/v1` Scale after the name (R3.74).
pub const SCALE: &[Column] = &[
    Column {
        name: "Desired",
        json_path: ".spec.replicas",
        kind: "integer",
        format: "",
        description: "Number of desired replicas",
        priority: 0,
    },
    Column {
        name: "Available",
        json_path: ".status.replicas",
        kind: "integer",
        format: "",
        description: "Number of actual replicas",
        priority: 0,
    },
    AGE,
];

/// What a resource without columns of its own has after the name.
const AGE: Column = Column {
    name: "Age",
    json_path: ".metadata.creationTimestamp",
    kind: "date",
    format: "",
    description: "Time since the object was created",
    priority: 0,
};

/// The columns after the name.
pub fn columns(resource: &Resource) -> &'static [Column] {
    const DEFAULT: &[Column] = &[AGE];
    if resource.columns.is_empty() {
        DEFAULT
    } else {
        resource.columns
    }
}

/// `columnDefinitions`.
pub fn definitions(columns: &[Column]) -> Value {
    Value::Array(
        std::iter::once(&NAME)
            .chain(columns)
            .map(definition)
            .collect(),
    )
}

/// One of `columnDefinitions`.
pub fn definition(column: &Column) -> Value {
    let description = match column.description {
        "" => format!(
            "Custom resource definition column (in JSONPath format): {}",
            column.json_path
        ),
        text => text.to_owned(),
    };
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": description, "priority": column.priority,
    })
}

/// One row; `include` says what of the object goes with it.
pub fn row(
    columns: &[Column],
    object: &Value,
    version: MetaVersion,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let cells: Vec<Value> = std::iter::once(&NAME)
        .chain(columns)
        .map(|column| cell(column, object, now))
        .collect();
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => partial(object, version),
    };
    json!({"cells": cells, "object": object})
}

/// PartialObjectMetadata of an object.
pub fn partial(object: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": version.api_version(),
        "metadata": object["metadata"],
    })
}

/// A whole table; `definitions` is left out after a stream's first event.
pub fn table(
    version: MetaVersion,
    metadata: Value,
    definitions: Option<Value>,
    rows: Vec<Value>,
) -> Value {
    json!({
        "kind": "Table", "apiVersion": version.api_version(), "metadata": metadata,
        "columnDefinitions": definitions.unwrap_or(json!([])), "rows": rows,
    })
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    if column.name == STATUS && object::deleting(object) {
        return Value::from(TERMINATING);
    }
    let found = find(object, column.json_path);
    let Some(value) = found.filter(|value| !value.is_null()) else {
        return Value::Null;
    };
    match column.kind {
        "string" => match value {
            Value::String(_) => value.clone(),
            other => Value::from(other.to_string()),
        },
        "integer" => {
            let number = value.as_i64();
            number
                .or_else(|| value.as_f64().map(|number| number as i64))
                .into()
        }
        "number" => value.as_f64().into(),
        "boolean" => value.as_bool().into(),
        "date" => match value.as_str().map(apiservice::time::read) {
            Some(Ok(time)) => Value::from(age(time, now)),
            Some(Err(_)) => Value::from("<invalid>"),
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

/// What a path of a column leads to; see [`Column::json_path`].
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    const OF_TYPE: &str = r#"[?(@.type==""#;
    let (mut value, mut path) = (object, path);
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix(OF_TYPE) {
            let (kind, rest) = rest.split_once(r#"")]"#)?;
            let mut list = value.as_array()?.iter();
            value = list.find(|one| one["type"] == kind)?;
            path = rest;
        } else {
            let rest = path.strip_prefix('.')?;
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = value.get(&rest[..end])?;
            path = &rest[end..];
        }
    }
    Some(value)
}

fn age(time: Timestamp, now: Timestamp) -> String {
    // Whole seconds towards zero, so that a clock a second ahead reads "0s".
    let milliseconds = now.as_millisecond() - time.as_millisecond();
    human(milliseconds / 1000)
}

/// A duration of whole seconds in the two or three figures that people need.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if years < 8 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R4.8.
    #[test]
    fn durations() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (150 * 60, "150m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 300, "3h5m"),
            (30 * HOUR, "30h"),
            (48 * HOUR, "2d"),
            (5 * DAY + 3 * HOUR, "5d3h"),
            (8 * DAY, "8d"),
            (400 * DAY, "400d"),
            (765 * DAY, "2y35d"),
            (730 * DAY, "2y"),
            (3300 * DAY, "9y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }

    /// R4.8: as kubectl prints Pods and Namespaces; the object stays as it is.
    #[test]
    fn what_is_being_deleted_is_terminating() {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let now = "2026-01-01T00:05:30Z".parse().unwrap();
        let mut object = json!({
            "metadata": {"name": "a"},
            "status": {"kubernetesResources": {"version": {"status": "Ready"}}},
        });
        let printed = |object: &Value| {
            let whole = IncludeObject::Object;
            let row = row(columns(resource), object, MetaVersion::V1, whole, now);
            assert_eq!(row["object"], *object);
            row["cells"][3].clone()
        };
        assert_eq!(printed(&object), "Ready");
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:05:00Z".into();
        assert_eq!(printed(&object), "Terminating");
        object["status"] = json!({});
        assert_eq!(printed(&object), "Terminating");
    }

    /// R3.74, R4.8.
    #[test]
    fn cells_by_type() {
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"s": "x", "n": 3, "b": true, "bad": "yesterday"},
            "status": {"conditions": [7, {"type": "A", "reason": "a"}, {"type": "Ready", "reason": "r"}]},
        });
        let now = "2026-01-01T00:05:30Z".parse().unwrap();
        let cases = [
            ("string", ".spec.s", json!("x")),
            ("string", ".spec.n", json!("3")),
            ("string", ".spec.missing.deep", json!(null)),
            (
                "string",
                r#".status.conditions[?(@.type=="Ready")].reason"#,
                json!("r"),
            ),
            (
                "string",
                r#".status.conditions[?(@.type=="B")].reason"#,
                json!(null),
            ),
            ("string", r#".spec[?(@.type=="A")].reason"#, json!(null)),
            ("integer", ".spec.n", json!(3)),
            ("integer", ".spec.s", json!(null)),
            ("boolean", ".spec.b", json!(true)),
            ("date", ".metadata.creationTimestamp", json!("5m30s")),
            ("date", ".spec.bad", json!("<invalid>")),
        ];
        for (kind, json_path, expected) in cases {
            let column = Column {
                kind,
                json_path,
                ..NAME
            };
            assert_eq!(cell(&column, &object, now), expected, "{kind} {json_path}");
        }
        let row = row(
            SCALE,
            &object,
            MetaVersion::V1,
            IncludeObject::Metadata,
            now,
        );
        assert_eq!(row["cells"], json!(["a", null, null, "5m30s"]));
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    }
}
