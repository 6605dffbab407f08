//! Connections of which it is counted what the server sends.
//!
//! What a tenant makes in its database runs in our sessions, and what comes of it is read into
//! memory as a whole: a row, and the text of an error, have as many bytes as the tenant likes,
//! and the client of the database knows no bound. So its bytes pass through here, below the
//! protocol and TLS, and a connection that brings more than its statement may is cut.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::Endpoint;

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
    /// Connects: `connect` is given the socket on which the server is found, which leads there
    /// whatever its path is. `place` makes the path that the client will ask for of a name.
    ///
    /// # Errors
    /// There is no way to the server, or those of `connect`.
    pub async fn open<F>(
        endpoint: &Endpoint,
        place: impl FnOnce(&str) -> String,
        connect: impl FnOnce(PathBuf) -> F,
    ) -> Result<Self, sqlx::Error>
    where
        F: Future<Output = Result<C, sqlx::Error>>,
    {
        let server = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        let _ = server.set_nodelay(true);
        // Of the names that are no files: nothing has to be written, and nothing is left.
        let name = format!("\0steward-{}", uuid::Uuid::new_v4());
        let listener = UnixListener::bind(place(&name))?;
        let counts = Arc::new(Counts {
            left: AtomicUsize::new(ENTRANCE),
            beyond: AtomicBool::new(false),
        });
        #[allow(clippy::disallowed_methods, reason = "it ends with the connection")]
        let carrying = tokio::spawn(carry(listener, server, counts.clone()));
        let carrying = AbortOnDropHandle::new(carrying);
        Ok(Self {
            connection: connect(PathBuf::from(name)).await?,
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
async fn carry(listener: UnixListener, server: TcpStream, counts: Arc<Counts>) {
    let Ok(client) = accept(&listener).await else {
        return;
    };
    drop(listener);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let sends = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let answers = async {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = from_server.read(&mut piece).await {
            let left = counts.left.load(Relaxed);
            let Some(left) = left.checked_sub(count) else {
                counts.beyond.store(true, Relaxed);
                break;
            };
            counts.left.store(left, Relaxed);
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
        if pid.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id())) {
            return Ok(client);
        }
    }
}
