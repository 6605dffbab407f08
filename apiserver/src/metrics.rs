//! Metrics, under the names that dashboards of Kubernetes know (R9.14).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::target::{Target, Verb};

/// The media type of `/metrics`.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const BUCKETS: [f64; 20] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 20.0, 60.0,
];

/// Those that Kubernetes has for webhooks.
const WEBHOOK_BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// What a request is counted under. Resources that we do not serve share one label, so
/// that a caller cannot make series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailOpenLabels {
    name: String,
    r#type: &'static str,
}

/// All series of the server.
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    durations: Family<RequestLabels, Histogram>,
    inflight: Family<KindLabels, Gauge>,
    long_running: Family<RequestLabels, Gauge>,
    authentications: Family<ResultLabels, Counter>,
    authorizations: Family<ResultLabels, Counter>,
    webhooks: Family<WebhookLabels, Histogram>,
    webhook_rejections: Family<RejectionLabels, Counter>,
    webhook_fail_opens: Family<FailOpenLabels, Counter>,
    audit_events: Counter,
    audit_errors: Family<PluginLabels, Counter>,
    audit_levels: Family<LevelLabels, Counter>,
    audit_rejections: Counter,
    panics: Counter,
    handshake_errors: Counter,
    connections_refused: Counter,
    minted: Counter,
    join_tokens: Counter,
    storage_ready: Gauge,
    quarantined: Gauge,
    floor: Gauge,
    refused: Gauge,
    serving_seconds: Gauge,
    encryption_reloads: Family<StatusLabels, Counter>,
    encryption_reloaded: Family<StatusLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            inflight: Family::default(),
            long_running: Family::default(),
            authentications: Family::default(),
            authorizations: Family::default(),
            webhooks: Family::new_with_constructor(|| Histogram::new(WEBHOOK_BUCKETS)),
            webhook_rejections: Family::default(),
            webhook_fail_opens: Family::default(),
            audit_events: Counter::default(),
            audit_errors: Family::default(),
            audit_levels: Family::default(),
            audit_rejections: Counter::default(),
            panics: Counter::default(),
            handshake_errors: Counter::default(),
            connections_refused: Counter::default(),
            minted: Counter::default(),
            join_tokens: Counter::default(),
            storage_ready: Gauge::default(),
            quarantined: Gauge::default(),
            floor: Gauge::default(),
            refused: Gauge::default(),
            serving_seconds: Gauge::default(),
            encryption_reloads: Family::default(),
            encryption_reloaded: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        // The encoder appends `_total` to counters.
        r.register(
            "steward_trace_spans",
            "Spans by what became of them: exported, failed or dropped",
            telemetry::spans().clone(),
        );
        r.register(
            "apiserver_request",
            "Requests by verb, resource and code",
            self.requests.clone(),
        );
        r.register(
            "apiserver_request_duration_seconds",
            "Time until the answer began, watches apart",
            self.durations.clone(),
        );
        r.register(
            "apiserver_current_inflight_requests",
            "Requests being handled",
            self.inflight.clone(),
        );
        r.register(
            "apiserver_longrunning_requests",
            "Watches that are open",
            self.long_running.clone(),
        );
        r.register(
            "authentication_attempts",
            "Callers by outcome",
            self.authentications.clone(),
        );
        r.register(
            "authorization_attempts",
            "Requests by decision",
            self.authorizations.clone(),
        );
        r.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time that a webhook took to answer",
            self.webhooks.clone(),
        );
        r.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests that a webhook refused, or that failed because it could not be asked",
            self.webhook_rejections.clone(),
        );
        r.register(
            "apiserver_admission_webhook_fail_open_count",
            "Requests that went on although a webhook could not be asked",
            self.webhook_fail_opens.clone(),
        );
        r.register(
            "apiserver_audit_event",
            "Audit events that were handed to the backends",
            self.audit_events.clone(),
        );
        r.register(
            "apiserver_audit_error",
            "Audit events that were not delivered, by what failed",
            self.audit_errors.clone(),
        );
        r.register(
            "apiserver_audit_level",
            "Requests by the level of the audit policy",
            self.audit_levels.clone(),
        );
        r.register(
            "apiserver_audit_requests_rejected",
            "Requests that were refused because they could not be recorded",
            self.audit_rejections.clone(),
        );
        r.register(
            "apiserver_request_panics",
            "Requests that panicked",
            self.panics.clone(),
        );
        r.register(
            "apiserver_tls_handshake_errors",
            "TLS handshakes that failed",
            self.handshake_errors.clone(),
        );
        r.register(
            "apiserver_connections_refused",
            "Connections that were closed at once because there were too many",
            self.connections_refused.clone(),
        );
        r.register(
            "steward_kubeconfigs_minted",
            "Credentials minted",
            self.minted.clone(),
        );
        r.register(
            "steward_join_tokens_minted",
            "Tokens for joining nodes that were made in tenants",
            self.join_tokens.clone(),
        );
        r.register(
            "steward_storage_ready",
            "1 if resource requests are answered from storage",
            self.storage_ready.clone(),
        );
        r.register(
            "steward_objects_quarantined",
            "Stored objects that cannot be read: in no list and no watch, deletable by name",
            self.quarantined.clone(),
        );
        r.register(
            "steward_store_floor_revision",
            "Revision below which a store is taken for an older copy",
            self.floor.clone(),
        );
        r.register(
            "steward_registration_refused",
            "1 if the APIService or a CustomResourceDefinition of our group belongs to another",
            self.refused.clone(),
        );
        r.register(
            "steward_serving_certificate_expiration_seconds",
            "End of the serving certificate, in seconds since 1970",
            self.serving_seconds.clone(),
        );
        r.register(
            "apiserver_encryption_config_controller_automatic_reloads",
            "Changes of the encryption configuration that were taken in or refused",
            self.encryption_reloads.clone(),
        );
        r.register(
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
            "When that was, in seconds since 1970",
            self.encryption_reloaded.clone(),
        );
    }

    /// The configuration of encryption was taken in, or refused.
    pub fn encryption_reloaded(&self, taken: bool, at: jiff::Timestamp) {
        let labels = StatusLabels {
            status: if taken { "success" } else { "failure" },
        };
        self.encryption_reloads.get_or_create(&labels).inc();
        let seconds = at.as_second();
        self.encryption_reloaded.get_or_create(&labels).set(seconds);
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// Never with a String to write to; the type says otherwise.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    /// Counts one call of a webhook.
    pub fn webhook_asked(
        &self,
        name: &str,
        kind: &'static str,
        operation: &'static str,
        rejected: bool,
        took: Duration,
    ) {
        let labels = WebhookLabels {
            name: name.to_owned(),
            r#type: kind,
            operation,
            rejected: if rejected { "true" } else { "false" },
        };
        self.webhooks
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Counts one request that a webhook refused, or that it could not be asked about.
    pub fn webhook_rejected(
        &self,
        name: &str,
        kind: &'static str,
        operation: &'static str,
        error_type: &'static str,
        code: u16,
    ) {
        let labels = RejectionLabels {
            name: name.to_owned(),
            r#type: kind,
            operation,
            error_type,
            // As by Kubernetes: what is larger is one.
            rejection_code: u32::from(code.min(600)),
        };
        self.webhook_rejections.get_or_create(&labels).inc();
    }

    /// Counts one request that went on without a webhook.
    pub fn webhook_failed_open(&self, name: &str, kind: &'static str) {
        let labels = FailOpenLabels {
            name: name.to_owned(),
            r#type: kind,
        };
        self.webhook_fail_opens.get_or_create(&labels).inc();
    }

    /// Counts one answer.
    pub fn answered(
        &self,
        labels: &RequestLabels,
        dry_run: bool,
        code: StatusCode,
        took: Duration,
    ) {
        self.requests
            .get_or_create(&CodeLabels {
                verb: labels.verb,
                dry_run: if dry_run { "All" } else { "" },
                group: labels.group,
                version: labels.version,
                resource: labels.resource,
                subresource: labels.subresource,
                scope: labels.scope,
                component: labels.component,
                code: u32::from(code.as_u16()),
            })
            .inc();
        if !labels.is_watch() {
            self.durations
                .get_or_create(labels)
                .observe(took.as_secs_f64());
        }
    }

    /// Counts a request as being handled until the guard is dropped.
    pub fn enter(self: &Arc<Self>, verb: Verb) -> Held {
        let request_kind = if verb.is_mutating() {
            "mutating"
        } else {
            "readOnly"
        };
        Held::new(
            self.inflight
                .get_or_create(&KindLabels { request_kind })
                .clone(),
        )
    }

    /// Counts a watch as open until the guard is dropped.
    pub fn watching(self: &Arc<Self>, labels: &RequestLabels) -> Held {
        Held::new(self.long_running.get_or_create(labels).clone())
    }

    pub fn authenticated(&self, result: &'static str) {
        self.authentications
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    pub fn authorized(&self, result: &'static str) {
        self.authorizations
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// Counts one event for the backends of audit.
    pub fn audit_event(&self) {
        self.audit_events.inc();
    }

    /// Counts events that `plugin` has lost.
    pub fn audit_failed(&self, plugin: &'static str, events: usize) {
        self.audit_errors
            .get_or_create(&PluginLabels { plugin })
            .inc_by(events as u64);
    }

    /// Counts one request by its level.
    pub fn audited(&self, level: &'static str) {
        self.audit_levels
            .get_or_create(&LevelLabels { level })
            .inc();
    }

    /// Counts one request that could not be recorded and must be.
    pub fn audit_rejected(&self) {
        self.audit_rejections.inc();
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }

    pub fn handshake_failed(&self) {
        self.handshake_errors.inc();
    }

    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub fn minted(&self) {
        self.minted.inc();
    }

    pub fn join_token_minted(&self) {
        self.join_tokens.inc();
    }

    pub fn storage_ready(&self, ready: bool) {
        self.storage_ready.set(i64::from(ready));
    }

    pub fn quarantined(&self, objects: usize) {
        self.quarantined
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    pub fn floor(&self, revision: u64) {
        self.floor.set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    pub fn registration_refused(&self, refused: bool) {
        self.refused.set(i64::from(refused));
    }

    pub fn serving_until(&self, end: jiff::Timestamp) {
        self.serving_seconds.set(end.as_second());
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: Gauge) -> Held {
        gauge.inc();
        Held(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl RequestLabels {
    /// Whether the answer may stay open.
    pub fn is_watch(&self) -> bool {
        self.verb == "WATCH"
    }

    /// The normalised verb (R9.14).
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// `resource`, `namespace` or `cluster`; empty for what is no resource.
    pub fn scope(&self) -> &'static str {
        self.scope
    }

    /// Those of the same patch, if it is a configuration that is applied.
    pub fn of_patch(mut self, applies: bool) -> RequestLabels {
        if applies && self.verb == "PATCH" {
            self.verb = "APPLY";
        }
        self
    }

    /// The labels of a request.
    pub fn of(target: &Target) -> RequestLabels {
        let mut labels = RequestLabels {
            verb: "other",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            scope: "",
            component: "apiserver",
        };
        let Target::Resource(path) = target else {
            if let Target::NonResource { verb, .. } = target {
                labels.verb = if verb == "get" { "GET" } else { "other" };
            }
            return labels;
        };
        labels.verb = match path.verb {
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            Verb::None => "other",
        };
        labels.scope = match (&path.name, &path.namespace) {
            (Some(_), _) => "resource",
            (None, Some(_)) => "namespace",
            (None, None) => "cluster",
        };
        if let Some(resource) = apiservice::find(&path.plural)
            && path.group == apiservice::GROUP
        {
            labels.group = apiservice::GROUP;
            labels.version = apiservice::VERSION;
            labels.resource = resource.plural;
            labels.subresource = path
                .subresource
                .as_deref()
                .and_then(|name| resource.subresource(name))
                .map_or("", apiservice::resource::Subresource::name);
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    /// R9.14.
    #[test]
    fn names_are_those_of_kubernetes_and_strangers_make_no_series() {
        let metrics = Arc::new(Metrics::new());
        for plural in ["datastores", "x1", "x2"] {
            let path = format!("/apis/steward.butlerlabs.dev/v1alpha1/{plural}");
            let labels = RequestLabels::of(&Target::parse(&Method::GET, &path, &[]));
            metrics.answered(&labels, false, StatusCode::OK, Duration::from_millis(1));
        }
        let held = metrics.enter(Verb::Get);
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"apiserver_request_total{verb="LIST",dry_run="",group="steward.butlerlabs.dev",version="v1alpha1",resource="datastores",subresource="",scope="cluster",component="apiserver",code="200"} 1"#), "{text}");
        assert!(text.contains(
            r#"resource="",subresource="",scope="cluster",component="apiserver",code="200"} 2"#
        ));
        assert!(text.contains(r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#));
        drop(held);
        assert!(
            metrics
                .encode()
                .unwrap()
                .contains(r#"apiserver_current_inflight_requests{request_kind="readOnly"} 0"#)
        );
    }
}
