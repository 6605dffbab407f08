//! Spans of what is asked of the database; a subscriber that wants them makes a trace of it.
//!
//! Named as those of Kubernetes' store (`Create etcd3`), with the key and never a value.
//!
//! ```text
//! Create sqlite      until it is answered
//!   queue            until the writer takes it
//!   transaction      what it and its batch change; with the others of it
//!   commit           until that is on disk: the write-ahead log is synced
//! ```

use tracing::{Span, trace_span};

use crate::Expect;
use crate::log::{Range, Write};

/// A read of one key.
pub fn get(key: &str) -> Span {
    trace_span!("read", otel.name = "Get sqlite", key)
}

/// A read of a page.
pub fn list(range: &Range) -> Span {
    trace_span!(
        "read",
        otel.name = "List sqlite",
        key = range.prefix.as_str(),
        limit = range.limit.map(number),
        resourceVersion = range.at.map(|at| at.0.to_string()),
    )
}

/// What a write goes through. Each step begins when the one before it is dropped.
pub struct Steps {
    whole: Span,
    step: Span,
}

impl Steps {
    /// Of a write that waits for its turn.
    pub fn begin(write: &Write) -> Self {
        let name = match (&write.value, write.expect) {
            (None, _) => "Delete sqlite",
            (Some(_), Expect::Absent) => "Create sqlite",
            (Some(_), Expect::At(_)) => "GuaranteedUpdate sqlite",
        };
        let whole = trace_span!(
            "write",
            otel.name = name,
            key = write.key.as_str(),
            size = write.value.as_ref().map(|value| number(value.len())),
        );
        let step = step(&whole, "queue");
        Self { whole, step }
    }

    /// It is worked on with as many others.
    pub fn transaction(&mut self, batch: usize) {
        self.step = step(&self.whole, "transaction");
        self.step.record("batch", number(batch));
    }

    /// It waits for the disk.
    pub fn commit(&mut self) {
        self.step = step(&self.whole, "commit");
    }
}

fn step(of: &Span, name: &'static str) -> Span {
    if of.is_disabled() {
        return Span::none();
    }
    let batch = tracing::field::Empty;
    trace_span!(parent: of, "step", otel.name = name, batch)
}

/// As a span takes integers; others become texts on their way.
fn number(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
