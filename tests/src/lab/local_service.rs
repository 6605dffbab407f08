//! Servers under test that run on the machine, seen from the cluster as
//! Services: a Service without selector, and the machine's end of the cable
//! as its endpoint.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::cluster::Lab;
use super::error::{Doing, Result};

impl Lab {
    /// Makes `https://NAME.NAMESPACE.svc` (port 443) lead to `port` on the
    /// machine, for the aggregator and for webhooks; also for pods where the
    /// run has kube-proxy. The namespace is created. Calling it again moves
    /// the Service to another port.
    ///
    /// The server listens on [`host_ip`](Lab::host_ip) or on all addresses.
    pub async fn register_local_service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<()> {
        let namespaces: kube::Api<Namespace> = kube::Api::all(self.client());
        apply(
            &namespaces,
            namespace,
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": namespace},
            }),
        )
        .await?;
        let services: kube::Api<Service> = kube::Api::namespaced(self.client(), namespace);
        apply(
            &services,
            name,
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
            }),
        )
        .await?;
        let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(self.client(), namespace);
        apply(
            &slices,
            &format!("{name}-lab"),
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-lab"),
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [self.host_ip()], "conditions": {"ready": true}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }),
        )
        .await
    }
}

async fn apply<K>(api: &kube::Api<K>, name: &str, object: serde_json::Value) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    fn patch<T: Serialize + std::fmt::Debug>(value: T) -> Patch<T> {
        Patch::Apply(value)
    }
    api.patch(
        name,
        &PatchParams::apply("steward-lab").force(),
        &patch(object),
    )
    .await
    .doing(|| format!("apply {name}"))
    .map(drop)
}
