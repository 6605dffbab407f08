//! The serving certificate and its authority, which live in one Secret (rule 24):
//! when they are made, when they are renewed, and what a verifier must trust. Pure.

use std::collections::BTreeMap;

use apiservice::names::key;
use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;

/// Further authorities that may still have signed what a replica serves.
const PREVIOUS: &str = "previous-ca.crt";
const DAY: i64 = 24;
const AUTHORITY_LIFE: i64 = 3650 * DAY;
/// A new authority is made long before the old one could end a leaf early.
const AUTHORITY_MARGIN: i64 = 730 * DAY;
const LEAF_LIFE: i64 = 365 * DAY;
const LEAF_MARGIN: i64 = 120 * DAY;
/// For clocks that are behind ours.
const EARLIER: i64 = 1;

/// What the Secret holds.
#[derive(Clone, Debug)]
pub struct Material {
    pub authority: Pair,
    pub leaf: Pair,
    /// PEM, may be empty.
    pub previous: String,
}

impl Material {
    /// Reads a Secret's data; `None` if a part is missing or is not text.
    pub fn parse(data: &BTreeMap<String, ByteString>) -> Option<Material> {
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        Some(Material {
            authority: Pair {
                cert: text(key::CA_CRT)?,
                key: text(key::CA_KEY)?,
            },
            leaf: Pair {
                cert: text(key::TLS_CRT)?,
                key: text(key::TLS_KEY)?,
            },
            previous: text(PREVIOUS).unwrap_or_default(),
        })
    }

    /// As a Secret's data.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        [
            (key::CA_CRT, &self.authority.cert),
            (key::CA_KEY, &self.authority.key),
            (key::TLS_CRT, &self.leaf.cert),
            (key::TLS_KEY, &self.leaf.key),
            (PREVIOUS, &self.previous),
        ]
        .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
        .into()
    }

    /// The certificates that a client of any replica has to trust.
    pub fn bundle(&self, present: &str, now: Timestamp) -> String {
        union([present, &self.authority.cert, &self.previous], now)
    }
}

/// What has to be stored instead of `current`; `None` if it is good as it is.
///
/// # Errors
/// When a key or certificate cannot be made.
pub fn renew(
    current: Option<&Material>,
    dns_names: &[String],
    now: Timestamp,
    entropy: &Entropy,
) -> Result<Option<Material>, pki::Error> {
    let kept = current.filter(|current| authority_is_good(&current.authority, now));
    if let Some(kept) = kept
        && leaf_is_good(kept, dns_names, now)
    {
        return Ok(None);
    }
    let (authority, previous) = match kept {
        Some(kept) => (kept.authority.clone(), kept.previous.clone()),
        None => {
            let old = current.map_or(String::new(), |old| {
                union([old.authority.cert.as_str(), &old.previous], now)
            });
            let life = life(now, AUTHORITY_LIFE);
            (pki::authority("steward-apiserver", life, entropy)?, old)
        }
    };
    let leaf = Leaf {
        subject: Subject {
            common_name: dns_names.first().cloned().unwrap_or_default(),
            organizations: Vec::new(),
        },
        usage: Usage::Server,
        dns_names: dns_names.to_vec(),
        ip_addresses: Vec::new(),
        validity: life(now, LEAF_LIFE),
    };
    Ok(Some(Material {
        leaf: pki::sign(&authority, &leaf, entropy)?,
        authority,
        previous,
    }))
}

/// The names under which the Service is called. The aggregator uses `NAME.NAMESPACE.svc`
/// (R1.5).
pub fn dns_names(namespace: &str, service: &str) -> Vec<String> {
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc.cluster.local"),
        service.to_owned(),
        "localhost".to_owned(),
    ]
}

fn life(now: Timestamp, hours: i64) -> Validity {
    Validity {
        not_before: now - SignedDuration::from_hours(EARLIER),
        not_after: now + SignedDuration::from_hours(hours),
    }
}

fn ends_within(certificate: &str, hours: i64, now: Timestamp) -> bool {
    pki::inspect(certificate).map_or(true, |info| {
        info.not_after < now + SignedDuration::from_hours(hours)
    })
}

/// One that is to begin is none: the clock was wrong when it was made. Our own verifier does
/// not look at that of an authority, and others do.
fn authority_is_good(authority: &Pair, now: Timestamp) -> bool {
    let begins = pki::inspect(&authority.cert).map(|info| info.not_before);
    begins.is_ok_and(|begins| begins <= now)
        && !ends_within(&authority.cert, AUTHORITY_MARGIN, now)
        && pki::key_matches(authority)
}

fn leaf_is_good(material: &Material, dns_names: &[String], now: Timestamp) -> bool {
    let Ok(info) = pki::inspect(&material.leaf.cert) else {
        return false;
    };
    !ends_within(&material.leaf.cert, LEAF_MARGIN, now)
        && dns_names.iter().all(|name| info.dns_names.contains(name))
        && pki::key_matches(&material.leaf)
        && pki::verify(
            &material.leaf.cert,
            &material.authority.cert,
            Usage::Server,
            now,
        )
        .is_ok()
}

/// The certificates of several bundles, each once, without those that have ended.
pub fn union<'a>(bundles: impl IntoIterator<Item = &'a str>, now: Timestamp) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let mut kept: Vec<String> = Vec::new();
    for bundle in bundles {
        for block in bundle.split_inclusive(END) {
            let Some(start) = block.find(BEGIN).filter(|_| block.ends_with(END)) else {
                continue;
            };
            let block: Vec<&str> = block[start..].lines().map(str::trim).collect();
            let block = block.join("\n") + "\n";
            if !kept.contains(&block) && !ends_within(&block, 0, now) {
                kept.push(block);
            }
        }
    }
    kept.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn after(days: i64) -> Timestamp {
        start() + SignedDuration::from_hours(days * DAY)
    }

    fn made(now: Timestamp) -> Material {
        let names = dns_names("ns", "svc");
        renew(None, &names, now, &Entropy).unwrap().unwrap()
    }

    #[test]
    fn what_is_good_is_kept() {
        let material = made(start());
        let again = Material::parse(&material.data()).unwrap();
        let names = dns_names("ns", "svc");
        assert!(
            renew(Some(&again), &names, after(200), &Entropy)
                .unwrap()
                .is_none()
        );
    }

    /// R1.5.
    #[test]
    fn a_leaf_is_renewed_in_time_and_for_other_names() {
        let first = made(start());
        for (names, now) in [
            (dns_names("ns", "svc"), after(250)),
            (dns_names("ns", "other"), after(1)),
        ] {
            let next = renew(Some(&first), &names, now, &Entropy).unwrap().unwrap();
            assert_eq!(next.authority.cert, first.authority.cert);
            assert_ne!(next.leaf.cert, first.leaf.cert);
            assert!(leaf_is_good(&next, &names, now));
        }
    }

    /// R1.5.
    #[test]
    fn a_new_authority_keeps_the_old_one_trusted_until_it_ends() {
        let first = made(start());
        let now = after(3650 - 700);
        let names = dns_names("ns", "svc");
        let next = renew(Some(&first), &names, now, &Entropy).unwrap().unwrap();
        assert_ne!(next.authority.cert, first.authority.cert);
        let count = |bundle: &str| bundle.matches("BEGIN").count();
        assert_eq!(count(&next.bundle("", now)), 2);
        assert_eq!(count(&next.bundle(&first.authority.cert, now)), 2);
        assert_eq!(count(&next.bundle(&first.authority.cert, after(3660))), 1);
    }

    /// As one does that is made while the machine's clock is years ahead.
    #[test]
    fn an_authority_that_is_to_begin_is_replaced() {
        let names = dns_names("ns", "svc");
        let ahead = made(after(3000));
        let next = renew(Some(&ahead), &names, after(1), &Entropy).unwrap();
        let next = next.unwrap();
        assert_ne!(next.authority.cert, ahead.authority.cert);
        assert!(authority_is_good(&next.authority, after(1)));
        assert!(leaf_is_good(&next, &names, after(1)));
    }

    #[test]
    fn a_stranger_in_the_bundle_stays() {
        let (ours, theirs) = (made(start()), made(start()));
        let bundle = ours.bundle(&theirs.authority.cert, start());
        assert_eq!(bundle.matches("BEGIN").count(), 2);
    }

    #[test]
    fn a_swapped_key_is_noticed() {
        let (first, other) = (made(start()), made(start()));
        let mixed = Material {
            leaf: Pair {
                cert: first.leaf.cert.clone(),
                key: other.leaf.key,
            },
            ..first
        };
        let names = dns_names("ns", "svc");
        assert!(
            renew(Some(&mixed), &names, start(), &Entropy)
                .unwrap()
                .is_some()
        );
    }
}
