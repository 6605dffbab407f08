//! The first minutes of a tenant: its bindings are written into an API server
//! that serves and is not Ready yet, past the Service. Its probes come without
//! credentials, and until it has written its own roles, a second later, it would
//! let nobody ask.

use apiservice::v1alpha1::TenantControlPlane;
use k8s_openapi::api::core::v1::Pod;

use crate::apply;
use crate::apply::At;
use crate::cluster::caches::Name;
use crate::context::Context;
use crate::inside::probe::ByService;
use crate::tenant::world::ProbeFailureKind as Kind;

/// Pods that do not even refuse a connection cannot be reached from here: after
/// as many the Service has to do.
const SILENT_ATTEMPTS: u32 = 3;

/// How far the first start has come.
#[derive(Debug, Default)]
pub struct FirstStart {
    /// The bindings were written, or cannot be on this way.
    over: bool,
    silent: u32,
}

impl FirstStart {
    /// Tries each pod of a tenant that was never up, until one has taken the
    /// bindings.
    pub async fn open(
        &mut self,
        ctx: &Context,
        tenant: &TenantControlPlane,
        service: Option<&ByService>,
    ) {
        if tenant.was_ready() || self.over {
            return;
        }
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        let facts = ctx.facts.tenant(uid);
        let Some(wanted) = facts.wanted_bindings else {
            return;
        };
        let Some((service, host)) = service else {
            return;
        };
        let Some((_, port)) = service.rsplit_once(':') else {
            return;
        };
        for pod in ctx.caches.pods.of(&Name::of(&tenant.metadata)) {
            let Some(socket) = socket(&pod, port) else {
                continue;
            };
            let at = At {
                lanes: &facts.lanes,
                socket: &socket,
                host: Some(host),
            };
            match apply::bootstrap(ctx, tenant, at, &wanted).await {
                Ok(()) => self.over = true,
                Err(failure) if failure.kind == Kind::TimedOut => {
                    self.silent += 1;
                    self.over = self.silent >= SILENT_ATTEMPTS;
                }
                // It does not serve yet: the next round asks again.
                Err(_) => {}
            }
            if self.over {
                return;
            }
        }
    }
}

/// Where a pod serves, once it has an address.
fn socket(pod: &Pod, port: &str) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref()?;
    Some(match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    })
}
