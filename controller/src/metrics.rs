//! What the controller counts, in the Prometheus text format.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Handles of all metrics; cheap to update.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    steps: Family<Labels, Counter>,
    calls: Family<Labels, Counter>,
    passes: Family<Labels, Histogram>,
    queue: Gauge,
    leading: Gauge,
    tenants: Family<Labels, Gauge>,
    data_stores: Family<Labels, Gauge>,
}

/// One label: what kind of thing was counted.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Labels {
    kind: String,
}

fn kind(kind: &str) -> Labels {
    Labels { kind: kind.into() }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("steward_controller");
        let steps = Family::default();
        let calls = Family::default();
        let passes = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))) as fn() -> Histogram,
        );
        let (queue, leading) = (Gauge::default(), Gauge::default());
        let (tenants, data_stores) = (Family::default(), Family::default());
        registry.register(
            "steps",
            "Steps of plans carried out, by result",
            steps.clone(),
        );
        registry.register(
            "cluster_calls",
            "Calls that may write to the management cluster, by method",
            calls.clone(),
        );
        registry.register(
            "pass_duration_seconds",
            "Time of a pass over one object, by kind",
            passes.clone(),
        );
        registry.register(
            "queue_depth",
            "Objects that wait for a worker",
            queue.clone(),
        );
        registry.register("leading", "1 while this replica leads", leading.clone());
        registry.register(
            "tenants",
            "TenantControlPlanes, by readiness",
            tenants.clone(),
        );
        registry.register(
            "data_stores",
            "DataStores, by readiness",
            data_stores.clone(),
        );
        Self {
            registry,
            steps,
            calls,
            passes,
            queue,
            leading,
            tenants,
            data_stores,
        }
    }

    /// Counts a step.
    pub fn steps(&self, result: &str) {
        self.steps.get_or_create(&kind(result)).inc();
    }

    /// Counts a call.
    pub fn calls(&self, method: &str) {
        self.calls.get_or_create(&kind(method)).inc();
    }

    /// Times a pass.
    pub fn pass(&self, of: &str, seconds: f64) {
        self.passes.get_or_create(&kind(of)).observe(seconds);
    }

    /// What is read at the moment of a scrape.
    pub fn refresh(&self, ctx: &crate::context::Context) {
        use apiservice::condition;
        self.queue
            .set(i64::try_from(ctx.queue.depth()).unwrap_or(i64::MAX));
        self.leading.set(i64::from(ctx.leadership.leads()));
        let (mut ready, mut other) = (0, 0);
        for tenant in ctx.caches.tenants.all() {
            let conditions = tenant.status.as_ref().map(|status| &status.conditions);
            match conditions {
                Some(all) if condition::is_true(all, condition::tenant::READY) => ready += 1,
                _ => other += 1,
            }
        }
        self.tenants.get_or_create(&kind("ready")).set(ready);
        self.tenants.get_or_create(&kind("not_ready")).set(other);
        let (mut ready, mut other) = (0, 0);
        for store in ctx.caches.data_stores.all() {
            match store.status.as_ref() {
                Some(status) if status.ready => ready += 1,
                _ => other += 1,
            }
        }
        self.data_stores.get_or_create(&kind("ready")).set(ready);
        self.data_stores
            .get_or_create(&kind("not_ready"))
            .set(other);
    }

    /// As text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_appear_in_the_text() {
        let metrics = Metrics::new();
        metrics.steps("done");
        metrics.calls("PATCH");
        metrics.pass("tenant", 0.2);
        let text = metrics.encode();
        assert!(
            text.contains("steward_controller_steps_total{kind=\"done\"} 1"),
            "{text}"
        );
        assert!(text.contains("steward_controller_cluster_calls_total{kind=\"PATCH\"} 1"));
    }
}
