//! Keys go from the source to the target: page by page, and then what changes.
//!
//! Pages are read as the keys are now, and all changes since before the first page are
//! carried out in their order. Nothing is followed between the reading of a page and its
//! writing, so that no older value comes after a newer one. In NATS, pages are as the keys were
//! at the first of them, and nothing is followed before the last.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::{MoveError, Stop, of_source, of_target};
use crate::tenancy::contents::{Contents, MOST_KEYS, Op, Page};

/// Bytes that are read at a time.
pub const BYTES: usize = 2 << 20;
/// A copy that takes longer follows in between: a source forgets what is some minutes old.
const FOLLOWED: Duration = Duration::from_secs(15);
/// How often the target is raised before the copy begins.
const RAISES: usize = 5;
/// How long is waited for a revision that is missing.
const MISSING: Duration = Duration::from_millis(20);
/// How long nothing may come of what the source says that it has: far longer than a number of
/// kine's can be on its way. A tenant that says so of its own table shall not keep others from
/// being moved.
const STILL: Duration = Duration::from_secs(30);
/// Values that can be decrypted under the key alone under which they were written.
const BOUND: [&[u8]; 2] = [b"k8s:enc:aesgcm:", b"k8s:enc:kms:"];

/// What keys begin with on both sides.
pub struct Rewrite {
    pub from: String,
    pub to: String,
}

/// Both sides of a move.
pub struct Both<'a> {
    pub source: Box<dyn Contents + 'a>,
    pub target: Box<dyn Contents + 'a>,
    rewrite: Rewrite,
    /// All keys of the target have greater revisions than this.
    pub floor: u64,
    /// Up to which revision the source was followed.
    after: u64,
}

impl<'a> Both<'a> {
    pub fn new(
        source: Box<dyn Contents + 'a>,
        target: Box<dyn Contents + 'a>,
        rewrite: Rewrite,
    ) -> Self {
        Both {
            source,
            target,
            rewrite,
            floor: 0,
            after: 0,
        }
    }

    /// Empties the target and raises it above the source.
    pub async fn raise(&mut self, margin: u64) -> Result<(), Stop> {
        self.target.wipe().await.map_err(of_target)?;
        self.floor = 0;
        for _ in 0..RAISES {
            let newest = self.source.newest().await.map_err(of_source)?;
            // The source goes on while the target is raised.
            if self.floor > newest.saturating_add(margin - margin / 4) {
                break;
            }
            let raised = self.target.raise(newest.saturating_add(margin)).await;
            self.floor = raised.map_err(of_target)?;
        }
        Ok(())
    }

    /// Whether the source has come to where the target began, or nearly.
    pub async fn refuse_overtaken(&mut self, distance: u64) -> Result<(), Stop> {
        let newest = self.source.newest().await.map_err(of_source)?;
        match newest.saturating_add(distance) > self.floor {
            true => Err(Stop::Overtaken),
            false => Ok(()),
        }
    }

    /// Copies all keys.
    pub async fn copy(&mut self, tell: &mut (dyn FnMut(u64, u64) + Send)) -> Result<(), Stop> {
        self.after = self.source.begin().await.map_err(of_source)?;
        let mut followed = Instant::now();
        let mut page = self.source.page(None, BYTES).await.map_err(of_source)?;
        loop {
            let Page { entries, next } = page;
            let bytes: usize = entries.iter().map(|entry| entry.bytes()).sum();
            let keys = entries.len();
            let ops: Vec<Op> = entries.into_iter().map(Op::Put).collect();
            self.admit(&ops)?;
            let Some(next) = next else {
                self.target.apply(&ops).await.map_err(of_target)?;
                tell(keys as u64, bytes as u64);
                return Ok(());
            };
            if followed.elapsed() < FOLLOWED || self.source.is_followed_late() {
                let read = self.source.page(Some(&next), BYTES);
                let (written, read) = tokio::join!(self.target.apply(&ops), read);
                written.map_err(of_target)?;
                page = read.map_err(of_source)?;
            } else {
                self.target.apply(&ops).await.map_err(of_target)?;
                self.follow(false).await?;
                followed = Instant::now();
                page = self
                    .source
                    .page(Some(&next), BYTES)
                    .await
                    .map_err(of_source)?;
            }
            tell(keys as u64, bytes as u64);
        }
    }

    /// Carries out what was changed in the source up to now; how many keys that were.
    pub async fn follow(&mut self, settled: bool) -> Result<u64, Stop> {
        let goal = self.source.newest().await.map_err(of_source)?;
        let mut changed = 0;
        let mut moving = Instant::now();
        while self.after < goal {
            let changes = self.source.changes(self.after, BYTES, settled).await;
            let changes = changes.map_err(of_source)?;
            self.admit(&changes.ops)?;
            if !changes.ops.is_empty() {
                self.target.apply(&changes.ops).await.map_err(of_target)?;
                changed += changes.ops.len() as u64;
            }
            if changes.upto == self.after {
                if settled {
                    break;
                }
                if moving.elapsed() > STILL {
                    let why = format!(
                        "the source says that it is at revision {goal}, and nothing comes after \
                         {} for {} s",
                        self.after,
                        STILL.as_secs()
                    );
                    return Err(MoveError::Refused(why).into());
                }
                sleep(MISSING).await;
            } else {
                moving = Instant::now();
            }
            self.after = changes.upto;
        }
        Ok(changed)
    }

    /// Makes keys in the target what they are in the source.
    pub async fn mend(&mut self, keys: &[String]) -> Result<u64, Stop> {
        let mut mended = 0;
        let mut rest = keys;
        while !rest.is_empty() {
            let asked = &rest[..rest.len().min(MOST_KEYS)];
            let found = self.source.get(asked, BYTES).await.map_err(of_source)?;
            let bytes: usize = found.iter().map(|entry| entry.bytes()).sum();
            let ops: Vec<Op> = found.into_iter().map(Op::Put).collect();
            self.admit(&ops)?;
            // All were answered for, or as many as fit: those up to the last that was found.
            let answered = match bytes > BYTES / 2 {
                false => asked.len(),
                true => {
                    let last = ops.last().map(|op| op.key().to_owned());
                    let at = asked.iter().position(|key| Some(key) == last.as_ref());
                    at.map_or(asked.len(), |at| at + 1)
                }
            };
            let gone = asked[..answered]
                .iter()
                .filter(|key| !ops.iter().any(|op| op.key() == *key))
                .map(|key| Op::Delete(key.clone()));
            let all: Vec<Op> = gone.chain(ops.iter().cloned()).collect();
            self.target.apply(&all).await.map_err(of_target)?;
            mended += all.len() as u64;
            rest = &rest[answered..];
        }
        Ok(mended)
    }

    /// Refuses values that could not be decrypted under another key.
    fn admit(&self, ops: &[Op]) -> Result<(), MoveError> {
        let Rewrite { from, to } = &self.rewrite;
        if from == to {
            return Ok(());
        }
        for op in ops {
            if let Op::Put(entry) = op
                && BOUND.iter().any(|bound| entry.value.starts_with(bound))
            {
                return Err(MoveError::Refused(format!(
                    "the tenant's keys begin with {from:?} here and would begin with {to:?} \
                     there, and the value of {:?} is encrypted in a way that binds it to its \
                     key: let the tenant decrypt its data first (encryption provider identity, \
                     and all objects written again), or move it to a SQL database, where it \
                     keeps its prefix",
                    entry.key
                )));
            }
        }
        Ok(())
    }
}
