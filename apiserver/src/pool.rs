//! A bounded amount of something (places or bytes), shared fairly among callers.
//!
//! # Guarantees
//! A caller may hold as much as is still free: one alone gets half of it, N that want
//! all they can get hold 1/(N+1) each, and whoever comes next finds as much. Of places
//! nobody has more than an eighth, and the last eighth is for those that have none.
//!
//! A place that can be ended is taken back when nothing is left: who has none gets the
//! oldest of whoever has most ([`Pool::displace`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::status::Failure;

/// Of places, what one caller may have of all, and what is kept for new ones.
const PART: usize = 8;
/// A caller may have this many places, however few there are in all.
const LEAST: usize = 16;
/// Bytes that are taken at a time for what grows little by little.
const STEP: usize = 64 * 1024;

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Mutex<Holders>>,
    total: usize,
    /// What one holder has at most.
    cap: usize,
    /// Kept for holders that hold nothing.
    kept: usize,
    /// Who has its share gives up its own oldest place for a new one.
    renewing: bool,
}

#[derive(Debug, Default)]
struct Holders {
    used: usize,
    by: HashMap<String, Held>,
    /// The number of the next place that can be ended.
    next: u64,
}

#[derive(Debug, Default)]
struct Held {
    amount: usize,
    /// Places that can be ended, the oldest first.
    places: BTreeMap<u64, CancellationToken>,
}

/// What a caller holds of a pool; given back when it is dropped.
#[derive(Debug)]
pub struct Hold {
    pool: Pool,
    holder: String,
    amount: usize,
    place: Option<(u64, CancellationToken)>,
}

impl Pool {
    /// So much of something, in any portions.
    pub fn new(total: usize) -> Self {
        Pool {
            shared: Arc::default(),
            total,
            cap: total,
            kept: 0,
            renewing: false,
        }
    }

    /// So much of something, of which one holder has at most `cap`.
    pub fn capped(total: usize, cap: usize) -> Self {
        Pool {
            cap,
            ..Pool::new(total)
        }
    }

    /// So many places, taken one by one.
    pub fn places(total: usize) -> Self {
        Pool {
            cap: (total / PART).max(LEAST),
            kept: total / PART,
            ..Pool::new(total)
        }
    }

    /// Who has its share is not refused, but gives up its own oldest place.
    pub fn renewing(self) -> Self {
        Pool {
            renewing: true,
            ..self
        }
    }

    /// What a holder gets if there is no other.
    pub fn alone(&self) -> usize {
        self.cap.min(self.total / 2)
    }

    /// Nothing yet, for this holder.
    pub fn hold(&self, holder: &str) -> Hold {
        Hold {
            pool: self.clone(),
            holder: holder.to_owned(),
            amount: 0,
            place: None,
        }
    }

    /// One of it.
    ///
    /// # Errors
    /// 429 when the holder has its share; nothing waits.
    pub fn enter(&self, holder: &str) -> Result<Hold, Failure> {
        let mut hold = self.hold(holder);
        hold.grow(1)?;
        Ok(hold)
    }

    /// A place that can be ended: [`Hold::ended`] tells when it is to be. It counts as
    /// the next one's from then on.
    ///
    /// # Errors
    /// 429 when the holder has its share, or when nobody has more than one place.
    pub fn displace(&self, holder: &str) -> Result<Hold, Failure> {
        let mut holders = self.shared.lock();
        if !self.fits(&holders, holder, 1) {
            let mine = holders.by.get(holder).map_or(0, |held| held.amount);
            let victim = match mine {
                0 => holders.largest(),
                _ if self.renewing => Some(holder.to_owned()),
                _ => None,
            };
            let ended = victim.is_some_and(|victim| holders.end_oldest(&victim));
            if !ended {
                return Err(Failure::too_many());
            }
        }
        let place = (holders.next, CancellationToken::new());
        holders.next += 1;
        holders.used += 1;
        let held = holders.by.entry(holder.to_owned()).or_default();
        held.amount += 1;
        held.places.insert(place.0, place.1.clone());
        drop(holders);
        let mut hold = self.hold(holder);
        hold.amount = 1;
        hold.place = Some(place);
        Ok(hold)
    }

    fn fits(&self, holders: &Holders, holder: &str, more: usize) -> bool {
        let mine = holders.by.get(holder).map_or(0, |held| held.amount);
        let kept = if mine == 0 { 0 } else { self.kept };
        let free = self.total.saturating_sub(holders.used).saturating_sub(kept);
        mine.saturating_add(more) <= free.min(self.cap)
    }

    #[cfg(test)]
    pub fn is_unused(&self) -> bool {
        let holders = self.shared.lock();
        holders.used == 0 && holders.by.is_empty()
    }
}

impl Holders {
    /// Who has most places, and more than one.
    fn largest(&self) -> Option<String> {
        let some = self.by.iter().filter(|(_, held)| held.places.len() > 1);
        let largest = some.max_by_key(|(_, held)| held.places.len());
        largest.map(|(holder, _)| holder.clone())
    }

    /// Ends the oldest place of a holder; whether there was one.
    fn end_oldest(&mut self, holder: &str) -> bool {
        let oldest = self.by.get_mut(holder);
        let Some((_, token)) = oldest.and_then(|held| held.places.pop_first()) else {
            return false;
        };
        token.cancel();
        self.give_back(holder, 1);
        true
    }

    fn give_back(&mut self, holder: &str, amount: usize) {
        self.used -= amount;
        if let Some(held) = self.by.get_mut(holder) {
            held.amount -= amount;
            if held.amount == 0 {
                self.by.remove(holder);
            }
        }
    }
}

impl Hold {
    /// So much more.
    ///
    /// # Errors
    /// 429 when that is more than the holder's share.
    pub fn grow(&mut self, more: usize) -> Result<(), Failure> {
        let mut holders = self.pool.shared.lock();
        if !self.pool.fits(&holders, &self.holder, more) {
            return Err(Failure::too_many());
        }
        holders.used += more;
        holders.by.entry(self.holder.clone()).or_default().amount += more;
        self.amount += more;
        Ok(())
    }

    /// Makes it at least this much.
    ///
    /// # Errors
    /// 413 if a holder never gets as much, 429 while that is more than its share.
    pub fn reach(&mut self, amount: usize) -> Result<(), Failure> {
        let most = self.pool.alone();
        if amount > most {
            return Err(Failure::TooLarge(format!(
                "limit is {most}; ask for it in pages, with the limit parameter"
            )));
        }
        if amount <= self.amount {
            return Ok(());
        }
        self.grow(amount.next_multiple_of(STEP).min(most) - self.amount)
    }

    /// Cancelled when the place is to be given up; never for one that cannot be ended.
    pub fn ended(&self) -> CancellationToken {
        let place = self.place.as_ref();
        place.map_or_else(CancellationToken::new, |(_, token)| token.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut holders = self.pool.shared.lock();
        if let Some((number, _)) = &self.place {
            let held = holders.by.get_mut(&self.holder);
            let still = held.and_then(|held| held.places.remove(number));
            if still.is_none() {
                // It was ended, and is another's already.
                return;
            }
        }
        holders.give_back(&self.holder, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_has_an_eighth_and_a_newcomer_ends_the_oldest_of_the_largest() {
        let pool = Pool::places(160);
        let mut held: Vec<Vec<Hold>> = Vec::new();
        for n in 0..60 {
            let mine = std::iter::from_fn(|| pool.displace(&format!("u{n}")).ok());
            held.push(mine.take(1000).collect());
        }
        assert_eq!(held[0].len(), 20);
        // Each that came found a place, and none more than it once they were few.
        assert!(held.iter().all(|mine| !mine.is_empty()));
        let ended = |mine: &Vec<Hold>| mine.iter().filter(|h| h.ended().is_cancelled()).count();
        let counts: Vec<usize> = held.iter().map(ended).collect();
        assert!(counts.iter().sum::<usize>() > 0);
        // The oldest first.
        for mine in &held {
            let states: Vec<bool> = mine.iter().map(|h| h.ended().is_cancelled()).collect();
            assert!(states.is_sorted_by(|a, b| a >= b), "{states:?}");
        }
        assert_eq!(pool.shared.lock().used, 160);
        drop(held);
        assert!(pool.is_unused());
    }

    #[test]
    fn where_everybody_has_one_nobody_is_displaced() {
        let pool = Pool::places(4);
        let _held: Vec<Hold> = (0..4)
            .map(|n| pool.displace(&format!("u{n}")).unwrap())
            .collect();
        pool.displace("u5").unwrap_err();
        assert!(_held.iter().all(|hold| !hold.ended().is_cancelled()));
    }

    #[test]
    fn a_renewing_pool_ends_ones_own_oldest() {
        let pool = Pool::places(1000).renewing();
        let held: Vec<Hold> = (0..300).map(|_| pool.displace("a").unwrap()).collect();
        let open = held.iter().filter(|hold| !hold.ended().is_cancelled());
        assert_eq!(open.count(), 125);
        assert!(!held[299].ended().is_cancelled());
        drop(held);
        assert!(pool.is_unused());
    }

    #[test]
    fn what_is_kept_is_for_those_that_have_nothing() {
        let pool = Pool::places(80);
        let mut held = Vec::new();
        for n in 0..12 {
            let name = format!("u{n}");
            held.extend(std::iter::from_fn(|| pool.enter(&name).ok()).take(100));
        }
        pool.enter("u0").unwrap_err();
        pool.enter("new").unwrap();
    }
}
