//! Tracing as components of Kubernetes have it (R9.13): spans of `tracing` that go to a
//! collector as OTLP over gRPC.
//!
//! # Flow
//! [`config`] reads a TracingConfiguration; [`start`] makes a layer for the process's
//! subscriber, which turns our crates' spans into OpenTelemetry's, and a task that hands them
//! over ([`export`]). [`propagation`] reads and writes W3C's `traceparent`; [`client`] does so
//! for the calls of a client of Kubernetes. [`log`] makes the subscriber.
//!
//! # Guarantees
//! * Only spans of level TRACE are taken, of the crates that are named, and no lines of the log:
//!   what is said in a trace is said by the code that makes the span.
//! * Whoever makes a span waits for nobody. What is held is bounded by count and by bytes, what
//!   finds no room is counted and gone.
//! * Without [`start`] nobody has a subscriber that wants such spans: then each place that
//!   makes one looks at one number and goes on.

pub mod client;
pub mod config;
mod endpoint;
mod export;
pub mod log;
pub mod propagation;

use std::path::Path;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanLimits};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

pub use crate::export::{BYTES, Exporting, FAREWELL, spans};
pub use apiservice::told::cut;

/// Events and links of one span; more are left out.
const EVENTS: u32 = 32;
/// Attributes of one span.
const ATTRIBUTES: u32 = 48;
/// Bytes of a text that strangers choose, in an attribute: names, paths, user agents.
pub const TEXT: usize = 256;

/// Who makes the spans.
#[derive(Clone, Debug)]
pub struct Component {
    /// `service.name`.
    pub service: &'static str,
    /// `service.instance.id`: which of its replicas.
    pub instance: String,
    /// The crates whose spans are taken.
    pub crates: &'static [&'static str],
}

/// Why there is no log, or no tracing, as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("failed to read tracing config: {0}")]
    Config(#[from] config::Error),
    #[error("failed to validate tracing configuration: {0}")]
    Invalid(String),
    #[error("the exporter of spans cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// A layer for the subscriber of the process, and what exports. Has to be called within a
/// runtime of tokio; the collector is not asked yet.
///
/// # Errors
/// What is wrong with the file, in Kubernetes' words.
pub fn start<S>(
    file: &Path,
    component: Component,
) -> Result<(impl Layer<S> + Send + Sync + use<S>, Exporting), Error>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let config = config::read(file)?;
    let resource = Resource::builder_empty()
        .with_service_name(component.service)
        .with_attribute(KeyValue::new("service.instance.id", component.instance))
        .build();
    let (queue, exporting) = export::start(endpoint::channel(&config)?, &resource)?;
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(sampler(config.rate()))))
        .with_span_limits(SpanLimits {
            max_events_per_span: EVENTS,
            max_attributes_per_span: ATTRIBUTES,
            max_links_per_span: EVENTS,
            ..SpanLimits::default()
        })
        .with_span_processor(queue)
        .with_resource(resource)
        .build();
    Ok((
        layer(&provider, component.service, component.crates),
        exporting,
    ))
}

/// Makes spans of the provider's of those that are taken, with nothing in them beside what the
/// code says.
fn layer<S>(
    provider: &SdkTracerProvider,
    service: &'static str,
    crates: &'static [&'static str],
) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(move |it| takes(crates, it)))
}

/// Of those without a parent; others are sampled if their parent is.
fn sampler(rate: u32) -> Sampler {
    match rate {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(f64::from(rate) / f64::from(config::MILLION)),
    }
}

fn takes(crates: &[&str], of: &Metadata<'_>) -> bool {
    let from = of.target().split("::").next().unwrap_or_default();
    let ours = || from == env!("CARGO_PKG_NAME") || crates.contains(&from);
    of.is_span() && *of.level() == Level::TRACE && ours()
}

#[cfg(test)]
mod tests;
