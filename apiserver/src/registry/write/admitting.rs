//! Where a write asks the cluster's admission ([`crate::policy`]).

use apiservice::BorrowedRight;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use storage::Entry;
use tokio::sync::Mutex;

use super::Writer;
use crate::admission::{self, Author, Part, When};
use crate::decode::{self, Reject};
use crate::limits::Room;
use crate::object::{depth, meta, set_meta};
use crate::options::FieldValidation;
use crate::policy::{Attributes, Counted, Making, Objects, Operation, write_options};
use crate::registry::{ownership, scale};
use crate::status::Failure;
use crate::stored;

/// What webhooks make of an object of ours. Room is held for it twice, as it is sent and as
/// the next one makes it anew, beside what it replaces.
struct Made<'m, 'a> {
    writer: &'m Writer<'a>,
    part: Part,
    old: Option<&'m Value>,
    managers: Option<&'m Value>,
    room: &'m Mutex<Room>,
}

impl Making for Made<'_, '_> {
    fn complete(&self, made: &mut Value) -> Result<(), Failure> {
        self.writer.complete(made)?;
        match (self.old, self.part) {
            (None, _) => stored::fits(made),
            (Some(old), Part::Status) => stored::fits_with_status(made, old),
            (Some(old), Part::Main | Part::Replicas | Part::Place) => {
                stored::fits_instead(made, old)
            }
        }?;
        // What is left out there was weighed before, unless it is the webhook's.
        if self.old.is_some_and(|old| made["status"] != old["status"]) {
            stored::fits_with_status(made, &Value::Null)?;
        }
        if made["metadata"].get("managedFields") != self.managers {
            stored::fits_with_managers(made)?;
        }
        Ok(())
    }

    fn hold<'a>(&'a self, made: &'a Value) -> BoxFuture<'a, Result<(), Failure>> {
        hold(self.room, made, self.old)
    }
}

/// What they make of something else, of which only little is taken: a Scale.
struct Other<'m> {
    before: Option<&'m Value>,
    room: &'m Mutex<Room>,
}

impl Making for Other<'_> {
    fn complete(&self, made: &mut Value) -> Result<(), Failure> {
        if depth::exceeds(made, depth::MAX_DEPTH) {
            return Err(Failure::BadRequest(depth::message()));
        }
        stored::fits(made)
    }

    fn hold<'a>(&'a self, made: &'a Value) -> BoxFuture<'a, Result<(), Failure>> {
        hold(self.room, made, self.before)
    }
}

fn hold<'a>(
    room: &'a Mutex<Room>,
    made: &'a Value,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), Failure>> {
    let hold = async move {
        let copies = [made, made].into_iter().chain(old);
        room.lock().await.hold_copies(copies).await
    };
    hold.boxed()
}

impl<'a> Writer<'a> {
    fn attributes(&self, operation: Operation, part: Part, name: &str) -> Attributes<'a> {
        let options = match self.deletion {
            Some(options) => options.to_value(),
            None => write_options(operation, self.request.query()),
        };
        Attributes {
            operation,
            resource: self.resource,
            subresource: match part {
                Part::Main => "",
                Part::Status => "status",
                Part::Replicas => "scale",
                Part::Place => "migrate",
            },
            namespace: self.namespace,
            name: name.to_owned(),
            identity: self.identity,
            dry_run: self.dry_run,
            options,
            deadline: self.request.deadline,
            warnings: self.warnings,
            annotations: &self.request.annotations,
        }
    }

    /// Waits a little until the cluster's configurations are known, before there is
    /// anything that would be held meanwhile.
    pub(super) async fn wait_for_policies(&self, name: &str) -> Result<(), Failure> {
        let policies = &self.registry.policies;
        if policies.is_loaded() {
            return Ok(());
        }
        let attributes = self.attributes(Operation::Update, Part::Main, name);
        policies.ready(&attributes).await
    }

    /// Has the cluster's admission change what is written; what it makes of the object is
    /// prepared as what a client sends. Returns the room of what was made.
    pub(super) async fn mutate(
        &self,
        old: Option<&Value>,
        new: &mut Value,
        part: Part,
    ) -> Result<Option<Room>, Failure> {
        if part == Part::Place {
            // Of that the request is admitted, before it gets here.
            return Ok(None);
        }
        let operation = match old {
            None => Operation::Create,
            Some(_) => Operation::Update,
        };
        let attributes = self.attributes(operation, part, meta(new, "name"));
        let policies = &self.registry.policies;
        if !policies.may_mutate(&attributes).await? {
            return Ok(None);
        }
        let limits = &self.registry.limits;
        // The object, as it is sent and as it is made anew; and what it replaces.
        let copies = [&*new, &*new].into_iter().chain(old);
        let room = Mutex::new(limits.copies(self.identity, copies).await?);
        if part == Part::Replicas {
            return self
                .mutate_scale(&attributes, old, new, room)
                .await
                .map(|()| None);
        }
        let managers = new["metadata"].get("managedFields").cloned();
        let mut object = Some(new.take());
        let made = Made {
            writer: self,
            part,
            old,
            managers: managers.as_ref(),
            room: &room,
        };
        let changed = policies.mutate(&attributes, &mut object, old, &made);
        let changed = changed.await?;
        *new = object.unwrap_or_default();
        if !changed {
            return Ok(None);
        }
        ownership::keep_readable(managers, new, self.warnings);
        self.prepare_again(old, new, part)?;
        drop(room);
        let made = [&*new];
        limits.copies(self.identity, made).await.map(Some)
    }

    /// Of replicas the Scale is seen, and nothing else is taken of what is made of it.
    async fn mutate_scale(
        &self,
        attributes: &Attributes<'_>,
        old: Option<&Value>,
        new: &mut Value,
        room: Mutex<Room>,
    ) -> Result<(), Failure> {
        let with_managers = |object: &Value| {
            let mut seen = scale::seen(self.resource, object)?;
            let managers = ownership::managers_of_scale(self.resource, object);
            set_meta(&mut seen, "managedFields", managers);
            Ok::<_, Failure>(seen)
        };
        let before = old.and_then(|old| with_managers(old).ok());
        let mut made = Some(with_managers(new)?);
        let policies = &self.registry.policies;
        let making = Other {
            before: old,
            room: &room,
        };
        let changed = policies.mutate(attributes, &mut made, before.as_ref(), &making);
        if changed.await?
            && let Some(made) = made
        {
            *new = scale::take(self.resource, new, made, self.warnings)?;
        }
        Ok(())
    }

    /// What a patch of a webhook made of an object is one of its kind again.
    fn complete(&self, object: &mut Value) -> Result<(), Failure> {
        let ignore = FieldValidation::Ignore;
        let completed = decode::complete(self.resource, object, Vec::new(), ignore, self.warnings);
        completed.map_err(|reject| match reject {
            Reject::Failure(failure) => failure,
            Reject::Decode(why) => Failure::Internal(why),
        })
    }

    fn prepare_again(
        &self,
        old: Option<&Value>,
        new: &mut Value,
        part: Part,
    ) -> Result<(), Failure> {
        let namespace = self.namespace;
        admission::match_namespace(self.resource, new, namespace)?;
        if let Some(name) = self.name {
            admission::match_name(new, name)?;
        }
        let Some(old) = old else {
            return admission::prepare_create_again(self.resource, new, self.warnings);
        };
        let version = old["metadata"].get("resourceVersion").cloned();
        set_meta(new, "resourceVersion", version);
        match part {
            Part::Main | Part::Replicas | Part::Place => {
                let (when, warnings) = (When::Admitted, self.warnings);
                admission::prepare_update(self.resource, new, old, when, warnings)
            }
            // Its managers are recorded already.
            Part::Status => admission::prepare_status(new, old, &Author::Applier),
        }
    }

    /// Asks the cluster's admission whether the object may be stored, if it has anything to
    /// say about it; what the author borrows is asked for before. Says whether it was.
    pub(super) async fn ask_policies(
        &self,
        old: Option<&Value>,
        new: &Value,
        part: Part,
        rights: &[BorrowedRight],
    ) -> Result<bool, Failure> {
        let registry = self.registry;
        if part == Part::Place {
            return Ok(false);
        }
        let operation = match old {
            None => Operation::Create,
            Some(_) => Operation::Update,
        };
        let attributes = self.attributes(operation, part, meta(new, "name"));
        if !registry.policies.may_refuse(&attributes).await? {
            return Ok(false);
        }
        let copies = [new].into_iter().chain(old);
        let _room = registry.limits.copies(self.identity, copies).await?;
        admission::borrowed(
            &registry.authorizer,
            self.identity,
            self.resource,
            new,
            rights,
        )
        .await?;
        let policies = &registry.policies;
        if part == Part::Replicas {
            let after = scale::seen(self.resource, new)?;
            let before = old.and_then(|old| scale::seen(self.resource, old).ok());
            let objects = Objects {
                new: Some(&after),
                old: before.as_ref(),
            };
            policies.validate(&attributes, objects).await?;
            return Ok(true);
        }
        let objects = Objects {
            new: Some(new),
            old,
        };
        policies.validate(&attributes, objects).await?;
        Ok(true)
    }

    /// Counts a creation in the ResourceQuotas of its namespace, unless there is such an
    /// object already: nobody would count it off again. Returns that object, which is what
    /// the creation is refused for, also if it goes in between.
    pub(super) async fn count(&self, key: &str, name: &str) -> Result<Option<Entry>, Failure> {
        let attributes = self.attributes(Operation::Create, Part::Main, name);
        let store = &self.registry.store;
        let found = parking_lot::Mutex::new(None);
        let present = || {
            let look = async {
                let (present, _) = store.get(key).await.map_err(Failure::of_read)?;
                let any = present.is_some();
                *found.lock() = present;
                Ok(any)
            };
            look.boxed()
        };
        let policies = &self.registry.policies;
        Ok(match policies.count(&attributes, &present).await? {
            Counted::Present => found.into_inner(),
            Counted::None | Counted::All => None,
        })
    }

    /// Asks the cluster's admission whether an object may be deleted. One that cannot be
    /// read goes in any case: there is nothing that anybody could say about it.
    pub(super) async fn admit_deletion(&self, old: &Value) -> Result<(), Failure> {
        if meta(old, "uid").is_empty() {
            return Ok(());
        }
        // As by Kubernetes: of a collection each object is shown, and none is named.
        let name = self.name.unwrap_or_default();
        let attributes = self.attributes(Operation::Delete, Part::Main, name);
        let policies = &self.registry.policies;
        let changed = policies.may_mutate(&attributes).await?;
        let refused = policies.may_refuse(&attributes).await?;
        if !changed && !refused {
            return Ok(());
        }
        let room = Mutex::new(self.registry.limits.copies(self.identity, [old]).await?);
        if changed {
            let mut none = None;
            let making = Other {
                before: Some(old),
                room: &room,
            };
            let mutated = policies.mutate(&attributes, &mut none, Some(old), &making);
            mutated.await?;
        }
        let objects = Objects {
            new: None,
            old: Some(old),
        };
        policies.validate(&attributes, objects).await
    }
}
