//! How much at once: requests in flight (R9.1), time (R9.4), size of a body (R4.12).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authn::Identity;
use crate::status::Failure;
use crate::target::Verb;

/// The largest body that is read, in bytes.
pub const BODY: usize = 3 * 1024 * 1024;
/// The deadline of a request that is not a watch.
pub const REQUEST: Duration = Duration::from_secs(60);
/// The deadline of a write; its outcome is unknown to the client after that.
pub const WRITE: Duration = Duration::from_secs(34);
/// A client that sends its body slower than this is cut off.
pub const HEADER_READ: Duration = Duration::from_secs(32);

/// Requests in flight, reads and writes apart. Watches count until they start.
#[derive(Clone, Debug)]
pub struct Limits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

/// A request's place; given back when it is dropped.
#[derive(Debug)]
pub struct Slot(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Limits {
    pub fn new(reads: usize, writes: usize) -> Self {
        Limits {
            reads: Arc::new(Semaphore::new(reads)),
            writes: Arc::new(Semaphore::new(writes)),
        }
    }

    /// A place for a request. Members of system:masters are not counted, so that an
    /// administrator can always look.
    ///
    /// # Errors
    /// 429 when there is none; nothing waits.
    pub fn enter(&self, identity: &Identity, verb: Verb) -> Result<Slot, Failure> {
        if identity
            .groups
            .iter()
            .any(|group| group == "system:masters")
        {
            return Ok(Slot(None));
        }
        let places = if verb.is_mutating() {
            &self.writes
        } else {
            &self.reads
        };
        match places.clone().try_acquire_owned() {
            Ok(permit) => Ok(Slot(Some(permit))),
            Err(_) => Err(Failure::TooManyRequests {
                message: "Too many requests, please try again later.".to_owned(),
                retry_after: 1,
            }),
        }
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

/// Reads a whole body of at most [`BODY`] bytes.
///
/// # Errors
/// 413 for a larger one; 400 if the client stops in the middle.
pub async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Failure::TooLarge(format!("limit is {BODY}")))
        }
        Err(error) => Err(Failure::BadRequest(format!("reading the body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn member(group: &str) -> Identity {
        Identity {
            user: "u".to_owned(),
            uid: None,
            groups: vec![group.to_owned()],
            extra: Default::default(),
        }
    }

    #[test]
    fn places_are_given_back_and_masters_need_none() {
        let limits = Limits::new(1, 1);
        let first = limits.enter(&member("a"), Verb::Get).unwrap();
        let refused = limits.enter(&member("a"), Verb::List).unwrap_err();
        assert_eq!(refused.retry_after(), Some(1));
        limits.enter(&member("a"), Verb::Create).unwrap();
        limits.enter(&member("system:masters"), Verb::Get).unwrap();
        drop(first);
        limits.enter(&member("a"), Verb::Watch).unwrap();
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        assert_eq!(
            read(Body::from(vec![b'x'; BODY])).await.unwrap().len(),
            BODY
        );
        let failure = read(Body::from(vec![b'x'; BODY + 1])).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Request entity too large: limit is 3145728"
        );
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
