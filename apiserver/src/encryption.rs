//! Encryption of stored objects (R9.19): which file says how, when it is read, and what
//! follows from a change of it.
//!
//! The file is read before the store is opened. A store that could not be read with it is
//! not served: the reason is in the readiness of the server, and the file is read again
//! until it fits. What is kept in another form than the one in which it would be written is
//! brought to that by itself, so that a key which is not the first any more can be taken out
//! of the file soon after.

mod config;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiservice::clock::Clock;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use storage::Store;
use storage::seal::Sealing;
use tokio::time::Instant;

use crate::args::Args;
use crate::metrics::Metrics;

/// Bytes of the file.
const FILE_BYTES: u64 = 1 << 20;
/// Between looks at the file. kube-apiserver looks once a minute.
const LOOK: Duration = Duration::from_secs(10);
/// Between attempts to bring values to their form.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a file that does not fit the store is taken to do so without a look at the store.
const REFUSED: Duration = Duration::from_secs(600);

/// Where the store is, the file that says how it is kept, and whether that is followed.
#[derive(Clone)]
pub struct Encryption {
    directory: PathBuf,
    file: Option<PathBuf>,
    reload: bool,
    metrics: Arc<Metrics>,
    clock: Clock,
    refused: Arc<Mutex<Option<Refused>>>,
}

/// A file that the store cannot be read with. To find that out, all of the store is read.
struct Refused {
    /// Of its content.
    seen: Option<[u8; 32]>,
    why: String,
    until: Instant,
}

/// What a file said.
struct Loaded {
    sealing: Sealing,
    /// Of its content.
    seen: Option<[u8; 32]>,
}

impl Encryption {
    /// Without a file values are kept as they are.
    pub fn new(args: &Args, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            directory: args.data_dir.clone(),
            file: args.encryption_provider_config.clone(),
            reload: args.encryption_provider_config_automatic_reload,
            metrics,
            clock,
            refused: Arc::default(),
        }
    }

    /// Opens the store as the file says; with a digest of the file.
    ///
    /// # Errors
    /// Why it cannot be opened, with the name of the file or of the directory.
    pub async fn open(&self) -> Result<(Store, Option<[u8; 32]>), String> {
        let Loaded { sealing, seen } = self.load().await?;
        self.refused(seen)?;
        let store = storage::sqlite::open_sealed(&self.directory, sealing).await;
        let told = |error: &_| format!("{}: {error}", self.directory.display());
        Ok((self.taken(store, seen, told)?, seen))
    }

    /// # Errors
    /// If a file of this content was refused a short time ago, with what was said then.
    fn refused(&self, seen: Option<[u8; 32]>) -> Result<(), String> {
        match &*self.refused.lock() {
            Some(it) if it.seen == seen && Instant::now() < it.until => Err(it.why.clone()),
            _ => Ok(()),
        }
    }

    /// Remembers a file that does not fit the store.
    fn taken<T>(
        &self,
        taken: Result<T, storage::Error>,
        seen: Option<[u8; 32]>,
        told: impl FnOnce(&storage::Error) -> String,
    ) -> Result<T, String> {
        taken.map_err(|error| {
            let why = told(&error);
            let refused = matches!(error, storage::Error::Sealed(_)).then(|| Refused {
                seen,
                why: why.clone(),
                until: Instant::now() + REFUSED,
            });
            *self.refused.lock() = refused;
            why
        })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A sentence with its name and what is wrong with it.
    async fn load(&self) -> Result<Loaded, String> {
        let Some(file) = self.file.clone() else {
            return Ok(Loaded {
                sealing: Sealing::default(),
                seen: None,
            });
        };
        let name = file.display().to_string();
        let told = |why: String| format!("the encryption configuration {name}: {why}");
        let text = tokio::task::spawn_blocking(move || read(&file)).await;
        let text = text.map_err(|error| error.to_string()).and_then(|it| it);
        let text = text.map_err(told)?;
        let sealing = config::parse(&text, &apiservice::RESOURCES).map_err(told)?;
        Ok(Loaded {
            sealing,
            seen: Some(Sha256::digest(text.as_bytes()).into()),
        })
    }

    /// Brings values to their form, and follows the file.
    pub async fn follow(self, store: Store, mut seen: Option<[u8; 32]>) {
        // When values are brought to their form; none: they have it.
        let mut due = Some(Instant::now());
        let mut refused = None;
        loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                let complete = reseal(&store, self.file.is_some()).await;
                due = (!complete).then(|| Instant::now() + AGAIN);
                if complete {
                    // What lacked a key may lack none any more.
                    *self.refused.lock() = None;
                }
            }
            let wait = match (self.reload && self.file.is_some(), due) {
                (true, _) => LOOK,
                (false, Some(_)) => AGAIN,
                (false, None) => return,
            };
            tokio::time::sleep(wait).await;
            if !self.reload {
                continue;
            }
            match self.change(&store, seen).await {
                Ok(None) => {}
                Ok(Some(now)) => {
                    tracing::info!("the encryption configuration was read anew");
                    self.metrics.encryption_reloaded(true, self.clock.now());
                    (seen, due, refused) = (Some(now), Some(Instant::now()), None);
                }
                Err(why) => {
                    // Once for each fault.
                    if refused.as_ref() != Some(&why) {
                        tracing::error!("{why}; what was read before stays in force");
                        self.metrics.encryption_reloaded(false, self.clock.now());
                        refused = Some(why);
                    }
                }
            }
        }
    }

    /// Takes in a file that has changed.
    async fn change(
        &self,
        store: &Store,
        seen: Option<[u8; 32]>,
    ) -> Result<Option<[u8; 32]>, String> {
        let loaded = self.load().await?;
        if loaded.seen == seen {
            return Ok(None);
        }
        self.refused(loaded.seen)?;
        let taken = store.seal(loaded.sealing).await;
        let told = |error: &_| format!("the encryption configuration cannot be used: {error}");
        self.taken(taken, loaded.seen, told)?;
        Ok(loaded.seen)
    }
}

fn read(file: &Path) -> Result<String, String> {
    let open = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = open.take(FILE_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    match text.len() as u64 > FILE_BYTES {
        true => Err(format!("it is larger than {FILE_BYTES} bytes")),
        false => Ok(text),
    }
}

/// Whether all values are in the form of now. That is told once for each file: who changes a
/// key waits for it, also where a server of before had done it all.
async fn reseal(store: &Store, configured: bool) -> bool {
    match store.reseal().await {
        Ok(0) if !configured => true,
        Ok(changed) => {
            tracing::info!(
                changed,
                "all stored objects are in the form of the first provider; keys after the first \
                 are not needed any more"
            );
            true
        }
        Err(storage::Error::Closed) => true,
        Err(error) => {
            tracing::warn!(
                %error,
                "what is stored is not encrypted as configured yet, or was before and is not wiped"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests;
