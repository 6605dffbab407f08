//! The annotation in which `kubectl apply` on the client's side keeps what it applied (R5.21).

use serde_json::Value;

use super::value;

/// What `kubectl apply` on the client's side leaves (R5.21).
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes that an object may have in its annotations.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The configuration that was applied last, as it was written.
pub(super) fn get(object: &Value) -> Option<&str> {
    let text = object["metadata"]["annotations"].get(LAST_APPLIED)?;
    text.as_str().filter(|text| !text.is_empty())
}

/// Keeps the annotation in step with what is applied on the server's side. If the
/// annotations would be too large with it, it goes.
pub(super) fn set(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(annotations) = config["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    let mut text = String::new();
    value::write_json(&mut text, &config);
    text.push('\n');
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}
