//! From an object of another operator to one of ours. Pure.

use apiservice::names;
use serde_json::{Map, Value, json};

use super::old::Old;

/// Said by whoever applied it, in words of the other API.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Tokens of service accounts have it in them; the other operators use no other.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// One of our objects, and what is worth knowing about it.
#[derive(Debug, Default)]
pub struct Translated {
    /// As it is posted, with the uid that it is to have.
    pub object: Value,
    /// What is different from before.
    pub notes: Vec<String>,
    /// Fields that we do not have. They are refused unless somebody gives them up.
    pub unknown: Vec<String>,
    /// What makes it impossible.
    pub refused: Vec<String>,
}

/// A DataStore.
pub fn data_store(old: &Old, theirs: &Value) -> Translated {
    let mut made = begin(old, theirs, "DataStore");
    settle(&mut made, "datastores");
    made
}

/// A tenant. Of its status only names are taken, and these are checked elsewhere.
pub fn tenant(old: &Old, theirs: &Value) -> Translated {
    let mut made = begin(old, theirs, "TenantControlPlane");
    let storage = &theirs["status"]["storage"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &mut made.object["spec"];
    let (chosen, current) = (text(&spec["dataStore"]), text(&storage["dataStoreName"]));
    if current.is_empty() {
        let why = "it was never set up: there is nothing to keep. Create it anew";
        made.refused.push(why.to_owned());
    } else if chosen.is_empty() {
        spec["dataStore"] = json!(current);
    } else if chosen != current {
        made.refused.push(format!(
            "spec.dataStore is {chosen} and its data is in {current}: let it end its move, or \
             take it back"
        ));
    }
    for (field, set_up) in [
        ("dataStoreSchema", &storage["setup"]["schema"]),
        ("dataStoreUsername", &storage["setup"]["user"]),
    ] {
        let (given, set_up) = (text(&spec[field]), text(set_up));
        if !given.is_empty() && given != set_up {
            made.notes.push(format!(
                "spec.{field} was {given:?}, and {set_up:?} is in use: it is that now"
            ));
        }
        spec[field] = json!(set_up);
    }
    if spec["dataStoreOverrides"]
        .as_array()
        .is_some_and(|it| !it.is_empty())
    {
        let why = "spec.dataStoreOverrides: parts of its data are in other DataStores, which \
                   cannot be adopted";
        made.refused.push(why.to_owned());
    }
    keep_issuer(spec, &mut made.notes);
    let any = |flags: &Value| {
        let mut flags = flags.as_object().into_iter().flatten();
        flags.any(|(_, on)| *on == json!(true))
    };
    if any(&spec["writePermissions"]) {
        let project = old.project;
        made.notes.push(format!(
            "writes are limited: take ValidatingWebhookConfiguration {project}-write-permissions \
             out of the tenant, its webhook answers no more"
        ));
    }
    let finalizers = made.object["metadata"]["finalizers"].as_array_mut();
    if let Some(finalizers) = finalizers {
        finalizers.push(json!(names::FINALIZER));
    }
    settle(&mut made, "tenantcontrolplanes");
    made
}

/// Tokens of service accounts are good for as long as their issuer stays.
fn keep_issuer(spec: &mut Value, notes: &mut Vec<String>) {
    let domain = spec["networkProfile"]["clusterDomain"].as_str();
    if domain.is_none_or(|domain| domain == "cluster.local") {
        return;
    }
    if add_flag(spec, "apiServer", "service-account-issuer", ISSUER) {
        notes.push(format!("the issuer of tokens stays {ISSUER}"));
    }
}

/// Adds a flag unless there is one of this name.
fn add_flag(spec: &mut Value, component: &str, name: &str, value: &str) -> bool {
    let flags = &mut spec["controlPlane"]["deployment"]["extraArgs"][component];
    if flags.is_null() {
        *flags = json!([]);
    }
    let Some(flags) = flags.as_array_mut() else {
        return false;
    };
    let prefix = format!("--{name}=");
    let is_set = |flag: &Value| flag.as_str().is_some_and(|flag| flag.starts_with(&prefix));
    if flags.iter().any(is_set) {
        return false;
    }
    flags.push(json!(format!("{prefix}{value}")));
    true
}

/// What is the same for all kinds.
fn begin(old: &Old, theirs: &Value, kind: &str) -> Translated {
    let mut made = Translated::default();
    let meta = &theirs["metadata"];
    if meta.get("deletionTimestamp").is_some() {
        made.refused.push("it is being deleted".to_owned());
    }
    let mut annotations = renamed(old, &meta["annotations"]);
    if annotations.remove(LAST_APPLIED).is_some() {
        let what = "what kubectl applied last is forgotten: apply the manifest of the new kind";
        made.notes.push(what.to_owned());
    }
    annotations.remove(&format!("{}/soot", apiservice::GROUP));
    annotations.insert(names::ANNOTATION_IMPORT_UID.to_owned(), meta["uid"].clone());
    let finalizers = meta["finalizers"].as_array().into_iter().flatten();
    let others: Vec<_> = finalizers
        .filter(|it| !it.as_str().is_some_and(|it| old.is_finalizer(it)))
        .collect();
    let mut metadata = json!({
        "name": meta["name"],
        "creationTimestamp": meta["creationTimestamp"],
        "labels": renamed(old, &meta["labels"]),
        "annotations": annotations,
        "finalizers": others,
    });
    for field in ["namespace", "ownerReferences"] {
        if let Some(value) = meta.get(field) {
            metadata[field] = value.clone();
        }
    }
    let spec = theirs.get("spec").filter(|spec| spec.is_object());
    made.object = json!({
        "apiVersion": apiservice::api_version(),
        "kind": kind,
        "metadata": metadata,
        "spec": spec.cloned().unwrap_or_else(|| json!({})),
    });
    made
}

/// Keys of the other domain are ours of the same name.
fn renamed(old: &Old, map: &Value) -> Map<String, Value> {
    let entries = map.as_object().into_iter().flatten();
    let ours = |key: &String| match key.split_once('/') {
        Some((domain, name)) if domain == old.domain => format!("{}/{name}", apiservice::GROUP),
        _ => key.clone(),
    };
    entries
        .map(|(key, value)| (ours(key), value.clone()))
        .collect()
}

/// Takes out what our kind does not have, and says so.
fn settle(made: &mut Translated, plural: &str) {
    let Some(resource) = apiservice::find(plural) else {
        return;
    };
    resource.normalize(&mut made.object);
    made.unknown = resource.schema().prune(&mut made.object);
}
