//! The stream with the claims, as the server has it.

use serde_json::{Value, json};

/// The stream.
pub(super) const NAME: &str = "steward_claims";
/// Requests under way at a time when all claims are read.
pub(super) const READERS: u64 = 32;
/// In the stream's metadata: that each claim has its entry.
pub(super) const NOTED: (&str, &str) = ("steward.butlerlabs.dev/claims", "by-uid");

/// Its settings.
pub(super) fn config(replicas: usize) -> Value {
    json!({
        // What a follower says may be old.
        "allow_direct": false,
        "description": "Whose names of buckets and users are",
        "discard": "old",
        "max_age": 0,
        "max_bytes": -1,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": 1,
        "metadata": metadata(),
        "name": NAME,
        "num_replicas": replicas,
        "retention": "limits",
        "storage": "file",
        "subjects": ["claims.>"],
    })
}

/// Of a stream in which all claims have entries.
pub(super) fn metadata() -> Value {
    json!({ NOTED.0: NOTED.1 })
}

/// The numbers of the first and of the last message.
pub(super) fn span(stream: &Value) -> (u64, u64) {
    let state = |name: &str| stream["state"][name].as_u64().unwrap_or(0);
    (state("first_seq"), state("last_seq"))
}
