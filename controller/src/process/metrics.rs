//! What the controller counts, in the Prometheus text format.

use std::{collections::HashSet, sync::Arc};

use apiservice::v1alpha1::{DataStore, TenantControlPlane};
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

use storage::tenancy::contents::Usage;

use crate::datastores::credentials;
use crate::facts::Facts;
use crate::report;

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
struct StoreLabels {
    data_store: String,
}

/// A certificate that a DataStore refers to.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StoreCertificateLabels {
    data_store: String,
    certificate: &'static str,
}

/// A tenant.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TenantLabels {
    namespace: String,
    tenant: String,
}

/// A certificate of a tenant.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    namespace: String,
    tenant: String,
    certificate: &'static str,
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

    /// What is read at the moment of a scrape.
    pub fn refresh(&self, ctx: &crate::context::Context) {
        use apiservice::condition;
        let waiting = ctx.queue.depth() + ctx.shares.parked();
        self.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.leading.set(i64::from(ctx.leadership.leads()));
        let (mut ready, mut other) = (0, 0);
        let tenants = ctx.caches.tenants.all();
        self.certificates(&tenants);
        self.sizes(&tenants, &ctx.facts);
        for tenant in tenants {
            let conditions = tenant.status.as_ref().map(|status| &status.conditions);
            match conditions {
                Some(all) if condition::is_true(all, condition::tenant::READY) => ready += 1,
                _ => other += 1,
            }
        }
        self.tenants.get_or_create(&kind("ready")).set(ready);
        self.tenants.get_or_create(&kind("not_ready")).set(other);
        for (which, number) in crate::fleet::counts(ctx) {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            self.rolls.get_or_create(&kind(which)).set(number);
        }
        let (mut ready, mut other) = (0, 0);
        let stores = ctx.caches.data_stores.all();
        self.store_certificates.set(stores.iter().flat_map(|store| {
            let name = store.metadata.name.clone().unwrap_or_default();
            let all = credentials::certificates(store, &ctx.caches).into_iter();
            all.map(move |one| {
                let labels = StoreCertificateLabels {
                    data_store: name.clone(),
                    certificate: one.part,
                };
                (labels, one.span.not_after.as_second())
            })
        }));
        let labels = |store: &DataStore| StoreLabels {
            data_store: store.metadata.name.clone().unwrap_or_default(),
        };
        self.store_tenants.set(stores.iter().filter_map(|store| {
            let tenants = store.status.as_ref()?.tenants?;
            Some((labels(store), tenants))
        }));
        self.store_bytes.set(stores.iter().filter_map(|store| {
            let uid = store.metadata.uid.as_deref().unwrap_or_default();
            let bytes = ctx.facts.store(uid).measured?.bytes;
            Some((labels(store), i64::try_from(bytes).unwrap_or(i64::MAX)))
        }));
        for store in stores {
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

    /// How much these tenants have, and no others: two series for each that was measured.
    fn sizes(&self, tenants: &[Arc<TenantControlPlane>], facts: &Facts) {
        let measured = tenants.iter().filter_map(|tenant| {
            let meta = &tenant.metadata;
            let usage = facts.size_of(meta.uid.as_deref()?).usage?;
            let labels = TenantLabels {
                namespace: meta.namespace.clone()?,
                tenant: meta.name.clone()?,
            };
            Some((labels, usage))
        });
        let measured: Vec<_> = measured.collect();
        let series = |series: &Series<TenantLabels>, of: fn(&Usage) -> u64| {
            series.set(measured.iter().map(|(labels, usage)| {
                let value = i64::try_from(of(usage)).unwrap_or(i64::MAX);
                (labels.clone(), value)
            }));
        };
        series(&self.tenant_bytes, |usage| usage.bytes);
        series(&self.tenant_objects, |usage| usage.objects);
    }

    /// The ends of all certificates of these tenants, as their status has them, and
    /// of no others: ten for each tenant.
    fn certificates(&self, tenants: &[Arc<TenantControlPlane>]) {
        let of = |tenant: &Arc<TenantControlPlane>| {
            let status = tenant.status.as_ref()?;
            let meta = &tenant.metadata;
            let (namespace, name) = (meta.namespace.clone()?, meta.name.clone()?);
            let ends = report::objects::certificate_ends(status).map(move |(certificate, end)| {
                let labels = CertificateLabels {
                    namespace: namespace.clone(),
                    tenant: name.clone(),
                    certificate,
                };
                (labels, end.as_second())
            });
            Some(ends.collect::<Vec<_>>())
        };
        let ends = tenants.iter().filter_map(of).flatten();
        self.certificates.set(ends);
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

    /// A series for each certificate of each tenant that there is, with the time in
    /// its status; gone with the certificate or the tenant.
    #[test]
    fn ends_of_certificates_come_and_go_with_their_tenants() {
        let tenant = |name: &str, status: serde_json::Value| {
            let mut tenant = TenantControlPlane::new(name, Default::default());
            tenant.metadata.namespace = Some("ns".to_owned());
            tenant.status = serde_json::from_value(status).unwrap();
            Arc::new(tenant)
        };
        let one = tenant(
            "one",
            serde_json::json!({
                "certificates": {"ca": {"expires": "2036-01-01T00:00:00Z"}, "sa": {}},
                "kubeconfig": {"admin": {"expires": "2027-01-01T00:00:00Z"}},
                "storage": {"certificate": {"expires": "2027-01-02T00:00:00Z"}},
            }),
        );
        let two = tenant(
            "two",
            serde_json::json!({"certificates": {"ca": {"expires": "2036-01-01T00:00:00Z"}}}),
        );
        let metrics = Metrics::new();
        let series = |tenants: &[Arc<TenantControlPlane>]| {
            metrics.certificates(tenants);
            let text = metrics.encode();
            let lines = text
                .lines()
                .filter(|line| line.contains("expiry_timestamp_seconds{"));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let named = |tenant: &str, certificate: &str, end: i64| {
            format!(
                "steward_controller_certificate_expiry_timestamp_seconds{{namespace=\"ns\",\
                 tenant=\"{tenant}\",certificate=\"{certificate}\"}} {end}"
            )
        };
        let expected = [
            named("one", "admin-kubeconfig", 1_798_761_600),
            named("one", "ca", 2_082_758_400),
            named("one", "datastore-certificate", 1_798_848_000),
            named("two", "ca", 2_082_758_400),
        ];
        assert_eq!(series(&[one.clone(), two.clone()]), expected);
        assert_eq!(series(&[two]), expected[3..]);
        assert_eq!(series(&[]), Vec::<String>::new());
        assert_eq!(series(&[one]), expected[..3]);
    }

    #[test]
    fn sizes_come_and_go_with_their_tenants() {
        let tenant = |name: &str| {
            let mut tenant = TenantControlPlane::new(name, Default::default());
            tenant.metadata.namespace = Some("ns".to_owned());
            tenant.metadata.uid = Some(name.to_owned());
            Arc::new(tenant)
        };
        let (facts, metrics) = (Facts::default(), Metrics::new());
        facts.update_tenant("one", |facts| {
            facts.size.usage = Some(Usage {
                bytes: 7,
                objects: 3,
            });
        });
        let series = |tenants: &[Arc<TenantControlPlane>]| {
            metrics.sizes(tenants, &facts);
            let text = metrics.encode();
            let lines = text.lines().filter(|line| line.contains("tenant_storage"));
            let lines = lines.filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            series(&[tenant("one"), tenant("not-measured")]),
            [
                "steward_controller_tenant_storage_bytes{namespace=\"ns\",tenant=\"one\"} 7",
                "steward_controller_tenant_storage_objects{namespace=\"ns\",tenant=\"one\"} 3",
            ]
        );
        assert_eq!(series(&[]), [""; 0]);
    }
}
