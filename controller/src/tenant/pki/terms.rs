//! For how long certificates are made, and when they are made anew. Pure: the
//! time is passed in, and what is decided rests on nothing but the certificate,
//! the end of its authority and the settings.
//!
//! # Guarantees
//! * What is signed does not outlive its authority.
//! * A certificate is not made anew for its age unless the new one lasts longer by
//!   half a window at least, or the old one does not hold at this moment; and not
//!   within [`AGAIN`] after it was made. So an authority that ends soon, a
//!   certificate of others and a clock that jumps cost one renewal each, and not
//!   one a pass.

use apiservice::pki::Validity;
use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};

/// Authorities live for ten years.
pub const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Certificates are valid from a little earlier, for clocks that lag.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// So long after it was made, a certificate is not made anew for its age.
pub const AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// The shortest window: there have to be some attempts in it.
pub const SHORTEST_WINDOW: SignedDuration = AGAIN;

/// Lifetime and renewal window, as the administrator chose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    lifetime: SignedDuration,
    window: SignedDuration,
}

impl Default for Terms {
    /// A year, renewed in its last month.
    fn default() -> Self {
        Terms {
            lifetime: SignedDuration::from_hours(365 * 24),
            window: SignedDuration::from_hours(30 * 24),
        }
    }
}

/// Settings under which certificates would be made anew all the time, or never.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTerms {
    /// The window leaves no time for attempts.
    #[error("a renewal window of {0:#} is too short: certificates need an hour at least")]
    Window(SignedDuration),
    /// A new certificate would be due almost at once.
    #[error(
        "a lifetime of {lifetime:#} is too short for a renewal window of {window:#}: certificates \
         have to live for two windows at least, else they would be renewed all the time"
    )]
    Lifetime {
        /// As it was given.
        lifetime: SignedDuration,
        /// As it was given.
        window: SignedDuration,
    },
    /// It would outlive every authority.
    #[error("a lifetime of {0:#} is too long: authorities live for {AUTHORITY_LIFE:#}")]
    Outlives(SignedDuration),
}

/// From when until when a certificate that is there is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

impl Span {
    /// When it was made, if it was made here.
    pub fn issued(&self) -> Timestamp {
        self.not_before.checked_add(SKEW).unwrap_or(self.not_before)
    }

    /// It holds at this moment.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// The moment closest to now at which it is valid.
    pub fn moment(&self, now: Timestamp) -> Timestamp {
        now.max(self.not_before).min(self.not_after)
    }
}

impl Terms {
    /// Checks the two against each other.
    ///
    /// # Errors
    /// With settings that lead to renewals without end.
    pub fn new(lifetime: SignedDuration, window: SignedDuration) -> Result<Self, BadTerms> {
        if window < SHORTEST_WINDOW {
            return Err(BadTerms::Window(window));
        }
        if lifetime > AUTHORITY_LIFE {
            return Err(BadTerms::Outlives(lifetime));
        }
        if window > lifetime / 2 {
            return Err(BadTerms::Lifetime { lifetime, window });
        }
        Ok(Terms { lifetime, window })
    }

    /// How long before its end a certificate may be renewed.
    pub fn window(&self) -> SignedDuration {
        self.window
    }

    /// The validity of a certificate that is signed now. It ends with its authority;
    /// `None` once that has ended, for nothing it signs would hold.
    pub fn validity(&self, now: Timestamp, authority_end: Timestamp) -> Option<Validity> {
        (now < authority_end).then(|| Validity {
            not_before: now.checked_sub(SKEW).unwrap_or(now),
            not_after: self.end(now, authority_end),
        })
    }

    fn end(&self, now: Timestamp, authority_end: Timestamp) -> Timestamp {
        let end = now.checked_add(self.lifetime).unwrap_or(Timestamp::MAX);
        end.min(authority_end)
    }

    /// When a certificate is due: in the first quarter of the window, at a moment
    /// by `spread`, from 0 to 1, so that what was made together is not renewed
    /// together.
    pub fn due(&self, span: &Span, spread: f64) -> Timestamp {
        let quarter = self.window.as_secs() / 4;
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "at most the seconds of some years, and to the second only"
        )]
        let later = (quarter as f64 * spread.clamp(0.0, 1.0)) as i64;
        self.before(span.not_after, self.window)
            .checked_add(SignedDuration::from_secs(later))
            .unwrap_or(span.not_after)
    }

    /// From when on a certificate that we renew counts as overdue.
    pub fn overdue(&self, span: &Span) -> Timestamp {
        self.before(span.not_after, self.window / 2)
    }

    /// The beginning of the window.
    pub fn opens(&self, span: &Span) -> Timestamp {
        self.before(span.not_after, self.window)
    }

    /// From when on pods are late that wait for what was renewed: they are rolled in the
    /// middle of the window, whosever turn it is.
    pub fn late(&self, end: Timestamp) -> Timestamp {
        self.before(end, self.window / 4)
    }

    fn before(&self, end: Timestamp, time: SignedDuration) -> Timestamp {
        end.checked_sub(time).unwrap_or(Timestamp::MIN)
    }

    /// Whether to make a certificate anew for its age.
    pub fn renews(
        &self,
        now: Timestamp,
        span: &Span,
        authority_end: Timestamp,
        spread: f64,
    ) -> bool {
        if authority_end <= now || now.duration_since(span.issued()).abs() < AGAIN {
            return false;
        }
        !span.holds(now) || self.due(span, spread) <= now && self.gains(now, span, authority_end)
    }

    /// Whether one made now lasts longer by enough.
    pub fn gains(&self, now: Timestamp, span: &Span, authority_end: Timestamp) -> bool {
        let gain = self.end(now, authority_end).duration_since(span.not_after);
        gain >= self.window / 2
    }
}

/// A number from 0 to 1 (exclusive) that is always the same for a uid, in this and
/// in later versions.
pub fn spread(uid: &str) -> f64 {
    let digest = Md5::digest(uid.as_bytes());
    let number = digest[..4]
        .iter()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}

/// Reads a duration as flags have it: `720h`, `90m`, or whole days, `30d`.
///
/// # Errors
/// Says what is expected.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u16>().ok());
    if let Some(days) = days {
        return Ok(SignedDuration::from_hours(i64::from(days) * 24));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not a duration such as 720h or 30d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn start() -> Timestamp {
        Timestamp::from_second(1_767_225_600).unwrap()
    }

    fn at(hours: i64) -> Timestamp {
        start() + SignedDuration::from_hours(hours)
    }

    fn span(from: i64, to: i64) -> Span {
        Span {
            not_before: at(from) - SKEW,
            not_after: at(to),
        }
    }

    fn made(terms: &Terms, now: Timestamp, authority_end: Timestamp) -> Span {
        let validity = terms.validity(now, authority_end).unwrap();
        Span {
            not_before: validity.not_before,
            not_after: validity.not_after,
        }
    }

    /// How often a certificate is made anew in so many hours of passes every five
    /// minutes, and whether there was a moment at which none held.
    fn renewals(terms: &Terms, authority_end: Timestamp, hours: i64, spread: f64) -> (u32, bool) {
        let mut span = made(terms, start(), authority_end);
        let (mut count, mut gap) = (0, false);
        for pass in 0..hours * 12 {
            let now = start() + SignedDuration::from_mins(5 * pass);
            if terms.renews(now, &span, authority_end, spread) {
                span = made(terms, now, authority_end);
                count += 1;
            }
            gap |= !span.holds(now);
        }
        (count, gap)
    }

    #[test]
    fn settings_that_would_renew_without_end_are_refused() {
        let terms = |lifetime: i64, window: i64| {
            Terms::new(HOUR * lifetime as i32, HOUR * window as i32).map_err(|bad| bad.to_string())
        };
        assert_eq!(terms(8760, 720), Ok(Terms::default()));
        assert!(terms(2, 1).is_ok());
        let said = terms(8760, 4381).unwrap_err();
        assert!(
            said.contains("8760h") && said.contains("4381h") && said.contains("two windows"),
            "{said}"
        );
        assert!(terms(8760, 0).unwrap_err().contains("an hour at least"));
        assert!(terms(8760, -30).unwrap_err().contains("an hour at least"));
        let said = terms(87_601, 720).unwrap_err();
        assert!(
            said.contains("too long") && said.contains("87600h"),
            "{said}"
        );
    }

    #[test]
    fn durations_are_read_in_hours_and_days() {
        assert_eq!(parse("30d"), Ok(DAY * 30));
        assert_eq!(parse("720h"), Ok(DAY * 30));
        assert_eq!(parse("1h30m"), Ok(HOUR + HOUR / 2));
        for bad in ["", "30", "soon", "-1d", "d"] {
            assert!(parse(bad).unwrap_err().contains("720h"), "{bad}");
        }
    }

    /// Whatever the settings are: always one that holds, and no more than two in
    /// the time of one.
    #[test]
    fn there_is_always_one_that_holds_and_no_loop() {
        for (lifetime, window) in [(2, 1), (24, 12), (48, 8), (720, 24)] {
            let terms = Terms::new(HOUR * lifetime, HOUR * window).unwrap();
            for spread in [0.0, 0.5, 1.0] {
                let hours = i64::from(lifetime) * 10;
                let (count, gap) = renewals(&terms, at(1_000_000), hours, spread);
                assert!(!gap, "{lifetime} {window} {spread}");
                assert!((9..=20).contains(&count), "{lifetime} {window}: {count}");
            }
        }
    }

    /// An authority that ends within a lifetime, or within a window, costs few
    /// renewals; and nothing is signed by one that has ended.
    #[test]
    fn the_end_of_an_authority_is_no_loop() {
        let terms = Terms::default();
        for days in [1, 10, 29, 31, 100, 400, 700] {
            let end = at(days * 24);
            let (count, _) = renewals(&terms, end, days * 24 + 100, 0.3);
            assert!(count <= 2, "{days} days: {count}");
            assert!(made(&terms, start(), end).not_after <= end);
        }
        assert_eq!(terms.validity(at(5), at(5)), None);
        let ended = span(-100, 1);
        assert!(!terms.renews(at(5), &ended, at(5), 0.0));
        assert!(terms.renews(at(5), &ended, at(6), 0.0));
    }

    #[test]
    fn a_clock_that_jumps_costs_one_renewal_each_time() {
        let terms = Terms::default();
        let far = at(1_000_000);
        let mut span = made(&terms, start(), far);
        let mut count = 0;
        // Years ahead, and back again; then some minutes to and fro.
        for hours in [0, 20_000, 20_000, 20_000, 1, 1, 1] {
            for minutes in [0, 10, -10, 50] {
                let now = at(hours) + SignedDuration::from_mins(minutes);
                if terms.renews(now, &span, far, 0.0) {
                    span = made(&terms, now, far);
                    count += 1;
                }
            }
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn tenants_that_were_made_together_come_due_apart() {
        let terms = Terms::default();
        let span = span(0, 8760);
        let due: Vec<_> = (0..100)
            .map(|number| terms.due(&span, spread(&format!("uid-{number}"))))
            .collect();
        let (first, last) = (due.iter().min().unwrap(), due.iter().max().unwrap());
        assert!(*first >= terms.opens(&span));
        assert!(*last < terms.opens(&span) + DAY * 8, "the first quarter");
        assert!(*last < terms.overdue(&span));
        let days: std::collections::BTreeSet<_> = due
            .iter()
            .map(|at| at.duration_since(*first).as_hours() / 24)
            .collect();
        assert!(days.len() >= 6, "{days:?}");
        // Also in the next version and in the other replica.
        assert_eq!((spread("3d0c0a5e") * 1e6).round(), 999_229.0);
    }

    #[test]
    fn a_longer_window_takes_what_is_in_it() {
        let held = span(0, 8760);
        let short = Terms::new(DAY * 365, DAY).unwrap();
        let long = Terms::new(DAY * 365, DAY * 180).unwrap();
        assert!(!short.renews(at(5000), &held, at(90_000), 0.0));
        assert!(long.renews(at(5000), &held, at(90_000), 0.0));
    }
}
