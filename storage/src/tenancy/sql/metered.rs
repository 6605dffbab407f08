//! Connections of which it is counted what the server sends.
//!
//! What a tenant makes in its database runs in our sessions, and what comes of it is read into
//! memory as a whole: a row, and the text of an error, have as many bytes as the tenant likes,
//! and the client of the database knows no bound: it makes room for what the head of a message
//! announces, before any of it is there. So its bytes pass through here, and a connection that
//! brings more than its statement may, or announces it, is cut.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that come while somebody is let in: certificates, mostly.
const ENTRANCE: usize = 256 * 1024;
/// Bytes that are carried at a time.
const PIECE: usize = 16 * 1024;
/// How long a good-bye may take.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// What may still come.
#[derive(Debug)]
struct Counts {
    left: AtomicUsize,
    beyond: AtomicBool,
    /// Why nothing more came from the server.
    failed: Mutex<Option<io::Error>>,
}

/// What says how long a message is, before it is there.
pub trait Heads: Send + 'static {
    /// Bytes that the messages announce of which heads end in this piece, the longest of them.
    fn announced(&mut self, piece: &[u8]) -> usize;
}

/// Where messages have no heads that can be read, or announce little.
pub struct NoHeads;

impl Heads for NoHeads {
    fn announced(&mut self, _: &[u8]) -> usize {
        0
    }
}

/// A connection, through here.
#[derive(Debug)]
pub struct Metered<C> {
    /// To the database.
    pub connection: C,
    counts: Arc<Counts>,
    carrying: AbortOnDropHandle<()>,
}

impl<C: Connection> Metered<C> {
    /// Connects to what leads to the server: `connect` is given the socket on which that is
    /// found. `place` makes the path that the client will ask for of a name.
    ///
    /// # Errors
    /// Those of the server's side, or of `connect`.
    pub async fn open<F>(
        server: impl AsyncRead + AsyncWrite + Send + 'static,
        heads: impl Heads,
        place: impl FnOnce(&str) -> String,
        connect: impl FnOnce(PathBuf) -> F,
    ) -> Result<Self, sqlx::Error>
    where
        F: Future<Output = Result<C, sqlx::Error>>,
    {
        // Of the names that are no files: nothing has to be written, and nothing is left.
        let name = format!("\0steward-{}", uuid::Uuid::new_v4());
        let listener = UnixListener::bind(place(&name))?;
        let counts = Arc::new(Counts {
            left: AtomicUsize::new(ENTRANCE),
            beyond: AtomicBool::new(false),
            failed: Mutex::new(None),
        });
        #[allow(clippy::disallowed_methods, reason = "it ends with the connection")]
        let carrying = tokio::spawn(carry(listener, server, heads, counts.clone()));
        let carrying = AbortOnDropHandle::new(carrying);
        let connection = connect(PathBuf::from(name)).await.map_err(|error| {
            // The client knows no more than that it ended.
            match counts.failed.lock().take() {
                Some(failed) => sqlx::Error::Io(failed),
                None => error,
            }
        })?;
        Ok(Self {
            connection,
            counts,
            carrying,
        })
    }

    /// From now on so many bytes may come.
    pub fn allow(&self, bytes: usize) {
        self.counts.left.store(bytes, Relaxed);
    }

    /// Whether the connection was cut because more came.
    pub fn is_beyond(&self) -> bool {
        self.counts.beyond.load(Relaxed)
    }

    /// Says good-bye.
    pub async fn close(self) {
        let Self {
            connection,
            carrying,
            ..
        } = self;
        let gone = async {
            let _ = connection.close().await;
            let _ = carrying.await;
        };
        let _ = timeout(GOOD_BYE, gone).await;
    }
}

/// Carries bytes between the one client and the server, until either leaves.
async fn carry(
    listener: UnixListener,
    server: impl AsyncRead + AsyncWrite + Send,
    mut heads: impl Heads,
    counts: Arc<Counts>,
) {
    let Ok(client) = accept(&listener).await else {
        return;
    };
    drop(listener);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let sends = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let answers = async {
        let mut piece = vec![0; PIECE];
        loop {
            let count = match from_server.read(&mut piece).await {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    *counts.failed.lock() = Some(error);
                    break;
                }
            };
            let left = counts.left.load(Relaxed);
            let announced = heads.announced(&piece[..count]);
            let Some(rest) = left.checked_sub(count).filter(|_| announced <= left) else {
                counts.beyond.store(true, Relaxed);
                break;
            };
            counts.left.store(rest, Relaxed);
            if to_client.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = sends => {}
        () = answers => {}
    }
}

/// The connection of this process; others of the machine have no business here.
async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (client, _) = listener.accept().await?;
        let pid = client.peer_cred()?.pid();
        // The name cannot be guessed: where nobody tells the process it is not asked for.
        if pid.is_none_or(|pid| u32::try_from(pid) == Ok(std::process::id())) {
            return Ok(client);
        }
    }
}
