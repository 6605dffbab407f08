//! The APIService object that puts our API into a cluster (contract 1.1).

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};

use crate::{GROUP, VERSION};

/// Order among the groups: with other third parties' (R1.3).
const GROUP_PRIORITY: i32 = 1000;
/// Order among our versions (R1.3).
const VERSION_PRIORITY: i32 = 15;

/// The name that an APIService of a group and version must have (R1.1).
pub fn name() -> String {
    format!("{VERSION}.{GROUP}")
}

/// The APIService for a Service of ours. `ca_bundle` is PEM; without it,
/// kube-apiserver trusts the authorities of its own system.
pub fn api_service(
    service_namespace: &str,
    service_name: &str,
    port: u16,
    ca_bundle: Option<&[u8]>,
) -> APIService {
    APIService {
        metadata: ObjectMeta {
            name: Some(name()),
            labels: Some(
                [(crate::names::LABEL_PROJECT, crate::names::PROJECT)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            group_priority_minimum: GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            service: Some(ServiceReference {
                namespace: Some(service_namespace.to_owned()),
                name: Some(service_name.to_owned()),
                port: Some(i32::from(port)),
            }),
            ca_bundle: ca_bundle.map(|bundle| ByteString(bundle.to_vec())),
            insecure_skip_tls_verify: None,
        }),
        status: None,
    }
}
