//! One webhook is asked.

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{Instrument, Span, trace_span};

use crate::policy::attributes::Attributes;
use crate::policy::call::{Room, Unanswered};
use crate::policy::hooks::{Hook, Kind, Version};
use crate::policy::review::{self, Unusable, Verdict};
use crate::status::Failure;

/// The object before and after, as they are sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) new: Option<Bytes>,
    pub(super) old: Option<Bytes>,
}

/// Why a webhook did not let a request pass.
#[derive(Debug)]
pub(super) enum Refused {
    /// It could not be asked: its failure policy decides.
    Unasked { why: String, code: u16 },
    /// Whatever the policy is.
    Failure(Failure),
}

pub(super) fn write(value: Option<&Value>) -> Option<Bytes> {
    value.map(|value| Bytes::from(value.to_string()))
}

/// What a webhook says, with the room that it takes.
///
/// # Errors
/// It is not asked, or says nothing that is an answer.
pub(super) async fn ask(
    kind: Kind,
    hook: &Hook,
    attributes: &Attributes<'_>,
    written: &Written,
) -> Result<(Verdict, Option<Room>), Refused> {
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
    let answer = asking.instrument(span(kind, hook, attributes, &uid)).await;
    let (answer, room) = answer.map_err(|why| match why {
        Unanswered::NoClient(why) => unasked(format!("could not get REST client: {why}"), 500),
        Unanswered::Failed(why) => unasked(format!("failed to call webhook: {why}"), 503),
    })?;
    let verdict = read(kind, &answer, version, &uid);
    let verdict = verdict.map_err(|why| unasked(why, 503))?;
    for (key, value) in &verdict.annotations {
        attributes
            .annotations
            .add_of(&hook.name, key, value.as_str());
    }
    for warning in &verdict.warnings {
        attributes.warnings.add(warning.as_str());
    }
    Ok((verdict, room))
}

/// Of one question, as by Kubernetes (R9.13).
fn span(kind: Kind, hook: &Hook, attributes: &Attributes<'_>, uid: &str) -> Span {
    trace_span!(
        "webhook",
        otel.name = match kind {
            Kind::Mutating => "Call mutating webhook",
            Kind::Validating => "Call validating webhook",
        },
        configuration = &*hook.configuration,
        operation = attributes.operation.as_str(),
        resource = attributes.resource.plural,
        subresource = attributes.subresource,
        UID = uid,
        webhook = hook.name.as_str(),
    )
}

fn read(kind: Kind, answer: &[u8], version: Version, uid: &str) -> Result<Verdict, String> {
    Verdict::read(kind, answer, version, uid).map_err(|why| match why {
        Unusable::Undecoded(why) => format!("failed to call webhook: {why}"),
        Unusable::Invalid(why) => format!("received invalid webhook response: {why}"),
    })
}
