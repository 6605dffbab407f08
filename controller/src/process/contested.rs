//! Who else writes our objects: recognises a field or an object that is
//! changed back again and again, so that the controller does not fight on
//! at full speed (rule 20).

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

/// Repairs of the same content within [`WINDOW`] that make a contest.
const FIGHTS: usize = 3;
/// How long a repair counts. Who changes a Deployment back every ten minutes has
/// its pods replaced every five: that is a fight, too.
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// A contest is over when this long nothing had to be repaired.
const OVER: Duration = Duration::from_secs(20 * 60);
/// Writes of our own accord within [`WINDOW`] before they are slowed down.
const OWN_CHANGES: usize = 20;
/// The rhythm of repairs while an object is contested.
pub const CONTESTED_EVERY: Duration = Duration::from_secs(60);

/// What is repaired.
pub trait Repaired {
    /// The longest pause between repairs of what is contested. Pauses double from
    /// [`CONTESTED_EVERY`] up to it.
    fn longest_pause(&self) -> Duration {
        CONTESTED_EVERY
    }
}

/// How somebody opposes us. A person who gives in by deleting what was fought
/// over gets it back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Changes it back.
    Change,
    /// Deletes it.
    Deletion,
}

/// What one may do about an object that differs from what we want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Write it.
    Write,
    /// Someone keeps changing it back: not before this time.
    Contested {
        /// When the next repair is allowed.
        until: Timestamp,
    },
}

/// The history of repairs, by object.
#[derive(Debug)]
pub struct Contest<K> {
    objects: HashMap<K, History>,
}

#[derive(Debug, Default)]
struct History {
    /// Fingerprint of what we last wrote.
    content: u64,
    /// When we wrote the same content again.
    repairs: Vec<Timestamp>,
    /// When we wrote although nobody else had.
    own: Vec<Timestamp>,
}

impl History {
    /// The repairs that count at `now`.
    fn counted(&self, now: Timestamp) -> usize {
        match self.repairs.last() {
            Some(last) if elapsed(*last, now) < OVER => {
                let counts = |at: &&Timestamp| elapsed(**at, now) < WINDOW;
                self.repairs.iter().filter(counts).count()
            }
            _ => 0,
        }
    }

    /// When the next repair may be, if that is later than `now`.
    fn held_until(&self, longest: Duration, now: Timestamp) -> Option<Timestamp> {
        let beyond = self.counted(now).checked_sub(FIGHTS)?;
        let doublings = u32::try_from(beyond).unwrap_or(u32::MAX).min(16);
        let pause = CONTESTED_EVERY.saturating_mul(1 << doublings).min(longest);
        let pause = jiff::SignedDuration::try_from(pause).ok()?;
        let until = self.repairs.last()?.checked_add(pause).ok()?;
        (now < until).then_some(until)
    }

    fn forget(&mut self, now: Timestamp) {
        let counted = self.counted(now);
        let old = self.repairs.len() - counted;
        self.repairs.drain(..old);
    }
}

impl<K> Default for Contest<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
        }
    }
}

impl<K: std::hash::Hash + Eq + Clone + Repaired> Contest<K> {
    /// May this content be written now? Changed content always may: then it
    /// is we who changed our mind.
    pub fn ask(&mut self, key: &K, content: u64, now: Timestamp) -> Repair {
        let Some(history) = self.objects.get_mut(key) else {
            return Repair::Write;
        };
        if history.content != content {
            return Repair::Write;
        }
        history.forget(now);
        match history.held_until(key.longest_pause(), now) {
            Some(until) => Repair::Contested { until },
            None => Repair::Write,
        }
    }

    /// Notes what is there without a write of this kind: the next one of the same
    /// content is a repair.
    pub fn expect(&mut self, key: K, content: u64) {
        let history = self.objects.entry(key).or_default();
        if history.content != content {
            history.content = content;
            history.repairs.clear();
        }
    }

    /// Notes a write that succeeded.
    pub fn wrote(&mut self, key: K, content: u64, now: Timestamp) {
        let history = self.objects.entry(key).or_default();
        if history.content == content {
            history.repairs.push(now);
        } else {
            history.content = content;
            history.repairs.clear();
        }
    }

    /// Notes a write that was changed on its way, by an admission webhook or
    /// policy: to repeat it at once would change nothing.
    pub fn overruled(&mut self, key: K, content: u64, now: Timestamp) {
        let history = self.objects.entry(key).or_default();
        history.content = content;
        history.repairs = vec![now; FIGHTS];
    }

    /// True while repairs are being held back, or might be again.
    #[cfg(test)]
    fn is_contested(&self, key: &K, now: Timestamp) -> bool {
        let history = self.objects.get(key);
        history.is_some_and(|history| history.counted(now) >= FIGHTS)
    }

    /// The objects that are held back at `now`, with the time of their next
    /// repair.
    pub fn held(&self, now: Timestamp) -> impl Iterator<Item = (K, Timestamp)> + '_ {
        self.objects.iter().filter_map(move |(key, history)| {
            let until = history.held_until(key.longest_pause(), now)?;
            Some((key.clone(), until))
        })
    }

    /// Nobody else wrote since we did: we changed our mind, as when an address
    /// or a version changes. Often within a short time it is a mistake of ours,
    /// which is held back like anybody else's.
    pub fn own_change(&mut self, key: &K, now: Timestamp) -> Repair {
        let Some(history) = self.objects.get_mut(key) else {
            return Repair::Write;
        };
        history.own.retain(|at| elapsed(*at, now) < WINDOW);
        if let Some(last) = history.own.last()
            && history.own.len() >= OWN_CHANGES
            && elapsed(*last, now) < CONTESTED_EVERY
        {
            return Repair::Contested {
                until: last.checked_add(every()).unwrap_or(now),
            };
        }
        history.own.push(now);
        history.repairs.clear();
        history.content = !history.content;
        Repair::Write
    }
}

fn every() -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(CONTESTED_EVERY).unwrap_or_default()
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Repaired for &str {
        fn longest_pause(&self) -> Duration {
            match *self {
                "deploy" => CONTESTED_EVERY * 10,
                _ => CONTESTED_EVERY,
            }
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn the_third_repair_is_the_last_quick_one() {
        let mut contest = Contest::default();
        contest.wrote("svc", 7, at(0)); // not a repair: the first write
        for second in [1, 2, 3] {
            assert_eq!(contest.ask(&"svc", 7, at(second)), Repair::Write);
            contest.wrote("svc", 7, at(second));
        }
        assert_eq!(
            contest.ask(&"svc", 7, at(4)),
            Repair::Contested { until: at(63) }
        );
        assert!(contest.is_contested(&"svc", at(4)));
        assert_eq!(contest.ask(&"svc", 7, at(63)), Repair::Write);
        contest.wrote("svc", 7, at(63));
        assert!(matches!(
            contest.ask(&"svc", 7, at(64)),
            Repair::Contested { .. }
        ));
        assert_eq!(contest.ask(&"cm", 7, at(64)), Repair::Write);
    }

    #[test]
    fn writes_of_our_own_accord_are_bounded_too() {
        let mut contest = Contest::default();
        contest.wrote("ca", 7, at(0));
        let mut written = 0;
        for second in 0..100 {
            if contest.own_change(&"ca", at(second)) == Repair::Write {
                contest.wrote("ca", 7, at(second));
                written += 1;
            }
        }
        assert_eq!(written, OWN_CHANGES + 1);
    }

    #[test]
    fn what_is_expected_is_no_repair_but_its_repetition_is() {
        let mut contest = Contest::default();
        contest.expect("svc", 7);
        for second in [1, 2, 3] {
            assert_eq!(contest.ask(&"svc", 7, at(second)), Repair::Write);
            contest.wrote("svc", 7, at(second));
            contest.expect("svc", 7);
        }
        assert!(contest.is_contested(&"svc", at(4)));
    }

    #[test]
    fn what_admission_changes_is_contested_at_once() {
        let mut contest = Contest::default();
        contest.wrote("deploy", 7, at(0));
        contest.overruled("deploy", 7, at(0));
        assert!(matches!(
            contest.ask(&"deploy", 7, at(1)),
            Repair::Contested { .. }
        ));
        assert_eq!(contest.held(at(1)).count(), 1);
        assert_eq!(contest.ask(&"deploy", 8, at(1)), Repair::Write);
        assert_eq!(contest.ask(&"deploy", 7, at(61)), Repair::Write);
    }

    #[test]
    fn changed_content_is_not_a_fight() {
        let mut contest = Contest::default();
        for n in 0..20 {
            assert_eq!(contest.ask(&"svc", n, at(1)), Repair::Write);
            contest.wrote("svc", n, at(1));
        }
        assert!(!contest.is_contested(&"svc", at(1)));
    }

    /// Who has pods replaced every three minutes is noticed, and slowed down.
    #[test]
    fn a_slow_fight_over_what_is_costly_is_slowed_down() {
        let mut contest = Contest::default();
        contest.wrote("deploy", 7, at(0));
        let (mut repairs, mut held) = (0, 0);
        for minute in 0..120 {
            let now = at(minute * 60);
            match contest.ask(&"deploy", 7, now) {
                Repair::Write if minute % 3 == 0 => {
                    contest.wrote("deploy", 7, now);
                    repairs += 1;
                }
                Repair::Write => {}
                Repair::Contested { .. } => {
                    assert!(contest.is_contested(&"deploy", now));
                    held += 1;
                }
            }
        }
        assert!(
            (10..=18).contains(&repairs),
            "{repairs} repairs, {held} held"
        );
        // A fight that has ended is forgotten.
        let later = at(120 * 60 + 1300);
        assert_eq!(contest.ask(&"deploy", 7, later), Repair::Write);
        contest.wrote("deploy", 7, later);
        assert!(!contest.is_contested(&"deploy", later));
    }

    #[test]
    fn old_repairs_do_not_count() {
        let mut contest = Contest::default();
        contest.wrote("svc", 7, at(0));
        for n in 1..10 {
            let now = at(n * 1300);
            assert_eq!(contest.ask(&"svc", 7, now), Repair::Write);
            contest.wrote("svc", 7, now);
            assert!(!contest.is_contested(&"svc", now));
        }
    }
}
