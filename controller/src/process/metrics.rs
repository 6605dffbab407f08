//! What the controller counts, in the Prometheus text format.

use std::collections::HashSet;

use parking_lot::Mutex;
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
    panics: Family<Labels, Counter>,
    passes: Family<Labels, Histogram>,
    queue: Gauge,
    leading: Gauge,
    tenants: Family<Labels, Gauge>,
    data_stores: Family<Labels, Gauge>,
    certificates: Series<CertificateLabels>,
    store_certificates: Series<StoreCertificateLabels>,
    store_tenants: Series<StoreLabels>,
    store_bytes: Series<StoreLabels>,
    tenant_bytes: Series<TenantLabels>,
    tenant_objects: Series<TenantLabels>,
    rolls: Family<Labels, Gauge>,
    migrations: Family<Labels, Counter>,
}

/// Gauges with the series that there are: those of what is gone go.
#[derive(Debug)]
struct Series<L> {
    series: Family<L, Gauge>,
    known: Mutex<HashSet<L>>,
}

impl<L: Clone + std::hash::Hash + Eq> Series<L> {
    fn new() -> Self {
        Self {
            series: Family::default(),
            known: Mutex::default(),
        }
    }

    /// These, and no others.
    fn set(&self, values: impl Iterator<Item = (L, i64)>) {
        let mut known = self.known.lock();
        let mut found = HashSet::with_capacity(known.len());
        for (labels, value) in values {
            self.series.get_or_create(&labels).set(value);
            found.insert(labels);
        }
        for gone in known.difference(&found) {
            self.series.remove(gone);
        }
        *known = found;
    }
}

/// A DataStore.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreLabels {
    pub data_store: String,
}

/// A certificate that a DataStore refers to.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreCertificateLabels {
    pub data_store: String,
    pub certificate: &'static str,
}

/// A tenant.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TenantLabels {
    pub namespace: String,
    pub tenant: String,
}

/// A certificate of a tenant.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabels {
    pub namespace: String,
    pub tenant: String,
    pub certificate: &'static str,
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
        let panics = Family::default();
        let passes = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))) as fn() -> Histogram,
        );
        let (queue, leading) = (Gauge::default(), Gauge::default());
        let (tenants, data_stores) = (Family::default(), Family::default());
        registry.register(
            "steward_trace_spans",
            "Spans by what became of them: exported, failed or dropped",
            telemetry::spans().clone(),
        );
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
            "panics",
            "Faults of the controller itself that were survived, by where",
            panics.clone(),
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
        let (certificates, store_certificates) = (Series::new(), Series::new());
        let (store_tenants, store_bytes) = (Series::new(), Series::new());
        registry.register(
            "data_store_tenants",
            "Tenants whose data is in a DataStore or is to be there",
            store_tenants.series.clone(),
        );
        registry.register(
            "data_store_size_bytes",
            "Bytes of the whole database of a DataStore when it answered last",
            store_bytes.series.clone(),
        );
        let (tenant_bytes, tenant_objects) = (Series::new(), Series::new());
        registry.register(
            "tenant_storage_bytes",
            "Bytes of a tenant's keys and values in its DataStore when they were measured last",
            tenant_bytes.series.clone(),
        );
        registry.register(
            "tenant_storage_objects",
            "Objects of a tenant in its DataStore when they were measured last",
            tenant_objects.series.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate of a tenant ends, in seconds since 1970",
            certificates.series.clone(),
        );
        registry.register(
            "data_store_certificate_expiry_timestamp_seconds",
            "When a certificate that a DataStore refers to ends, in seconds since 1970",
            store_certificates.series.clone(),
        );
        registry.register(
            "data_stores",
            "DataStores, by readiness",
            data_stores.clone(),
        );
        let rolls = Family::default();
        registry.register(
            "rolls",
            "Tenants whose pods are rolled for a reason other than their spec: waiting, \
             rolling, late (Ready before and not since; others wait for these)",
            rolls.clone(),
        );
        let migrations = Family::default();
        registry.register(
            "migrations",
            "Moves of tenants' data between DataStores: begun (Migrating), and what came of them",
            migrations.clone(),
        );
        Self {
            registry,
            steps,
            calls,
            panics,
            passes,
            queue,
            leading,
            tenants,
            data_stores,
            certificates,
            store_certificates,
            store_tenants,
            store_bytes,
            tenant_bytes,
            tenant_objects,
            rolls,
            migrations,
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

    /// Counts what came of moves of tenants' data, by the reason of its Event.
    pub fn migration(&self, result: &str) {
        self.migrations.get_or_create(&kind(result)).inc();
    }

    /// Counts a panic that was survived.
    pub fn panic(&self, place: &str) {
        self.panics.get_or_create(&kind(place)).inc();
    }

    /// Times a pass.
    pub fn pass(&self, of: &str, seconds: f64) {
        self.passes.get_or_create(&kind(of)).observe(seconds);
    }

    /// How many objects wait for a worker.
    pub fn queue(&self, depth: usize) {
        self.queue.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// How many tenants are ready, and how many are not.
    pub fn tenants(&self, ready: i64, other: i64) {
        self.tenants.get_or_create(&kind("ready")).set(ready);
        self.tenants.get_or_create(&kind("not_ready")).set(other);
    }

    /// How many DataStores are ready, and how many are not.
    pub fn data_stores(&self, ready: i64, other: i64) {
        self.data_stores.get_or_create(&kind("ready")).set(ready);
        self.data_stores
            .get_or_create(&kind("not_ready"))
            .set(other);
    }

    /// How many tenants are at this stage of a roll.
    pub fn rolls(&self, which: &str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.rolls.get_or_create(&kind(which)).set(number);
    }

    /// When certificates of tenants end: these, and no others.
    pub fn certificates(&self, ends: impl Iterator<Item = (CertificateLabels, i64)>) {
        self.certificates.set(ends);
    }

    /// When certificates of DataStores end: these, and no others.
    pub fn store_certificates(&self, ends: impl Iterator<Item = (StoreCertificateLabels, i64)>) {
        self.store_certificates.set(ends);
    }

    /// How many tenants these DataStores have, and no others.
    pub fn store_tenants(&self, numbers: impl Iterator<Item = (StoreLabels, i64)>) {
        self.store_tenants.set(numbers);
    }

    /// How large these DataStores are, and no others.
    pub fn store_bytes(&self, sizes: impl Iterator<Item = (StoreLabels, i64)>) {
        self.store_bytes.set(sizes);
    }

    /// How many bytes these tenants have, and no others.
    pub fn tenant_bytes(&self, sizes: impl Iterator<Item = (TenantLabels, i64)>) {
        self.tenant_bytes.set(sizes);
    }

    /// How many objects these tenants have, and no others.
    pub fn tenant_objects(&self, numbers: impl Iterator<Item = (TenantLabels, i64)>) {
        self.tenant_objects.set(numbers);
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
