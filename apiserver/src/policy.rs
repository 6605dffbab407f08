//! Admission of the management cluster for our kinds: what kube-apiserver does for what it
//! stores itself, and does not for what it passes on (contract 7).
//!
//! # Flow
//! [`Policies::follow`] keeps the cluster's configurations. A write asks
//! [`Policies::mutate`] before the server sets what is its own, and [`Policies::validate`]
//! with the object as it will be stored; `registry/write/admitting.rs` and, for requests for credentials,
//! `subresource/admitting.rs` are the only places that do.
//!
//! ```text
//! attributes  who does what to which object
//! asked       the same with its objects, as everybody is asked
//! rules       which configurations are about it          pure
//! review      what is asked, what is answered            pure
//! cel         conditions and policies                    pure
//! conditions  whether anybody is asked                   pure
//! hooks       webhooks as the cluster has them
//! matching    which requests a policy is about           pure
//! questions   what expressions ask the authorizer
//! definition  what policies of both kinds have in common
//! values      what their expressions are evaluated with
//! params      objects of any kind, for the same
//! mutating    MutatingAdmissionPolicies
//! validating  ValidatingAdmissionPolicies
//! webhooks    in what order they are asked
//! reinvoked   who is asked once more                     pure
//! resource_quota  objects are counted
//! call        HTTPS
//! source      the configurations, by list and watch
//! ```
//!
//! # Guarantees
//! Nobody is exempt, our own controller included. What cannot be asked is decided by its
//! failure policy. Nothing is held while somebody is asked but the place, the room and the
//! objects of the one request: a webhook that writes to this server waits for nothing of it.

pub mod asked;
pub mod attributes;
pub mod call;
pub mod cel;
pub mod conditions;
pub mod definition;
pub mod hooks;
pub mod labels;
pub mod matching;
pub mod mutating;
pub mod params;
pub mod questions;
pub mod reinvoked;
pub mod resource_quota;
pub mod review;
pub mod rules;
pub mod source;
pub mod validating;
pub mod values;
pub mod webhooks;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::{v1, v1beta1};
use serde_json::Value;

use self::asked::Change;
pub use self::asked::{Making, Objects};
pub use self::attributes::{Attributes, Operation, in_time, late, write_options};
use self::definition::PolicySet;
use self::hooks::Kind;
use self::labels::NamespaceLabels;
use self::params::Params;
use self::questions::{Asking, Questions};
use self::reinvoked::{Reinvoked, Round};
pub use self::resource_quota::Counted;
use self::resource_quota::{Present, ResourceQuotas};
use self::source::{NotReady, Room, Source};
use self::webhooks::Webhooks;
use crate::authz::Authorizer;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::status::Failure;

/// See the module.
pub struct Policies {
    namespaces: Arc<Namespaces>,
    asking: Asking,
    webhooks: Webhooks,
    mutating: PolicySet<mutating::Policy>,
    validating: PolicySet<validating::Policy>,
    quotas: ResourceQuotas,
}

impl Policies {
    /// Of a cluster, of which nothing is known yet.
    pub fn new(
        client: kube::Client,
        namespaces: Arc<Namespaces>,
        authorizer: Arc<Authorizer>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let params = Arc::new(Params::new(Some(client.clone())));
        Arc::new(Self {
            namespaces,
            asking: Asking::new(authorizer),
            webhooks: Webhooks {
                mutating: Source::default(),
                validating: Source::default(),
                metrics,
            },
            mutating: PolicySet::new(params.clone()),
            validating: PolicySet::new(params),
            quotas: ResourceQuotas::new(Some(client)),
        })
    }

    /// Of a cluster that has none.
    #[cfg(test)]
    pub(crate) fn none(namespaces: Arc<Namespaces>) -> Arc<Self> {
        Arc::new(Self {
            namespaces,
            asking: Asking::new(Authorizer::for_test(|_, _| crate::authz::Decision::allow())),
            webhooks: Webhooks {
                mutating: Source::known(Default::default()),
                validating: Source::known(Default::default()),
                metrics: Arc::new(Metrics::new()),
            },
            mutating: PolicySet::none(),
            validating: PolicySet::none(),
            quotas: ResourceQuotas::new(None),
        })
    }

    /// Of a cluster that has one validating policy, with one binding.
    #[cfg(test)]
    pub(crate) fn with(namespaces: Arc<Namespaces>, policy: Value, binding: Value) -> Arc<Self> {
        let mut of = Arc::into_inner(Self::none(namespaces)).expect("nobody else has it");
        of.validating = PolicySet {
            policies: Source::one::<v1::ValidatingAdmissionPolicy>(policy),
            bindings: Source::one::<v1::ValidatingAdmissionPolicyBinding>(binding),
            ..PolicySet::none()
        };
        Arc::new(of)
    }

    /// Keeps what the cluster has, for ever.
    pub async fn follow(&self, client: kube::Client) {
        let room = &Room::default();
        let Webhooks {
            mutating,
            validating,
            ..
        } = &self.webhooks;
        let webhooks = futures::future::join(
            mutating.follow::<v1::MutatingWebhookConfiguration>(client.clone(), room),
            validating.follow::<v1::ValidatingWebhookConfiguration>(client.clone(), room),
        );
        let PolicySet {
            policies, bindings, ..
        } = &self.validating;
        let validating = futures::future::join(
            policies.follow::<v1::ValidatingAdmissionPolicy>(client.clone(), room),
            bindings.follow::<v1::ValidatingAdmissionPolicyBinding>(client.clone(), room),
        );
        let PolicySet {
            policies, bindings, ..
        } = &self.mutating;
        let mutating = futures::future::join(
            policies.follow_either::<v1::MutatingAdmissionPolicy, v1beta1::MutatingAdmissionPolicy>(
                client.clone(),
                room,
            ),
            bindings.follow_either::<
                v1::MutatingAdmissionPolicyBinding,
                v1beta1::MutatingAdmissionPolicyBinding,
            >(client, room),
        );
        futures::join!(webhooks, mutating, validating);
    }

    /// Whether all that the cluster has was listed once.
    pub fn is_loaded(&self) -> bool {
        self.webhooks.mutating.is_loaded()
            && self.webhooks.validating.is_loaded()
            && self.mutating.is_loaded()
            && self.validating.is_loaded()
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
        let policies = mutating::concern(&self.mutating, attributes).await;
        let policies = policies.map_err(|why| not_ready(attributes, why))?;
        let webhooks = self.webhooks.concern(Kind::Mutating, attributes).await;
        let webhooks = webhooks.map_err(|why| not_ready(attributes, why))?;
        Ok(policies || webhooks)
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
    /// Policies come before webhooks. If either changed anything, both come once more: for
    /// those that were asked before somebody else changed something, and want to know.
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
        let questions = Questions::new(attributes, &self.asking);
        let change = Change {
            attributes,
            namespaces: &self.namespaces,
            labels: &labels,
            old,
            questions: &questions,
            making,
        };
        let (mut policies, mut webhooks) = (Reinvoked::default(), Reinvoked::default());
        let mut changed = false;
        for round in [Round::First, Round::Again] {
            let by_policies = match object {
                Some(object) => {
                    let policies = (round, &mut policies);
                    self.mutating.mutate(&change, object, policies).await?
                }
                // There is nothing that a policy could change.
                None => mutating::Done::default(),
            };
            if round == Round::Again && by_policies.changed {
                webhooks.others_changed_it();
            }
            let by_webhooks = self
                .webhooks
                .mutate(&change, object, (round, &mut webhooks))
                .await?;
            if by_webhooks {
                policies.others_changed_it();
            }
            changed |= by_policies.changed || by_webhooks;
            if !by_policies.again && !by_webhooks {
                break;
            }
        }
        Ok(changed)
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
        let questions = Questions::new(attributes, &self.asking);
        let policies = &self.validating;
        policies
            .validate(attributes, &self.namespaces, &labels, objects, &questions)
            .await?;
        let webhooks = &self.webhooks;
        webhooks
            .validate(attributes, &labels, objects, &questions)
            .await
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
