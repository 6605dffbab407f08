//! Which DataStore a tenant is given that names none: filters, then a score, as
//! kube-scheduler finds a node for a pod. Pure: both servers can ask.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::core::{Selector, SelectorExt};

use crate::v1alpha1::{
    DataStore, DataStoreAssignment, DataStoreTaint, DataStoreToleration, Driver, TolerationOperator,
};

/// A DataStore as the decision sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The object.
    pub store: &'a DataStore,
    /// Why tenants cannot be served by it, if they cannot.
    pub trouble: Option<String>,
    /// Tenants that are there or were sent there.
    pub tenants: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// How long it took to answer the last time.
    pub latency: Option<Duration>,
    /// It comes first among equals.
    pub is_default: bool,
}

/// Where a tenant is to be kept, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Name of the DataStore.
    pub data_store: String,
    /// A sentence for people.
    pub message: String,
}

/// Why there is no place for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unassigned(pub String);

/// Why a DataStore is left out. Ordered as a message has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LeftOut {
    Deleted,
    NotBuilt(&'static str),
    Driver,
    Selector,
    Taint(String),
    FullOfTenants,
    FullOfBytes,
    NotReady,
}

impl LeftOut {
    fn text(&self, count: usize) -> String {
        let is = if count == 1 { "is" } else { "are" };
        let has = if count == 1 { "has" } else { "have" };
        match self {
            LeftOut::Deleted => format!("{count} {is} being deleted"),
            LeftOut::NotBuilt(driver) => {
                format!("{count} {has} driver {driver}, which this version does not run yet")
            }
            LeftOut::Driver => format!("{count} {has} another driver than the tenant asks for"),
            LeftOut::Selector => format!("{count} didn't match the tenant's selector"),
            LeftOut::Taint(taint) => {
                format!("{count} had untolerated taint {{{taint}}}")
            }
            LeftOut::FullOfTenants => {
                format!("{count} {has} as many tenants as spec.capacity.tenants")
            }
            LeftOut::FullOfBytes => format!("{count} {is} as large as spec.capacity.bytes"),
            LeftOut::NotReady => format!("{count} {is} not Ready"),
        }
    }
}

/// Chooses a DataStore for a tenant.
///
/// # Errors
/// [`Unassigned`] with a count for each reason, as kube-scheduler tells of nodes.
pub fn assign(
    wish: Option<&DataStoreAssignment>,
    candidates: &[Candidate<'_>],
) -> Result<Assigned, Unassigned> {
    let mut reasons: BTreeMap<LeftOut, usize> = BTreeMap::new();
    let mut fit = Vec::new();
    for candidate in candidates {
        match left_out(wish, candidate) {
            None => fit.push(candidate),
            Some(why) => *reasons.entry(why).or_default() += 1,
        }
    }
    let all = candidates.len();
    let stores = if all == 1 { "DataStore" } else { "DataStores" };
    let Some(best) = fit.iter().copied().max_by(|one, other| {
        let [one_score, other_score] = [one, other].map(|it| score(it, &fit));
        one_score
            .cmp(&other_score)
            .then(one.is_default.cmp(&other.is_default))
            // The first of the alphabet is to be the greatest.
            .then_with(|| name(other).cmp(name(one)))
    }) else {
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| reason.text(*count))
            .collect();
        let why = match reasons.is_empty() {
            true => String::new(),
            false => format!(": {}", reasons.join(", ")),
        };
        return Err(Unassigned(format!("0/{all} {stores} are available{why}.")));
    };
    let tenants = match best.tenants {
        0 => "no tenants".to_owned(),
        1 => "1 tenant".to_owned(),
        more => format!("{more} tenants"),
    };
    let of = capacity(best.store).map_or_else(String::new, |most| format!(" of {most}"));
    Ok(Assigned {
        data_store: name(best).to_owned(),
        message: format!(
            "Assigned to DataStore {}: {} of {all} {stores} can take the tenant, and this one has \
             {tenants}{of} and {} MiB.",
            name(best),
            fit.len(),
            best.bytes >> 20
        ),
    })
}

fn name<'a>(candidate: &Candidate<'a>) -> &'a str {
    candidate.store.metadata.name.as_deref().unwrap_or_default()
}

fn capacity(store: &DataStore) -> Option<u64> {
    let capacity = store.spec.capacity.as_ref()?;
    capacity.tenants.map(u64::from)
}

fn left_out(wish: Option<&DataStoreAssignment>, candidate: &Candidate<'_>) -> Option<LeftOut> {
    let store = candidate.store;
    let spec = &store.spec;
    if store.metadata.deletion_timestamp.is_some() {
        return Some(LeftOut::Deleted);
    }
    if !spec.driver.is_built() {
        return Some(LeftOut::NotBuilt(spec.driver.as_str()));
    }
    let drivers: &[Driver] = wish.map_or(&[], |wish| &wish.drivers);
    if !drivers.is_empty() && !drivers.contains(&spec.driver) {
        return Some(LeftOut::Driver);
    }
    if !wish.is_none_or(|wish| selects(wish, store)) {
        return Some(LeftOut::Selector);
    }
    if let Some(taint) = untolerated(wish, store).next() {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(LeftOut::Taint(format!("{}: {value}", taint.key)));
    }
    if capacity(store).is_some_and(|most| candidate.tenants >= most) {
        return Some(LeftOut::FullOfTenants);
    }
    if bytes(store).is_some_and(|most| candidate.bytes >= most) {
        return Some(LeftOut::FullOfBytes);
    }
    candidate.trouble.as_ref().map(|_| LeftOut::NotReady)
}

fn bytes(store: &DataStore) -> Option<u64> {
    let capacity = store.spec.capacity.as_ref()?;
    capacity
        .bytes
        .map(|bytes| u64::try_from(bytes).unwrap_or(0))
}

fn selects(wish: &DataStoreAssignment, store: &DataStore) -> bool {
    let Some(selector) = &wish.selector else {
        return true;
    };
    let labels = store.metadata.labels.clone().unwrap_or_default();
    // One that is none was refused at the write.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
}

/// The taint by which a tenant that asks for this may not stay in a DataStore.
pub fn sent_away_by<'a>(
    wish: Option<&'a DataStoreAssignment>,
    store: &'a DataStore,
) -> Option<&'a DataStoreTaint> {
    untolerated(wish, store).find(|taint| taint.executes())
}

fn untolerated<'a>(
    wish: Option<&'a DataStoreAssignment>,
    store: &'a DataStore,
) -> impl Iterator<Item = &'a DataStoreTaint> {
    let tolerations = wish.map_or(&[][..], |wish| &wish.tolerations);
    let hinders = |taint: &&DataStoreTaint| !tolerations.iter().any(|it| tolerates(it, taint));
    store.spec.taints.iter().filter(hinders)
}

fn tolerates(toleration: &DataStoreToleration, taint: &DataStoreTaint) -> bool {
    if toleration
        .effect
        .is_some_and(|effect| effect != taint.effect())
    {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator {
        TolerationOperator::Exists => true,
        TolerationOperator::Equal => {
            let value = |text: &Option<String>| text.clone().unwrap_or_default();
            !key.is_empty() && value(&toleration.value) == value(&taint.value)
        }
    }
}

/// How good a place is among those that fit, from 0 to 400: up to 300 for few tenants and
/// up to 100 for few bytes, each as a share of the capacity or, where there is none, of
/// the most that one of them has; less for a database that answers slowly, by steps, so
/// that what always differs a little decides nothing.
fn score(candidate: &Candidate<'_>, fit: &[&Candidate<'_>]) -> i64 {
    let share = |value: u64, of: u64| {
        let part = u128::from(value) * 1_000 / u128::from(of.max(1));
        i64::try_from(part).unwrap_or(1_000).min(1_000)
    };
    let most_tenants = fit.iter().map(|it| it.tenants).max().unwrap_or(0);
    let most_bytes = fit.iter().map(|it| it.bytes).max().unwrap_or(0);
    let tenants = share(
        candidate.tenants,
        capacity(candidate.store).unwrap_or(most_tenants + 1),
    );
    // Megabytes: an empty database of one kind is larger than that of another.
    let size = share(
        candidate.bytes >> 24,
        bytes(candidate.store).unwrap_or(most_bytes) >> 24,
    );
    let slow = match candidate.latency.map(|it| it.as_millis()) {
        None | Some(..50) => 0,
        Some(50..250) => 20,
        Some(250..1_000) => 60,
        Some(1_000..) => 150,
    };
    300 - tenants * 300 / 1_000 + 100 - size * 100 / 1_000 - slow
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn store(name: &str, more: Value) -> DataStore {
        let mut object = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": name, "labels": {"disk": name}},
            "spec": {"driver": "etcd", "endpoints": ["a:1"]},
        });
        for (key, value) in more.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn candidate(store: &DataStore, tenants: u64) -> Candidate<'_> {
        Candidate {
            store,
            trouble: None,
            tenants,
            bytes: 0,
            latency: None,
            is_default: false,
        }
    }

    fn wish(value: Value) -> DataStoreAssignment {
        serde_json::from_value(value).unwrap()
    }

    fn chosen(
        wish: Option<&DataStoreAssignment>,
        candidates: &[Candidate<'_>],
    ) -> Result<String, String> {
        match assign(wish, candidates) {
            Ok(assigned) => Ok(assigned.data_store),
            Err(Unassigned(why)) => Err(why),
        }
    }

    #[test]
    fn a_hundred_tenants_are_spread() {
        let stores = ["a", "b", "c"].map(|name| store(name, json!({})));
        let mut counts = [0_u64; 3];
        for _ in 0..100 {
            let candidates: Vec<_> = stores
                .iter()
                .zip(counts)
                .map(|(store, count)| candidate(store, count))
                .collect();
            let name = chosen(None, &candidates).unwrap();
            counts[stores
                .iter()
                .position(|it| it.metadata.name.as_deref() == Some(&name))
                .unwrap()] += 1;
        }
        assert_eq!(counts, [34, 33, 33]);
    }

    #[test]
    fn shares_of_capacity_are_spread() {
        let small = store("small", json!({"capacity": {"tenants": 10}}));
        let large = store("large", json!({"capacity": {"tenants": 100}}));
        let of = |small_has, large_has| {
            let candidates = [candidate(&small, small_has), candidate(&large, large_has)];
            chosen(None, &candidates).unwrap()
        };
        assert_eq!(of(1, 0), "large");
        assert_eq!(of(1, 9), "large");
        assert_eq!(of(1, 11), "small");
        assert_eq!(of(10, 99), "large", "the small one is full");
    }

    #[test]
    fn among_equals_the_default_and_else_the_first() {
        let stores = ["b", "a", "c"].map(|name| store(name, json!({})));
        let mut candidates: Vec<_> = stores.iter().map(|store| candidate(store, 1)).collect();
        assert_eq!(chosen(None, &candidates), Ok("a".into()));
        candidates[2].is_default = true;
        assert_eq!(chosen(None, &candidates), Ok("c".into()));
        candidates[2].tenants = 2;
        assert_eq!(chosen(None, &candidates), Ok("a".into()));
    }

    #[test]
    fn slow_and_large_ones_come_later() {
        let stores = ["a", "b"].map(|name| store(name, json!({})));
        let mut candidates: Vec<_> = stores.iter().map(|store| candidate(store, 1)).collect();
        candidates[0].latency = Some(Duration::from_millis(20));
        candidates[1].latency = Some(Duration::from_millis(2));
        assert_eq!(
            chosen(None, &candidates),
            Ok("a".into()),
            "that is no difference"
        );
        candidates[0].latency = Some(Duration::from_millis(300));
        assert_eq!(chosen(None, &candidates), Ok("b".into()));
        candidates[1].bytes = 3 << 30;
        assert_eq!(chosen(None, &candidates), Ok("a".into()));
    }

    #[test]
    fn what_a_tenant_asks_for() {
        let etcd = store("etcd", json!({}));
        let sql = store("sql", json!({"driver": "PostgreSQL"}));
        let kept = store("kept", json!({"taints": [{"key": "team", "value": "a"}]}));
        let candidates = [candidate(&etcd, 5), candidate(&sql, 6), candidate(&kept, 0)];
        let of = |value| chosen(Some(&wish(value)), &candidates);
        for (asked, answer) in [
            (json!({}), "etcd"),
            (json!({"drivers": ["PostgreSQL"]}), "sql"),
            (json!({"selector": {"matchLabels": {"disk": "sql"}}}), "sql"),
            (
                json!({"selector": {"matchExpressions": [
                    {"key": "disk", "operator": "NotIn", "values": ["etcd"]},
                ]}}),
                "sql",
            ),
            (
                json!({"tolerations": [{"key": "team", "value": "a"}]}),
                "kept",
            ),
            (
                json!({"tolerations": [{"key": "team", "value": "b"}]}),
                "etcd",
            ),
            (json!({"tolerations": [{"operator": "Exists"}]}), "kept"),
            (
                json!({"tolerations": [{"key": "team", "operator": "Exists"}]}),
                "kept",
            ),
        ] {
            assert_eq!(of(asked.clone()), Ok(answer.to_owned()), "{asked}");
        }
    }

    #[test]
    fn who_may_not_stay() {
        let kept = store("kept", json!({"taints": [{"key": "team"}]}));
        let leaving =
            json!({"taints": [{"key": "team"}, {"key": "leaving", "effect": "NoExecute"}]});
        let leaving = store("leaving", leaving);
        let by = |wish: Option<Value>, store: &DataStore| {
            let wish = wish.map(self::wish);
            sent_away_by(wish.as_ref(), store).map(|taint| taint.key.clone())
        };
        assert_eq!(by(None, &kept), None, "it keeps out only");
        assert_eq!(by(None, &leaving).as_deref(), Some("leaving"));
        for (toleration, stays) in [
            (json!({"key": "team", "operator": "Exists"}), false),
            (json!({"key": "leaving", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), true),
            (json!({"operator": "Exists", "effect": "NoSchedule"}), false),
        ] {
            let found = by(Some(json!({"tolerations": [toleration]})), &leaving);
            assert_eq!(found.is_none(), stays, "{toleration}");
        }
        // What is left out is NoSchedule.
        let tolerant =
            wish(json!({"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}));
        assert_eq!(
            chosen(
                Some(&tolerant),
                &[candidate(&kept, 0), candidate(&leaving, 0)]
            ),
            Ok("kept".into())
        );
    }

    #[test]
    fn why_there_is_no_place() {
        assert_eq!(
            chosen(None, &[]),
            Err("0/0 DataStores are available.".into())
        );
        let mut gone = store("gone", json!({}));
        gone.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let full = store("full", json!({"capacity": {"tenants": 3}}));
        let large = store("large", json!({"capacity": {"bytes": 1000}}));
        let other = store("other", json!({"driver": "Cassandra"}));
        let down = ["x", "y"].map(|name| store(name, json!({})));
        let kept = store("kept", json!({"taints": [{"key": "team", "value": "a"}]}));
        let mut candidates: Vec<_> = [&gone, &full, &large, &other, &kept, &down[0], &down[1]]
            .map(|store| candidate(store, 3))
            .into();
        candidates[2].bytes = 1000;
        for down in &mut candidates[5..] {
            down.trouble = Some("it does not answer".into());
        }
        assert_eq!(
            chosen(None, &candidates),
            Err(
                "0/7 DataStores are available: 1 is being deleted, 1 has driver Unrecognized, which \
                 this version does not run yet, 1 had untolerated taint {team: a}, 1 has as many \
                 tenants as spec.capacity.tenants, 1 is as large as spec.capacity.bytes, 2 are \
                 not Ready."
                    .into()
            )
        );
        let none = wish(json!({"selector": {"matchLabels": {"disk": "other"}}}));
        assert_eq!(
            chosen(Some(&none), &[candidate(&full, 0)]),
            Err("0/1 DataStore are available: 1 didn't match the tenant's selector.".into())
        );
    }

    #[test]
    fn the_decision_is_told() {
        let full = store("full", json!({"capacity": {"tenants": 3}}));
        let mut roomy = candidate(&full, 2);
        roomy.bytes = 5 << 20;
        assert_eq!(
            assign(None, &[roomy]).unwrap().message,
            "Assigned to DataStore full: 1 of 1 DataStore can take the tenant, and this one has 2 \
             tenants of 3 and 5 MiB."
        );
    }
}
