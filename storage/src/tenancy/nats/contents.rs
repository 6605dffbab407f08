//! A tenant's keys and values in its bucket, read and written by the administrator.
//!
//! A revision is the number of a message. The bucket keeps the last ten values of each key in
//! the order of their numbers: so changes can be followed from anywhere, and the last of each
//! key is never forgotten. What is in it is the tenant's, whose credentials write there: what
//! kine could not read either is passed over, what it could not have written is refused, and
//! nothing is taken in that is larger than it may be.
//!
//! # Who is late
//! What is written goes to the writer's own place, and to nothing after that of another has
//! taken its place. What empties a bucket and what raises it does not: NATS is asked for that by
//! the stream's name and with no condition. Both are asked for only if the stream has just
//! answered that the place is the writer's, and by the numbers of that answer: whoever sleeps in
//! between deletes nothing that came after it, since numbers only grow. What is left is a stream
//! that was deleted meanwhile and made anew with numbers from the first on, which takes a whole
//! life of the bucket between a question and its answer.

use std::time::Duration;

use async_nats::Client;
use async_trait::async_trait;
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use serde_json::Value;

use super::bucket;
use super::feed::{Feed, Which};
use super::jetstream::JetStream;
use super::kine::{self, Keys};
use crate::tenancy::TenancyError;
use crate::tenancy::contents::{
    Changes, Contents, ContentsError, Entry, Op, Page, Prints, Usage, last_of_each,
};

mod reading;
mod window;

use window::Window;

/// Messages that are written at a time, and those that are read one by one.
const SIDE_BY_SIDE: usize = 64;
const READ_BY_ONE: usize = 8;
/// What a message takes besides its body, with its headers.
const AROUND: usize = 256;
/// The greatest revision that a bucket is raised to. kine counts them with 63 bits.
const GREATEST: u64 = 1 << 62;
/// Prints that are given at a time.
const PRINTS: usize = 4000;

/// The contents of one bucket.
pub struct Kept {
    client: Client,
    deadline: Duration,
    stream: String,
    keys: Keys,
    prefix: String,
    /// Where a writer puts what is below the bucket's subjects.
    place: Option<String>,
    /// The pages that are still to come, and after which key.
    pages: Option<(Feed, Option<String>)>,
    window: Window,
}

/// What a stream says of itself.
#[derive(Debug, PartialEq, Eq)]
struct State {
    messages: u64,
    last: u64,
    /// Where it takes messages of a writer, if of one.
    place: Option<String>,
}

impl State {
    fn read(stream: &Value) -> Self {
        let number = |name: &str| stream["state"].get(name).and_then(Value::as_u64);
        State {
            messages: number("messages").unwrap_or(0),
            last: number("last_seq").unwrap_or(0),
            place: bucket::place_in(&stream["config"]).map(str::to_owned),
        }
    }

    /// Of a bucket that still has this place for its writer.
    fn of_writer(self, place: &str) -> Result<Self, TenancyError> {
        match self.place.as_deref() == Some(place) {
            true => Ok(self),
            false => Err(TenancyError::Refused(
                "the bucket has not the place of this writer any more: somebody else fills it, \
                 or it serves"
                    .to_owned(),
            )),
        }
    }

    /// Before which number all is to be deleted that this speaks of, if there is anything.
    fn emptied(&self) -> Option<u64> {
        (self.messages > 0).then(|| self.last.saturating_add(1))
    }
}

impl Kept {
    /// Of the bucket of this schema, as whoever `client` is in its account. `place`: if it is
    /// to be written.
    pub fn new(
        client: Client,
        deadline: Duration,
        schema: &str,
        prefix: String,
        place: Option<String>,
    ) -> Self {
        Kept {
            client,
            deadline,
            stream: format!("KV_{schema}"),
            keys: Keys::new(schema, &prefix, place.as_deref()),
            prefix,
            place,
            pages: None,
            window: Window::default(),
        }
    }

    fn jetstream(&self) -> JetStream<'_> {
        JetStream::new(&self.client, self.deadline)
    }

    async fn state(&self) -> Result<State, TenancyError> {
        let Some(found) = self.jetstream().stream(&self.stream).await? else {
            let why = format!("stream {} does not exist", self.stream);
            return Err(TenancyError::DataLost(why));
        };
        Ok(State::read(&found))
    }

    /// The same, for what changes the stream by its name.
    async fn own_state(&self) -> Result<State, TenancyError> {
        let place = self.refuse_unless_written()?;
        self.state().await?.of_writer(place)
    }

    /// What the keys of a feed take, up to its end.
    async fn add_up(&self, feed: &mut Feed, so_far: &mut Usage) -> Result<(), TenancyError> {
        loop {
            let message = feed.next().await?;
            if let Some(Op::Put(entry)) = self.op(&message)? {
                so_far.objects += 1;
                so_far.bytes += (self.prefix.len() + entry.bytes()) as u64;
            }
            if feed.ends_with(message.sequence) {
                return Ok(());
            }
        }
    }

    /// The messages up to the last of now; `None` where there are none.
    async fn feed(&self, which: Which) -> Result<Option<Feed>, TenancyError> {
        let State { messages, last, .. } = self.state().await?;
        let after = match which {
            Which::Last => 0,
            Which::After(number) => number,
        };
        if messages == 0 || last <= after {
            return Ok(None);
        }
        let (client, deadline) = (&self.client, self.deadline);
        let feed = Feed::open(client, deadline, &self.stream, which, last);
        feed.await.map(Some)
    }

    fn refuse_unless_written(&self) -> Result<&str, TenancyError> {
        self.place.as_deref().ok_or_else(|| {
            TenancyError::Refused("the tenant's data is read here, not written".to_owned())
        })
    }

    /// The message that carries out a change.
    fn message(&self, op: &Op) -> Result<(String, Vec<u8>), TenancyError> {
        let subject = self.keys.write(op.key())?;
        let Op::Put(entry) = op else {
            return Ok((subject, Vec::new()));
        };
        let key = self.keys.whole(&entry.key);
        let payload = kine::write(&key, &entry.value, entry.ttl.unwrap_or(0))?;
        let most = self.client.server_info().max_payload;
        match payload.len().saturating_add(AROUND) > most {
            false => Ok((subject, payload)),
            true => Err(TenancyError::Refused(format!(
                "the value of {key:?} takes {} bytes as kine writes it, and a message of this \
                 NATS may have {most}: let max_payload of the server be more, or delete the key",
                payload.len()
            ))),
        }
    }

    async fn carry_out(&self, op: &Op) -> Result<(), TenancyError> {
        let (subject, payload) = self.message(op)?;
        let headers = kine::replacing(matches!(op, Op::Delete(_)));
        let jetstream = self.jetstream();
        let done = jetstream.publish(&subject, payload, headers);
        done.await.map(drop)
    }
}

#[async_trait]
impl Contents for Kept {
    async fn newest(&mut self) -> Result<u64, ContentsError> {
        Ok(self.state().await?.last)
    }

    async fn count(&mut self) -> Result<u64, ContentsError> {
        let mut found = Usage::default();
        self.usage(&mut found).await?;
        Ok(found.objects)
    }

    async fn usage(&mut self, so_far: &mut Usage) -> Result<(), ContentsError> {
        let Some(mut feed) = self.feed(Which::Last).await? else {
            return Ok(());
        };
        let added = self.add_up(&mut feed, so_far).await;
        // Also of one that failed the server would remember it for minutes.
        feed.close().await;
        Ok(added?)
    }

    /// In the order of their revisions, as they were when the first page was read.
    async fn page(&mut self, after: Option<&str>, bytes: usize) -> Result<Page, ContentsError> {
        let pages = match (after, self.pages.take()) {
            (None, _) => self.feed(Which::Last).await?,
            (Some(key), Some((feed, Some(given)))) if given == key => Some(feed),
            (Some(key), _) => {
                let why = format!("no page of a bucket ended with {key:?}");
                return Err(TenancyError::Other(why).into());
            }
        };
        let Some(mut feed) = pages else {
            return Ok(Page::default());
        };
        let (page, whole) = self.read_page(&mut feed, bytes).await?;
        match whole {
            true => feed.close().await,
            false => self.pages = Some((feed, page.next.clone())),
        }
        Ok(page)
    }

    async fn prints(&mut self, at: u64, after: Option<&str>) -> Result<Prints, ContentsError> {
        if !self.window.has(at, after) {
            self.read_window(at, after).await?;
        }
        Ok(self.window.give(after, PRINTS))
    }

    async fn get(&mut self, keys: &[String], bytes: usize) -> Result<Vec<Entry>, ContentsError> {
        let mut found = Vec::new();
        let mut sum = 0;
        for keys in keys.chunks(READ_BY_ONE) {
            let read = try_join_all(keys.iter().map(|key| self.look(key))).await?;
            let read: Vec<Entry> = read.into_iter().flatten().collect();
            sum += read.iter().map(Entry::bytes).sum::<usize>();
            found.extend(read);
            if sum >= bytes {
                break;
            }
        }
        Ok(found)
    }

    async fn begin(&mut self) -> Result<u64, ContentsError> {
        self.newest().await
    }

    async fn changes(
        &mut self,
        after: u64,
        bytes: usize,
        _settled: bool,
    ) -> Result<Changes, ContentsError> {
        let Some(mut feed) = self.feed(Which::After(after)).await? else {
            return Ok(Changes {
                upto: after,
                ..Changes::default()
            });
        };
        let mut changes = Changes::default();
        let mut sum = 0;
        loop {
            let message = feed.next().await?;
            changes.upto = message.sequence;
            if let Some(op) = self.op(&message)? {
                sum += op.bytes();
                changes.ops.push(op);
            }
            changes.more = !feed.ends_with(message.sequence);
            if !changes.more || sum >= bytes {
                break;
            }
        }
        feed.close().await;
        changes.ops = last_of_each(changes.ops);
        Ok(changes)
    }

    /// The last of each key is never forgotten, and what was before it is of no account.
    fn is_followed_late(&self) -> bool {
        true
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let all: Vec<_> = ops.iter().map(|op| self.carry_out(op)).collect();
        let mut done = stream::iter(all).buffer_unordered(SIDE_BY_SIDE);
        while let Some(done) = done.next().await {
            done?;
        }
        Ok(())
    }

    async fn wipe(&mut self) -> Result<(), ContentsError> {
        match self.own_state().await?.emptied() {
            None => Ok(()),
            Some(before) => Ok(self.jetstream().purge(&self.stream, before).await?),
        }
    }

    /// Who deletes the messages before a number that is not yet given makes that the next one.
    /// One that is late takes nothing from who has filled the bucket since: that one has raised
    /// it as far at least, since the source only goes on, before it wrote anything.
    async fn raise(&mut self, to: u64) -> Result<u64, ContentsError> {
        self.refuse_unless_written()?;
        if to > GREATEST {
            let why = format!("the source says that it is at revision {to}: nobody counts so far");
            return Err(TenancyError::Refused(why).into());
        }
        let State { messages, last, .. } = self.own_state().await?;
        if messages > 0 {
            let why = format!("stream {} is to be raised and is not empty", self.stream);
            return Err(TenancyError::Other(why).into());
        }
        if last >= to {
            return Ok(last);
        }
        let next = to.saturating_add(1);
        self.jetstream().purge(&self.stream, next).await?;
        match self.state().await?.last {
            last if last >= to => Ok(last),
            last => {
                let why = format!("{}: the revision stays at {last}", self.stream);
                Err(TenancyError::Other(why).into())
            }
        }
    }

    /// As kine notes how far it has compacted, which is what it answers for no more.
    async fn seal(&mut self, revision: u64) -> Result<(), ContentsError> {
        let place = self.refuse_unless_written()?;
        let subject = kine::apart(place, kine::COMPACTED);
        let value = kine::compacted(revision);
        let payload = kine::write(kine::COMPACTED, value.as_bytes(), 0)?;
        let jetstream = self.jetstream();
        let sealed = jetstream.publish(&subject, payload, kine::replacing(false));
        Ok(sealed.await.map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is deleted is what the answer spoke of: what comes after it stays, and so does what
    /// another one fills or what serves.
    #[test]
    fn a_stream_is_emptied_by_its_own_writer_and_no_further_than_it_said() {
        let stream = |subject: &str, messages: u64, last: u64| {
            State::read(&json!({
                "config": { "subjects": [subject] },
                "state": { "messages": messages, "last_seq": last },
            }))
        };
        let own = stream("_steward.a.>", 3, 9).of_writer("_steward.a");
        assert_eq!(own.map(|own| own.emptied()), Ok(Some(10)));
        let empty = stream("_steward.a.>", 0, 9).of_writer("_steward.a");
        assert_eq!(empty.map(|own| own.emptied()), Ok(None));
        for other in ["_steward.b.>", "$KV.a.>", "_steward.a", ""] {
            let refused = stream(other, 3, 9).of_writer("_steward.a");
            assert!(
                matches!(refused, Err(TenancyError::Refused(_))),
                "{other}: {refused:?}"
            );
        }
    }
}
