//! What older versions of etcd let a tenant do (rule 21).

/// A hole, and in which patch of which minor version it was closed. Minor
/// versions above the last one listed never had it; those between and below
/// were never repaired.
struct Advisory {
    /// What a tenant can do, to follow "a tenant can".
    hole: &'static str,
    id: &'static str,
    fixed: &'static [(u64, u64, u64)],
}

/// Left out: GHSA-xg4h-6gfc-h4m8 (3.6.14), which concerns permissions on one
/// exact key; tenants hold a range.
const ADVISORIES: &[Advisory] = &[
    Advisory {
        hole: "raise and disarm alarms, compact history and use other tenants' leases",
        id: "GHSA-q8m4-xhhv-38mg",
        fixed: &[(3, 4, 42), (3, 5, 28), (3, 6, 9)],
    },
    Advisory {
        hole: "read and write every key through nested transactions",
        id: "GHSA-rfx7-8w68-q57q",
        fixed: &[(3, 4, 42), (3, 5, 28), (3, 6, 9)],
    },
    Advisory {
        hole: "read previous values and attach leases without the right to, within transactions",
        id: "GHSA-x35m-3gp4-4fh5",
        fixed: &[(3, 5, 30), (3, 6, 11)],
    },
    Advisory {
        hole: "switch authentication off once the database is full",
        id: "etcd pull request 22386",
        fixed: &[(3, 6, 0)],
    },
];

/// The holes of a version, a sentence each. An unreadable version has them all.
pub fn gaps(version: &str) -> Vec<String> {
    let parsed = parse(version);
    ADVISORIES
        .iter()
        .filter(|advisory| parsed.is_none_or(|version| advisory.concerns(version)))
        .map(|advisory| {
            let fixed = advisory.fixed.iter();
            let fixed: Vec<_> = fixed.map(|(a, b, c)| format!("{a}.{b}.{c}")).collect();
            format!(
                "in etcd {version} a tenant can {} ({}); use {} or later",
                advisory.hole,
                advisory.id,
                fixed.join(", ")
            )
        })
        .collect()
}

impl Advisory {
    fn concerns(&self, (major, minor, patch): (u64, u64, u64)) -> bool {
        let newest = self.fixed.last();
        if newest.is_some_and(|(a, b, _)| (major, minor) > (*a, *b)) {
            return false;
        }
        !self
            .fixed
            .iter()
            .any(|(a, b, c)| (major, minor) == (*a, *b) && patch >= *c)
    }
}

/// Three numbers. What comes before a patch does not have its repairs.
fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let (numbers, early) = match version.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (version, false),
    };
    let mut numbers = numbers.trim_start_matches('v').split(['.', '+']);
    let mut next = || numbers.next()?.parse::<u64>().ok();
    let (major, minor, patch) = (next()?, next()?, next()?);
    Some((major, minor, patch.saturating_sub(u64::from(early))))
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn the_versions_at_the_borders() {
        for (version, count) in [
            ("3.6.15", 0),
            ("3.6.11", 0),
            ("3.6.10", 1),
            ("3.6.9", 1),
            ("3.6.8", 3),
            ("3.6.0", 3),
            ("3.6.0-rc.1", 3),
            ("3.6.11-rc.0", 1),
            ("3.6.15+git", 0),
            ("3.7.0", 0),
            ("v3.7.1", 0),
            ("4.0.0", 0),
            ("3.5.34", 1),
            ("3.5.28", 2),
            ("3.5.6", 4),
            ("3.4.42", 2),
            ("3.3.0", 4),
            ("", 4),
            ("newest", 4),
        ] {
            assert_eq!(gaps(version).len(), count, "{version}: {:?}", gaps(version));
        }
        assert!(gaps("3.6.8")[0].starts_with("in etcd 3.6.8 a tenant can raise and disarm"));
    }
}
