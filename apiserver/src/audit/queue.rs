//! Events on their way to a backend, bounded by count and by bytes from the moment that they
//! are made until they were delivered or given up.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Bytes of the events of one backend.
pub const BYTES: usize = 16 * 1024 * 1024;
/// Of those that have bodies: who sends large ones does not have others' events dropped.
const WITH_BODIES: usize = BYTES / 4 * 3;
/// Of those of callers without credentials, whom nothing else holds back.
const OF_STRANGERS: usize = BYTES / 8;
/// Their part of the places.
const STRANGERS: usize = 4;

/// An event that is not queued yet.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub event: Bytes,
    /// Whether it has bodies.
    pub bodies: bool,
    /// Whether it is of a caller without credentials.
    pub stranger: bool,
}

impl Encoded {
    pub fn need(&self) -> Need {
        Need {
            bytes: self.event.len(),
            bodies: self.bodies,
            stranger: self.stranger,
        }
    }
}

/// What an event needs room for: whoever waits for it does not keep the event as well.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    bytes: usize,
    bodies: bool,
    stranger: bool,
}

/// Room for one event.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub struct Room {
    _permits: Vec<OwnedSemaphorePermit>,
}

/// One that is.
#[derive(Debug)]
pub struct Queued {
    pub event: Bytes,
    /// Told whether it was delivered.
    pub told: Option<oneshot::Sender<bool>>,
    _room: Room,
}

/// Why an event is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("audit buffer queue blocked")]
    Full,
    #[error("audit backend shut down")]
    Closed,
}

/// The end at which events come in.
#[derive(Debug)]
pub struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    capacity: usize,
    all: Share,
    bodies: Arc<Semaphore>,
    strangers: Share,
}

/// Events and bytes of them.
#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Share {
    fn new(places: usize, bytes: usize) -> Self {
        Share {
            places: Arc::new(Semaphore::new(places)),
            bytes: Arc::new(Semaphore::new(bytes)),
        }
    }
}

/// The other end.
pub type Incoming = mpsc::UnboundedReceiver<Queued>;

impl Queue {
    /// A queue of so many events at most.
    pub fn new(capacity: usize) -> (Self, Incoming) {
        let capacity = capacity.min(Semaphore::MAX_PERMITS);
        let (sender, incoming) = mpsc::unbounded_channel();
        let queue = Queue {
            sender,
            capacity,
            all: Share::new(capacity, BYTES),
            bodies: Arc::new(Semaphore::new(WITH_BODIES)),
            strangers: Share::new((capacity / STRANGERS).max(1), OF_STRANGERS),
        };
        (queue, incoming)
    }

    /// How many events are held.
    pub fn held(&self) -> usize {
        self.capacity - self.all.places.available_permits().min(self.capacity)
    }

    /// Takes an event at once.
    ///
    /// # Errors
    /// When there is no room, or nobody takes events any more.
    pub fn offer(
        &self,
        encoded: &Encoded,
        told: Option<oneshot::Sender<bool>>,
    ) -> Result<(), Refused> {
        let room = self
            .needs(encoded.need())
            .into_iter()
            .map(|(pool, permits)| {
                let permit = pool.clone().try_acquire_many_owned(permits);
                permit.map_err(|_| Refused::Full)
            });
        let room = Room {
            _permits: room.collect::<Result<_, _>>()?,
        };
        self.push(encoded.event.clone(), told, room)
    }

    /// Waits for room.
    ///
    /// # Errors
    /// When nobody takes events any more.
    pub async fn room(&self, need: Need) -> Result<Room, Refused> {
        let mut room = Vec::new();
        // Always in this order, so that nobody waits for who waits for them.
        for (pool, permits) in self.needs(need) {
            let permit = pool.clone().acquire_many_owned(permits).await;
            room.push(permit.map_err(|_| Refused::Closed)?);
        }
        Ok(Room { _permits: room })
    }

    /// The shares first: who waits for one of them holds nothing of what is everybody's.
    fn needs(&self, need: Need) -> Vec<(&Arc<Semaphore>, u32)> {
        let most = |most: usize| need.bytes.min(most) as u32;
        let mut needs = Vec::new();
        if need.stranger {
            needs.push((&self.strangers.places, 1));
            needs.push((&self.strangers.bytes, most(OF_STRANGERS)));
        }
        if need.bodies {
            needs.push((&self.bodies, most(WITH_BODIES)));
        }
        needs.extend([(&self.all.places, 1), (&self.all.bytes, most(BYTES))]);
        needs
    }

    /// Takes an event for which there is room.
    ///
    /// # Errors
    /// When nobody takes events any more.
    pub fn push(
        &self,
        event: Bytes,
        told: Option<oneshot::Sender<bool>>,
        room: Room,
    ) -> Result<(), Refused> {
        let queued = Queued {
            event,
            told,
            _room: room,
        };
        self.sender.send(queued).map_err(|_| Refused::Closed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn encoded(bytes: usize, bodies: bool) -> Encoded {
        Encoded {
            event: vec![b'x'; bytes].into(),
            bodies,
            stranger: false,
        }
    }

    fn of_stranger(bytes: usize) -> Encoded {
        Encoded {
            stranger: true,
            ..encoded(bytes, false)
        }
    }

    #[test]
    fn events_are_bounded_by_count() {
        let (queue, mut incoming) = Queue::new(3);
        for n in 1..=3 {
            assert_eq!(queue.offer(&encoded(10, false), None), Ok(()));
            assert_eq!(queue.held(), n);
        }
        assert_eq!(queue.offer(&encoded(10, false), None), Err(Refused::Full));
        // As long as it is on its way, its place is taken.
        let first = incoming.try_recv().unwrap();
        assert_eq!(queue.offer(&encoded(10, false), None), Err(Refused::Full));
        drop(first);
        assert_eq!(queue.offer(&encoded(10, false), None), Ok(()));
        drop(incoming);
        assert_eq!(queue.held(), 0);
        assert_eq!(queue.offer(&encoded(10, false), None), Err(Refused::Closed));
        // Callers without credentials have a part of the places.
        let (queue, _incoming) = Queue::new(40);
        let offers = std::iter::from_fn(|| queue.offer(&of_stranger(10), None).ok());
        assert_eq!(offers.count(), 10);
        assert_eq!(queue.offer(&encoded(10, false), None), Ok(()));
    }

    /// Large bodies leave room for events that have none, and callers without credentials for
    /// those who have some.
    #[test]
    fn events_are_bounded_by_bytes() {
        let (queue, _incoming) = Queue::new(10_000);
        let large = of_stranger(60 * 1024);
        let offers = std::iter::from_fn(|| queue.offer(&large, None).ok()).take(1000);
        assert_eq!(offers.count(), OF_STRANGERS / (60 * 1024));
        let rest = BYTES - OF_STRANGERS - WITH_BODIES;
        assert_eq!(queue.offer(&encoded(WITH_BODIES, true), None), Ok(()));
        assert_eq!(queue.offer(&encoded(rest, false), None), Ok(()));
        let (queue, _incoming) = Queue::new(10_000);
        let mebibyte = 1024 * 1024;
        let fill = |bodies| {
            let offers = std::iter::from_fn(|| queue.offer(&encoded(mebibyte, bodies), None).ok());
            offers.count() * mebibyte
        };
        assert_eq!(fill(true), WITH_BODIES);
        assert_eq!(fill(false), BYTES - WITH_BODIES);
        assert_eq!(queue.held() * mebibyte, BYTES);
        // One that is larger than all the room there is takes all of it.
        let (queue, mut incoming) = Queue::new(10_000);
        assert_eq!(queue.offer(&encoded(2 * BYTES, true), None), Ok(()));
        assert_eq!(queue.offer(&encoded(1, false), None), Err(Refused::Full));
        drop(incoming.try_recv());
        assert_eq!(queue.offer(&encoded(1, true), None), Ok(()));
    }

    /// Whoever waits for a share of their own takes nothing of what is everybody's.
    #[tokio::test]
    async fn strangers_who_wait_are_in_nobodys_way() {
        let (queue, _incoming) = Queue::new(8);
        for _ in 0..2 {
            queue.offer(&of_stranger(1), None).unwrap();
        }
        let need = of_stranger(1).need();
        let mut waiting: Vec<_> = (0..6).map(|_| Box::pin(queue.room(need))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one.as_mut()).is_pending());
        }
        assert_eq!(queue.held(), 2);
        for _ in 0..6 {
            assert_eq!(queue.offer(&encoded(1, false), None), Ok(()));
        }
    }

    #[tokio::test]
    async fn who_waits_is_queued_when_there_is_room() {
        let (queue, mut incoming) = Queue::new(1);
        queue.offer(&encoded(1, false), None).unwrap();
        let event = encoded(2, true);
        let waiting = async {
            let room = queue.room(event.need()).await?;
            queue.push(event.event.clone(), None, room)
        };
        let taking = async {
            tokio::task::yield_now().await;
            incoming.recv().await.map(|queued| queued.event.len())
        };
        let (queued, first) = tokio::join!(waiting, taking);
        assert_eq!((queued, first), (Ok(()), Some(1)));
        assert_eq!(incoming.recv().await.unwrap().event.len(), 2);
    }
}
