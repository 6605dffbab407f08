//! UPDATE (contract 3.8), and the loop that every change of a stored object
//! goes through, be it a PUT, a patch, a status or a scale.

use apiservice::{Resource, told};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authz::{Permit, verb};
use crate::decode;
use crate::merge::Patch;
use crate::object::{self, meta};
use crate::options::{Write, WriteKind};
use crate::registry::get;
use crate::registry::write::{Writer, Written};
use crate::registry::{Registry, Request};
use crate::respond;
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
    let mut object = request
        .object(resource, media, options.field_validation)
        .await?;
    admission::match_name(&object, name)?;
    admission::match_namespace(resource, &mut object, permit.namespace())?;
    let change = Change::new(registry, permit, request, part, options.dry_run)?;
    let stored = change
        .apply(|old| {
            check_uid(permit, name, &object, old)?;
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
    writer: Writer<'a>,
    resource: &'static Resource,
    name: &'a str,
    part: Part,
    /// The configuration, if one is applied.
    config: Option<&'a Value>,
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
            writer: Writer::new(registry, permit, request, dry_run),
            resource: permit.resource(),
            name: get::name(permit)?,
            part,
            config: None,
        })
    }

    /// The same for a patch.
    pub fn patching(self, patch: &Patch) -> Self {
        Self {
            writer: self.writer.patching(patch),
            ..self
        }
    }

    /// The same for a configuration that is applied.
    pub fn applying(self, config: &'a Value) -> Self {
        Self {
            writer: self.writer.applying(),
            config: Some(config),
            ..self
        }
    }

    /// Reads the object, has `build` make the new one, admits and stores it; starts over if
    /// somebody else wrote in between. The new object carries the resourceVersion that its maker started from, so that a client's own
    /// version becomes a conflict and not a repetition (R3.53).
    ///
    /// Returns the object as stored.
    pub async fn apply(
        &self,
        mut build: impl FnMut(&Value) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let modified = || Failure::modified(Subject::of(self.resource, self.name));
        for _ in 0..ATTEMPTS {
            let mut old = self.writer.read(self.name).await?;
            if let Some(config) = self.config {
                old.make_room(config).await?;
            }
            let revision = old.revision();
            let build = |old: &Value| {
                let new = build(old)?;
                match admission::required_version(self.resource, &new)? == revision {
                    true => Ok(new),
                    false => Err(modified()),
                }
            };
            let changed = self.writer.prepare_update(&mut old, self.part, build);
            let mut changed = changed.await?;
            let admitted = self.writer.admit_update(old, &mut changed).await?;
            match self.registry.put(admitted).await? {
                Written::At(revision) => return Ok(changed.into_object(Some(revision))),
                Written::Nothing => return Ok(changed.into_object(None)),
                Written::Conflict(_) => {}
            }
        }
        Err(modified())
    }
}

/// R3.48: a uid in the body of a PUT is a precondition. A patch has none: there
/// it is a field that cannot be changed.
///
/// # Errors
/// 409 if it is another.
pub fn check_uid<V>(
    permit: &Permit<V>,
    name: &str,
    new: &Value,
    old: &Value,
) -> Result<(), Failure> {
    let (wanted, present) = (meta(new, "uid"), meta(old, "uid"));
    if wanted.is_empty() || wanted == present {
        return Ok(());
    }
    let key = object::key(permit.resource(), permit.namespace(), name);
    let wanted = told::short(wanted, told::MAX_PATH);
    Err(Failure::Conflict {
        subject: Subject::of(permit.resource(), name),
        message: format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}"
        ),
    })
}
