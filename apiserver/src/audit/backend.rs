//! To whom events go, and whether anybody waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batches, Pace};
use super::event::Event;
use super::log::Log;
use super::queue::{Encoded, Incoming, Queue, Queued, Refused};
use super::webhook::Webhook;
use crate::metrics::Metrics;

/// How long a request waits for its event.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what is left may take at the end of the process. It fits, with the time that
/// connections have, in the `terminationGracePeriodSeconds` of the chart.
pub const FLUSH: Duration = Duration::from_secs(10);
/// Between two lines of the log about events that are lost.
const QUIET: Duration = Duration::from_secs(10);
/// Names of what loses events, in metrics (R9.12).
pub const BUFFERED: &str = "buffered";
pub const TRUNCATE: &str = "truncate";

/// Whether requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// For nothing: what there is no room for is dropped and counted.
    Batch,
    /// Until the event was delivered, or could not be.
    Blocking,
    /// The same, and a request whose first event could not be is refused.
    BlockingStrict,
}

/// Who delivers events.
#[derive(Debug)]
pub enum Target {
    Log(Log),
    Webhook(Webhook),
    #[cfg(test)]
    Test(tests::Taken),
}

/// The end at which events come in. See the module.
pub struct Backend {
    mode: Mode,
    /// Bytes of the largest event, where they are limited.
    largest: Option<usize>,
    queue: Queue,
    losses: Arc<Losses>,
}

/// The task behind it.
pub struct Worker {
    backend: Arc<Backend>,
    incoming: Incoming,
    pace: Pace,
    target: Target,
}

/// Counts what is lost, and says so from time to time.
pub struct Losses {
    metrics: Arc<Metrics>,
    /// When it was said last, and how many there were since.
    said: Mutex<(Option<Instant>, usize)>,
}

/// An event in the forms that backends take. Made when the first asks.
#[derive(Debug)]
pub struct Forms<'a> {
    event: &'a Event,
    whole: Option<Encoded>,
    truncated: Option<Encoded>,
}

/// Whether an event was delivered, once that is known. It is encoded anew for whoever had to
/// wait for room.
pub type Delivered<'a> = BoxFuture<'a, bool>;

/// Which form of an event.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    Truncated,
}

impl Backend {
    /// A backend that holds `capacity` events at most.
    pub fn new(
        (mode, largest): (Mode, Option<usize>),
        capacity: usize,
        pace: Pace,
        target: Target,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, Worker) {
        let (queue, incoming) = Queue::new(capacity);
        let losses = Losses {
            metrics,
            said: Mutex::new((None, 0)),
        };
        let backend = Arc::new(Backend {
            mode,
            largest,
            queue,
            losses: Arc::new(losses),
        });
        let worker = Worker {
            backend: backend.clone(),
            incoming,
            pace,
            target,
        };
        (backend, worker)
    }

    /// Whether requests wait for it.
    pub fn is_blocking(&self) -> bool {
        self.mode != Mode::Batch
    }

    /// Hands an event over. If the request waits for it, here is for what; whoever drops that
    /// takes back what is not queued yet. Whoever waits for room holds no copy of the event;
    /// callers without credentials do not wait for it.
    pub fn offer<'e>(self: &Arc<Self>, forms: &mut Forms<'e>) -> Option<Delivered<'e>> {
        let form = self.fitting(forms)?;
        if !self.is_blocking() {
            self.leave(forms, form);
            return None;
        }
        let strict = self.mode == Mode::BlockingStrict;
        let (told, delivered) = oneshot::channel();
        let encoded = forms.encoded(form);
        let need = encoded.need();
        let queued = self.queue.offer(encoded, Some(told));
        let waits = queued == Err(Refused::Full) && !encoded.stranger;
        if let (Err(why), false) = (queued, waits) {
            self.lose(why);
            return Some(std::future::ready(!strict).boxed());
        }
        let event = forms.event;
        let mut unqueued = Unqueued(waits.then(|| self.clone()));
        let waiting = async move {
            let mut delivered = delivered;
            if let Some(backend) = &unqueued.0 {
                let room = backend.queue.room(need).await.ok()?;
                let (told, later) = oneshot::channel();
                let encoded = Forms::of(event).encoded(form).event.clone();
                backend.queue.push(encoded, Some(told), room).ok()?;
                unqueued.is_queued();
                delivered = later;
            }
            delivered.await.ok()
        };
        let waiting = tokio::time::timeout(PATIENCE, waiting);
        let ended = move |done: Result<Option<bool>, _>| !strict || done == Ok(Some(true));
        Some(waiting.map(ended).boxed())
    }

    /// Hands an event over for which nobody waits. False: it is lost, and must not be.
    pub fn let_go(&self, forms: &mut Forms<'_>) -> bool {
        let queued = self.fitting(forms).map(|form| self.leave(forms, form));
        queued != Some(false) || self.mode != Mode::BlockingStrict
    }

    /// Whether it is queued.
    fn leave(&self, forms: &mut Forms<'_>, form: Form) -> bool {
        let encoded = forms.encoded(form);
        let bodies = encoded.bodies;
        let mut queued = self.queue.offer(encoded, None);
        if queued == Err(Refused::Full) && bodies {
            // Who did what is said in any case.
            queued = self.queue.offer(forms.encoded(Form::Truncated), None);
        }
        queued.map_err(|why| self.lose(why)).is_ok()
    }

    /// The form in which this backend may have the event.
    fn fitting(&self, forms: &mut Forms<'_>) -> Option<Form> {
        let Some(largest) = self.largest else {
            return Some(Form::Whole);
        };
        let mut both = [Form::Whole, Form::Truncated].into_iter();
        let fits = both.find(|form| forms.encoded(*form).event.len() <= largest);
        if fits.is_some() {
            return fits;
        }
        let why = "event is too large even after truncating";
        self.losses.count(TRUNCATE, 1, why);
        None
    }

    fn lose(&self, why: Refused) {
        self.losses.count(BUFFERED, 1, &why.to_string());
    }
}

/// Of whom the event is that waits for room: lost, if nobody waits any more.
struct Unqueued(Option<Arc<Backend>>);

impl Unqueued {
    fn is_queued(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unqueued {
    fn drop(&mut self) {
        if let Some(backend) = &self.0 {
            backend.lose(Refused::Full);
        }
    }
}

impl<'a> Forms<'a> {
    pub fn of(event: &'a Event) -> Self {
        Forms {
            event,
            whole: None,
            truncated: None,
        }
    }

    fn encoded(&mut self, form: Form) -> &Encoded {
        match form {
            Form::Whole => self.whole(),
            Form::Truncated => self.truncated(),
        }
    }

    fn whole(&mut self) -> &Encoded {
        self.whole.get_or_insert_with(|| Encoded {
            event: self.event.encode(),
            bodies: self.event.has_bodies(),
            stranger: self.event.user.is_stranger(),
        })
    }

    fn truncated(&mut self) -> &Encoded {
        self.truncated.get_or_insert_with(|| Encoded {
            event: match self.event.has_bodies() {
                true => self.event.truncated().encode(),
                false => self.event.encode(),
            },
            bodies: false,
            stranger: self.event.user.is_stranger(),
        })
    }
}

impl Losses {
    /// Counts events that `plugin` could not deliver.
    pub fn count(&self, plugin: &'static str, events: usize, why: &str) {
        self.metrics.audit_failed(plugin, events);
        let mut said = self.said.lock();
        said.1 += events;
        if said.0.is_none_or(|at| at.elapsed() >= QUIET) {
            tracing::error!(plugin, events = said.1, why, "audit events are lost");
            *said = (Some(Instant::now()), 0);
        }
    }
}

impl Worker {
    /// Delivers until it is stopped, and then what is left, for [`FLUSH`] at most.
    pub async fn run(self, stop: CancellationToken) {
        let Worker {
            backend,
            incoming,
            pace,
            target,
        } = self;
        let batches = Batches::new(incoming, pace, stop.clone());
        let batches = stream::unfold(batches, |mut batches| async move {
            let batch = batches.next().await?;
            Some((batch, batches))
        });
        let delivering = batches.for_each_concurrent(target.at_once(), |batch| {
            deliver(&target, batch, &backend.losses, &stop)
        });
        let end = async {
            stop.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        let mut delivering = std::pin::pin!(delivering);
        tokio::select! {
            () = delivering.as_mut() => {}
            // What is on its way is held until it was counted.
            () = end => {
                let (left, plugin) = (backend.queue.held(), target.plugin());
                backend.losses.count(plugin, left, "the time of the end is over");
            }
        }
    }
}

async fn deliver(target: &Target, batch: Vec<Queued>, losses: &Losses, stop: &CancellationToken) {
    let events: Vec<Bytes> = batch.iter().map(|queued| queued.event.clone()).collect();
    let result = target.deliver(&events, stop).await;
    if let Err(why) = &result {
        losses.count(target.plugin(), events.len(), why);
    }
    for queued in batch {
        if let Some(told) = queued.told {
            // Whoever waited may have left.
            let _ = told.send(result.is_ok());
        }
    }
}

impl Target {
    /// Its name in metrics.
    fn plugin(&self) -> &'static str {
        match self {
            Target::Log(_) => "log",
            Target::Webhook(_) => "webhook",
            #[cfg(test)]
            Target::Test(_) => "test",
        }
    }

    /// Batches on their way at a time.
    fn at_once(&self) -> usize {
        match self {
            Target::Log(_) => 1,
            Target::Webhook(_) => super::webhook::AT_ONCE,
            #[cfg(test)]
            Target::Test(_) => 2,
        }
    }

    async fn deliver(&self, events: &[Bytes], stop: &CancellationToken) -> Result<(), String> {
        match self {
            Target::Log(log) => log.write(events).await,
            Target::Webhook(webhook) => webhook.send(events, stop).await,
            #[cfg(test)]
            Target::Test(taken) => taken.deliver(events).await,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
