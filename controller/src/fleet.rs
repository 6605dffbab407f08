//! Whose pods are rolled next, where many tenants' pods are to be rolled for a reason that
//! is not their own spec (rule 29).
//!
//! A few tenants have a *place* at a time, fewer of one DataStore. The first to ask is the
//! first to be given one. A place is given back when the tenant is as it should be after
//! its roll. One that was Ready before and is not since keeps its place, so that a bad
//! release stops after a few tenants; only after [`HOLD`] do others go on, as slowly, and
//! slower with each that fails. A tenant of which no pod serves has nothing to lose by a
//! roll: such tenants have places of their own, and more of them.
//!
//! What the annotations say can be written by whoever may change Deployments, so one
//! namespace does not stop the others: to them, it has at most half of the places, and all
//! of its failures are one.
//!
//! Who has a place is read from the annotation [`apiservice::names::ANNOTATION_ROLL`] of the
//! Deployments, so a restart of the controller changes nothing. Only what was given and
//! not written yet is in memory, and the order of those who wait.
//!
//! [`decide`] and [`place`] decide, on plain values. The rest gathers what they need.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use apiservice::{
    condition::{self, tenant as kind},
    v1alpha1::TenantControlPlane,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use parking_lot::Mutex;

use crate::cluster::caches::Reach;
use crate::cluster::name::{NamespacedName, tenant_of};
use crate::facts::Seen;
use crate::process::places::Split;
use crate::report::progress;
use crate::tenant::plan::{FleetRoll, Object, Outcome, Plan, Step};
use crate::tenant::turns::{Before, HOLD, Limits, Roll, Turn, Wait};
use crate::tenant::world::ProbeFacts;
use crate::tenant::{World, objects, rolls};

/// The same of one that was not Ready before either: it tells nothing about the change,
/// and only must not start together with all others.
const BRIEFLY: SignedDuration = SignedDuration::from_secs(30);
/// A roll that has taken so long is told of.
const LATE: SignedDuration = SignedDuration::from_secs(120);
/// A place that was given and not used is given to others after this.
const UNUSED: SignedDuration = SignedDuration::from_secs(60);
/// One who was called and has not come is passed over after this.
const ABSENT: SignedDuration = SignedDuration::from_secs(30);

/// As many times the places there are for tenants of which no pod serves.
const DOWN: usize = 8;
/// How often [`HOLD`] is doubled at most: some ten hours.
const DOUBLINGS: usize = 6;
/// A roll that failed so long ago slows nobody down any more: its tenant is left to its
/// owner.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(24);

/// A tenant that has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: NamespacedName,
    /// Its DataStore.
    pub store: String,
    /// How it was before its roll.
    pub before: Before,
    /// It was Ready before its roll, and its roll takes longer than any should.
    pub late: bool,
}

/// A tenant that waits for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: NamespacedName,
    /// Its DataStore.
    pub store: String,
    /// Since when.
    pub since: Timestamp,
    /// How it is.
    pub before: Before,
}

/// Those of the waiting whose turn it is, in this order. Whoever has a place may go on
/// with it. Tenants that are down and all others do not take places from each other, and
/// those of one namespace take no more than half of them from those of others.
pub fn decide<'a>(waiting: &'a [Waiting], holders: &[Holder], limits: Limits) -> Vec<&'a Waiting> {
    let mut order: Vec<&Waiting> = waiting.iter().collect();
    order.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    let held: BTreeSet<&str> = holders.iter().map(|it| it.uid.as_str()).collect();
    let mut all: BTreeMap<bool, Split> = BTreeMap::new();
    let mut stores: BTreeMap<(bool, &str), Split> = BTreeMap::new();
    for holder in holders {
        let (down, namespace) = (holder.before == Before::Down, &holder.name.namespace);
        all.entry(down).or_default().take(namespace);
        let of_store = stores.entry((down, &holder.store)).or_default();
        of_store.take(namespace);
    }
    for one in order.iter().filter(|one| !held.contains(one.uid.as_str())) {
        let (down, namespace) = (one.before == Before::Down, &one.name.namespace);
        all.entry(down).or_default().ask(namespace);
        let of_store = stores.entry((down, &one.store)).or_default();
        of_store.ask(namespace);
    }
    let mut next = Vec::new();
    for one in order {
        let (down, namespace) = (one.before == Before::Down, &one.name.namespace);
        let times = if down { DOWN } else { 1 };
        let of_all = all.entry(down).or_default();
        let of_store = stores.entry((down, &one.store)).or_default();
        if held.contains(one.uid.as_str()) {
            next.push(one);
        } else if of_all.has_one_of(limits.together * times, namespace)
            && of_store.has_one_of(limits.of_one_store() * times, namespace)
        {
            of_all.take(namespace);
            of_store.take(namespace);
            next.push(one);
        }
    }
    next
}

/// Whether a tenant still has the place of its last roll; if so, whether it is late.
/// `settled`: its pods are all as they should be, and it is Ready. `failed`: how many were
/// rolled so in vain before, as [`in_vain`] counts them. A roll that is yet to come was written by somebody else.
pub fn place(roll: &Roll, settled: bool, failed: usize, now: Timestamp) -> Option<bool> {
    let age = now.duration_since(roll.at);
    let doublings = u32::try_from(failed.min(DOUBLINGS)).unwrap_or_default();
    let ready = roll.before == Before::Ready;
    let most = if ready {
        HOLD * 2_i32.pow(doublings)
    } else {
        BRIEFLY
    };
    let began = age >= SignedDuration::ZERO;
    (began && !settled && age < most).then_some(ready && age >= LATE)
}

/// Whether a tenant that was Ready before its roll is not so long after it, and its roll
/// is not long ago either.
fn failed(roll: &Roll, settled: bool, now: Timestamp) -> bool {
    let age = now.duration_since(roll.at);
    roll.before == Before::Ready && !settled && (HOLD..FORGOTTEN).contains(&age)
}

/// How many rolls failed, to a tenant of this namespace; `failed` are the namespaces of the
/// tenants whose rolls did. Those of its own count one by one, and those of another
/// namespace as one, however many annotations somebody writes there.
fn in_vain(failed: &[&str], namespace: &str) -> usize {
    let own = failed.iter().filter(|of| **of == namespace).count();
    let others = failed.iter().filter(|of| **of != namespace);
    own + others.collect::<BTreeSet<_>>().len()
}

/// Whether the roll of a Deployment is over and was good. What the status says does not
/// suffice: it may be the one from before the roll.
pub fn is_settled(
    tenant: &TenantControlPlane,
    live: &Deployment,
    roll: &Roll,
    probe: &ProbeFacts,
    pods: &[Arc<Pod>],
) -> bool {
    let told = tenant.status.as_ref().map(|status| &status.conditions[..]);
    // False only once the probe has found the new pods well.
    is_well(tenant, live)
        && says(tenant, kind::PROGRESSING, "False")
        && progress::is_found_well(roll, probe, pods, told.unwrap_or_default())
}

/// Whether a tenant is Ready with all of its pods as they are wanted now.
fn is_well(tenant: &TenantControlPlane, live: &Deployment) -> bool {
    let wanted = live.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    let status = live.status.as_ref();
    let available = status.and_then(|status| status.available_replicas);
    available.unwrap_or(0) == wanted && is_serving(tenant, live)
}

/// Whether a tenant is Ready and nothing of it is being rolled: if it is not Ready after
/// a roll, that roll is why. One of its replicas may be away, as when a node is lost. One
/// that has been rolling in vain before its turn tells nothing about what comes then.
fn is_serving(tenant: &TenantControlPlane, live: &Deployment) -> bool {
    let wanted = live.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    let rolled = live.status.as_ref().is_some_and(|status| {
        status.observed_generation >= live.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
    });
    rolled && says(tenant, kind::READY, "True")
}

fn says(tenant: &TenantControlPlane, type_: &str, status: &str) -> bool {
    let told = tenant.status.as_ref().map(|status| &status.conditions);
    let found = told.and_then(|all| condition::get(all, type_));
    found.is_some_and(|it| it.status == status)
}

/// Who waits, and who was given a place that no Deployment shows yet.
#[derive(Debug, Default)]
pub struct Fleet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<String, Entry>,
    given: BTreeMap<String, Given>,
    halted: bool,
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    /// When it was called.
    called: Option<Timestamp>,
    /// The Deployment's own generation when it began to wait.
    generation: Option<i64>,
}

#[derive(Debug)]
struct Given {
    roll: Roll,
    name: NamespacedName,
    store: String,
}

/// Who is to be called because a place is free for them, or because it has to be told that
/// nobody goes on; and who holds all others up.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// Who is to come.
    pub called: Vec<NamespacedName>,
    /// Who holds all others up.
    pub stuck: Vec<Holder>,
    /// How many these are.
    pub others: usize,
}

/// What a tenant that asks for a place says of itself.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Who, and since when.
    pub waiting: Waiting,
    /// The Deployment's own generation: it moves when somebody changes it.
    pub generation: Option<i64>,
    /// The roll that the Deployment shows, if it still has that place.
    pub rolling: Option<Roll>,
}

impl State {
    /// All who have a place: as Deployments show it, and as it was given.
    fn holders(&self, shown: &[Holder]) -> Vec<Holder> {
        let mut all = shown.to_vec();
        for (uid, given) in &self.given {
            if !all.iter().any(|it| it.uid == *uid) {
                all.push(Holder {
                    uid: uid.clone(),
                    name: given.name.clone(),
                    store: given.store.clone(),
                    before: given.roll.before,
                    late: false,
                });
            }
        }
        all
    }

    /// Those who wait and would come.
    fn present(&self, now: Timestamp) -> Vec<Waiting> {
        let absent = |at: &Timestamp| now.duration_since(*at) >= ABSENT;
        let present = self.waiting.values();
        let present = present.filter(|entry| !entry.called.as_ref().is_some_and(absent));
        present.map(|entry| entry.waiting.clone()).collect()
    }

    fn forget_unused(&mut self, now: Timestamp) {
        let used = |given: &Given| now.duration_since(given.roll.at) < UNUSED;
        self.given.retain(|_, given| used(given));
    }
}

impl Fleet {
    /// A tenant asks for a place. `shown` are the holders that Deployments show.
    pub fn ask(&self, asking: Asking, shown: &[Holder], limits: Limits, now: Timestamp) -> Turn {
        let mut state = self.0.lock();
        state.forget_unused(now);
        let uid = asking.waiting.uid.clone();
        let before = state.waiting.remove(&uid);
        let moved = before
            .as_ref()
            .is_some_and(|it| it.generation != asking.generation);
        if moved {
            // Somebody has changed the Deployment meanwhile: its pods roll anyway.
            return Turn::NotNeeded;
        }
        if let Some(given) = state.given.get(&uid) {
            return Turn::Given(given.roll.clone());
        }
        let since = before.as_ref().map(|it| it.waiting.since);
        let waiting = Waiting {
            since: since.unwrap_or(asking.waiting.since),
            ..asking.waiting
        };
        let holders = state.holders(shown);
        let mut all = state.present(now);
        all.push(waiting.clone());
        if decide(&all, &holders, limits)
            .iter()
            .any(|it| it.uid == uid)
        {
            let rolling = asking.rolling.map(|roll| roll.before);
            let before = match rolling {
                // What its first roll has made of it is no state of before.
                Some(Before::Ready) => Before::Ready,
                _ => waiting.before,
            };
            let roll = Roll { at: now, before };
            let given = Given {
                roll: roll.clone(),
                name: waiting.name,
                store: waiting.store,
            };
            state.given.insert(uid, given);
            return Turn::Given(roll);
        }
        let late = late(&holders);
        let entry = Entry {
            waiting,
            called: None,
            generation: asking.generation,
        };
        state.waiting.insert(uid, entry);
        Turn::Waits(match late.is_empty() {
            true => Wait::ForOthers,
            false => Wait::Halted(late),
        })
    }

    /// A tenant needs no place (any more).
    pub fn leave(&self, uid: &str) {
        let mut state = self.0.lock();
        state.waiting.remove(uid);
        state.given.remove(uid);
    }

    /// What was given was written: the Deployment shows it now.
    fn written(&self, uid: &str) {
        self.0.lock().given.remove(uid);
    }

    /// Another replica leads.
    pub fn clear(&self) {
        *self.0.lock() = State::default();
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    fn call(&self, shown: &[Holder], limits: Limits, now: Timestamp) -> Call {
        let mut state = self.0.lock();
        state.forget_unused(now);
        let holders = state.holders(shown);
        let present = state.present(now);
        let next: Vec<String> = decide(&present, &holders, limits)
            .into_iter()
            .map(|it| it.uid.clone())
            .collect();
        let halted = next.is_empty() && !present.is_empty() && !late(&holders).is_empty();
        let all = halted != state.halted;
        state.halted = halted;
        let mut called = Vec::new();
        for (uid, entry) in &mut state.waiting {
            let turn = next.contains(uid);
            if turn || entry.called.is_some() {
                entry.called.get_or_insert(now);
            }
            if turn || all || entry.called.is_some() {
                called.push(entry.waiting.name.clone());
            }
        }
        let mut stuck = holders;
        stuck.retain(|it| halted && it.late);
        Call {
            called,
            stuck,
            others: state.waiting.len(),
        }
    }
}

fn late(holders: &[Holder]) -> Vec<String> {
    let late = holders.iter().filter(|it| it.late);
    let mut late: Vec<String> = late.map(|it| it.name.to_string()).collect();
    late.sort();
    late
}

/// The places that Deployments show.
pub fn holders(seen: &Seen<'_>) -> Vec<Holder> {
    let now = seen.now;
    let rolled = |live: &Deployment| {
        let roll = Roll::of(live)?;
        let name = tenant_of(&live.metadata)?;
        let tenant = seen.caches.tenants.get(&name)?;
        let uid = tenant.metadata.uid.as_deref()?;
        let ours = objects::is_controlled_by(&live.metadata, uid);
        // Nobody sees whether it comes back, and it is not the roll that took it away.
        let unseen = matches!(
            seen.caches.reach(&name.namespace),
            Reach::NotServed(_) | Reach::Refused(_)
        );
        if !ours
            || objects::is_asleep(&tenant)
            || unseen
            || tenant.metadata.deletion_timestamp.is_some()
        {
            return None;
        }
        let probe = seen.facts.tenant(uid).probe;
        let sets = seen.caches.replica_sets.of(&name);
        let pods = progress::made_by(live, &sets, seen.caches.pods.of(&name));
        let settled = is_settled(&tenant, live, &roll, &probe, &pods);
        Some((roll, settled, name, tenant))
    };
    let all = seen.caches.deployments.all();
    let rolled: Vec<_> = all.iter().filter_map(|live| rolled(live)).collect();
    let failed: Vec<&str> = rolled
        .iter()
        .filter(|(roll, settled, ..)| failed(roll, *settled, now))
        .map(|(_, _, name, _)| name.namespace.as_str())
        .collect();
    let holder =
        |(roll, settled, name, tenant): &(Roll, bool, NamespacedName, Arc<TenantControlPlane>)| {
            let vain = in_vain(&failed, &name.namespace);
            Some(Holder {
                late: place(roll, *settled, vain, now)?,
                store: store_of(seen, tenant),
                name: name.clone(),
                uid: tenant.metadata.uid.clone()?,
                before: roll.before,
            })
        };
    rolled.iter().filter_map(holder).collect()
}

fn store_of(seen: &Seen<'_>, tenant: &TenantControlPlane) -> String {
    seen.facts.data_store_of(tenant).unwrap_or_default()
}

impl Fleet {
    /// Whether it is this tenant's turn for the roll that its plan asks for.
    pub fn turn(&self, seen: &Seen<'_>, world: &World, roll: FleetRoll) -> Turn {
        let uid = world.uid();
        if roll.by.is_some_and(|by| by <= world.now) {
            self.leave(uid);
            return Turn::NotNeeded;
        }
        let live = world.deployment();
        let shown = holders(seen);
        let holds = shown.iter().any(|it| it.uid == uid);
        let asking = Asking {
            waiting: Waiting {
                uid: uid.to_owned(),
                name: NamespacedName::of(&world.tenant.metadata),
                store: store_of(seen, &world.tenant),
                since: rolls::waiting_since(world).unwrap_or(world.now),
                before: match live {
                    Some(live) if is_serving(&world.tenant, live) => Before::Ready,
                    _ if world.pods_known && world.serving() == 0 => Before::Down,
                    _ => Before::Trouble,
                },
            },
            generation: live.and_then(|live| live.metadata.generation),
            rolling: live.and_then(Roll::of).filter(|_| holds),
        };
        self.ask(asking, &shown, world.settings.rolls, world.now)
    }

    /// Takes note of what became of a plan that was given a turn.
    pub fn done(&self, world: &World, plan: &Plan, outcomes: &[Outcome]) {
        if !matches!(world.turn, Turn::Given(_)) {
            return;
        }
        let mut steps = plan.steps.iter().zip(outcomes);
        let written = steps.find_map(|(step, outcome)| match step {
            Step::Create(object) | Step::Apply(object)
                if matches!(object.as_ref(), Object::Deployment(_)) =>
            {
                Some(matches!(outcome, Outcome::Done | Outcome::Unchanged))
            }
            _ => None,
        });
        match written {
            Some(true) => self.written(world.uid()),
            // It has to ask again, behind the others.
            _ => self.leave(world.uid()),
        }
    }

    /// Whom to call now, if anybody waits.
    pub fn next_call(&self, seen: &Seen<'_>) -> Option<Call> {
        let waits = self.waiting() > 0;
        waits.then(|| self.call(&holders(seen), seen.settings.rolls, seen.now))
    }

    /// How many tenants wait, are being rolled, and hold the others up.
    pub fn counts(&self, seen: &Seen<'_>) -> [(&'static str, usize); 3] {
        let holders = holders(seen);
        let late = holders.iter().filter(|it| it.late).count();
        [
            ("waiting", self.waiting()),
            ("rolling", holders.len()),
            ("late", late),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { together: 3 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn waiting(name: &str, store: &str, since: i64) -> Waiting {
        Waiting {
            uid: format!("uid of {name}"),
            name: NamespacedName::new("n", name),
            store: store.to_owned(),
            since: at(since),
            before: Before::Ready,
        }
    }

    fn holder(name: &str, store: &str) -> Holder {
        Holder {
            uid: format!("uid of {name}"),
            name: NamespacedName::new("n", name),
            store: store.to_owned(),
            before: Before::Ready,
            late: false,
        }
    }

    fn asking(name: &str, store: &str, since: i64) -> Asking {
        Asking {
            waiting: waiting(name, store, since),
            generation: Some(1),
            rolling: None,
        }
    }

    fn given(turn: &Turn) -> bool {
        matches!(turn, Turn::Given(_))
    }

    #[test]
    fn who_is_next() {
        let names = |waiting: &[Waiting], holders: &[Holder]| -> Vec<String> {
            let next = decide(waiting, holders, LIMITS);
            next.into_iter().map(|it| it.name.name.clone()).collect()
        };
        let all = [
            waiting("d", "gold", 3),
            waiting("a", "gold", 1),
            waiting("c", "gold", 1),
            waiting("b", "gold", 0),
            waiting("e", "iron", 9),
            waiting("f", "iron", 8),
        ];
        // The first come, by name where they came together; two of one DataStore.
        assert_eq!(names(&all, &[]), ["b", "a", "f"]);
        assert_eq!(names(&all, &[holder("x", "gold")]), ["b", "f"]);
        let both = [holder("x", "gold"), holder("y", "gold")];
        assert_eq!(names(&all, &both), ["f"], "the other DataStore goes on");
        let more = [holder("x", "a"), holder("y", "b"), holder("z", "c")];
        assert!(names(&all, &more).is_empty());
        // Whoever has a place goes on with it.
        let own = [holder("x", "a"), holder("y", "b"), holder("d", "gold")];
        assert_eq!(names(&all, &own), ["d"]);
    }

    fn of_namespace(namespace: &str, mut one: Waiting) -> Waiting {
        one.uid = format!("uid of {namespace}/{}", one.name.name);
        one.name.namespace = namespace.to_owned();
        one
    }

    /// Somebody writes the annotation on all Deployments of a namespace, again and again.
    #[test]
    fn one_namespace_does_not_stop_the_others() {
        let names = |waiting: &[Waiting], holders: &[Holder]| -> Vec<String> {
            let next = decide(waiting, holders, Limits::default());
            next.into_iter().map(|it| it.name.to_string()).collect()
        };
        let forged = ["x1", "x2", "x3", "x4"].map(|name| holder(name, "gold"));
        let theirs = ["a", "b"].map(|name| of_namespace("m", waiting(name, "gold", 1)));
        assert_eq!(names(&theirs, &forged), ["m/a"], "of the same DataStore");
        let spread = ["a", "b", "c"].map(|name| of_namespace("m", waiting(name, name, 1)));
        assert_eq!(names(&spread, &forged), ["m/a", "m/b"], "half of all");
        let own = [waiting("y", "iron", 0)];
        assert!(names(&own, &forged).is_empty(), "it has what there is");
        let down = forged.clone().map(|it| Holder {
            before: Before::Down,
            ..it
        });
        assert_eq!(names(&theirs, &down), ["m/a", "m/b"]);

        // Who is down has more places, and the same holds for these.
        let many: Vec<Holder> = (0..99)
            .map(|n| Holder {
                before: Before::Down,
                ..holder(&format!("x{n}"), "gold")
            })
            .collect();
        let theirs = theirs.map(|it| Waiting {
            before: Before::Down,
            ..it
        });
        assert_eq!(names(&theirs, &many), ["m/a", "m/b"]);
        // Two namespaces that are stuck stop the DataStore: it is not one owner's doing.
        let mut both = forged.to_vec();
        both.push(Holder {
            name: NamespacedName::new("o", "z"),
            ..holder("z", "gold")
        });
        let theirs = [of_namespace("m", waiting("a", "gold", 1))];
        assert!(names(&theirs, &both).is_empty());
    }

    #[test]
    fn namespaces_that_wait_share_the_places() {
        let limits = Limits { together: 4 };
        let mut all: Vec<Waiting> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|name| waiting(name, name, 0))
            .collect();
        let names = |waiting: &[Waiting]| -> Vec<String> {
            let next = decide(waiting, &[], limits);
            next.into_iter().map(|it| it.name.to_string()).collect()
        };
        assert_eq!(names(&all), ["n/a", "n/b", "n/c", "n/d"], "one alone");
        let theirs = ["f", "g", "h"].map(|name| of_namespace("m", waiting(name, name, 9)));
        all.extend(theirs);
        assert_eq!(names(&all), ["n/a", "n/b", "m/f", "m/g"]);
    }

    #[test]
    fn failures_of_another_namespace_count_once() {
        let failed = ["n", "n", "n", "m", "o", "o"];
        for (namespace, counted) in [("n", 5), ("m", 3), ("o", 4), ("p", 3)] {
            assert_eq!(in_vain(&failed, namespace), counted, "{namespace}");
        }
        assert_eq!(in_vain(&[], "n"), 0);
    }

    #[test]
    fn one_at_a_time_is_one_of_each_datastore() {
        for (together, of_one) in [(1, 1), (2, 1), (3, 2), (4, 2), (9, 5)] {
            assert_eq!(Limits { together }.of_one_store(), of_one);
        }
    }

    #[test]
    fn a_place_is_kept_until_the_tenant_is_ready_again_but_not_for_ever() {
        let roll = |ready: bool| Roll {
            at: at(0),
            before: if ready {
                Before::Ready
            } else {
                Before::Trouble
            },
        };
        assert_eq!(place(&roll(true), true, 0, at(1)), None, "it is well");
        assert_eq!(place(&roll(true), false, 0, at(1)), Some(false));
        assert_eq!(place(&roll(true), false, 0, at(120)), Some(true), "late");
        assert_eq!(place(&roll(true), false, 0, at(600)), None, "others go on");
        // It was not Ready before, so it says nothing about the change.
        assert_eq!(place(&roll(false), false, 0, at(29)), Some(false));
        assert_eq!(place(&roll(false), false, 9, at(30)), None);
        // Each that fails makes the next one wait longer.
        assert!(!failed(&roll(true), false, at(599)) && failed(&roll(true), false, at(600)));
        assert!(!failed(&roll(true), true, at(600)) && !failed(&roll(false), false, at(600)));
        assert_eq!(place(&roll(true), false, 2, at(2399)), Some(true));
        assert_eq!(place(&roll(true), false, 2, at(2400)), None);
        assert_eq!(place(&roll(true), false, 99, at(38_400)), None);
    }

    /// Somebody writes the annotation, or a clock was ahead.
    #[test]
    fn a_roll_that_is_yet_to_come_holds_nobody_up() {
        let roll = Roll {
            at: at(1000),
            before: Before::Ready,
        };
        assert_eq!(place(&roll, false, 0, at(0)), None);
    }

    /// The database was lost and is back elsewhere: all are down until they are rolled.
    #[test]
    fn who_is_down_takes_no_place_of_others_and_many_go_together() {
        let down = |name: &str| Waiting {
            before: Before::Down,
            ..waiting(name, "gold", 1)
        };
        let mut all: Vec<Waiting> = (0..40).map(|n| down(&format!("down-{n:02}"))).collect();
        all.push(waiting("well", "gold", 2));
        all.push(waiting("other", "iron", 3));
        let next = |holders: &[Holder]| {
            let next = decide(&all, holders, LIMITS);
            let of = |name: &str| {
                next.iter()
                    .filter(|it| it.name.name.starts_with(name))
                    .count()
            };
            (of("down"), of("well"), of("other"))
        };
        assert_eq!(next(&[]), (16, 1, 1));
        let rolling = ["x", "y"].map(|name| holder(name, "gold"));
        assert_eq!(next(&rolling), (16, 0, 1), "who is well goes two at a time");
        let rolling: Vec<Holder> = (0..16)
            .map(|n| Holder {
                before: Before::Down,
                ..holder(&format!("x{n}"), "gold")
            })
            .collect();
        assert_eq!(
            next(&rolling),
            (0, 1, 1),
            "who is down holds up nobody else"
        );
    }

    /// A tenant that nobody mends does not slow all others down for ever.
    #[test]
    fn a_roll_that_failed_long_ago_is_forgotten() {
        let roll = Roll {
            at: at(0),
            before: Before::Ready,
        };
        let day = 24 * 3600;
        assert!(failed(&roll, false, at(day - 1)) && !failed(&roll, false, at(day)));
        for before in [Before::Ready, Before::Trouble, Before::Down] {
            let roll = Roll { at: at(0), before };
            assert_eq!(Roll::parse(&roll.text()), Some(roll));
        }
    }

    /// A node is lost: its tenants serve with one replica less, and a bad release must
    /// still be noticed by them.
    #[test]
    fn a_tenant_with_a_replica_less_was_well_before_its_roll() {
        let tenant: TenantControlPlane = serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "TenantControlPlane",
            "metadata": {"name": "t"},
            "spec": {"kubernetes": {"version": "v1.36.3"}},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap();
        let live = |updated, replicas, available| -> Deployment {
            serde_json::from_value(serde_json::json!({
                "metadata": {"generation": 3},
                "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {
                    "observedGeneration": 3,
                    "updatedReplicas": updated,
                    "replicas": replicas,
                    "availableReplicas": available,
                },
            }))
            .unwrap()
        };
        assert!(is_serving(&tenant, &live(2, 2, 1)));
        assert!(!is_well(&tenant, &live(2, 2, 1)) && is_well(&tenant, &live(2, 2, 2)));
        assert!(!is_serving(&tenant, &live(2, 4, 2)), "it rolls in vain");
    }

    #[test]
    fn what_is_asked_is_given_in_order_and_once() {
        let fleet = Fleet::default();
        let mut turns = Vec::new();
        for (number, name) in ["a", "b", "c", "d"].iter().enumerate() {
            let second = i64::try_from(number).unwrap();
            turns.push(fleet.ask(asking(name, "gold", second), &[], LIMITS, at(second)));
        }
        assert!(given(&turns[0]) && given(&turns[1]));
        assert_eq!(turns[2], Turn::Waits(Wait::ForOthers));
        assert_eq!(fleet.waiting(), 2);
        // The same answer, with the same time, for the same question.
        let again = fleet.ask(asking("a", "gold", 5), &[], LIMITS, at(5));
        assert_eq!(again, turns[0]);

        // The first is written; Deployments show it until it is well.
        fleet.written("uid of a");
        let shown = [holder("a", "gold")];
        let called = |shown: &[Holder], second| fleet.call(shown, LIMITS, at(second)).called;
        assert!(called(&shown, 6).is_empty());
        assert_eq!(
            called(&[], 7),
            [NamespacedName::new("n", "c")],
            "a place is free"
        );
        let late = fleet.ask(asking("d", "gold", 8), &[], LIMITS, at(8));
        assert!(!given(&late), "c is before d");
        let turn = fleet.ask(asking("c", "gold", 9), &[], LIMITS, at(9));
        assert!(given(&turn));
        // A tenant that is deleted, or needs none any more, gives its place back.
        fleet.leave("uid of c");
        assert_eq!(called(&[], 10), [NamespacedName::new("n", "d")]);
    }

    #[test]
    fn a_restart_forgets_nobody_who_rolls() {
        let fleet = Fleet::default();
        let shown = [holder("a", "gold"), holder("b", "gold")];
        let turn = fleet.ask(asking("c", "gold", 0), &shown, LIMITS, at(0));
        assert_eq!(turn, Turn::Waits(Wait::ForOthers));
        // One that has a place goes on with it, and was Ready before.
        let roll = |second| Roll {
            at: at(second),
            before: Before::Ready,
        };
        let mut asking = asking("a", "gold", 1);
        asking.waiting.before = Before::Trouble;
        asking.rolling = Some(roll(-50));
        let turn = fleet.ask(asking, &shown, LIMITS, at(1));
        let roll = roll(1);
        assert_eq!(turn, Turn::Given(roll));
    }

    #[test]
    fn a_bad_release_stops_and_it_is_told_once_to_all() {
        let fleet = Fleet::default();
        let mut shown = [holder("a", "gold"), holder("b", "gold")];
        for name in ["c", "d"] {
            fleet.ask(asking(name, "gold", 0), &shown, LIMITS, at(0));
        }
        assert!(fleet.call(&shown, LIMITS, at(1)).called.is_empty());
        shown[1].late = true;
        let Call {
            called,
            stuck,
            others,
        } = fleet.call(&shown, LIMITS, at(130));
        assert_eq!(called.len(), 2, "all are told");
        assert_eq!((stuck, others), (vec![shown[1].clone()], 2));
        assert!(
            fleet.call(&shown, LIMITS, at(131)).called.is_empty(),
            "once"
        );
        let turn = fleet.ask(asking("c", "gold", 131), &shown, LIMITS, at(131));
        assert_eq!(turn, Turn::Waits(Wait::Halted(vec!["n/b".to_owned()])));
        // After a while the place is free: they go on, as slowly.
        let Call { called, stuck, .. } = fleet.call(&shown[..1], LIMITS, at(601));
        assert!(called.contains(&NamespacedName::new("n", "c")) && stuck.is_empty());
        assert!(given(&fleet.ask(
            asking("c", "gold", 0),
            &shown[..1],
            LIMITS,
            at(602)
        )));
        assert!(!given(&fleet.ask(
            asking("d", "gold", 0),
            &shown[..1],
            LIMITS,
            at(602)
        )));
    }

    #[test]
    fn who_does_not_come_is_passed_over() {
        let fleet = Fleet::default();
        let shown = [holder("x", "gold"), holder("y", "gold")];
        for (name, since) in [("a", 0), ("b", 1)] {
            fleet.ask(asking(name, "gold", since), &shown, LIMITS, at(since));
        }
        let called = |second| fleet.call(&shown[..1], LIMITS, at(second)).called;
        assert_eq!(called(2), [NamespacedName::new("n", "a")]);
        assert_eq!(
            called(40),
            [NamespacedName::new("n", "a"), NamespacedName::new("n", "b")]
        );
        assert!(given(&fleet.ask(
            asking("b", "gold", 1),
            &shown[..1],
            LIMITS,
            at(41)
        )));
        // What was given and is never used is free again.
        let turn = fleet.ask(asking("a", "gold", 0), &shown[..1], LIMITS, at(50));
        assert!(!given(&turn));
        let turn = fleet.ask(asking("a", "gold", 0), &shown[..1], LIMITS, at(102));
        assert!(given(&turn));
    }

    #[test]
    fn a_deployment_that_somebody_changes_while_it_waits_is_put_right_at_once() {
        let fleet = Fleet::default();
        let shown = [holder("x", "gold"), holder("y", "gold")];
        fleet.ask(asking("a", "gold", 0), &shown, LIMITS, at(0));
        let asking = Asking {
            generation: Some(2),
            ..asking("a", "gold", 0)
        };
        assert_eq!(fleet.ask(asking, &shown, LIMITS, at(1)), Turn::NotNeeded);
    }

    /// Whether a tenant of the lab has settled since a roll.
    fn settled_since(lab: &crate::tenant::testing::Lab, roll: &Roll) -> bool {
        let world = &lab.world;
        let live = world.deployment().unwrap();
        is_settled(&world.tenant, live, roll, &world.probe, &world.pods)
    }

    /// The same since the last roll of the lab.
    fn settled(lab: &crate::tenant::testing::Lab) -> bool {
        let live = lab.world.deployment().unwrap();
        settled_since(lab, &Roll::of(live).unwrap())
    }

    fn upgrade(lab: &mut crate::tenant::testing::Lab) {
        let settings = std::sync::Arc::make_mut(&mut lab.world.settings);
        settings.registry = "mirror.example.com".to_owned();
    }

    #[test]
    fn a_roll_is_over_when_the_new_pods_were_found_well() {
        use crate::tenant::testing::Lab;
        let mut rolling = Lab::ready();
        upgrade(&mut rolling);
        rolling.later(5);
        rolling.pass();
        assert!(!settled(&rolling), "the Deployment is not rolled out");
        let live = rolling.world.deployment().cloned().unwrap();
        let tenant = &rolling.world.tenant;
        assert!(
            says(tenant, kind::READY, "True"),
            "the pods of before serve"
        );
        assert!(!is_well(tenant, &live), "it may not become what it should");
        rolling.run_pods();
        assert!(!settled(&rolling), "nobody has probed the new pods");
        rolling.later(5);
        rolling.probe(Ok(()));
        rolling.pass();
        assert!(settled(&rolling));
        // Another controller, which has not probed it yet: the status is of this roll.
        rolling.world.probe = ProbeFacts::default();
        assert!(settled(&rolling));
    }

    /// The controller ends, or our API does, between the write of the Deployment and that
    /// of the status: what was said before is not about the new pods.
    #[test]
    fn a_status_from_before_the_roll_settles_nothing() {
        use crate::tenant::testing::Lab;
        let mut lab = Lab::ready();
        lab.later(5);
        upgrade(&mut lab);
        let before = lab.world.tenant.status.clone();
        lab.pass();
        lab.tenant().status = before;
        lab.run_pods();
        let roll = Roll::of(lab.world.deployment().unwrap()).unwrap();
        let live = lab.world.deployment().unwrap();
        assert!(
            is_well(&lab.world.tenant, live) && says(&lab.world.tenant, kind::PROGRESSING, "False"),
            "that is what the status of before says"
        );
        assert!(!settled(&lab), "the probe is of before the roll");
        let mut restarted = lab.clone();
        restarted.world.probe = ProbeFacts::default();
        assert!(!settled(&restarted), "and so is the status");

        // The probe of now reached pods of before; the new ones became ready later.
        lab.later(5);
        lab.probe(Ok(()));
        let mut early = lab.clone();
        let pod = std::sync::Arc::make_mut(&mut early.world.pods[0]);
        let status = pod.status.as_mut().unwrap();
        status.conditions.as_mut().unwrap()[0].last_transition_time =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                lab.world
                    .now
                    .checked_add(SignedDuration::from_secs(1))
                    .unwrap(),
            ));
        assert!(!settled_since(&early, &roll));
        assert!(settled_since(&lab, &roll));
        // One that fails is what holds the others up.
        lab.later(5);
        lab.probe(Err((crate::tenant::world::ProbeFailureKind::Storage, "no")));
        assert!(!settled_since(&lab, &roll));
    }
}
