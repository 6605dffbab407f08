//! Contents in etcd: the tenant's range, read by its administrator.
//!
//! A transaction that writes has the condition that the claims are as they were when the
//! writer came. Several keys share a transaction, and with it a revision.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    CompactionOptions, Event, EventType, GetOptions, GetResponse, KeyValue, PutOptions, TxnOp,
    WatchOptions, WatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout};

use super::claims::{self, Hold};
use super::connection;
use super::database::Etcd;
use super::range::{after as key_after, span};
use crate::tenancy::contents::{
    Changes, Contents, ContentsError, Entry, Op, Page, Print, Prints, Usage, last_of_each, relative,
};
use crate::tenancy::{Stage, TenancyError};

/// What a message of etcd may take. Pages are made smaller until theirs fit.
const MESSAGE: usize = 32 << 20;
/// Keys in a page: at first, and at most. etcd makes a page in its memory whatever its size
/// is, and how large values are is seen when they come.
const FIRST: i64 = 200;
const MOST: i64 = 1000;
/// The same where all values are read only to be weighed, while the tenant runs: a page with
/// the largest values that are usual fits into a message.
const WEIGHED: i64 = 30;
const _: () = assert!(WEIGHED as usize * (1 << 20) < MESSAGE);
/// Bytes of a page whose values are only hashed or weighed.
const HASHED: usize = 4 << 20;
/// Operations of a transaction; etcd takes 128 unless it is told otherwise.
const OPERATIONS: usize = 100;
/// Bytes of a transaction; etcd takes 1.5 MiB unless it is told otherwise.
const TRANSACTION: usize = 512 << 10;
/// Transactions on their way at a time.
const SIDE_BY_SIDE: usize = 4;
/// Keys of one lease, as Kubernetes has them.
const LEASED: usize = 1000;
/// Leases that are remembered.
const LEASES: usize = 10_000;
/// Within so long keys of the same remaining time get the same lease.
const SHARED_FOR: Duration = Duration::from_secs(5);
/// How long the server is given to say how far a watch is, before it is asked again.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// The key whose writes raise the revision.
const RAISE: &str = "/steward.butlerlabs.dev/raise";
/// Such writes on their way at a time, and how many there may be. Each takes about a hundred
/// bytes of the database until it is compacted.
const RAISES: usize = 64;
const MOST_RAISED: u64 = 5_000_000;
/// What is counted for each of them, and the quota of an etcd that was not given one.
const RAISED_BYTES: u64 = 200;
const USUAL_QUOTA: u64 = 2 << 30;

/// The keys of one tenant.
pub struct Keys<'a> {
    etcd: &'a Etcd,
    hold: Hold,
    prefix: String,
    /// Keys of the next page.
    limit: i64,
    /// Changes, and after which revision they go on.
    watch: Option<(WatchStream, u64)>,
    /// When a lease of the source ends.
    ends: HashMap<i64, Option<Instant>>,
    /// Leases that were made here: by remaining seconds, which one, since when, for how many.
    made: HashMap<u64, (i64, Instant, usize)>,
}

impl<'a> Keys<'a> {
    /// Of who holds the claim.
    pub fn new(etcd: &'a Etcd, hold: Hold) -> Self {
        Keys {
            prefix: hold.claim.prefix(false),
            etcd,
            hold,
            limit: FIRST,
            watch: None,
            ends: HashMap::new(),
            made: HashMap::new(),
        }
    }

    /// How much there is of them. Reads all, in small pages.
    async fn weigh(&mut self, so_far: &mut Usage) -> Result<(), TenancyError> {
        let mut after: Option<String> = None;
        loop {
            self.limit = self.limit.min(WEIGHED);
            let page = self.range(after.as_deref(), None, HASHED).await;
            let page = page.map_err(|error| match error {
                ContentsError::Failed(error) => error,
                // Of now, it is never.
                ContentsError::Compacted => TenancyError::Other(error.to_string()),
            })?;
            for pair in page.kvs() {
                so_far.bytes += (pair.key().len() + pair.value().len()) as u64;
                so_far.objects += 1;
            }
            match page.kvs().last() {
                Some(last) if page.more() => after = Some(relative_of_any(&self.prefix, last)),
                _ => return Ok(()),
            }
        }
    }

    /// The next keys, in a page that fits into a message.
    async fn range(
        &mut self,
        after: Option<&str>,
        revision: Option<u64>,
        bytes: usize,
    ) -> Result<GetResponse, ContentsError> {
        let (from, to) = span(&self.hold.claim);
        let from = match after {
            Some(key) => key_after(format!("{}{key}", self.prefix).as_bytes()),
            None => from,
        };
        loop {
            let mut options = GetOptions::new()
                .with_range(to.clone())
                .with_limit(self.limit);
            if let Some(revision) = revision {
                options = options.with_revision(number(revision));
            }
            let page = self.etcd.link.ask("read keys", |client| {
                let (from, options) = (from.clone(), options.clone());
                let mut client = client.kv_client().max_decoding_message_size(MESSAGE);
                async move { client.get(from, Some(options)).await }
            });
            match page.await {
                Ok(page) => {
                    let size: usize = page.kvs().iter().map(|pair| pair.value().len()).sum();
                    let each = size / page.kvs().len().max(1) + 64;
                    let fits = i64::try_from(bytes / each).unwrap_or(MOST);
                    self.limit = fits.clamp(1, MOST.min(self.limit * 2));
                    return Ok(page);
                }
                Err(error) if is_too_large(&error) && self.limit > 1 => self.limit /= 4,
                Err(error) => return Err(failed(error)),
            }
            self.limit = self.limit.max(1);
        }
    }

    /// Keys as they stand in a page. What is no text is nothing that Kubernetes wrote.
    fn key<'k>(&self, pair: &'k KeyValue) -> Result<Option<&'k str>, TenancyError> {
        match pair.key_str() {
            Ok(key) => Ok(relative(&self.prefix, key)),
            Err(_) => Err(TenancyError::Refused(format!(
                "the key {:?} is no text",
                String::from_utf8_lossy(pair.key())
            ))),
        }
    }

    async fn entries(&mut self, pairs: Vec<KeyValue>) -> Result<Vec<Entry>, ContentsError> {
        let mut entries = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let Some(key) = self.key(&pair)?.map(str::to_owned) else {
                continue;
            };
            let ttl = match pair.lease() {
                0 => None,
                lease => match self.left_of(lease).await? {
                    // It ends now, and the key with it.
                    None => continue,
                    left => left,
                },
            };
            let (_, value) = pair.into_key_value();
            entries.push(Entry {
                key,
                value: Bytes::from(value),
                ttl,
            });
        }
        Ok(entries)
    }

    /// Seconds that are left of a lease.
    async fn left_of(&mut self, lease: i64) -> Result<Option<u64>, ContentsError> {
        if self.ends.len() >= LEASES {
            self.ends.clear();
        }
        let known = match self.ends.get(&lease) {
            Some(known) => *known,
            None => {
                let asked = self.etcd.link.ask("read a lease", |mut client| async move {
                    client.lease_time_to_live(lease, None).await
                });
                let end = match asked.await {
                    Ok(found) if found.ttl() >= 0 => {
                        let left = u64::try_from(found.ttl()).unwrap_or(0);
                        Some(Instant::now() + Duration::from_secs(left))
                    }
                    Ok(_) => None,
                    Err(TenancyError::Other(text)) if text.contains("lease not found") => None,
                    Err(error) => return Err(error.into()),
                };
                self.ends.insert(lease, end);
                end
            }
        };
        let left = known.map(|end| end.saturating_duration_since(Instant::now()));
        Ok(left.map(|left| (left.as_secs_f64().round() as u64).max(1)))
    }

    /// A lease of so many seconds for one more key.
    async fn lease(&mut self, ttl: u64) -> Result<i64, ContentsError> {
        if let Some((id, since, keys)) = self.made.get_mut(&ttl)
            && since.elapsed() < SHARED_FOR
            && *keys < LEASED
        {
            *keys += 1;
            return Ok(*id);
        }
        if self.made.len() >= LEASES {
            self.made.clear();
        }
        let granted = self
            .etcd
            .link
            .ask("grant a lease", |mut client| async move {
                client.lease_grant(number(ttl.max(1)), None).await
            });
        let id = granted.await?.id();
        self.made.insert(ttl, (id, Instant::now(), 1));
        Ok(id)
    }

    async fn operation(&mut self, op: &Op) -> Result<TxnOp, ContentsError> {
        let key = format!("{}{}", self.prefix, op.key());
        Ok(match op {
            Op::Delete(_) => TxnOp::delete(key, None),
            Op::Put(entry) => {
                let options = match entry.ttl {
                    None => None,
                    Some(ttl) => Some(PutOptions::new().with_lease(self.lease(ttl).await?)),
                };
                TxnOp::put(key, entry.value.clone(), options)
            }
        })
    }

    fn refuse_unless_written(&self) -> Result<(), TenancyError> {
        match self.hold.claim.stage {
            Stage::Incoming => Ok(()),
            _ => Err(TenancyError::Refused(
                "the tenant's data is read here, not written".to_owned(),
            )),
        }
    }

    /// The revision as of now, which all that is seen has at most.
    async fn revision(&self) -> Result<u64, TenancyError> {
        let asked = self.etcd.link.ask("read the revision", |mut client| {
            let options = GetOptions::new().with_count_only();
            async move { client.get(claims::ROOT, Some(options)).await }
        });
        let answer = asked.await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(u64::try_from(revision).unwrap_or(0))
    }

    /// A watch on changes after a revision.
    async fn open(&self, after: u64) -> Result<WatchStream, ContentsError> {
        let (from, to) = span(&self.hold.claim);
        let options = WatchOptions::new()
            .with_range(to)
            .with_start_revision(number(after + 1))
            .with_fragment();
        let opened = self.etcd.link.ask("watch", |client| {
            let (from, options) = (from.clone(), options.clone());
            let mut client = client.watch_client().max_decoding_message_size(MESSAGE);
            async move { client.watch(from, Some(options)).await }
        });
        Ok(opened.await?)
    }

    /// The next message of the watch, behind which the answer comes of how far it is. The
    /// server drops that question while it still reads history.
    async fn message(
        stream: &mut WatchStream,
        deadline: Duration,
    ) -> Result<etcd_client::WatchResponse, ContentsError> {
        let ended = |why: &str| TenancyError::Unreachable(format!("watch: {why}"));
        let failed = |error| failed(connection::classify("watch", &error));
        let begin = Instant::now();
        let message = loop {
            stream.request_progress().await.map_err(failed)?;
            match timeout(ASKED_AGAIN, stream.message()).await {
                Ok(Ok(Some(message))) => break message,
                Ok(Ok(None)) => return Err(ended("it has ended").into()),
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) if begin.elapsed() < deadline => {}
                Err(_) => return Err(ended(&format!("nothing within {deadline:?}")).into()),
            }
        };
        if message.compact_revision() > 0 {
            return Err(ContentsError::Compacted);
        }
        if message.canceled() {
            return Err(ended(message.cancel_reason()).into());
        }
        Ok(message)
    }

    async fn op_of(&mut self, event: &Event) -> Result<Option<Op>, ContentsError> {
        let Some(pair) = event.kv() else {
            return Ok(None);
        };
        let Some(key) = self.key(pair)?.map(str::to_owned) else {
            return Ok(None);
        };
        match event.event_type() {
            EventType::Delete => Ok(Some(Op::Delete(key))),
            EventType::Put => {
                let entry = self.entries(vec![pair.clone()]).await?.pop();
                // One whose lease has ended is deleted by a later event.
                Ok(entry.map(Op::Put))
            }
        }
    }
}

#[async_trait]
impl Contents for Keys<'_> {
    async fn newest(&mut self) -> Result<u64, ContentsError> {
        Ok(self.revision().await?)
    }

    async fn count(&mut self) -> Result<u64, ContentsError> {
        let (from, to) = span(&self.hold.claim);
        let counted = self.etcd.link.ask("count keys", |mut client| {
            let options = GetOptions::new().with_range(to.clone()).with_count_only();
            let from = from.clone();
            async move { client.get(from, Some(options)).await }
        });
        Ok(u64::try_from(counted.await?.count()).unwrap_or(0))
    }

    async fn usage(&mut self, so_far: &mut Usage) -> Result<(), ContentsError> {
        Ok(self.weigh(so_far).await?)
    }

    async fn page(&mut self, after: Option<&str>, bytes: usize) -> Result<Page, ContentsError> {
        let mut page = self.range(after, None, bytes).await?;
        let more = page.more();
        let pairs = page.take_kvs();
        let last = pairs.last().filter(|_| more);
        let next = last.map(|pair| relative_of_any(&self.prefix, pair));
        Ok(Page {
            entries: self.entries(pairs).await?,
            next,
        })
    }

    async fn prints(&mut self, at: u64, after: Option<&str>) -> Result<Prints, ContentsError> {
        let page = self.range(after, Some(at), HASHED).await?;
        let mut prints = Vec::with_capacity(page.kvs().len());
        for pair in page.kvs() {
            if let Some(key) = self.key(pair)? {
                prints.push(Print {
                    key: key.to_owned(),
                    value: crate::tenancy::contents::sha256(pair.value()),
                    length: pair.value().len() as u64,
                    leased: pair.lease() != 0,
                });
            }
        }
        let last = page.kvs().last().filter(|_| page.more());
        Ok(Prints {
            prints,
            next: last.map(|pair| relative_of_any(&self.prefix, pair)),
        })
    }

    async fn get(&mut self, keys: &[String], bytes: usize) -> Result<Vec<Entry>, ContentsError> {
        let mut found = Vec::new();
        let mut size = 0;
        for key in keys {
            let key = format!("{}{key}", self.prefix);
            let asked = self.etcd.link.ask("read a key", |client| {
                let key = key.clone();
                let mut client = client.kv_client().max_decoding_message_size(MESSAGE);
                async move { client.get(key, None).await }
            });
            let mut answer = asked.await?;
            found.extend(self.entries(answer.take_kvs()).await?);
            size += found.last().map_or(0, Entry::bytes);
            if size > bytes {
                break;
            }
        }
        Ok(found)
    }

    async fn begin(&mut self) -> Result<u64, ContentsError> {
        Ok(self.revision().await?)
    }

    async fn changes(
        &mut self,
        after: u64,
        bytes: usize,
        _settled: bool,
    ) -> Result<Changes, ContentsError> {
        let deadline = self.etcd.link.deadline();
        let newest = self.revision().await?;
        if newest <= after {
            return Ok(Changes {
                upto: after,
                ..Changes::default()
            });
        }
        let mut stream = match self.watch.take() {
            Some((stream, at)) if at == after => stream,
            _ => self.open(after).await?,
        };
        let (mut ops, mut size, mut upto) = (Vec::new(), 0, after);
        while upto < newest && (size < bytes || upto == after) {
            let message = Self::message(&mut stream, deadline).await?;
            for event in message.events() {
                if let Some(op) = self.op_of(event).await? {
                    size += op.bytes();
                    ops.push(op);
                }
            }
            upto = upto.max(match message.events().last().and_then(Event::kv) {
                // What one revision did may go on in the next message.
                Some(last) => u64::try_from(last.mod_revision())
                    .unwrap_or(0)
                    .saturating_sub(1),
                None if message.created() => 0,
                None => {
                    let revision = message.header().map_or(0, |header| header.revision());
                    u64::try_from(revision).unwrap_or(0)
                }
            });
        }
        self.watch = Some((stream, upto));
        Ok(Changes {
            ops: last_of_each(ops),
            upto,
            more: upto < newest,
        })
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let mut transactions = vec![Vec::new()];
        let mut size = 0;
        for op in ops {
            let operation = self.operation(op).await?;
            size += op.bytes();
            let last = transactions.last().map_or(0, Vec::len);
            if last > 0 && (last >= OPERATIONS || size > TRANSACTION) {
                transactions.push(Vec::new());
                size = op.bytes();
            }
            if let Some(last) = transactions.last_mut() {
                last.push(operation);
            }
        }
        let (link, hold) = (&self.etcd.link, &self.hold);
        let writes = transactions.into_iter().map(|operations| async move {
            match claims::under(link, "write keys", &hold.unchanged, operations).await? {
                true => Ok(()),
                false => Err(TenancyError::Refused(format!(
                    "the claim on schema {:?} was changed while its data was written",
                    hold.claim.schema
                ))),
            }
        });
        let writes = stream::iter(writes).buffer_unordered(SIDE_BY_SIDE);
        Ok(writes.try_collect::<()>().await?)
    }

    async fn wipe(&mut self) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let claim = &self.hold.claim;
        match self.etcd.delete_all(claim, &self.hold.unchanged).await? {
            true => Ok(()),
            false => {
                let why = format!("the claim on schema {:?} was changed", claim.schema);
                Err(TenancyError::Refused(why).into())
            }
        }
    }

    async fn raise(&mut self, to: u64) -> Result<u64, ContentsError> {
        self.refuse_unless_written()?;
        let newest = self.revision().await?;
        let missing = to.saturating_sub(newest);
        if missing > MOST_RAISED {
            let why = format!(
                "the revision of this etcd is {newest}, and has to be {to} for this tenant, \
                 which takes {missing} writes; {MOST_RAISED} are done at most: move the \
                 tenant to a SQL database"
            );
            return Err(TenancyError::Refused(why).into());
        }
        self.refuse_without_room(missing).await?;
        let link = &self.etcd.link;
        let writes = (0..missing).map(|_| async move {
            let write = link.ask("raise the revision", |mut client| async move {
                client.put(RAISE, Vec::new(), None).await
            });
            write.await.map(drop)
        });
        let writes = stream::iter(writes).buffer_unordered(RAISES);
        writes.try_collect::<()>().await?;
        Ok(self.revision().await?)
    }

    /// Compacts: what a list that goes on or a watch of before would be given here is not
    /// what it asks for.
    async fn seal(&mut self, revision: u64) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let (link, hold) = (&self.etcd.link, &self.hold);
        if !claims::under(link, "look at the claim", &hold.unchanged, Vec::new()).await? {
            let why = format!(
                "the claim on schema {:?} was changed while its data was written",
                self.hold.claim.schema
            );
            return Err(TenancyError::Refused(why).into());
        }
        let done = self.etcd.link.ask("compact", |mut client| {
            let options = CompactionOptions::new();
            async move { client.compact(number(revision), Some(options)).await }
        });
        match done.await {
            Ok(_) => Ok(()),
            Err(error) if connection::is_compacted(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Keys<'_> {
    /// All tenants share the database, and the number that is asked for comes from one of them.
    async fn refuse_without_room(&self, writes: u64) -> Result<(), TenancyError> {
        let status = self
            .etcd
            .link
            .ask("status", |mut client| async move { client.status().await });
        let status = status.await?;
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        let quota = match bytes(status.db_size_quota()) {
            0 => USUAL_QUOTA,
            quota => quota,
        };
        let used = bytes(status.raft_used_db_size());
        let needed = writes.saturating_mul(RAISED_BYTES);
        if used.saturating_add(needed) <= quota / 2 {
            return Ok(());
        }
        Err(TenancyError::Refused(format!(
            "the revision of this etcd has to grow by {writes} for this tenant, which takes up to \
             {} MiB; {} of {} MiB are in use, and half of them are kept free: raise its quota, or \
             move the tenant to a SQL database",
            needed >> 20,
            used >> 20,
            quota >> 20
        )))
    }
}

/// The part of a key after the prefix, content or not. It is in the tenant's range.
fn relative_of_any(prefix: &str, pair: &KeyValue) -> String {
    let key = String::from_utf8_lossy(pair.key());
    key.strip_prefix(prefix).unwrap_or(&key).to_owned()
}

fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn is_too_large(error: &TenancyError) -> bool {
    matches!(error, TenancyError::Other(text) if text.contains("message length too large"))
}

fn failed(error: TenancyError) -> ContentsError {
    match connection::is_compacted(&error) {
        true => ContentsError::Compacted,
        false => ContentsError::Failed(error),
    }
}
