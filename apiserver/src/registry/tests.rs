//! The verbs in process against real stores, in memory and on disk.
#![allow(clippy::disallowed_methods, reason = "tests start tasks themselves")]

mod decodable;
mod failing;
pub(crate) mod harness;
mod ownership;
mod protobuf;
mod reads;
mod sizes;
mod subresources;
mod watches;
mod writes;
