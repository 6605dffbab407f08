//! Contents in kine's table, as kine v0.16.4 reads and writes it.
//!
//! Each write is a row, whose number (`id`) is its revision. A key is what its last row
//! says; `deleted` marks the end of one. Numbers are given when a write begins and seen when
//! it is committed, so that a smaller one can come after a greater one: kine fills a number
//! that does not come by a row of its own after a second, and who follows waits as long. A
//! compaction deletes rows and notes up to which in the row `compact_rev_key`.

mod dialect;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Changes, Contents, ContentsError, Entry, Op, Page, Print, Prints, Usage, relative};
use crate::tenancy::TenancyError;
pub use dialect::{Dialect, Keys, Statements, Value};

/// Rows that are looked at in one statement, before any value is read.
const ROWS: usize = 1000;
/// Rows of which only hashes are read: the fewest, the most, and how many bytes the server is
/// to hash in one statement, about.
const PRINTS: (usize, usize) = (500, 8000);
const HASHED: u64 = 32 << 20;
/// Rows that are weighed in one statement.
const WEIGHED: usize = 5000;
/// Revisions before the newest in which something may still be on its way.
const UNDER_WAY: u64 = 1000;
/// Bytes of a name, and of a value, beyond which nothing is read: no API server writes such, but
/// the table is the tenant's.
const LONGEST_NAME: usize = 2000;
const LONGEST_VALUE: i64 = 8 << 20;
/// Bytes of an answer: of a number, of a row without its value, of one with a hash, and of what
/// stands beside values. The table is the tenant's, and so is what is said when it is read.
const NUMBER: usize = 64 * 1024;
const HEAD: usize = LONGEST_NAME + 256;
const PRINT: usize = HEAD + 64;
const BESIDE: usize = 1 << 20;
/// A number that has not come by then will not: kine fills it.
const COMES_WITHIN: Duration = Duration::from_secs(1);

/// The contents of one table.
pub struct Kine<S> {
    session: S,
    dialect: Dialect,
    prefix: String,
    writes: bool,
    /// Up to which revision nothing is on its way any more, and a newer one with the time at
    /// which it was the newest.
    solid: u64,
    seen: Option<(Instant, u64)>,
    /// Rows to be hashed next.
    prints: usize,
}

/// Number, name, whether it is a deletion, lease, bytes of the value.
type Head = (i64, String, i64, i64, i64);

impl<S: Statements> Kine<S> {
    /// The contents below a prefix.
    pub fn new(session: S, dialect: Dialect, prefix: String, writes: bool) -> Self {
        Kine {
            session,
            dialect,
            prefix,
            writes,
            solid: 0,
            seen: None,
            prints: PRINTS.0,
        }
    }

    /// All keys of the tenant: after this one and before that one.
    fn span(&self, after: Option<&str>) -> (String, String) {
        let from = format!("{}{}", self.prefix, after.unwrap_or("/"));
        (from, format!("{}0", self.prefix))
    }

    fn columns(&self) -> String {
        let Dialect { integer, text, .. } = &self.dialect;
        format!(
            "cast(k.id as {integer}), cast(left(k.name, {}) as {text}), \
             cast(k.deleted as {integer}), cast(coalesce(k.lease, 0) as {integer}), \
             cast(coalesce(octet_length(k.value), 0) as {integer})",
            LONGEST_NAME + 1
        )
    }

    /// The last row of each of the next names, in no order: a server that is asked for one
    /// may look for it in all of the table.
    fn last_rows(&self, columns: &str, until: Option<u64>, limit: usize) -> String {
        let table = &self.dialect.table;
        let p = self.dialect.parameter;
        let until = until.map_or_else(String::new, |until| format!(" and id <= {until}"));
        format!(
            "select {columns} from {table} k join (select max(id) as id from {table} \
             where name > {} and name < {}{until} group by name order by name limit {limit}) m \
             on m.id = k.id",
            p(1),
            p(2)
        )
    }

    async fn number(&mut self, what: &'static str, expression: &str) -> Result<u64, TenancyError> {
        let Dialect { table, integer, .. } = &self.dialect;
        let sql = format!("select cast(coalesce({expression}, 0) as {integer}) from {table}");
        let sql = match expression.contains("prev_revision") {
            true => sql + " where name = 'compact_rev_key'",
            false => sql,
        };
        let found: Vec<(i64,)> = self.session.ask(what, sql, &[], NUMBER).await?;
        Ok(found.first().map_or(0, |row| revision(row.0)))
    }

    /// Up to which revision history is gone.
    async fn compacted(&mut self) -> Result<u64, TenancyError> {
        self.number("read what is compacted", "max(prev_revision)")
            .await
    }

    /// All rows that are read, each with what it has by [`Kine::columns`].
    async fn heads(
        &mut self,
        what: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<Vec<Head>, TenancyError> {
        let heads: Vec<Head> = self.session.ask(what, sql, values, ROWS * HEAD).await?;
        for head in &heads {
            refuse_too_long(&head.1, head.2, head.4)?;
        }
        Ok(heads)
    }

    /// The values of rows. One that was compacted meanwhile is left out.
    async fn values(
        &mut self,
        ids: &[i64],
        bytes: usize,
    ) -> Result<HashMap<i64, Bytes>, TenancyError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let Dialect { table, integer, .. } = &self.dialect;
        let list: Vec<String> = ids.iter().map(i64::to_string).collect();
        let sql = format!(
            "select cast(id as {integer}), coalesce(value, '') from {table} where id in ({})",
            list.join(", ")
        );
        let rows: Vec<(i64, Vec<u8>)> = self
            .session
            .ask("read values", sql, &[], bytes + BESIDE)
            .await?;
        let rows = rows.into_iter().map(|(id, value)| (id, Bytes::from(value)));
        Ok(rows.collect())
    }

    /// Entries of rows, as many as fit into these bytes but at least one; how many rows that
    /// were.
    async fn entries(
        &mut self,
        heads: &[Head],
        bytes: usize,
    ) -> Result<(Vec<Entry>, usize), TenancyError> {
        let mut sum = 0;
        let mut fit = 0;
        for head in heads {
            let size = head.1.len() + usize::try_from(head.4).unwrap_or(0);
            if fit > 0 && sum + size > bytes {
                break;
            }
            sum += size;
            fit += 1;
        }
        let live = heads[..fit].iter().filter(|head| head.2 == 0);
        let live: Vec<(i64, i64, String)> = live
            .filter_map(|head| {
                let key = relative(&self.prefix, &head.1)?;
                Some((head.0, head.3, key.to_owned()))
            })
            .collect();
        let ids: Vec<i64> = live.iter().map(|(id, ..)| *id).collect();
        let mut values = self.values(&ids, sum).await?;
        let entries = live.into_iter().filter_map(|(id, lease, key)| {
            Some(Entry {
                key,
                value: values.remove(&id)?,
                ttl: u64::try_from(lease).ok().filter(|lease| *lease > 0),
            })
        });
        Ok((entries.collect(), fit))
    }

    fn refuse_unless_written(&self) -> Result<(), TenancyError> {
        match self.writes {
            true => Ok(()),
            false => Err(TenancyError::Refused(
                "the tenant's data is read here, not written".to_owned(),
            )),
        }
    }

    /// Refuses keys that the table cannot have as they are.
    fn admit(&self, op: &Op) -> Result<String, TenancyError> {
        let Keys { longest, ascii } = self.dialect.keys;
        let key = format!("{}{}", self.prefix, op.key());
        if key.len() > longest || (ascii && !key.is_ascii()) || key.contains('\0') {
            let limits = match ascii {
                true => "are ASCII and",
                false => "",
            };
            return Err(TenancyError::Refused(format!(
                "the key {key:?} does not fit into the table of kine, whose names {limits} have \
                 {longest} bytes at most"
            )));
        }
        Ok(key)
    }

    async fn write(&mut self, ops: &[Op]) -> Result<(), TenancyError> {
        let keys = ops.iter().map(|op| self.admit(op));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let p = self.dialect.parameter;
        let list = |count: usize| (1..=count).map(p).collect::<Vec<_>>().join(", ");
        let table = self.dialect.table.clone();
        let all: Vec<Value> = keys.iter().map(|key| Value::Text(key)).collect();
        let delete = format!("delete from {table} where name in ({})", list(all.len()));
        self.session.change("replace keys", delete, &all).await?;

        let mut sql = format!(
            "insert into {table} (name, created, deleted, create_revision, prev_revision, \
             lease, value) values "
        );
        let mut values = Vec::new();
        for (op, key) in ops.iter().zip(&keys) {
            let Op::Put(entry) = op else { continue };
            let comma = match values.is_empty() {
                true => "",
                false => ", ",
            };
            let n = values.len();
            // A String takes everything.
            let _ = write!(
                sql,
                "{comma}({}, 1, 0, 0, 0, {}, {})",
                p(n + 1),
                p(n + 2),
                p(n + 3)
            );
            values.push(Value::Text(key));
            values.push(Value::Integer(
                i64::try_from(entry.ttl.unwrap_or(0)).unwrap_or(0),
            ));
            values.push(Value::Bytes(&entry.value));
        }
        if values.is_empty() {
            return Ok(());
        }
        self.session.change("write keys", sql, &values).await
    }

    /// What is not newer than this is there, or will not come.
    fn note(&mut self, newest: u64) {
        match self.seen {
            Some((since, seen)) if since.elapsed() >= COMES_WITHIN => {
                self.solid = self.solid.max(seen);
                self.seen = Some((Instant::now(), newest));
            }
            Some(_) => {}
            None => self.seen = Some((Instant::now(), newest)),
        }
    }

    /// The rows after a revision, up to the first number that may still come.
    async fn rows_after(&mut self, after: u64, settled: bool) -> Result<Vec<Head>, TenancyError> {
        let newest = self.number("read the newest revision", "max(id)").await?;
        self.note(newest);
        let sql = format!(
            "select {} from {} k where k.id > {after} order by k.id limit {ROWS}",
            self.columns(),
            self.dialect.table
        );
        let mut rows = self.heads("read changes", sql, &[]).await?;
        if settled {
            return Ok(rows);
        }
        let mut last = after;
        let solid = self.solid;
        let whole = rows.iter().take_while(|row| {
            let id = revision(row.0);
            let follows = id == last + 1 || id <= solid + 1;
            last = id;
            follows
        });
        let whole = whole.count();
        rows.truncate(whole);
        Ok(rows)
    }
}

#[async_trait]
impl<S: Statements> Contents for Kine<S> {
    async fn newest(&mut self) -> Result<u64, ContentsError> {
        Ok(self.number("read the newest revision", "max(id)").await?)
    }

    async fn count(&mut self) -> Result<u64, ContentsError> {
        let Dialect { table, integer, .. } = &self.dialect;
        let p = self.dialect.parameter;
        let sql = format!(
            "select cast(count(*) as {integer}) from {table} k join (select max(id) as id from \
             {table} where name > {} and name < {} group by name) m on m.id = k.id \
             where k.deleted = 0 and k.name <> '{}'",
            p(1),
            p(2),
            super::HEALTH
        );
        let (from, to) = self.span(None);
        let span = [Value::Text(&from), Value::Text(&to)];
        let found: Vec<(i64,)> = self.session.ask("count keys", sql, &span, NUMBER).await?;
        Ok(found.first().map_or(0, |row| revision(row.0)))
    }

    async fn close(self: Box<Self>) {
        self.session.close().await;
    }

    async fn usage(&mut self, so_far: &mut Usage) -> Result<(), ContentsError> {
        let Dialect { integer, text, .. } = &self.dialect;
        let live = format!("k.deleted = 0 and k.name <> '{}'", super::HEALTH);
        let sum = |of: &str| {
            format!("cast(coalesce(sum(case when {live} then {of} else 0 end), 0) as {integer})")
        };
        let columns = format!(
            "cast(count(*) as {integer}), {}, {}, cast(coalesce(max(left(k.name, {})), '') as {text})",
            sum("1"),
            sum("octet_length(k.name) + coalesce(octet_length(k.value), 0)"),
            LONGEST_NAME + 1
        );
        let mut after: Option<String> = None;
        loop {
            let sql = self.last_rows(&columns, None, WEIGHED);
            let (from, to) = self.span(after.as_deref());
            let span = [Value::Text(&from), Value::Text(&to)];
            // Rows, those that are keys, their bytes, and the last name.
            let found: Vec<(i64, i64, i64, String)> =
                self.session.ask("weigh keys", sql, &span, NUMBER).await?;
            let Some((rows, objects, bytes, last)) = found.into_iter().next() else {
                return Ok(());
            };
            so_far.objects = so_far.objects.saturating_add(revision(objects));
            so_far.bytes = so_far.bytes.saturating_add(revision(bytes));
            if revision(rows) < WEIGHED as u64 {
                return Ok(());
            }
            refuse_too_long(&last, 1, 0)?;
            // By no way of counting does a name come twice.
            match last.get(self.prefix.len()..) {
                Some(next) if after.as_deref().is_none_or(|after| after < next) => {
                    after = Some(next.to_owned());
                }
                _ => {
                    let why = format!("the names after {last:?} cannot be told");
                    return Err(TenancyError::Other(why).into());
                }
            }
        }
    }

    async fn page(&mut self, after: Option<&str>, bytes: usize) -> Result<Page, ContentsError> {
        let sql = self.last_rows(&self.columns(), None, ROWS);
        let (from, to) = self.span(after);
        let span = [Value::Text(&from), Value::Text(&to)];
        let mut heads = self.heads("list keys", sql, &span).await?;
        heads.sort_by(|left, right| left.1.cmp(&right.1));
        let (entries, fit) = self.entries(&heads, bytes).await?;
        let whole = fit == heads.len() && heads.len() < ROWS;
        let last = heads.get(fit.saturating_sub(1)).filter(|_| !whole);
        Ok(Page {
            entries,
            next: last.map(|head| head.1[self.prefix.len()..].to_owned()),
        })
    }

    async fn prints(&mut self, at: u64, after: Option<&str>) -> Result<Prints, ContentsError> {
        let hash = (self.dialect.sha256)("coalesce(k.value, '')");
        let columns = format!(
            "{}, case when k.deleted = 0 then {hash} end",
            self.columns()
        );
        let limit = self.prints;
        let sql = self.last_rows(&columns, Some(at), limit);
        let (from, to) = self.span(after);
        let span = [Value::Text(&from), Value::Text(&to)];
        type Row = (i64, String, i64, i64, i64, Option<Vec<u8>>);
        let mut rows: Vec<Row> = self
            .session
            .ask("hash values", sql, &span, limit * PRINT)
            .await?;
        for row in &rows {
            refuse_too_long(&row.1, row.2, row.4)?;
        }
        rows.sort_by(|left, right| left.1.cmp(&right.1));
        if self.compacted().await? > at {
            return Err(ContentsError::Compacted);
        }
        let hashed: u64 = rows.iter().map(|row| revision(row.4)).sum();
        self.prints = match hashed {
            ..HASHED => (limit * 2).min(PRINTS.1),
            _ => (limit / 2).max(PRINTS.0),
        };
        let last = rows.last().filter(|_| rows.len() == limit);
        let next = last.map(|row| row.1[self.prefix.len()..].to_owned());
        let prints = rows
            .into_iter()
            .filter_map(|(_, name, _, lease, length, hash)| {
                Some(Print {
                    key: relative(&self.prefix, &name)?.to_owned(),
                    value: hash?.try_into().ok()?,
                    length: revision(length),
                    leased: lease > 0,
                })
            });
        Ok(Prints {
            prints: prints.collect(),
            next,
        })
    }

    async fn get(&mut self, keys: &[String], bytes: usize) -> Result<Vec<Entry>, ContentsError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let p = self.dialect.parameter;
        let table = &self.dialect.table;
        let list: Vec<String> = (1..=keys.len()).map(p).collect();
        let sql = format!(
            "select {} from {table} k join (select max(id) as id from {table} where name in ({}) \
             group by name) m on m.id = k.id",
            self.columns(),
            list.join(", ")
        );
        let names: Vec<String> = keys
            .iter()
            .map(|key| format!("{}{key}", self.prefix))
            .collect();
        let values: Vec<Value> = names.iter().map(|name| Value::Text(name)).collect();
        let mut heads = self.heads("look at keys", sql, &values).await?;
        // In the order in which they were asked for.
        heads.sort_by_key(|head| names.iter().position(|name| *name == head.1));
        Ok(self.entries(&heads, bytes).await?.0)
    }

    async fn begin(&mut self) -> Result<u64, ContentsError> {
        let newest = self.number("read the newest revision", "max(id)").await?;
        self.seen = Some((Instant::now(), newest));
        let compacted = self.compacted().await?;
        Ok(newest.saturating_sub(UNDER_WAY).max(compacted).min(newest))
    }

    async fn changes(
        &mut self,
        after: u64,
        bytes: usize,
        settled: bool,
    ) -> Result<Changes, ContentsError> {
        let rows = self.rows_after(after, settled).await?;
        // What a row of before was about is forgotten with what it followed.
        let mut last: HashMap<&str, usize> = HashMap::new();
        let mut sum = 0;
        let mut fit = 0;
        for (index, row) in rows.iter().enumerate() {
            let size = row.1.len() + usize::try_from(row.4).unwrap_or(0);
            if fit > 0 && sum + size > bytes {
                break;
            }
            sum += size;
            fit += 1;
            last.insert(&row.1, index);
        }
        let rest = &rows[..fit];
        let chosen: Vec<&Head> = rest
            .iter()
            .enumerate()
            .filter(|(index, row)| last.get(row.1.as_str()) == Some(index))
            .map(|(_, row)| row)
            .collect();
        let mut ops = Vec::new();
        let live: Vec<i64> = chosen
            .iter()
            .filter(|row| row.2 == 0 && relative(&self.prefix, &row.1).is_some())
            .map(|row| row.0)
            .collect();
        let mut values = self.values(&live, sum).await?;
        for row in chosen {
            let Some(key) = relative(&self.prefix, &row.1) else {
                continue;
            };
            match row.2 {
                0 => {
                    // One that was compacted meanwhile has a later one.
                    if let Some(value) = values.remove(&row.0) {
                        ops.push(Op::Put(Entry {
                            key: key.to_owned(),
                            value,
                            ttl: u64::try_from(row.3).ok().filter(|lease| *lease > 0),
                        }));
                    }
                }
                _ => ops.push(Op::Delete(key.to_owned())),
            }
        }
        // After the rows were read: what was compacted before may lack among them.
        if self.compacted().await? > after {
            return Err(ContentsError::Compacted);
        }
        let more = fit < rows.len() || rows.len() == ROWS;
        let upto = rest.last().map_or(after, |row| revision(row.0));
        Ok(Changes { ops, upto, more })
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        for ops in ops.chunks(ROWS) {
            self.session.carry_out("begin", "begin".to_owned()).await?;
            match self.write(ops).await {
                Ok(()) => {
                    self.session
                        .carry_out("commit", "commit".to_owned())
                        .await?
                }
                Err(error) => {
                    let undo = self.session.carry_out("roll back", "rollback".to_owned());
                    let _ = undo.await;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn wipe(&mut self) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let sql = format!("truncate table {}", self.dialect.table);
        Ok(self.session.carry_out("delete everything", sql).await?)
    }

    async fn raise(&mut self, to: u64) -> Result<u64, ContentsError> {
        self.refuse_unless_written()?;
        let newest = self.number("read the newest revision", "max(id)").await?;
        let floor = to.max(newest).max(1);
        // The row has a number, too: a new one, which is what is newest then.
        let table = &self.dialect.table;
        let sql = format!("delete from {table} where name = 'compact_rev_key'");
        self.session.carry_out("take kine's row away", sql).await?;
        let sql = (self.dialect.raise)(&self.dialect.table, floor);
        self.session.carry_out("raise the revision", sql).await?;
        self.seal(floor).await?;
        let newest = self.number("read the newest revision", "max(id)").await?;
        if newest <= floor {
            let table = &self.dialect.table;
            let why = format!("{table}: the revision stays at {newest} instead of {floor}");
            return Err(TenancyError::Other(why).into());
        }
        Ok(floor)
    }

    /// kine begins to compact after this revision, instead of at the first.
    async fn seal(&mut self, revision: u64) -> Result<(), ContentsError> {
        self.refuse_unless_written()?;
        let table = self.dialect.table.clone();
        let there = format!(
            "select cast(id as {}) from {table} where name = 'compact_rev_key'",
            self.dialect.integer
        );
        let there: Vec<(i64,)> = self
            .session
            .ask("look at kine's row", there, &[], NUMBER)
            .await?;
        let sql = match there.is_empty() {
            false => format!(
                "update {table} set prev_revision = {revision} where name = 'compact_rev_key'"
            ),
            true => format!(
                "insert into {table} (name, created, deleted, create_revision, prev_revision, \
                 lease, value) values ('compact_rev_key', 1, 0, 0, {revision}, 0, '')"
            ),
        };
        Ok(self.session.carry_out("write kine's row", sql).await?)
    }
}

/// A name of which a part was read, and how long the value of its row is.
fn refuse_too_long(name: &str, deleted: i64, value: i64) -> Result<(), TenancyError> {
    let most = match (
        name.len() > LONGEST_NAME,
        deleted == 0 && value > LONGEST_VALUE,
    ) {
        (true, _) => format!("begins a key of more than {LONGEST_NAME} bytes"),
        (_, true) => format!("has a value of {value} bytes, more than {LONGEST_VALUE}"),
        (false, false) => return Ok(()),
    };
    let name: String = name.chars().take(100).collect();
    Err(TenancyError::Refused(format!(
        "{name:?} in the tenant's table {most}, which no API server writes: delete it"
    )))
}

fn revision(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
