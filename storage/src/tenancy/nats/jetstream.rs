//! Requests to JetStream. Its interface are subjects and JSON; a stream of ours has no more to
//! it than this.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::connection::causes;
use crate::tenancy::TenancyError;

/// How many copies a stream has, in its configuration.
pub const COPIES: &str = "num_replicas";

/// Codes of JetStream.
mod code {
    pub const STREAM_NOT_FOUND: u64 = 10059;
    pub const NO_MESSAGE_FOUND: u64 = 10037;
    pub const MESSAGE_NOT_DELETED: u64 = 10057;
    pub const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
    pub const FULL: [u64; 4] = [10002, 10023, 10028, 10047];
    pub const STREAM_NAME_EXISTS: u64 = 10058;
    pub const TOO_FEW_SERVERS: [u64; 2] = [10005, 10074];
    pub const CONSUMER_NOT_FOUND: u64 = 10014;
    pub const UNAVAILABLE: [u64; 5] = [10004, 10008, 10009, 10118, 10194];
    pub const OFF_FOR_ACCOUNT: u64 = 10039;
    pub const OFF: u64 = 10076;
}

/// One account's JetStream.
pub struct JetStream<'a> {
    client: &'a Client,
    deadline: Duration,
}

/// A message of a stream.
pub struct Message {
    pub subject: String,
    pub sequence: u64,
    pub payload: Vec<u8>,
    /// As the server writes them; empty for none.
    pub headers: Vec<u8>,
}

/// What JetStream said that it did not do.
struct Failure {
    code: u64,
    error: TenancyError,
}

impl<'a> JetStream<'a> {
    pub fn new(client: &'a Client, deadline: Duration) -> Self {
        JetStream { client, deadline }
    }

    async fn request(
        &self,
        subject: &str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) -> Result<Value, Failure> {
        let silence = |text: String| Failure {
            code: 0,
            error: TenancyError::Unreachable(format!("{subject}: {text}")),
        };
        let request = Request::new()
            .timeout(Some(self.deadline))
            .payload(payload.into())
            .headers(headers);
        let answer = match self.client.send_request(subject.to_owned(), request).await {
            Ok(answer) => answer.payload,
            // Nobody listens: the stream is not there, or JetStream is not yet.
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                return Err(silence("JetStream does not answer".to_owned()));
            }
            Err(error) => return Err(silence(causes(&error))),
        };
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|error| silence(error.to_string()))?;
        match answer.get("error") {
            Some(error) => Err(meaning(subject, error)),
            None => Ok(answer),
        }
    }

    async fn api(&self, call: &str, payload: Value) -> Result<Value, Failure> {
        let payload = match payload {
            Value::Null => Vec::new(),
            payload => payload.to_string().into_bytes(),
        };
        let subject = format!("$JS.API.{call}");
        self.request(&subject, payload, HeaderMap::new()).await
    }

    /// Configuration, state and time of creation of a stream, if there is such a one.
    pub async fn stream(&self, name: &str) -> Result<Option<Value>, TenancyError> {
        let found = self.api(&format!("STREAM.INFO.{name}"), Value::Null).await;
        absent(found, &[code::STREAM_NOT_FOUND])
    }

    /// Makes a stream. Nothing happens if there is just the same.
    pub async fn create(&self, config: &Value) -> Result<Value, TenancyError> {
        let name = config["name"].as_str().unwrap_or_default();
        let call = format!("STREAM.CREATE.{name}");
        let made = self.api(&call, config.clone()).await;
        made.map_err(|failure| failure.error)
    }

    /// Changes a stream.
    pub async fn update(&self, config: &Value) -> Result<Value, TenancyError> {
        let name = config["name"].as_str().unwrap_or_default();
        let call = format!("STREAM.UPDATE.{name}");
        let made = self.api(&call, config.clone()).await;
        made.map_err(|failure| failure.error)
    }

    /// Gives a stream as many copies as this, and never fewer than it has. Where there are not
    /// enough servers for them, or not enough space, it keeps those that it has. `None`: it was
    /// left as it is.
    pub async fn raise(
        &self,
        config: &Value,
        copies: usize,
    ) -> Result<Option<Value>, TenancyError> {
        if config[COPIES].as_u64().is_none_or(|it| it >= copies as u64) {
            return Ok(None);
        }
        let mut config = config.clone();
        config[COPIES] = json!(copies);
        match self.update(&config).await {
            Ok(raised) => Ok(Some(raised)),
            Err(error @ (TenancyError::Refused(_) | TenancyError::NoSpace(_))) => {
                let stream = config["name"].as_str().unwrap_or_default();
                tracing::warn!(stream, %error, "a stream keeps the copies that it has");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a stream, if there is such a one.
    pub async fn delete(&self, name: &str) -> Result<(), TenancyError> {
        let done = self
            .api(&format!("STREAM.DELETE.{name}"), Value::Null)
            .await;
        absent(done, &[code::STREAM_NOT_FOUND]).map(drop)
    }

    /// Deletes the messages of a stream before this number, which its next one has at least.
    /// Never all that are there: who is late would delete what others have written since.
    pub async fn purge(&self, name: &str, before: u64) -> Result<(), TenancyError> {
        let before = json!({ "seq": before });
        let done = self.api(&format!("STREAM.PURGE.{name}"), before).await;
        done.map(drop).map_err(|failure| failure.error)
    }

    /// Makes a consumer.
    pub async fn consume(
        &self,
        stream: &str,
        name: &str,
        config: &Value,
    ) -> Result<(), TenancyError> {
        let call = format!("CONSUMER.CREATE.{stream}.{name}");
        let made = self.api(&call, json!({ "stream_name": stream, "config": config }));
        made.await.map(drop).map_err(|failure| failure.error)
    }

    /// Deletes a consumer, if there is such a one.
    pub async fn forget(&self, stream: &str, name: &str) -> Result<(), TenancyError> {
        let call = format!("CONSUMER.DELETE.{stream}.{name}");
        let done = self.api(&call, Value::Null).await;
        absent(done, &[code::CONSUMER_NOT_FOUND]).map(drop)
    }

    /// Appends a message, whatever there is; its number.
    pub async fn publish(
        &self,
        subject: &str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) -> Result<u64, TenancyError> {
        let done = self.request(subject, payload, headers).await;
        let ack = done.map_err(|failure| failure.error)?;
        Ok(ack["seq"].as_u64().unwrap_or(0))
    }

    /// Names of all streams of the account.
    pub async fn names(&self) -> Result<Vec<String>, TenancyError> {
        let mut names = Vec::new();
        loop {
            let page = self.api("STREAM.NAMES", json!({ "offset": names.len() }));
            let page = page.await.map_err(|failure| failure.error)?;
            let found = page["streams"].as_array().cloned().unwrap_or_default();
            let total = page["total"].as_u64().unwrap_or(0);
            let before = names.len();
            names.extend(found.iter().filter_map(|it| it.as_str().map(str::to_owned)));
            if names.len() as u64 >= total || names.len() == before {
                return Ok(names);
            }
        }
    }

    /// The last message with a subject. `None` also if there is no such stream.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Message>, TenancyError> {
        self.message(stream, json!({ "last_by_subj": subject }))
            .await
    }

    /// The first message from a number on whose subject is like this.
    pub async fn next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<Message>, TenancyError> {
        let which = json!({ "seq": from, "next_by_subj": subject });
        self.message(stream, which).await
    }

    async fn message(&self, stream: &str, which: Value) -> Result<Option<Message>, TenancyError> {
        let found = self.api(&format!("STREAM.MSG.GET.{stream}"), which).await;
        let none = [code::NO_MESSAGE_FOUND, code::STREAM_NOT_FOUND];
        let Some(found) = absent(found, &none)? else {
            return Ok(None);
        };
        let message = &found["message"];
        let text = |name: &str| message[name].as_str().unwrap_or_default();
        let bytes = |name: &str| {
            let decoded = STANDARD.decode(text(name));
            decoded.map_err(|e| TenancyError::Other(format!("a message of {stream}: {e}")))
        };
        Ok(Some(Message {
            subject: text("subject").to_owned(),
            sequence: message["seq"].as_u64().unwrap_or(0),
            payload: bytes("data")?,
            headers: bytes("hdrs")?,
        }))
    }

    /// Appends a message if the last one with its subject has this number, 0 being none; its
    /// own number, if so.
    pub async fn append(
        &self,
        stream: &str,
        subject: &str,
        payload: Vec<u8>,
        last: u64,
    ) -> Result<Option<u64>, TenancyError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", stream);
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence",
            last.to_string().as_str(),
        );
        let appended = self.request(subject, payload, headers).await;
        let appended = absent(appended, &code::WRONG_LAST_SEQUENCE)?;
        Ok(appended.map(|ack| ack["seq"].as_u64().unwrap_or(0)))
    }

    /// Deletes the very message, if it is there.
    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), TenancyError> {
        let call = format!("STREAM.MSG.DELETE.{stream}");
        let deleted = self.api(&call, json!({ "seq": sequence, "no_erase": true }));
        let Err(failure) = deleted.await else {
            return Ok(());
        };
        let gone = [
            code::NO_MESSAGE_FOUND,
            code::STREAM_NOT_FOUND,
            code::MESSAGE_NOT_DELETED,
        ];
        if !gone.contains(&failure.code) {
            return Err(failure.error);
        }
        match self.message(stream, json!({ "seq": sequence })).await? {
            None => Ok(()),
            Some(_) => Err(failure.error),
        }
    }
}

/// `None` for an answer with one of these codes.
fn absent(answer: Result<Value, Failure>, codes: &[u64]) -> Result<Option<Value>, TenancyError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if codes.contains(&failure.code) => Ok(None),
        Err(failure) => Err(failure.error),
    }
}

fn meaning(subject: &str, error: &Value) -> Failure {
    let code = error["err_code"].as_u64().unwrap_or(0);
    let said = error["description"].as_str().unwrap_or("failed");
    let text = format!("{subject}: {said}");
    let error = if code::FULL.contains(&code) {
        TenancyError::NoSpace(text)
    } else if code::UNAVAILABLE.contains(&code) {
        TenancyError::Unreachable(text)
    } else if code == code::OFF_FOR_ACCOUNT {
        // Each account of ours has it by its token; a server of a cluster learns that late.
        TenancyError::Unreachable(format!(
            "{text}: the server has not taken the account in yet, or has no room for one more"
        ))
    } else if code::TOO_FEW_SERVERS.contains(&code) {
        TenancyError::Refused(format!(
            "{text}; a DataStore with three endpoints and more keeps three copies, for which \
             they have to be servers of one cluster"
        ))
    } else if code == code::STREAM_NAME_EXISTS || code == code::OFF {
        TenancyError::Refused(text)
    } else {
        TenancyError::Other(text)
    };
    Failure { code, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_no_refusal() {
        let meaning = |code: u64| meaning("$JS.API.X", &json!({"err_code": code})).error;
        for code in [10008, 10039] {
            assert!(matches!(meaning(code), TenancyError::Unreachable(_)));
        }
        for code in [10058, 10074, 10076] {
            assert!(matches!(meaning(code), TenancyError::Refused(_)));
        }
        assert!(matches!(meaning(10023), TenancyError::NoSpace(_)));
    }
}
