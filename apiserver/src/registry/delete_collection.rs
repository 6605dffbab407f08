//! DELETE of a collection (R3.67): every object goes through the whole deletion.

use axum::body::Body;
use futures::{TryStreamExt, stream};
use http::Response;

use crate::accept::{self, Answer};
use crate::authz::{Permit, verb};
use crate::options::List;
use crate::registry::{Registry, Request, delete, list};
use crate::respond;
use crate::status::Failure;

/// Deletions under way at a time; the store commits them in groups.
const PARALLEL: usize = 32;

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
    let options = delete::options(request)?;
    let (items, meta) = list::collect(registry, resource, permit.namespace(), &selection).await?;
    stream::iter(items.iter().map(Ok))
        .try_for_each_concurrent(PARALLEL, |item| {
            let options = &options;
            async move {
                let namespace =
                    Some(item.namespace.as_str()).filter(|namespace| !namespace.is_empty());
                match delete::one(registry, resource, namespace, &item.name, options).await {
                    // Somebody was faster.
                    Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
                    Err(failure) => Err(failure),
                }
            }
        })
        .await?;
    let now = registry.clock.now();
    Ok(respond::list(resource, &meta, items, &accept, now))
}
