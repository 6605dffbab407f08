//! Asking webhooks: which, in what order, and what becomes of their answers (R7.6 to R7.14).
//!
//! # Flow
//! Mutating webhooks are asked one after the other, by the names of their configurations;
//! if one changed the object after another that wants to know, there is a second round.
//! Validating ones are asked side by side, and all are waited for.
//!
//! # Guarantees
//! The objects are written once for all that are asked at a time. A webhook waits for its
//! answer no longer than its own time and that of the request. A request whose own time is
//! over is refused, whatever the failure policies are: its client says how long it is.
//! Conditions are evaluated as policies are: beside the workers that serve requests.

mod answer;
mod matching;
mod question;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::asked::{Change, Making, Objects};
use super::attributes::Attributes;
use super::hooks::{Configuration, Hook, Kind};
use super::labels::NamespaceLabels;
use super::questions::Questions;
use super::reinvoked::{Reinvoked, Round};
use super::source::{All, NotReady, Source};
use crate::limits;
use crate::metrics::Metrics;
use crate::status::Failure;
use answer::{allowed, apply};
use matching::matches;
use question::{Refused, Written, ask, write};

/// All that is there.
pub struct Webhooks {
    pub mutating: Source<Configuration>,
    pub validating: Source<Configuration>,
    pub metrics: Arc<Metrics>,
}

/// The annotation about a webhook that was asked to change an object, in Kubernetes' order:
/// whoever searches logs for its text finds those of both.
#[derive(Serialize)]
struct Asked<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

/// What tells a webhook from the others, also when there are others in the second round: its
/// configuration, and its name, which is unique in that.
pub type Key = [String; 2];

impl Webhooks {
    /// Whether any may be about a request.
    ///
    /// # Errors
    /// While they are not known.
    pub async fn concern(&self, kind: Kind, attributes: &Attributes<'_>) -> Result<bool, NotReady> {
        let all = self.all(kind, attributes).await?;
        let mut hooks = all.values().flat_map(|config| &config.hooks);
        Ok(hooks.any(|hook| hook.rules.iter().any(|rule| rule.matches(attributes))))
    }

    async fn all(
        &self,
        kind: Kind,
        attributes: &Attributes<'_>,
    ) -> Result<All<Configuration>, NotReady> {
        let source = match kind {
            Kind::Mutating => &self.mutating,
            Kind::Validating => &self.validating,
        };
        source.all(attributes.deadline).await
    }

    /// Has the mutating ones change `object`. Says whether they changed it.
    ///
    /// # Errors
    /// Those of the webhooks, and those of what makes an object of what they made.
    pub async fn mutate(
        &self,
        request: &Change<'_>,
        object: &mut Option<Value>,
        (round, reinvoked): (Round, &mut Reinvoked<Key>),
    ) -> Result<bool, Failure> {
        let Change {
            attributes,
            labels,
            old,
            questions,
            making,
            ..
        } = *request;
        let all = self.all(Kind::Mutating, attributes).await;
        let all = all.map_err(|why| attributes.refused(&why.to_string()))?;
        let mut written = Written::default();
        let mut changed = false;
        let mut before = 0;
        for config in all.values() {
            for hook in &config.hooks {
                let index = before + hook.position;
                let objects = Objects {
                    new: object.as_ref(),
                    old,
                };
                if !matches(hook, attributes, labels, objects, questions).await? {
                    continue;
                }
                let key = [hook.configuration.to_string(), hook.name.clone()];
                if !reinvoked.is_due(round, &key) {
                    continue;
                }
                written.new = written.new.or_else(|| write(objects.new));
                written.old = written.old.or_else(|| write(old));
                let place = format!("round_{}_index_{index}", round as u8);
                let made = self
                    .ask_to_change(hook, attributes, &written, object, making, &place)
                    .await?;
                if made {
                    written.new = None;
                    changed = true;
                    reinvoked.others_changed_it();
                }
                if hook.reinvoked {
                    reinvoked.wants_to_know(key);
                }
            }
            before += config.count;
        }
        Ok(changed)
    }

    /// Asks one, and says whether it changed the object.
    async fn ask_to_change(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        written: &Written,
        object: &mut Option<Value>,
        making: &dyn Making,
        place: &str,
    ) -> Result<bool, Failure> {
        let began = Instant::now();
        let answered = match ask(Kind::Mutating, hook, attributes, written).await {
            Ok((verdict, _room)) => {
                let caller = limits::holder(attributes.identity);
                apply(caller, hook, &verdict, object, making).await
            }
            Err(refused) => Err(refused),
        };
        self.observe(Kind::Mutating, hook, attributes, began.elapsed(), &answered);
        let told = |mutated: bool| {
            let key = format!("mutation.webhook.admission.k8s.io/{place}");
            let value = Asked {
                configuration: &hook.configuration,
                webhook: &hook.name,
                mutated,
            };
            // Texts and a flag always serialize.
            let value = serde_json::to_string(&value).unwrap_or_default();
            attributes.annotations.add(key, value);
        };
        match answered {
            Ok(changed) => {
                told(changed);
                Ok(changed)
            }
            Err(refused) => {
                told(false);
                let key = format!("failed-open.mutation.webhook.admission.k8s.io/{place}");
                self.failed(Kind::Mutating, hook, attributes, refused, key)?;
                Ok(false)
            }
        }
    }

    /// Asks the validating ones.
    ///
    /// # Errors
    /// That of the first that refused.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        labels: &NamespaceLabels<'_>,
        objects: Objects<'_>,
        questions: &Questions<'_>,
    ) -> Result<(), Failure> {
        let all = self.all(Kind::Validating, attributes).await;
        let all = all.map_err(|why| attributes.refused(&why.to_string()))?;
        let mut relevant = Vec::new();
        for hook in all.values().flat_map(|config| &config.hooks) {
            if matches(hook, attributes, labels, objects, questions).await? {
                relevant.push(hook.clone());
            }
        }
        if relevant.is_empty() {
            return Ok(());
        }
        let written = Written {
            new: write(objects.new),
            old: write(objects.old),
        };
        let asked = relevant.iter().enumerate().map(|(index, hook)| {
            let written = &written;
            async move {
                let began = Instant::now();
                let answered = ask(Kind::Validating, hook, attributes, written).await;
                let answered = answered.and_then(|(verdict, _)| allowed(hook, &verdict));
                self.observe(
                    Kind::Validating,
                    hook,
                    attributes,
                    began.elapsed(),
                    &answered,
                );
                match answered {
                    Ok(()) => Ok(()),
                    Err(refused) => {
                        let key = format!(
                            "failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}"
                        );
                        self.failed(Kind::Validating, hook, attributes, refused, key)
                    }
                }
            }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut first = Ok(());
        while let Some(answered) = asked.next().await {
            if first.is_ok() {
                first = answered;
            }
        }
        first
    }

    /// What the failure policy makes of it.
    fn failed(
        &self,
        kind: Kind,
        hook: &Hook,
        attributes: &Attributes<'_>,
        refused: Refused,
        open: String,
    ) -> Result<(), Failure> {
        match refused {
            Refused::Failure(failure) => Err(failure),
            // Its time was that of the request, which the client says: no webhook was slow.
            Refused::Unasked { .. } if attributes.in_time().is_err() => attributes.in_time(),
            Refused::Unasked { why, .. } if hook.ignores_failures => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "failed to ask a webhook; going on"
                );
                self.metrics.webhook_failed_open(&hook.name, kind.as_str());
                attributes.annotations.add(open, hook.name.clone());
                Ok(())
            }
            Refused::Unasked { why, .. } => {
                tracing::warn!(webhook = hook.name, why, "failed to ask a webhook");
                Err(Failure::Internal(why))
            }
        }
    }

    fn observe<T>(
        &self,
        kind: Kind,
        hook: &Hook,
        attributes: &Attributes<'_>,
        took: Duration,
        answered: &Result<T, Refused>,
    ) {
        let (rejected, error) = match answered {
            Ok(_) => (None, "no_error"),
            Err(Refused::Unasked { code, .. }) if !hook.ignores_failures => {
                (Some(*code), "calling_webhook_error")
            }
            Err(Refused::Unasked { .. }) => (None, "calling_webhook_error"),
            Err(Refused::Failure(Failure::Denied(denied))) => {
                (Some(u16::try_from(denied.code).unwrap_or(0)), "no_error")
            }
            Err(Refused::Failure(_)) => (Some(0), "apiserver_internal_error"),
        };
        let (name, kind) = (hook.name.as_str(), kind.as_str());
        let operation = attributes.operation.as_str();
        self.metrics
            .webhook_asked(name, kind, operation, rejected.is_some(), took);
        if let Some(code) = rejected {
            self.metrics
                .webhook_rejected(name, kind, operation, error, code);
        }
    }
}

#[cfg(test)]
mod tests;
