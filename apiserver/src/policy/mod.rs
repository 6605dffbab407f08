//! Admission of the management cluster for our kinds: what kube-apiserver does for what it
//! stores itself, and does not for what it passes on (contract 7).
//!
//! # Flow
//! [`Policies::follow`] keeps the cluster's configurations. A write asks
//! [`Policies::mutate`] before the server sets what is its own, and [`Policies::validate`]
//! with the object as it will be stored; `registry/write.rs` is the only place that does.
//!
//! ```text
//! attributes  who does what to which object
//! rules       which configurations are about it          pure
//! review      what is asked, what is answered            pure
//! cel         conditions and policies                    pure
//! validating  ValidatingAdmissionPolicies
//! params      what these are evaluated with
//! webhooks    in what order they are asked
//! resource_quota  objects are counted
//! call        HTTPS
//! source      the configurations, by list and watch
//! ```
//!
//! # Guarantees
//! Nobody is exempt, our own controller included. What cannot be asked is decided by its
//! failure policy. Nothing is held while somebody is asked but the place, the room and the
//! objects of the one request: a webhook that writes to this server waits for nothing of it.

pub mod attributes;
pub mod call;
pub mod cel;
pub mod hooks;
pub mod labels;
pub mod params;
pub mod resource_quota;
pub mod review;
pub mod rules;
pub mod source;
pub mod validating;
pub mod webhooks;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use serde_json::Value;

pub use self::attributes::{Attributes, Operation, in_time, late, write_options};
use self::labels::NamespaceLabels;
use self::params::Params;
pub use self::resource_quota::Counted;
use self::resource_quota::{Present, ResourceQuotas};
use self::source::{NotReady, Source};
use self::validating::ValidatingPolicies;
use self::webhooks::{Kind, Webhooks};
pub use self::webhooks::{Making, Objects};
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::status::Failure;

/// See the module.
pub struct Policies {
    namespaces: Arc<Namespaces>,
    webhooks: Webhooks,
    validating: ValidatingPolicies,
    quotas: ResourceQuotas,
}

impl Policies {
    /// Of a cluster, of which nothing is known yet.
    pub fn new(
        client: kube::Client,
        namespaces: Arc<Namespaces>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            namespaces,
            webhooks: Webhooks {
                mutating: Source::default(),
                validating: Source::default(),
                metrics,
            },
            validating: ValidatingPolicies::new(Params::new(Some(client.clone()))),
            quotas: ResourceQuotas::new(Some(client)),
        })
    }

    /// Of a cluster that has none.
    #[cfg(test)]
    pub(crate) fn none(namespaces: Arc<Namespaces>) -> Arc<Self> {
        Arc::new(Self {
            namespaces,
            webhooks: Webhooks {
                mutating: Source::known(Default::default()),
                validating: Source::known(Default::default()),
                metrics: Arc::new(Metrics::new()),
            },
            validating: ValidatingPolicies {
                policies: Source::known(Default::default()),
                bindings: Source::known(Default::default()),
                params: Params::new(None),
            },
            quotas: ResourceQuotas::new(None),
        })
    }

    /// Of a cluster that has one policy, with one binding.
    #[cfg(test)]
    pub(crate) fn with(namespaces: Arc<Namespaces>, policy: Value, binding: Value) -> Arc<Self> {
        let policy = serde_json::from_value(policy)
            .ok()
            .and_then(validating::Policy::read);
        let binding = serde_json::from_value(binding)
            .ok()
            .and_then(validating::Binding::read);
        let known = |name: &str| name.to_owned();
        let mut of = Arc::into_inner(Self::none(namespaces)).expect("nobody else has it");
        of.validating.policies =
            Source::known([(known("p"), Arc::new(policy.expect("ours")))].into());
        of.validating.bindings =
            Source::known([(known("b"), Arc::new(binding.expect("a binding")))].into());
        Arc::new(of)
    }

    /// Keeps what the cluster has, for ever.
    pub async fn follow(&self, client: kube::Client) {
        let Webhooks {
            mutating,
            validating,
            ..
        } = &self.webhooks;
        let mutating = mutating.follow::<MutatingWebhookConfiguration>(client.clone());
        let validating = validating.follow::<ValidatingWebhookConfiguration>(client.clone());
        let ValidatingPolicies {
            policies, bindings, ..
        } = &self.validating;
        let policies = policies.follow::<ValidatingAdmissionPolicy>(client.clone());
        let bindings = bindings.follow::<ValidatingAdmissionPolicyBinding>(client);
        futures::join!(mutating, validating, policies, bindings);
    }

    /// Whether all that the cluster has was listed once.
    pub fn is_loaded(&self) -> bool {
        self.webhooks.mutating.is_loaded()
            && self.webhooks.validating.is_loaded()
            && self.validating.policies.is_loaded()
            && self.validating.bindings.is_loaded()
    }

    /// Waits a little until all that the cluster has was listed once.
    ///
    /// # Errors
    /// 403 if it was not.
    pub async fn ready(&self, attributes: &Attributes<'_>) -> Result<(), Failure> {
        self.may_mutate(attributes).await?;
        self.may_refuse(attributes).await.map(drop)
    }

    /// Whether anything may change what is written.
    ///
    /// # Errors
    /// 403 while the configurations are not known.
    pub async fn may_mutate(&self, attributes: &Attributes<'_>) -> Result<bool, Failure> {
        let concern = self.webhooks.concern(Kind::Admit, attributes).await;
        concern.map_err(|why| not_ready(attributes, why))
    }

    /// Whether anything may refuse what is written.
    ///
    /// # Errors
    /// 403 while the configurations are not known.
    pub async fn may_refuse(&self, attributes: &Attributes<'_>) -> Result<bool, Failure> {
        let policies = self.validating.concern(attributes).await;
        let policies = policies.map_err(|why| not_ready(attributes, why))?;
        let webhooks = self.webhooks.concern(Kind::Validating, attributes).await;
        let webhooks = webhooks.map_err(|why| not_ready(attributes, why))?;
        Ok(policies || webhooks)
    }

    /// Has the object changed; of a deletion there is none. `making` makes an object of
    /// what was made of it. Says whether it was changed.
    ///
    /// # Errors
    /// What is answered instead.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Option<Value>,
        old: Option<&Value>,
        making: &dyn Making,
    ) -> Result<bool, Failure> {
        let labels = NamespaceLabels::new(&self.namespaces, attributes.namespace);
        let webhooks = &self.webhooks;
        webhooks
            .mutate(attributes, &labels, object, old, making)
            .await
    }

    /// Asks whether the object may be stored, or deleted.
    ///
    /// # Errors
    /// What is answered instead.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        objects: Objects<'_>,
    ) -> Result<(), Failure> {
        let labels = NamespaceLabels::new(&self.namespaces, attributes.namespace);
        let policies = &self.validating;
        policies
            .validate(attributes, &self.namespaces, &labels, objects)
            .await?;
        self.webhooks.validate(attributes, &labels, objects).await
    }
}

impl Policies {
    /// Counts a creation in the ResourceQuotas of its namespace; the last that is asked.
    ///
    /// # Errors
    /// See [`ResourceQuotas::count`].
    pub async fn count(
        &self,
        attributes: &Attributes<'_>,
        present: &Present<'_>,
    ) -> Result<Counted, Failure> {
        self.quotas.count(attributes, present).await
    }
}

fn not_ready(attributes: &Attributes<'_>, why: NotReady) -> Failure {
    attributes.refused(&why.to_string())
}
