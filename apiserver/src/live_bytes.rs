//! How many bytes of objects and answers are alive, and how many of them are more than
//! what the cache holds.
//!
//! # Flow
//! The bytes of an object are counted from when it is encoded until the last that uses
//! them lets go ([`Live::count`]); so is what an answer holds of its own
//! ([`Live::hold`]). The cache says how many of them it holds itself ([`Live::held`]).
//! The rest is kept by answers that clients have not taken: states that were replaced
//! since, frames of watches, pieces of lists. When that is too much, some of these
//! answers are let go of (`sending.rs`), for which each says what it keeps ([`Kept`]): what
//! was made for it carries its mark ([`Own::mark`]), wherever it is on its way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that answers may keep alive, beside what the cache holds.
pub(crate) const SPARE: usize = 64 * 1024 * 1024;

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    held: AtomicUsize,
    spare: usize,
    exceeded: Notify,
}

/// How many bytes of objects an answer keeps alive that the cache does not hold as well.
/// Clones share it. An extension of the response.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Keeping>);

#[derive(Debug, Default)]
struct Keeping {
    bytes: usize,
    own: Own,
    /// Of the body, and gone with it.
    rest: Option<Weak<dyn Keeps>>,
}

/// What an answer has not sent yet, beside what was made for it.
pub trait Keeps: Send + Sync {
    /// The bytes of it that are alive because of the answer, and not because of the cache.
    fn bytes(&self) -> usize;
}

/// Bytes that one answer keeps alive, wherever they are: in a queue, in a compressor, or
/// taken in part. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Own(Arc<AtomicUsize>);

struct Marked {
    bytes: Bytes,
    own: Own,
}

impl Own {
    /// The same bytes, which are this answer's until the last clone and slice of them is
    /// dropped.
    pub fn mark(&self, bytes: Bytes) -> Bytes {
        let own = self.clone();
        own.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Marked { bytes, own })
    }

    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsRef<[u8]> for Marked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.own.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Kept {
    /// So many.
    pub fn new(bytes: usize) -> Self {
        Kept(Arc::new(Keeping {
            bytes,
            ..Keeping::default()
        }))
    }

    /// What this says whenever it is asked, and what has this mark.
    pub fn of<K: Keeps + 'static>(rest: &Arc<K>, own: Own) -> Self {
        let rest: Weak<K> = Arc::downgrade(rest);
        Kept(Arc::new(Keeping {
            bytes: 0,
            own,
            rest: Some(rest),
        }))
    }

    fn rest(&self) -> Option<Arc<dyn Keeps>> {
        self.0.rest.as_ref()?.upgrade()
    }

    /// How many now.
    pub fn bytes(&self) -> usize {
        self.0.bytes + self.0.own.bytes() + self.rest().map_or(0, |rest| rest.bytes())
    }

    /// Whether what is on its way to the client is among them.
    pub fn has_what_was_sent(&self) -> bool {
        self.0.rest.is_some()
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Share {
    live: Live,
    bytes: usize,
}

struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for Live {
    fn default() -> Self {
        Live::new(SPARE)
    }
}

impl Live {
    /// Of which `spare` may be kept by answers.
    pub fn new(spare: usize) -> Self {
        Live(Arc::new(Shared {
            used: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            spare,
            exceeded: Notify::new(),
        }))
    }

    /// The same bytes, counted until the last clone and slice of them is dropped.
    pub fn count(&self, bytes: impl Into<Bytes>) -> Bytes {
        let bytes = bytes.into();
        let _share = self.hold(bytes.len());
        Bytes::from_owner(Counted { bytes, _share })
    }

    /// So many bytes more.
    pub fn hold(&self, bytes: usize) -> Share {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        let live = self.clone();
        if self.excess() > 0 {
            self.0.exceeded.notify_one();
        }
        Share { live, bytes }
    }

    /// How many of them the cache holds.
    pub fn held(&self, bytes: usize) {
        self.0.held.store(bytes, Ordering::Relaxed);
        if self.excess() > 0 {
            self.0.exceeded.notify_one();
        }
    }

    /// By how much answers keep too many.
    pub fn excess(&self) -> usize {
        let held = self.0.held.load(Ordering::Relaxed);
        let used = self.0.used.load(Ordering::Relaxed);
        used.saturating_sub(held).saturating_sub(self.0.spare)
    }

    /// Comes back when answers keep too many.
    pub async fn exceeded(&self) {
        while self.excess() == 0 {
            self.0.exceeded.notified().await;
        }
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.live.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_an_answers_until_the_last_slice_of_it_is_gone() {
        let (live, own) = (Live::new(10), Own::default());
        let whole = own.mark(live.count(vec![0; 8]));
        let slice = whole.slice(7..);
        let other = own.mark(live.count(vec![0; 3]));
        drop(whole);
        assert_eq!((own.bytes(), live.used()), (11, 11));
        drop(slice);
        assert_eq!((own.bytes(), live.used()), (3, 3));
        drop(other);
        assert_eq!((own.bytes(), live.used()), (0, 0));
    }

    #[tokio::test]
    async fn bytes_are_counted_until_the_last_slice_of_them_is_gone() {
        let live = Live::new(10);
        let whole = live.count(vec![0; 8]);
        assert_eq!((live.used(), live.excess()), (8, 0));
        let slice = whole.slice(2..3);
        let share = live.hold(7);
        assert_eq!((live.used(), live.excess()), (15, 5));
        live.exceeded().await;
        live.held(5);
        assert_eq!(live.excess(), 0);
        drop((whole, share));
        assert_eq!(live.used(), 8);
        drop(slice);
        assert_eq!(live.used(), 0);
    }
}
