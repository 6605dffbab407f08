//! How much at once: requests in flight (R9.1), time (R9.4), size of a body (R4.12), and
//! that none of it is one caller's alone.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use bytes::BytesMut;
use http_body_util::BodyExt;

use crate::authn::Identity;
use crate::pool::{Hold, Pool};
use crate::status::Failure;
use crate::target::Verb;

/// The largest body that is read, in bytes.
pub const BODY: usize = 3 * 1024 * 1024;
/// The deadline of a request that is not a watch.
pub const REQUEST: Duration = Duration::from_secs(60);
/// The deadline of a write; its outcome is unknown to the client after that.
pub const WRITE: Duration = Duration::from_secs(34);
/// A client that takes longer to send its headers is cut off (HTTP/1).
pub const HEADER_READ: Duration = Duration::from_secs(32);

/// Bytes that bodies under way may take, counted as what they take once they are read:
/// one holder can send one of the largest.
const WORK: usize = 2 * EXPANSION * BODY;
/// The same of stored objects that are read as trees of values.
const STORED: usize = 64 * 1024 * 1024;
/// What a document takes at worst once it is read as a tree of values, in its own size.
const EXPANSION: usize = 16;
/// How long one of the cluster's own controllers waits for room; then it goes on without.
const SYSTEM_WAIT: Duration = Duration::from_secs(2);
/// Between its looks.
const LOOK: Duration = Duration::from_millis(20);
/// Watches that are open.
const WATCHES: usize = 2_000;
/// Requests whose bodies are awaited. They hold no other place, and have headers.
const BODIES: usize = 400;
/// Questions to the cluster about callers' rights.
const QUESTIONS: usize = 200;

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
const CONTROLLERS: [&str; 3] = [
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

    /// Whether the caller takes no places for watches: an administrator, or one of the
    /// cluster's own controllers.
    pub fn is_exempt(&self, identity: &Identity) -> bool {
        exempt(identity) || self.system.contains_key(&identity.user)
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

    /// Room for a stored object of so many bytes that is read as a tree of values.
    ///
    /// # Errors
    /// 429 while what the caller has under way takes all of its share. The cluster's own
    /// controllers wait a little, and are never refused.
    pub async fn decode(&self, identity: &Identity, bytes: usize) -> Result<Slot, Failure> {
        let mut room = self.room(identity, &self.stored);
        room.grow(bytes).await?;
        Ok(room.hold)
    }

    /// No room yet, of that of the caller: its own or this.
    fn room(&self, identity: &Identity, of_all: &Pool) -> Room {
        let own = self.system.get(&identity.user);
        let pool = own.unwrap_or(of_all);
        Room {
            hold: (!exempt(identity)).then(|| pool.hold(holder(identity))),
            patience: own.map(|_| SYSTEM_WAIT),
        }
    }

    /// Reads a whole body of at most [`BODY`] bytes. What it takes is held with it.
    ///
    /// # Errors
    /// 413 for a larger one; 400 if the client stops in the middle; 429 while the
    /// caller's other bodies take all of its share. Nobody's bodies stand in the way of an
    /// administrator or of the cluster's own controllers.
    pub async fn read<B>(&self, identity: &Identity, body: B) -> Result<(Bytes, Slot), Failure>
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
            if whole.len() + data.len() > BODY {
                return Err(Failure::TooLarge(format!("limit is {BODY}")));
            }
            room.grow(data.len()).await?;
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), room.hold))
    }
}

/// What a caller holds of the room for documents; nothing for those that are not counted.
struct Room {
    hold: Slot,
    /// What is left of the time that a controller waits; others are refused.
    patience: Option<Duration>,
}

impl Room {
    /// Room for so many bytes more of a document.
    async fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let Some(hold) = &mut self.hold else {
            return Ok(());
        };
        let Some(patience) = &mut self.patience else {
            return hold.grow(bytes * EXPANSION);
        };
        while hold.grow(bytes * EXPANSION).is_err() && !patience.is_zero() {
            tokio::time::sleep(LOOK).await;
            *patience = patience.saturating_sub(LOOK);
        }
        Ok(())
    }
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

/// Refused for now, with the time after which to come again.
pub fn too_many() -> Failure {
    Failure::TooManyRequests {
        message: "Too many requests, please try again later.".to_owned(),
        retry_after: 1,
    }
}

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
        let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
        for name in [ours, collector] {
            limits.enter(&user(name, "g"), Need::Read).unwrap();
            limits.enter(&user(name, "g"), Need::Write).unwrap();
        }
        let stranger = user("system:serviceaccount:t:steward-controller", "g");
        limits.enter(&stranger, Need::Read).unwrap_err();
        drop(held);
        let _waiting = fill(&limits, &user("u", "g"), Need::Wait);
        assert_eq!(fill(&limits, &user("u", "g"), Need::Read).len(), 2);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        let limits = Limits::new(1, 1, "s");
        let a = user("a", "g");
        let (body, held) = limits.read(&a, Body::from(vec![b'x'; BODY])).await.unwrap();
        assert_eq!(body.len(), BODY);
        // One caller has one such body under way; others have theirs.
        let second = limits.read(&a, Body::from(vec![b'x'; BODY])).await;
        assert_eq!(second.unwrap_err().retry_after(), Some(1));
        let b = user("b", "g");
        limits
            .read(&b, Body::from(vec![b'x'; BODY / 2]))
            .await
            .unwrap();
        drop((body, held));
        let large = Body::from(vec![b'x'; BODY + 1]);
        let failure = limits.read(&a, large).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Request entity too large: limit is 3145728"
        );
    }

    /// Who sends headers and never a body, a thousand times on one connection.
    #[tokio::test]
    async fn awaited_bodies_are_counted() {
        let limits = Limits::new(1, 1, "s");
        let a = user("a", "g");
        let body = || Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
        let mut waiting = Vec::new();
        let refused = loop {
            let mut read = Box::pin(limits.read(&a, body()));
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
        limits.read(&b, Body::from("x")).await.unwrap();
        drop(waiting);
        limits.read(&a, Body::from("x")).await.unwrap();
    }

    #[tokio::test]
    async fn bodies_of_others_are_in_no_administrators_way() {
        let limits = Limits::new(1, 1, "s");
        let mut held = Vec::new();
        for n in 0..40 {
            let body = Body::from(vec![b'x'; BODY / 4]);
            held.extend(limits.read(&user(&format!("u{n}"), "g"), body).await.ok());
        }
        let body = || Body::from(vec![b'x'; 3 * 512 * 1024]);
        limits.read(&user("new", "g"), body()).await.unwrap_err();
        let master = user("m", "system:masters");
        let both = [
            limits.read(&master, body()).await,
            limits.read(&master, body()).await,
        ];
        assert!(both.iter().all(|read| matches!(read, Ok((_, None)))));
    }

    /// They wait for each other's room a little, and go on without.
    #[tokio::test(start_paused = true)]
    async fn the_clusters_own_controllers_are_not_refused() {
        let limits = Limits::new(1, 1, "s");
        let body = || Body::from(vec![b'x'; 3 * 512 * 1024]);
        let ours = user("system:serviceaccount:s:steward-controller", "g");
        let began = tokio::time::Instant::now();
        let first = limits.read(&ours, body()).await.unwrap();
        let collector = user(CONTROLLERS[1], "g");
        limits.read(&collector, body()).await.unwrap();
        assert!(began.elapsed().is_zero());
        limits.read(&ours, body()).await.unwrap();
        limits.decode(&ours, 3 * 512 * 1024).await.unwrap();
        assert!(began.elapsed() >= 2 * SYSTEM_WAIT);
        let second = limits.read(&ours, body());
        let (second, ()) = futures::future::join(second, async { drop(first) }).await;
        assert!(second.is_ok() && began.elapsed() < 3 * SYSTEM_WAIT);
    }

    #[test]
    fn the_clients_timeout_only_shortens() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(time(Verb::Get, None), Some(REQUEST));
        assert_eq!(time(Verb::Get, second), second);
        assert_eq!(time(Verb::Update, Some(REQUEST)), Some(WRITE));
        assert_eq!(time(Verb::Watch, second), None);
    }
}
