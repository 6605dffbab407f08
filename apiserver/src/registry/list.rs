//! LIST (contract 3.3, 3.4, 3.7).
//!
//! # Flow
//! The options say which state is wanted ([`State`]). It comes from the cache
//! if the cache has exactly that state, else from the store.

use std::sync::Arc;

use apiservice::Resource;
use axum::body::Body;
use http::Response;
use storage::{PAGE_BYTES, Revision};

use crate::accept::{self, Answer};
use crate::authn::Identity;
use crate::authz::{Permit, verb};
use crate::cache::{Item, Pace, Snapshot};
use crate::limits;
use crate::live_bytes::Live;
use crate::object;
use crate::options::{Continue, List, Match};
use crate::pool::Hold;
use crate::registry::get::{PATIENCE, not_older_than};
use crate::registry::{Registry, Request};
use crate::respond::{self, ListMeta};
use crate::selector::Selector;
use crate::status::Failure;

/// Entries read from the store at a time when a selector thins them out.
const CHUNK: usize = 500;

const EXPIRED: &str = "The resourceVersion for the provided list is too old.";
const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Answers with the list.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::List>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::List)?;
    let options = List::parse(query, permit.resource())?;
    let list = collect(registry, &permit, &options).await?;
    let now = registry.clock.now();
    Ok(respond::list(
        permit.resource(),
        &list.meta,
        list.items,
        &accept,
        now,
        (registry.cache.live.clone(), list.share),
    )
    .await)
}

/// Which state of a collection is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// At least as new as the request.
    Fresh,
    /// Whatever is at hand.
    Any,
    /// This revision or a later one.
    NotOlderThan(u64),
    /// This revision.
    Exactly(u64),
}

impl State {
    fn of(options: &List) -> Self {
        match (
            &options.continue_token,
            options.version,
            options.version_match,
        ) {
            (Some(token), ..) => token.revision.map_or(Self::Fresh, Self::Exactly),
            (None, None, _) => Self::Fresh,
            (None, Some(0), _) => Self::Any,
            (None, Some(version), Some(Match::Exact)) => Self::Exactly(version),
            // A limit and no match is the legacy form of Exact.
            (None, Some(version), None) if options.limit.is_some() => Self::Exactly(version),
            (None, Some(version), _) => Self::NotOlderThan(version),
        }
    }
}

/// Items with their metadata, and the bytes that they take beside the cache.
pub struct Collected {
    pub items: Vec<Arc<Item>>,
    pub meta: ListMeta,
    /// Held for as long as the items are.
    pub share: Option<Hold>,
}

/// The items and list metadata that the options ask for.
pub async fn collect<V>(
    registry: &Registry,
    permit: &Permit<V>,
    options: &List,
) -> Result<Collected, Failure> {
    let (resource, namespace) = (permit.resource(), permit.namespace());
    let prefix = object::prefix(resource, namespace);
    let state = State::of(options);
    let after = options
        .continue_token
        .as_ref()
        .map(|token| token.after.as_str());
    let page = match cached(registry, resource, &prefix, state).await? {
        Some(snapshot) => {
            // R3.13: a limit does not count for "any".
            let limit = options.limit.filter(|_| state != State::Any);
            cut(
                snapshot,
                resource,
                namespace,
                after,
                limit,
                &options.selector,
            )
            .await
        }
        None => {
            let by = permit.identity();
            read(registry, by, resource, &prefix, state, after, options).await?
        }
    };
    let mut meta = ListMeta {
        revision: page.revision,
        ..ListMeta::default()
    };
    if let Some(after) = page.continue_after {
        let token = Continue {
            revision: Some(page.revision),
            after,
        };
        meta.continue_token = Some(token.encode());
        meta.remaining = options.selector.is_empty().then_some(page.remaining);
    }
    Ok(Collected {
        items: page.items,
        meta,
        share: page.share,
    })
}

/// The present objects in the wanted state, from the cache or else the store.
pub async fn present<V>(
    registry: &Registry,
    permit: &Permit<V>,
    state: State,
) -> Result<(Snapshot, Option<Hold>), Failure> {
    let (resource, namespace) = (permit.resource(), permit.namespace());
    let prefix = object::prefix(resource, namespace);
    if let Some(snapshot) = cached(registry, resource, &prefix, state).await? {
        return Ok((snapshot, None));
    }
    let options = List::default();
    let by = permit.identity();
    let page = read(registry, by, resource, &prefix, state, None, &options).await?;
    let snapshot = Snapshot {
        items: page.items,
        revision: page.revision,
    };
    Ok((snapshot, page.share))
}

struct Page {
    items: Vec<Arc<Item>>,
    revision: u64,
    /// The last key looked at, below the prefix, if more remain.
    continue_after: Option<String>,
    remaining: u64,
    /// Of the bytes that lists from the store may take; none for those of the cache.
    share: Option<Hold>,
}

/// The state from the cache; `None` if the cache does not have it.
async fn cached(
    registry: &Registry,
    resource: &'static Resource,
    prefix: &str,
    state: State,
) -> Result<Option<Snapshot>, Failure> {
    let cache = &registry.cache;
    match state {
        State::Any => {}
        State::Exactly(revision) => return Ok(cache.snapshot_at(resource, prefix, revision)),
        State::NotOlderThan(revision) => not_older_than(registry, revision).await?,
        State::Fresh => {}
    }
    let wanted = match state {
        State::Any | State::Exactly(_) => 0,
        State::NotOlderThan(revision) => revision,
        // R3.18: every write acknowledged before this request is in it.
        State::Fresh => {
            let doubts = cache.ledger.doubts();
            let wanted = match registry.store.revision().await {
                Ok(revision) => revision.0,
                Err(error) => return remembered_empty(registry, prefix, error).await.map(Some),
            };
            if cache.live() && cache.reached(wanted, PATIENCE).await {
                cache.ledger.settle(doubts);
                return Ok(cache.snapshot(prefix));
            }
            return Ok(None);
        }
    };
    if !cache.live() || !cache.reached(wanted, PATIENCE).await {
        return Ok(None);
    }
    Ok(cache.snapshot(prefix))
}

/// The database does not answer: if it is certain that a namespace holds no
/// objects, that is the answer; everything else is a 503 (rule 3).
async fn remembered_empty(
    registry: &Registry,
    prefix: &str,
    error: storage::Error,
) -> Result<Snapshot, Failure> {
    let cache = &registry.cache;
    // `/PLURAL/NAMESPACE/`: collections over all namespaces are not guessed at.
    let in_namespace = prefix.matches('/').count() == 3;
    if in_namespace
        && cache.live()
        && let Some(revision) = cache.ledger.certain_from()
        && cache.reached(revision, PATIENCE).await
        && let Some(revision) = cache.empty_at(prefix)
    {
        return Ok(Snapshot {
            items: Vec::new(),
            revision,
        });
    }
    Err(Failure::of_read(error))
}

fn relative(namespace: Option<&str>, item: &Item) -> String {
    match namespace {
        None if !item.namespace.is_empty() => format!("{}/{}", item.namespace, item.name),
        _ => item.name.clone(),
    }
}

/// The page of a snapshot.
async fn cut(
    snapshot: Snapshot,
    resource: &Resource,
    namespace: Option<&str>,
    after: Option<&str>,
    limit: Option<usize>,
    selector: &Selector,
) -> Page {
    let namespace = namespace.filter(|_| resource.scope == apiservice::Scope::Namespaced);
    let mut items = snapshot.items;
    if let Some(after) = after {
        let start = items.partition_point(|item| relative(namespace, item).as_str() <= after);
        items.drain(..start);
    }
    let total = items.len();
    let mut chosen = Vec::new();
    let mut looked = 0;
    let mut last = None;
    let mut pace = Pace::default();
    for item in items {
        pace.step(0).await;
        if limit.is_some_and(|limit| chosen.len() == limit) {
            break;
        }
        looked += 1;
        if item.is_selected(selector) {
            chosen.push(item.clone());
        }
        last = Some(item);
    }
    let remaining = (total - looked) as u64;
    Page {
        items: chosen,
        revision: snapshot.revision,
        continue_after: last
            .filter(|_| remaining > 0)
            .map(|item| relative(namespace, &item)),
        remaining,
        share: None,
    }
}

/// The page from the store itself. With a limit it ends early when it is as large as a
/// page of the store; without one it is refused when it is larger than what one
/// holder's such answers may be together. What it looks through counts as well, whatever
/// is chosen of it.
async fn read(
    registry: &Registry,
    by: &Identity,
    resource: &'static Resource,
    prefix: &str,
    state: State,
    after: Option<&str>,
    options: &List,
) -> Result<Page, Failure> {
    let mut share = registry.answers.hold(limits::holder(by));
    let mut place = None;
    let mut at = match state {
        State::Exactly(revision) => Some(Revision(revision)),
        _ => None,
    };
    let limit = options.limit;
    let mut after = after.map(|after| format!("{prefix}{after}"));
    let mut items = Vec::new();
    let mut bytes = 0;
    let uncounted = Live::default();
    let mut pace = Pace::default();
    loop {
        let wanted = limit.map(|limit| match options.selector.is_empty() {
            true => limit,
            false => CHUNK,
        });
        let (_, newest) = registry.store.written();
        if place.is_none() && at.is_some_and(|at| at < newest) {
            place = Some(registry.limits.look_back(by)?);
        }
        let page = registry
            .store
            .range(prefix, after.as_deref(), wanted, at)
            .await
            .map_err(|error| range_failure(error, options))?;
        // All pages of one list are of one state.
        at = Some(page.revision);
        let end = page.entries.last().filter(|_| page.more);
        after = end.map(|entry| entry.key.clone());
        let count = page.entries.len();
        let sizes = page.entries.iter().map(|entry| entry.value.len());
        let mut in_hand: usize = sizes.sum();
        share.reach(bytes + in_hand)?;
        for (position, entry) in page.entries.into_iter().enumerate() {
            pace.step(entry.value.len()).await;
            in_hand -= entry.value.len();
            // What cannot be read is in quarantine: the list of the others goes on.
            // Counted by the share, and not a second time.
            if let Ok(item) = Item::read(resource, &entry, &uncounted)
                && item.is_selected(&options.selector)
            {
                bytes += item.encoded.len();
                share.reach(bytes + in_hand)?;
                items.push(Arc::new(item.counted()));
            }
            let left = (count - position - 1) as u64 + page.remaining;
            if limit.is_some_and(|limit| items.len() == limit || bytes >= PAGE_BYTES) {
                let last = entry.key.strip_prefix(prefix).unwrap_or(&entry.key);
                return Ok(Page {
                    items,
                    revision: page.revision.0,
                    continue_after: (left > 0).then(|| last.to_owned()),
                    remaining: left,
                    share: Some(share),
                });
            }
        }
        if after.is_none() {
            return Ok(Page {
                items,
                revision: page.revision.0,
                continue_after: None,
                remaining: 0,
                share: Some(share),
            });
        }
    }
}

fn range_failure(error: storage::Error, options: &List) -> Failure {
    match (error, &options.continue_token) {
        (storage::Error::Compacted { .. }, Some(token)) => Failure::Expired {
            message: EXPIRED_TOKEN.to_owned(),
            continue_token: Some(
                Continue {
                    revision: None,
                    after: token.after.clone(),
                }
                .encode(),
            ),
        },
        (storage::Error::Compacted { .. }, None) => Failure::Expired {
            message: EXPIRED.to_owned(),
            continue_token: None,
        },
        (storage::Error::Future { latest }, token) => Failure::TooLargeVersion {
            wanted: token
                .as_ref()
                .and_then(|token| token.revision)
                .or(options.version)
                .unwrap_or(0),
            current: latest.0,
        },
        (error, _) => Failure::of_read(error),
    }
}
