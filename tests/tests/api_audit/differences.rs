//! Two events, without what no two servers have in common.

use serde_json::{Value, json};

use crate::Call;

/// What is another on purpose: a part of the path, a part of what differs, and why.
const KNOWN: [(&str, &str, &str); 2] = [
    (
        "/requestObject/spec/",
        "ours \"(absent)\"",
        "a CRD's defaults are added while it is decoded; ours is what was sent",
    ),
    (
        "/requestObject/apiVersion",
        "theirs \"meta.k8s.io/__internal\"",
        "DeleteOptions are written in a version that no client knows",
    ),
];

/// What differs, as text; empty if nothing does.
pub fn of(call: &Call<'_>, theirs: &[Value], ours: &[Value]) -> String {
    let normal = |events: &[Value]| -> Vec<Value> {
        let events = events.iter().cloned();
        events
            .map(|mut event| {
                settle(&mut event, "");
                event
            })
            .collect()
    };
    let (theirs, ours) = (normal(theirs), normal(ours));
    let mut wrong = Vec::new();
    compare("", &json!(theirs), &json!(ours), &mut wrong);
    wrong.retain(|(path, told)| {
        let mut known = KNOWN.iter();
        !known.any(|(at, what, _)| path.contains(at) && told.contains(what))
    });
    if wrong.is_empty() {
        return String::new();
    }
    let lines = wrong
        .iter()
        .map(|(path, told)| format!("  {path}: {told}\n"));
    format!("{} {}\n{}", call.0, call.1, lines.collect::<String>())
}

/// Takes out ids, times, addresses and revisions.
fn settle(value: &mut Value, key: &str) {
    match value {
        Value::Object(fields) => {
            if key == "annotations" {
                fields.retain(|key, _| !key.starts_with("apiserver.latency.k8s.io/"));
            }
            for (key, value) in fields.iter_mut() {
                settle(value, key);
            }
        }
        Value::Array(_) if key == "sourceIPs" => *value = json!("*"),
        Value::Array(_) if key == "authentication.kubernetes.io/credential-id" => {
            *value = json!("*")
        }
        Value::Array(values) => values.iter_mut().for_each(|value| settle(value, "")),
        Value::String(text) => {
            let varies = ["auditID", "uid", "resourceVersion", "creationTimestamp"].contains(&key)
                || key.ends_with("Timestamp");
            if varies && !text.is_empty() {
                *text = "*".to_owned();
            }
            // What a decoder says.
            if let Some((start, _)) = text.split_once("json parse error: ") {
                *text = format!("{start}json parse error");
            }
            // The aggregator sorts queries.
            if let Some((path, query)) = text.split_once('?').filter(|_| key == "requestURI") {
                let mut pairs: Vec<&str> = query.split('&').collect();
                pairs.sort_unstable();
                *text = format!("{path}?{}", pairs.join("&"));
            }
        }
        _ => {}
    }
}

fn compare(path: &str, a: &Value, b: &Value, wrong: &mut Vec<(String, String)>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let of = |fields: &serde_json::Map<String, Value>| {
                    fields.get(key).cloned().unwrap_or(json!("(absent)"))
                };
                compare(&format!("{path}/{key}"), &of(a), &of(b), wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (position, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}/{position}"), a, b, wrong);
            }
        }
        (a, b) if a == b => {}
        (a, b) => wrong.push((path.to_owned(), format!("theirs {a}, ours {b}"))),
    }
}
