//! UPDATE (contract 3.8), and the loop that every change of a stored object
//! goes through, be it a PUT, a patch, a status or a scale.

use apiservice::Resource;
use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;
use storage::{Expect, Held};

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authn::Identity;
use crate::authz::{Permit, verb};
use crate::decode;
use crate::object::{self, meta};
use crate::options::{Write, WriteKind};
use crate::quota;
use crate::registry::get;
use crate::registry::{Registry, Request, write_failure};
use crate::respond::{self, Warnings};
use crate::status::{Failure, Subject};

/// How often a change is tried against writers that come in between.
const ATTEMPTS: usize = 64;

/// Answers with the changed object.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Update>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    put(registry, &permit, request, Part::Main).await
}

/// PUT of the object or of its status.
pub async fn put(
    registry: &Registry,
    permit: &Permit<verb::Update>,
    request: &Request,
    part: Part,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Object)?;
    let resource = permit.resource();
    let media = decode::media(&request.headers)?;
    let name = get::name(permit)?;
    let options = Write::parse(query, WriteKind::Update)?;
    let mut object = decode::object(
        resource,
        media,
        &request.body,
        options.field_validation,
        &request.warnings,
    )?;
    admission::match_name(&object, name)?;
    admission::match_namespace(resource, &mut object, permit.namespace())?;
    let change = Change::new(registry, permit, request, part, options.dry_run)?;
    let stored = change
        .apply(|old| {
            change.check_uid(&object, old)?;
            Ok(object.clone())
        })
        .await?;
    let now = registry.clock.now();
    Ok(respond::object(
        resource,
        &stored,
        &accept,
        StatusCode::OK,
        now,
    ))
}

/// A change of one stored object.
pub struct Change<'a> {
    registry: &'a Registry,
    identity: &'a Identity,
    resource: &'static Resource,
    namespace: Option<&'a str>,
    name: &'a str,
    part: Part,
    dry_run: bool,
    warnings: &'a Warnings,
    held: &'a Held,
}

impl<'a> Change<'a> {
    /// A change of the object that the permit is for.
    pub fn new<V>(
        registry: &'a Registry,
        permit: &'a Permit<V>,
        request: &'a Request,
        part: Part,
        dry_run: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            registry,
            identity: permit.identity(),
            resource: permit.resource(),
            namespace: permit.namespace(),
            name: get::name(permit)?,
            part,
            dry_run,
            warnings: &request.warnings,
            held: &request.held,
        })
    }

    /// Reads the object, has `build` make the new one, admits and stores it;
    /// starts over if somebody else wrote in between. The new object carries
    /// the resourceVersion that its maker started from, so that a client's own
    /// version becomes a conflict and not a repetition (R3.53).
    ///
    /// Returns the object as stored.
    pub async fn apply(
        &self,
        mut build: impl FnMut(&Value) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let Self {
            registry, resource, ..
        } = *self;
        for _ in 0..ATTEMPTS {
            let entry = get::entry(registry, resource, self.namespace, self.name).await?;
            let decoded = registry.limits.decode(self.identity, &entry.value);
            let mut decoded = decoded.await?;
            let old = object::decode(resource, &entry)?;
            let mut new = build(&old)?;
            if admission::required_version(resource, &new)? != entry.modified.0 {
                return Err(Failure::modified(Subject::of(resource, self.name)));
            }
            match self.part {
                Part::Main | Part::Replicas => {
                    admission::prepare_update(resource, &mut new, &old, self.warnings)?;
                }
                Part::Status => {
                    // R3.72: nothing but the status is taken.
                    let status = new.get("status").cloned();
                    new = old.clone();
                    admission::set_status(&mut new, status);
                    object::fits_with_status(&new)?;
                }
            }
            admission::validate(resource, &new, Some(&old), self.part, self.warnings)?;
            let borrowed = match self.part.is_spec() {
                true => admission::borrows(resource, &new, Some(&old))?,
                false => Vec::new(),
            };
            // Two trees there are only in one go; what is held is the room of the larger.
            drop(old);
            decoded.hold(&new).await?;
            admission::borrowed(registry, self.identity, resource, &new, borrowed).await?;
            let bytes = object::encode(&new)?;
            if bytes == entry.value || self.dry_run {
                // R3.25, R3.52: what changes nothing is not written.
                return Ok(new);
            }
            let completes = self.completes_deletion(&new);
            let room = if self.part != Part::Main || completes {
                // What the controller says, and the end of a deletion, goes on also where
                // the object is as large as it may be, or larger than it may be by now.
                if !completes && bytes.len() > entry.value.len() {
                    registry.quota.fits_with_status(bytes.len())?;
                }
                None
            } else {
                let write = quota::Write {
                    resource,
                    namespace: self.namespace,
                    name: self.name,
                    before: Some(entry.value.len()),
                    after: bytes.len(),
                };
                Some(Arc::new(registry.admit(write).await?))
            };
            let written = if completes {
                let held = Held::new((self.held.clone(), decoded));
                let deleted = registry.remove(&entry.key, entry.modified, held).await;
                deleted.map(|_| entry.modified)
            } else {
                let held = Held::new((self.held.clone(), room.clone(), decoded));
                let put = registry.put(&entry.key, bytes, Expect::At(entry.modified), held);
                put.await.map(|entry| entry.modified)
            };
            match written {
                Ok(revision) => {
                    if let Some(room) = room {
                        room.written(revision.0);
                    }
                    object::set_version(&mut new, revision.0);
                    return Ok(new);
                }
                Err(storage::Error::Conflict { .. }) => {}
                Err(error) => return Err(write_failure(resource, self.name, error)),
            }
        }
        Err(Failure::modified(Subject::of(resource, self.name)))
    }

    /// R3.51: the last finalizer of a deleting object is gone.
    fn completes_deletion(&self, new: &Value) -> bool {
        self.part.is_spec() && object::deleting(new) && object::finalizers(new).is_empty()
    }

    /// R3.48: a uid in the body of a PUT is a precondition. A patch has none: there
    /// it is a field that cannot be changed.
    fn check_uid(&self, new: &Value, old: &Value) -> Result<(), Failure> {
        let (wanted, present) = (meta(new, "uid"), meta(old, "uid"));
        if wanted.is_empty() || wanted == present {
            return Ok(());
        }
        let key = object::key(self.resource, self.namespace, self.name);
        Err(Failure::Conflict {
            subject: Subject::of(self.resource, self.name),
            message: format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}"
            ),
        })
    }
}
