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
/// The same where they are the last ones of their subjects, of any size: a message for which a
/// request has no room, or no time, is lost to such a consumer. The server takes it from the
/// list of those that are to come and puts back the number alone, which that list does not look
/// at (nats-server 2.14, `loopAndGatherMsgs` and `getNextMsg`). So these requests have neither
/// bytes nor an end, and as few messages as the largest that the server takes allow.
const LAST_MESSAGES: usize = 30;
const LAST_BYTES: usize = 16 << 20;
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
    which: Which,
    /// Messages of a request.
    batch: usize,
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
            which,
            batch: match which {
                Which::Last => last_messages(client.server_info().max_payload),
                Which::After(_) => MESSAGES,
            },
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
                    if self.open == self.batch && self.count == begin {
                        return Err(silent("no message comes"));
                    }
                    self.open = 0;
                    continue;
                }
            }
            let place = message.reply.as_deref().and_then(place);
            let Some(Place {
                sequence,
                count,
                at,
                pending,
            }) = place
            else {
                return Err(silent("a message does not say its number"));
            };
            if count != self.count.saturating_add(1) {
                return Err(silent("messages were lost on the way"));
            }
            self.count = count;
            self.open = self.open.saturating_sub(1);
            if sequence == self.last && pending > 0 {
                self.nothing_is_left_out().await?;
            }
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

    /// More are to come after the last one: so somebody has written them since, or some were
    /// left out before.
    async fn nothing_is_left_out(&self) -> Result<(), TenancyError> {
        let jetstream = JetStream::new(&self.client, self.deadline);
        let stream = jetstream.stream(&self.stream).await?;
        let newest = stream.and_then(|stream| stream["state"]["last_seq"].as_u64());
        match newest {
            Some(newest) if newest > self.last => Ok(()),
            _ => Err(silent("messages were left out")),
        }
    }

    async fn ask(&mut self) -> Result<(), TenancyError> {
        let mut request = json!({ "batch": self.batch });
        if let Which::After(_) = self.which {
            let largest = self.client.server_info().max_payload;
            let expires = u64::try_from(self.deadline.as_nanos()).unwrap_or(u64::MAX);
            request["expires"] = json!(expires);
            request["max_bytes"] = json!(BYTES.max(largest.saturating_add(AROUND)));
        }
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.consumer
        );
        let payload = Value::to_string(&request).into();
        let asked = self
            .client
            .publish_with_reply(subject, self.inbox.clone(), payload);
        asked.await.map_err(|error| silent(&causes(&error)))?;
        self.open = self.batch;
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
            409 if text.contains("MaxBytes") && self.open < self.batch => Ok(true),
            409 if text.contains("MaxBytes") => Err(TenancyError::Refused(format!(
                "stream {} has a message that is larger than the server's max_payload",
                self.stream
            ))),
            code => Err(silent(&format!("{code} {text}"))),
        }
    }
}

/// How many last messages are asked for at a time of a server that takes so large ones.
fn last_messages(max_payload: usize) -> usize {
    (LAST_BYTES / max_payload.max(1)).clamp(1, LAST_MESSAGES)
}

fn silent(why: &str) -> TenancyError {
    TenancyError::Unreachable(format!("read a bucket: {why}"))
}

/// What the subject says by which a message would be acknowledged.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Number in the stream.
    sequence: u64,
    /// Number of the delivery.
    count: u64,
    /// Seconds since 1970.
    at: u64,
    /// How many are to come after it, as far as is known.
    pending: u64,
}

/// `$JS.ACK`, then domain and account in some servers, and then stream, consumer, times
/// delivered, the two numbers, nanoseconds, and how many are left.
fn place(reply: &str) -> Option<Place> {
    let parts: Vec<&str> = reply.split('.').collect();
    let first = match parts.len() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    let number = |index: usize| parts.get(index)?.parse::<u64>().ok();
    Some(Place {
        sequence: number(first)?,
        count: number(first + 1)?,
        at: number(first + 2)? / 1_000_000_000,
        pending: number(first + 3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_large_messages_are_on_their_way() {
        for (payload, expected) in [(0, 30), (1 << 20, 16), (4 << 20, 4), (64 << 20, 1)] {
            assert_eq!(last_messages(payload), expected);
        }
    }

    #[test]
    fn where_a_message_is() {
        let short = "$JS.ACK.KV_s.c.1.17.3.1700000000123456789.5";
        let expected = Some(Place {
            sequence: 17,
            count: 3,
            at: 1_700_000_000,
            pending: 5,
        });
        assert_eq!(place(short), expected);
        let long = "$JS.ACK.hub.ACC.KV_s.c.1.17.3.1700000000123456789.5.x";
        assert_eq!(place(long), expected);
        for bad in ["", "$JS.ACK.KV_s.c.1.17", "$JS.ACK.KV_s.c.1.x.3.17.5"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
