//! DELETE of a collection (R3.67): every object goes through the whole deletion.
//!
//! Entries that cannot be read are in no list. Who deletes all there is deletes them as
//! well, or a namespace would never be empty; a selector cannot be judged and leaves them.

use axum::body::Body;
use futures::{TryStreamExt, stream};
use http::Response;
use tokio::sync::Semaphore;

use crate::accept::{self, Answer};
use crate::authz::{Permit, verb};
use crate::object;
use crate::options::{Delete, List};
use crate::registry::{Registry, Request, delete, list};
use crate::respond;
use crate::status::Failure;

/// Deletions under way at a time; the store commits them in groups.
const PARALLEL: usize = 32;
/// Bytes of objects that are read for it at a time, or one object.
const AT_ONCE: usize = 1024 * 1024;

/// Answers with the list of what was deleted or marked.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::DeleteCollection>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::List)?;
    let resource = permit.resource();
    let selection = List::parse(query, resource)?;
    let options = request.read(|| delete::options(request)).await?;
    let list = list::collect(registry, &permit, &selection).await?;
    let room = Semaphore::new(AT_ONCE);
    stream::iter(list.items.iter().map(Ok))
        .try_for_each_concurrent(PARALLEL, |item| {
            let (options, permit, room) = (&options, &permit, &room);
            async move {
                let bytes = item.encoded.len().min(AT_ONCE) as u32;
                let _turn = room.acquire_many(bytes).await;
                let namespace =
                    Some(item.namespace.as_str()).filter(|namespace| !namespace.is_empty());
                match delete::one(registry, request, permit, namespace, &item.name, options).await {
                    // Somebody was faster.
                    Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
                    Err(failure) => Err(failure),
                }
            }
        })
        .await?;
    let whole = selection.selector.is_empty() && list.meta.continue_token.is_none();
    let judged = options.uid.is_some() || options.resource_version.is_some();
    if whole && !judged {
        unreadable(registry, request, &permit, &options).await?;
    }
    let now = registry.clock.now();
    let held = (registry.cache.live.clone(), list.share);
    Ok(respond::list(resource, &list.meta, list.items, &accept, now, held).await)
}

/// Deletes what is in quarantine, each as by its name. With pages, after the last.
async fn unreadable(
    registry: &Registry,
    request: &Request,
    permit: &Permit<verb::DeleteCollection>,
    options: &Delete,
) -> Result<(), Failure> {
    let all = object::prefix(permit.resource(), None);
    let below = object::prefix(permit.resource(), permit.namespace());
    for key in registry.cache.quarantined_below(&below) {
        let Some(rest) = key.strip_prefix(&all) else {
            continue;
        };
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        match delete::one(registry, request, permit, namespace, name, options).await {
            Ok(_) | Err(Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}
