//! The way into the store, for every verb and subresource that writes.
//!
//! # Flow
//! A verb makes a [`Writer`] of its permit and goes round `read; build; admit; put`.
//! Between its new object and the bytes for the store lie, in this order:
//!
//! ```text
//! prepare   what the server owns in the object, and what the part leaves as it is
//! own       whose fields they are by now (R5.9); of a change in one piece with what
//!           builds it, for its tree is not counted before
//! mutate    what the cluster's admission makes of it; prepared again     400 to 500
//! validate  schema, rules and our own types, against the stored object;       422
//!           warnings
//! rights    what the author must be allowed to do as well (rule 8)            403
//! admit     what the cluster's admission says to it                      400 to 500
//! encode    the bytes; what changes nothing is not written                    413
//! count     one more in the namespace's ResourceQuotas, of a creation         403
//! reserve   the size of the object, and room in the quota                413, 403
//! put       one compare-and-set                                               409
//! ```
//!
//! A creation is prepared once and admitted for every name that is tried; a change is
//! prepared and admitted anew on what somebody else wrote in between. A deletion is only
//! prepared and admitted: what has to go goes, whatever is wrong with it by now.
//!
//! # Guarantees
//! Only this file makes an [`Admitted`], and [`Registry::put`] takes nothing else. Verbs,
//! cache and quota have a [`Reader`](crate::reader::Reader) of the store, which cannot write. The tree of the
//! stored object is gone before anything is awaited with the new one in hand, unless
//! admission is asked about both: then there is room for both.

mod admitting;

use std::sync::Arc;

use apiservice::Resource;
use apiservice::resource::BorrowedRight;
use bytes::Bytes;
use serde_json::Value;
use storage::{Entry, Error, Expect, Held, Revision, Store};
use tokio::time::Instant;

use crate::admission::{self, Author, Imported, Part, When};
use crate::aside;
use crate::authn::Identity;
use crate::authz::Permit;
use crate::cache::Writing;
use crate::limits::Room;
use crate::managed::written;
use crate::merge::Patch;
use crate::object::{self, meta, set_meta};
use crate::options::{self, Delete};
use crate::policy::in_time;
use crate::quota::{self, Reservation};
use crate::registry::{Registry, Request, get, ownership};
use crate::status::Failure;
use crate::stored;
use crate::warnings::Warnings;

/// The store as [`Registry::put`] has it, and nobody else: a registry gives away a
/// [`Reader`](crate::reader::Reader) of it. Clones share it.
#[derive(Clone)]
pub struct Writable(Store);

impl From<Store> for Writable {
    fn from(store: Store) -> Self {
        Self(store)
    }
}

/// Who writes, where, and how.
pub struct Writer<'a> {
    registry: &'a Registry,
    identity: &'a Identity,
    resource: &'static Resource,
    namespace: Option<&'a str>,
    dry_run: bool,
    author: Author,
    /// How often the change goes through the object.
    passes: usize,
    /// The name in the URL, if there is one.
    name: Option<&'a str>,
    /// The options of a deletion.
    deletion: Option<&'a Delete>,
    request: &'a Request,
    warnings: &'a Warnings,
    held: &'a Held,
}

/// The stored object that a write starts from, with the room that it takes as a tree.
pub struct Stored {
    entry: Entry,
    object: Value,
    room: Room,
}

impl Stored {
    /// The object, with its resourceVersion.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Room for what a configuration makes of it.
    ///
    /// # Errors
    /// As for [`Writer::read`].
    pub async fn make_room(&mut self, config: &Value) -> Result<(), Failure> {
        self.room.make(&self.object, config).await
    }

    /// Bytes that it has as it is stored.
    pub fn length(&self) -> usize {
        self.entry.value.len()
    }

    /// The revision that it was written at.
    pub fn revision(&self) -> u64 {
        self.entry.modified.0
    }
}

/// How large the stored object is, and how much of it its managers are.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    all: usize,
    managers: usize,
}

impl Before {
    fn of(stored: &Stored) -> Self {
        let all = stored.entry.value.len();
        Self {
            all,
            managers: written::length(&stored.object).min(all),
        }
    }
}

/// A new object in which the server has set what is its own; it may still be given a name.
pub struct New {
    object: Value,
    created: jiff::Timestamp,
    /// Of what admission has made of it.
    room: Option<Room>,
    /// It has the uid that its author gave it.
    imported: bool,
}

impl New {
    /// The object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The time of its creation.
    pub fn created(&self) -> jiff::Timestamp {
        self.created
    }

    /// Gives it a generated name.
    pub fn set_name(&mut self, name: String) {
        set_meta(&mut self.object, "name", Some(Value::from(name)));
    }

    /// The object, with its resourceVersion if it was stored.
    pub fn into_object(mut self, stored: Option<Revision>) -> Value {
        if let Some(revision) = stored {
            object::set_version(&mut self.object, revision.0);
        }
        self.object
    }
}

/// A change of a stored object in which the server has set what is its own.
pub struct Changed {
    object: Value,
    part: Part,
}

impl Changed {
    /// The object, with its resourceVersion if it was stored.
    pub fn into_object(mut self, stored: Option<Revision>) -> Value {
        if let Some(revision) = stored {
            object::set_version(&mut self.object, revision.0);
        }
        self.object
    }
}

/// What may be written, and all that is held until the store is through with it.
#[must_use = "nothing is written before it is put"]
pub struct Admitted {
    key: String,
    action: Action,
    reservation: Option<Arc<Reservation>>,
    held: Held,
    /// When the answer is due.
    deadline: Instant,
}

enum Action {
    Put {
        bytes: Bytes,
        expect: Expect,
    },
    Remove {
        at: Revision,
    },
    /// The dry run of a creation: it says whether there is such an object.
    Look,
    /// A creation of what there is already, which was not counted.
    Taken(Box<Entry>),
    /// A dry run, or what is there already.
    Nothing,
}

/// What became of what was admitted.
pub enum Written {
    /// It is on disk. This is the revision of the object, and of one that was removed the
    /// last that it had.
    At(Revision),
    /// There was nothing to write.
    Nothing,
    /// Somebody else wrote in between; this is what is there now.
    Conflict(Option<Entry>),
}

impl<'a> Writer<'a> {
    /// Whoever has the permit, where it is for.
    pub fn new<V>(
        registry: &'a Registry,
        permit: &'a Permit<V>,
        request: &'a Request,
        dry_run: bool,
    ) -> Self {
        Self {
            registry,
            identity: permit.identity(),
            resource: permit.resource(),
            namespace: permit.namespace(),
            dry_run,
            author: Author::Updater(options::manager(request.query(), &request.headers)),
            passes: 1,
            name: permit.name(),
            deletion: None,
            request,
            warnings: &request.warnings,
            held: &request.held,
        }
    }

    /// The same for a deletion with these options.
    pub fn deleting(self, options: &'a Delete) -> Self {
        Self {
            deletion: Some(options),
            ..self
        }
    }

    /// The same for a configuration that is applied: whose the fields are is known before it
    /// gets here.
    pub fn applying(self) -> Self {
        Self {
            author: Author::Applier,
            ..self
        }
    }

    /// The same for a patch.
    pub fn patching(self, patch: &Patch) -> Self {
        Self {
            passes: patch.passes(),
            ..self
        }
    }

    /// The same in one of the namespaces that a permit for a collection covers.
    pub fn within(self, namespace: Option<&'a str>) -> Self {
        Self { namespace, ..self }
    }

    /// The stored object.
    ///
    /// # Errors
    /// 404; 429 while what the caller has under way takes all of its share; 500 for an
    /// entry that cannot be read.
    pub async fn read(&self, name: &str) -> Result<Stored, Failure> {
        self.read_or(name, Err).await
    }

    /// As [`Writer::read`]; `unreadable` says what an entry is taken for that cannot be read.
    ///
    /// # Errors
    /// As for [`Writer::read`].
    pub async fn read_or(
        &self,
        name: &str,
        unreadable: impl FnOnce(Failure) -> Result<Value, Failure>,
    ) -> Result<Stored, Failure> {
        self.wait_for_policies(name).await?;
        let entry = get::entry(self.registry, self.resource, self.namespace, name).await?;
        let room = self.registry.limits.decode(self.identity, &entry.value);
        let room = room.await?;
        let object = stored::decode(self.resource, &entry).or_else(unreadable)?;
        Ok(Stored {
            entry,
            object,
            room,
        })
    }

    /// Prepares a new object, once: what a client may not set is taken out, and the server
    /// sets what is its own. Its namespace must take new objects.
    ///
    /// # Errors
    /// 400 for an object with a resourceVersion, 403 and 404 because of its namespace, 413.
    pub async fn prepare_create(&self, mut object: Value) -> Result<New, Failure> {
        let created = self.registry.clock.now();
        let imported = match &self.author {
            Author::Updater(_) => Imported::take(&mut object, created)?,
            Author::Applier => None,
        };
        admission::prepare_create(self.resource, &mut object, self.warnings)?;
        if let Some(namespace) = self.namespace {
            let name = meta(&object, "name");
            admission::namespace_lifecycle(
                &self.registry.namespaces,
                self.resource,
                namespace,
                name,
            )
            .await?;
        }
        self.wait_for_policies(meta(&object, "name")).await?;
        let own = || self.own(None, &mut object, Part::Main, created);
        aside::documents(&self.request.caller, self.request.body.len(), own).await;
        let room = self.mutate(None, &mut object, Part::Main).await?;
        let (uid, since) = match &imported {
            Some(it) => (it.uid.clone(), it.created.clone()),
            None => (uuid::Uuid::new_v4().to_string(), None),
        };
        let since = since.unwrap_or_else(|| object::time(created));
        set_meta(&mut object, "uid", Some(Value::from(uid)));
        set_meta(&mut object, "creationTimestamp", Some(Value::from(since)));
        set_meta(&mut object, "generation", Some(Value::from(1)));
        Ok(New {
            object,
            created,
            room,
            imported: imported.is_some(),
        })
    }

    /// A creation under the name that the object has by now.
    ///
    /// # Errors
    /// Those of the module's table.
    pub async fn admit_create(&self, new: &mut New) -> Result<Admitted, Failure> {
        let right = new
            .imported
            .then(|| Imported::right(self.resource, self.namespace, &new.object));
        let mut admitted = self.admit(None, &mut new.object, Part::Main, right).await?;
        admitted.hold(new.room.take());
        Ok(admitted)
    }

    /// Has `build` make a change of one part, and prepares it: what the server owns, and
    /// whose fields they are. Of long documents all of it is done beside the workers, in one
    /// piece, however short the request: a short patch may be long work. The tree that it
    /// makes is counted before anything is waited for with it.
    ///
    /// # Errors
    /// Those of `build`; 400 and 422 for what cannot be stored; 429 while what the caller
    /// has under way takes all of its share.
    pub async fn prepare_update(
        &self,
        old: &mut Stored,
        part: Part,
        build: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Changed, Failure> {
        let now = self.registry.clock.now();
        let Stored {
            entry,
            object: stored,
            room,
        } = old;
        let prepare = || {
            let mut object = build(stored)?;
            match part {
                Part::Main | Part::Replicas | Part::Place => {
                    let (when, warnings) = (When::Sent, self.warnings);
                    let new = &mut object;
                    admission::prepare_update(self.resource, new, stored, when, warnings)?;
                }
                Part::Status => admission::prepare_status(&mut object, stored, &self.author)?,
            }
            self.own(Some(stored), &mut object, part, now);
            let takes = room.both(&object);
            Ok::<_, Failure>((object, takes))
        };
        let length = entry.value.len() + self.request.body.len();
        let length = length.saturating_mul(self.passes);
        let caller = &self.request.caller;
        let (object, takes) = aside::documents(caller, length, prepare).await?;
        room.reach(takes).await?;
        Ok(Changed { object, part })
    }

    /// A change that was prepared. Afterwards it is what is answered: the rest of it is taken
    /// from the stored object.
    ///
    /// # Errors
    /// Those of the module's table.
    pub async fn admit_update(
        &self,
        old: Stored,
        changed: &mut Changed,
    ) -> Result<Admitted, Failure> {
        let Changed { object: new, part } = changed;
        let part = *part;
        let _room = self.mutate(Some(&old.object), new, part).await?;
        if part.is_spec() {
            admission::count_generation(self.resource, new, &old.object);
        }
        ownership::settle(&old.object, new);
        self.admit(Some(old), new, part, None).await
    }

    /// Records whose fields they are.
    fn own(&self, old: Option<&Value>, new: &mut Value, part: Part, now: jiff::Timestamp) {
        if let Author::Updater(manager) = &self.author {
            ownership::record(self.resource, part, old, new, manager, now);
        }
    }

    /// A deletion: the object is marked as long as there are finalizers, and goes when there
    /// are none. Returns it as it is then answered. Neither rules nor the quota are asked.
    ///
    /// # Errors
    /// Those of admission; 429 while what the caller has under way takes all of its share; 400 and 413 for a
    /// marked object that could not be read again.
    pub async fn admit_delete(
        &self,
        old: Stored,
        finalizers: Vec<String>,
    ) -> Result<(Admitted, Value), Failure> {
        self.admit_deletion(&old.object).await?;
        let Stored {
            entry,
            object,
            mut room,
        } = old;
        let at = entry.modified;
        if finalizers.is_empty() {
            let action = match self.dry_run {
                true => Action::Nothing,
                false => Action::Remove { at },
            };
            return Ok((self.admitted(entry.key, action, None, Some(room)), object));
        }
        let now = self.registry.clock.now();
        let new = admission::prepare_delete(object, finalizers, now);
        room.hold(&new).await?;
        let bytes = stored::encode(&new)?;
        // R3.69: the same bytes are an object that is already on its way.
        let action = match self.dry_run || bytes == entry.value {
            true => Action::Nothing,
            false => Action::Put {
                bytes,
                expect: Expect::At(at),
            },
        };
        Ok((self.admitted(entry.key, action, None, Some(room)), new))
    }

    /// What is the same for everything that is stored, once it is prepared.
    async fn admit(
        &self,
        old: Option<Stored>,
        new: &mut Value,
        part: Part,
        right: Option<BorrowedRight>,
    ) -> Result<Admitted, Failure> {
        let (registry, resource) = (self.registry, self.resource);
        let before = old.as_ref().map(Stored::object);
        admission::validate(resource, new, before, part, self.warnings)?;
        let mut rights = match part.is_spec() {
            true => admission::borrows(resource, new, before)?,
            false => Vec::new(),
        };
        rights.extend(right);
        let asked = self
            .ask_policies(old.as_ref().map(Stored::object), new, part, &rights)
            .await?;
        let mut replaced = None;
        let before = old.as_ref().map(Before::of).unwrap_or_default();
        if let Some(old) = old {
            let Stored {
                entry,
                object,
                mut room,
            } = old;
            // Two trees there are only in one go; what is held is the room of the larger.
            drop(object);
            room.hold(new).await?;
            replaced = Some((entry, room));
        }
        if !asked {
            admission::borrowed(&registry.authorizer, self.identity, resource, new, &rights)
                .await?;
        }
        let bytes = self.encode(new, before, part)?;
        match replaced {
            None => self.creation(new, bytes).await,
            Some((entry, room)) => self.replacement(new, part, bytes, entry, room).await,
        }
    }

    /// The bytes of the object; without its managers if it would be too large with them, as
    /// by Kubernetes. Who applies is told instead (R3.88, R5.28).
    fn encode(&self, new: &mut Value, before: Before, part: Part) -> Result<Bytes, Failure> {
        let fits = |bytes: Bytes, before: usize| {
            let quota = &self.registry.quota;
            match part {
                // What grows nothing goes on.
                _ if bytes.len() <= before => Ok(bytes),
                Part::Main => quota.fits(bytes.len()).map(|()| bytes),
                Part::Replicas | Part::Place | Part::Status => {
                    quota.fits_with_status(bytes.len()).map(|()| bytes)
                }
            }
        };
        let encoded = stored::fits_with_managers(new)
            .and_then(|()| stored::encode(new))
            .and_then(|bytes| fits(bytes, before.all));
        match (encoded, &self.author) {
            (Err(Failure::TooLarge(_)), Author::Updater(_))
                if written::take_managers(new).is_some() =>
            {
                fits(stored::encode(new)?, before.all - before.managers)
            }
            (encoded, _) => encoded,
        }
    }

    async fn creation(&self, new: &Value, bytes: Bytes) -> Result<Admitted, Failure> {
        let name = meta(new, "name");
        let key = object::key(self.resource, self.namespace, name);
        self.registry.quota.fits(bytes.len())?;
        if let Some(present) = self.count(&key, name).await? {
            let action = Action::Taken(Box::new(present));
            return Ok(self.admitted(key, action, None, None));
        }
        if self.dry_run {
            return Ok(self.admitted(key, Action::Look, None, None));
        }
        let reservation = self.reserve(name, None, bytes.len()).await?;
        let expect = Expect::Absent;
        Ok(self.admitted(key, Action::Put { bytes, expect }, Some(reservation), None))
    }

    async fn replacement(
        &self,
        new: &Value,
        part: Part,
        bytes: Bytes,
        entry: Entry,
        room: Room,
    ) -> Result<Admitted, Failure> {
        if bytes == entry.value || self.dry_run {
            // R3.25, R3.52: what changes nothing is not written.
            return Ok(self.admitted(entry.key, Action::Nothing, None, Some(room)));
        }
        let at = entry.modified;
        if completes_deletion(new, part) {
            return Ok(self.admitted(entry.key, Action::Remove { at }, None, Some(room)));
        }
        let reservation = match part {
            Part::Main => {
                let before = Some(entry.value.len());
                Some(self.reserve(meta(new, "name"), before, bytes.len()).await?)
            }
            // What the controller says goes on, as the end of a deletion does, also where
            // the object is as large as it may be, or larger than it may be by now.
            Part::Replicas | Part::Place | Part::Status => {
                if bytes.len() > entry.value.len() {
                    self.registry.quota.fits_with_status(bytes.len())?;
                }
                None
            }
        };
        let expect = Expect::At(at);
        let action = Action::Put { bytes, expect };
        Ok(self.admitted(entry.key, action, reservation, Some(room)))
    }

    /// Room in the quota for so many bytes in place of those before.
    async fn reserve(
        &self,
        name: &str,
        before: Option<usize>,
        after: usize,
    ) -> Result<Arc<Reservation>, Failure> {
        let registry = self.registry;
        let write = quota::Write {
            resource: self.resource,
            namespace: self.namespace,
            name,
            before,
            after,
        };
        let reservation = registry
            .quota
            .admit(&registry.store, &registry.cache, write);
        Ok(Arc::new(reservation.await?))
    }

    fn admitted(
        &self,
        key: String,
        action: Action,
        reservation: Option<Arc<Reservation>>,
        room: Option<Room>,
    ) -> Admitted {
        Admitted {
            key,
            action,
            // The store holds them also if the request has gone before it is through.
            held: Held::new((self.held.clone(), reservation.clone(), room)),
            reservation,
            deadline: self.request.deadline,
        }
    }
}

/// R3.51: the last finalizer of a deleting object is gone.
fn completes_deletion(new: &Value, part: Part) -> bool {
    part.is_spec() && object::deleting(new) && object::finalizers(new).is_empty()
}

impl Admitted {
    /// Held with the rest.
    fn hold(&mut self, room: Option<Room>) {
        if room.is_some() {
            self.held = Held::new((self.held.clone(), room));
        }
    }
}

impl Registry {
    /// Writes what was admitted, and keeps the books on it. What is held for it is let go
    /// of when the store is through with it, also if the request has gone before.
    ///
    /// # Errors
    /// 503 if the store did not confirm the write; the outcome is unknown then. 504 if the
    /// answer was due before the store was given anything.
    pub async fn put(&self, admitted: Admitted) -> Result<Written, Failure> {
        let Admitted {
            key,
            action,
            reservation,
            held,
            deadline,
        } = admitted;
        in_time(deadline)?;
        let written = match action {
            Action::Put { bytes, expect } => {
                let writing = self.cache.ledger.begin();
                let put = self.writable.0.put_held(&key, bytes, expect, held).await;
                let written = put.map(|entry| entry.modified);
                note(writing, &written);
                written
            }
            Action::Remove { at } => {
                let writing = self.cache.ledger.begin();
                let removed = self.writable.0.delete_held(&key, at, held).await;
                note(writing, &removed);
                removed.map(|_| at)
            }
            Action::Look => {
                let (current, _) = self.store.get(&key).await.map_err(Failure::of_read)?;
                return Ok(match current {
                    None => Written::Nothing,
                    current => Written::Conflict(current),
                });
            }
            Action::Taken(present) => return Ok(Written::Conflict(Some(*present))),
            Action::Nothing => return Ok(Written::Nothing),
        };
        match written {
            Ok(revision) => {
                if let Some(reservation) = reservation {
                    reservation.written(revision.0);
                }
                Ok(Written::At(revision))
            }
            Err(Error::Conflict { current }) => Ok(Written::Conflict(current)),
            Err(error) => Err(unconfirmed(error)),
        }
    }
}

fn note(writing: Writing<'_>, written: &Result<Revision, Error>) {
    match written {
        Ok(revision) => writing.known(Some(revision.0)),
        Err(Error::Conflict { .. } | Error::Closed | Error::InvalidKey(_)) => writing.known(None),
        // The outcome is unknown.
        Err(_) => drop(writing),
    }
}

/// What went wrong with a write, other than a conflict, which the verbs handle.
///
/// Only a store that was closed has certainly not written: everything else is
/// answered without Retry-After, because clients repeat on it (R3.86).
fn unconfirmed(error: Error) -> Failure {
    match error {
        Error::Closed => Failure::store_unavailable(error),
        Error::InvalidKey(_) => Failure::BadRequest(error.to_string()),
        Error::Unavailable(_) | Error::Corrupt(_) => Failure::Unavailable {
            message: format!("the object store did not confirm the write: {error}"),
            retry_after: 0,
        },
        other => Failure::Internal(other.to_string()),
    }
}
