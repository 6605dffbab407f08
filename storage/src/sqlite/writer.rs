//! The one writer, with group commit.
//!
//! While a commit waits for the disk, further writes queue up; the next commit
//! carries them all. One writer at a time therefore pays one sync a write, and
//! many share it.
//!
//! # Guarantees
//! Commit, then feed, then answer. If a commit fails, nobody in it is
//! acknowledged, and the writer reads from the database where it stands before
//! it goes on, and within a second if it can: what turns out to be committed is fed to the
//! watchers.
//!
//! A write whose asker has left before it was applied is not applied. Afterwards it stands.
//!
//! # The write-ahead log
//! It begins anew by itself in a moment in which nobody reads what is in it. Where there
//! is always somebody, it is emptied here, which those who look through history hold up:
//! they are long, and one begins before the other ends. So none begins for a while, and
//! once the last has ended the log is emptied. Writes go on meanwhile, until it is too
//! large.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::convert::{database, from_sql, io, to_sql};
#[cfg(test)]
use super::faults::Fault;
use super::files::{ERASE, ERASE_DUE, LOG_BYTES};
use super::reopening::Reopening;
use super::shared::{Looked, Shared};
use super::spans::Steps;
use super::turns::Quiet;
use super::{read, sealed};
use crate::log::{Write, store};
use crate::seal::{HEAD, SealError, Sealing, Seals};
use crate::{Change, Error, Revision};

/// Writes that may wait before writers are held back.
const QUEUE: usize = 1024;
/// Writes that share one commit.
const BATCH: usize = 512;
/// Rows that one step of a compaction deletes, and bytes, so that writers wait little.
const PURGE: i64 = 500;
const PURGE_BYTES: i64 = 4 * 1024 * 1024;
/// What lies below the floor, the sizes of some rows.
const PURGEABLE: &str = "SELECT revision, coalesce(length(value), 0) FROM version \
     WHERE ended IS NOT NULL AND ended <= (SELECT compacted FROM store) LIMIT ?";
/// Versions that are looked at in one step of bringing them to another form, and bytes of
/// those that are, so that writers wait little.
const RESEALED: i64 = 200;
const RESEALED_BYTES: usize = 4 * 1024 * 1024;
/// From [`LOG_BYTES`] on the write-ahead log is to be emptied. When it has grown so much
/// more, writes wait for those who look through history; if they take too long, all begins
/// again when it has grown so much more.
const LOG_STEP: u64 = 16 * 1024 * 1024;
/// How long writes wait for them.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long they wait for those who read the present, in milliseconds, and what else may
/// wait for another connection.
const EMPTYING: &str = "PRAGMA busy_timeout = 2000";
const EMPTIED: &str = "PRAGMA busy_timeout = 10000";
const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// In the mark that something is to be erased: the file is made anew, the log is left.
const MADE_ANEW: &[u8] = b"log";
/// Changes read at a time when the feed has to be caught up.
const CHUNK: usize = 512;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A write, and who waits for it.
struct Waiting {
    write: Write,
    steps: Steps,
    reply: Reply<Change>,
}

enum Command {
    Write(Waiting),
    /// Set the floor. What lies below is deleted by `Purge` afterwards.
    Floor(Revision, Reply<()>),
    /// Delete some of what lies below the floor; how many rows that was.
    Purge(Reply<u64>),
    Advance(Revision, Reply<Revision>),
    /// Keep values in another way from now on.
    Seal(Arc<Sealing>, Looked, Reply<()>),
    /// Bring some of the values after this revision to the form of now.
    Reseal(Revision, Reply<Resealed>),
}

/// What became of some of the values.
struct Resealed {
    /// Where to go on; none at the end.
    next: Option<Revision>,
    changed: u64,
    /// Why one could not be read.
    failed: Option<String>,
}

/// The way to the writer.
pub struct Handle {
    sender: Mutex<Option<mpsc::Sender<Command>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    pub async fn write(&self, write: Write) -> Result<Change, Error> {
        let steps = Steps::begin(&write);
        self.ask(|reply| {
            Command::Write(Waiting {
                write,
                steps,
                reply,
            })
        })
        .await
    }

    pub async fn compact(&self, below: Revision) -> Result<(), Error> {
        self.ask(|reply| Command::Floor(below, reply)).await?;
        self.purge().await
    }

    pub async fn advance(&self, to: Revision) -> Result<Revision, Error> {
        let revision = self.ask(|reply| Command::Advance(to, reply)).await?;
        self.purge().await?;
        Ok(revision)
    }

    pub async fn seal(&self, sealing: Arc<Sealing>, looked: Looked) -> Result<(), Error> {
        self.ask(|reply| Command::Seal(sealing, looked, reply))
            .await
    }

    pub async fn reseal(&self) -> Result<u64, Error> {
        let (mut at, mut changed, mut failed) = (Some(Revision(0)), 0, None);
        while let Some(after) = at {
            let done = self.ask(|reply| Command::Reseal(after, reply)).await?;
            at = done.next;
            changed += done.changed;
            failed = failed.or(done.failed);
        }
        match failed {
            None => Ok(changed),
            Some(why) => Err(Error::Sealed(why)),
        }
    }

    /// Waits until everything accepted is done and the connection is closed.
    pub async fn close(&self) {
        self.sender.lock().take();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // A panic of the writer has been reported by its own means.
            let _ = task.await;
        }
    }

    async fn purge(&self) -> Result<(), Error> {
        while self.ask(Command::Purge).await? > 0 {}
        Ok(())
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let sender = self.sender.lock().clone().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        sender
            .send(command(reply))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// Starts the writer on a connection of its own. It ends when every handle is
/// gone or closed.
#[allow(
    clippy::disallowed_methods,
    reason = "the writer belongs to its handle, which waits for it in close()"
)]
pub fn start(
    shared: Arc<Shared>,
    connection: SqliteConnection,
    options: SqliteConnectOptions,
) -> Handle {
    let (sender, commands) = mpsc::channel(QUEUE);
    let writer = Writer {
        revision: shared.feed.published(),
        connection: Some(connection),
        reopening: Reopening::default(),
        shared,
        options,
        log_bytes: LOG_BYTES,
        quiet: None,
    };
    Handle {
        sender: Mutex::new(Some(sender)),
        task: Mutex::new(Some(tokio::spawn(writer.run(commands)))),
    }
}

struct Writer {
    shared: Arc<Shared>,
    options: SqliteConnectOptions,
    /// `None` after a failure, until the state is known again.
    connection: Option<SqliteConnection>,
    /// How it goes to open another one.
    reopening: Reopening,
    /// Where the log stands.
    revision: Revision,
    /// The size of the write-ahead log at which it is to be emptied.
    log_bytes: u64,
    /// The moment that is waited for to do so.
    quiet: Option<BoxFuture<'static, Quiet>>,
}

impl Writer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            let is_lost = self.connection.is_none();
            let quiet = async {
                match &mut self.quiet {
                    Some(quiet) => quiet.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = commands.recv_many(&mut waiting, BATCH) => {
                    if received == 0 {
                        break;
                    }
                }
                quiet = quiet => {
                    self.empty(quiet).await;
                    continue;
                }
                // Not at the next write, which may be far: those who read the database know
                // of a commit that happened all the same, and wait for the feed.
                () = tokio::time::sleep(self.reopening.pause()), if is_lost => {
                    // What comes of it is told there.
                    let _ = self.ready().await;
                    continue;
                }
            }
            let mut writes = Vec::new();
            for command in waiting.drain(..) {
                match command {
                    Command::Write(waiting) => writes.push(waiting),
                    other => {
                        self.batch(std::mem::take(&mut writes)).await;
                        self.other(other).await;
                        self.trim().await;
                    }
                }
            }
            self.batch(writes).await;
            self.trim().await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            warn!(%error, "the database was not closed in order; it recovers when opened");
        }
    }

    async fn batch(&mut self, mut waiting: Vec<Waiting>) {
        // Whose asker has left before their turn: nobody would hear of them, and what was
        // asked may not be wanted any more (R9.4).
        waiting.retain(|it| !it.reply.is_closed());
        if waiting.is_empty() {
            return;
        }
        let (mut writes, mut steps, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for it in waiting {
            writes.push(it.write);
            steps.push(it.steps);
            replies.push(it.reply);
        }
        // Until the values have been dropped, or are those of readers.
        let _held: Vec<_> = writes.iter().map(|write| write.held.clone()).collect();
        let committed = self.commit(writes, &mut steps, &replies).await;
        // Their time is over before anybody hears of it.
        drop(steps);
        match committed {
            Ok(outcomes) => {
                for change in outcomes.iter().flatten() {
                    self.shared.feed.publish(change.clone());
                }
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // The asker may have left; the write stands.
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Applies writes one after the other in one transaction. The outer error
    /// is that of the transaction, the inner ones are conflicts.
    async fn commit(
        &mut self,
        writes: Vec<Write>,
        steps: &mut [Steps],
        replies: &[Reply<Change>],
    ) -> Result<Vec<Result<Change, Error>>, Error> {
        let mut revision = self.ready().await?;
        let seals = &self.shared.seals;
        let result = async {
            let connection = self.connection.as_mut().ok_or(Error::Closed)?;
            steps.iter_mut().for_each(|it| it.transaction(writes.len()));
            let mut transaction = connection
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(database)?;
            let mut outcomes = Vec::with_capacity(writes.len());
            for (write, reply) in writes.into_iter().zip(replies) {
                if reply.is_closed() {
                    // The transaction had to wait, and who asked did not.
                    outcomes.push(Err(Error::Closed));
                    continue;
                }
                let current = read::current(&mut transaction, seals, &write.key).await?;
                let outcome = store::change(write, current, revision.next());
                if let Ok(change) = &outcome {
                    insert(&mut transaction, seals, change).await?;
                    revision = change.revision();
                }
                outcomes.push(outcome);
            }
            if revision > self.revision {
                set_revision(&mut transaction, revision).await?;
            }
            steps.iter_mut().for_each(Steps::commit);
            #[cfg(test)]
            self.shared.faults.strike(Fault::BeforeCommit)?;
            transaction.commit().await.map_err(database)?;
            #[cfg(test)]
            self.shared.faults.strike(Fault::AfterCommit)?;
            Ok(outcomes)
        }
        .await;
        self.settle(result, revision)
    }

    async fn other(&mut self, command: Command) {
        match command {
            Command::Write(waiting) => self.batch(vec![waiting]).await,
            Command::Floor(below, reply) => {
                let _ = reply.send(self.floor(below).await);
            }
            Command::Purge(reply) => {
                let _ = reply.send(self.purge().await);
            }
            Command::Advance(to, reply) => {
                let _ = reply.send(self.advance(to).await);
            }
            Command::Seal(sealing, looked, reply) => {
                let _ = reply.send(self.seal(sealing, looked).await);
            }
            Command::Reseal(after, reply) => {
                let _ = reply.send(self.reseal(after).await);
            }
        }
    }

    async fn floor(&mut self, below: Revision) -> Result<(), Error> {
        let latest = self.ready().await?;
        if below > latest {
            return Err(Error::Future { latest });
        }
        let result = match self.connection.as_mut() {
            Some(connection) => set_compacted(connection, below).await,
            None => Err(Error::Closed),
        };
        #[cfg(test)]
        let result = result.and_then(|()| self.shared.faults.strike(Fault::AfterCommit));
        self.settle(result, latest)?;
        self.shared.compacted.fetch_max(below.0, Ordering::AcqRel);
        Ok(())
    }

    async fn purge(&mut self) -> Result<u64, Error> {
        let revision = self.ready().await?;
        let result = match self.connection.as_mut() {
            Some(connection) => purge(connection).await,
            None => Err(Error::Closed),
        };
        self.settle(result, revision)
    }

    /// Between two writes: whatever is written from now on is written in this way.
    async fn seal(&mut self, sealing: Arc<Sealing>, looked: Looked) -> Result<(), Error> {
        self.ready().await?;
        let connection = self.connection.as_mut().ok_or(Error::Closed)?;
        let after = match self.shared.rewritten.load(Ordering::Acquire) == looked.rewritten {
            true => looked.upto,
            false => Revision(0),
        };
        sealed::readable(connection, &sealing, after).await?;
        if sealing.encrypts() {
            let erase = sqlx::query("PRAGMA secure_delete = ON").execute(connection);
            erase.await.map_err(database)?;
            self.options = self.options.clone().pragma(ERASE.0, ERASE.1);
        }
        self.shared.seals.replace(sealing);
        Ok(())
    }

    async fn reseal(&mut self, after: Revision) -> Result<Resealed, Error> {
        let revision = self.ready().await?;
        let sealing = self.shared.seals.current();
        let mark = self.shared.directory.join(ERASE_DUE);
        let result = match self.connection.as_mut() {
            Some(connection) => reseal(connection, &sealing, after, &mark).await,
            None => Err(Error::Closed),
        };
        if !matches!(&result, Ok(done) if done.changed == 0) {
            self.shared.rewritten.fetch_add(1, Ordering::AcqRel);
        }
        let done = self.settle(result, revision)?;
        if done.next.is_none() && sealing.encrypts() && mark.exists() {
            self.erase(&mark).await?;
        }
        Ok(done)
    }

    /// Leaves nothing in the files of what was written anew: pages keep what they had before
    /// where nothing else has taken its place, and so does the write-ahead log. The mark goes
    /// once both are done; that the first is, is said in it.
    ///
    /// # Errors
    /// Also while somebody reads what is in the write-ahead log. It is to be tried again.
    async fn erase(&mut self, mark: &Path) -> Result<(), Error> {
        let revision = self.ready().await?;
        let made_anew = std::fs::read(mark).map_err(|error| io(mark, &error))? == MADE_ANEW;
        if !made_anew {
            let result = match self.connection.as_mut() {
                Some(connection) => sqlx::query("VACUUM").execute(connection).await,
                None => return Err(Error::Closed),
            };
            self.settle(result.map_err(database), revision)?;
            std::fs::write(mark, MADE_ANEW).map_err(|error| io(mark, &error))?;
        }
        // Who waits for it already goes on waiting; without that, nobody would come after.
        let quiet = self.quiet.take();
        let quiet = quiet.unwrap_or_else(|| self.shared.turns.quiet().boxed());
        // Who reads nothing of history is waited for below, as is who does for longer.
        let _quiet = tokio::time::timeout(PATIENCE, quiet).await.ok();
        let result = match self.connection.as_mut() {
            Some(connection) => empty_log(connection).await.map_err(database),
            None => Err(Error::Closed),
        };
        if !self.settle(result, revision)? {
            return Err(Error::Unavailable(
                "the write-ahead log is being read, so that what was there before is in it yet"
                    .to_owned(),
            ));
        }
        std::fs::remove_file(mark).map_err(|error| io(mark, &error))
    }

    async fn advance(&mut self, to: Revision) -> Result<Revision, Error> {
        let latest = self.ready().await?;
        if to <= latest {
            return Ok(latest);
        }
        let result = async {
            let connection = self.connection.as_mut().ok_or(Error::Closed)?;
            let mut transaction = connection
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(database)?;
            set_revision(&mut transaction, to).await?;
            set_compacted(&mut transaction, to).await?;
            #[cfg(test)]
            self.shared.faults.strike(Fault::BeforeCommit)?;
            transaction.commit().await.map_err(database)?;
            #[cfg(test)]
            self.shared.faults.strike(Fault::AfterCommit)?;
            Ok(())
        }
        .await;
        self.settle(result, to)?;
        self.shared.compacted.fetch_max(to.0, Ordering::AcqRel);
        self.shared.feed.skip(to);
        Ok(to)
    }

    /// Has the write-ahead log emptied when it is too large. What has been answered is not
    /// concerned, and nothing fails because of it.
    async fn trim(&mut self) {
        let size = self.shared.log_size();
        if size < LOG_BYTES {
            self.quiet = None;
            self.log_bytes = LOG_BYTES;
        }
        if size < self.log_bytes {
            return;
        }
        let quiet = self
            .quiet
            .get_or_insert_with(|| self.shared.turns.quiet().boxed());
        let late = size >= self.log_bytes + LOG_STEP;
        let quiet = match late {
            true => tokio::time::timeout(PATIENCE, quiet).await.ok(),
            false => quiet.now_or_never(),
        };
        match quiet {
            Some(quiet) => self.empty(quiet).await,
            None if late => self.trimmed(),
            None => {}
        }
    }

    /// Empties the write-ahead log.
    async fn empty(&mut self, _quiet: Quiet) {
        if let Some(connection) = self.connection.as_mut()
            && let Err(error) = empty_log(connection).await
        {
            warn!(%error, "the write-ahead log was not emptied");
        }
        self.trimmed();
    }

    /// When the write-ahead log is looked at next.
    fn trimmed(&mut self) {
        self.quiet = None;
        let left = self.shared.log_size();
        self.log_bytes = LOG_BYTES.max(left + LOG_STEP);
        if left >= LOG_BYTES {
            warn!(bytes = left, "the write-ahead log is being read and grows");
        }
    }

    /// After a transaction: where the log stands now, or that this is unknown.
    fn settle<T>(&mut self, result: Result<T, Error>, revision: Revision) -> Result<T, Error> {
        match result {
            Ok(value) => {
                self.revision = revision;
                Ok(value)
            }
            Err(failure) => {
                error!(error = %failure, "a transaction of the log failed");
                self.connection = None;
                Err(failure)
            }
        }
    }

    /// A connection whose state is known; where the log stands.
    async fn ready(&mut self) -> Result<Revision, Error> {
        if self.connection.is_some() {
            return Ok(self.revision);
        }
        let opened = self.open().await;
        match &opened {
            Ok(_) if self.reopening.succeeded() => info!("the database is open again"),
            Ok(_) => {}
            Err(error) if self.reopening.failed(Instant::now()) => {
                warn!(%error, "the database cannot be opened anew yet");
            }
            Err(_) => {}
        }
        opened
    }

    /// Opens the database anew, and reads where it stands.
    async fn open(&mut self) -> Result<Revision, Error> {
        #[cfg(test)]
        self.shared.faults.strike(Fault::Opening)?;
        let mut connection = self.options.connect().await.map_err(database)?;
        // If the volume is full, the write-ahead log gives back what it takes. It may
        // fail for the reason that brought us here: the next write will tell.
        if let Err(error) = sqlx::query(EMPTY_LOG).execute(&mut connection).await
            && self.reopening.is_first()
        {
            warn!(%error, "the write-ahead log was not emptied");
        }
        let bounds = read::bounds(&mut connection).await?;
        let feed = &self.shared.feed;
        // A commit that was reported as failed may have happened: a compaction, an advance,
        // changes.
        let compacted = bounds.compacted;
        self.shared
            .compacted
            .fetch_max(compacted.0, Ordering::AcqRel);
        if feed.published() < compacted {
            feed.skip(compacted);
        }
        while feed.published() < bounds.revision {
            let after = feed.published();
            let seals = &self.shared.seals;
            let missed = read::changes(&mut connection, seals, "", after, bounds.revision, CHUNK);
            let missed = missed.await?;
            for change in missed.changes {
                feed.publish(change);
            }
            if !missed.more {
                feed.skip(bounds.revision);
            }
        }
        self.revision = bounds.revision;
        self.connection = Some(connection);
        Ok(self.revision)
    }
}

/// Empties the write-ahead log; whether it is empty. That somebody reads what is in it is no
/// error for SQLite: it says so in its answer.
async fn empty_log(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query(EMPTYING).execute(&mut *connection).await?;
    let emptied = sqlx::query_scalar(EMPTY_LOG)
        .fetch_one(&mut *connection)
        .await;
    sqlx::query(EMPTIED).execute(&mut *connection).await?;
    emptied.map(|held_up: i64| held_up == 0)
}

/// Brings the values of some versions after a revision to the form of now. What is read by
/// revision is the same before and after.
async fn reseal(
    connection: &mut SqliteConnection,
    sealing: &Sealing,
    after: Revision,
    mark: &Path,
) -> Result<Resealed, Error> {
    let heads: Vec<(i64, String, Vec<u8>)> = sqlx::query_as(
        "SELECT revision, key, substr(value, 1, ?) FROM version \
         WHERE revision > ? AND value IS NOT NULL ORDER BY revision LIMIT ?",
    )
    .bind(i64::try_from(HEAD).unwrap_or(i64::MAX))
    .bind(to_sql(after))
    .bind(RESEALED)
    .fetch_all(&mut *connection)
    .await
    .map_err(database)?;
    let mut done = Resealed {
        next: None,
        changed: 0,
        failed: None,
    };
    let mut bytes = 0;
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(database)?;
    for (revision, key, head) in heads {
        if bytes >= RESEALED_BYTES {
            break;
        }
        done.next = Some(from_sql(revision)?);
        if sealing.is_current(&key, &head) {
            continue;
        }
        let kept: Vec<u8> = sqlx::query_scalar("SELECT value FROM version WHERE revision = ?")
            .bind(revision)
            .fetch_one(&mut *transaction)
            .await
            .map_err(database)?;
        bytes += kept.len();
        let anew = sealing
            .open(&key, &kept)
            .and_then(|value| sealing.seal(&key, &value));
        let anew = match anew {
            Ok(anew) => anew,
            // No key will open it, however often that is tried.
            Err(error @ SealError::Damaged) => {
                error!(key, %error, "a value cannot be read");
                continue;
            }
            Err(error) => {
                done.failed = Some(format!("that of {key}: {error}"));
                continue;
            }
        };
        if done.changed == 0 && sealing.encrypts() {
            // Before it is needed: what is there now is what may be left.
            let made = std::fs::File::create(mark).and_then(|mark| mark.sync_all());
            made.map_err(|error| io(mark, &error))?;
        }
        sqlx::query("UPDATE version SET value = ? WHERE revision = ?")
            .bind(anew)
            .bind(revision)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        done.changed += 1;
    }
    transaction.commit().await.map_err(database)?;
    Ok(done)
}

async fn insert(
    connection: &mut SqliteConnection,
    seals: &Seals,
    change: &Change,
) -> Result<(), Error> {
    let revision = to_sql(change.revision());
    let previous = match change {
        Change::Put { previous, .. } => previous.as_ref(),
        Change::Delete { previous, .. } => Some(previous),
    };
    if let Some(previous) = previous {
        sqlx::query("UPDATE version SET ended = ? WHERE revision = ?")
            .bind(revision)
            .bind(to_sql(previous.modified))
            .execute(&mut *connection)
            .await
            .map_err(database)?;
    }
    let (created, ended, value) = match change {
        Change::Put { entry, .. } => {
            let kept = seals.current().seal(&entry.key, &entry.value);
            let kept = kept.map_err(|error| Error::Unavailable(error.to_string()))?;
            (entry.created, None, Some(kept))
        }
        Change::Delete { previous, .. } => (previous.created, Some(revision), None),
    };
    sqlx::query("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?)")
        .bind(revision)
        .bind(change.key())
        .bind(to_sql(created))
        .bind(previous.map(|previous| to_sql(previous.modified)))
        .bind(ended)
        .bind(value)
        .execute(connection)
        .await
        .map_err(database)?;
    Ok(())
}

async fn set_revision(connection: &mut SqliteConnection, to: Revision) -> Result<(), Error> {
    sqlx::query("UPDATE store SET revision = ?")
        .bind(to_sql(to))
        .execute(connection)
        .await
        .map_err(database)?;
    Ok(())
}

/// Deletes some of what lies below the floor; how many rows that was.
async fn purge(connection: &mut SqliteConnection) -> Result<u64, Error> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(PURGEABLE)
        .bind(PURGE)
        .fetch_all(&mut *connection)
        .await
        .map_err(database)?;
    let mut bytes = 0;
    let some = rows.into_iter().take_while(|(_, size)| {
        let first = bytes == 0;
        bytes += size;
        first || bytes <= PURGE_BYTES
    });
    let some: Vec<String> = some.map(|(revision, _)| revision.to_string()).collect();
    if some.is_empty() {
        return Ok(0);
    }
    // Numbers of the database itself.
    let delete = format!("DELETE FROM version WHERE revision IN ({})", some.join(","));
    let done = sqlx::query(sqlx::AssertSqlSafe(delete))
        .execute(connection)
        .await
        .map_err(database)?;
    Ok(done.rows_affected())
}

async fn set_compacted(connection: &mut SqliteConnection, to: Revision) -> Result<(), Error> {
    sqlx::query("UPDATE store SET compacted = max(compacted, ?)")
        .bind(to_sql(to))
        .execute(connection)
        .await
        .map_err(database)?;
    Ok(())
}
