//! Objects as JSON values: their keys and their metadata, and how deep, long and heavy the
//! value is. Pure.

pub mod depth;
pub mod metadata;
pub mod weight;

use apiservice::Resource;
use apiservice::resource::Scope;
use serde_json::Value;

/// The key of an object: `/PLURAL/NAMESPACE/NAME` or `/PLURAL/NAME`.
pub fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    format!("{}{name}", prefix(resource, namespace))
}

/// The prefix of all keys of a resource, or of those in one namespace.
pub fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if resource.scope == Scope::Namespaced => {
            format!("/{}/{namespace}/", resource.plural)
        }
        _ => format!("/{}/", resource.plural),
    }
}

/// A time as Kubernetes writes it: RFC 3339, UTC, whole seconds.
pub fn time(timestamp: jiff::Timestamp) -> String {
    let seconds = jiff::Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp);
    seconds.to_string()
}

/// A text of `metadata`, empty if there is none.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or("")
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array();
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Replaces `metadata.finalizers`; the empty list is left out.
pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    set_meta(
        object,
        "finalizers",
        (!finalizers.is_empty()).then(|| Value::from(finalizers)),
    );
}

/// Sets or removes a field of `metadata`.
pub fn set_meta(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    match value {
        Some(value) => metadata.insert(field.to_owned(), value),
        None => metadata.remove(field),
    };
}

/// The object is being deleted.
pub fn deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

/// Whether the two differ outside metadata and status (R3.50).
pub fn spec_changed(resource: &Resource, new: &Value, old: &Value) -> bool {
    let has_status = resource.has_status();
    let counts = |key: &str| match key {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !has_status,
        _ => true,
    };
    fn fields<'a>(
        object: &'a Value,
        counts: &impl Fn(&str) -> bool,
    ) -> Vec<(&'a String, &'a Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(key, _)| counts(key)).collect()
    }
    fields(new, &counts) != fields(old, &counts)
}

/// The length of a value as JSON, without making it.
pub(crate) fn length(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // A Value always has a JSON form.
        Err(_) => usize::MAX,
    }
}

/// Sets `metadata.resourceVersion`.
pub fn set_version(object: &mut Value, revision: u64) {
    set_meta(
        object,
        "resourceVersion",
        Some(Value::from(revision.to_string())),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys() {
        let tenants = apiservice::find("tenantcontrolplanes").unwrap();
        let stores = apiservice::find("datastores").unwrap();
        assert_eq!(key(tenants, Some("n"), "a"), "/tenantcontrolplanes/n/a");
        assert_eq!(prefix(tenants, None), "/tenantcontrolplanes/");
        assert_eq!(key(stores, None, "a"), "/datastores/a");
    }

    /// R3.50.
    #[test]
    fn generation_counts_spec_only() {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let old = json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 1}});
        let cases = [
            (
                json!({"metadata": {"labels": {}}, "spec": {"x": 1}, "status": {"y": 2}}),
                false,
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"x": 2}, "status": {"y": 1}}),
                true,
            ),
        ];
        for (new, expected) in cases {
            assert_eq!(spec_changed(resource, &new, &old), expected);
        }
    }

    /// R3.38.
    #[test]
    fn times_have_whole_seconds() {
        let timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(time(timestamp), "2026-01-02T03:04:05Z");
    }
}
