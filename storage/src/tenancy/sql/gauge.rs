//! How big a server's databases are: asked rarely, and never in the way of anything else.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A tenant with thousands of tables makes the question last seconds.
const KNOWN_FOR: Duration = Duration::from_secs(120);

/// Remembers the last size.
#[derive(Default)]
pub struct Gauge(Mutex<Option<(Instant, u64)>>);

impl Gauge {
    /// Bytes, of late. Where they cannot be had now, those of before, or 0.
    pub async fn size<E>(&self, measure: impl Future<Output = Result<u64, E>>) -> u64 {
        let mut known = self.0.lock().await;
        let last = match *known {
            Some((since, size)) if since.elapsed() < KNOWN_FOR => return size,
            Some((_, size)) => size,
            None => 0,
        };
        let size = measure.await.unwrap_or(last);
        *known = Some((Instant::now(), size));
        size
    }
}

/// How long measuring may take, for one request's deadline.
pub fn patience(deadline: Duration) -> Duration {
    (deadline / 3).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asked_rarely_and_what_fails_changes_nothing() {
        let gauge = Gauge::default();
        let ask = async |answer: Result<u64, ()>| gauge.size(async move { answer }).await;
        let age = async || {
            let mut known = gauge.0.lock().await;
            let size = known.unwrap().1;
            *known = Some((Instant::now() - KNOWN_FOR, size));
        };
        assert_eq!(ask(Err(())).await, 0);
        assert_eq!(ask(Ok(1)).await, 0);
        age().await;
        assert_eq!(ask(Ok(2)).await, 2);
        assert_eq!(ask(Ok(3)).await, 2);
        age().await;
        assert_eq!(ask(Err(())).await, 2);
    }
}
