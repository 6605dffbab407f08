//! What the messages of a bucket say: which are about the tenant's keys, and what those have.

use super::{Kept, Which};
use crate::tenancy::TenancyError;
use crate::tenancy::contents::{ContentsError, Entry, Op, Page, last_of_each, relative};
use crate::tenancy::nats::feed::{Delivered, Feed};
use crate::tenancy::nats::{kine, system};

use super::window::Window;

/// Seconds that a lease has left at least: kine that is started anew ends none of those of
/// before, so that there may be many whose time is over. They shall not end while both sides are
/// compared.
const LEFT: u64 = 60;

impl Kept {
    /// The key that a message is about, if it is content.
    fn key(&self, subject: &str) -> Result<Option<String>, TenancyError> {
        let key = self.keys.read(subject)?;
        Ok(key.filter(|key| relative(&self.prefix, &self.keys.whole(key)).is_some()))
    }

    /// What a message says, if it is about content.
    pub(super) fn op(&self, message: &Delivered) -> Result<Option<Op>, TenancyError> {
        if kine::ends(message.headers.as_ref()) {
            // One that nobody could have had needs no deletion.
            let key = self.key(&message.subject).ok().flatten();
            return Ok(key.map(Op::Delete));
        }
        let Some(key) = self.key(&message.subject)? else {
            return Ok(None);
        };
        let read = self.value(&key, message.sequence, &message.payload)?;
        Ok(Some(match read {
            None => Op::Delete(key),
            Some(value) => Op::Put(Entry {
                ttl: value
                    .lease
                    .map(|lease| left(lease, message.at, system::now())),
                value: value.value,
                key,
            }),
        }))
    }

    fn value(
        &self,
        key: &str,
        sequence: u64,
        payload: &[u8],
    ) -> Result<Option<kine::Value>, TenancyError> {
        kine::read(payload).map_err(|why| {
            let begins: String = self.keys.whole(key).chars().take(100).collect();
            TenancyError::Refused(format!(
                "message {sequence} of stream {}, at key {begins:?}, is none that kine has \
                 written: {why}; delete the key",
                self.stream
            ))
        })
    }

    /// What a key has now.
    pub(super) async fn look(&self, key: &str) -> Result<Option<Entry>, TenancyError> {
        let subject = self.keys.stands(key);
        let last = self.jetstream().last(&self.stream, &subject).await?;
        let Some(message) = last else {
            return Ok(None);
        };
        let headers = String::from_utf8_lossy(&message.headers);
        if kine::is_marker(&headers) {
            return Ok(None);
        }
        let value = self.value(key, message.sequence, &message.payload)?;
        Ok(value.map(|value| Entry {
            key: key.to_owned(),
            value: value.value,
            ttl: value.lease,
        }))
    }

    /// The next page of a feed, and whether it was the last.
    pub(super) async fn read_page(
        &self,
        feed: &mut Feed,
        bytes: usize,
    ) -> Result<(Page, bool), TenancyError> {
        let (mut ops, mut sum) = (Vec::new(), 0);
        let whole = loop {
            let message = feed.next().await?;
            if let Some(op @ Op::Put(_)) = self.op(&message)? {
                sum += op.bytes();
                ops.push(op);
            }
            let whole = feed.ends_with(message.sequence);
            if whole || sum >= bytes && !ops.is_empty() {
                break whole;
            }
        };
        let last = ops.last().map(|op| op.key().to_owned());
        // From a copy of the stream that is late a key may come again.
        let entries = last_of_each(ops).into_iter().filter_map(|op| match op {
            Op::Put(entry) => Some(entry),
            Op::Delete(_) => None,
        });
        let page = Page {
            entries: entries.collect(),
            next: last.filter(|_| !whole),
        };
        Ok((page, whole))
    }

    /// Reads the prints of the next keys after one, as many as are kept.
    pub(super) async fn read_window(
        &mut self,
        at: u64,
        after: Option<&str>,
    ) -> Result<(), ContentsError> {
        // What is interrupted leaves none that looks whole.
        self.window = Window::default();
        let mut window = Window::new(at, after);
        if self.state().await?.last != at {
            return Err(ContentsError::Compacted);
        }
        if let Some(mut feed) = self.feed(Which::Last).await? {
            loop {
                let message = feed.next().await?;
                if let Some(op) = self.op(&message)? {
                    window.take(op);
                }
                if feed.ends_with(message.sequence) {
                    break;
                }
            }
            feed.close().await;
        }
        if self.state().await?.last != at {
            // What was read is of no revision.
            return Err(ContentsError::Compacted);
        }
        self.window = window;
        Ok(())
    }
}

/// Seconds that a lease has left which was given at a time.
fn left(lease: u64, at: u64, now: u64) -> u64 {
    let passed = now.saturating_sub(at);
    lease.saturating_sub(passed).max(LEFT).min(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lease_has_left() {
        assert_eq!(left(600, 1000, 1100), 500);
        assert_eq!(left(600, 1000, 5000), LEFT);
        assert_eq!(left(15, 1000, 5000), 15);
        // Clocks differ.
        assert_eq!(left(600, 2000, 1000), 600);
    }
}
