//! Replay from history, then live: the one place where the two meet.
//!
//! # Flow
//! A backend commits a change, then hands it to the [`Feed`]. A watch takes its
//! place in the feed first and notes the newest revision handed out so far, U.
//! Changes up to U are in the database already, and are read from there; those
//! after U arrive by the feed. Nothing lies between the two, and what arrives
//! twice is recognised by its revision.
//!
//! # Guarantees
//! Each change once, in order, or an error at the end of the stream. A
//! [`WatchItem::Progress`] of revision R says that every change up to R that
//! the watch asked for was given.
//!
//! # Slow readers
//! The feed keeps a bounded number of changes, of bounded size, for all watches
//! together. A reader that falls out of it goes back to history; one that is more than
//! [`MAX_BEHIND`] changes behind is cut with [`Error::Slow`]. Neither costs the
//! writer or other watches anything.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{Log, Turn};
use crate::{Change, Error, Revision};

/// How many changes the feed holds for readers that are not keeping up, and how many
/// bytes of values they may carry.
const RING: usize = 4096;
pub const RING_BYTES: usize = 16 * 1024 * 1024;

/// How many changes a reader may be behind before it is cut.
pub(crate) const MAX_BEHIND: u64 = 16 * 1024;

/// How many changes are read from history at a time.
const CHUNK: usize = 128;

/// What a watch gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// A change of a key with the prefix.
    Change(Change),
    /// Every change up to this revision was given. Comes once when history is
    /// exhausted, and later whenever the log moved on by changes of other keys.
    Progress(Revision),
}

/// A stream of changes. It ends after the first error.
pub struct Watch {
    stream: BoxStream<'static, Result<WatchItem, Error>>,
}

impl Stream for Watch {
    type Item = Result<WatchItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(cx)
    }
}

/// Begins a watch of the changes after `after`.
pub(crate) async fn start(
    log: Arc<dyn Log>,
    prefix: &str,
    after: Revision,
    turn: Turn,
) -> Result<Watch, Error> {
    let cursor = Cursor::new(log, prefix, after, turn).await?;
    let stream = stream::unfold(Some(cursor), |cursor| async move {
        let mut cursor = cursor?;
        match cursor.next().await {
            Ok(item) => Some((Ok(item), Some(cursor))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Watch {
        stream: Box::pin(stream),
    })
}

/// Where a watch stands.
struct Cursor {
    log: Arc<dyn Log>,
    turn: Turn,
    prefix: String,
    /// Every change up to here was given, or is of no concern.
    position: Revision,
    /// The last progress that was told.
    told: Option<Revision>,
    /// Changes read from history, not yet given.
    pending: VecDeque<Change>,
    /// The position once `pending` is given.
    then: Revision,
    /// History is to be read up to here; the feed has what comes after.
    upto: Revision,
    news: watch::Receiver<Revision>,
}

impl Cursor {
    async fn new(
        log: Arc<dyn Log>,
        prefix: &str,
        after: Revision,
        turn: Turn,
    ) -> Result<Self, Error> {
        let (news, upto) = log.feed().subscribe()?;
        // The database, not the feed: a reader may have seen a revision that
        // was committed a moment ago and is not in the feed yet.
        log.bounds().await?.admit(after)?;
        Ok(Cursor {
            prefix: prefix.to_owned(),
            position: after,
            told: None,
            pending: VecDeque::new(),
            then: after,
            upto,
            news,
            log,
            turn,
        })
    }

    async fn next(&mut self) -> Result<WatchItem, Error> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                self.position = change.revision();
                return Ok(WatchItem::Change(change));
            }
            self.position = self.position.max(self.then);
            if self.position < self.upto {
                self.replay().await?;
                continue;
            }
            // Before the look at the feed, so that no change falls in between.
            self.news.borrow_and_update();
            let live = match self.log.feed().after(self.position) {
                Next::Live(live) => live,
                Next::Behind(published) => {
                    self.fall_back(published)?;
                    continue;
                }
                Next::Nothing if self.told < Some(self.position) => {
                    self.told = Some(self.position);
                    return Ok(WatchItem::Progress(self.position));
                }
                Next::Nothing => {
                    self.news.changed().await.map_err(|_| Error::Closed)?;
                    continue;
                }
            };
            self.position = live.revision();
            if let Live::Change(change) = live
                && change.key().starts_with(&self.prefix)
            {
                // The change itself tells how far the log is.
                self.told = Some(self.position);
                return Ok(WatchItem::Change(Change::clone(&change)));
            }
        }
    }

    async fn replay(&mut self) -> Result<(), Error> {
        let replayed = self
            .log
            .changes(&self.prefix, self.position, self.upto, CHUNK, self.turn)
            .await?;
        self.then = match replayed.changes.last() {
            Some(last) if replayed.more => last.revision(),
            // That was all of it.
            _ => self.upto,
        };
        self.pending = replayed.changes.into();
        Ok(())
    }

    /// The feed went on without this reader: back to history, if it is not too
    /// far behind.
    fn fall_back(&mut self, published: Revision) -> Result<(), Error> {
        let behind = published.0.saturating_sub(self.position.0);
        if behind > MAX_BEHIND {
            return Err(Error::Slow { behind });
        }
        self.upto = published;
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) enum Live {
    Change(Arc<Change>),
    /// The log moved on without a change ([`crate::Store::advance`]).
    Skip(Revision),
}

impl Live {
    fn revision(&self) -> Revision {
        match self {
            Live::Change(change) => change.revision(),
            Live::Skip(revision) => *revision,
        }
    }

    /// Bytes of the value that was written.
    fn size(&self) -> u64 {
        match self {
            Live::Change(change) => match change.as_ref() {
                Change::Put { entry, .. } => (entry.key.len() + entry.value.len()) as u64,
                Change::Delete { .. } => 0,
            },
            Live::Skip(_) => 0,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Live::Change(change) => change.bytes(),
            Live::Skip(_) => 0,
        }
    }
}

/// Hands committed changes to all watches, in the order of revisions.
pub struct Feed {
    state: Mutex<FeedState>,
}

struct FeedState {
    /// `None` once closed.
    news: Option<watch::Sender<Revision>>,
    /// The last revision handed out.
    published: Revision,
    /// Everything after `floor`, oldest first.
    ring: VecDeque<Live>,
    bytes: usize,
    floor: Revision,
    /// Bytes of all changes that were handed out.
    written: u64,
}

/// What a reader finds in the feed after its position.
enum Next {
    Live(Live),
    /// The feed no longer has it; it is up to this revision now.
    Behind(Revision),
    Nothing,
}

impl Feed {
    /// A feed for a log that stands at `published`.
    pub(crate) fn new(published: Revision) -> Self {
        Feed {
            state: Mutex::new(FeedState {
                news: Some(watch::Sender::new(published)),
                published,
                ring: VecDeque::new(),
                bytes: 0,
                floor: published,
                written: 0,
            }),
        }
    }

    /// Hands out one committed change. The backend calls this in the order of
    /// revisions; a change that was handed out already is ignored.
    pub(crate) fn publish(&self, change: Change) {
        self.send(Live::Change(Arc::new(change)));
    }

    /// The log stands at `to` without a change.
    pub(crate) fn skip(&self, to: Revision) {
        self.send(Live::Skip(to));
    }

    /// Bytes of all changes that were handed out, and the revision of the last.
    pub(crate) fn written(&self) -> (u64, Revision) {
        let state = self.state.lock();
        (state.written, state.published)
    }

    /// The last revision handed out.
    pub(crate) fn published(&self) -> Revision {
        self.state.lock().published
    }

    fn send(&self, live: Live) {
        let mut state = self.state.lock();
        if live.revision() <= state.published {
            return;
        }
        state.published = live.revision();
        state.bytes += live.bytes();
        state.written += live.size();
        state.ring.push_back(live);
        while state.ring.len() > RING || state.bytes > RING_BYTES {
            let Some(oldest) = state.ring.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes();
            state.floor = oldest.revision();
        }
        if let Some(news) = &state.news {
            news.send_replace(state.published);
        }
    }

    /// The first thing after `position`.
    fn after(&self, position: Revision) -> Next {
        let state = self.state.lock();
        if position >= state.published {
            return Next::Nothing;
        }
        if position < state.floor {
            return Next::Behind(state.published);
        }
        let index = state
            .ring
            .partition_point(|live| live.revision() <= position);
        match state.ring.get(index) {
            Some(live) => Next::Live(live.clone()),
            None => Next::Nothing,
        }
    }

    fn subscribe(&self) -> Result<(watch::Receiver<Revision>, Revision), Error> {
        let state = self.state.lock();
        let news = state.news.as_ref().ok_or(Error::Closed)?;
        Ok((news.subscribe(), state.published))
    }

    pub(crate) fn watchers(&self) -> usize {
        let state = self.state.lock();
        state.news.as_ref().map_or(0, watch::Sender::receiver_count)
    }

    pub(crate) fn close(&self) {
        self.state.lock().news = None;
    }
}
