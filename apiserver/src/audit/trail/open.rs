//! What is known of one request, and what is said of it at each stage.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::latency;
use crate::audit::auditor::Auditor;
use crate::audit::body::{self, Left, Recorded};
use crate::audit::event::{Event, Level, Stage};
use crate::audit::policy::Verdict;
use crate::audit::{Annotations, secrets};
use crate::decode::Media;
use crate::protobuf;
use crate::status::Failure;
use crate::target::Verb;

/// What is known so far.
pub(super) struct Open {
    pub(super) auditor: Arc<Auditor>,
    pub(super) verdict: Verdict,
    pub(super) event: Event,
    pub(super) secret: bool,
    pub(super) watch: bool,
    pub(super) panicked: bool,
    /// Nothing more is said.
    pub(super) done: bool,
    /// Nobody waits for what is said.
    pub(super) hurried: bool,
    /// What admission says.
    pub(super) annotations: Annotations,
    pub(super) began: Instant,
    pub(super) took: Vec<(&'static str, Duration)>,
}

/// Whoever leaves before the answer is complete leaves an event nevertheless.
impl Drop for Open {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Whether it was carried out is seen by the object.
        let unknown = || json!({"metadata": {}, "message": "Connection closed early"});
        self.event.response_status.get_or_insert_with(unknown);
        let stage = self.last();
        if self.make(stage) {
            self.auditor.let_go(&self.event);
        }
    }
}

impl Open {
    /// Makes the event of a stage and waits as its backends want it. False: it is not
    /// recorded and must be.
    pub(super) async fn stage(&mut self, stage: Stage) -> bool {
        match self.make(stage) {
            true if self.hurried => self.auditor.let_go(&self.event),
            true => self.auditor.hand(&self.event).delivered().await,
            false => true,
        }
    }

    /// Whether somebody will wait for the event of a stage.
    pub(super) fn waits(&self, stage: Stage) -> bool {
        let omitted = self.verdict.omit_stages.contains(&stage);
        !omitted && !self.done && !self.hurried && self.auditor.is_blocking()
    }

    /// False: nothing is said of this stage.
    fn make(&mut self, stage: Stage) -> bool {
        if self.verdict.omit_stages.contains(&stage) {
            return false;
        }
        self.event.stage = stage;
        if stage != Stage::RequestReceived {
            self.event.stage_timestamp = self.auditor.now();
        }
        for (key, value) in self.annotations.by_rank() {
            self.event.annotate(&key, &value);
        }
        true
    }

    /// The last stage, with how long its parts took if that was long.
    pub(super) fn last(&mut self) -> Stage {
        if self.panicked {
            return Stage::Panic;
        }
        let slow = latency::annotations(self.began.elapsed(), &self.took);
        self.event.annotations.extend(slow);
        Stage::ResponseComplete
    }

    /// Takes over why the request is not carried out.
    pub(super) fn refused(&mut self, failure: &Failure) {
        let mut status = failure.to_status();
        if self.secret && failure.may_quote() {
            secrets::unquote(&mut status);
        }
        self.said(status);
    }

    /// Takes over a Status: in parts, and as the answer.
    pub(super) fn said(&mut self, mut status: Value) {
        if self.verdict.level >= Level::RequestResponse && self.event.object_ref.is_some() {
            let text = status.to_string();
            self.event.response_object = self.record(Media::Json, text.as_bytes(), true);
        }
        if let Some(status) = status.as_object_mut() {
            status.remove("kind");
            status.remove("apiVersion");
            status.insert("metadata".to_owned(), json!({}));
        }
        self.event.answered(status);
    }

    /// Takes over what was sent.
    pub(super) fn sent(&mut self, verb: Verb, media: Media, body: &[u8]) {
        let whole = matches!(verb, Verb::Create | Verb::Update);
        if let Some(object) = self.event.object_ref.as_mut().filter(|_| whole) {
            object.complete(body::meta(media, body));
        }
        if self.verdict.level >= Level::Request {
            // Of a patch it is part of what somebody wants.
            let managed = !whole || !self.verdict.omit_managed_fields;
            self.event.request_object = self.record(media, body, managed);
        }
    }

    pub(super) fn code(&mut self, code: StatusCode) {
        let status = self
            .event
            .response_status
            .get_or_insert(json!({"metadata": {}}));
        status["code"] = Value::from(code.as_u16());
    }

    /// How the body of an answer with these headers is written, if it is wanted.
    pub(super) fn wanted(&self, headers: &HeaderMap) -> Option<Media> {
        let wanted = self.verdict.level >= Level::RequestResponse
            && self.event.object_ref.is_some()
            && self.event.response_object.is_none()
            && !self.watch;
        let media = headers.get(header::CONTENT_TYPE).filter(|_| wanted)?;
        match media.as_bytes() {
            media if media.starts_with(b"application/json") => Some(Media::Json),
            media if media.starts_with(b"application/yaml") => Some(Media::Yaml),
            media if media == protobuf::MEDIA.as_bytes() => Some(Media::Protobuf),
            _ => None,
        }
    }

    pub(super) fn answer(&mut self, media: Media, body: &[u8]) {
        let managed = !self.verdict.omit_managed_fields;
        self.event.response_object = self.record(media, body, managed);
    }

    pub(super) fn record(&mut self, media: Media, body: &[u8], managed: bool) -> Option<Recorded> {
        match self.auditor.room.record(media, body, managed) {
            Ok(recorded) => Some(recorded),
            Err(Left::Unreadable) => None,
            Err(Left::TooMuch) => {
                self.event.note_truncated();
                None
            }
        }
    }
}
