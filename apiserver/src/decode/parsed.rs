//! What was read of a body, or why it was not.

use apiservice::told;
use serde_json::Value;

use crate::object::weight;
use crate::protobuf;
use crate::status::Failure;

/// A parsed body and what a strict reader has to say about it.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The document.
    pub value: Value,
    /// Complete texts: `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// Why a body is not parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The decoder's text.
    Syntax(String),
    /// Protobuf: with what it says of itself.
    Message(protobuf::Unreadable),
    /// Its tree would take more memory than [`weight::BODY_TREE`].
    TooMany,
}

impl Unreadable {
    /// The answer; the caller says of what the decoder's text is.
    pub fn or(self, failure: impl FnOnce(&str) -> Failure) -> Failure {
        match self {
            // The decoder may quote the body.
            Self::Syntax(text) => failure(&told::cut(text, told::MAX_TEXT)),
            Self::Message(message) => failure(&told::cut(message.text, told::MAX_TEXT)),
            Self::TooMany => Failure::too_heavy("body", weight::BODY_TREE),
        }
    }

    /// The answer for a body that was to be an object of a kind (R6.5).
    pub fn unrecognized(self, kind: &str, body: &[u8]) -> Failure {
        let message = match &self {
            Self::Message(message) => message.clone(),
            _ => return self.or(|text| unrecognized(kind, text, body)),
        };
        let text = told::cut(message.text, told::MAX_TEXT);
        Failure::BadRequest(match message.kind.is_empty() {
            true => format!(
                "the object provided is unrecognized (must be of type {kind}): {text} ({})",
                summary(body)
            ),
            false => format!(
                "{} in version {:?} cannot be handled as a {kind}: {text}",
                told::cut(message.kind, told::MAX_TEXT),
                told::cut(message.version, told::MAX_TEXT),
            ),
        })
    }
}

/// R6.5: a body in which no kind can be read.
fn unrecognized(kind: &str, error: &str, body: &[u8]) -> Failure {
    Failure::BadRequest(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {error} ({})",
        summary(body)
    ))
}

fn summary(body: &[u8]) -> String {
    let short = &body[..body.len().min(30)];
    let dots = if body.len() > short.len() { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(short)),
        Some(_) => format!("{}{dots}", hex::encode(short)),
    }
}
