//! How long the parts of a slow request took, as Kubernetes says it (R9.11).

use std::time::Duration;

/// What is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Nothing of a request that was quick.
pub fn annotations(total: Duration, parts: &[(&'static str, Duration)]) -> Vec<(String, String)> {
    if total <= SLOW {
        return Vec::new();
    }
    let all = parts.iter().copied().chain([("total", total)]);
    all.map(|(part, took)| (format!("apiserver.latency.k8s.io/{part}"), text(took)))
        .collect()
}

/// As Go writes a duration: `1m2.5s`, `512.3ms`, `80µs`.
fn text(took: Duration) -> String {
    let trimmed = |nanoseconds: u128, unit: u128, name: &str| {
        let (whole, rest) = (nanoseconds / unit, nanoseconds % unit);
        let digits = unit.ilog10() as usize;
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            rest => format!("{whole}.{rest}{name}"),
        }
    };
    let nanoseconds = took.as_nanos();
    match took.as_secs() {
        0 if nanoseconds == 0 => "0s".to_owned(),
        0 if nanoseconds < 1_000 => format!("{nanoseconds}ns"),
        0 if nanoseconds < 1_000_000 => trimmed(nanoseconds, 1_000, "µs"),
        0 => trimmed(nanoseconds, 1_000_000, "ms"),
        seconds => {
            let rest = nanoseconds % 60_000_000_000;
            let rest = trimmed(rest, 1_000_000_000, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R9.11.
    #[test]
    fn slow_requests_say_where_the_time_went() {
        assert!(annotations(SLOW, &[("authentication", SLOW)]).is_empty());
        let parts = [("authorization", Duration::from_micros(1500))];
        let said = annotations(Duration::from_millis(501), &parts);
        let expected = [
            ("apiserver.latency.k8s.io/authorization", "1.5ms"),
            ("apiserver.latency.k8s.io/total", "501ms"),
        ];
        assert_eq!(
            said,
            expected.map(|(key, text)| (key.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (999, "999ns"),
            (80_000, "80µs"),
            (80_050, "80.05µs"),
            (512_300_000, "512.3ms"),
            (1_000_000_000, "1s"),
            (62_500_000_000, "1m2.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(text(Duration::from_nanos(nanoseconds)), expected);
        }
    }
}
