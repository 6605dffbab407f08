//! WATCH (contract 3.5, 11.5).
//!
//! # Flow
//! The stream is pulled by the connection: initial events first, then the
//! marker bookmark, then changes from the cache's ring. A watcher that starts
//! from before the ring, or falls out of it, reads the store's history until it
//! has caught up.
//!
//! # Guarantees
//! Every change after the starting point once and in order of revisions, or an
//! ERROR event with 410. A bookmark's revision is never ahead of what was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apiservice::Resource;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use rand::RngExt;
use serde_json::{Value, json};
use storage::{Revision, Store, WatchItem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Accept, Answer, Shape};
use crate::authz::{Permit, verb};
use crate::cache::{Batch, Cache, Event, Item, Kind};
use crate::object;
use crate::options;
use crate::registry::list::{State, present};
use crate::registry::{Clock, Registry, Request, read_failure};
use crate::respond;
use crate::selector::Selector;
use crate::status::Failure;
use crate::table;

/// A bookmark at least this often (R3.27).
const BOOKMARK: Duration = Duration::from_secs(60);
/// And once this long before the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Seconds that a watch lasts at least if the client does not say (R3.12).
const MIN_TIMEOUT: u64 = 1800;
/// Events taken from the ring at a time.
const BATCH: usize = 256;
/// Frames are joined up to about this size.
const PIECE: usize = 64 * 1024;
/// Pause of a watcher that waits for the cache to follow again.
const RETRY: Duration = Duration::from_millis(200);

/// Answers with the stream.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Watch>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Watch)?;
    let options = options::Watch::parse(query, permit.resource())?;
    let watcher = open(registry, &permit, accept, options).await?;
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    })
    .fuse();
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

async fn open(
    registry: &Registry,
    permit: &Permit<verb::Watch>,
    accept: Accept,
    options: options::Watch,
) -> Result<Watcher, Failure> {
    let now = Instant::now();
    let seconds = options
        .timeout
        .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT));
    let end = now + Duration::from_secs(seconds);
    let mut watcher = Watcher {
        cache: registry.cache.clone(),
        store: registry.store.clone(),
        clock: registry.clock.clone(),
        shutdown: registry.shutdown.clone(),
        resource: permit.resource(),
        namespace: permit.namespace().map(str::to_owned),
        selector: options.selector,
        accept,
        headers_sent: false,
        initial: Vec::new().into_iter(),
        marker: false,
        position: 0,
        source: Source::Ring,
        queue: VecDeque::new(),
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK,
        farewell: end.checked_sub(FAREWELL).filter(|at| *at > now),
        end,
        ended: false,
    };
    if options.initial {
        let state = match options.version {
            None => State::Fresh,
            Some(0) => State::Any,
            Some(version) => State::NotOlderThan(version),
        };
        match present(registry, permit.resource(), permit.namespace(), state).await {
            Ok(snapshot) => {
                watcher.position = snapshot.revision;
                watcher.initial = snapshot.items.into_iter();
                watcher.marker = options.marker && options.bookmarks;
            }
            // R3.16: on a watch this is an event.
            Err(failure @ Failure::TooLargeVersion { .. }) => watcher.fail(&failure),
            Err(failure) => return Err(failure),
        }
    } else {
        watcher.position = match options.version {
            Some(version) if version > 0 => version,
            _ => registry.store.revision().await.map_err(read_failure)?.0,
        };
    }
    Ok(watcher)
}

enum Source {
    Ring,
    History(Box<storage::Watch>),
}

enum Wake {
    Change,
    History(Option<Result<WatchItem, storage::Error>>),
    Bookmark,
    Farewell,
    End,
}

/// One watch.
struct Watcher {
    cache: Arc<Cache>,
    store: Store,
    clock: Clock,
    shutdown: CancellationToken,
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    accept: Accept,
    /// A Table's columns are in the first event only (R4.8).
    headers_sent: bool,
    initial: std::vec::IntoIter<Arc<Item>>,
    /// The marker bookmark is still owed.
    marker: bool,
    /// Every change up to here was sent or is of no concern.
    position: u64,
    source: Source,
    queue: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    farewell: Option<Instant>,
    end: Instant,
    ended: bool,
}

impl Watcher {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.take_initial();
            if let Some(piece) = self.piece() {
                return Some(piece);
            }
            if self.ended || self.shutdown.is_cancelled() {
                return None;
            }
            if Instant::now() >= self.end {
                return None;
            }
            self.step().await;
        }
    }

    /// Joins queued frames into one piece.
    fn piece(&mut self) -> Option<Bytes> {
        let first = self.queue.pop_front()?;
        if self.queue.is_empty() || first.len() >= PIECE {
            return Some(first);
        }
        let mut piece = BytesMut::from(first.as_ref());
        while piece.len() < PIECE {
            let Some(frame) = self.queue.pop_front() else {
                break;
            };
            piece.extend_from_slice(&frame);
        }
        Some(piece.freeze())
    }

    /// Queues some of the present objects, and the marker after the last.
    fn take_initial(&mut self) {
        let mut size = 0;
        while self.queue.is_empty() || size < PIECE {
            let Some(item) = self.initial.next() else {
                if std::mem::take(&mut self.marker) {
                    self.bookmark(true);
                }
                return;
            };
            if self.selected(&item) {
                let frame = self.frame("ADDED", &item);
                size += frame.len();
                self.queue.push_back(frame);
            }
        }
    }

    fn selected(&self, item: &Item) -> bool {
        let inside = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == item.namespace);
        inside
            && self
                .selector
                .matches(&item.namespace, &item.name, &item.labels)
    }

    /// Looks for changes; waits if there are none.
    async fn step(&mut self) {
        if matches!(self.source, Source::History(_)) && self.covered() {
            self.source = Source::Ring;
        }
        let mut progress = self.cache.progress();
        progress.borrow_and_update();
        if matches!(self.source, Source::Ring) {
            match self.cache.events(self.resource, self.position, BATCH) {
                Batch::Events(events, upto) => {
                    events.iter().for_each(|event| self.deliver(event));
                    self.position = self.position.max(upto);
                    if !self.queue.is_empty() {
                        return;
                    }
                }
                Batch::Behind => return self.open_history().await,
            }
        }
        let bookmark = match self.bookmarks {
            true => self.next_bookmark,
            false => self.end,
        };
        let farewell = self.farewell.filter(|_| self.bookmarks).unwrap_or(self.end);
        let changed = async {
            match &mut self.source {
                Source::History(changes) => Wake::History(changes.next().await),
                Source::Ring => match progress.changed().await {
                    Ok(()) => Wake::Change,
                    Err(_) => Wake::End,
                },
            }
        };
        let wake = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Wake::End,
            () = tokio::time::sleep_until(self.end) => Wake::End,
            () = tokio::time::sleep_until(farewell) => Wake::Farewell,
            () = tokio::time::sleep_until(bookmark) => Wake::Bookmark,
            wake = changed => wake,
        };
        match wake {
            Wake::Change => {}
            Wake::End => self.ended = true,
            Wake::Bookmark => self.bookmark(false),
            Wake::Farewell => {
                self.farewell = None;
                self.bookmark(false);
            }
            Wake::History(item) => self.take_history(item),
        }
    }

    fn covered(&self) -> bool {
        matches!(
            self.cache.events(self.resource, self.position, 0),
            Batch::Events(..)
        )
    }

    async fn open_history(&mut self) {
        let prefix = object::prefix(self.resource, self.namespace.as_deref());
        match self.store.watch(&prefix, Revision(self.position)).await {
            Ok(changes) => self.source = Source::History(Box::new(changes)),
            Err(storage::Error::Compacted { oldest }) => self.expire(oldest.0),
            // A revision that is yet to come: wait for it without a word.
            Err(storage::Error::Future { .. }) => tokio::time::sleep(RETRY).await,
            // The client comes back and is told why it cannot watch.
            Err(_) => self.ended = true,
        }
    }

    fn take_history(&mut self, item: Option<Result<WatchItem, storage::Error>>) {
        match item {
            Some(Ok(WatchItem::Change(change))) => match Event::read(&change, None) {
                Ok(event) => {
                    event.iter().for_each(|event| self.deliver(event));
                    self.position = self.position.max(change.revision().0);
                }
                Err(failure) => self.fail(&failure),
            },
            Some(Ok(WatchItem::Progress(revision))) => {
                self.position = self.position.max(revision.0);
            }
            Some(Err(storage::Error::Compacted { oldest })) => self.expire(oldest.0),
            Some(Err(_)) | None => self.ended = true,
        }
    }

    /// Queues what an event is for this watcher (R3.24).
    fn deliver(&mut self, event: &Event) {
        if event.revision <= self.position {
            return;
        }
        let before = event
            .previous
            .as_ref()
            .is_some_and(|item| self.selected(item));
        let now = event.kind != Kind::Deleted && self.selected(&event.object);
        let frame = match (before, now) {
            (false, false) => return,
            (false, true) if event.kind == Kind::Added => self.own_frame(event),
            (false, true) => self.frame("ADDED", &event.object),
            (true, true) => self.own_frame(event),
            (true, false) if event.kind == Kind::Deleted => self.own_frame(event),
            (true, false) => match &event.previous {
                Some(previous) => self.frame("DELETED", &previous.at(event.revision)),
                None => return,
            },
        };
        self.queue.push_back(frame);
    }

    /// The frame of an event as it is, shared with other watchers if possible.
    fn own_frame(&mut self, event: &Event) -> Bytes {
        match self.accept.shape {
            Shape::Object => event.frame(),
            _ => self.frame(event.kind.as_str(), &event.object),
        }
    }

    fn frame(&mut self, kind: &str, item: &Item) -> Bytes {
        match self.accept.shape {
            Shape::Object | Shape::PartialList(_) => respond::frame(kind, &item.encoded),
            Shape::Partial(version) => respond::frame(kind, &item.partial(version)),
            Shape::Table(..) => self.value_frame(kind, &item.value()),
        }
    }

    fn value_frame(&mut self, kind: &str, object: &Value) -> Bytes {
        let value = match self.accept.shape {
            Shape::Object | Shape::PartialList(_) => object.clone(),
            Shape::Partial(version) => table::partial(object, version),
            Shape::Table(version, include) => {
                let columns = table::columns(self.resource);
                let first = !std::mem::replace(&mut self.headers_sent, true);
                let definitions = first.then(|| table::definitions(columns));
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let rows = vec![table::row(
                    columns,
                    object,
                    version,
                    include,
                    self.clock.now(),
                )];
                table::table(version, metadata, definitions, rows)
            }
        };
        respond::frame(kind, value.to_string().as_bytes())
    }

    fn bookmark(&mut self, marker: bool) {
        self.next_bookmark = Instant::now() + BOOKMARK;
        let mut object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": self.position.to_string()},
        });
        if marker {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let frame = self.value_frame("BOOKMARK", &object);
        self.queue.push_back(frame);
    }

    fn expire(&mut self, oldest: u64) {
        self.fail(&Failure::Expired {
            message: format!("too old resource version: {} ({oldest})", self.position),
            continue_token: None,
        });
    }

    /// Says why, and ends the stream (R3.23).
    fn fail(&mut self, failure: &Failure) {
        let status = failure.to_status().to_string();
        self.queue
            .push_back(respond::frame("ERROR", status.as_bytes()));
        self.ended = true;
    }
}
