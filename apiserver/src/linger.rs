//! A connection whose last answer is heard, although its client has not finished.
//!
//! A socket that is closed while bytes of its client are unread is reset, and the client
//! may not see what was answered: `431` to headers that are too large, for instance.
//! So what still comes is read and dropped for a little while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long, at most.
const LINGER: Duration = Duration::from_millis(500);
/// And how many bytes.
const BYTES: usize = 4 * 1024 * 1024;

/// See the module.
pub struct Lingering<S> {
    stream: S,
    /// Since the end was said.
    ending: Option<Ending>,
}

struct Ending {
    late: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Lingering<S> {
    /// Of this stream.
    pub fn new(stream: S) -> Self {
        Lingering {
            stream,
            ending: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ending.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let ending = this.ending.get_or_insert_with(|| Ending {
            late: Box::pin(tokio::time::sleep(LINGER)),
            bytes: 0,
        });
        let mut scratch = [0; 8 * 1024];
        while ending.bytes < BYTES && ending.late.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer);
            match ready!(read) {
                Ok(()) if !buffer.filled().is_empty() => ending.bytes += buffer.filled().len(),
                // The client is through, or gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_still_comes_is_read_before_the_end() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut ours = Lingering::new(ours);
        let answered = async {
            ours.write_all(b"431").await.unwrap();
            ours.shutdown().await.unwrap();
            drop(ours);
        };
        let client = async {
            theirs.write_all(&[0; 100_000]).await.unwrap();
            theirs.shutdown().await.unwrap();
            let mut text = String::new();
            theirs.read_to_string(&mut text).await.unwrap();
            text
        };
        assert_eq!(futures::future::join(answered, client).await.1, "431");
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_wait_for_long_and_does_not_read_for_ever() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let began = tokio::time::Instant::now();
        Lingering::new(ours).shutdown().await.unwrap();
        assert_eq!(began.elapsed(), LINGER);
        theirs.write_all(b"x").await.unwrap_err();

        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut ours = Lingering::new(ours);
        let endless = async { while theirs.write_all(&[0; 1024]).await.is_ok() {} };
        let ended = async {
            ours.shutdown().await.unwrap();
            drop(ours);
        };
        futures::future::join(endless, ended).await;
        assert!(began.elapsed() < 2 * LINGER + Duration::from_millis(50));
    }
}
