//! How much may be stored: what is stored is held in memory too, and is everybody's.
//!
//! Flow: a write asks [`Quota::admit`] before it goes to the store, and holds the
//! [`Reservation`] until it knows its revision. What is stored is what the cache has
//! counted; writes that the cache has not seen yet are counted by their reservations.
//!
//! Creations are refused at the limits on numbers, and with updates of the spec at
//! those on bytes, if they make an object larger. Deletions and status never are: a
//! controller must be able to finish what it began, and its objects are bounded one by
//! one.

use std::sync::Arc;
use std::time::Duration;

use apiservice::{Resource, Scope};
use parking_lot::Mutex;

use crate::authz;
use crate::cache::{Cache, Usage};
use crate::reader::Reader;
use crate::status::{Failure, Subject};

/// How long a write waits for the objects to be counted after a start.
const PATIENCE: Duration = Duration::from_secs(3);

/// The names of the two quotas in answers.
const IN_NAMESPACE: &str = "steward-apiserver-namespace";
const IN_ALL: &str = "steward-apiserver";

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub objects: u64,
    pub objects_per_namespace: u64,
    /// Bytes of one object.
    pub object_bytes: usize,
    pub bytes: u64,
    pub bytes_per_namespace: u64,
}

impl Default for Bounds {
    /// What fits into the memory that the chart gives to the server.
    fn default() -> Self {
        Self {
            objects: 20_000,
            objects_per_namespace: 2_000,
            object_bytes: crate::stored::MAX_STORED,
            bytes: 160 << 20,
            bytes_per_namespace: 32 << 20,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Quota {
    bounds: Bounds,
    reserved: Mutex<Reserved>,
}

#[derive(Debug, Default)]
struct Reserved {
    next: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    namespace: String,
    usage: Usage,
    /// Once it is known: then the cache counts it as soon as it is there.
    revision: Option<u64>,
}

/// What a write adds.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub resource: &'static Resource,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
    /// Bytes of the stored object that it replaces; `None` if there is none.
    pub before: Option<usize>,
    pub after: usize,
}

/// What a write may add; given back when it is dropped, unless the write took place.
#[derive(Debug)]
pub struct Reservation {
    quota: Arc<Quota>,
    id: Option<u64>,
}

impl Reservation {
    /// The write took place, at this revision.
    pub fn written(&self, revision: u64) {
        let Some(id) = self.id else { return };
        let mut reserved = self.quota.reserved.lock();
        if let Some(entry) = reserved.entries.iter_mut().find(|entry| entry.id == id) {
            entry.revision = Some(revision);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut reserved = self.quota.reserved.lock();
            let stays = |entry: &Entry| entry.id != id || entry.revision.is_some();
            reserved.entries.retain(stays);
        }
    }
}

impl Quota {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            reserved: Mutex::default(),
        }
    }

    /// Writes that the cache has not counted yet.
    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        self.reserved.lock().entries.len()
    }

    /// # Errors
    /// 413 if an object of this many bytes is never stored.
    pub fn fits(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.bounds.object_bytes;
        if bytes > limit {
            return Err(Failure::TooLarge(format!("limit is {limit}")));
        }
        Ok(())
    }

    /// The same with what the controller says of it.
    ///
    /// # Errors
    /// As above.
    pub fn fits_with_status(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.bounds.object_bytes + crate::stored::STATUS_ROOM;
        if bytes > limit {
            return Err(Failure::TooLarge(format!("limit is {limit}")));
        }
        Ok(())
    }

    /// Room for a write.
    ///
    /// # Errors
    /// 413 for an object that is too large, 403 in the words of a ResourceQuota when
    /// there is no room, 503 while the objects are not counted yet.
    pub async fn admit(
        self: &Arc<Self>,
        store: &Reader,
        cache: &Cache,
        write: Write<'_>,
    ) -> Result<Reservation, Failure> {
        let growth = write.after.saturating_sub(write.before.unwrap_or(0)) as u64;
        if growth > 0 {
            self.fits(write.after)?;
        }
        let added = Usage {
            objects: u64::from(write.before.is_none()),
            bytes: growth,
        };
        if added == Usage::default() {
            return Ok(Reservation {
                quota: self.clone(),
                id: None,
            });
        }
        let namespace = match write.resource.scope {
            Scope::Namespaced => write.namespace.unwrap_or_default(),
            Scope::Cluster => "",
        };
        if cache.usage(namespace).is_none() {
            cache.reached(0, PATIENCE).await;
        }
        match self.room(cache, &write, namespace, added) {
            Err(refused @ Failure::Forbidden { .. }) => {
                // What was deleted a moment ago may not be counted yet.
                let now = store.revision().await.map_err(Failure::of_read)?;
                if !cache.reached(now.0, PATIENCE).await {
                    return Err(refused);
                }
                self.room(cache, &write, namespace, added)
            }
            result => result,
        }
    }

    fn room(
        self: &Arc<Self>,
        cache: &Cache,
        write: &Write<'_>,
        namespace: &str,
        added: Usage,
    ) -> Result<Reservation, Failure> {
        let mut reserved = self.reserved.lock();
        let Some((mut all, mut inside, revision)) = cache.usage(namespace) else {
            return Err(Failure::store_unavailable(
                "the stored objects are being counted",
            ));
        };
        reserved
            .entries
            .retain(|entry| entry.revision.is_none_or(|at| at > revision));
        for entry in &reserved.entries {
            all.objects += entry.usage.objects;
            all.bytes += entry.usage.bytes;
            if entry.namespace == namespace {
                inside.objects += entry.usage.objects;
                inside.bytes += entry.usage.bytes;
            }
        }
        let bounds = &self.bounds;
        let count = format!("count/{}.{}", write.resource.plural, apiservice::GROUP);
        let checks = [
            (
                IN_NAMESPACE,
                count.as_str(),
                added.objects,
                inside.objects,
                bounds.objects_per_namespace,
            ),
            (
                IN_NAMESPACE,
                "bytes",
                added.bytes,
                inside.bytes,
                bounds.bytes_per_namespace,
            ),
            (IN_ALL, &count, added.objects, all.objects, bounds.objects),
            (IN_ALL, "bytes", added.bytes, all.bytes, bounds.bytes),
        ];
        for (quota, what, asked, used, limit) in checks {
            let applies = asked > 0 && (quota == IN_ALL || !namespace.is_empty());
            if applies && used.saturating_add(asked) > limit {
                let why = format!(
                    "exceeded quota: {quota}, requested: {what}={asked}, used: {what}={used}, limited: {what}={limit}"
                );
                return Err(authz::refused(
                    Subject::of(write.resource, write.name),
                    &why,
                ));
            }
        }
        let id = reserved.next;
        reserved.next += 1;
        reserved.entries.push(Entry {
            id,
            namespace: namespace.to_owned(),
            usage: added,
            revision: None,
        });
        Ok(Reservation {
            quota: self.clone(),
            id: Some(id),
        })
    }
}
