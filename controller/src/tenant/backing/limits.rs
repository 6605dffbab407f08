//! How much a tenant has in its DataStore, against what each tenant may have there
//! (`DataStore.spec.tenantLimits`). Pure.
//!
//! One that has as much as it may cannot create objects until it has less by a margin, so that
//! one more or less does not turn it to and fro. What is not known refuses nothing: whoever
//! does not know how much there is has no reason to.

use apiservice::condition::{get, reason, tenant as kind};
use apiservice::v1alpha1::{
    DataStore, DataStoreTenantLimits, StorageUsageStatus, TenantControlPlane,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use storage::tenancy::contents::Usage;

/// By how many percent of a limit a tenant has to be below it, or below where it is warned,
/// before it counts as such again.
pub const MARGIN: u8 = 5;
/// What changes by less is not told: part of what was told, bytes, and objects.
const PART: u64 = 20;
const BYTES: u64 = 64 << 10;
const OBJECTS: u64 = 20;

/// How a tenant stands to the limits of its DataStore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// How much it has could not be measured for long.
    Unknown,
    /// It has less than where it is warned, or there is no limit.
    Within,
    /// It is warned.
    Near,
    /// It has as much as it may, and cannot create objects.
    Exceeded,
}

/// What is known of how much a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeFact {
    /// As it was measured last.
    pub usage: Option<Usage>,
    /// How it stood then. `None`: nobody has looked yet, and what its status says stands.
    pub standing: Option<Standing>,
}

impl SizeFact {
    /// How a tenant stands to these limits.
    pub fn standing(
        &self,
        limits: Option<&DataStoreTenantLimits>,
        tenant: &TenantControlPlane,
    ) -> Standing {
        let Some(limits) = limits else {
            return Standing::Within;
        };
        let before = self.standing.unwrap_or_else(|| said(tenant));
        match (self.usage, self.standing) {
            (Some(usage), _) => judge(limits, usage, before),
            (None, None) => before,
            (None, Some(_)) => Standing::Unknown,
        }
    }

    /// The same to the limits of a DataStore. Of one that is not known yet, what was said
    /// stands.
    pub fn standing_in(&self, store: Option<&DataStore>, tenant: &TenantControlPlane) -> Standing {
        match store {
            Some(_) => self.standing(of(store), tenant),
            None => self.standing.unwrap_or_else(|| said(tenant)),
        }
    }
}

/// The limits of a DataStore, if it has some.
pub fn of(store: Option<&DataStore>) -> Option<&DataStoreTenantLimits> {
    store?.spec.tenant_limits.as_ref()
}

/// How the tenant stood when its status was written: by another process, it may be.
fn said(tenant: &TenantControlPlane) -> Standing {
    let conditions = tenant.status.as_ref().map_or(&[][..], |it| &it.conditions);
    let condition = get(conditions, kind::STORAGE_WITHIN_LIMITS);
    match condition.map(|it| it.reason.as_str()) {
        None => Standing::Unknown,
        Some(reason::LIMIT_EXCEEDED) => Standing::Exceeded,
        Some(reason::NEAR_LIMIT) => Standing::Near,
        Some(reason::AS_EXPECTED) => Standing::Within,
        Some(_) => Standing::Unknown,
    }
}

/// One of the limits, and how much of it is used.
#[derive(Clone, Copy)]
struct Share {
    used: u64,
    limit: u64,
    of: &'static str,
}

impl Share {
    /// Whether so many percent of the limit are used.
    fn has(&self, percent: u8) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
    }

    /// Rounded down, so that what is not reached is not said to be.
    fn percent(&self) -> u128 {
        u128::from(self.used) * 100 / u128::from(self.limit)
    }

    fn figures(&self) -> String {
        let Share { used, limit, of } = self;
        match *of {
            "bytes" => format!(
                "{} of {} ({} %)",
                bytes(*used),
                bytes(*limit),
                self.percent()
            ),
            of => format!("{used} of {limit} {of} ({} %)", self.percent()),
        }
    }
}

/// The limits that there are, the one of which most is used first.
fn shares(limits: &DataStoreTenantLimits, usage: Usage) -> Vec<Share> {
    let share = |limit: Option<i64>, used, of| {
        let limit = u64::try_from(limit?).ok().filter(|limit| *limit > 0)?;
        Some(Share { used, limit, of })
    };
    let both = [
        share(limits.bytes, usage.bytes, "bytes"),
        share(limits.objects, usage.objects, "objects"),
    ];
    let mut shares: Vec<Share> = both.into_iter().flatten().collect();
    // Of equals the bytes: a sort keeps their order.
    shares.sort_by(|one, other| {
        let cross = |a: &Share, b: &Share| u128::from(a.used) * u128::from(b.limit);
        cross(other, one).cmp(&cross(one, other))
    });
    shares
}

/// Whether one with at least so much has as much as it may.
pub fn is_reached(limits: &DataStoreTenantLimits, usage: Usage) -> bool {
    judge(limits, usage, Standing::Within) == Standing::Exceeded
}

/// How much of each limit is used, in words.
pub fn figures(limits: &DataStoreTenantLimits, told: &StorageUsageStatus) -> String {
    let usage = Usage {
        bytes: told.bytes.unsigned_abs(),
        objects: told.objects.unsigned_abs(),
    };
    let figures: Vec<String> = shares(limits, usage).iter().map(Share::figures).collect();
    figures.join(", ")
}

/// How one with so much stands that stood like this before.
fn judge(limits: &DataStoreTenantLimits, usage: Usage, before: Standing) -> Standing {
    let shares = shares(limits, usage);
    let reaches = |percent: u8, was: bool| {
        let percent = percent.saturating_sub(if was { MARGIN } else { 0 });
        // Where there is no room for a margin, what has nothing is below it.
        shares.iter().any(|share| share.has(percent.max(1)))
    };
    let warn = limits.warn_at_percent().min(100);
    if reaches(100, before == Standing::Exceeded) {
        return Standing::Exceeded;
    }
    match reaches(warn, matches!(before, Standing::Near | Standing::Exceeded)) {
        true => Standing::Near,
        false => Standing::Within,
    }
}

/// How much the tenant has, as its status tells it: what was told stands until it has changed
/// by enough, or the tenant has come to stand otherwise to its limits, if there are some. A
/// quiet tenant is not written.
pub fn told(
    size: &SizeFact,
    limits: Option<&DataStoreTenantLimits>,
    tenant: &TenantControlPlane,
    now: &Time,
) -> Option<StorageUsageStatus> {
    let status = tenant.status.as_ref();
    let before = status.and_then(|it| it.storage.as_ref()?.usage.clone());
    let Some(usage) = size.usage else {
        return before;
    };
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let new = StorageUsageStatus {
        bytes: count(usage.bytes),
        objects: count(usage.objects),
        last_update: Some(now.clone()),
    };
    let Some(before) = before else {
        return Some(new);
    };
    let differs = |old: i64, new: i64, least: u64| {
        old.abs_diff(new) >= (old.unsigned_abs() / PART).max(least)
    };
    let crosses = limits.is_some() && size.standing(limits, tenant) != said(tenant);
    let same = (before.bytes, before.objects) == (new.bytes, new.objects);
    let news = differs(before.bytes, new.bytes, BYTES)
        || differs(before.objects, new.objects, OBJECTS)
        || crosses && !same;
    Some(if news { new } else { before })
}

/// As people write it.
fn bytes(number: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(bits, _)| number >> bits > 0);
    match unit {
        None => format!("{number} bytes"),
        Some((bits, unit)) => {
            // In tenths, rounded down.
            let tenths = (u128::from(number) * 10) >> bits;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::Lab;

    const MIB: u64 = 1 << 20;

    fn limits(bytes: Option<u64>, objects: Option<i64>) -> DataStoreTenantLimits {
        DataStoreTenantLimits {
            bytes: bytes.map(u64::cast_signed),
            objects,
            warn_at_percent: None,
        }
    }

    fn has(bytes: u64, objects: u64) -> Usage {
        Usage { bytes, objects }
    }

    /// How one stands that has so many objects of a hundred, one after the other.
    fn walk(limits: &DataStoreTenantLimits, counts: &[u64]) -> Vec<Standing> {
        let mut standing = Standing::Unknown;
        let step = |count: &u64| {
            standing = judge(limits, has(0, *count), standing);
            standing
        };
        counts.iter().map(step).collect()
    }

    #[test]
    fn warned_then_refused_and_neither_flaps() {
        use Standing::{Exceeded, Near, Within};
        let hundred = limits(None, Some(100));
        let counts = [79, 80, 79, 75, 74, 99, 100, 99, 95, 94, 99, 100, 74];
        assert_eq!(
            walk(&hundred, &counts),
            [
                Within, Near, Near, Near, Within, Near, Exceeded, Exceeded, Exceeded, Near, Near,
                Exceeded, Within
            ]
        );
        let late = DataStoreTenantLimits {
            warn_at_percent: Some(100),
            ..hundred
        };
        assert_eq!(
            walk(&late, &[99, 100, 95, 94]),
            [Within, Exceeded, Exceeded, Within]
        );
        let early = DataStoreTenantLimits {
            warn_at_percent: Some(1),
            ..late
        };
        assert_eq!(walk(&early, &[0, 1, 0]), [Within, Near, Within]);
    }

    #[test]
    fn either_limit_is_enough_and_none_too_large() {
        let both = limits(Some(10 * MIB), Some(100));
        let stands = |usage| judge(&both, usage, Standing::Within);
        assert_eq!(stands(has(MIB, 10)), Standing::Within);
        assert_eq!(stands(has(10 * MIB, 10)), Standing::Exceeded);
        assert_eq!(stands(has(0, 100)), Standing::Exceeded);
        assert_eq!(stands(has(u64::MAX, u64::MAX)), Standing::Exceeded);
        let largest = limits(Some(i64::MAX.unsigned_abs()), None);
        let stands = |usage| judge(&largest, usage, Standing::Within);
        assert_eq!(stands(has(MIB, u64::MAX)), Standing::Within);
        assert_eq!(stands(has(u64::MAX, 0)), Standing::Exceeded);
    }

    /// A tenant of which this was said, and what is known of it.
    fn stands(
        said: Option<&'static str>,
        usage: Option<Usage>,
        standing: Option<Standing>,
    ) -> Standing {
        let mut lab = Lab::ready();
        if let Some(reason) = said {
            let condition = apiservice::condition::new(
                kind::STORAGE_WITHIN_LIMITS,
                apiservice::condition::Status::False,
                reason,
                String::new(),
                None,
                Time(lab.world.now),
            );
            let status = lab.tenant().status.get_or_insert_default();
            status.conditions.push(condition);
        }
        let size = SizeFact { usage, standing };
        size.standing(Some(&limits(None, Some(100))), &lab.world.tenant)
    }

    #[test]
    fn what_is_not_known_refuses_nothing_and_a_restart_changes_nothing() {
        assert_eq!(stands(None, None, None), Standing::Unknown);
        let said = |reason| stands(Some(reason), None, None);
        assert_eq!(said(reason::LIMIT_EXCEEDED), Standing::Exceeded);
        assert_eq!(said(reason::NEAR_LIMIT), Standing::Near);
        assert_eq!(said(reason::UNKNOWN), Standing::Unknown);
        // Measured again, it is within the margin.
        let measured = |reason| stands(Some(reason), Some(has(0, 97)), None);
        assert_eq!(measured(reason::LIMIT_EXCEEDED), Standing::Exceeded);
        assert_eq!(measured(reason::AS_EXPECTED), Standing::Near);
        // What this process saw counts more than what was said.
        let exceeded = Some(reason::LIMIT_EXCEEDED);
        let near = stands(exceeded, Some(has(0, 97)), Some(Standing::Near));
        assert_eq!(near, Standing::Near);
        let lost = stands(exceeded, None, Some(Standing::Exceeded));
        assert_eq!(lost, Standing::Unknown, "not measured for long");
        let size = SizeFact {
            usage: Some(has(u64::MAX, u64::MAX)),
            standing: Some(Standing::Exceeded),
        };
        let unread = size.standing_in(None, &Lab::ready().world.tenant);
        assert_eq!(unread, Standing::Exceeded, "its DataStore is not known");
        let unlimited = size.standing(None, &Lab::ready().world.tenant);
        assert_eq!(unlimited, Standing::Within);
    }

    #[test]
    fn small_changes_are_not_told() {
        let mut lab = Lab::ready();
        let now = Time(lab.world.now);
        let mut tell = |limits: Option<&DataStoreTenantLimits>, bytes, objects| {
            let size = SizeFact {
                usage: Some(has(bytes, objects)),
                standing: Some(Standing::Within),
            };
            let told = told(&size, limits, &lab.world.tenant, &now).unwrap();
            let status = lab.tenant().status.get_or_insert_default();
            status.storage.get_or_insert_default().usage = Some(told.clone());
            (told.bytes.unsigned_abs(), told.objects.unsigned_abs())
        };
        assert_eq!(tell(None, 10 * MIB, 1000), (10 * MIB, 1000));
        assert_eq!(tell(None, 10 * MIB + MIB / 4, 1049), (10 * MIB, 1000));
        let (more, many) = (10 * MIB + MIB / 2, 1050);
        assert_eq!(tell(None, more, 1000), (more, 1000));
        assert_eq!(tell(None, more, many), (more, many));
        assert_eq!(tell(None, 10, 5), (10, 5));
        assert_eq!(tell(None, 60_000, 20), (10, 5), "of a small one");
        // How it stands to a limit is told with the figure of now.
        assert_eq!(tell(Some(&limits(None, Some(10))), 12, 11), (12, 11));
    }

    #[test]
    fn figures_are_told_as_people_write_them() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 * MIB - 1), "2.9 MiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        let told = |bytes: u64, objects| {
            let told = StorageUsageStatus {
                bytes: bytes.cast_signed(),
                objects,
                last_update: None,
            };
            figures(&limits(Some(10 * MIB), Some(1000)), &told)
        };
        assert_eq!(
            told(5 * MIB, 499),
            "5.0 MiB of 10.0 MiB (50 %), 499 of 1000 objects (49 %)"
        );
        assert!(told(5 * MIB, 999).starts_with("999 of 1000 objects (99 %), "));
    }
}
