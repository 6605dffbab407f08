//! What `kubectl get --subresource=jointoken` prints: a row a token.

use apiservice::resource::Column;
use apiservice::time;
use apiservice::v1alpha1::JoinToken;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::accept::{IncludeObject, MetaVersion};
use crate::table;

static COLUMNS: [Column; 7] = [
    column("ID", "name", 0, "The part of the token that is no secret"),
    column("TTL", "", 0, "Time until the token ends"),
    column("Usages", "", 0, "What the token is for"),
    column("Description", "", 0, "What the token is for, for people"),
    column(
        "Requested by",
        "",
        0,
        "User that asked for it, if it was made by Steward",
    ),
    column("Expires", "", 1, "When the token ends"),
    column("Groups", "", 1, "Groups of whoever comes with the token"),
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

/// The table; `frame` is the answer without tokens.
pub(super) fn of(
    tokens: &[JoinToken],
    frame: &Value,
    version: MetaVersion,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows = tokens.iter().map(|token| {
        let mut object = frame.clone();
        // A row is told from others by its name.
        object["metadata"]["name"] = token.id.as_str().into();
        let object = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => table::partial(&object, version),
            IncludeObject::Object => {
                object["status"] = json!({"tokens": [token]});
                object
            }
        };
        json!({"cells": cells(token, now), "object": object})
    });
    let definitions = COLUMNS.iter().map(table::definition).collect();
    table::table(version, json!({}), Some(definitions), rows.collect())
}

fn cells(token: &JoinToken, now: Timestamp) -> Value {
    let or_none = |text: String| match text.is_empty() {
        true => "<none>".to_owned(),
        false => text,
    };
    let ends = token.expiration_timestamp.as_deref();
    let left = match ends.map(time::read) {
        None => "<forever>".to_owned(),
        Some(Err(_)) => "<invalid>".to_owned(),
        Some(Ok(ends)) if ends <= now => "<expired>".to_owned(),
        Some(Ok(ends)) => table::human(ends.as_second() - now.as_second()),
    };
    json!([
        token.id,
        left,
        or_none(token.usages.join(",")),
        or_none(token.description.clone().unwrap_or_default()),
        or_none(token.requested_by.clone().unwrap_or_default()),
        ends.unwrap_or("<never>"),
        or_none(token.groups.join(",")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_token() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let frame =
            json!({"kind": "JoinTokenRequest", "metadata": {"name": "t", "namespace": "n"}});
        let mut token = JoinToken {
            id: "abcdef".to_owned(),
            expiration_timestamp: Some("2030-01-01T23:00:00Z".to_owned()),
            usages: vec!["authentication".to_owned(), "signing".to_owned()],
            groups: Vec::new(),
            description: None,
            requested_by: Some("alice".to_owned()),
        };
        let table = |token: &JoinToken, include| {
            of(
                std::slice::from_ref(token),
                &frame,
                MetaVersion::V1,
                include,
                now,
            )
        };
        let all = table(&token, IncludeObject::Metadata);
        assert_eq!(
            all["rows"][0]["cells"],
            json!([
                "abcdef",
                "23h",
                "authentication,signing",
                "<none>",
                "alice",
                "2030-01-01T23:00:00Z",
                "<none>"
            ])
        );
        assert_eq!(
            all["rows"][0]["object"]["metadata"],
            json!({"name": "abcdef", "namespace": "n"})
        );
        assert_eq!(all["columnDefinitions"].as_array().unwrap().len(), 7);
        for (ends, left) in [
            (None, "<forever>"),
            (Some("2030-01-01T00:00:00Z"), "<expired>"),
            (Some("soon"), "<invalid>"),
        ] {
            token.expiration_timestamp = ends.map(str::to_owned);
            let all = table(&token, IncludeObject::None);
            assert_eq!(all["rows"][0]["cells"][1], left);
            assert_eq!(all["rows"][0]["object"], Value::Null);
        }
    }
}
