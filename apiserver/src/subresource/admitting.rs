//! Admission of what is minted: a POST to a subresource is a CREATE of its request, to the
//! webhooks and policies of the management cluster (R8.31).

use apiservice::field::{ErrorKind, Path};
use apiservice::schema::Schema;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::authz::Permit;
use crate::decode::depth;
use crate::merge;
use crate::options::Query;
use crate::policy::{Attributes, Making, Objects, Operation, write_options};
use crate::registry::{Registry, Request};
use crate::status::Failure;

/// Bytes of a request for a credential, with all that webhooks have added.
const REQUEST: usize = 64 * 1024;

/// How a credential is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Sent {
        dry_run: bool,
    },
    /// By a GET, which has neither a body nor the options of a write.
    Read,
}

/// One request for a credential.
pub(super) struct Minting<'a> {
    registry: &'a Registry,
    attributes: Attributes<'a>,
    schema: &'static Schema,
}

impl<'a> Minting<'a> {
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
        let subresource = permit.subresource();
        let attributes = Attributes {
            operation: Operation::Create,
            resource: permit.resource(),
            subresource: subresource.map_or("", |subresource| subresource.name()),
            namespace: permit.namespace(),
            name: permit.name().unwrap_or_default().to_owned(),
            identity: permit.identity(),
            dry_run,
            options: write_options(Operation::Create, query),
            deadline: request.deadline,
            warnings: &request.warnings,
            annotations: &request.annotations,
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
}

impl Making for Minting<'_> {
    fn complete(&self, object: &mut Value) -> Result<(), Failure> {
        if depth::exceeds(object, depth::MAX_DEPTH) {
            return Err(Failure::BadRequest(depth::message()));
        }
        self.schema.prune(object);
        let bytes = merge::length(object);
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
