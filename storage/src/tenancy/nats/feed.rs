//! The messages of a stream in the order of their numbers, up to one that is known to be there.
//!
//! They come from a consumer of our own, some at a time. It may be beside a copy of the stream
//! that is late: so whoever reads says up to which number, as the leader says it, and is not
//! told that this is all before that one came.

use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::causes;
use super::jetstream::JetStream;
use crate::tenancy::TenancyError;

/// Messages that are asked for at a time, and bytes of them.
const MESSAGES: usize = 500;
const BYTES: usize = 2 << 20;
/// What a message takes besides its body.
const AROUND: usize = 64 << 10;
/// The server forgets a consumer that nobody asks for so long.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The last of each subject, as it is now.
    Last,
    /// All after a number.
    After(u64),
}

/// A message as it comes.
pub struct Delivered {
    /// Where it stands.
    pub subject: String,
    /// Its number.
    pub sequence: u64,
    /// Seconds since 1970 at which it was written, by the server's clock.
    pub at: u64,
    /// What its headers say.
    pub headers: Option<HeaderMap>,
    /// Its body.
    pub payload: Bytes,
}

/// Messages of a stream.
pub struct Feed {
    client: Client,
    deadline: Duration,
    messages: Subscriber,
    inbox: String,
    stream: String,
    consumer: String,
    /// Up to which number.
    last: u64,
    /// How many are still to come of those that were asked for.
    open: usize,
    /// How many have come.
    count: u64,
}

impl Feed {
    /// `last`: the number of the stream's last message, which is there.
    pub async fn open(
        client: &Client,
        deadline: Duration,
        stream: &str,
        which: Which,
        last: u64,
    ) -> Result<Self, TenancyError> {
        let consumer = Uuid::new_v4().simple().to_string();
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| silent(&causes(&error)))?;
        let mut config = json!({
            "ack_policy": "none",
            "filter_subject": ">",
            "inactive_threshold": u64::try_from(FORGOTTEN.as_nanos()).unwrap_or(u64::MAX),
            "mem_storage": true,
            "name": consumer,
            "num_replicas": 1,
            "replay_policy": "instant",
        });
        match which {
            Which::Last => config["deliver_policy"] = json!("last_per_subject"),
            Which::After(number) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(number.saturating_add(1));
            }
        }
        let jetstream = JetStream::new(client, deadline);
        jetstream.consume(stream, &consumer, &config).await?;
        Ok(Feed {
            client: client.clone(),
            deadline,
            messages,
            inbox,
            stream: stream.to_owned(),
            consumer,
            last,
            open: 0,
            count: 0,
        })
    }

    /// The next one. Not to be asked for after the last.
    pub async fn next(&mut self) -> Result<Delivered, TenancyError> {
        let begin = self.count;
        loop {
            if self.open == 0 {
                self.ask().await?;
            }
            let next = timeout(self.deadline, self.messages.next()).await;
            let Ok(Some(message)) = next else {
                return Err(silent("no message comes"));
            };
            match message.status {
                None => {}
                Some(StatusCode::OK) => {}
                Some(status) => {
                    if !self.ends_request(status, message.description.as_deref())? {
                        continue;
                    }
                    // What was asked for has come to its end, with less than that.
                    if self.open == MESSAGES && self.count == begin {
                        return Err(silent("no message comes"));
                    }
                    self.open = 0;
                    continue;
                }
            }
            let place = message.reply.as_deref().and_then(place);
            let Some((sequence, count, at)) = place else {
                return Err(silent("a message does not say its number"));
            };
            if count != self.count.saturating_add(1) {
                return Err(silent("messages were lost on the way"));
            }
            self.count = count;
            self.open = self.open.saturating_sub(1);
            return Ok(Delivered {
                subject: message.subject.to_string(),
                sequence,
                at,
                headers: message.headers,
                payload: message.payload,
            });
        }
    }

    /// Whether this is the number of the last, or of one that came later.
    pub fn ends_with(&self, sequence: u64) -> bool {
        sequence >= self.last
    }

    /// The server need not remember it any more.
    pub async fn close(self) {
        let jetstream = JetStream::new(&self.client, self.deadline);
        if let Err(error) = jetstream.forget(&self.stream, &self.consumer).await {
            tracing::debug!(%error, "a consumer is left to be forgotten");
        }
    }

    async fn ask(&mut self) -> Result<(), TenancyError> {
        let largest = self.client.server_info().max_payload;
        let request = json!({
            "batch": MESSAGES,
            "expires": u64::try_from(self.deadline.as_nanos()).unwrap_or(u64::MAX),
            "max_bytes": BYTES.max(largest.saturating_add(AROUND)),
        });
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.consumer
        );
        let payload = Value::to_string(&request).into();
        let asked = self
            .client
            .publish_with_reply(subject, self.inbox.clone(), payload);
        asked.await.map_err(|error| silent(&causes(&error)))?;
        self.open = MESSAGES;
        Ok(())
    }

    /// Whether a request has ended before all messages came that it was for. That is no error,
    /// but for what cannot be had by another one.
    fn ends_request(&self, status: StatusCode, text: Option<&str>) -> Result<bool, TenancyError> {
        let text = text.unwrap_or_default();
        match status.as_u16() {
            404 | 408 => Ok(true),
            // It comes after the last of them, where bytes are left.
            409 if text.contains("Batch Completed") => Ok(false),
            409 if text.contains("MaxBytes") && self.open < MESSAGES => Ok(true),
            409 if text.contains("MaxBytes") => Err(TenancyError::Refused(format!(
                "stream {} has a message that is larger than the server's max_payload",
                self.stream
            ))),
            code => Err(silent(&format!("{code} {text}"))),
        }
    }
}

fn silent(why: &str) -> TenancyError {
    TenancyError::Unreachable(format!("read a bucket: {why}"))
}

/// Number in the stream, number of the delivery, and seconds, of the subject by which a message
/// would be acknowledged: `$JS.ACK`, then domain and account in some servers, and then stream,
/// consumer, times delivered, the two numbers, nanoseconds, and how many are left.
fn place(reply: &str) -> Option<(u64, u64, u64)> {
    let parts: Vec<&str> = reply.split('.').collect();
    let first = match parts.len() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    let number = |index: usize| parts.get(index)?.parse::<u64>().ok();
    Some((
        number(first)?,
        number(first + 1)?,
        number(first + 2)? / 1_000_000_000,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_message_is() {
        let short = "$JS.ACK.KV_s.c.1.17.3.1700000000123456789.5";
        assert_eq!(place(short), Some((17, 3, 1_700_000_000)));
        let long = "$JS.ACK.hub.ACC.KV_s.c.1.17.3.1700000000123456789.5.x";
        assert_eq!(place(long), Some((17, 3, 1_700_000_000)));
        for bad in ["", "$JS.ACK.KV_s.c.1.17", "$JS.ACK.KV_s.c.1.x.3.17.5"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
