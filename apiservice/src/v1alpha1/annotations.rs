//! Annotations with which users ask for something. Nobody refuses one that is misspelled, so
//! a Warning has to say that it means nothing.

use serde_json::{Map, Value};

use crate::{names, told};

/// What every annotation of ours begins with.
const PREFIX: &str = "steward.butlerlabs.dev/";
/// Letters that a slip of the finger may change.
const SLIP: usize = 2;
/// Texts about one write, of each kind: an annotation of 256 KiB names a hundred thousand.
const MOST: usize = 10;

/// Those that mean something on a tenant.
pub const OF_TENANTS: [&str; 7] = [
    names::ANNOTATION_PAUSED,
    names::ANNOTATION_START_EMPTY,
    names::ANNOTATION_REPLACE_LOST_KEYS,
    names::ANNOTATION_KUBECONFIG_SECRET_KEY,
    names::ANNOTATION_CLEANUP_PRIOR_MIGRATION,
    names::ANNOTATION_MIGRATION_TIMEOUT,
    names::ANNOTATION_MIGRATION_SOURCE_RETENTION,
];
/// Those that mean something on a DataStore.
pub const OF_DATA_STORES: [&str; 1] = [names::ANNOTATION_PAUSED];

/// Warnings about annotations of ours that a write adds and that mean nothing on its object.
pub fn unknown(new: &Value, old: Option<&Value>, known: &[&str]) -> Vec<String> {
    added(new, old)
        .filter(|(name, _)| name.starts_with(PREFIX) && !known.contains(&name.as_str()))
        .take(MOST)
        .map(|(name, _)| {
            let meant = known
                .iter()
                .filter(|known| known.len().abs_diff(name.len()) <= SLIP)
                .map(|known| (strsim::damerau_levenshtein(known, name), known))
                .filter(|(distance, _)| *distance <= SLIP)
                .min();
            let hint = meant.map(|(_, meant)| format!("; did you mean {meant}?"));
            format!(
                "metadata.annotations: {name} means nothing here{}",
                hint.unwrap_or_default()
            )
        })
        .collect()
}

/// Warnings about Secrets whose lost keys are to be made anew and that have none.
pub fn lost_keys(new: &Value, old: Option<&Value>) -> Vec<String> {
    let tenant = new["metadata"]["name"].as_str().unwrap_or_default();
    let keys = [
        names::ca(tenant),
        names::front_proxy_ca(tenant),
        names::client_ca(tenant),
        names::service_account(tenant),
    ];
    let asked = added(new, old).find(|(name, _)| *name == names::ANNOTATION_REPLACE_LOST_KEYS);
    let asked = asked.and_then(|(_, value)| value.as_str());
    asked
        .into_iter()
        .flat_map(|list| list.split(',').map(str::trim))
        .filter(|name| !name.is_empty() && !keys.iter().any(|key| key == name))
        .take(MOST)
        .map(|name| {
            let name = told::short(name, told::MAX_PATH);
            format!(
                "metadata.annotations: {} names {name:?}, which is no Secret with keys of this \
                 tenant: these are {}",
                names::ANNOTATION_REPLACE_LOST_KEYS,
                keys.join(", ")
            )
        })
        .collect()
}

/// The annotations that are not there yet, or have another value.
fn added<'a>(
    new: &'a Value,
    old: Option<&'a Value>,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let of = |object: &'a Value| object["metadata"]["annotations"].as_object();
    let before: Option<&Map<String, Value>> = old.and_then(of);
    of(new)
        .into_iter()
        .flatten()
        .filter(move |(name, value)| before.and_then(|before| before.get(*name)) != Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_misspelled_is_told_once() {
        let with =
            |annotations: Value| json!({"metadata": {"name": "a", "annotations": annotations}});
        let told =
            |annotations: Value, old: Option<&Value>| unknown(&with(annotations), old, &OF_TENANTS);
        assert_eq!(
            told(json!({"steward.butlerlabs.dev/pausd": ""}), None),
            [
                "metadata.annotations: steward.butlerlabs.dev/pausd means nothing here; did you \
                 mean steward.butlerlabs.dev/paused?"
            ]
        );
        let foreign = json!({"steward.butlerlabs.dev/colour": "red"});
        let warned = told(foreign.clone(), None);
        assert!(!warned[0].contains("did you mean"), "{warned:?}");
        let before = with(foreign.clone());
        assert!(told(foreign, Some(&before)).is_empty());
        let fine = json!({"steward.butlerlabs.dev/paused": "", "example.com/pausd": ""});
        assert!(told(fine, None).is_empty());

        let lost = |names: &str| {
            let annotations = json!({"steward.butlerlabs.dev/replace-lost-keys": names});
            lost_keys(&with(annotations), None)
        };
        assert!(lost("a-ca, a-client-ca,").is_empty());
        // However much is wrong, few texts say so.
        assert_eq!(lost(&"x,".repeat(100_000)).len(), MOST);
        assert!(lost(&"x".repeat(200_000))[0].len() < 2_000);
        let many = (0..9_000).map(|it| (format!("steward.butlerlabs.dev/{it}"), json!("")));
        let many = Value::Object(many.collect());
        assert_eq!(unknown(&with(many), None, &OF_TENANTS).len(), MOST);
        let told = lost("a-ca,a-ca-typo");
        assert!(
            told.len() == 1 && told[0].contains("\"a-ca-typo\""),
            "{told:?}"
        );
    }
}
