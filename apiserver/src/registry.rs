//! One verb a file, read top to bottom.
//!
//! # Flow
//! A verb asks for the [`Permit`](crate::authz::Permit) that proves its
//! authorization, parses options and body, and for a write goes round
//! `loop { read; build; admit; put }` until the store takes it. [`mod@write`] has the last
//! two, and is the only way into the store.
//!
//! # Guarantees
//! What the store cannot answer is a 503, never a 404 and never an empty list
//! (rule 3). A write is one compare-and-set; its 2xx means that it is on disk.

pub mod apply;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod get;
pub mod list;
pub mod ownership;
pub mod patch;
pub mod scale;
pub mod update;
pub mod watch;
pub mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use apiservice::Resource;
use apiservice::clock::Clock;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use storage::Held;
use tokio_util::sync::CancellationToken;

use crate::aside;
use crate::audit::Annotations;
use crate::authz::Authorizer;
use crate::cache::Cache;
use crate::decode;
use crate::limits::Limits;
use crate::namespaces::Namespaces;
use crate::options::{FieldValidation, Query};
use crate::policy::Policies;
use crate::pool::Pool;
use crate::quota::Quota;
use crate::reader::Reader;
use crate::registry::write::Writable;
use crate::status::Failure;
use crate::warnings::Warnings;

/// What the verbs work with. Clones share it.
#[derive(Clone)]
pub struct Registry {
    /// The objects, to be read.
    pub store: Reader,
    /// The same for [`Registry::put`], which alone writes them.
    pub writable: Writable,
    /// The same objects as bytes; its feeder runs elsewhere.
    pub cache: Arc<Cache>,
    /// Asked before something is stored.
    pub quota: Arc<Quota>,
    /// Bytes of lists that are made from the store and not from the cache, by holder.
    pub answers: Pool,
    /// Room for what a request reads as a tree of values beside its body.
    pub limits: Limits,
    /// Watches that read history.
    pub replays: Pool,
    /// Asked about borrowed rights (rule 8).
    pub authorizer: Arc<Authorizer>,
    /// Asked before something is created in one.
    pub namespaces: Arc<Namespaces>,
    /// Asked before anything is written.
    pub policies: Arc<Policies>,
    /// The time of creation, deletion and ages.
    pub clock: Clock,
    /// Ends the watches.
    pub shutdown: CancellationToken,
}

/// A request as the verbs see it, after its target was classified.
pub struct Request {
    /// Those that say what is sent and what is wanted.
    pub headers: HeaderMap,
    /// Decoded pairs, in order.
    pub query: Arc<[(String, String)]>,
    /// The whole body, within the limit.
    pub body: Bytes,
    /// The path of the URL.
    pub path: String,
    /// By whom places are held ([`crate::limits::holder`]).
    pub caller: String,
    /// When the answer is due.
    pub deadline: tokio::time::Instant,
    /// Become Warning headers of whatever the answer is.
    pub warnings: Warnings,
    /// Go into the audit line of the request.
    pub annotations: Annotations,
    /// The room of the body and the place of the request, which go with what is written.
    pub held: Held,
}

impl Request {
    /// The query, to look parameters up in.
    pub fn query(&self) -> Query<'_> {
        Query::new(&self.query)
    }

    /// The body as an object of a kind.
    ///
    /// # Errors
    /// As [`decode::object`].
    pub async fn object(
        &self,
        resource: &'static Resource,
        media: decode::Media,
        validation: FieldValidation,
    ) -> Result<Value, Failure> {
        let read = || decode::object(resource, media, &self.body, validation, &self.warnings);
        self.read(read).await
    }

    /// Does what takes as long as the body is: of a long one beside the workers.
    pub async fn read<T>(&self, read: impl FnOnce() -> T) -> T {
        aside::documents(&self.caller, self.body.len(), read).await
    }
}
