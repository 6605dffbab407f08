//! What requests share, and whether it is ready for them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::audit;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::documents::Documents;
use crate::health::{Check, Outcome};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::policy::Policies;
use crate::registry::Registry;
use crate::store_guard::StoreGuard;
use crate::subresource::join_token::JoinTokens;
use crate::subresource::kubeconfig::Minter;
use crate::subresource::migrate::Chooser;

/// What requests share.
pub struct Context {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    pub documents: Documents,
    pub limits: Limits,
    /// Absent without a policy: then there is a line of the log (R9.10).
    pub audit: Option<Arc<audit::Auditor>>,
    pub metrics: Arc<Metrics>,
    pub namespaces: Arc<Namespaces>,
    pub policies: Arc<Policies>,
    pub store_guard: Arc<StoreGuard>,
    /// Absent until the store is open.
    pub registry: ArcSwapOption<Registry>,
    pub minter: Minter,
    pub join_tokens: JoinTokens,
    pub chooser: Chooser,
    /// Cancelled by SIGTERM: readiness fails, everything else goes on.
    pub leaving: tokio_util::sync::CancellationToken,
}

impl Context {
    /// What readiness is made of (rule 2): storage is shown and fails nothing.
    pub(super) fn ready_checks(&self) -> Vec<Check> {
        let noted = |name, problem: Option<String>| Check {
            name,
            outcome: problem.map_or(Outcome::Passed, Outcome::Noted),
        };
        let storage = match self.store_guard.ready() {
            Err(failure) => Some(failure.to_string()),
            Ok(()) if self.registry.load().is_none() => {
                Some(self.store_guard.not_open().to_string())
            }
            Ok(()) => None,
        };
        self.metrics.storage_ready(storage.is_none());
        let registry = self.registry.load();
        let quarantined = registry
            .as_ref()
            .map_or(0, |registry| registry.cache.quarantined());
        self.metrics.quarantined(quarantined);
        let objects = (quarantined > 0).then(|| {
            format!("{quarantined} stored objects cannot be read and are left out of lists and watches; the log names them")
        });
        let namespaces = (!self.namespaces.is_loaded()).then(|| "not listed yet".to_owned());
        let policies = (!self.policies.is_loaded()).then(|| {
            "the cluster's admission configurations were not listed yet; writes are refused"
                .to_owned()
        });
        vec![
            Check::of("ping", true, ""),
            Check::of(
                "authentication",
                self.authenticator.is_loaded(),
                "the ConfigMap kube-system/extension-apiserver-authentication was not read yet",
            ),
            noted("namespaces", namespaces),
            noted("admission", policies),
            noted("objects", objects),
            noted("storage", storage),
            Check::of(
                "shutdown",
                !self.leaving.is_cancelled(),
                "process is shutting down",
            ),
        ]
    }
}
