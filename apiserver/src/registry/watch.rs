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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apiservice::Resource;
use apiservice::clock::Clock;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use rand::RngExt;
use serde_json::{Value, json};
use storage::{Revision, WatchItem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Accept, Answer, Encoding, Shape};
use crate::authz::{Permit, verb};
use crate::cache::{Batch, Cache, Event, Item, Key, Kind, Pace, Rest, frames};
use crate::limits;
use crate::live_bytes::{Keeps, Kept, Live, Own};
use crate::object;
use crate::options;
use crate::pool::{Hold, Pool};
use crate::protobuf;
use crate::registry::list::{State, present};
use crate::registry::{Registry, Request};
use crate::selector::Selector;
use crate::status::Failure;
use crate::table;

/// A bookmark at least this often (R3.27).
const BOOKMARK: Duration = Duration::from_secs(60);
/// And once this long before the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// A watch lasts between this many seconds and twice as many, or as long as the client
/// says if that is less (R3.12).
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
    let media = match accept.encoding {
        Encoding::Protobuf => protobuf::watch::MEDIA,
        Encoding::Json | Encoding::Yaml => "application/json",
    };
    let watcher = open(registry, &permit, accept, options).await?;
    let kept = Kept::of(&watcher.keeps, watcher.own.clone());
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    })
    .fuse();
    let mut response = Response::new(Body::from_stream(frames));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.extensions_mut().insert(kept);
    Ok(response)
}

async fn open(
    registry: &Registry,
    permit: &Permit<verb::Watch>,
    accept: Accept,
    options: options::Watch,
) -> Result<Watcher, Failure> {
    let now = Instant::now();
    let end = now + lifetime(options.timeout);
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
        keeps: Arc::new(Unsent::new(registry.cache.clone(), Rest::default())),
        own: Own::default(),
        marker: false,
        share: None,
        position: 0,
        source: Source::Ring,
        replays: registry.replays.clone(),
        holder: limits::holder(permit.identity()).to_owned(),
        exempt: registry.limits.is_exempt(permit.identity()),
        replay: None,
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
        match present(registry, permit, state).await {
            Ok((snapshot, share)) => {
                watcher.share = share;
                watcher.position = snapshot.revision;
                let initial = Rest::new(snapshot.items, &registry.cache.live);
                watcher.keeps = Arc::new(Unsent::new(registry.cache.clone(), initial));
                watcher.marker = options.marker && options.bookmarks;
            }
            // R3.16: on a watch this is an event.
            Err(failure @ Failure::TooLargeVersion { .. }) => watcher.fail(&failure),
            Err(failure) => return Err(failure),
        }
    } else {
        watcher.position = match options.version {
            Some(version) if version > 0 => version,
            _ => registry.store.revision().await.map_err(Failure::of_read)?.0,
        };
    }
    Ok(watcher)
}

/// How long a watch lasts for which a client asks for so many seconds. Those that were
/// opened together do not end together.
fn lifetime(asked: Option<u64>) -> Duration {
    let longest = rand::rng().random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT);
    Duration::from_secs(asked.map_or(longest, |asked| asked.min(longest)))
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
    store: crate::reader::Reader,
    clock: Clock,
    shutdown: CancellationToken,
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    accept: Accept,
    /// A Table's columns are in the first event only (R4.8).
    headers_sent: bool,
    keeps: Arc<Unsent>,
    /// Of all frames that are not those of the ring, and of what is joined of any.
    own: Own,
    /// Of the initial items, until the last was sent.
    share: Option<Hold>,
    /// The marker bookmark is still owed.
    marker: bool,
    /// Every change up to here was sent or is of no concern.
    position: u64,
    source: Source,
    replays: Pool,
    /// Who watches.
    holder: String,
    /// Reads history without a place.
    exempt: bool,
    /// The place of a watch that reads history.
    replay: Option<Hold>,
    queue: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    farewell: Option<Instant>,
    end: Instant,
    ended: bool,
}

/// What a watcher has not sent, beside frames of its own: some of the initial items, and
/// frames that the cache holds as well, for as long as their events are in the ring.
struct Unsent {
    cache: Arc<Cache>,
    initial: Rest,
    ring: Own,
    /// They are of events after this revision.
    after: AtomicU64,
}

impl Unsent {
    fn new(cache: Arc<Cache>, initial: Rest) -> Self {
        Unsent {
            cache,
            initial,
            ring: Own::default(),
            after: AtomicU64::new(0),
        }
    }
}

impl Keeps for Unsent {
    fn bytes(&self) -> usize {
        let after = self.after.load(Ordering::Relaxed);
        let ring = match self.cache.has_events_after(after) {
            true => 0,
            false => self.ring.bytes(),
        };
        ring + self.initial.bytes()
    }
}

impl Watcher {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.take_initial().await;
            if let Some(piece) = piece(&mut self.queue, &self.cache.live, &self.own) {
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

    /// Queues some of the present objects, and the marker after the last.
    async fn take_initial(&mut self) {
        let mut size = 0;
        let mut pace = Pace::default();
        while self.queue.is_empty() || size < PIECE {
            let Some(item) = self.keeps.initial.next() else {
                self.share = None;
                if std::mem::take(&mut self.marker) {
                    self.bookmark(true);
                }
                return;
            };
            pace.step(0).await;
            if self.selected(&item) {
                let frame = self.frame("ADDED", &item);
                size += frame.len();
                self.queue_own(frame);
            }
        }
    }

    fn selected(&self, item: &Item) -> bool {
        let inside = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == item.namespace);
        inside && item.is_selected(&self.selector)
    }

    /// Looks for changes; waits if there are none.
    async fn step(&mut self) {
        if matches!(self.source, Source::History(_)) && self.covered() {
            self.source = Source::Ring;
            self.replay = None;
        }
        let mut progress = self.cache.progress();
        let newest = *progress.borrow_and_update();
        // What was queued before has been sent.
        self.keeps.after.store(self.position, Ordering::Relaxed);
        if matches!(self.source, Source::Ring) {
            match self.cache.events(self.resource, self.position, BATCH) {
                Batch::Events(events, upto) => {
                    events.iter().for_each(|event| self.deliver(event));
                    self.position = self.position.max(upto);
                    // A batch has an end; there may be more after it.
                    if !self.queue.is_empty() || upto < newest {
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
        if self.replay.is_none() && !self.exempt {
            match self.replays.enter(&self.holder) {
                Ok(place) => self.replay = Some(place),
                // Others are reading; nothing is lost by coming later.
                Err(_) => return tokio::time::sleep(RETRY).await,
            }
        }
        let prefix = object::prefix(self.resource, self.namespace.as_deref());
        let opened = self.store.watch(&prefix, Revision(self.position)).await;
        if opened.is_err() {
            self.replay = None;
        }
        match opened {
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
            Some(Ok(WatchItem::Change(change))) => {
                match Event::read(&change, None, &self.cache.live) {
                    Ok(event) => {
                        event.iter().for_each(|event| self.deliver(event));
                        self.position = self.position.max(change.revision().0);
                    }
                    // One entry that cannot be read does not end the watch of the others;
                    // the cache reports it.
                    Err(_) => self.position = self.position.max(change.revision().0),
                }
            }
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
        let (kind, left) = match (before, now) {
            (false, false) => return,
            (false, true) => (Kind::Added, false),
            (true, true) => (event.kind, false),
            (true, false) => (Kind::Deleted, event.kind != Kind::Deleted),
        };
        let plain = self.accept.shape == Shape::Object && kind == event.kind;
        match (plain, &self.source) {
            (true, Source::Ring) => {
                let frame = event.frame(&self.cache.live);
                self.queue.push_back(self.keeps.ring.mark(frame));
            }
            (true, Source::History(_)) => self.queue_own(event.frame(&self.cache.live)),
            (false, _) => {
                let frame = self.shared_frame(event, kind, left);
                self.queue_own(frame);
            }
        }
    }

    /// Queues what no event of the ring holds.
    fn queue_own(&mut self, frame: Bytes) {
        self.queue.push_back(self.own.mark(frame));
    }

    /// A frame that other watchers get as well. `left`: the object as it was before the
    /// change, for a watcher that sees it no more.
    fn shared_frame(&mut self, event: &Event, kind: Kind, left: bool) -> Bytes {
        let cache = self.cache.clone();
        let make = |watcher: &mut Self| match event.previous.as_ref().filter(|_| left) {
            Some(before) => {
                let before = before.at(event.revision, &cache.live);
                watcher.frame(kind.as_str(), &before)
            }
            None => watcher.frame(kind.as_str(), &event.object),
        };
        let table = matches!(self.accept.shape, Shape::Table(..));
        if table && !self.headers_sent {
            return make(self);
        }
        let key = Key {
            revision: event.revision,
            kind: kind.as_str(),
            before: left,
            shape: self.accept.shape,
            encoding: self.accept.encoding,
            second: match table {
                true => self.clock.now().as_second(),
                false => 0,
            },
        };
        cache.frames.get(key, || make(self))
    }

    fn frame(&mut self, kind: &str, item: &Item) -> Bytes {
        match self.accept.shape {
            Shape::Object | Shape::PartialList(_) => {
                let frame = frames::json(kind, &item.encoded);
                self.cache.live.count(frame)
            }
            Shape::Partial(version) => {
                let frame = match self.accept.encoding {
                    Encoding::Protobuf => {
                        protobuf::watch::frame(kind, &item.partial_protobuf(version))
                    }
                    Encoding::Json | Encoding::Yaml => frames::json(kind, &item.partial(version)),
                };
                self.cache.live.count(frame)
            }
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
        let frame = self.framed(kind, &value);
        self.cache.live.count(frame)
    }

    /// A value as it is, in the encoding of the stream.
    fn framed(&self, kind: &str, value: &Value) -> Bytes {
        match self.accept.encoding {
            // What is sent in it has such a form: metadata and Status.
            Encoding::Protobuf => {
                protobuf::watch::frame(kind, &protobuf::encode(value).unwrap_or_default())
            }
            Encoding::Json | Encoding::Yaml => frames::json(kind, value.to_string().as_bytes()),
        }
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
        self.queue_own(frame);
    }

    fn expire(&mut self, oldest: u64) {
        self.fail(&Failure::Expired {
            message: format!("too old resource version: {} ({oldest})", self.position),
            continue_token: None,
        });
    }

    /// Says why, and ends the stream (R3.23).
    fn fail(&mut self, failure: &Failure) {
        let frame = self.framed("ERROR", &failure.to_status());
        self.queue_own(frame);
        self.ended = true;
    }
}

/// The next queued frame, or some of them joined.
fn piece(queue: &mut VecDeque<Bytes>, live: &Live, own: &Own) -> Option<Bytes> {
    let first = queue.pop_front()?;
    if queue.is_empty() || first.len() >= PIECE {
        return Some(first);
    }
    let mut piece = BytesMut::from(first.as_ref());
    // A large frame is shared with other watchers, and is not copied.
    while let Some(frame) = queue.front()
        && piece.len() + frame.len() <= PIECE
    {
        piece.extend_from_slice(frame);
        queue.pop_front();
    }
    Some(own.mark(live.count(piece.freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_joined_and_a_large_one_is_not_copied() {
        let (live, own) = (Live::default(), Own::default());
        let large = Bytes::from(vec![b'l'; 20 * PIECE]);
        let small = || Bytes::from_static(b"small");
        let mut queue = VecDeque::from([small(), small(), large.clone(), small()]);
        let mut piece = || piece(&mut queue, &live, &own);
        let first = piece().unwrap();
        assert_eq!((first.as_ref(), live.used()), (&b"smallsmall"[..], 10));
        assert_eq!(own.bytes(), 10);
        let second = piece().unwrap();
        assert_eq!(second.as_ptr(), large.as_ptr());
        assert_eq!(piece().unwrap(), small());
        assert!(piece().is_none());
        drop(first);
        assert_eq!((live.used(), own.bytes()), (0, 0));
    }

    /// R3.12.
    #[test]
    fn a_watch_ends_within_an_hour_whatever_is_asked_for() {
        for asked in [None, Some(7200), Some(u64::MAX)] {
            assert!((1800..3600).contains(&lifetime(asked).as_secs()));
        }
        assert_eq!(lifetime(Some(5)).as_secs(), 5);
        let some: std::collections::BTreeSet<_> = (0..50).map(|_| lifetime(None)).collect();
        assert!(some.len() > 1);
    }
}
