//! Batches of events: full, or as old as they may become, and at a pace.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Incoming, Queued};

/// How events are put together. Names and defaults of its parts are Kubernetes'.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Events of a batch.
    pub most: usize,
    /// Bytes of a batch, or one event.
    pub bytes: usize,
    /// How long the first event of a batch waits for more; zero: for nothing that is not
    /// there yet.
    pub wait: Duration,
    /// Batches a second, and as many at once as were not sent before.
    pub throttle: Option<(f64, f64)>,
}

/// Makes batches until it is stopped, and then of what is left.
#[derive(Debug)]
pub struct Batches {
    incoming: Incoming,
    pace: Pace,
    tokens: Option<Tokens>,
    /// What did not fit into the last batch.
    left: Option<Queued>,
    stop: CancellationToken,
}

impl Batches {
    pub fn new(incoming: Incoming, pace: Pace, stop: CancellationToken) -> Self {
        Batches {
            incoming,
            tokens: pace.throttle.map(Tokens::new),
            pace,
            left: None,
            stop,
        }
    }

    /// The next one. After the stop, what was queued before comes without delay; then
    /// nothing.
    pub async fn next(&mut self) -> Option<Vec<Queued>> {
        let first = match self.left.take() {
            Some(left) => left,
            None => self.first().await?,
        };
        let until = Instant::now() + self.pace.wait;
        let mut bytes = first.event.len();
        let mut batch = vec![first];
        while batch.len() < self.pace.most && bytes < self.pace.bytes {
            let Some(next) = self.more(until).await else {
                break;
            };
            if bytes + next.event.len() > self.pace.bytes {
                self.left = Some(next);
                break;
            }
            bytes += next.event.len();
            batch.push(next);
        }
        if let Some(tokens) = &mut self.tokens {
            let delay = tokens.take(Instant::now());
            self.stop
                .run_until_cancelled(tokio::time::sleep(delay))
                .await;
        }
        Some(batch)
    }

    async fn first(&mut self) -> Option<Queued> {
        if !self.stop.is_cancelled() {
            tokio::select! {
                first = self.incoming.recv() => return first,
                () = self.stop.cancelled() => {}
            }
        }
        // Nothing more comes; what has come is taken.
        self.incoming.close();
        self.incoming.recv().await
    }

    async fn more(&mut self, until: Instant) -> Option<Queued> {
        if let Ok(next) = self.incoming.try_recv() {
            return Some(next);
        }
        if self.pace.wait.is_zero() || self.stop.is_cancelled() {
            return None;
        }
        tokio::select! {
            next = self.incoming.recv() => next,
            () = tokio::time::sleep_until(until) => None,
            () = self.stop.cancelled() => self.incoming.try_recv().ok(),
        }
    }
}

/// A bucket of tokens: one for each batch.
#[derive(Debug)]
struct Tokens {
    per_second: f64,
    most: f64,
    there: f64,
    at: Instant,
}

impl Tokens {
    fn new((per_second, most): (f64, f64)) -> Self {
        Tokens {
            per_second,
            most,
            there: most,
            at: Instant::now(),
        }
    }

    /// Takes one, and says how long it is until there is one.
    fn take(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.there = (self.there + since * self.per_second).min(self.most) - 1.0;
        self.at = now;
        Duration::try_from_secs_f64(-self.there / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Queue;
    use super::super::queue::tests::encoded;
    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn pace() -> Pace {
        Pace {
            most: 4,
            bytes: 1000,
            wait: WAIT,
            throttle: None,
        }
    }

    fn batches(pace: Pace) -> (Queue, Batches, CancellationToken) {
        let (queue, incoming) = Queue::new(1000);
        let stop = CancellationToken::new();
        (queue, Batches::new(incoming, pace, stop.clone()), stop)
    }

    fn offer(queue: &Queue, sizes: &[usize]) {
        for size in sizes {
            queue.offer(&encoded(*size, false), None).unwrap();
        }
    }

    async fn sizes(batches: &mut Batches) -> Vec<usize> {
        let batch = batches.next().await.unwrap_or_default();
        batch.iter().map(|queued| queued.event.len()).collect()
    }

    /// R9.12.
    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_when_it_is_full_or_old() {
        let (queue, mut batches, _stop) = batches(pace());
        let began = Instant::now();
        offer(&queue, &[1, 2, 3, 4, 5, 600, 500, 2000, 1]);
        assert_eq!(sizes(&mut batches).await, [1, 2, 3, 4]);
        assert_eq!(sizes(&mut batches).await, [5, 600]);
        assert_eq!(sizes(&mut batches).await, [500]);
        assert_eq!(sizes(&mut batches).await, [2000]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(sizes(&mut batches).await, [1]);
        assert_eq!(began.elapsed(), WAIT);
    }

    /// R9.12: who waits for what was written waits for nothing else.
    #[tokio::test(start_paused = true)]
    async fn without_a_wait_what_is_there_is_taken() {
        let pace = Pace {
            wait: Duration::ZERO,
            ..pace()
        };
        let (queue, mut batches, _stop) = batches(pace);
        let began = Instant::now();
        offer(&queue, &[1, 2]);
        assert_eq!(sizes(&mut batches).await, [1, 2]);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// R9.7, R9.12: what was queued before the end is not lost.
    #[tokio::test(start_paused = true)]
    async fn at_the_end_comes_what_is_left_and_nothing_waits() {
        let slow = Pace {
            throttle: Some((0.001, 1.0)),
            ..pace()
        };
        let (queue, mut batches, stop) = batches(slow);
        let began = Instant::now();
        offer(&queue, &[1, 2, 3, 4, 5, 6]);
        stop.cancel();
        assert_eq!(sizes(&mut batches).await, [1, 2, 3, 4]);
        assert_eq!(sizes(&mut batches).await, [5, 6]);
        assert!(batches.next().await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(queue.offer(&encoded(1, false), None).is_err());
    }

    /// R9.12: the stop is heard while a batch waits for more.
    #[tokio::test(start_paused = true)]
    async fn a_batch_that_waits_hears_of_the_end() {
        let (queue, mut batches, stop) = batches(pace());
        let began = Instant::now();
        offer(&queue, &[1]);
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
        };
        let (batch, ()) = tokio::join!(sizes(&mut batches), later);
        assert_eq!((batch, began.elapsed().as_secs()), (vec![1], 1));
        assert!(batches.next().await.is_none());
    }

    /// R9.12.
    #[tokio::test(start_paused = true)]
    async fn batches_keep_their_pace() {
        let quick = Pace {
            most: 1,
            throttle: Some((10.0, 15.0)),
            ..pace()
        };
        let (queue, mut batches, _stop) = batches(quick);
        let began = Instant::now();
        offer(&queue, &[1; 36]);
        for _ in 0..15 {
            sizes(&mut batches).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            sizes(&mut batches).await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((1.9..2.2).contains(&took), "{took}");
    }
}
