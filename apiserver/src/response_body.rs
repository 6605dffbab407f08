//! The body of an answer, held by two guards: a gauge that counts it as open, and a
//! catch for panics, which would otherwise end every stream of the connection (R2.4).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

use crate::limits::Slot;
use crate::metrics::Held;

/// See the module.
#[derive(Debug)]
pub struct ResponseBody {
    body: Body,
    ended: bool,
    _held: Option<(Held, Slot)>,
    _place: storage::Held,
}

impl ResponseBody {
    /// A body with what a watch holds, and the place of any other request.
    pub fn new(body: Body, held: Option<(Held, Slot)>, place: storage::Held) -> Self {
        ResponseBody {
            body,
            ended: false,
            _held: held,
            _place: place,
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let body = Pin::new(&mut self.body);
        match catch_unwind(AssertUnwindSafe(|| body.poll_frame(context))) {
            Ok(frame) => {
                // Streams may panic when they are asked after their end.
                self.ended = matches!(frame, Poll::Ready(None));
                frame
            }
            Err(_) => {
                tracing::error!("an answer panicked after it had begun");
                self.ended = true;
                Poll::Ready(Some(Err(axum::Error::new("the answer was aborted"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::BodyExt;

    use super::*;

    /// R2.4.
    #[tokio::test]
    async fn a_panic_in_a_stream_ends_that_stream_only() {
        let frames = futures::stream::iter([1, 2]).map(|n| {
            assert!(n < 2, "a bug");
            Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
        });
        let body = Body::from_stream(frames);
        let error = ResponseBody::new(body, None, Default::default())
            .collect()
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the answer was aborted");
    }
}
