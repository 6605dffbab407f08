//! Answers on their way to a client; ends those that the client does not read.
//! Its types have their names from the other end, by which an answer is taken.
//!
//! # Flow
//! [`Taken`] hands a body to the connection in small pieces, so that what the connection
//! has no room for stays here, with the place and the bytes that the body holds.
//! [`Taking::sweep`] looks at all answers of a connection from time to time: one that the
//! connection asked nothing of for [`STALL`], although there was more, is let go of with
//! all that it holds, and its stream is reset. So is one that is taken bit by bit and not
//! whole after [`WHOLE`], unless it is a watch, which has an end of its own.
//!
//! # Caveats
//! The last piece counts as taken when the connection has it.
//!
//! [`Unread`] knows the answers of all connections. When they keep more bytes alive than
//! there is room for, it lets go of some before their time: of the largest of whoever has
//! most bytes that wait for their client.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::live_bytes::{Kept, Live, Share};

/// How long an answer may wait for its client.
pub const STALL: Duration = Duration::from_secs(60);
/// How long a client may take for an answer with an end: a large list through a thin line.
pub const WHOLE: Duration = Duration::from_secs(600);
/// Between looks at the answers of a connection.
const LOOK: Duration = Duration::from_secs(15);
/// A frame of HTTP/2, as most have it.
const PIECE: usize = 16 * 1024;

/// Between looks at all answers while they keep too much.
const RELIEVE: Duration = Duration::from_millis(50);
/// How many are looked at without a pause.
const AT_ONCE: usize = 8;

/// What the pipeline tells of an answer, as an extension of the response.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub kind: Kind,
    /// By whom places are held (`limits::holder`).
    pub holder: Arc<str>,
    /// Bytes that are held for it alone.
    pub bytes: usize,
    /// What it keeps alive beside these.
    pub kept: Kept,
    /// Whether a place is held for it, so that there are no more such answers than places.
    pub placed: bool,
}

/// Whether an answer has an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// It has an end.
    #[default]
    Whole,
    /// It goes on until it is told to end.
    Watch,
}

/// The answers of one connection. Clones share them.
#[derive(Clone)]
pub struct Taking {
    answers: Arc<Mutex<Answers>>,
    unread: Unread,
}

/// The answers of all connections. Clones share them.
#[derive(Clone)]
pub struct Unread {
    answers: Arc<Mutex<Answers>>,
    live: Live,
}

#[derive(Default)]
struct Answers {
    next: u64,
    by: HashMap<u64, Arc<Mutex<Answer>>>,
}

impl Answers {
    fn add(&mut self, answer: &Arc<Mutex<Answer>>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by.insert(number, answer.clone());
        number
    }
}

struct Answer {
    about: About,
    /// What is held for it alone, as long as it is.
    share: Option<Share>,
    /// `None` once it was let go of.
    body: Option<Body>,
    /// Of the last frame, what was not given yet.
    rest: Bytes,
    /// The last frame is given in pieces.
    cut: bool,
    /// When it has to be taken.
    end: Option<Instant>,
    /// When the connection asked last.
    asked: Instant,
    /// The connection waits for the body, not the other way round.
    wanted: bool,
}

/// An answer that waits for its client: what it keeps, since when, and itself.
type Waiting = (usize, Reverse<Instant>, Arc<Mutex<Answer>>);

impl Unread {
    /// Of which the bytes are counted there.
    pub fn new(live: Live) -> Self {
        Unread {
            answers: Arc::default(),
            live,
        }
    }

    /// The answers of a new connection.
    pub fn connection(&self) -> Taking {
        Taking {
            answers: Arc::default(),
            unread: self.clone(),
        }
    }

    /// Lets go of answers whenever they keep too many bytes.
    pub async fn run(self) {
        loop {
            self.live.exceeded().await;
            let ended = self.relieve().await;
            if ended > 0 {
                tracing::info!(ended, "answers that were not taken are let go of: no room");
            }
            tokio::time::sleep(RELIEVE).await;
        }
    }

    /// Lets go of answers until they keep no more than they may. Returns how many.
    async fn relieve(&self) -> usize {
        let all: Vec<_> = self.answers.lock().by.values().cloned().collect();
        let mut by: HashMap<Arc<str>, (usize, Vec<Waiting>)> = HashMap::new();
        for (number, answer) in all.into_iter().enumerate() {
            // What a long list keeps takes a millisecond to say.
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let (waits, holder, keeps, asked) = {
                let answer = answer.lock();
                let waits = answer.body.is_some() && !answer.wanted;
                let holder = answer.about.holder.clone();
                (waits, holder, answer.keeps(), Reverse(answer.asked))
            };
            if waits && keeps > 0 {
                let (sum, answers) = by.entry(holder).or_default();
                *sum += keeps;
                answers.push((keeps, asked, answer));
            }
        }
        for (_, answers) in by.values_mut() {
            // The largest last, and of these the oldest.
            answers.sort_by_key(|(keeps, asked, _)| (*keeps, *asked));
        }
        let mut ended = 0;
        while self.live.excess() > 0 {
            let some = by.values_mut().filter(|(_, answers)| !answers.is_empty());
            let Some((sum, answers)) = some.max_by_key(|(sum, _)| *sum) else {
                break;
            };
            if let Some((keeps, _, answer)) = answers.pop() {
                *sum -= keeps;
                answer.lock().let_go();
                ended += 1;
            }
        }
        ended
    }
}

impl Taking {
    /// A body that is an answer of this connection.
    pub fn take(&self, body: Body, about: About) -> Taken {
        let now = Instant::now();
        let bytes = Some(about.bytes).filter(|bytes| *bytes > 0);
        let answer = Arc::new(Mutex::new(Answer {
            share: bytes.map(|bytes| self.unread.live.hold(bytes)),
            body: Some(body),
            rest: Bytes::new(),
            cut: false,
            end: (about.kind == Kind::Whole).then(|| now + WHOLE),
            asked: now,
            wanted: false,
            about,
        }));
        Taken {
            number: self.answers.lock().add(&answer),
            in_all: self.unread.answers.lock().add(&answer),
            taking: self.clone(),
            answer,
        }
    }

    /// Lets go of what is not taken, and returns how many such answers there are.
    pub fn sweep(&self, now: Instant) -> usize {
        let answers: Vec<_> = self.answers.lock().by.values().cloned().collect();
        let stalled = answers.iter().filter(|answer| answer.lock().stalled(now));
        stalled.count()
    }

    /// Sweeps, until an answer that was let go of is still there at the next look: its
    /// client gives no room for the stream's end either. On a connection that many users
    /// share, until nothing else is left of `open` requests.
    pub async fn stalled(&self, shared: bool, open: impl Fn() -> usize) {
        let mut before = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let stalled = self.sweep(Instant::now());
            let alone = stalled >= open();
            if stalled > 0 && (alone || (!shared && before > 0)) {
                return;
            }
            before = stalled;
        }
    }
}

impl Answer {
    fn stalled(&mut self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.asked) >= STALL;
        let late = self.end.is_some_and(|end| end <= now);
        if !self.wanted && (idle || late) {
            self.let_go();
        }
        self.body.is_none()
    }

    /// Bytes that are alive because of it, as far as is known. What the cache holds as
    /// well is none of them: nothing would be gained by its end.
    fn keeps(&self) -> usize {
        let rest = match self.about.kept.has_what_was_sent() {
            true => 0,
            false => self.rest.len(),
        };
        self.about.bytes + self.about.kept.bytes() + rest
    }

    fn let_go(&mut self) {
        self.body = None;
        self.rest = Bytes::new();
        self.share = None;
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.asked = Instant::now();
        let Some(body) = &mut self.body else {
            let error = axum::Error::new("the answer was not taken");
            return Poll::Ready(Some(Err(error)));
        };
        if self.rest.is_empty() {
            let frame = Pin::new(body).poll_frame(context);
            self.wanted = frame.is_pending();
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        self.cut = false;
                    }
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        self.cut |= self.rest.len() > PIECE;
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        // The connection may keep a piece for long, and must not keep the whole with it.
        let piece = match self.cut {
            true => Bytes::copy_from_slice(&piece),
            false => piece,
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// See the module.
pub struct Taken {
    taking: Taking,
    number: u64,
    in_all: u64,
    answer: Arc<Mutex<Answer>>,
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answer.lock().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        let answer = self.answer.lock();
        let ended = |body: &Body| body.is_end_stream();
        answer.rest.is_empty() && answer.body.as_ref().is_some_and(ended)
    }

    fn size_hint(&self) -> SizeHint {
        let answer = self.answer.lock();
        let hint = answer.body.as_ref().map(|body| body.size_hint());
        let hint = hint.unwrap_or_default();
        let rest = answer.rest.len() as u64;
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.taking.answers.lock().by.remove(&self.number);
        self.taking.unread.answers.lock().by.remove(&self.in_all);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use http_body_util::BodyExt;

    use super::*;
    use crate::live_bytes::{Keeps, Own};
    use crate::response_body::ResponseBody;
    type Never = std::convert::Infallible;
    use crate::pool::Pool;

    fn connection() -> Taking {
        Unread::new(Live::default()).connection()
    }

    fn whole() -> About {
        About::default()
    }

    fn watch() -> About {
        About {
            kind: Kind::Watch,
            ..About::default()
        }
    }

    /// Two readers who take nothing more, one with one large answer, one with twenty. A
    /// third one takes all that there is.
    #[tokio::test]
    async fn answers_that_keep_too_much_are_ended_at_whoever_has_most() {
        let live = Live::new(100 * PIECE);
        let unread = Unread::new(live.clone());
        let taking = unread.connection();
        let answer = |holder: &str, pieces: usize, bytes: usize| {
            // A list pins what it has not sent; a body of its own is told.
            let pinned = live.count(vec![b'x'; pieces * PIECE]);
            let body = Body::from_stream(futures::stream::repeat(pinned).map(Ok::<_, Never>));
            let about = About {
                holder: holder.into(),
                bytes,
                kept: Kept::new(pieces * PIECE),
                ..About::default()
            };
            taking.take(body, about)
        };
        let mut one = answer("one", 29, PIECE);
        one.frame().await.unwrap().unwrap();
        let mut many: Vec<Taken> = (0..20).map(|_| answer("many", 3, PIECE)).collect();
        for taken in &mut many {
            taken.frame().await.unwrap().unwrap();
        }
        assert_eq!((live.used() / PIECE, live.excess() / PIECE), (110, 10));
        assert_eq!(unread.relieve().await, 3);
        assert_eq!(live.excess(), 0);
        one.frame().await.unwrap().unwrap();
        let mut kept = Vec::new();
        for taken in &mut many {
            kept.push(taken.frame().await.unwrap().is_ok());
        }
        // Those that have waited longest are ended.
        assert_eq!(kept[..4], [false, false, false, true]);
        assert!(kept[4..].iter().all(|kept| *kept));
        assert_eq!(unread.relieve().await, 0);
        drop((one, many));
        assert_eq!(live.used(), 0);
        assert!(unread.answers.lock().by.is_empty());
    }

    /// Twenty small answers of one, and two of another that keep a thousand times as much.
    #[tokio::test]
    async fn it_is_the_bytes_that_count_and_not_the_answers() {
        let live = Live::new(10 * PIECE);
        let unread = Unread::new(live.clone());
        let taking = unread.connection();
        let answer = |holder: &str, bytes: usize| {
            let about = About {
                holder: holder.into(),
                bytes,
                ..About::default()
            };
            taking.take(Body::from(vec![b'x'; bytes]), about)
        };
        let mut small: Vec<Taken> = (0..20).map(|_| answer("many", 20)).collect();
        let mut large = [answer("two", 8 * PIECE), answer("two", 6 * PIECE)];
        assert_eq!(unread.relieve().await, 1);
        large[0].frame().await.unwrap().unwrap_err();
        large[1].frame().await.unwrap().unwrap();
        for taken in &mut small {
            taken.frame().await.unwrap().unwrap();
        }
    }

    /// A large answer of which the cache holds everything, and two smaller ones that keep
    /// what nobody else needs.
    #[tokio::test]
    async fn whoevers_end_frees_nothing_is_left_alone() {
        struct OfTheCache;
        impl Keeps for OfTheCache {
            fn bytes(&self) -> usize {
                0
            }
        }
        let live = Live::new(50 * PIECE);
        let unread = Unread::new(live.clone());
        let taking = unread.connection();
        let answer = |holder: &str, pinned: Bytes, kept: Kept| {
            let body = Body::from_stream(futures::stream::repeat(pinned).map(Ok::<_, Never>));
            let about = About {
                holder: holder.into(),
                kept,
                ..About::default()
            };
            taking.take(body, about)
        };
        let bytes = |pieces: usize| live.count(vec![b'x'; pieces * PIECE]);
        // The cache's own.
        let (present, held) = (Arc::new(OfTheCache), bytes(40));
        let mut large = answer("large", held.clone(), Kept::of(&present, Own::default()));
        let other = |holder: &str| answer(holder, bytes(30), Kept::default());
        let mut others = ["one", "two"].map(other);
        large.frame().await.unwrap().unwrap();
        for taken in &mut others {
            taken.frame().await.unwrap().unwrap();
        }
        live.held(40 * PIECE);
        assert_eq!(live.excess(), 10 * PIECE);
        assert_eq!(unread.relieve().await, 1);
        assert_eq!(live.excess(), 0);
        large.frame().await.unwrap().unwrap();
        let mut ended = 0;
        for taken in &mut others {
            ended += usize::from(taken.frame().await.unwrap().is_err());
        }
        assert_eq!(ended, 1);
        // And where nothing is to be gained, nobody is ended.
        drop(others);
        live.held(0);
        let _others = live.hold(20 * PIECE);
        assert!(live.excess() > 0);
        assert_eq!(unread.relieve().await, 0);
        large.frame().await.unwrap().unwrap();
    }

    /// Who takes all but the last byte of a frame keeps the whole of it.
    #[tokio::test]
    async fn what_is_taken_in_part_is_kept_as_a_whole() {
        struct Nothing;
        impl Keeps for Nothing {
            fn bytes(&self) -> usize {
                0
            }
        }
        let live = Live::new(50 * PIECE);
        let unread = Unread::new(live.clone());
        let taking = unread.connection();
        let (nothing, mut taken) = (Arc::new(Nothing), Vec::new());
        for (holder, pieces) in [("nearly", 30), ("not", 25)] {
            let own = Own::default();
            let frame = own.mark(live.count(vec![b'x'; pieces * PIECE + 1]));
            let frames = futures::stream::iter([Ok::<_, Never>(frame)]);
            let frames = frames.chain(futures::stream::pending());
            let about = About {
                holder: holder.into(),
                kept: Kept::of(&nothing, own),
                ..watch()
            };
            taken.push(taking.take(Body::from_stream(frames), about));
        }
        for _ in 0..30 {
            taken[0].frame().await.unwrap().unwrap();
        }
        taken[1].frame().await.unwrap().unwrap();
        assert_eq!(live.excess(), 5 * PIECE + 2);
        assert_eq!(unread.relieve().await, 1);
        assert_eq!(live.excess(), 0);
        taken[0].frame().await.unwrap().unwrap_err();
        taken[1].frame().await.unwrap().unwrap();
    }

    fn held(body: Body, pool: &Pool) -> Body {
        let place = storage::Held::new(pool.enter("a").unwrap());
        Body::new(ResponseBody::new(body, None, place))
    }

    #[tokio::test]
    async fn an_answer_holds_its_place_until_it_is_taken_or_stalls() {
        let pool = Pool::places(10);
        let taking = connection();
        let bytes = vec![b'x'; 3 * PIECE + 1];
        let mut taken = taking.take(held(Body::from(bytes.clone()), &pool), whole());
        assert_eq!(taken.size_hint().exact(), Some(bytes.len() as u64));
        let piece = taken.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece.len(), PIECE);
        assert_eq!(taken.size_hint().exact(), Some(2 * PIECE as u64 + 1));
        assert!(!pool.is_unused());
        assert_eq!(taking.sweep(Instant::now()), 0);
        let rest = taken.collect().await.unwrap().to_bytes();
        assert_eq!(rest.len(), bytes.len() - PIECE);
        assert!(pool.is_unused());

        let mut taken = taking.take(held(Body::from(bytes), &pool), whole());
        taken.frame().await.unwrap().unwrap();
        assert!(!pool.is_unused());
        assert_eq!(taking.sweep(Instant::now() + STALL), 1);
        assert!(pool.is_unused());
        taken.frame().await.unwrap().unwrap_err();
        drop(taken);
        assert_eq!(taking.sweep(Instant::now() + STALL), 0);
    }

    /// A connection of one client, with a quiet watch on it: the answer that is not taken
    /// ends it. On one that others use it does not.
    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_keeps_no_connection_on_which_nothing_is_taken() {
        let taking = connection();
        let quiet = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut watch = taking.take(Body::from_stream(quiet), watch());
        assert!(watch.frame().now_or_never().is_none());
        let end = |shared| tokio::time::timeout(10 * STALL, taking.stalled(shared, || 2));
        end(false).await.unwrap_err();
        let mut unread = taking.take(Body::from(vec![b'x'; 3 * PIECE]), whole());
        unread.frame().await.unwrap().unwrap();
        end(true).await.unwrap_err();
        end(false).await.unwrap();
    }

    /// A piece a minute would hold a list for hours.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_bit_by_bit_has_an_end() {
        let taking = connection();
        let bits = || {
            let bits = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from("x")));
            Body::from_stream(bits)
        };
        let mut list = taking.take(bits(), whole());
        let mut watch = taking.take(bits(), watch());
        let mut lasted = Duration::ZERO;
        while taking.sweep(Instant::now()) == 0 {
            list.frame().await.unwrap().unwrap();
            watch.frame().await.unwrap().unwrap();
            tokio::time::advance(STALL / 2).await;
            lasted += STALL / 2;
        }
        assert_eq!(lasted, WHOLE);
        list.frame().await.unwrap().unwrap_err();
        watch.frame().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_piece_keeps_nothing_of_the_whole() {
        let bytes = Bytes::from(vec![b'x'; 2 * PIECE + 7]);
        let mut taken = connection().take(Body::from(bytes.clone()), whole());
        let mut pieces = Vec::new();
        while let Some(frame) = taken.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(pieces.len(), 3);
        drop(taken);
        assert!(bytes.is_unique(), "a piece is a copy");
    }

    #[tokio::test]
    async fn a_quiet_watch_is_not_stalled_and_one_that_is_not_read_is() {
        let taking = connection();
        let one = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
        let mut taken = taking.take(
            Body::from_stream(one.chain(futures::stream::pending())),
            watch(),
        );
        taken.frame().await.unwrap().unwrap();
        assert!(taken.frame().now_or_never().is_none());
        assert_eq!(taking.sweep(Instant::now() + 10 * STALL), 0);
        let two = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from("x")));
        let mut unread = taking.take(Body::from_stream(two), watch());
        unread.frame().await.unwrap().unwrap();
        assert_eq!(taking.sweep(Instant::now() + STALL), 1);
    }
}
