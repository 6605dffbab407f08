//! GET of one object (contract 3.7).

use std::time::Duration;

use apiservice::Resource;
use axum::body::Body;
use http::Response;
use serde_json::Value;
use storage::Entry;

use crate::accept::{self, Answer};
use crate::authz::{Permit, verb};
use crate::cache::Item;
use crate::limits::Room;
use crate::object;
use crate::options;
use crate::registry::{Registry, Request};
use crate::respond;
use crate::status::{Failure, Subject};
use crate::stored;

/// How long a reader may wait for a revision that it has seen elsewhere (R3.16).
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Answers with the object.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Object)?;
    if query.boolean("export") == Some(true) {
        return Err(Failure::BadRequest(
            "the export parameter, deprecated since v1.14, is no longer supported".to_owned(),
        ));
    }
    let version = options::parse_version(query.first("resourceVersion").unwrap_or(""))?;
    let name = name(&permit)?;
    let key = object::key(permit.resource(), permit.namespace(), name);
    if version == Some(0)
        && let Some((found, _)) = registry.cache.get(&key)
    {
        let item = found.ok_or_else(|| Failure::NotFound(Subject::of(permit.resource(), name)))?;
        return Ok(respond::item(
            permit.resource(),
            &item,
            &accept,
            registry.clock.now(),
        ));
    }
    if let Some(version) = version {
        not_older_than(registry, version).await?;
    }
    let entry = entry(registry, permit.resource(), permit.namespace(), name).await?;
    let item = Item::read(permit.resource(), &entry, &registry.cache.live)?;
    Ok(respond::item(
        permit.resource(),
        &item,
        &accept,
        registry.clock.now(),
    ))
}

/// The object that a permit is for, with its room, which is held for as long as it is.
///
/// # Errors
/// 404; 429 while what the caller has under way takes all of its share.
pub async fn object<V>(registry: &Registry, permit: &Permit<V>) -> Result<(Value, Room), Failure> {
    let name = name(permit)?;
    let entry = entry(registry, permit.resource(), permit.namespace(), name).await?;
    let room = registry.limits.decode(permit.identity(), &entry.value);
    let room = room.await?;
    Ok((stored::decode(permit.resource(), &entry)?, room))
}

/// The stored entry, or 404.
pub async fn entry(
    registry: &Registry,
    resource: &'static Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Entry, Failure> {
    let key = object::key(resource, namespace, name);
    let (entry, _) = registry.store.get(&key).await.map_err(Failure::of_read)?;
    entry.ok_or_else(|| Failure::NotFound(Subject::of(resource, name)))
}

/// The name of the URL, checked.
pub fn name<V>(permit: &Permit<V>) -> Result<&str, Failure> {
    let name = permit.name().unwrap_or("");
    if name.is_empty() {
        return Err(Failure::BadRequest("name must be provided".to_owned()));
    }
    options::check_name(name)?;
    Ok(name)
}

/// Waits a little until the store has reached a revision (R3.16).
pub async fn not_older_than(registry: &Registry, wanted: u64) -> Result<(), Failure> {
    let current = registry.store.revision().await.map_err(Failure::of_read)?;
    if current.0 >= wanted || registry.cache.reached(wanted, PATIENCE).await {
        return Ok(());
    }
    let current = registry.store.revision().await.map_err(Failure::of_read)?.0;
    if current >= wanted {
        return Ok(());
    }
    Err(Failure::TooLargeVersion { wanted, current })
}
