//! Who did what (R9.10, R9.11, R9.12).
//!
//! With a policy and a backend, requests become events of `audit.k8s.io/v1` as by
//! kube-apiserver:
//!
//! ```text
//! pipeline.rs      -> trail.rs     one request: what is known of it so far, stage by stage
//! policy.rs                        how much of it is said: the first rule that matches
//! secrets.rs                       whose bodies are never said, whatever the policy is
//! event.rs, body.rs, bounds.rs     an event, as JSON
//! auditor.rs       -> backend.rs   to each backend: wait for it, or not
//! queue.rs, batch.rs               bounded by count and bytes; in batches, at a pace
//! log.rs, rotation.rs, webhook.rs  a file or standard output; a POST
//! ```
//! Without them there is one line of the log ([`lines`]).

pub mod annotations;
pub mod args;
pub mod auditor;
pub mod backend;
pub mod batch;
pub mod body;
pub mod bounds;
pub mod event;
pub mod lines;
pub mod log;
pub mod policy;
pub mod queue;
pub mod recording;
pub mod rotation;
pub mod secrets;
pub mod trail;
pub mod webhook;

pub use annotations::Annotations;
pub use auditor::{Auditor, Error};
pub use lines::{
    JoinToken, Line, Mint, abandoned, join_token_minted, join_token_revoked, minted, request,
};
pub use secrets::without_token;
pub use trail::{Seen, Trail, addresses};
