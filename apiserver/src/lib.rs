//! A Kubernetes API over the log: the server that answers
//! `steward.butlerlabs.dev` behind the aggregation layer.
//!
//! Follow a request in [`pipeline`]: bytes ([`server`], [`tls`], [`limits`], [`pool`],
//! [`sending`]) ->
//! [`target`] -> [`authn`] -> [`authz`] -> [`registry`] -> [`respond`] or
//! [`status`]. What is said of it afterwards is [`audit`].

pub mod accept;
pub mod admission;
pub mod args;
pub mod aside;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod buckets;
pub mod cache;
pub mod decode;
pub mod documents;
pub mod encryption;
mod health;
pub mod kubeconfig;
pub mod limits;
pub mod linger;
pub mod live_bytes;
pub mod managed;
#[cfg(test)]
mod memory_bounds;
pub mod merge;
pub mod metrics;
pub mod namespaces;
pub mod object;
pub mod options;
pub mod pipeline;
pub mod policy;
pub mod pool;
pub mod protobuf;
pub mod quota;
pub mod reader;
pub mod registration;
pub mod registry;
pub mod respond;
pub mod response_body;
pub mod review_cache;
pub mod reviews;
pub mod run;
pub mod selector;
pub mod sending;
pub mod server;
pub mod serving_pair;
pub mod spans;
pub mod status;
pub mod store_guard;
pub mod stored;
pub mod subresource;
pub mod table;
pub mod target;
pub mod tls;
pub mod trust;
pub mod turns;
pub mod warnings;
mod watched;
pub mod whole_body;
