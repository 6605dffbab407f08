//! How much at once: requests in flight (R9.1), time (R9.4), size of a body (R4.12), and
//! that none of it is one caller's alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::authn::Identity;
use crate::pool::{Hold, Pool};
use crate::status::Failure;
use crate::target::{Target, Verb};

mod room;
#[cfg(test)]
mod tests;

pub use room::Room;
pub(crate) use room::{STORED, WORK};

/// The deadline of a request that is not a watch.
pub const REQUEST: Duration = Duration::from_secs(60);
/// The deadline of a write; its outcome is unknown to the client after that.
pub const WRITE: Duration = Duration::from_secs(34);
/// A client that takes longer to send its headers is cut off (HTTP/1).
pub const HEADER_READ: Duration = Duration::from_secs(32);

/// Watches that are open.
pub(crate) const WATCHES: usize = 2_000;
/// Requests whose bodies are awaited. They hold no other place, and have headers.
pub(crate) const BODIES: usize = 400;
/// Questions to the cluster about callers' rights.
pub(crate) const QUESTIONS: usize = 200;
/// Requests that wait for the audit log, and those among them of callers without
/// credentials, beside the former. Whoever has another place needs none.
pub(crate) const LOGGED: usize = 400;
pub(crate) const LOGGED_STRANGERS: usize = 100;
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
    /// Requests that wait for the audit log.
    logged: Pool,
    logged_strangers: Pool,
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
            logged: Pool::places(LOGGED),
            logged_strangers: Pool::places(LOGGED_STRANGERS),
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

    /// A place for a request that waits for the audit log.
    ///
    /// # Errors
    /// 429 when the caller has its share of them.
    pub fn log(&self, identity: &Identity) -> Result<Slot, Failure> {
        match self.is_exempt(identity) {
            true => Ok(None),
            false => self.logged.enter(holder(identity)).map(Some),
        }
    }

    /// The same for a caller without credentials, by where it comes from.
    ///
    /// # Errors
    /// 429 when others from there have their share of them.
    pub fn log_from(&self, source: &str) -> Result<Slot, Failure> {
        self.logged_strangers.enter(source).map(Some)
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

    /// [`Limits::head`] while it is not known who asks.
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
