//! Spans on their way to the collector.
//!
//! # Guarantees
//! * [`QUEUE`] spans wait, and [`BYTES`] of them; what comes on top is gone and counted.
//! * A batch is sent once. What the collector does not take within [`PATIENCE`] is gone and
//!   counted; a line of the log says so, once in [`QUIET`].
//! * The end of the process takes [`FAREWELL`] at most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use opentelemetry::{Context, Value};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Spans that wait; the default of OpenTelemetry, as the next two.
const QUEUE: usize = 2048;
/// Spans of a batch.
const BATCH: usize = 512;
/// How long a batch waits until it is full.
const DELAY: Duration = Duration::from_secs(5);
/// Bytes of the spans that wait: a kilobyte for each.
pub const BYTES: usize = 2 * 1024 * 1024;
/// What a span takes beside its texts, and an event or attribute of it, about.
const SPAN: usize = 512;
const PART: usize = 96;
/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two lines about a collector that takes nothing.
const QUIET: Duration = Duration::from_secs(60);
/// How long the last spans may take.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// What became of spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Fate {
    result: &'static str,
}

/// The counter of spans of this process, by what became of them: `exported`, `failed` (the
/// collector did not take them) and `dropped` (there was no room).
pub fn spans() -> &'static Family<Fate, Counter> {
    static SPANS: LazyLock<Family<Fate, Counter>> = LazyLock::new(|| {
        let spans = Family::default();
        for result in ["exported", "failed", "dropped"] {
            drop(spans.get_or_create(&Fate { result }));
        }
        spans
    });
    &SPANS
}

fn count(result: &'static str, number: usize) {
    spans()
        .get_or_create(&Fate { result })
        .inc_by(number as u64);
}

/// The task that exports.
#[derive(Debug)]
pub struct Exporting {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Exporting {
    /// Exports what there is, for a few seconds at most.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(FAREWELL, &mut self.task)
            .await
            .is_err()
        {
            tracing::warn!("the collector did not take the last spans in time");
            self.task.abort();
        }
    }
}

/// Where spans end up, and who takes them from there.
pub(crate) fn start(
    channel: Channel,
    resource: &Resource,
) -> Result<(Queue, Exporting), opentelemetry_otlp::ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic().with_channel(channel);
    let exporter = exporter.with_retry_policy(RetryPolicy::disabled());
    let mut exporter = exporter.build()?;
    exporter.set_resource(resource);
    let (sender, spans) = mpsc::channel(QUEUE);
    let bytes = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let worker = Worker {
        exporter,
        spans,
        bytes: bytes.clone(),
        batch: Vec::new(),
        told: None,
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "its handle is waited for in stop()"
    )]
    let task = tokio::spawn(worker.run(stop.clone()));
    Ok((Queue { sender, bytes }, Exporting { task, stop }))
}

/// Takes spans that have ended.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<SpanData>,
    bytes: Arc<AtomicUsize>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let size = size(&span);
        let before = self.bytes.fetch_add(size, Ordering::AcqRel);
        if before + size > BYTES || self.sender.try_send(span).is_err() {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// About how many bytes a span takes.
fn size(span: &SpanData) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) => text.as_str().len(),
        _ => 0,
    };
    let attributes = span.attributes.iter();
    let attributes = attributes.map(|it| PART + it.key.as_str().len() + text(&it.value));
    let events = span.events.iter();
    let events = events.map(|it| PART + it.name.len() + PART * it.attributes.len());
    SPAN + span.name.len() + attributes.sum::<usize>() + events.sum::<usize>()
}

struct Worker {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    bytes: Arc<AtomicUsize>,
    batch: Vec<SpanData>,
    /// When it was last said that the collector takes nothing.
    told: Option<Instant>,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.fill()).await.is_some() {
            self.export().await;
        }
        self.spans.close();
        while self.spans.recv_many(&mut self.batch, BATCH).await > 0 {
            self.export().await;
        }
        self.export().await;
    }

    /// Waits until there is a batch: a full one, or one whose first span has waited for long
    /// enough. What it has so far stays where it is if nobody waits any more.
    async fn fill(&mut self) {
        let mut until = None;
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            let more = self.spans.recv_many(&mut self.batch, room);
            let more = match until {
                None => Ok(more.await),
                Some(until) => tokio::time::timeout_at(until, more).await,
            };
            match more {
                Err(_) => return,
                // Nobody makes spans any more; there is only the end to wait for.
                Ok(0) => std::future::pending().await,
                Ok(_) => {}
            }
            until.get_or_insert_with(|| Instant::now() + DELAY);
        }
    }

    async fn export(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let number = batch.len();
        if number == 0 {
            return;
        }
        let bytes = batch.iter().map(size).sum();
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let why = match tokio::time::timeout(PATIENCE, self.exporter.export(batch)).await {
            Ok(Ok(())) => return count("exported", number),
            Ok(Err(why)) => apiservice::told::cut(why.to_string(), crate::TEXT),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        count("failed", number);
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            self.told = Some(Instant::now());
            tracing::warn!(
                why,
                spans = number,
                "the collector takes no spans; they are lost"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tokio::net::{UnixSocket, UnixStream};
    use tonic::transport::Endpoint;

    use super::*;

    /// Who counts spans is alone: the counters are the process's.
    static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn counted(result: &'static str) -> u64 {
        spans().get_or_create(&Fate { result }).get()
    }

    /// Nobody waits for a collector that is not there: what it does not take is counted, and
    /// what waits for it is bounded by count and by bytes.
    #[tokio::test]
    async fn a_collector_that_is_away_costs_room_for_so_many_spans() {
        let _alone = COUNTING.lock().await;
        let nowhere = Endpoint::from_static("http://127.0.0.1:1");
        let resource = Resource::builder_empty().build();
        let run = async |number: usize, text: usize| {
            let before = ["dropped", "failed"].map(counted);
            let (queue, exporting) = start(nowhere.connect_lazy(), &resource).unwrap();
            let bytes = queue.bytes.clone();
            let provider = SdkTracerProvider::builder().with_span_processor(queue);
            let provider = provider.build();
            let tracer = provider.tracer("test");
            for _ in 0..number {
                let span = tracer.span_builder("a");
                let text = "x".repeat(text);
                span.with_attributes([KeyValue::new("text", text)])
                    .start(&tracer);
            }
            let began = Instant::now();
            exporting.stop().await;
            assert!(began.elapsed() < FAREWELL + Duration::from_secs(2));
            assert_eq!(bytes.load(Ordering::Acquire), 0);
            let [dropped, failed] = before;
            (counted("dropped") - dropped, counted("failed") - failed)
        };
        assert_eq!(run(QUEUE + 100, 0).await, (100, QUEUE as u64));
        let (dropped, failed) = run(200, 64 * 1024).await;
        assert_eq!(dropped + failed, 200);
        assert!((28..33).contains(&failed), "{failed}");
    }

    /// Lets as many wait for a listener as may, for as long as what is given is held.
    async fn fill(path: &std::path::Path) -> Vec<UnixStream> {
        let mut waiting = Vec::new();
        while let Ok(one) = UnixStream::connect(path).await {
            waiting.push(one);
            assert!(waiting.len() < 100, "there is always room for one more");
        }
        waiting
    }

    /// How long the end takes with a span for a collector that accepts no connection, and has
    /// no room for one more that waits.
    async fn end_without_room(path: &std::path::Path) -> Duration {
        let _alone = COUNTING.lock().await;
        let listener = UnixSocket::new_stream().unwrap();
        listener.bind(path).unwrap();
        let _listener = listener.listen(0).unwrap();
        let _waiting = fill(path).await;
        let config = format!("endpoint: unix://{}", path.display());
        let config = serde_saphyr::from_str(&config).unwrap();
        let channel = crate::endpoint::channel(&config).unwrap();
        let (queue, exporting) = start(channel, &Resource::builder_empty().build()).unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(queue);
        let failed = counted("failed");
        drop(provider.build().tracer("test").start("a"));
        let began = Instant::now();
        exporting.stop().await;
        assert_eq!(counted("failed") - failed, 1);
        began.elapsed()
    }

    /// A runtime with one thread: who blocks it ends nothing, nor hears that time is over.
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a thread that is blocked cannot be waited for"
    )]
    fn a_collector_that_accepts_nobody_blocks_no_thread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (ended, end) = std::sync::mpsc::channel();
        // It is not waited for: without an end this fails, and does not hang.
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            ended.send(runtime.block_on(end_without_room(&path)))
        });
        let took = end.recv_timeout(Duration::from_secs(60));
        assert!(took.is_ok_and(|took| took < FAREWELL), "{took:?}");
    }
}
