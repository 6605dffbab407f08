//! Spans of what the controller does by itself: each begins a trace (R9.13).
//!
//! ```text
//! Reconcile tenantcontrolplanes   one pass; namespace and name as attributes
//!   Apply, Create, Grant, …       a step of the plan (apply.rs)
//!     HTTP PATCH                  what is asked of the management cluster, with traceparent
//!   Status                        what is written into the object's status
//! Probe tenantcontrolplanes       a look into a tenant
//! Probe datastores                a look at a datastore
//! ```

use apiservice::v1alpha1::{data_store, tenant_control_plane};
use tracing::field::Empty;
use tracing::{Span, trace_span};

/// Resources, as spans name them.
pub const TENANTS: &str = tenant_control_plane::RESOURCE.plural;
pub const STORES: &str = data_store::RESOURCE.plural;
/// Bytes of what a step says of itself.
const STEP: usize = 256;

/// One round of work on an object. `namespace` is empty for what has none.
pub fn round(what: &'static str, resource: &'static str, namespace: &str, name: &str) -> Span {
    trace_span!(
        parent: None,
        "round",
        otel.name = format!("{what} {resource}"),
        namespace,
        name,
        resource,
    )
}

/// A part of it. `describe` says what is done, without any content.
pub fn step(name: &'static str, describe: impl FnOnce() -> String) -> Span {
    let span = trace_span!(
        "step",
        otel.name = name,
        otel.status_code = Empty,
        otel.status_description = Empty,
        step = Empty,
    );
    if !span.is_disabled() {
        span.record("step", telemetry::cut(describe(), STEP));
    }
    span
}

/// Records that it failed, and for what reason.
pub fn failed(span: &Span, reason: &str) {
    span.record("otel.status_code", "ERROR");
    span.record(
        "otel.status_description",
        telemetry::cut(reason.to_owned(), STEP),
    );
}
