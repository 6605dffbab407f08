//! What versions of NATS let tenants do that they must not (rule 21).

/// A sentence each.
pub fn gaps(version: &str) -> Vec<String> {
    let Some(version) = parse(version) else {
        return vec![format!(
            "The version {version:?} of the NATS server cannot be read, so that it cannot be said \
             what tenants may do there."
        )];
    };
    let mut gaps = Vec::new();
    // CVE-2025-30215.
    if version < (2, 10, 27) || ((2, 11, 0)..(2, 11, 1)).contains(&version) {
        gaps.push(
            "This version of NATS lets every user of JetStream administer streams of other \
             accounts (CVE-2025-30215); use 2.10.27, 2.11.1 or later."
                .to_owned(),
        );
    }
    gaps
}

fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    let mut number = || {
        let part = parts.next()?;
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    Some((number()?, number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_have_gaps() {
        for good in ["2.10.27", "2.11.1", "2.14.10", "2.15.0-RC.1", "3.0.0"] {
            assert_eq!(gaps(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["2.9.25", "2.10.26", "2.11.0", "2.11.0-RC.2", "", "x"] {
            assert_eq!(gaps(bad).len(), 1, "{bad}");
        }
    }
}
