//! The DataStores to which a tenant's data can go.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use apiservice::assignment::{self, Candidate};
use apiservice::condition;
use apiservice::field::{self, Path};
use apiservice::v1alpha1::{DataStore, DataStoreAssignment, data_store};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::asked::KIND;
use super::plan;
use crate::authz::Permit;
use crate::cache::Pace;
use crate::object;
use crate::registry::{Registry, Request};
use crate::status::{Failure, Subject};
use crate::stored;
use crate::subresource::body;

/// DataStores read at a time.
const PAGE: usize = 16;
/// How long a choice is remembered: longer than a request takes.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Chooses DataStores. Of choices that are not written yet it knows, so that many tenants
/// that are sent away at once are spread as if one came after the other.
#[derive(Default)]
pub struct Chooser {
    /// By uid of the tenant.
    sent: Mutex<BTreeMap<String, Sent>>,
}

struct Sent {
    to: String,
    until: Instant,
}

/// What was chosen for a tenant; forgotten unless it is written.
pub(super) struct Choice<'a> {
    pub(super) data_store: String,
    /// Who remembers it, and for whom.
    remembered: Option<(&'a Chooser, String)>,
}

impl Choice<'_> {
    /// It was written.
    pub(super) fn stands(mut self) {
        self.remembered = None;
    }
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        if let Some((chooser, uid)) = &self.remembered {
            chooser.sent.lock().remove(uid);
        }
    }
}

/// Whether the named DataStore can take a tenant's data; what stands against it now, but
/// may pass, is a warning.
///
/// # Errors
/// 422 for one that cannot.
pub(super) async fn check<V>(
    registry: &Registry,
    permit: &Permit<V>,
    request: &Request,
    name: &str,
) -> Result<(), Failure> {
    let path = Path::new("spec").child("target");
    let invalid =
        |error: field::Error| body::invalid(KIND, permit.name().unwrap_or_default(), error.into());
    let key = object::key(&data_store::RESOURCE, None, name);
    let (entry, _) = registry.store.get(&key).await.map_err(Failure::of_read)?;
    let Some(entry) = entry else {
        return Err(invalid(field::Error::not_found(&path, name)));
    };
    let _room = registry
        .limits
        .decode(permit.identity(), &entry.value)
        .await?;
    let store = decode(&entry)?;
    let cannot = |why: String| Err(invalid(field::Error::invalid(&path, name, why)));
    if store.metadata.deletion_timestamp.is_some() {
        return cannot("the DataStore is being deleted".to_owned());
    }
    if !store.spec.driver.is_built() {
        let driver = store.spec.driver.as_str();
        return cannot(format!(
            "the DataStore has driver {driver}, which this version does not run yet"
        ));
    }
    if let Some(trouble) = trouble(&store) {
        request.warnings.add(format!(
            "DataStore {name} is not Ready, and the tenant waits for it: {trouble}"
        ));
    }
    Ok(())
}

impl Chooser {
    /// The DataStore for a tenant that is to leave the one where it is. It counts there until
    /// the object says so, unless nothing is to be written.
    ///
    /// # Errors
    /// 409 if none can take it.
    pub(super) async fn choose<V>(
        &self,
        registry: &Registry,
        permit: &Permit<V>,
        tenant: &Value,
        dry_run: bool,
    ) -> Result<Choice<'_>, Failure> {
        let wish = &tenant["spec"]["dataStoreAssignment"];
        let wish: Option<DataStoreAssignment> =
            Deserialize::deserialize(wish).map_err(undecodable)?;
        let own = object::meta(tenant, "uid");
        let coming = coming(registry, own).await;
        let mut stores = read(registry, permit, &coming).await?;
        let home = plan::home(tenant);
        stores.retain(|found| {
            let name = found.store.metadata.name.as_deref();
            name != home && found.store.spec.driver.is_built()
        });

        // From here on nothing waits: two tenants do not see the same count.
        let mut sent = self.sent.lock();
        let now = Instant::now();
        sent.retain(|_, sent| sent.until > now);
        let candidates: Vec<Candidate<'_>> = stores
            .iter()
            .map(|found| candidate(found, &coming, &sent, own))
            .collect();
        let assigned = assignment::assign(wish.as_ref(), &candidates);
        let assigned = assigned.map_err(|why| Failure::Conflict {
            subject: Subject::of(permit.resource(), permit.name().unwrap_or_default()),
            message: why.to_string(),
        })?;
        if !dry_run {
            let to = assigned.data_store.clone();
            let until = now + REMEMBERED;
            sent.insert(own.to_owned(), Sent { to, until });
        }
        Ok(Choice {
            data_store: assigned.data_store,
            remembered: (!dry_run).then(|| (self, own.to_owned())),
        })
    }
}

#[cfg(test)]
impl Chooser {
    /// Where the tenant with the uid was sent.
    pub(super) fn sent_by(&self, uid: &str) -> Option<String> {
        self.sent.lock().get(uid).map(|sent| sent.to.clone())
    }
}

/// A DataStore without what is not looked at, and who is there.
struct Found {
    store: DataStore,
    here: u64,
    used_by: HashSet<String>,
}

/// A tenant on its way to where it is to be.
struct Coming {
    uid: String,
    /// NAMESPACE/NAME.
    name: String,
    to: String,
}

fn candidate<'a>(
    found: &'a Found,
    coming: &[Coming],
    sent: &BTreeMap<String, Sent>,
    own: &str,
) -> Candidate<'a> {
    let name = found.store.metadata.name.as_deref().unwrap_or_default();
    let seen: HashSet<&str> = coming.iter().map(|it| it.uid.as_str()).collect();
    let written = coming.iter().filter(|it| it.to == name);
    let written = written.filter(|it| !found.used_by.contains(&it.name));
    let unwritten = sent
        .iter()
        .filter(|(uid, sent)| sent.to == name && *uid != own && !seen.contains(uid.as_str()));
    let status = found.store.status.as_ref();
    let bytes = status.and_then(|status| status.size);
    Candidate {
        store: &found.store,
        trouble: trouble(&found.store),
        tenants: found.here + (written.count() + unwritten.count()) as u64,
        bytes: bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0)),
        latency: None,
        is_default: false,
    }
}

/// Why tenants cannot be served by it, as its status says.
fn trouble(store: &DataStore) -> Option<String> {
    let conditions = store.status.as_ref().map(|status| &status.conditions);
    let mut conditions = conditions.into_iter().flatten();
    match conditions.find(|it| it.type_ == condition::data_store::READY) {
        None => Some("it has not been asked yet".to_owned()),
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone()),
    }
}

/// All DataStores, a few at a time as whole objects.
async fn read<V>(
    registry: &Registry,
    permit: &Permit<V>,
    coming: &[Coming],
) -> Result<Vec<Found>, Failure> {
    let names: HashSet<&str> = coming.iter().map(|it| it.name.as_str()).collect();
    let prefix = object::prefix(&data_store::RESOURCE, None);
    let (mut stores, mut after, mut at) = (Vec::new(), None, None);
    loop {
        let page = registry
            .store
            .range(&prefix, after.as_deref(), Some(PAGE), at);
        let page = page.await.map_err(Failure::of_read)?;
        at = Some(page.revision);
        after = page.entries.last().map(|entry| entry.key.clone());
        for entry in &page.entries {
            let _room = registry
                .limits
                .decode(permit.identity(), &entry.value)
                .await?;
            // What cannot be read is in quarantine.
            let Ok(mut store) = decode(entry) else {
                continue;
            };
            let mut found = Found {
                here: 0,
                used_by: HashSet::new(),
                store: DataStore::default(),
            };
            store.metadata.managed_fields = None;
            store.metadata.annotations = None;
            if let Some(status) = &mut store.status {
                let used_by = std::mem::take(&mut status.used_by);
                found.here = used_by.len() as u64;
                let used_by = used_by.into_iter();
                found.used_by = used_by
                    .filter(|name| names.contains(name.as_str()))
                    .collect();
                status.pending_cleanups = Vec::new();
            }
            found.store = store;
            stores.push(found);
        }
        if !page.more {
            return Ok(stores);
        }
    }
}

fn decode(entry: &storage::Entry) -> Result<DataStore, Failure> {
    let object = stored::decode(&data_store::RESOURCE, entry)?;
    serde_json::from_value(object).map_err(undecodable)
}

fn undecodable(error: serde_json::Error) -> Failure {
    Failure::Internal(error.to_string())
}

/// What is looked at in a tenant.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Seen {
    metadata: SeenMetadata,
    spec: SeenSpec,
    status: SeenStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SeenMetadata {
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SeenSpec {
    data_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SeenStatus {
    storage: Option<SeenStorage>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SeenStorage {
    data_store_name: Option<String>,
}

/// The tenants that are to be in another DataStore than the one where they are, without the
/// one with the uid `own`. While the cache does not follow the store they are not known.
async fn coming(registry: &Registry, own: &str) -> Vec<Coming> {
    let prefix = object::prefix(&apiservice::v1alpha1::tenant_control_plane::RESOURCE, None);
    let snapshot = registry.cache.snapshot(&prefix);
    let mut all = Vec::new();
    let mut pace = Pace::default();
    for item in snapshot.into_iter().flat_map(|snapshot| snapshot.items) {
        pace.step(item.encoded.len()).await;
        let seen: Seen = serde_json::from_slice(&item.encoded).unwrap_or_default();
        let is = seen
            .status
            .storage
            .and_then(|storage| storage.data_store_name);
        let to = seen.spec.data_store.filter(|name| !name.is_empty());
        if let Some(to) = to.filter(|to| Some(to) != is.as_ref())
            && seen.metadata.uid != own
        {
            all.push(Coming {
                uid: seen.metadata.uid,
                name: format!("{}/{}", item.namespace, item.name),
                to,
            });
        }
    }
    all
}
