//! One request, from the moment that it is known who asks until its answer is complete.
//!
//! Guarantees: a request of which something is said has exactly one last event, whoever
//! leaves; bodies are only kept where the level asks for them, and then within bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::auditor::Auditor;
use super::event::{Event, Level, ObjectRef, Stage, User};
use super::recording::Recording;
use super::{Annotations, secrets};
use super::{body, bounds};
use crate::aside;
use crate::authn::Identity;
use crate::authz::{Attributes, Decision};
use crate::decode::{self, Media};
use crate::status::Failure;
use crate::target::{Target, Verb};

mod latency;
mod open;
mod source;

pub use source::addresses;

/// What is known of a request before anything is done for it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub id: &'a str,
    pub parts: &'a Parts,
    pub target: &'a Target,
    pub source: Option<IpAddr>,
    /// When it came.
    pub began: Instant,
}

/// What an answer says in a Status of its own, although it is none of failure: goes with the
/// answer as an extension.
#[derive(Clone, Debug)]
pub struct Said(pub Value);

/// See the module. Nothing, where nothing is said of the request.
#[derive(Default)]
pub struct Trail(Option<Box<open::Open>>);

impl Trail {
    /// Of a request of somebody who was recognised, or of nobody.
    pub fn begin(
        auditor: &Arc<Auditor>,
        seen: Seen<'_>,
        who: Option<&Identity>,
        annotations: &Annotations,
    ) -> Trail {
        let what = Attributes::of(seen.target);
        let verdict = auditor.verdict(who, &what);
        if verdict.level == Level::None {
            return Trail(None);
        }
        let since = SignedDuration::try_from(seen.began.elapsed()).unwrap_or_default();
        let received = auditor.now() - since;
        let secret = secrets::are_carried(&what);
        let uri = seen.parts.uri.path_and_query();
        let uri = uri.map_or("", http::uri::PathAndQuery::as_str);
        let event = Event {
            level: verdict.level,
            audit_id: seen.id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: match secret {
                // Before it is cut: where it ends decides what is a token.
                true => bounds::text(&secrets::without_token(uri), bounds::URI),
                false => bounds::text(uri, bounds::URI),
            },
            verb: bounds::text(&what.verb, bounds::NAME),
            user: who.map(User::of).unwrap_or_default(),
            source_ips: source::addresses(&seen.parts.headers, seen.source),
            user_agent: user_agent(&seen.parts.headers),
            object_ref: ObjectRef::of(&what),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: received,
            stage_timestamp: received,
            annotations: Default::default(),
        };
        Trail(Some(Box::new(open::Open {
            auditor: auditor.clone(),
            verdict,
            event,
            secret,
            watch: matches!(seen.target, Target::Resource(path) if path.verb == Verb::Watch),
            panicked: false,
            done: false,
            hurried: false,
            annotations: annotations.clone(),
            began: seen.began,
            took: vec![("authentication", seen.began.elapsed())],
        })))
    }

    /// Whether the request will wait for its first event.
    pub fn waits_to_begin(&self) -> bool {
        let open = self.0.as_ref();
        open.is_some_and(|open| open.waits(Stage::RequestReceived))
    }

    /// Whether it will wait for one about its answer.
    pub fn waits_to_end(&self) -> bool {
        let stages = [
            Stage::ResponseStarted,
            Stage::ResponseComplete,
            Stage::Panic,
        ];
        let open = self.0.as_ref();
        open.is_some_and(|open| stages.into_iter().any(|stage| open.waits(stage)))
    }

    /// From here on nobody waits for what is said: it is lost where there is no room.
    pub fn hurry(&mut self) {
        if let Some(open) = &mut self.0 {
            open.hurried = true;
        }
    }

    /// Says that the request has come.
    ///
    /// # Errors
    /// 500 when that is not recorded and must be.
    pub async fn received(&mut self) -> Result<(), Failure> {
        let Some(open) = &mut self.0 else {
            return Ok(());
        };
        if open.stage(Stage::RequestReceived).await {
            return Ok(());
        }
        open.done = true;
        open.auditor.refused();
        Err(Failure::Internal("failed to store audit event".to_owned()))
    }

    /// Notes whether the request may go on, and why.
    pub fn authorized(&mut self, decision: &Result<Decision, Failure>, took: Duration) {
        let Some(open) = &mut self.0 else { return };
        open.took.push(("authorization", took));
        let (decision, reason) = match decision {
            Ok(Decision::Allow { reason }) => ("allow", reason.as_str()),
            Ok(Decision::Deny { reason }) => ("forbid", reason.as_str()),
            Err(Failure::Internal(_)) => ("", "internal error"),
            Err(_) => return,
        };
        let mut note = |key: &str, value: &str| {
            let key = format!("authorization.k8s.io/{key}");
            open.event.annotate(&key, value);
        };
        if !decision.is_empty() {
            note("decision", decision);
        }
        note("reason", reason);
    }

    /// Notes what a caller has sent.
    pub async fn sent(&mut self, caller: &str, verb: Verb, headers: &HeaderMap, body: &Bytes) {
        let Some(open) = &mut self.0 else { return };
        let Some(media) = readable(verb, headers).filter(|_| !body.is_empty()) else {
            return;
        };
        aside::documents(caller, body.len(), || open.sent(verb, media, body)).await;
    }

    /// Notes why the request is not carried out.
    pub fn failed(&mut self, failure: &Failure) {
        if let Some(open) = &mut self.0 {
            open.refused(failure);
        }
    }

    /// Notes that the server failed.
    pub fn panicked(&mut self, text: &str) {
        let Some(open) = &mut self.0 else { return };
        open.panicked = true;
        let text = bounds::panic(text);
        open.event.response_status = Some(json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError",
            "message": format!("APIServer panic'd: {text}"), "code": 500,
        }));
    }

    /// The one event of a caller that is not recognised.
    pub async fn unrecognised(&mut self, failure: &Failure) {
        self.failed(failure);
        if let Some(open) = &mut self.0 {
            open.done = true;
            open.stage(Stage::ResponseStarted).await;
        }
    }

    /// Says that there is an answer, and, of one that is not made while it is sent, that it
    /// is complete. The others say so when they end.
    pub async fn answered(mut self, response: Response<Body>) -> Response<Body> {
        let Some(open) = self.0.as_mut().filter(|open| !open.done) else {
            return response;
        };
        if let Some(Said(status)) = response.extensions().get() {
            open.said(status.clone());
        }
        open.code(response.status());
        if open.watch {
            open.stage(Stage::ResponseStarted).await;
        }
        let (parts, body) = response.into_parts();
        let media = open.wanted(&parts.headers);
        if body.size_hint().exact().is_none() {
            let body = Recording::new(body, self, media, &parts.headers);
            return Response::from_parts(parts, Body::new(body));
        }
        let body = match media {
            None => body,
            // It is there already.
            Some(media) => match body.collect().await {
                Ok(body) => {
                    let body = body.to_bytes();
                    open.answer(media, &body);
                    Body::from(body)
                }
                Err(_) => Body::empty(),
            },
        };
        self.complete().await;
        Response::from_parts(parts, body)
    }

    /// Notes the body of an answer that was sent.
    pub(super) fn streamed(&mut self, media: Media, body: Option<&[u8]>) {
        let Some(open) = &mut self.0 else { return };
        match body {
            Some(body) => open.answer(media, body),
            None => open.event.note_truncated(),
        }
    }

    /// Says that the answer is complete.
    pub(super) async fn complete(mut self) {
        if let Some(open) = &mut self.0 {
            open.done = true;
            let stage = open.last();
            open.stage(stage).await;
        }
    }

    /// Where bodies of answers are kept until they are complete.
    pub(super) fn room(&self) -> Option<body::Room> {
        self.0.as_ref().map(|open| open.auditor.room.clone())
    }
}

/// How a body is written, if it is read at all: of another type it is refused (R4.4, R3.54).
fn readable(verb: Verb, headers: &HeaderMap) -> Option<Media> {
    if verb != Verb::Patch {
        return decode::any_media(headers).ok();
    }
    let encoded = headers.contains_key(header::CONTENT_ENCODING);
    match decode::content_type(headers).as_str() {
        _ if encoded => None,
        decode::APPLY => Some(Media::Either),
        "application/json-patch+json" | "application/merge-patch+json" => Some(Media::Json),
        _ => None,
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .map(|agent| agent.as_bytes());
    let agent = agent.unwrap_or_default();
    bounds::text(&String::from_utf8_lossy(agent), bounds::USER_AGENT)
}

#[cfg(test)]
mod tests;
