//! How much at once: requests in flight (R9.1), time (R9.4), size of a body (R4.12), and
//! that none of it is one caller's alone.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use bytes::BytesMut;
use http::request::Parts;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::authn::Identity;
use crate::decode::{self, BODY, Media};
use crate::object::{self, weight};
use crate::pool::{Hold, Pool};
use crate::status::Failure;
use crate::stored;
use crate::target::{Target, Verb};

/// The deadline of a request that is not a watch.
pub const REQUEST: Duration = Duration::from_secs(60);
/// The deadline of a write; its outcome is unknown to the client after that.
pub const WRITE: Duration = Duration::from_secs(34);
/// A client that takes longer to send its headers is cut off (HTTP/1).
pub const HEADER_READ: Duration = Duration::from_secs(32);

/// Bytes that bodies under way may take, and the trees of values that are made of them
/// ([`weight`]).
pub(crate) const WORK: usize = 96 * 1024 * 1024;
/// The same of stored objects that are read as trees of values, or made anew.
pub(crate) const STORED: usize = 64 * 1024 * 1024;
/// What is held of a document beside its tree, in its own size: a buffer that grows doubles,
/// and what is stored is written anew.
const RAW: usize = 2;
/// What comes of a stored object and a configuration, in their size as trees: the new object,
/// and the sets of its fields and of those that have owners.
const MADE: usize = 2;
// Each alone fits in what one holder gets, which is half.
const _: () = assert!(weight::TREE + RAW * BODY <= WORK / 2);
const _: () = assert!(
    weight::TREE + weight::STATUS_TREE + RAW * (stored::MAX_STORED + stored::STATUS_ROOM)
        <= STORED / 2
);
/// How long one of the cluster's own controllers waits for room; then it goes on without.
const SYSTEM_WAIT: Duration = Duration::from_secs(2);
/// Between its looks.
const LOOK: Duration = Duration::from_millis(20);
/// Watches that are open.
pub(crate) const WATCHES: usize = 2_000;
/// Requests whose bodies are awaited. They hold no other place, and have headers.
pub(crate) const BODIES: usize = 400;
/// Questions to the cluster about callers' rights.
pub(crate) const QUESTIONS: usize = 200;
/// Bytes of URL and headers that a request may have without being counted, and by how much
/// more is counted: the texts are kept as they came, decoded, for authorization and for audit.
pub(crate) const HEAD: usize = 4 * 1024;
pub(crate) const COPIES: usize = 6;
/// The same in all while it is not known whose they are, by where they come from.
pub(crate) const HEADS: usize = 16 * 1024 * 1024;
/// Bytes of selectors that a watch may keep without being counted.
pub(crate) const SELECTOR: usize = 1024;
/// Bytes of all others that watches keep, with what is around each text.
pub(crate) const SELECTORS: usize = 16 * 1024 * 1024;
/// A value of a selector takes this many times the bytes of its text: each is one of its own.
pub(crate) const VALUE: usize = 16;
/// Answers that are compressed while they are sent, each with tables of about [`PACKING`]
/// bytes. Others are sent as they are.
pub(crate) const PACKED: usize = 64;
#[cfg(test)]
pub(crate) const PACKING: usize = 384 * 1024;
/// Lists that read an older state from the store, which does one page after the other.
const PAST: usize = 8;

/// Places of requests in flight: reads and writes apart, and apart from both, those of
/// the cluster's own controllers. Watches count as reads until they start.
#[derive(Clone, Debug)]
pub struct Limits {
    reads: Pool,
    writes: Pool,
    /// Reads that wait for a revision that is yet to come.
    waiting: Pool,
    system_reads: Pool,
    system_writes: Pool,
    /// The cluster's own controllers, and room for what each has under way.
    system: Arc<HashMap<String, Pool>>,
    questions: Pool,
    /// Room for bodies.
    work: Pool,
    /// Room for stored objects.
    stored: Pool,
    watches: Pool,
    /// Room for what watches select by.
    selectors: Pool,
    packed: Pool,
    /// Room for URLs and headers while it is not known whose they are.
    heads: Pool,
    past: Pool,
    /// Requests whose bodies are on their way.
    bodies: Pool,
}

/// What a request takes a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Read,
    /// A read that will wait for a revision.
    Wait,
    Write,
}

impl Need {
    pub fn of(verb: Verb, waits: bool) -> Self {
        match (verb.is_mutating(), waits) {
            (true, _) => Need::Write,
            (false, true) => Need::Wait,
            (false, false) => Need::Read,
        }
    }
}

/// A request's place; given back when it is dropped. Members of system:masters are not
/// counted, so that an administrator can always look.
pub type Slot = Option<Hold>;

/// Users of the control plane that must get through whatever others do: without them
/// nothing is cleaned up, and no namespace is ever gone.
pub(crate) const CONTROLLERS: [&str; 3] = [
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

impl Limits {
    /// So many reads and writes. The controller's ServiceAccount is in `namespace`.
    pub fn new(reads: usize, writes: usize, namespace: &str) -> Self {
        let ours = format!("system:serviceaccount:{namespace}:steward-controller");
        let system = CONTROLLERS.iter().map(|user| (*user).to_owned());
        let system = system.chain([ours]);
        let system = system.map(|user| (user, Pool::new(STORED)));
        Limits {
            reads: Pool::places(reads),
            writes: Pool::places(writes),
            waiting: Pool::places(reads),
            system_reads: Pool::new((reads / 4).max(1)),
            system_writes: Pool::new((writes / 4).max(1)),
            system: Arc::new(system.collect()),
            questions: Pool::places(QUESTIONS),
            work: Pool::new(WORK),
            stored: Pool::new(STORED),
            watches: Pool::places(WATCHES),
            selectors: Pool::new(SELECTORS),
            packed: Pool::places(PACKED),
            heads: Pool::new(HEADS),
            past: Pool::new(PAST),
            bodies: Pool::places(BODIES),
        }
    }

    /// A place for a request.
    ///
    /// # Errors
    /// 429 when the caller has its share of them; nothing waits.
    pub fn enter(&self, identity: &Identity, need: Need) -> Result<Slot, Failure> {
        if exempt(identity) {
            return Ok(None);
        }
        let own = match need {
            Need::Read => Some(&self.system_reads),
            Need::Write => Some(&self.system_writes),
            Need::Wait => None,
        };
        if let Some(own) = own
            && self.system.contains_key(&identity.user)
            && let Ok(hold) = own.enter(&identity.user)
        {
            return Ok(Some(hold));
        }
        let places = match need {
            Need::Read => &self.reads,
            Need::Wait => &self.waiting,
            Need::Write => &self.writes,
        };
        places.enter(holder(identity)).map(Some)
    }

    /// A place for a watch, for as long as it is open. When there are none left, the
    /// oldest watch of whoever has most is ended for a caller that has none.
    ///
    /// # Errors
    /// 429 when the caller has its share of them.
    pub fn watch(&self, identity: &Identity) -> Result<Slot, Failure> {
        match exempt(identity) || self.system.contains_key(&identity.user) {
            true => Ok(None),
            false => self.watches.displace(holder(identity)).map(Some),
        }
    }

    /// Room for the selectors of a watch, as long as it lasts.
    ///
    /// # Errors
    /// 429 when those of the caller's other watches take its share.
    pub fn selectors(&self, identity: &Identity, target: &Target) -> Result<Slot, Failure> {
        let Target::Resource(path) = target else {
            return Ok(None);
        };
        let texts = [&path.label_selector, &path.field_selector];
        let bytes = texts
            .iter()
            .map(|text| text.as_ref().map_or(0, String::len));
        let bytes: usize = bytes.sum();
        if bytes <= SELECTOR || self.is_exempt(identity) {
            return Ok(None);
        }
        let mut hold = self.selectors.hold(holder(identity));
        hold.grow(bytes * VALUE)?;
        Ok(Some(hold))
    }

    /// A place for an answer to be compressed; none are left if it fails, and it is sent as
    /// it is.
    pub fn pack(&self, identity: &Identity) -> Option<Hold> {
        self.packed.enter(holder(identity)).ok()
    }

    /// Room for the URL and the headers of a request, where these are long.
    ///
    /// # Errors
    /// 429 while the caller's other requests take all of its share.
    pub async fn head(&self, identity: &Identity, parts: &Parts) -> Result<Slot, Failure> {
        let Some(bytes) = long_head(parts) else {
            return Ok(None);
        };
        let mut room = self.room(identity, &self.work);
        room.reach(bytes).await?;
        Ok(room.hold)
    }

    /// The same while it is not known who asks.
    ///
    /// # Errors
    /// 429 while other requests from there take all of its share.
    pub fn head_from(&self, source: &str, parts: &Parts) -> Result<Slot, Failure> {
        let Some(bytes) = long_head(parts) else {
            return Ok(None);
        };
        let mut hold = self.heads.hold(source);
        hold.grow(bytes)?;
        Ok(Some(hold))
    }

    /// Whether the caller takes no places for watches: an administrator, or one of the
    /// cluster's own controllers.
    pub fn is_exempt(&self, identity: &Identity) -> bool {
        exempt(identity) || self.system.contains_key(&identity.user)
    }

    /// A place for a list that reads an older state from the store.
    ///
    /// # Errors
    /// 429 when the caller has its share of them.
    pub fn look_back(&self, identity: &Identity) -> Result<Slot, Failure> {
        match self.is_exempt(identity) {
            true => Ok(None),
            false => self.past.enter(holder(identity)).map(Some),
        }
    }

    /// A place for a question to the cluster about what the caller may do.
    ///
    /// # Errors
    /// 429 when the caller has its share of them.
    pub fn ask(&self, identity: &Identity) -> Result<Slot, Failure> {
        match exempt(identity) || self.system.contains_key(&identity.user) {
            true => Ok(None),
            false => self.questions.enter(holder(identity)).map(Some),
        }
    }

    /// Room for a stored object that is read as a tree of values.
    ///
    /// # Errors
    /// 429 while what the caller has under way takes all of its share. The cluster's own
    /// controllers wait a little, and are never refused.
    pub async fn decode(&self, identity: &Identity, stored: &[u8]) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        // What is heavier is of a release that did not weigh, and takes all that one gets.
        let tree = decode::weigh(Media::Json, stored, room.most).unwrap_or(room.most);
        room.reach(RAW * stored.len() + tree).await?;
        Ok(room)
    }

    /// Room for an object that is made of a configuration, and for what making it takes.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn make(&self, identity: &Identity, config: &Value) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        room.make(&Value::Null, config).await?;
        Ok(room)
    }

    /// Room for copies of objects, as trees and as texts, while others are asked about them.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn copies(
        &self,
        identity: &Identity,
        objects: impl IntoIterator<Item = &Value>,
    ) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        room.hold_copies(objects).await?;
        Ok(room)
    }

    /// No room yet, of that of the caller: its own or this.
    fn room(&self, identity: &Identity, of_all: &Pool) -> Room {
        let own = self.system.get(&identity.user);
        let pool = own.unwrap_or(of_all);
        Room {
            hold: (!exempt(identity)).then(|| pool.hold(holder(identity))),
            held: 0,
            most: pool.alone(),
            patience: own.map(|_| SYSTEM_WAIT),
        }
    }

    /// Reads a whole body of at most [`BODY`] bytes, and weighs what it is as a tree of
    /// values. Both are held with it.
    ///
    /// # Errors
    /// 413 for a larger or heavier one; 400 if the client stops in the middle; 429 while the
    /// caller's other bodies take all of its share. Nobody's bodies stand in the way of an
    /// administrator or of the cluster's own controllers.
    pub async fn read<B>(
        &self,
        identity: &Identity,
        media: Media,
        body: B,
    ) -> Result<(Bytes, Slot), Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _awaited = match exempt(identity) || self.system.contains_key(&identity.user) {
            true => None,
            false => Some(self.bodies.enter(holder(identity))?),
        };
        let mut room = self.room(identity, &self.work);
        let mut body = pin!(body);
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::BadRequest(format!("reading the body: {}", error.into()))
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let longest = media.longest();
            if whole.len() + data.len() > longest {
                return Err(Failure::TooLarge(format!("limit is {longest}")));
            }
            room.reach(RAW * (whole.len() + data.len())).await?;
            whole.extend_from_slice(&data);
        }
        let tree = decode::weigh(media, &whole, weight::TREE);
        let tree = tree.map_err(|weight::TooHeavy| Failure::too_heavy("body", weight::TREE))?;
        room.reach(RAW * whole.len() + tree).await?;
        Ok((whole.freeze(), room.hold))
    }
}

/// What a caller holds of the room for documents; nothing for those that are not counted.
#[derive(Debug)]
pub struct Room {
    hold: Slot,
    /// As much as was asked for; a controller may go on with less.
    held: usize,
    /// What one holder gets.
    most: usize,
    /// What is left of the time that a controller waits; others are refused.
    patience: Option<Duration>,
}

impl Room {
    /// Room for an object that takes the place of what was read.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn hold(&mut self, made: &Value) -> Result<(), Failure> {
        let tree = weight::of(made, self.most).unwrap_or(self.most);
        self.reach(RAW * object::length(made) + tree).await
    }

    /// Room for copies of objects, in place of smaller ones.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn hold_copies(
        &mut self,
        objects: impl IntoIterator<Item = &Value>,
    ) -> Result<(), Failure> {
        let most = self.most;
        let copy = |object| object::length(object) + weight::of(object, most).unwrap_or(most);
        self.reach(objects.into_iter().map(copy).sum()).await
    }

    /// More room, for what is made of a stored object and a configuration for it.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn make(&mut self, stored: &Value, config: &Value) -> Result<(), Failure> {
        let tree = |value| weight::of(value, self.most).unwrap_or(self.most);
        let more = MADE * (tree(stored) + tree(config));
        self.reach(self.held + more).await
    }

    /// Makes it at least so many bytes; what is more than one holder gets is all of that.
    async fn reach(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = bytes.min(self.most);
        let more = bytes.saturating_sub(self.held);
        let Some(hold) = self.hold.as_mut().filter(|_| more > 0) else {
            return Ok(());
        };
        match &mut self.patience {
            None => hold.grow(more)?,
            Some(patience) => {
                while hold.grow(more).is_err() && !patience.is_zero() {
                    tokio::time::sleep(LOOK).await;
                    *patience = patience.saturating_sub(LOOK);
                }
            }
        }
        self.held = bytes;
        Ok(())
    }
}

/// What URL and headers of a request take, if that is much.
fn long_head(parts: &Parts) -> Option<usize> {
    let headers = parts.headers.iter();
    let headers: usize = headers.map(|(_, value)| value.len()).sum();
    let url = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    Some(url * COPIES + headers).filter(|bytes| *bytes > HEAD)
}

fn exempt(identity: &Identity) -> bool {
    let mut groups = identity.groups.iter();
    groups.any(|group| group == "system:masters")
}

/// By whom places are held: the user, and for ServiceAccounts their namespace, since
/// whoever may make one there can make a hundred.
pub fn holder(identity: &Identity) -> &str {
    let user = identity.user.as_str();
    match user.strip_prefix("system:serviceaccount:") {
        Some(rest) => match rest.find(':') {
            Some(end) => &user[..user.len() - rest.len() + end],
            None => user,
        },
        None => user,
    }
}

/// Bytes of lists that are made from the store at once, rather than from the cache.
pub const ANSWERS: usize = 64 * 1024 * 1024;

/// Watches that read history at a time. Each holds about half a megabyte, or one change:
/// an object before and after, 3 MiB.
pub const REPLAYS: usize = 32;

/// The time that a request may take: the smaller of ours and the client's `timeout`.
/// `None` for a watch, which ends by its own rules.
pub fn time(verb: Verb, asked: Option<Duration>) -> Option<Duration> {
    let ours = match verb {
        Verb::Watch => return None,
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => WRITE,
        Verb::Get | Verb::List | Verb::DeleteCollection | Verb::None => REQUEST,
    };
    Some(asked.map_or(ours, |asked| asked.min(ours)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn user(user: &str, group: &str) -> Identity {
        Identity {
            user: user.to_owned(),
            uid: None,
            groups: vec![group.to_owned()],
            extra: Default::default(),
        }
    }

    fn fill(limits: &Limits, who: &Identity, need: Need) -> Vec<Slot> {
        std::iter::from_fn(|| limits.enter(who, need).ok())
            .take(10_000)
            .collect()
    }

    /// R9.1.
    #[test]
    fn places_are_given_back_and_masters_need_none() {
        let limits = Limits::new(1, 1, "s");
        let a = user("a", "g");
        let first = limits.enter(&a, Need::Read).unwrap();
        let refused = limits.enter(&a, Need::Read).unwrap_err();
        assert_eq!(refused.retry_after(), Some(1));
        limits.enter(&a, Need::Write).unwrap();
        limits
            .enter(&user("m", "system:masters"), Need::Read)
            .unwrap();
        drop(first);
        limits.enter(&a, Need::Read).unwrap();
        assert!(limits.reads.is_unused());
    }

    fn head(url: usize, header: usize) -> Parts {
        let path = format!("/{}", "a".repeat(url - 1));
        let request = http::Request::get(path).header("accept", "a".repeat(header));
        request.body(()).unwrap().into_parts().0
    }

    /// A URL is kept several times over while a request is carried out.
    #[tokio::test]
    async fn long_urls_count_as_what_they_take() {
        let limits = Limits::new(400, 200, "s");
        let (a, long) = (user("a", "g"), head(60_000, 10));
        assert!(limits.head(&a, &head(400, 400)).await.unwrap().is_none());
        let mut held = Vec::new();
        while let Ok(hold) = limits.head(&a, &long).await {
            held.push(hold.unwrap());
        }
        // Half of the room for bodies.
        let half = |room: usize, each: usize| (room / each).div_ceil(2);
        let each = 60_000 * COPIES + 10;
        assert_eq!(held.len(), half(WORK, each));
        limits.head(&user("b", "g"), &long).await.unwrap();
        let free = limits.head(&user("m", "system:masters"), &long).await;
        assert!(free.unwrap().is_none());
        drop(held);
        assert!(limits.work.is_unused());
        // While nobody knows whose they are, by where they come from.
        let held = std::iter::from_fn(|| limits.head_from("1.2.3.4", &long).ok());
        let held: Vec<Slot> = held.collect();
        assert_eq!(held.len(), half(HEADS, each));
        limits.head_from("1.2.3.5", &long).unwrap();
        assert!(
            limits
                .head_from("1.2.3.4", &head(400, 400))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn long_selectors_of_watches_have_a_room() {
        let limits = Limits::new(400, 200, "s");
        let watch = |length: usize| {
            let query = [
                ("watch", "1".to_owned()),
                ("labelSelector", "a".repeat(length)),
            ];
            let query = query.map(|(key, value)| (key.to_owned(), value));
            Target::parse(&http::Method::GET, "/apis/g/v/r", &query)
        };
        let a = user("a", "g");
        assert!(limits.selectors(&a, &watch(SELECTOR)).unwrap().is_none());
        let held = std::iter::from_fn(|| limits.selectors(&a, &watch(50_000)).ok());
        let held: Vec<Slot> = held.collect();
        let each = 50_000 * VALUE;
        assert_eq!(held.len(), (SELECTORS / each).div_ceil(2));
        limits.selectors(&user("b", "g"), &watch(50_000)).unwrap();
        drop(held);
        assert!(limits.selectors.is_unused());
    }

    /// R9.2.
    #[test]
    fn nobody_starves_another() {
        let limits = Limits::new(400, 200, "s");
        let mut held = Vec::new();
        let mut counts = Vec::new();
        for n in 0..20 {
            let mine = fill(&limits, &user(&format!("u{n}"), "g"), Need::Read);
            counts.push(mine.len());
            held.push(mine);
        }
        assert_eq!(counts[..4], [50, 50, 50, 50]);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        // The first wave took what it could; as its requests end, the shares become even.
        for _ in 0..2_000 {
            for (n, mine) in held.iter_mut().enumerate() {
                mine.pop();
                mine.extend(limits.enter(&user(&format!("u{n}"), "g"), Need::Read).ok());
                mine.extend(limits.enter(&user(&format!("u{n}"), "g"), Need::Read).ok());
            }
        }
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert!(
            counts.iter().all(|count| (15..=25).contains(count)),
            "{counts:?}"
        );
        limits.enter(&user("new", "g"), Need::Read).unwrap();
        // Writes have places of their own.
        assert_eq!(fill(&limits, &user("u", "g"), Need::Write).len(), 200 / 8);
    }

    #[test]
    fn accounts_of_one_namespace_are_one_holder() {
        let limits = Limits::new(8, 8, "s");
        let of = |name: &str| user(&format!("system:serviceaccount:{name}"), "g");
        let _held = [
            fill(&limits, &of("n:a"), Need::Read),
            fill(&limits, &of("n:b"), Need::Read),
        ];
        assert_eq!(_held.each_ref().map(Vec::len), [4, 0]);
        limits.enter(&of("m:a"), Need::Read).unwrap();
        assert_eq!(holder(&of("n:a")), "system:serviceaccount:n");
        assert_eq!(
            holder(&user("system:serviceaccount:", "g")),
            "system:serviceaccount:"
        );
    }

    #[test]
    fn controllers_have_places_of_their_own_and_waiting_takes_none() {
        let limits = Limits::new(4, 4, "s");
        let mut held = Vec::new();
        for n in 0..10 {
            for need in [Need::Read, Need::Write, Need::Wait] {
                held.extend(fill(&limits, &user(&format!("u{n}"), "g"), need));
            }
        }
        let ours = "system:serviceaccount:s:steward-controller";
        let all = [
            ours,
            "system:serviceaccount:kube-system:generic-garbage-collector",
            "system:serviceaccount:kube-system:namespace-controller",
            "system:kube-controller-manager",
        ];
        assert_eq!(limits.system.len(), all.len());
        for name in all {
            assert!(limits.is_exempt(&user(name, "g")), "{name}");
            limits.enter(&user(name, "g"), Need::Read).unwrap();
            limits.enter(&user(name, "g"), Need::Write).unwrap();
        }
        let stranger = user("system:serviceaccount:t:steward-controller", "g");
        limits.enter(&stranger, Need::Read).unwrap_err();
        drop(held);
        let _waiting = fill(&limits, &user("u", "g"), Need::Wait);
        assert_eq!(fill(&limits, &user("u", "g"), Need::Read).len(), 2);
    }

    /// JSON whose tree takes about so many bytes.
    fn heavy(bytes: usize) -> String {
        let of = |count: usize| format!("[{}]", vec![r#"{"":0}"#; count].join(","));
        let many = decode::weigh(Media::Json, of(1 << 14).as_bytes(), usize::MAX).unwrap();
        of(bytes / (many >> 14))
    }

    /// R4.12.
    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        let limits = Limits::new(1, 1, "s");
        let a = user("a", "g");
        let text = format!("\"{}\"", "x".repeat(BODY - 2));
        let (body, _held) = limits
            .read(&a, Media::Json, Body::from(text))
            .await
            .unwrap();
        assert_eq!(body.len(), BODY);
        let large = Body::from(vec![b'x'; BODY + 1]);
        let failure = limits.read(&a, Media::Json, large).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Request entity too large: limit is 3145728"
        );
    }

    #[tokio::test]
    async fn copies_count_as_stored_objects() {
        let limits = Limits::new(1, 1, "s");
        let (a, b) = (user("a", "g"), user("b", "g"));
        let text = heavy(weight::TREE - 1_000_000);
        let object: Value = serde_json::from_str(&text).unwrap();
        let held = limits.copies(&a, [&object]).await.unwrap();
        let refused = limits.copies(&a, [&object]).await.unwrap_err();
        assert_eq!(refused.retry_after(), Some(1));
        let stored = limits.decode(&a, text.as_bytes()).await.unwrap_err();
        assert_eq!(stored.retry_after(), Some(1));
        limits.copies(&b, [&object]).await.unwrap();
        drop(held);
        limits.decode(&a, text.as_bytes()).await.unwrap();
        assert!(limits.stored.is_unused());
    }

    /// It is what they take once they are read that is shared, however short they are.
    #[tokio::test]
    async fn bodies_are_counted_by_what_they_are_as_trees() {
        let limits = Limits::new(1, 1, "s");
        let (a, b) = (user("a", "g"), user("b", "g"));
        let read = |who, bytes| limits.read(who, Media::Json, Body::from(heavy(bytes)));
        let (body, held) = read(&a, weight::TREE - 1_000_000).await.unwrap();
        assert!(body.len() < weight::TREE / 50);
        // One caller has one such body under way; others have theirs.
        let second = read(&a, weight::TREE - 1_000_000).await;
        let second = [second, read(&a, weight::TREE - 1_000_000).await];
        let refused = second.iter().filter_map(|read| read.as_ref().err());
        assert!(refused.clone().count() > 0);
        assert!(
            refused
                .clone()
                .all(|refused| refused.retry_after() == Some(1))
        );
        drop(second);
        let other = read(&b, weight::TREE - 1_000_000).await.unwrap();
        drop((held, other));
        let failure = read(&a, 2 * weight::TREE).await.unwrap_err();
        assert_eq!(failure.code().as_u16(), 413);
        assert!(limits.work.is_unused());
        // The same as YAML.
        let maps = "- a:\n    b: 0\n".repeat(20_000);
        let failure = limits
            .read(&a, Media::Yaml, Body::from(maps))
            .await
            .unwrap_err();
        assert_eq!(failure.code().as_u16(), 413);
    }

    /// Who sends headers and never a body, a thousand times on one connection.
    #[tokio::test]
    async fn awaited_bodies_are_counted() {
        let limits = Limits::new(1, 1, "s");
        let a = user("a", "g");
        let body = || Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
        let mut waiting = Vec::new();
        let refused = loop {
            let mut read = Box::pin(limits.read(&a, Media::Json, body()));
            match futures::FutureExt::now_or_never(&mut read) {
                None => waiting.push(read),
                Some(ended) => break ended.unwrap_err(),
            }
        };
        assert_eq!(
            (waiting.len(), refused.retry_after()),
            (BODIES / 8, Some(1))
        );
        let b = user("b", "g");
        limits.read(&b, Media::Json, Body::from("x")).await.unwrap();
        drop(waiting);
        limits.read(&a, Media::Json, Body::from("x")).await.unwrap();
    }

    #[tokio::test]
    async fn bodies_of_others_are_in_no_administrators_way() {
        let limits = Limits::new(1, 1, "s");
        let mut held = Vec::new();
        for n in 0..40 {
            let who = user(&format!("u{n}"), "g");
            let body = Body::from(heavy(weight::TREE / 4));
            held.extend(limits.read(&who, Media::Json, body).await.ok());
        }
        let read = |who| limits.read(who, Media::Json, Body::from(heavy(weight::TREE / 2)));
        let new = user("new", "g");
        read(&new).await.unwrap_err();
        let master = user("m", "system:masters");
        let both = [read(&master).await, read(&master).await];
        assert!(both.iter().all(|read| matches!(read, Ok((_, None)))));
    }

    /// They wait for each other's room a little, and go on without.
    #[tokio::test(start_paused = true)]
    async fn the_clusters_own_controllers_are_not_refused() {
        let limits = Limits::new(1, 1, "s");
        let large = heavy(weight::TREE - 1_000_000);
        let read = |who| limits.read(who, Media::Json, Body::from(large.clone()));
        let ours = user("system:serviceaccount:s:steward-controller", "g");
        let began = tokio::time::Instant::now();
        let first = read(&ours).await.unwrap();
        let collector = user(CONTROLLERS[1], "g");
        read(&collector).await.unwrap();
        assert!(began.elapsed().is_zero());
        read(&ours).await.unwrap();
        limits.decode(&ours, large.as_bytes()).await.unwrap();
        assert!(began.elapsed() >= 2 * SYSTEM_WAIT);
        let second = read(&ours);
        let (second, ()) = futures::future::join(second, async { drop(first) }).await;
        assert!(second.is_ok() && began.elapsed() < 3 * SYSTEM_WAIT);
    }

    /// R9.4, R9.5.
    #[test]
    fn the_clients_timeout_only_shortens() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(time(Verb::Get, None), Some(REQUEST));
        assert_eq!(time(Verb::Get, second), second);
        assert_eq!(time(Verb::Update, Some(REQUEST)), Some(WRITE));
        assert_eq!(time(Verb::Watch, second), None);
    }
}
