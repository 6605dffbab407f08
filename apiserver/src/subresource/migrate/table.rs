//! What `kubectl get --subresource=migrate` prints.

use apiservice::resource::Column;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::accept::{IncludeObject, MetaVersion};
use crate::table;

static COLUMNS: [Column; 10] = [
    column("Name", "name", 0, "Name of the tenant"),
    column("Phase", "", 0, "How far the move is"),
    column("Source", "", 0, "DataStore that the data comes from"),
    column("Target", "", 0, "DataStore that the data goes to"),
    column("Copied", "", 0, "Objects copied, and how many there are"),
    column("Bytes", "", 0, "Bytes copied"),
    column(
        "Frozen",
        "",
        0,
        "How long the tenant's data could not be written",
    ),
    column("Duration", "", 0, "How long the move took, or takes so far"),
    column(
        "Source kept until",
        "",
        1,
        "Until when the source keeps its copy",
    ),
    column("Message", "", 1, "What happens, or why it failed"),
];

const fn column(
    name: &'static str,
    format: &'static str,
    priority: i32,
    description: &'static str,
) -> Column {
    Column {
        name,
        json_path: "",
        kind: "string",
        format,
        description,
        priority,
    }
}

/// The table of one MigrationRequest.
pub(super) fn of(
    request: &Value,
    version: MetaVersion,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => table::partial(request, version),
        IncludeObject::Object => request.clone(),
    };
    let row = json!({"cells": cells(request, now), "object": object});
    let definitions = COLUMNS.iter().map(table::definition).collect();
    let metadata = json!({"resourceVersion": request["metadata"]["resourceVersion"]});
    table::table(version, metadata, Some(definitions), vec![row])
}

fn cells(request: &Value, now: Timestamp) -> Value {
    let status = &request["status"];
    let text = |name: &str| {
        let text = status[name].as_str().filter(|text| !text.is_empty());
        text.unwrap_or("<none>").to_owned()
    };
    let number = |name: &str| status[name].as_i64();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "<none>".to_owned());
    let copied = number("copiedKeys").map(|copied| match number("totalKeys") {
        Some(total) => format!("{copied}/{total}"),
        None => copied.to_string(),
    });
    let frozen = number("frozenMilliseconds");
    json!([
        request["metadata"]["name"],
        text("phase"),
        text("source"),
        match &status["target"] {
            Value::Null => &request["spec"]["target"],
            target => target,
        }
        .as_str()
        .unwrap_or("<none>"),
        or_none(copied),
        or_none(number("copiedBytes").map(|bytes| bytes.to_string())),
        or_none(frozen.map(|it| format!("{}.{}s", it / 1000, it.rem_euclid(1000) / 100))),
        or_none(duration(status, now)),
        text("sourceKeptUntil"),
        text("message"),
    ])
}

fn duration(status: &Value, now: Timestamp) -> Option<String> {
    let time = |name: &str| status[name].as_str()?.parse::<Timestamp>().ok();
    let end = time("completionTime").unwrap_or(now);
    let seconds = end.as_second() - time("startTime")?.as_second();
    Some(table::human(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R8.29.
    #[test]
    fn a_row_says_how_far_it_is() {
        let now = "2030-01-01T00:05:30Z".parse().unwrap();
        let mut request = json!({
            "metadata": {"name": "t", "resourceVersion": "7"},
            "spec": {"target": "b"},
            "status": {
                "phase": "Copying", "source": "a", "target": "b",
                "startTime": "2030-01-01T00:00:00Z",
                "totalKeys": 5678, "copiedKeys": 1234, "copiedBytes": 90_000,
            },
        });
        let cells = |request: &Value| {
            let table = of(request, MetaVersion::V1, IncludeObject::Metadata, now);
            assert_eq!(table["metadata"]["resourceVersion"], "7");
            assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "t");
            let definitions = table["columnDefinitions"].as_array().unwrap();
            let cells = table["rows"][0]["cells"].as_array().unwrap();
            assert_eq!(definitions.len(), cells.len());
            let cells = cells.iter().map(|cell| cell.as_str().unwrap());
            cells.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            cells(&request),
            "t Copying a b 1234/5678 90000 <none> 5m30s <none> <none>"
        );
        request["status"]["frozenMilliseconds"] = 1234.into();
        request["status"]["completionTime"] = "2030-01-01T00:02:00Z".into();
        request["status"]["message"] = "done".into();
        assert_eq!(
            cells(&request),
            "t Copying a b 1234/5678 90000 1.2s 2m <none> done"
        );
        let never = json!({"metadata": request["metadata"], "spec": {}});
        assert_eq!(cells(&never), format!("t{}", " <none>".repeat(9)));
    }
}
