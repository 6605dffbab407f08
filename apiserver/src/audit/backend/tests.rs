use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::super::body::Meta;
use super::super::event::ObjectRef;
use super::super::event::tests::event;
use super::*;

/// Keeps what it gets, if it is neither dead nor stalled.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    events: Arc<Mutex<Vec<Value>>>,
    dead: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
}

impl Taken {
    pub(super) async fn deliver(&self, events: &[Bytes]) -> Result<(), String> {
        while self.stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.dead.load(Ordering::SeqCst) {
            return Err("it is dead".to_owned());
        }
        let events = events
            .iter()
            .map(|event| serde_json::from_slice(event).unwrap());
        self.events.lock().extend(events);
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.events.lock().len()
    }
}

pub(crate) struct Desk {
    pub(crate) backend: Arc<Backend>,
    pub(crate) worker: Worker,
    pub(crate) taken: Taken,
    pub(crate) metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Desk {
    /// What is queued, as long as nobody delivers it.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let queued = std::iter::from_fn(|| self.worker.incoming.try_recv().ok());
        let events = queued.map(|queued| serde_json::from_slice(&queued.event).unwrap());
        events.collect()
    }
}

pub(crate) fn desk(mode: Mode, capacity: usize, largest: Option<usize>) -> Desk {
    let (taken, metrics) = (Taken::default(), Arc::new(Metrics::new()));
    let pace = Pace {
        most: 2,
        bytes: 1_000_000,
        wait: Duration::from_secs(30) * u32::from(mode == Mode::Batch),
        throttle: None,
    };
    let target = Target::Test(taken.clone());
    let (backend, worker) = Backend::new((mode, largest), capacity, pace, target, metrics.clone());
    Desk {
        backend,
        worker,
        taken,
        metrics,
        stop: CancellationToken::new(),
    }
}

fn errors(metrics: &Metrics, plugin: &str) -> String {
    let text = metrics.encode().unwrap();
    let start = format!("apiserver_audit_error_total{{plugin=\"{plugin}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or("0").to_owned()
}

/// As a request of at most one mebibyte with a body.
fn large(bytes: usize) -> Event {
    let body = format!("{:?}", "x".repeat(bytes));
    let room = super::super::body::Room::default();
    Event {
        request_object: room
            .record(crate::decode::Media::Json, body.as_bytes(), true)
            .ok(),
        ..event()
    }
}

/// R9.12: whoever does not answer stops nobody, and what is lost is counted.
#[tokio::test(start_paused = true)]
async fn a_dead_webhook_does_not_slow_requests() {
    let Desk {
        backend,
        worker,
        taken,
        metrics,
        stop,
    } = desk(Mode::Batch, 5, None);
    taken.stalled.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let asking = async {
        for _ in 0..20 {
            assert!(backend.offer(&mut Forms::of(&event())).is_none());
            tokio::task::yield_now().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(errors(&metrics, BUFFERED), "15");
        // It comes back.
        taken.stalled.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(taken.count(), 5);
        assert!(backend.offer(&mut Forms::of(&event())).is_none());
        stop.cancel();
    };
    tokio::join!(worker.run(stop.clone()), asking);
    assert_eq!(taken.count(), 6);
    assert_eq!(errors(&metrics, BUFFERED), "15");
    // Nobody takes events any more.
    assert!(backend.offer(&mut Forms::of(&event())).is_none());
    assert_eq!(errors(&metrics, BUFFERED), "16");
}

/// R9.12: of large events it is said at least who did what.
#[tokio::test(start_paused = true)]
async fn large_events_lose_their_bodies_first() {
    let Desk {
        backend,
        worker,
        taken,
        metrics,
        stop,
    } = desk(Mode::Batch, 100, None);
    for _ in 0..10 {
        backend.offer(&mut Forms::of(&large(2_000_000)));
    }
    stop.cancel();
    worker.run(stop).await;
    assert_eq!(errors(&metrics, BUFFERED), "0");
    let events = taken.events.lock();
    let (whole, cut): (Vec<_>, Vec<_>) = events
        .iter()
        .partition(|event| event.get("requestObject").is_some());
    assert_eq!((whole.len(), cut.len()), (6, 4));
    for event in cut {
        assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    }
}

/// R9.12: truncate.
#[tokio::test(start_paused = true)]
async fn events_are_truncated_where_that_is_wanted() {
    let Desk {
        backend,
        worker,
        taken,
        metrics,
        stop,
    } = desk(Mode::Batch, 100, Some(500));
    let mut endless = event();
    endless.request_uri = "x".repeat(500);
    // What a creation says of itself is no body, and is cut.
    let mut created = event();
    let mut object = ObjectRef::default();
    object.complete(Meta {
        uid: Some("x".repeat(200 * 1024)),
        ..Meta::default()
    });
    created.object_ref = Some(object);
    for event in [large(10), large(1000), endless, created] {
        backend.offer(&mut Forms::of(&event));
    }
    stop.cancel();
    worker.run(stop).await;
    let events = taken.events.lock();
    let bodies = events
        .iter()
        .map(|event| event.get("requestObject").is_some());
    assert_eq!(bodies.collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(errors(&metrics, TRUNCATE), "1");
}

/// R9.12: blocking, and blocking-strict.
#[tokio::test(start_paused = true)]
async fn requests_wait_where_that_is_wanted() {
    for (mode, gone_past) in [(Mode::Blocking, true), (Mode::BlockingStrict, false)] {
        let Desk {
            backend,
            worker,
            taken,
            metrics,
            stop,
        } = desk(mode, 2, None);
        let event = event();
        let offer = || backend.offer(&mut Forms::of(&event)).unwrap();
        let asking = async {
            assert!(offer().await);
            assert_eq!(taken.count(), 1);
            taken.dead.store(true, Ordering::SeqCst);
            assert_eq!(offer().await, gone_past);
            assert_eq!(errors(&metrics, "test"), "1");
            taken.dead.store(false, Ordering::SeqCst);

            // Those for whom there is no room wait as well, in their turn.
            taken.stalled.store(true, Ordering::SeqCst);
            let four = futures::future::join_all((0..4).map(|_| offer()));
            let later = async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                taken.stalled.store(false, Ordering::SeqCst);
            };
            let (four, ()) = tokio::join!(four, later);
            assert_eq!((four, taken.count()), (vec![true; 4], 5));
            assert_eq!(errors(&metrics, BUFFERED), "0");

            // But not for ever; what was queued is on its way nevertheless.
            taken.stalled.store(true, Ordering::SeqCst);
            let began = Instant::now();
            let three = futures::future::join_all((0..3).map(|_| offer())).await;
            assert_eq!((three, began.elapsed()), (vec![gone_past; 3], PATIENCE));
            assert_eq!(errors(&metrics, BUFFERED), "1");
            // Nor is one forgotten for which nobody waits any more.
            drop(offer());
            assert_eq!(errors(&metrics, BUFFERED), "2");
            taken.stalled.store(false, Ordering::SeqCst);
            stop.cancel();
        };
        tokio::join!(worker.run(stop.clone()), asking);
        assert_eq!(taken.count(), 7);
        assert_eq!(offer().await, gone_past);
    }
}

/// R9.12: an event that waits for room is what it was when there is some; that of a caller
/// without credentials does not wait for it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_as_it_is() {
    let Desk {
        backend,
        worker,
        taken,
        metrics,
        stop,
    } = desk(Mode::Blocking, 1, Some(500));
    let (known, whole, cut) = (event(), large(10), large(1000));
    let mut nobody = event();
    nobody.user = Default::default();
    let mut offers: Vec<_> = [&known, &whole, &cut]
        .map(|event| backend.offer(&mut Forms::of(event)).unwrap())
        .into();
    for one in &mut offers {
        assert!(futures::poll!(one).is_pending());
    }
    let stranger = backend.offer(&mut Forms::of(&nobody)).unwrap();
    assert_eq!(stranger.now_or_never(), Some(true));
    assert_eq!(errors(&metrics, BUFFERED), "1");
    let asking = async {
        let delivered = futures::future::join_all(offers).await;
        assert_eq!(delivered, [true; 3]);
        stop.cancel();
    };
    tokio::join!(worker.run(stop.clone()), asking);
    let events = taken.events.lock();
    let bodies = events
        .iter()
        .map(|event| event.get("requestObject").is_some());
    assert_eq!(bodies.collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(errors(&metrics, BUFFERED), "1");
}

/// R9.7: the end does not wait for who does not answer.
#[tokio::test(start_paused = true)]
async fn the_end_takes_no_longer_than_it_may() {
    let Desk {
        backend,
        worker,
        taken,
        metrics,
        stop,
    } = desk(Mode::Batch, 10, None);
    taken.stalled.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        backend.offer(&mut Forms::of(&event()));
    }
    let began = Instant::now();
    stop.cancel();
    worker.run(stop).await;
    assert_eq!(began.elapsed(), FLUSH);
    assert_eq!(errors(&metrics, "test"), "3");
}
