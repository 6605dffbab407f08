//! Are both sides the same? They are read whole, side by side in the order of keys, as hashes
//! of their values.

use std::cmp::Ordering;
use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};

use super::copy::Both;
use super::error::{Stop, of_source, of_target};
use crate::tenancy::contents::{Contents, ContentsError, Print};

/// Keys that differ and are remembered. There may be more; those are found the next time.
const MOST: usize = 5000;
/// With fewer prints at hand a side reads on, while the other one does.
const LOW: usize = 2000;

/// Two sides that are the same.
pub struct Same {
    pub keys: u64,
    pub bytes: u64,
    /// Hexadecimal.
    pub digest: String,
}

/// What a comparison found.
pub enum Compared {
    Same(Same),
    /// Some of the keys that differ, in their order.
    Differs(Vec<String>),
}

/// One side, as far as it was read.
struct Reader<'a, 'b> {
    contents: &'a mut (dyn Contents + 'b),
    at: u64,
    prints: VecDeque<Print>,
    after: Option<String>,
    ended: bool,
}

impl<'a, 'b> Reader<'a, 'b> {
    async fn new(contents: &'a mut (dyn Contents + 'b)) -> Result<Self, ContentsError> {
        let at = contents.newest().await?;
        Ok(Reader {
            contents,
            at,
            prints: VecDeque::new(),
            after: None,
            ended: false,
        })
    }

    async fn fill(&mut self) -> Result<(), ContentsError> {
        while !self.ended && self.prints.len() < LOW {
            let page = self.contents.prints(self.at, self.after.as_deref()).await?;
            self.prints.extend(page.prints);
            self.ended = page.next.is_none();
            self.after = page.next;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.prints.is_empty() && !self.ended
    }
}

/// Compares. `again`: what has a lease and was mended before may be gone on one side, since
/// leases end.
pub async fn compare(both: &mut Both<'_>, again: bool) -> Result<Compared, Stop> {
    let mut source = Reader::new(both.source.as_mut()).await.map_err(of_source)?;
    let mut target = Reader::new(both.target.as_mut()).await.map_err(of_target)?;
    let mut differing = Vec::new();
    let mut digest = Context::new(&SHA256);
    let (mut keys, mut bytes) = (0, 0);
    while differing.len() < MOST {
        if source.is_empty() || target.is_empty() {
            let (read, written) = tokio::join!(source.fill(), target.fill());
            read.map_err(of_source)?;
            written.map_err(of_target)?;
        }
        let order = match (source.prints.front(), target.prints.front()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.key.cmp(&right.key),
        };
        let left = (order != Ordering::Greater).then(|| source.prints.pop_front());
        let right = (order != Ordering::Less).then(|| target.prints.pop_front());
        match (left.flatten(), right.flatten()) {
            (Some(left), Some(right)) if left == right => {
                add(&mut digest, &left);
                keys += 1;
                bytes += left.key.len() as u64 + left.length;
            }
            (Some(one), None) | (None, Some(one)) if again && one.leased => {}
            (Some(one), _) | (None, Some(one)) => differing.push(one.key),
            (None, None) => break,
        }
    }
    if !differing.is_empty() {
        return Ok(Compared::Differs(differing));
    }
    Ok(Compared::Same(Same {
        keys,
        bytes,
        digest: hex::encode(digest.finish()),
    }))
}

fn add(digest: &mut Context, print: &Print) {
    digest.update(&(print.key.len() as u64).to_be_bytes());
    digest.update(print.key.as_bytes());
    digest.update(&print.value);
    digest.update(&[u8::from(print.leased)]);
}
