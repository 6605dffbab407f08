//! How often something may come from one address: so many at once, and then so many a
//! second. An IPv6 address counts as its /64, which is what one host has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;
use tokio::time::Instant;

const BURST: f64 = 20.0;
const PER_SECOND: f64 = 2.0;
/// Addresses that are remembered. Those that have all they may have need not be.
const CAPACITY: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Buckets {
    levels: Mutex<HashMap<IpAddr, Level>>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: f64,
    at: Instant,
}

impl Level {
    fn now(self, now: Instant) -> Self {
        let gained = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        Level {
            left: (self.left + gained).min(BURST),
            at: now,
        }
    }
}

impl Buckets {
    /// Takes one; whether there was one.
    pub fn take(&self, source: IpAddr) -> bool {
        self.take_at(source, Instant::now())
    }

    fn take_at(&self, source: IpAddr, now: Instant) -> bool {
        let mut levels = self.levels.lock();
        if levels.len() >= CAPACITY {
            levels.retain(|_, level| level.now(now).left < BURST);
            if levels.len() >= CAPACITY {
                // Whoever has so many addresses is not stopped by this: the number of
                // questions under way is.
                levels.clear();
            }
        }
        let full = Level {
            left: BURST,
            at: now,
        };
        let level = levels.entry(block(source)).or_insert(full);
        *level = level.now(now);
        if level.left < 1.0 {
            return false;
        }
        level.left -= 1.0;
        true
    }

    /// Gives one back.
    pub fn give_back(&self, source: IpAddr) {
        if let Some(level) = self.levels.lock().get_mut(&block(source)) {
            level.left = (level.left + 1.0).min(BURST);
        }
    }
}

/// The addresses that one host has.
pub fn block(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_a_trickle_for_each_address() {
        let buckets = Buckets::default();
        let now = Instant::now();
        let take = |source: &str, now| buckets.take_at(source.parse().unwrap(), now);
        let a = "10.0.0.1";
        assert_eq!((0..100).filter(|_| take(a, now)).count(), 20);
        assert!(take("10.0.0.2", now));
        assert!(!take("::ffff:10.0.0.1", now));
        let now = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| take(a, now)).count(), 2);
        buckets.give_back(a.parse().unwrap());
        assert!(take(a, now));
        assert_eq!((0..100).filter(|_| take("2001:db8::1", now)).count(), 20);
        assert!(!take("2001:db8::2", now));
        assert!(take("2001:db8:0:1::1", now));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let buckets = Buckets::default();
        for n in 0..20_000u32 {
            buckets.take(IpAddr::from(n.to_be_bytes()));
        }
        assert!(buckets.levels.lock().len() <= CAPACITY);
    }
}
