//! The body of an answer that is made while it is sent: a list, or a watch. Its request is
//! complete when it ends: after its last frame, or, where it was said how many bytes it has,
//! before the frame with the last of them. HTTP/1.1 asks nothing more of a body then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Room;
use super::trail::Trail;
use crate::decode::Media;

/// See the module.
pub struct Recording {
    body: Body,
    /// Absent once the end is said.
    trail: Option<Trail>,
    copy: Option<Copy>,
    /// Bytes that are yet to come, where that is said.
    left: Option<u64>,
    /// The frame with the last of them, until the end is said.
    last: Option<Frame<Bytes>>,
    /// Is being polled: seen by nobody, unless that panics.
    polled: bool,
    end: End,
}

/// How far the end is.
enum End {
    Open,
    /// It is being said.
    Said(BoxFuture<'static, ()>),
    Ended,
}

/// What was sent so far, if it is to be in the event.
struct Copy {
    media: Media,
    room: Option<Room>,
    /// Absent where there is no room for all of it.
    kept: Option<(Vec<u8>, Vec<OwnedSemaphorePermit>)>,
}

impl Recording {
    /// A body that is copied if `media` says as what, of an answer with these headers.
    pub fn new(body: Body, trail: Trail, media: Option<Media>, headers: &HeaderMap) -> Self {
        let declared = headers.get(header::CONTENT_LENGTH);
        let copy = media.map(|media| Copy {
            media,
            room: trail.room(),
            kept: Some(Default::default()),
        });
        Recording {
            body,
            trail: Some(trail),
            copy,
            left: declared.and_then(|value| value.to_str().ok()?.parse().ok()),
            last: None,
            polled: false,
            end: End::Open,
        }
    }

    /// Takes a frame into account. True: it is the last one.
    fn add(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(data) = frame.data_ref() else {
            return false;
        };
        if let Some(copy) = &mut self.copy {
            copy.add(data);
        }
        let Some(left) = &mut self.left else {
            return false;
        };
        *left = left.saturating_sub(data.len() as u64);
        *left == 0
    }

    /// What says the end. `whole`: nothing is missing.
    fn ending(&mut self, whole: bool) -> BoxFuture<'static, ()> {
        let Some(mut trail) = self.trail.take() else {
            return std::future::ready(()).boxed();
        };
        if let Some(copy) = self.copy.take() {
            let body = copy.kept.filter(|_| whole).map(|(body, room)| {
                // The event takes room of its own.
                drop(room);
                body
            });
            trail.streamed(copy.media, body.as_deref());
        }
        trail.complete().boxed()
    }
}

impl Copy {
    fn add(&mut self, data: &Bytes) {
        let Some((body, rooms)) = &mut self.kept else {
            return;
        };
        let fits = body.len() + data.len() <= super::body::MOST;
        let room = self.room.as_ref().filter(|_| fits);
        match room.and_then(|room| room.take(data.len())) {
            Some(room) => {
                body.extend_from_slice(data);
                rooms.push(room);
            }
            None => self.kept = None,
        }
    }
}

impl http_body::Body for Recording {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            match &mut self.end {
                End::Ended => return Poll::Ready(None),
                End::Said(said) => {
                    ready!(said.poll_unpin(context));
                    self.end = End::Ended;
                    if let Some(last) = self.last.take() {
                        return Poll::Ready(Some(Ok(last)));
                    }
                }
                End::Open => {
                    self.polled = true;
                    let frame = Pin::new(&mut self.body).poll_frame(context);
                    self.polled = false;
                    match ready!(frame) {
                        None => self.end = End::Said(self.ending(true)),
                        Some(Err(error)) => {
                            self.end = End::Said(self.ending(false));
                            return Poll::Ready(Some(Err(error)));
                        }
                        Some(Ok(frame)) => {
                            if !self.add(&frame) {
                                return Poll::Ready(Some(Ok(frame)));
                            }
                            self.last = Some(frame);
                            self.end = End::Said(self.ending(true));
                        }
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What the trail says of itself when it is dropped is right but for these.
        if let Some(trail) = &mut self.trail {
            if let Some(copy) = self.copy.take() {
                trail.streamed(copy.media, None);
            }
            if self.polled {
                trail.panicked("the answer was aborted");
            }
        }
    }
}
