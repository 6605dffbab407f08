//! Events on their way to a backend, bounded by count and by bytes from the moment that they
//! are made until they were delivered or given up.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Bytes of the events of one backend.
pub const BYTES: usize = 16 * 1024 * 1024;
/// Of those that have bodies: who sends large ones does not have others' events dropped.
const WITH_BODIES: usize = BYTES / 4 * 3;

/// An event that is not queued yet.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub event: Bytes,
    /// Whether it has bodies.
    pub bodies: bool,
}

/// One that is.
#[derive(Debug)]
pub struct Queued {
    pub event: Bytes,
    /// Told whether it was delivered.
    pub told: Option<oneshot::Sender<bool>>,
    _room: Vec<OwnedSemaphorePermit>,
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
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
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
            places: Arc::new(Semaphore::new(capacity)),
            bytes: Arc::new(Semaphore::new(BYTES)),
            bodies: Arc::new(Semaphore::new(WITH_BODIES)),
        };
        (queue, incoming)
    }

    /// How many events are held.
    pub fn held(&self) -> usize {
        self.capacity - self.places.available_permits().min(self.capacity)
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
        let room = self.needs(encoded).into_iter().map(|(pool, permits)| {
            let permit = pool.clone().try_acquire_many_owned(permits);
            permit.map_err(|_| Refused::Full)
        });
        self.push(encoded, told, room.collect::<Result<_, _>>()?)
    }

    /// Takes an event as soon as there is room.
    ///
    /// # Errors
    /// When nobody takes events any more.
    pub async fn wait(
        &self,
        encoded: &Encoded,
        told: Option<oneshot::Sender<bool>>,
    ) -> Result<(), Refused> {
        let mut room = Vec::new();
        // Always in this order, so that nobody waits for who waits for them.
        for (pool, permits) in self.needs(encoded) {
            let permit = pool.clone().acquire_many_owned(permits).await;
            room.push(permit.map_err(|_| Refused::Closed)?);
        }
        self.push(encoded, told, room)
    }

    fn needs(&self, encoded: &Encoded) -> Vec<(&Arc<Semaphore>, u32)> {
        let most = |most: usize| encoded.event.len().min(most) as u32;
        let mut needs = vec![(&self.places, 1), (&self.bytes, most(BYTES))];
        if encoded.bodies {
            needs.push((&self.bodies, most(WITH_BODIES)));
        }
        needs
    }

    fn push(
        &self,
        encoded: &Encoded,
        told: Option<oneshot::Sender<bool>>,
        room: Vec<OwnedSemaphorePermit>,
    ) -> Result<(), Refused> {
        let queued = Queued {
            event: encoded.event.clone(),
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
    }

    /// Large bodies leave room for events that have none.
    #[test]
    fn events_are_bounded_by_bytes() {
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

    #[tokio::test]
    async fn who_waits_is_queued_when_there_is_room() {
        let (queue, mut incoming) = Queue::new(1);
        queue.offer(&encoded(1, false), None).unwrap();
        let event = encoded(2, true);
        let waiting = queue.wait(&event, None);
        let taking = async {
            tokio::task::yield_now().await;
            incoming.recv().await.map(|queued| queued.event.len())
        };
        let (queued, first) = tokio::join!(waiting, taking);
        assert_eq!((queued, first), (Ok(()), Some(1)));
        assert_eq!(incoming.recv().await.unwrap().event.len(), 2);
    }
}
