//! The one table from failures to HTTP code, reason and message (contract 3.14).
//!
//! Every handler returns a [`Failure`]; nobody else writes a status code. The
//! texts are Kubernetes' own, because tools compare them. [`crate::respond`] makes an
//! answer of one.

use std::borrow::Cow;

use apiservice::Resource;
use apiservice::field;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a failure is about: printed as `R.G "N"`, or `R "N"` in the core group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Plural, except where Kubernetes prints a kind.
    pub resource: Cow<'static, str>,
    /// Empty if the failure is about the whole resource.
    pub name: String,
}

impl Subject {
    /// An object of one of our own resources.
    pub fn of(resource: &Resource, name: &str) -> Self {
        Self::new(apiservice::GROUP, resource.plural, name)
    }

    /// Any object.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        resource: impl Into<Cow<'static, str>>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
            name: name.into(),
        }
    }

    /// `R.G`, or `R` in the core group.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_string()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (key, value) in [
            ("name", self.name.as_str()),
            ("group", self.group.as_ref()),
            ("kind", self.resource.as_ref()),
        ] {
            if !value.is_empty() {
                details.insert(key.to_owned(), Value::from(value));
            }
        }
        details
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {:?}", self.group_resource(), self.name)
    }
}

/// One entry of `details.causes`; empty parts are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = Map::new();
        for (key, value) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ] {
            if !value.is_empty() {
                cause.insert(key.to_owned(), Value::from(value.as_str()));
            }
        }
        Value::Object(cause)
    }
}

/// A refusal in the words of somebody else: a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Complete.
    pub message: String,
    /// Empty if there is none.
    pub reason: String,
    /// At least 400; of one that HTTP does not have, the answer's is 500.
    pub code: i32,
    /// `details` of the Status, as they came.
    pub details: Option<Details>,
}

/// The details of a Status as text: as a tree they may take a hundred times its bytes, and
/// whoever is refused may wait with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details(Box<str>);

impl Details {
    /// Of the text of a JSON value.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Those that are an object.
    pub fn read(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(&self.0).ok()
    }
}

/// What of the details of a Status a client does by itself.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ForClients {
    retry_after_seconds: Option<serde_json::Number>,
}

/// Why a request was not carried out. `retry_after` is in seconds and is only
/// set where nothing can have been committed (R3.86).
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    BadRequest(String),
    #[error("Unauthorized")]
    Unauthorized,
    /// `message` is complete; it names subject and right (R1.32, R7.4).
    #[error("{message}")]
    Forbidden {
        message: String,
        subject: Subject,
        causes: Vec<Cause>,
    },
    #[error("{0} not found")]
    NotFound(Subject),
    /// Below the group's version, but no such resource or sub-path.
    #[error("the server could not find the requested resource")]
    UnknownPath,
    #[error("{verb} is not supported on resources of kind {:?}", subject.group_resource())]
    MethodNotAllowed { verb: String, subject: Subject },
    /// The accepted media types, comma separated, or the whole text of R4.9.
    #[error("{0}")]
    NotAcceptable(String),
    #[error("{}{subject} already exists{}",
        if *deleting { "object is being deleted: " } else { "" },
        if *generated { ", the server was not able to generate a unique name for the object" } else { "" })]
    AlreadyExists {
        subject: Subject,
        /// The present object has a deletionTimestamp.
        deleting: bool,
        /// The name came from generateName (R3.36).
        generated: bool,
    },
    #[error("Operation cannot be fulfilled on {subject}: {message}")]
    Conflict { subject: Subject, message: String },
    /// Others own what a configuration would change (R5.20).
    #[error("{message}")]
    ApplyConflict { message: String, causes: Vec<Cause> },
    /// A webhook or a policy says no.
    #[error("{}", .0.message)]
    Denied(Box<Denied>),
    /// A failure to which Kubernetes gives no reason, though the client may be at fault:
    /// a configuration that does not fit the schema, for one (R5.16).
    #[error("{0}")]
    Unexplained(String),
    /// 410: history no longer reaches back. `continue_token` lets a list go on
    /// at the latest state (R3.19).
    #[error("{message}")]
    Expired {
        message: String,
        continue_token: Option<String>,
    },
    #[error("Request entity too large: {0}")]
    TooLarge(String),
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(String),
    #[error(
        "{} {name:?} is invalid: {}",
        qualified(kind, group),
        errors.summary()
    )]
    Invalid {
        kind: String,
        group: String,
        name: String,
        errors: field::Errors,
    },
    /// A patch that does not apply; Kubernetes drops the text (R3.56).
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable,
    #[error("{message}")]
    TooManyRequests { message: String, retry_after: u32 },
    #[error("Internal error occurred: {0}")]
    Internal(String),
    #[error("{message}")]
    Unavailable { message: String, retry_after: u32 },
    /// The outcome is unknown: no Retry-After.
    #[error("Timeout: {0}")]
    Timeout(String),
    /// The wanted revision is newer than ours (R3.16).
    #[error("Timeout: Too large resource version: {wanted}, current: {current}")]
    TooLargeVersion { wanted: u64, current: u64 },
}

fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    }
}

impl Failure {
    /// Whether the text may have something in it of what was sent, or of what was to be
    /// stored.
    pub fn may_quote(&self) -> bool {
        match self {
            Self::BadRequest(_)
            | Self::Conflict { .. }
            | Self::ApplyConflict { .. }
            | Self::Denied(_)
            | Self::Unexplained(_)
            | Self::TooLarge(_)
            | Self::Invalid { .. }
            | Self::Internal(_) => true,
            Self::Unauthorized
            | Self::Forbidden { .. }
            | Self::NotFound(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable(_)
            | Self::AlreadyExists { .. }
            | Self::Expired { .. }
            | Self::UnsupportedMediaType(_)
            | Self::Unprocessable
            | Self::TooManyRequests { .. }
            | Self::Unavailable { .. }
            | Self::Timeout(_)
            | Self::TooLargeVersion { .. } => false,
        }
    }

    /// 422 for an object of one of our kinds.
    pub fn invalid(resource: &Resource, name: &str, errors: field::Errors) -> Self {
        Self::Invalid {
            kind: resource.kind.to_owned(),
            group: apiservice::GROUP.to_owned(),
            name: name.to_owned(),
            errors,
        }
    }

    /// The conflict every client retries on; the wording is compared by tools (R3.47).
    pub fn modified(subject: Subject) -> Self {
        Self::Conflict {
            subject,
            message: "the object has been modified; please apply your changes to the latest version and try again".to_owned(),
        }
    }

    /// 503 because the store does not answer; never an absence (rule 3).
    pub fn store_unavailable(detail: impl std::fmt::Display) -> Self {
        Self::Unavailable {
            message: format!("the object store is not available: {detail}"),
            retry_after: 1,
        }
    }

    /// What went wrong with a read of the store.
    pub fn of_read(error: storage::Error) -> Self {
        match error {
            storage::Error::InvalidKey(_) => Self::BadRequest(error.to_string()),
            other => Self::store_unavailable(other),
        }
    }

    /// Refused for now, with the time after which to come again.
    pub fn too_many() -> Self {
        Self::TooManyRequests {
            message: "Too many requests, please try again later.".to_owned(),
            retry_after: 1,
        }
    }

    /// 413 for what would take more memory than it may.
    pub fn too_heavy(what: &str, most: usize) -> Self {
        let most = most / (1024 * 1024);
        Self::TooLarge(format!(
            "the {what} has too many maps and lists: it would take more than {most} MiB of memory"
        ))
    }

    /// HTTP code.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::AlreadyExists { .. } | Self::Conflict { .. } | Self::ApplyConflict { .. } => {
                StatusCode::CONFLICT
            }
            Self::Denied(denied) => u16::try_from(denied.code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Self::Expired { .. } => StatusCode::GONE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid { .. } | Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) | Self::Unexplained(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) | Self::TooLargeVersion { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `reason` of the Status.
    pub fn reason(&self) -> &str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::NotFound(_) | Self::UnknownPath => "NotFound",
            Self::MethodNotAllowed { .. } => "MethodNotAllowed",
            Self::NotAcceptable(_) => "NotAcceptable",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict { .. } => "Conflict",
            Self::Unexplained(_) => "",
            Self::Denied(denied) => &denied.reason,
            Self::Expired { .. } => "Expired",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Invalid { .. } | Self::Unprocessable => "Invalid",
            Self::TooManyRequests { .. } => "TooManyRequests",
            Self::Internal(_) => "InternalError",
            Self::Unavailable { .. } => "ServiceUnavailable",
            Self::Timeout(_) | Self::TooLargeVersion { .. } => "Timeout",
        }
    }

    /// Seconds after which a repetition may help, if it is safe.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            // 0 = the write may have happened, so do not invite a repetition.
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(*retry_after).filter(|seconds| *seconds > 0)
            }
            Self::TooLargeVersion { .. }
            | Self::AlreadyExists {
                generated: true, ..
            } => Some(1),
            Self::Denied(denied) => {
                let details = &denied.details.as_ref()?.0;
                let read: ForClients = serde_json::from_str(details).ok()?;
                let seconds = read.retry_after_seconds?.as_u64()?;
                u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
            }
            _ => None,
        }
    }

    fn causes(&self) -> Vec<Cause> {
        match self {
            Self::Forbidden { causes, .. } | Self::ApplyConflict { causes, .. } => causes.clone(),
            Self::Invalid { errors, .. } => errors
                .iter()
                .take(field::MAX_ERRORS)
                .map(|error| Cause {
                    reason: error.reason().to_owned(),
                    message: error.message(),
                    field: error.field.clone(),
                })
                .collect(),
            Self::Internal(message) => vec![Cause {
                message: message.clone(),
                ..Cause::default()
            }],
            Self::TooLargeVersion { .. } => vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                ..Cause::default()
            }],
            _ => Vec::new(),
        }
    }

    fn details(&self) -> Option<Map<String, Value>> {
        if let Self::Denied(denied) = self {
            return denied.details.as_ref()?.read();
        }
        let mut details = match self {
            Self::Forbidden { subject, .. }
            | Self::NotFound(subject)
            | Self::AlreadyExists { subject, .. }
            | Self::Conflict { subject, .. } => subject.details(),
            Self::MethodNotAllowed { subject, .. } => {
                let mut details = subject.details();
                // Kubernetes names the resource only.
                details.remove("name");
                details
            }
            Self::Invalid {
                kind, group, name, ..
            } => Subject::new(group.clone(), kind.clone(), name.clone()).details(),
            Self::UnknownPath
            | Self::Unprocessable
            | Self::Internal(_)
            | Self::ApplyConflict { .. }
            | Self::TooManyRequests { .. }
            | Self::Unavailable { .. }
            | Self::Timeout(_)
            | Self::TooLargeVersion { .. } => Map::new(),
            _ => return None,
        };
        let causes = self.causes();
        if !causes.is_empty() {
            let causes = causes.iter().map(Cause::to_value).collect();
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        if let Some(seconds) = self.retry_after() {
            details.insert("retryAfterSeconds".to_owned(), Value::from(seconds));
        }
        Some(details)
    }

    /// The `v1` Status that describes this failure.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "code": self.code().as_u16(),
        });
        if let Self::Denied(denied) = self {
            status["code"] = Value::from(denied.code);
        }
        if !self.reason().is_empty() {
            status["reason"] = Value::from(self.reason());
        }
        if let Some(details) = self.details() {
            status["details"] = Value::Object(details);
        }
        if let Self::Expired {
            continue_token: Some(token),
            ..
        } = self
        {
            status["metadata"]["continue"] = Value::from(token.as_str());
        }
        status
    }
}

/// `{"status":"Success"}` for a deletion that is complete (R3.62).
pub fn deleted(subject: &Subject, uid: &str) -> Value {
    let mut details = subject.details();
    if !uid.is_empty() {
        details.insert("uid".to_owned(), Value::from(uid));
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, header};

    /// R3.37, R3.43, R3.47.
    #[test]
    fn texts_codes_and_details() {
        let subject = Subject::new("g", "things", "a");
        let cases = [
            (
                Failure::NotFound(subject.clone()),
                404,
                "NotFound",
                "things.g \"a\" not found",
            ),
            (
                Failure::NotFound(Subject::new("", "namespaces", "n")),
                404,
                "NotFound",
                "namespaces \"n\" not found",
            ),
            (
                Failure::modified(subject.clone()),
                409,
                "Conflict",
                "Operation cannot be fulfilled on things.g \"a\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (
                Failure::AlreadyExists {
                    subject: subject.clone(),
                    deleting: true,
                    generated: false,
                },
                409,
                "AlreadyExists",
                "object is being deleted: things.g \"a\" already exists",
            ),
        ];
        for (failure, code, reason, message) in cases {
            let status = failure.to_status();
            assert_eq!(status["code"], code);
            assert_eq!(
                status.get("reason").and_then(Value::as_str).unwrap_or(""),
                reason
            );
            assert_eq!(status["message"], message);
        }
    }

    /// R3.16, R3.86.
    #[test]
    fn retry_after_is_in_header_and_details() {
        let response = Failure::TooLargeVersion {
            wanted: 9,
            current: 4,
        }
        .into_response(&HeaderMap::new());
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let status = Failure::TooLargeVersion {
            wanted: 9,
            current: 4,
        }
        .to_status();
        assert_eq!(
            status["details"]["causes"][0]["reason"],
            "ResourceVersionTooLarge"
        );
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
        assert_eq!(
            status["message"],
            "Timeout: Too large resource version: 9, current: 4"
        );
    }

    #[test]
    fn causes_end_at_the_cap() {
        let error = |n: usize| field::Error::required(&field::Path::new(format!("f{n}")), "");
        let resource = apiservice::find("datastores").unwrap();
        let status = Failure::invalid(resource, "a", (0..500).map(error).collect()).to_status();
        let causes = status["details"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), field::MAX_ERRORS);
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .ends_with("and 400 more]")
        );
    }

    /// R3.19.
    #[test]
    fn expired_list_carries_the_token() {
        let status = Failure::Expired {
            message: "old".into(),
            continue_token: Some("t".into()),
        }
        .to_status();
        assert_eq!(status["metadata"]["continue"], "t");
        assert_eq!(status["code"], 410);
    }
}
