//! Removes what is left of another operator, of what is here and well.

use serde_json::{Value, json};

use super::found::Found;
use super::old::{Api, Old};
use super::owned;
use super::told::{Error, Told};
use crate::args::ImportArgs;

/// All tenants, then the DataStores that none of them is left in.
pub async fn all(
    api: &Api,
    old: &Old,
    all: &Found,
    args: &ImportArgs,
    told: &mut Vec<Told>,
) -> Result<(), Error> {
    if old.is_our_group() {
        let why = "its objects went with their CustomResourceDefinition: nothing is left to be \
                   finished";
        return Err(Error::Refused(why.to_owned()));
    }
    let webhooks = old.webhooks(api).await?;
    if !webhooks.is_empty() {
        return Err(Error::Refused(format!(
            "its webhooks would be asked, and nobody answers: kubectl delete {}",
            webhooks.join(" ")
        )));
    }
    let mut left = false;
    for theirs in &all.tenants {
        let meta = &theirs["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let about = format!("TenantControlPlane {namespace}/{name}");
        let chosen = format!("{namespace}/{name}");
        if !args.tenants.is_empty() && !args.tenants.contains(&chosen) {
            left = true;
            continue;
        }
        let why = obstacles(api, old, &namespace, &name, &text("uid")).await?;
        if !why.is_empty() {
            left = true;
            told.push(Told::refused(about, why));
            continue;
        }
        let plural = format!("namespaces/{namespace}/tenantcontrolplanes/{name}");
        if args.write {
            let config = apiservice::names::datastore_config(&name);
            let config = format!("/api/v1/namespaces/{namespace}/secrets/{config}");
            if let Some(secret) = api.find(&config).await? {
                release(api, old, &config, &secret).await?;
            }
            remove(api, old, &old.path(&plural), theirs).await?;
        }
        told.push(done(about, args));
    }
    for theirs in &all.data_stores {
        let name = theirs["metadata"]["name"].as_str().unwrap_or_default();
        let about = format!("DataStore {name}");
        let ours = format!("/apis/{}/datastores/{name}", apiservice::api_version());
        let ours = api.find(&ours).await?;
        if left || ours.is_none_or(|ours| ours["metadata"]["uid"] != theirs["metadata"]["uid"]) {
            let why = "it is not here, or tenants of the other operator are left".to_owned();
            told.push(Told::refused(about, vec![why]));
            continue;
        }
        if args.write {
            remove(api, old, &old.path(&format!("datastores/{name}")), theirs).await?;
        }
        told.push(done(about, args));
    }
    Ok(())
}

fn done(about: String, args: &ImportArgs) -> Told {
    let word = if args.write {
        "removed"
    } else {
        "would remove"
    };
    Told::new(about, word, Vec::new())
}

/// What has to be in order before the old object goes.
async fn obstacles(
    api: &Api,
    old: &Old,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<Vec<String>, Error> {
    let ours = format!("namespaces/{namespace}/tenantcontrolplanes/{name}");
    let ours = format!("/apis/{}/{ours}", apiservice::api_version());
    let Some(ours) = api
        .find(&ours)
        .await?
        .filter(|it| it["metadata"]["uid"] == uid)
    else {
        return Ok(vec!["it is not imported".to_owned()]);
    };
    let mut why = Vec::new();
    if !is_ready(&ours) {
        why.push("it is not Ready here".to_owned());
    }
    for kind in owned::KINDS {
        for object in api.list(&owned::path(kind, namespace)).await? {
            if owned::is_theirs(old, &object, uid) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let plural = kind.rsplit('/').next().unwrap_or_default();
                why.push(format!("{plural}/{name} would be deleted with it"));
            }
        }
    }
    Ok(why)
}

/// Ready, by what was observed of the object as it is now.
fn is_ready(ours: &Value) -> bool {
    let conditions = ours["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    ours["status"]["observedGeneration"] == ours["metadata"]["generation"]
        && conditions.into_iter().any(is_ready)
}

/// Takes the operator's own finalizers off.
async fn release(api: &Api, old: &Old, path: &str, object: &Value) -> Result<(), Error> {
    let meta = &object["metadata"];
    let all = meta["finalizers"].as_array().cloned().unwrap_or_default();
    let is_own = |it: &Value| it.as_str().is_some_and(|it| old.is_finalizer(it));
    if !all.iter().any(is_own) {
        return Ok(());
    }
    let others: Vec<_> = all.into_iter().filter(|it| !is_own(it)).collect();
    let patch = json!({"metadata": {
        "finalizers": others,
        "resourceVersion": meta["resourceVersion"],
    }});
    api.merge(path, &patch).await
}

/// In the background, and not orphaning: that would take away the references of this uid, which
/// are ours by now.
async fn remove(api: &Api, old: &Old, path: &str, theirs: &Value) -> Result<(), Error> {
    release(api, old, path, theirs).await?;
    let uid = theirs["metadata"]["uid"].as_str().unwrap_or_default();
    api.delete(path, uid, "Background").await
}
