//! Admission of what is asked of a subresource: a POST is a CREATE of its request, and a
//! DELETE a DELETE of it, to the webhooks and policies of the management cluster (R8.31).

use apiservice::field::{ErrorKind, Path};
use apiservice::schema::Schema;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::authz::Permit;
use crate::object::{self, depth};
use crate::options::{Delete, Query};
use crate::policy::{Attributes, Making, Objects, Operation, write_options};
use crate::registry::{Registry, Request};
use crate::status::Failure;

/// Bytes of a request, with all that webhooks have added.
const REQUEST: usize = 64 * 1024;

/// How something is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Sent {
        dry_run: bool,
    },
    /// By a GET, which has neither a body nor the options of a write.
    Read,
}

/// One request, as the cluster's admission is asked about it.
pub(super) struct Admission<'a> {
    registry: &'a Registry,
    attributes: Attributes<'a>,
    schema: &'static Schema,
}

impl<'a> Admission<'a> {
    /// A request that a client sends, or that stands for its GET: then without its query.
    pub(super) fn new<V>(
        registry: &'a Registry,
        permit: &'a Permit<V>,
        request: &'a Request,
        schema: &'static Schema,
        how: How,
    ) -> Self {
        let (dry_run, query) = match how {
            How::Sent { dry_run } => (dry_run, request.query()),
            How::Read => (false, Query::default()),
        };
        let attributes = Attributes {
            dry_run,
            options: write_options(Operation::Create, query),
            ..attributes(permit, request, Operation::Create)
        };
        Self {
            registry,
            attributes,
            schema,
        }
    }

    /// A DELETE of it.
    pub(super) fn deleting<V>(
        registry: &'a Registry,
        permit: &'a Permit<V>,
        request: &'a Request,
        schema: &'static Schema,
        options: &Delete,
    ) -> Self {
        let attributes = Attributes {
            dry_run: options.dry_run,
            options: options.to_value(),
            ..attributes(permit, request, Operation::Delete)
        };
        Self {
            registry,
            attributes,
            schema,
        }
    }

    /// Whether anybody is to be asked.
    ///
    /// # Errors
    /// 403 while that is not known.
    pub(super) async fn concerns_any(&self) -> Result<bool, Failure> {
        let policies = &self.registry.policies;
        Ok(policies.may_mutate(&self.attributes).await?
            || policies.may_refuse(&self.attributes).await?)
    }

    /// What mutating admission makes of the request: of the same types, but to be checked
    /// as what a client sends.
    ///
    /// # Errors
    /// Those of admission.
    pub(super) async fn mutate(&self, asked: Value) -> Result<Value, Failure> {
        let policies = &self.registry.policies;
        if !policies.may_mutate(&self.attributes).await? {
            return Ok(asked);
        }
        let mut object = Some(asked);
        policies
            .mutate(&self.attributes, &mut object, None, self)
            .await?;
        Ok(object.unwrap_or_default())
    }

    /// Whether what is to be granted may be.
    ///
    /// # Errors
    /// Those of admission.
    pub(super) async fn validate(&self, granted: &Value) -> Result<(), Failure> {
        let policies = &self.registry.policies;
        if !policies.may_refuse(&self.attributes).await? {
            return Ok(());
        }
        let objects = Objects {
            new: Some(granted),
            old: None,
        };
        policies.validate(&self.attributes, objects).await?;
        self.attributes.in_time()
    }

    /// Whether `old` may be deleted.
    ///
    /// # Errors
    /// Those of admission.
    pub(super) async fn allow_deletion(&self, old: &Value) -> Result<(), Failure> {
        let policies = &self.registry.policies;
        let attributes = &self.attributes;
        if policies.may_mutate(attributes).await? {
            let mut none = None;
            let mutated = policies.mutate(attributes, &mut none, Some(old), self);
            mutated.await?;
        }
        if policies.may_refuse(attributes).await? {
            let objects = Objects {
                new: None,
                old: Some(old),
            };
            policies.validate(attributes, objects).await?;
        }
        attributes.in_time()
    }
}

/// What the permit is for, without the options.
fn attributes<'a, V>(
    permit: &'a Permit<V>,
    request: &'a Request,
    operation: Operation,
) -> Attributes<'a> {
    let subresource = permit.subresource();
    Attributes {
        operation,
        resource: permit.resource(),
        subresource: subresource.map_or("", |subresource| subresource.name()),
        namespace: permit.namespace(),
        name: permit.name().unwrap_or_default().to_owned(),
        identity: permit.identity(),
        dry_run: false,
        options: Value::Null,
        deadline: request.deadline,
        warnings: &request.warnings,
        annotations: &request.annotations,
    }
}

impl Making for Admission<'_> {
    fn complete(&self, object: &mut Value) -> Result<(), Failure> {
        if depth::exceeds(object, depth::MAX_DEPTH) {
            return Err(Failure::BadRequest(depth::message()));
        }
        self.schema.prune(object);
        let bytes = object::length(object);
        if bytes > REQUEST {
            return Err(Failure::TooLarge(format!("limit is {REQUEST}")));
        }
        let errors = self.schema.validate(object, &Path::root()).into_iter();
        let mut wrong = errors.filter(|error| error.kind == ErrorKind::TypeInvalid);
        match wrong.next() {
            None => Ok(()),
            Some(error) => Err(Failure::Internal(error.to_string())),
        }
    }

    /// It is small.
    fn hold<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<(), Failure>> {
        async { Ok(()) }.boxed()
    }
}
