//! Clean-ups that a DataStore has to make up for: how they are recorded in its status, whose
//! turn it is, and what is left of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use apiservice::v1alpha1::{DataStore, PendingCleanup};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use storage::tenancy::Claim;

use crate::cluster::caches::Reach;
use crate::cluster::concerned;
use crate::cluster::name::NamespacedName;
use crate::datastores::plan::{Plan, Step};
use crate::datastores::world::World;
use crate::facts::Seen;
use crate::process::timing;
use crate::tenant::deletion;

/// Clean-ups that one DataStore has to make up for. Their entries have a few hundred bytes
/// each, and all have to fit into its status.
const MOST_PENDING: usize = 1_000;
/// Those of one namespace of which nothing but a claim may be there: anybody can make and
/// delete tenants while a database does not answer.
const MOST_UNPROVEN: usize = 100;
/// Characters of the reason in an entry.
const MESSAGE: usize = 200;

/// The entry of a clean-up. `known`: the tenant has data there, so that its absence is not
/// believed at once. An entry without a user stands for what may not be there.
pub fn entry(claim: &Claim, known: bool, until: Option<Timestamp>, why: &str) -> PendingCleanup {
    PendingCleanup {
        not_before: until.map(Time),
        uid: claim.uid.clone(),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        schema: Some(claim.schema.clone()),
        user: known.then(|| claim.user.clone()),
        message: Some(why.chars().take(MESSAGE).collect()),
    }
}

/// What became of a clean-up that is to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// It is recorded, in place of another one if there was no room.
    InPlaceOf(Option<PendingCleanup>),
    /// There is no room for it.
    NoRoom,
}

/// Adds a clean-up to those that a DataStore has to make up for. Where they are too many,
/// one of the namespace with the most of them gives way to one of a namespace with fewer,
/// and one that may have nothing there to one that has data.
pub fn record(pending: &mut Vec<PendingCleanup>, entry: PendingCleanup) -> Recorded {
    let unproven = |it: &PendingCleanup| it.user.is_none();
    let beside = |it: &&PendingCleanup| unproven(it) && it.namespace == entry.namespace;
    if unproven(&entry) && pending.iter().filter(beside).count() >= MOST_UNPROVEN {
        return Recorded::NoRoom;
    }
    if pending.len() < MOST_PENDING {
        pending.push(entry);
        return Recorded::InPlaceOf(None);
    }
    let mut of: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    for it in pending.iter() {
        *of.entry(&it.namespace).or_default() += 1;
    }
    let own = of.get(&entry.namespace).copied().unwrap_or_default();
    let most = of.iter().max_by_key(|(_, count)| **count);
    let most = most.filter(|(_, count)| **count > own + 1);
    let most = most.map(|(namespace, _)| (*namespace).clone());
    let largest = |it: &PendingCleanup| most.as_ref() == Some(&it.namespace);
    let any = |which: &dyn Fn(&PendingCleanup) -> bool| pending.iter().position(which);
    let gives_way = match unproven(&entry) {
        true => any(&|it| unproven(it) && largest(it)),
        false => any(&|it| unproven(it) && largest(it))
            .or_else(|| any(&unproven))
            .or_else(|| pending.iter().rposition(largest)),
    };
    match gives_way {
        Some(place) => {
            let displaced = pending.remove(place);
            pending.push(entry);
            Recorded::InPlaceOf(Some(displaced))
        }
        None => Recorded::NoRoom,
    }
}

/// Uids by whose claims the right database is known.
#[derive(Debug, Clone, Default)]
pub struct Proofs {
    /// Of tenants that were Ready: it has the claim of each.
    pub tenants: BTreeSet<String>,
    /// Of deleted ones that have left something there.
    pub left: BTreeSet<String>,
}

impl Proofs {
    /// Whose claims prove that a database is the right one: tenants that were Ready with it,
    /// and those that have left something there. One that never was Ready may have been
    /// given its place in the wrong one.
    pub fn of(seen: &Seen<'_>, data_store: &str, entries: &[PendingCleanup]) -> Self {
        let tenants = seen.proven(data_store).into_iter();
        let left = entries.iter().filter(|entry| entry.user.is_some());
        Self {
            tenants: tenants
                .filter_map(|tenant| tenant.metadata.uid.clone())
                .collect(),
            left: left.map(|entry| entry.uid.clone()).collect(),
        }
    }

    /// Whether a database with these claims is the right one. One that lacks the claim of
    /// a tenant that was Ready may have been given others while it took its place.
    pub fn hold(&self, known: &BTreeSet<String>) -> bool {
        let some = !known.is_disjoint(&self.tenants) || !known.is_disjoint(&self.left);
        some && self.tenants.is_subset(known)
    }
}

/// What is known of the tenant after which there is to be cleaned up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// It is still there, and may even have been given its finalizer back.
    pub lives: bool,
    /// Of one that lives: its data is in the DataStore, or is being moved there, or what was
    /// recorded is recorded no more.
    pub wanted: bool,
    /// Of one that is gone.
    pub pods: Option<Pods>,
}

/// Pods of a tenant that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pods {
    /// Since when it goes, as far as this process knows.
    pub since: Timestamp,
    /// How many there are; `None` if they cannot be seen.
    pub left: Option<usize>,
}

/// What is known of the tenants of these clean-ups, by uid.
pub fn owners(
    seen: &Seen<'_>,
    store: &DataStore,
    entries: &[PendingCleanup],
) -> BTreeMap<String, Owner> {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    let tenants = seen.caches.tenants.all();
    let uids: HashSet<&str> = tenants
        .iter()
        .filter_map(|tenant| tenant.metadata.uid.as_deref())
        .collect();
    let recorded = concerned::pending(store);
    let owner = |entry: &PendingCleanup| {
        // Its pods have another DataStore.
        if uids.contains(entry.uid.as_str()) {
            let recorded = recorded.iter().any(|it| it.uid == entry.uid);
            let comes = || seen.facts.tenant(&entry.uid).is_or_comes_to(name);
            return Owner {
                lives: true,
                wanted: !recorded || comes(),
                pods: None,
            };
        }
        Owner {
            pods: pods(seen, entry),
            ..Owner::default()
        }
    };
    let of = |entry: &PendingCleanup| (entry.uid.clone(), owner(entry));
    entries.iter().map(of).collect()
}

fn pods(seen: &Seen<'_>, entry: &PendingCleanup) -> Option<Pods> {
    let (namespace, name) = (entry.namespace.as_ref()?, entry.name.as_ref()?);
    let caches = seen.caches;
    let since = seen.facts.leaving_since(&entry.uid, seen.now);
    let known = caches.reach(namespace) == Reach::Here && caches.pods_known(namespace);
    let left = known.then(|| {
        let name = NamespacedName::new(namespace, name);
        let heir = caches.tenants.get(&name);
        let heir = heir.and_then(|heir| heir.metadata.creation_timestamp.clone());
        let pods = before(caches.pods.of(&name), heir.as_ref());
        let sets = before(caches.replica_sets.of(&name), heir.as_ref());
        deletion::running(&pods, &sets)
    });
    Some(Pods { since, left })
}

/// What is older than a tenant of the same name, which is not its.
fn before<K: kube::Resource>(mut objects: Vec<Arc<K>>, heir: Option<&Time>) -> Vec<Arc<K>> {
    objects.retain(|object| {
        let created = object.meta().creation_timestamp.as_ref();
        heir.is_none_or(|heir| created.is_none_or(|created| created.0 < heir.0))
    });
    objects
}

/// A clean-up that is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanUp {
    /// As it is recorded.
    pub entry: PendingCleanup,
    /// The tenant is there: it is what it has left when its data was moved elsewhere.
    pub lives: bool,
    /// Why no more is to be done than to revoke: some of its pods may run.
    pub running: Option<String>,
}

/// Whether a clean-up is to be done now, and how far. The own deletion of a tenant that is
/// there cleans up, unless what it has left behind is kept no longer: nobody keeps anything in
/// a DataStore that is being deleted.
pub fn due(
    entry: &PendingCleanup,
    owner: &Owner,
    is_deleted: bool,
    now: Timestamp,
) -> Option<CleanUp> {
    let until = entry.not_before.as_ref();
    let is_past = until.is_some_and(|until| now >= until.0 || is_deleted);
    if owner.lives && (!is_past || owner.wanted) {
        return None;
    }
    Some(CleanUp {
        entry: entry.clone(),
        lives: owner.lives,
        running: owner.pods.as_ref().and_then(|pods| pods.running(now)),
    })
}

impl Pods {
    /// Whether some may run; none once they had their time to end.
    fn running(&self, now: Timestamp) -> Option<String> {
        let gone_for = now.duration_since(self.since);
        match self.left {
            None => (gone_for < deletion::UNSEEN_END).then(|| deletion::UNSEEN.to_owned()),
            Some(left) if left > 0 && gone_for < deletion::PODS_END => {
                Some(format!("its pods have to end: {left} left"))
            }
            Some(_) => None,
        }
    }
}

/// Plans the clean-ups of one pass, each time others first: what has not had its turn has it in
/// the next.
pub fn plan(world: &World, plan: &mut Plan) {
    if world.done.cleaned.is_some() || !world.is_well() {
        return;
    }
    let turn = world.now.as_second() / timing::CLEANUP_EVERY.as_secs().cast_signed();
    for entry in in_turn(world.pending(), turn) {
        let owner = world.owners.get(&entry.uid).cloned().unwrap_or_default();
        let due = due(&entry, &owner, world.is_deleted(), world.now);
        plan.steps.extend(due.map(Step::CleanUp));
    }
}

/// The same, with another one first in each turn.
fn in_turn<T>(mut entries: Vec<T>, turn: i64) -> Vec<T> {
    let first = i64::try_from(entries.len())
        .ok()
        .and_then(|len| turn.checked_rem_euclid(len));
    entries.rotate_left(
        first
            .and_then(|first| usize::try_from(first).ok())
            .unwrap_or(0),
    );
    entries
}

/// What became of a clean-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned {
    /// Nothing is left, and the names are free again.
    Whole,
    /// Nothing is left but the claim, which is to be noted before that is released.
    ButClaim,
    /// Not yet, for this reason.
    Not(String),
}

/// What became of the clean-ups of one pass, by uid.
#[derive(Clone, Debug, Default)]
pub struct Round(BTreeMap<String, Cleaned>);

impl Round {
    /// Takes note of one.
    pub fn note(&mut self, uid: &str, cleaned: Cleaned) {
        self.0.insert(uid.to_owned(), cleaned);
    }

    /// Whether one of them ended so.
    pub fn has(&self, cleaned: &Cleaned) -> bool {
        self.0.values().any(|it| it == cleaned)
    }

    /// What is left of the clean-ups that are recorded now.
    pub fn left_of(&self, mut recorded: Vec<PendingCleanup>) -> Vec<PendingCleanup> {
        recorded.retain(|entry| self.0.get(&entry.uid) != Some(&Cleaned::Whole));
        for entry in &mut recorded {
            match self.0.get(&entry.uid) {
                Some(Cleaned::Not(why)) => entry.message = Some(why.clone()),
                Some(Cleaned::ButClaim) => {
                    entry.user = None;
                    entry.message = Some("its user and data are removed".to_owned());
                }
                _ => {}
            }
        }
        recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenant is let go on the strength of its entry: it must not be lost, or its
    /// user, its data and its name stay for ever.
    #[test]
    fn what_is_recorded_during_a_clean_up_is_kept() {
        let entry = |uid: &str| PendingCleanup {
            uid: uid.to_owned(),
            message: Some("before".to_owned()),
            ..PendingCleanup::default()
        };
        let round = Round(BTreeMap::from([
            ("done".to_owned(), Cleaned::Whole),
            ("failed".to_owned(), Cleaned::Not("why".to_owned())),
            ("gone".to_owned(), Cleaned::Not("why".to_owned())),
            ("but claim".to_owned(), Cleaned::ButClaim),
        ]));
        assert!(round.left_of(Vec::new()).is_empty());
        let left = round.left_of(["done", "failed", "meanwhile"].map(entry).into());
        let left: Vec<_> = left
            .iter()
            .map(|entry| (entry.uid.as_str(), entry.message.as_deref().unwrap()))
            .collect();
        assert_eq!(left, [("failed", "why"), ("meanwhile", "before")]);

        // A user is named until it is known that there may be no claim.
        let mut named = entry("but claim");
        named.user = Some("u".to_owned());
        assert!(round.has(&Cleaned::ButClaim));
        assert!(round.left_of(vec![named])[0].user.is_none());
    }

    /// A clean-up that takes long each time does not keep the others from theirs.
    #[test]
    fn each_clean_up_is_the_first_in_some_round() {
        assert!(in_turn(Vec::<u8>::new(), 7).is_empty());
        assert_eq!(in_turn(vec![1, 2, 3], 4), [2, 3, 1]);
        let firsts = (100..103).map(|turn| in_turn(vec![1, 2, 3], turn)[0]);
        assert_eq!(firsts.collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    }

    /// Pods are told from those of a tenant that has the name now.
    #[test]
    fn pods_of_the_tenant_before_are_older_than_this_one() {
        use k8s_openapi::api::core::v1::Pod;
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let pod = |second| {
            let mut pod = Pod::default();
            pod.metadata.creation_timestamp = Some(at(second));
            Arc::new(pod)
        };
        let pods = || vec![pod(1), pod(5), pod(9)];
        assert_eq!(before(pods(), None).len(), 3);
        assert_eq!(before(pods(), Some(&at(5))).len(), 1);
    }

    /// Whose pods may still write has its names for a time.
    #[test]
    fn pods_have_their_time_to_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let since = at(0);
        let runs = |left, second| Pods { since, left }.running(at(second)).is_some();
        for (left, until) in [(Some(2), 60), (None, 120)] {
            assert!(runs(left, until - 1) && !runs(left, until), "{left:?}");
        }
        assert!(!runs(Some(0), 0));
    }

    /// What is kept is removed in its time, and not where the data has come back.
    #[test]
    fn what_a_tenant_that_lives_has_left_is_kept_for_a_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let kept = PendingCleanup {
            not_before: Some(Time(at(9))),
            ..PendingCleanup::default()
        };
        let own = PendingCleanup::default();
        let owner = |lives, wanted| Owner {
            lives,
            wanted,
            pods: None,
        };
        for (entry, owner, is_deleted, now, expected) in [
            (&kept, owner(true, false), false, 8, false),
            (&kept, owner(true, false), false, 9, true),
            (&kept, owner(true, false), true, 8, true),
            (&kept, owner(true, true), true, 9, false),
            // Its own deletion removes it.
            (&own, owner(true, false), true, 9, false),
            (&own, owner(false, false), false, 0, true),
            (&kept, owner(false, false), false, 0, true),
        ] {
            let due = due(entry, &owner, is_deleted, at(now));
            assert_eq!(due.is_some(), expected, "{owner:?} {is_deleted} {now}");
            assert!(due.is_none_or(|due| due.lives == owner.lives));
        }
    }

    /// However many are deleted while a database is away, their clean-ups fit into the
    /// status of the DataStore, and nobody's deletion waits for room.
    #[test]
    fn clean_ups_that_are_put_off_are_bounded() {
        let of = |namespace: usize, number: usize, user: Option<&str>| PendingCleanup {
            not_before: None,
            uid: format!("{namespace}-{number}-{}", "u".repeat(36)),
            namespace: Some(format!("{}{namespace}", "n".repeat(50))),
            name: Some("n".repeat(63)),
            schema: Some("s".repeat(255)),
            user: user.map(|user| user.repeat(64)),
            message: Some("m".repeat(MESSAGE)),
        };
        let mut pending = Vec::new();
        for number in 0..5_000 {
            record(&mut pending, of(1, number, None));
        }
        assert_eq!(pending.len(), MOST_UNPROVEN);
        for number in 0..5_000 {
            record(&mut pending, of(2 + number % 100, number, None));
        }
        assert_eq!(pending.len(), MOST_PENDING);
        for number in 0..5_000 {
            let recorded = record(&mut pending, of(3, number, Some("u")));
            match number < MOST_PENDING {
                true => {
                    assert!(matches!(recorded, Recorded::InPlaceOf(Some(it)) if it.user.is_none()))
                }
                false => assert_eq!(recorded, Recorded::NoRoom),
            }
        }
        assert!(pending.iter().all(|it| it.user.is_some()));
        // Whoever fills it gives way to others, but not to what may be nothing.
        assert_eq!(record(&mut pending, of(4, 0, None)), Recorded::NoRoom);
        for number in 0..MOST_PENDING {
            let recorded = record(&mut pending, of(4, number, Some("u")));
            let expected = number < MOST_PENDING / 2;
            assert_eq!(recorded != Recorded::NoRoom, expected, "{number}");
        }
        assert_eq!(pending.len(), MOST_PENDING);
        let bytes = serde_json::to_vec(&pending).unwrap().len();
        assert!(bytes < 1024 * 1024, "{bytes}");
    }
}
