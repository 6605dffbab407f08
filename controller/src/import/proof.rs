//! What a tenant's own objects prove of its place in a datastore. Pure.
//!
//! Status can be written by whoever may write it, and a Secret by whoever has the tenant's
//! namespace. A key that belongs to a certificate of the user, signed by the datastore's
//! authority, only the operator could give.

use std::collections::BTreeMap;

use apiservice::names::key;
use apiservice::pki::{self, Pair, Usage};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use storage::tenancy::{Claim, Stage};

use crate::tenant::objects;

/// The claim that a translated tenant is to have.
pub fn claim(tenant: &Value, uid: &str) -> Claim {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Claim {
        uid: uid.to_owned(),
        namespace: text(&tenant["metadata"]["namespace"]),
        name: text(&tenant["metadata"]["name"]),
        schema: text(&tenant["spec"]["dataStoreSchema"]),
        user: text(&tenant["spec"]["dataStoreUsername"]),
        // It has the schema's name.
        role: None,
        stage: Stage::Serving,
        prefix: None,
        replicas: None,
    }
}

/// What speaks against these names.
pub fn doubts(
    claim: &Claim,
    config: Option<&Secret>,
    certificate: Option<&Secret>,
    authority: &str,
    now: Timestamp,
) -> Vec<String> {
    let mut doubts = Vec::new();
    let said = |secret: Option<&Secret>, key: &str| secret.and_then(|it| objects::text(it, key));
    for (key, name) in [(key::DB_SCHEMA, &claim.schema), (key::DB_USER, &claim.user)] {
        match said(config, key) {
            Some(found) if found == *name && !name.is_empty() => {}
            found => doubts.push(format!(
                "its status says {name:?} and its Secret {key} {:?}",
                found.unwrap_or_default()
            )),
        }
    }
    let (cert, key) = (
        said(certificate, key::DATASTORE_CRT),
        said(certificate, key::DATASTORE_KEY),
    );
    let (Some(cert), Some(key)) = (cert, key) else {
        doubts.push("it has no certificate of its user in the datastore".to_owned());
        return doubts;
    };
    match pki::inspect(&cert) {
        Err(error) => doubts.push(format!("the certificate of its user: {error}")),
        Ok(info) if info.subject.common_name != claim.user => {
            doubts.push(format!(
                "the certificate of its user is for {:?}, not {:?}",
                info.subject.common_name, claim.user
            ));
        }
        Ok(_) => {}
    }
    if let Err(error) = pki::verify(&cert, authority, Usage::Client, now) {
        doubts.push(format!(
            "the certificate of its user is not one of the datastore's authority: {error}"
        ));
    }
    if !pki::key_matches(&Pair { cert, key }) {
        doubts.push("the key of its user does not belong to the certificate".to_owned());
    }
    doubts
}

/// Names in a datastore that more than one tenant is said to have: nobody gets them.
pub fn shared<'a>(claims: impl Iterator<Item = (&'a str, &'a Claim)>) -> Vec<(String, String)> {
    let mut seen: BTreeMap<(String, &str, &str), usize> = BTreeMap::new();
    for (store, claim) in claims {
        for (what, name) in [("schema", &claim.schema), ("user", &claim.user)] {
            *seen.entry((store.to_owned(), what, name)).or_default() += 1;
        }
    }
    let twice = seen.into_iter().filter(|(_, count)| *count > 1);
    twice
        .map(|((store, _, name), _)| (store, name.to_owned()))
        .collect()
}

/// The version of Kubernetes that a Deployment runs.
pub fn version(deployment: &Value) -> Option<String> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array()?;
    let server = containers
        .iter()
        .find(|it| it["name"] == "kube-apiserver")?;
    let (_, tag) = server["image"].as_str()?.rsplit_once(':')?;
    let number = tag.strip_prefix('v')?;
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.');
    Some(format!("v{}", &number[..end.unwrap_or(number.len())]))
}
