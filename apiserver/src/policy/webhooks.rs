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

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{Instrument, Span, trace_span};

use super::attributes::Attributes;
use super::call::Unanswered;
use super::cel::{self, Answer, Budget, Named, Question, Resolve, Val};
use super::hooks::{Condition, Configuration, Hook, NAMES, Version};
use super::labels::NamespaceLabels;
use super::mutating::Request;
use super::questions::{Questions, evaluate};
use super::reinvoked::{Reinvoked, Round};
use super::review::{self, Unusable, Verdict};
use super::source::{All, NotReady, Source};
use crate::aside;
use crate::merge;
use crate::metrics::Metrics;
use crate::object;
use crate::status::Failure;

/// All that is there.
pub struct Webhooks {
    pub mutating: Source<Configuration>,
    pub validating: Source<Configuration>,
    pub metrics: Arc<Metrics>,
}

/// An object before and after, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    pub new: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// What becomes of what a webhook makes of an object.
pub trait Making: Sync {
    /// Makes an object of its kind of it.
    ///
    /// # Errors
    /// Why it is none, or one that is too large.
    fn complete(&self, object: &mut Value) -> Result<(), Failure>;

    /// Holds the room that it takes.
    ///
    /// # Errors
    /// 429 when there is none for the caller.
    fn hold<'a>(&'a self, object: &'a Value) -> BoxFuture<'a, Result<(), Failure>>;
}

/// The annotation about a webhook that was asked to change an object, in Kubernetes' order:
/// whoever searches logs for its text finds those of both.
#[derive(Serialize)]
struct Asked<'a> {
    configuration: &'a str,
    webhook: &'a str,
    mutated: bool,
}

/// The same, as they are sent.
#[derive(Clone, Debug, Default)]
struct Written {
    new: Option<Bytes>,
    old: Option<Bytes>,
}

/// Why a webhook did not let a request pass.
#[derive(Debug)]
enum Refused {
    /// It could not be asked: its failure policy decides.
    Unasked { why: String, code: u16 },
    /// Whatever the policy is.
    Failure(Failure),
}

/// What tells a webhook from the others, also when there are others in the second round: its
/// configuration, and its name, which is unique in that.
pub type Key = [String; 2];

/// What is told of a call afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Admit,
    Validating,
}

impl Kind {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validating => "validating",
        }
    }
}

fn write(value: Option<&Value>) -> Option<Bytes> {
    value.map(|value| Bytes::from(value.to_string()))
}

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
            Kind::Admit => &self.mutating,
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
        request: &Request<'_>,
        object: &mut Option<Value>,
        (round, reinvoked): (Round, &mut Reinvoked<Key>),
    ) -> Result<bool, Failure> {
        let Request {
            attributes,
            labels,
            old,
            questions,
            making,
            ..
        } = *request;
        let all = self.all(Kind::Admit, attributes).await;
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
        let answered = match self.ask(hook, attributes, written, true).await {
            Ok(verdict) => apply(hook, &verdict, object, making).await,
            Err(refused) => Err(refused),
        };
        self.observe(Kind::Admit, hook, attributes, began.elapsed(), &answered);
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
                self.failed(Kind::Admit, hook, attributes, refused, key)?;
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
                let answered = self.ask(hook, attributes, written, false).await;
                let answered = answered.and_then(|verdict| allowed(hook, &verdict));
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

    async fn ask(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        written: &Written,
        mutating: bool,
    ) -> Result<Verdict, Refused> {
        attributes.in_time().map_err(Refused::Failure)?;
        if attributes.dry_run && !hook.takes_dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Refused::Failure(Failure::BadRequest(why)));
        }
        let unasked = |why: String, code| Refused::Unasked {
            why: format!("failed calling webhook {:?}: {why}", hook.name),
            code,
        };
        let Some(version) = hook.version else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(unasked(why.to_owned(), 400));
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let request = attributes.to_request(&uid);
        let pieces = review::ask(
            version,
            &request,
            written.new.as_ref(),
            written.old.as_ref(),
        );
        let left = attributes
            .deadline
            .saturating_duration_since(Instant::now());
        let asking = hook.endpoint.post(pieces, hook.timeout.min(left));
        let answer = asking
            .instrument(span(hook, attributes, &uid, mutating))
            .await;
        let answer = answer.map_err(|why| match why {
            Unanswered::NoClient(why) => unasked(format!("could not get REST client: {why}"), 500),
            Unanswered::Failed(why) => unasked(format!("failed to call webhook: {why}"), 503),
        })?;
        let verdict = read(&answer, version, &uid, mutating);
        let verdict = verdict.map_err(|why| unasked(why, 503))?;
        for (key, value) in &verdict.annotations {
            attributes
                .annotations
                .add_of(&hook.name, key, value.as_str());
        }
        for warning in &verdict.warnings {
            attributes.warnings.add(warning.as_str());
        }
        Ok(verdict)
    }
}

/// Of one question, as by Kubernetes (R9.13).
fn span(hook: &Hook, attributes: &Attributes<'_>, uid: &str, mutating: bool) -> Span {
    trace_span!(
        "webhook",
        otel.name = match mutating {
            true => "Call mutating webhook",
            false => "Call validating webhook",
        },
        configuration = &*hook.configuration,
        operation = attributes.operation.as_str(),
        resource = attributes.resource.plural,
        subresource = attributes.subresource,
        UID = uid,
        webhook = hook.name.as_str(),
    )
}

fn read(answer: &[u8], version: Version, uid: &str, mutating: bool) -> Result<Verdict, String> {
    Verdict::read(answer, version, uid, mutating).map_err(|why| match why {
        Unusable::Undecoded(why) => format!("failed to call webhook: {why}"),
        Unusable::Invalid(why) => format!("received invalid webhook response: {why}"),
    })
}

fn allowed(hook: &Hook, verdict: &Verdict) -> Result<(), Refused> {
    match verdict.allowed {
        true => Ok(()),
        false => {
            let denied = review::denied(&hook.name, verdict.status.clone());
            Err(Refused::Failure(Failure::Denied(Box::new(denied))))
        }
    }
}

/// Does what an answer says, and tells whether that changed anything.
async fn apply(
    hook: &Hook,
    verdict: &Verdict,
    object: &mut Option<Value>,
    making: &dyn Making,
) -> Result<bool, Refused> {
    allowed(hook, verdict)?;
    if verdict.patch.is_empty() {
        return Ok(false);
    }
    let unasked = |why: String| Refused::Unasked {
        why: format!("failed calling webhook {:?}: {why}", hook.name),
        code: 503,
    };
    let internal = |why: String| Refused::Failure(Failure::Internal(why));
    // A short patch may take long on a long object.
    let length = verdict.patch.len() + object.as_ref().map_or(0, object::length);
    let parsed = aside::documents(length, || merge::json(&verdict.patch)).await;
    let (patch, _) = parsed.map_err(|why| {
        unasked(format!(
            "received undecodable patch in webhook response: {why}"
        ))
    })?;
    if patch.is_empty() {
        return Ok(false);
    }
    let Some(object) = object else {
        return Err(internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    if verdict.patch_type != "JSONPatch" {
        return Err(unasked(format!(
            "unsupported patch type {:?}",
            verdict.patch_type
        )));
    }
    let patched = aside::documents(length, || {
        let mut patched = object.clone();
        patch.apply(&mut patched).map(|()| patched)
    });
    let mut patched = patched.await.map_err(|why| internal(why.to_string()))?;
    making.complete(&mut patched).map_err(Refused::Failure)?;
    let changed = patched != *object;
    *object = patched;
    if changed {
        // Before the next is asked: none adds to what is too large already.
        making.hold(object).await.map_err(Refused::Failure)?;
    }
    Ok(changed)
}

/// Whether a webhook is to be asked.
async fn matches(
    hook: &Hook,
    attributes: &Attributes<'_>,
    labels: &NamespaceLabels<'_>,
    objects: Objects<'_>,
    questions: &Questions<'_>,
) -> Result<bool, Failure> {
    if !hook.rules.iter().any(|rule| rule.matches(attributes)) {
        return Ok(false);
    }
    let internal = |why: &String| Failure::Internal(why.clone());
    let selector = hook.objects.as_ref().map_err(internal)?;
    if !selector.matches_any([objects.new, objects.old]) {
        return Ok(false);
    }
    let selector = hook.namespaces.as_ref().map_err(internal)?;
    if !labels.selected(selector).await? {
        return Ok(false);
    }
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let request = Value::Object(attributes.to_request(""));
    let null = Value::Null;
    let held = evaluate(questions, |until| {
        let variables = [
            (NAMES[0], Val::from(objects.new.unwrap_or(&null))),
            (NAMES[1], Val::from(objects.old.unwrap_or(&null))),
            (NAMES[2], Val::from(&request)),
            (NAMES[3], questions.variable()),
        ];
        let subjects = Subjects {
            named: Named(&variables),
            questions,
        };
        holds(&hook.conditions, &subjects, until)
    });
    match held.await? {
        Ok(held) => Ok(held),
        // What was cut off by the request's own time was not passed over by anybody.
        Err(_) if hook.ignores_failures => attributes.in_time().map(|()| false),
        Err(why) => attributes.in_time().and(Err(attributes.refused(&why))),
    }
}

/// What conditions of a webhook are about.
struct Subjects<'n, 'a> {
    named: Named<'n, 'a>,
    questions: &'n Questions<'n>,
}

impl<'a> Resolve<'a> for Subjects<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, cel::Unusable>> {
        self.named.resolve(name)
    }

    fn ask(&self, question: Question) -> Result<Arc<Answer>, cel::Unusable> {
        self.questions.answer(question)
    }
}

/// Whether all conditions hold; one that does not decides, whatever is wrong with others.
/// Nothing is evaluated after `until`.
///
/// # Errors
/// What is wrong with them.
pub fn holds<'a>(
    conditions: &[Condition],
    variables: &dyn cel::Resolve<'a>,
    until: std::time::Instant,
) -> Result<bool, String> {
    let budget = Budget::new(cel::CONDITIONS).ending(until);
    let mut wrong = Vec::new();
    for condition in conditions {
        match condition.program.evaluate(variables, &budget) {
            Ok(Val::Bool(true)) => {}
            Ok(Val::Bool(false)) => return Ok(false),
            Ok(other) => wrong.push(format!(
                "expression '{}' resulted in error: must evaluate to bool, not {}",
                condition.program.source(),
                other.type_name()
            )),
            Err(why @ cel::Unusable::OutOfBudget) => return Err(why.to_string()),
            Err(why) => wrong.push(why.to_string()),
        }
    }
    wrong.dedup();
    match wrong.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

#[cfg(test)]
mod tests;
