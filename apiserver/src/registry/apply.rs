//! PATCH with a configuration: server-side apply (contract 5.3).

use apiservice::{Resource, told};
use axum::body::Body;
use http::{Response, StatusCode, header};
use serde_json::{Map, Value};

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authz::{Permit, verb};
use crate::decode::{self, Media, Reject};
use crate::object::{depth, meta, set_meta};
use crate::options::{FieldValidation, Write, WriteKind};
use crate::registry::ownership::{self, Applied};
use crate::registry::update::Change;
use crate::registry::write::{Writer, Written};
use crate::registry::{Registry, Request, get};
use crate::respond;
use crate::status::{Failure, Subject};
use crate::warnings::Warnings;

/// The list in the 415 (R3.54); clients fall back on seeing it (R8.7).
pub const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// How often a creation is tried anew when the object comes and goes in between.
const ATTEMPTS: usize = 8;

/// A configuration as it came, and what a strict reader says of it.
#[derive(Debug)]
pub struct Config {
    pub value: Value,
    duplicates: Vec<String>,
}

/// Whether the request is to apply a configuration.
pub fn is_asked(request: &Request) -> bool {
    decode::content_type(&request.headers) == decode::APPLY
}

impl Config {
    /// The configuration in the body: YAML or JSON.
    ///
    /// # Errors
    /// 400 for what cannot be read, 413 for what is too large as a tree, 415.
    pub fn read(request: &Request) -> Result<Self, Failure> {
        if request.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Failure::UnsupportedMediaType(ACCEPTED.to_owned()));
        }
        let undecoded = |why: &str| Failure::BadRequest(format!("error decoding YAML: {why}"));
        let parsed = decode::parse(Media::Either, &request.body).map_err(|error| {
            error.or(|why| undecoded(&format!("error converting YAML to JSON: yaml: {why}")))
        })?;
        let mut value = parsed.value;
        if value.is_null() {
            value = Value::Object(Map::new());
        }
        if depth::exceeds(&value, depth::MAX_DEPTH) {
            return Err(Failure::BadRequest(depth::message()));
        }
        decode::must_be_object(&value).map_err(|why| {
            undecoded(&format!(
                "error unmarshaling JSON: while decoding JSON: {why}"
            ))
        })?;
        Ok(Self {
            value,
            duplicates: parsed.duplicates,
        })
    }

    /// With the spellings that are taken and rewritten (rule 6), as in any other write.
    fn normalized(mut self, resource: &Resource) -> Self {
        resource.normalize(&mut self.value);
        self
    }

    /// R5.23: what is given twice is a mistake, a warning, or nothing.
    ///
    /// # Errors
    /// 400 if the client asked for strictness.
    pub fn judge(&self, validation: FieldValidation, warnings: &Warnings) -> Result<(), Failure> {
        match (validation, self.duplicates.first()) {
            (FieldValidation::Ignore, _) | (_, None) => Ok(()),
            (FieldValidation::Warn, _) => {
                decode::warn(&self.duplicates, warnings);
                Ok(())
            }
            (FieldValidation::Strict, Some(text)) => {
                let text = format!("error converting YAML to JSON: {text}");
                let text = told::cut(text, told::MAX_TEXT);
                let why = format!("error strict decoding YAML: {text}");
                Err(Failure::BadRequest(why))
            }
        }
    }
}

/// Applies a configuration to the object or its status, and answers with what became of it.
/// An object that is not there is created.
pub async fn run(
    registry: &Registry,
    permit: &Permit<verb::Patch>,
    request: &Request,
    part: Part,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Object)?;
    let options = Write::parse(query, WriteKind::Apply)?;
    let name = get::name(permit)?;
    let apply = Apply {
        registry,
        permit,
        request,
        options,
        config: request
            .read(|| Config::read(request))
            .await?
            .normalized(permit.resource()),
        part,
        name,
    };
    let (stored, code) = apply.run().await?;
    let now = registry.clock.now();
    let resource = permit.resource();
    Ok(respond::object(resource, &stored, &accept, code, now))
}

struct Apply<'a> {
    registry: &'a Registry,
    permit: &'a Permit<verb::Patch>,
    request: &'a Request,
    options: Write,
    config: Config,
    part: Part,
    name: &'a str,
}

impl Apply<'_> {
    async fn run(&self) -> Result<(Value, StatusCode), Failure> {
        for _ in 0..ATTEMPTS {
            match self.change().await {
                Err(Failure::NotFound(_)) if self.part == Part::Main => {}
                changed => return Ok((changed?, StatusCode::OK)),
            }
            if let Some(created) = self.create().await? {
                return Ok((created, StatusCode::CREATED));
            }
        }
        let subject = Subject::of(self.permit.resource(), self.name);
        Err(Failure::modified(subject))
    }

    async fn change(&self) -> Result<Value, Failure> {
        let dry_run = self.options.dry_run;
        let change = Change::new(self.registry, self.permit, self.request, self.part, dry_run)?;
        let change = change.applying(&self.config.value);
        change.apply(|old| self.applied(Some(old))).await
    }

    /// Nothing if somebody else was faster.
    async fn create(&self) -> Result<Option<Value>, Failure> {
        let registry = self.registry;
        let resource = self.permit.resource();
        let permit = registry.authorizer.also_create(self.permit).await?;
        // Beside the configuration there is the object until it is stored.
        let limits = &registry.limits;
        let _room = limits.make(permit.identity(), &self.config.value).await?;
        let mut new = self.request.read(|| self.applied(None)).await?;
        let uid = meta(&new, "uid");
        if !uid.is_empty() {
            let uid = told::short(uid, told::MAX_PATH);
            return Err(Failure::Conflict {
                subject: Subject::of(resource, self.name),
                message: format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                ),
            });
        }
        // As by Kubernetes: there is nothing that it could be compared with.
        set_meta(&mut new, "resourceVersion", None);
        let writer = Writer::new(registry, &permit, self.request, self.options.dry_run);
        let writer = writer.applying();
        let mut new = writer.prepare_create(new).await?;
        let admitted = writer.admit_create(&mut new).await?;
        match registry.put(admitted).await? {
            Written::At(revision) => Ok(Some(new.into_object(Some(revision)))),
            Written::Nothing => Ok(Some(new.into_object(None))),
            Written::Conflict(_) => Ok(None),
        }
    }

    /// The object with the configuration, as it would have come from a client.
    fn applied(&self, old: Option<&Value>) -> Result<Value, Failure> {
        let resource = self.permit.resource();
        let by = Applied {
            manager: self
                .request
                .query()
                .first("fieldManager")
                .unwrap_or_default(),
            force: self.options.force,
            now: self.registry.clock.now(),
        };
        let config = &self.config;
        let mut new = ownership::apply(resource, self.part, old, &config.value, by)?;
        config.judge(self.options.field_validation, &self.request.warnings)?;
        let (ignore, warnings) = (FieldValidation::Ignore, &self.request.warnings);
        decode::complete(resource, &mut new, Vec::new(), ignore, warnings).map_err(|reject| {
            match reject {
                Reject::Failure(failure) => failure,
                Reject::Decode(why) => Failure::Unexplained(why),
            }
        })?;
        admission::match_namespace(resource, &mut new, self.permit.namespace())?;
        admission::match_name(&new, self.name)?;
        Ok(new)
    }
}
