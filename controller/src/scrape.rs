//! What the port of health answers: whether everything is read, and all metrics.

use std::sync::Arc;

use apiservice::condition;
use apiservice::v1alpha1::{DataStore, TenantControlPlane};
use storage::tenancy::contents::Usage;

use crate::context::Context;
use crate::datastores::credentials;
use crate::facts::Facts;
use crate::process::health::Probed;
use crate::process::metrics::{
    CertificateLabels, Metrics, StoreCertificateLabels, StoreLabels, TenantLabels,
};
use crate::report;

impl Probed for Context {
    fn unsynced(&self) -> Vec<&'static str> {
        self.caches.unsynced()
    }

    fn text(&self) -> String {
        refresh(self);
        self.metrics.encode()
    }
}

/// What is read at the moment of a scrape.
fn refresh(ctx: &Context) {
    let metrics = &ctx.metrics;
    let waiting = ctx.queue.depth() + ctx.shares.parked();
    metrics.queue(waiting);
    metrics.leading(ctx.leadership.leads());
    let (mut ready, mut other) = (0, 0);
    let tenants = ctx.caches.tenants.all();
    certificates(metrics, &tenants);
    sizes(metrics, &tenants, &ctx.facts);
    for tenant in tenants {
        let conditions = tenant.status.as_ref().map(|status| &status.conditions);
        match conditions {
            Some(all) if condition::is_true(all, condition::tenant::READY) => ready += 1,
            _ => other += 1,
        }
    }
    metrics.tenants(ready, other);
    for (which, number) in ctx.fleet.counts(&ctx.seen()) {
        metrics.rolls(which, number);
    }
    let (mut ready, mut other) = (0, 0);
    let stores = ctx.caches.data_stores.all();
    metrics.store_certificates(stores.iter().flat_map(|store| {
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
    metrics.store_tenants(stores.iter().filter_map(|store| {
        let tenants = store.status.as_ref()?.tenants?;
        Some((labels(store), tenants))
    }));
    metrics.store_bytes(stores.iter().filter_map(|store| {
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
    metrics.data_stores(ready, other);
}

/// How much these tenants have, and no others: two series for each that was measured.
fn sizes(metrics: &Metrics, tenants: &[Arc<TenantControlPlane>], facts: &Facts) {
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
    let series = |of: fn(&Usage) -> u64| {
        measured.iter().map(move |(labels, usage)| {
            let value = i64::try_from(of(usage)).unwrap_or(i64::MAX);
            (labels.clone(), value)
        })
    };
    metrics.tenant_bytes(series(|usage| usage.bytes));
    metrics.tenant_objects(series(|usage| usage.objects));
}

/// The ends of all certificates of these tenants, as their status has them, and
/// of no others: ten for each tenant.
fn certificates(metrics: &Metrics, tenants: &[Arc<TenantControlPlane>]) {
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
    metrics.certificates(ends);
}

#[cfg(test)]
mod tests {
    use super::*;

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
            certificates(&metrics, tenants);
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
            sizes(&metrics, tenants, &facts);
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
