//! An event of `audit.k8s.io/v1` (R9.11).

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::body::{Meta, Recorded};
use super::bounds;
use crate::authn::{Identity, UNAUTHENTICATED};
use crate::authz::Attributes;

/// What an event of a log begins with; one of an `EventList` has no such thing.
const TYPE: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
const LIST: &[u8] =
    br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
/// Says that something was left out: bodies, or more than there is room for.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// How much is said of a request.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and the answer's status.
    Metadata,
    /// Also the body of the request.
    Request,
    /// Also that of the answer.
    RequestResponse,
}

impl Level {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before anything is done, by whom it is known.
    RequestReceived,
    /// Of watches, and of callers that are not recognised: before the body of the answer.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server failed.
    Panic,
}

/// One event. What is empty is left out, as by Kubernetes.
///
/// `impersonatedUser` is never there: kube-apiserver impersonates before it forwards, and
/// its own event, which has the same `auditID`, says who did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Recorded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Recorded>,
    #[serde(serialize_with = "micro")]
    pub request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro")]
    pub stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Who asks; nothing of a caller that is not recognised.
#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a request for a resource is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

impl Event {
    /// As JSON, without its type.
    pub fn encode(&self) -> Bytes {
        // All keys are texts, so that nothing can fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Whether there are bodies that can be left out.
    pub fn has_bodies(&self) -> bool {
        self.request_object.is_some() || self.response_object.is_some()
    }

    /// The same without them, and with a note of that.
    pub fn truncated(&self) -> Event {
        let mut event = Event {
            request_object: None,
            response_object: None,
            ..self.clone()
        };
        event.note_truncated();
        event
    }

    /// Adds an annotation; the first of a key stays. Of one for which there is no room it is
    /// noted that it is missing.
    pub fn annotate(&mut self, key: &str, value: &str) {
        if !bounds::annotate(&mut self.annotations, key, value) {
            self.note_truncated();
        }
    }

    /// Takes over what the answer says of itself.
    pub fn answered(&mut self, status: Value) {
        let status = bounds::status(status).unwrap_or_else(|smaller| {
            self.note_truncated();
            smaller
        });
        self.response_status = Some(status);
    }

    /// Notes that something was left out.
    pub fn note_truncated(&mut self) {
        self.annotations
            .insert(TRUNCATED.to_owned(), "true".to_owned());
    }
}

/// An encoded event as one line of a log.
pub fn line(event: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(TYPE);
    out.extend_from_slice(event.get(1..).unwrap_or_default());
    out.push(b'\n');
}

/// Encoded events as an `EventList`.
pub fn list(events: &[Bytes]) -> Vec<u8> {
    let bytes: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut out = Vec::with_capacity(LIST.len() + bytes + 2);
    out.extend_from_slice(LIST);
    for (position, event) in events.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.extend_from_slice(b"]}");
    out
}

impl User {
    /// Of a caller that was recognised.
    pub fn of(identity: &Identity) -> Self {
        User {
            username: bounds::text(&identity.user, bounds::USER),
            uid: bounds::text(identity.uid.as_deref().unwrap_or_default(), bounds::NAME),
            groups: bounds::texts(&identity.groups, bounds::GROUPS),
            extra: bounds::lists(&identity.extra, bounds::EXTRA),
        }
    }

    /// Whether anybody could be it: who is not recognised, or has shown nothing.
    pub fn is_stranger(&self) -> bool {
        self.username.is_empty() || self.groups.iter().any(|group| group == UNAUTHENTICATED)
    }
}

impl ObjectRef {
    /// Of a request, by its URL; nothing of one that is not for a resource.
    pub fn of(attributes: &Attributes) -> Option<Self> {
        let part = |text: &str| bounds::text(text, bounds::NAME);
        attributes.path.is_none().then(|| ObjectRef {
            resource: part(&attributes.resource),
            namespace: part(&attributes.namespace),
            name: part(&attributes.name),
            api_group: part(&attributes.group),
            api_version: part(&attributes.version),
            subresource: part(&attributes.subresource),
            ..ObjectRef::default()
        })
    }

    /// Adds what the URL does not say. The body says it: it may be anything.
    pub fn complete(&mut self, meta: Meta) {
        for (field, said, most) in [
            (&mut self.name, meta.name, bounds::NAME),
            (&mut self.namespace, meta.namespace, bounds::NAME),
            (&mut self.uid, meta.uid, bounds::ID),
            (
                &mut self.resource_version,
                meta.resource_version,
                bounds::ID,
            ),
        ] {
            if field.is_empty() {
                *field = bounds::text(&said.unwrap_or_default(), most);
            }
        }
    }
}

fn micro<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn event() -> Event {
        Event {
            level: Level::Request,
            audit_id: "id".to_owned(),
            stage: Stage::ResponseComplete,
            request_uri: "/apis/g/v/things".to_owned(),
            verb: "create".to_owned(),
            user: User {
                username: "jane".to_owned(),
                ..User::default()
            },
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: "2030-01-01T00:00:00Z".parse().unwrap(),
            stage_timestamp: "2030-01-01T00:00:00.0123456Z".parse().unwrap(),
            annotations: BTreeMap::new(),
        }
    }

    /// R9.11.
    #[test]
    fn an_event_is_written_as_kubernetes_writes_it() {
        let mut line_of = Vec::new();
        line(&event().encode(), &mut line_of);
        assert!(line_of.ends_with(b"}\n"));
        let read: Value = serde_json::from_slice(&line_of).unwrap();
        let expected = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request",
            "auditID": "id", "stage": "ResponseComplete", "requestURI": "/apis/g/v/things",
            "verb": "create", "user": {"username": "jane"},
            "requestReceivedTimestamp": "2030-01-01T00:00:00.000000Z",
            "stageTimestamp": "2030-01-01T00:00:00.012345Z",
        });
        assert_eq!(read, expected);
        let read: Value =
            serde_json::from_slice(&list(&[event().encode(), event().encode()])).unwrap();
        assert_eq!(read["kind"], "EventList");
        assert_eq!(read["items"].as_array().unwrap().len(), 2);
        assert_eq!(read["items"][1]["auditID"], "id");
    }

    #[test]
    fn levels_are_in_order() {
        assert!(Level::None < Level::Metadata && Level::Metadata < Level::Request);
        assert!(Level::Request < Level::RequestResponse);
    }
}
