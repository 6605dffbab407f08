//! Empties DataStores: a taint with effect `NoExecute` sends away the tenants that do not
//! tolerate it.
//!
//! Each is sent by a POST to its subresource `migrate`, as anybody could: the API server
//! chooses where it goes and admission judges it. A few are on their way at a time, until
//! their pods run in the new place: if they do not, it stops there, and the rest stays if the
//! taint is taken away. One that comes back, because `spec.dataStore` is set to this DataStore
//! again, is sent away again later and later: data does not go to and fro for ever. Where
//! nobody has room, that is asked once for all that ask for the same.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apiservice::assignment;
use apiservice::v1alpha1::{DataStore, MigrationPhase, MigrationStatus, TenantControlPlane};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::cluster::name::NamespacedName;
use crate::datastores::plan::{Plan, Step};
use crate::datastores::world::World;
use crate::facts::Seen;
use crate::process::places::Split;
use crate::process::timing;
use crate::report::diagnose::quote;
use crate::tenant::backing::moving;
use crate::tenant::objects;

/// Tenants of one DataStore that are on their way at a time. Half of it is what one namespace
/// has while others are due, and what it takes from them if its tenants do not get on.
const AT_A_TIME: usize = 4;

/// Requests that one pass waits for.
const ASKED_BY_A_PASS: usize = 2;

/// The API server's code for a tenant that no DataStore can take, or that was changed.
const CONFLICT: u16 = 409;

/// How long the answer to a request counts for more than what is read of the tenant.
const FOLLOWS: Duration = Duration::from_secs(10);

/// What became of requests.
#[derive(Default)]
pub struct Drains(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// By the uid of the tenant.
    tenants: BTreeMap<String, Asked>,
    /// That there is no room, by the uid of the DataStore and what is asked for.
    wishes: BTreeMap<(String, Wish), NoRoom>,
}

type Wish = [u8; 32];

/// The last request to a tenant.
#[derive(Debug, Clone)]
struct Asked {
    /// Uid of the DataStore that it was to leave.
    from: String,
    at: Instant,
    /// Not again before.
    until: Instant,
    /// Requests in a row that sent it away, and that were refused.
    sent: u32,
    refused: u32,
    answer: Answer,
}

/// What the API server says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To this DataStore.
    Goes(String),
    /// Why not.
    Refused(String),
    /// No DataStore can take it: so for all that ask for the same.
    NoRoom(String),
}

/// No DataStore can take tenants that ask for the same.
#[derive(Debug, Clone)]
struct NoRoom {
    why: String,
    count: u32,
    until: Instant,
}

impl Asked {
    /// One more answer after those of before.
    fn after(before: Option<&Asked>, from: &str, answer: Answer, now: Instant) -> Self {
        let before = before.filter(|it| it.from == from);
        let (sent, refused) = before.map_or((0, 0), |it| (it.sent, it.refused));
        let ((first, slowest), sent, refused) = match answer {
            Answer::Goes(_) => (timing::DRAIN_BACK, sent + 1, 0),
            Answer::Refused(_) | Answer::NoRoom(_) => (timing::DRAIN_AGAIN, sent, refused + 1),
        };
        let count = if refused > 0 { refused } else { sent };
        Self {
            from: from.to_owned(),
            at: now,
            until: now + timing::observer_backoff(first, slowest, count),
            sent,
            refused,
            answer,
        }
    }
}

/// A tenant that is to leave, and how far that is.
#[derive(Debug, Clone)]
pub struct Leaver {
    pub tenant: Arc<TenantControlPlane>,
    pub state: State,
}

/// How far a tenant is that is to leave.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It has not been asked, or is to be asked again.
    Due,
    /// Its data goes to this DataStore.
    Goes(String),
    /// Its data is there, and its pods are still to run there.
    Starts(String),
    /// Something is in the way, which the sentence says.
    Waits(String),
}

/// What a DataStore is that is to be emptied.
#[derive(Debug, Clone)]
pub struct Drain {
    /// The taints, as messages have them.
    pub taints: String,
    /// The tenants that do not tolerate them.
    pub leavers: Vec<Leaver>,
}

impl Drain {
    /// How many of them are on their way.
    pub fn going(&self) -> usize {
        let goes = |it: &&Leaver| matches!(it.state, State::Goes(_) | State::Starts(_));
        self.leavers.iter().filter(goes).count()
    }

    /// Whom to ask now, by position: those that are due and have one of the places.
    fn turn(&self) -> Vec<usize> {
        let mut places = Split::default();
        for leaver in &self.leavers {
            match leaver.state {
                State::Goes(_) | State::Starts(_) => places.take(leaver.of()),
                State::Due => places.ask(leaver.of()),
                State::Waits(_) => {}
            }
        }
        let mut asked = Vec::new();
        for (position, leaver) in self.leavers.iter().enumerate() {
            if leaver.state == State::Due
                && asked.len() < ASKED_BY_A_PASS
                && places.has_one_of(AT_A_TIME, leaver.of())
            {
                places.take(leaver.of());
                asked.push(position);
            }
        }
        asked
    }
}

impl Leaver {
    /// Who it is.
    pub fn name(&self) -> NamespacedName {
        NamespacedName::of(&self.tenant.metadata)
    }

    fn of(&self) -> &str {
        self.tenant
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// One of this name.
    #[cfg(test)]
    pub fn named(namespace: &str, name: &str, state: State) -> Self {
        let mut tenant = TenantControlPlane::new(name, Default::default());
        tenant.metadata.namespace = Some(namespace.to_owned());
        let tenant = Arc::new(tenant);
        Self { tenant, state }
    }
}

/// Who is to leave, and how far that is. None: nothing says that it is to be emptied. `well`:
/// the database can be read, without which nothing can be moved.
pub fn of(drains: &Drains, seen: &Seen<'_>, store: &DataStore, well: bool) -> Option<Drain> {
    let executes = store.spec.taints.iter().filter(|taint| taint.executes());
    let taints: Vec<&str> = executes.map(|taint| taint.key.as_str()).collect();
    if taints.is_empty() {
        return None;
    }
    let tenants = tenants(seen, store);
    drains.forget(seen);
    let leavers = tenants.into_iter().map(|tenant| Leaver {
        state: how_far(drains, seen, store, &tenant, well),
        tenant,
    });
    Some(Drain {
        taints: taints.join(", "),
        leavers: leavers.collect(),
    })
}

/// Plans who is sent away now.
pub fn plan(world: &World, plan: &mut Plan) {
    let drain = world.drain.as_ref().filter(|_| !world.done.sent);
    for position in drain.map_or_else(Vec::new, Drain::turn) {
        let leaver = drain.and_then(|drain| drain.leavers.get(position));
        let tenant = leaver.map(|leaver| leaver.tenant.clone());
        plan.steps.extend(tenant.map(Step::SendAway));
    }
}

/// Those that are to leave, with those that have left it with their data and not yet with
/// their pods.
fn tenants(seen: &Seen<'_>, store: &DataStore) -> Vec<Arc<TenantControlPlane>> {
    let name = store.metadata.name.as_deref().unwrap_or_default();
    let here: HashSet<Option<String>> = seen
        .placed(name)
        .iter()
        .filter(|tenant| is_sent_away(tenant, store))
        .map(|tenant| tenant.metadata.uid.clone())
        .collect();
    let mut tenants = seen.caches.tenants.all();
    tenants.retain(|tenant| {
        let leaves = seen
            .facts
            .migration_of(tenant)
            .is_some_and(|it| it.source.as_deref() == Some(name) && moving::is_moving(it.phase));
        let stays = tenant.metadata.deletion_timestamp.is_some();
        !stays && (leaves || here.contains(&tenant.metadata.uid))
    });
    tenants
}

/// How far a tenant is.
fn how_far(
    drains: &Drains,
    seen: &Seen<'_>,
    store: &DataStore,
    tenant: &TenantControlPlane,
    well: bool,
) -> State {
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let migration = seen.facts.migration_of(tenant);
    let asked = drains.0.lock().tenants.get(uid).cloned();
    let target = tenant.spec.data_store.as_deref();
    let target = target.map(|target| trouble(seen, target));
    let known = Known {
        migration: migration.as_ref(),
        asked: asked.as_ref(),
        target: target.flatten(),
        well,
    };
    match state(tenant, store, &known) {
        State::Due => match drains.no_room(store, tenant) {
            Some(why) => State::Waits(why),
            None => State::Due,
        },
        state => state,
    }
}

/// Why a DataStore cannot take a tenant now.
fn trouble(seen: &Seen<'_>, name: &str) -> Option<String> {
    let Some(store) = seen.caches.data_store(name) else {
        return Some(format!(
            "DataStore {name}, to which it is to go, does not exist"
        ));
    };
    let uid = store.metadata.uid.as_deref().unwrap_or_default();
    let well = matches!(seen.facts.store(uid).health(), Some(Ok(_)));
    (!well).then(|| format!("DataStore {name}, to which it is to go, is not Ready"))
}

/// When there is something to do again.
pub fn next(drain: &Drain) -> Option<Duration> {
    match (drain.leavers.is_empty(), drain.turn().is_empty()) {
        (true, _) => None,
        (false, false) => Some(timing::DRAIN_NEXT),
        (false, true) => Some(timing::DRAIN_LOOK),
    }
}

/// Whether a taint of this DataStore sends a tenant away.
pub fn is_sent_away(tenant: &TenantControlPlane, store: &DataStore) -> bool {
    let wish = tenant.spec.data_store_assignment.as_ref();
    assignment::sent_away_by(wish, store).is_some()
}

/// What is known of a tenant beside its object.
struct Known<'a> {
    /// The last move of its data.
    migration: Option<&'a MigrationStatus>,
    /// The last request to it.
    asked: Option<&'a Asked>,
    /// Why the DataStore that it names cannot take it.
    target: Option<String>,
    /// Whether the DataStore where it is can be read.
    well: bool,
}

/// How far a tenant is, from what is known of it.
fn state(tenant: &TenantControlPlane, store: &DataStore, known: &Known<'_>) -> State {
    let here = store.metadata.name.as_deref();
    let wanted = tenant.spec.data_store.as_deref();
    let wanted = wanted.filter(|name| !name.is_empty() && Some(*name) != here);
    let waits = |why: &str| State::Waits(why.to_owned());
    if let Some(it) = known
        .migration
        .filter(|it| it.phase == MigrationPhase::Switching)
    {
        return State::Starts(it.target.clone().unwrap_or_default());
    }
    if objects::is_paused(&tenant.metadata) {
        return waits("it is paused");
    }
    if let Some(target) = wanted {
        let last = known.migration.map(|it| (it.target.as_deref(), it.phase));
        return match (last, &known.target) {
            (Some((of, MigrationPhase::Failed)), _) if of == Some(target) => State::Waits(format!(
                "moving it to DataStore {target} failed, as its condition Migrating tells"
            )),
            (Some((of, phase)), _) if of == Some(target) && moving::is_moving(phase) => {
                State::Goes(target.to_owned())
            }
            // Nothing has begun.
            (_, Some(trouble)) => waits(trouble),
            (_, None) => State::Goes(target.to_owned()),
        };
    }
    let now = Instant::now();
    let from = store.metadata.uid.as_deref().unwrap_or_default();
    match known.asked.filter(|asked| asked.from == from) {
        Some(Asked {
            answer: Answer::Goes(target),
            at,
            ..
        }) if now < *at + FOLLOWS => State::Goes(target.clone()),
        Some(Asked { until, answer, .. }) if now < *until => match answer {
            Answer::Refused(why) | Answer::NoRoom(why) => waits(why),
            Answer::Goes(target) => State::Waits(format!(
                "it was sent to DataStore {target}, and its spec.dataStore was set back: it is \
                 sent again later, or at once when spec.dataStore names another one"
            )),
        },
        _ if !known.well => waits("this DataStore is not Ready"),
        _ => State::Due,
    }
}

/// What a refusal of the API server says. None: the tenant was changed meanwhile.
pub fn refusal(code: u16, message: &str) -> Option<Answer> {
    if code != CONFLICT {
        return Some(Answer::Refused(quote(message)));
    }
    // What begins it names the one that was asked.
    let why = message.split_once("\": ").map_or(message, |(_, why)| why);
    if why.contains("has been modified") {
        return None;
    }
    Some(
        match why.contains("DataStore") && why.contains("are available") {
            true => Answer::NoRoom(quote(why)),
            false => Answer::Refused(quote(why)),
        },
    )
}

/// What a tenant asks of a DataStore, as a digest: it may be as long as an object.
fn wish(tenant: &TenantControlPlane) -> Wish {
    let wish = tenant.spec.data_store_assignment.as_ref();
    // Without it all ask for the same.
    Sha256::digest(serde_json::to_vec(&wish).unwrap_or_default()).into()
}

impl Drains {
    /// Takes note of an answer.
    pub fn note(&self, store: &DataStore, tenant: &TenantControlPlane, answer: &Answer) {
        let from = store.metadata.uid.clone().unwrap_or_default();
        let uid = tenant.metadata.uid.clone().unwrap_or_default();
        let now = Instant::now();
        let mut known = self.0.lock();
        let asked = Asked::after(known.tenants.get(&uid), &from, answer.clone(), now);
        known.tenants.insert(uid, asked);
        let key = (from, wish(tenant));
        match answer {
            Answer::NoRoom(why) => {
                let count = known.wishes.get(&key).map_or(0, |it| it.count) + 1;
                let (first, slowest) = timing::DRAIN_AGAIN;
                let no_room = NoRoom {
                    why: why.clone(),
                    count,
                    until: now + timing::observer_backoff(first, slowest, count),
                };
                known.wishes.insert(key, no_room);
            }
            Answer::Goes(_) => drop(known.wishes.remove(&key)),
            Answer::Refused(_) => {}
        }
    }

    /// Why there is no room for tenants that ask for the same, if that was told lately.
    pub fn no_room(&self, store: &DataStore, tenant: &TenantControlPlane) -> Option<String> {
        let known = self.0.lock();
        if known.wishes.is_empty() {
            return None;
        }
        let from = store.metadata.uid.clone().unwrap_or_default();
        let told = known.wishes.get(&(from, wish(tenant)))?;
        (Instant::now() < told.until).then(|| told.why.clone())
    }

    /// Nothing is remembered of what is gone.
    fn forget(&self, seen: &Seen<'_>) {
        let mut known = self.0.lock();
        if known.tenants.is_empty() && known.wishes.is_empty() {
            return;
        }
        let tenants = seen.caches.tenants.all();
        let uids: HashSet<&str> = tenants
            .iter()
            .filter_map(|it| it.metadata.uid.as_deref())
            .collect();
        known.tenants.retain(|uid, _| uids.contains(uid.as_str()));
        let wishes: HashSet<Wish> = tenants.iter().map(|it| wish(it)).collect();
        known.wishes.retain(|(_, wish), _| wishes.contains(wish));
    }
}

#[cfg(test)]
mod tests {
    use apiservice::names;
    use serde_json::json;

    use super::*;

    fn store(driver: &str) -> DataStore {
        serde_json::from_value(json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "a", "uid": "uid-a"},
            "spec": {
                "driver": driver, "endpoints": ["a:1"],
                "taints": [{"key": "leaving", "effect": "NoExecute"}],
            },
        }))
        .unwrap()
    }

    fn tenant(wanted: Option<&str>) -> TenantControlPlane {
        let mut tenant = TenantControlPlane::new("t", Default::default());
        tenant.spec.data_store = wanted.map(str::to_owned);
        tenant
    }

    fn known<'a>(asked: Option<&'a Asked>, migration: Option<&'a MigrationStatus>) -> Known<'a> {
        Known {
            migration,
            asked,
            target: None,
            well: true,
        }
    }

    fn of(tenant: &TenantControlPlane, asked: Option<&Asked>) -> State {
        state(tenant, &store("etcd"), &known(asked, None))
    }

    fn moving(phase: MigrationPhase, target: &str) -> MigrationStatus {
        MigrationStatus {
            phase,
            source: Some("a".into()),
            target: Some(target.into()),
            ..MigrationStatus::default()
        }
    }

    fn asked(before: Option<&Asked>, answer: Answer) -> Asked {
        Asked::after(before, "uid-a", answer, Instant::now())
    }

    fn goes(before: Option<&Asked>) -> Asked {
        asked(before, Answer::Goes("b".into()))
    }

    #[test]
    fn who_is_sent_and_who_is_not() {
        for here in [None, Some(""), Some("a")] {
            assert_eq!(of(&tenant(here), None), State::Due, "{here:?}");
        }
        assert_eq!(of(&tenant(Some("b")), None), State::Goes("b".into()));
        let mut paused = tenant(Some("a"));
        let annotations = paused.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_PAUSED.into(), String::new());
        assert_eq!(of(&paused, None), State::Waits("it is paused".into()));
        let nats = state(&tenant(None), &store("NATS"), &known(None, None));
        assert_eq!(nats, State::Due, "of each driver");
        let mut down = known(None, None);
        down.well = false;
        let down = state(&tenant(None), &store("etcd"), &down);
        assert!(matches!(down, State::Waits(_)), "{down:?}");
    }

    /// Whoever does not get on is told, and takes no place from others.
    #[test]
    fn who_is_on_the_way_and_who_is_not() {
        let to_b = tenant(Some("b"));
        let at = |migration: &MigrationStatus, trouble: Option<&str>| {
            let mut known = known(None, Some(migration));
            known.target = trouble.map(str::to_owned);
            state(&to_b, &store("etcd"), &known)
        };
        use MigrationPhase as Phase;
        let goes = || State::Goes("b".into());
        assert!(matches!(
            at(&moving(Phase::Failed, "b"), None),
            State::Waits(_)
        ));
        assert_eq!(
            at(&moving(Phase::Failed, "c"), None),
            goes(),
            "an earlier one"
        );
        let gone = Some("DataStore b does not exist");
        for nothing_yet in [moving(Phase::Pending, "b"), moving(Phase::Completed, "c")] {
            assert_eq!(at(&nothing_yet, None), goes());
            assert!(matches!(at(&nothing_yet, gone), State::Waits(_)));
        }
        assert_eq!(at(&moving(Phase::Copying, "b"), gone), goes(), "it copies");
        // Its data is there, and nobody knows whether its pods ever run there.
        let switching = moving(Phase::Switching, "b");
        assert_eq!(at(&switching, gone), State::Starts("b".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_sent_later_and_later() {
        let back = tenant(Some("a"));
        let mut last = goes(None);
        assert_eq!(of(&back, Some(&last)), State::Goes("b".into()), "unread");
        tokio::time::advance(FOLLOWS).await;
        let told = of(&back, Some(&last));
        assert!(
            matches!(&told, State::Waits(why) if why.contains("set back")),
            "{told:?}"
        );

        let (first, slowest) = timing::DRAIN_BACK;
        tokio::time::advance(first).await;
        assert_eq!(of(&back, Some(&last)), State::Due);
        for _ in 0..30 {
            last = goes(Some(&last));
        }
        assert_eq!(last.until - last.at, slowest);
        assert_eq!(goes(Some(&goes(None))).until - Instant::now(), first * 2);
        // What one DataStore has told it is nothing to the next.
        let other = Asked::after(
            Some(&last),
            "uid-b",
            Answer::Goes("c".into()),
            Instant::now(),
        );
        assert_eq!((other.sent, other.until - Instant::now()), (1, first));
        assert_eq!(of(&back, Some(&other)), State::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_asked_again_soon() {
        let stays = tenant(None);
        let refused = asked(None, Answer::Refused("not by you".into()));
        let told = of(&stays, Some(&refused));
        assert!(
            matches!(&told, State::Waits(why) if why.contains("by you")),
            "{told:?}"
        );
        tokio::time::advance(timing::DRAIN_AGAIN.0).await;
        assert_eq!(of(&stays, Some(&refused)), State::Due);
        // A refusal does not count as a way back.
        let sent = goes(Some(&refused));
        assert_eq!(sent.until - Instant::now(), timing::DRAIN_BACK.0);
    }

    /// A tenant may have been given a toleration right before the taint came.
    #[test]
    fn what_refusals_say() {
        let on =
            "Operation cannot be fulfilled on tenantcontrolplanes.steward.butlerlabs.dev \"t\": ";
        let of = |code, why: &str| refusal(code, &format!("{on}{why}"));
        let changed = "the object has been modified; please apply your changes to the latest \
                       version and try again";
        assert_eq!(of(409, changed), None);
        let full = "0/1 DataStore are available: 1 is not Ready";
        assert_eq!(of(409, full), Some(Answer::NoRoom(full.into())));
        let leaves = "the tenant is being deleted";
        assert_eq!(of(409, leaves), Some(Answer::Refused(leaves.into())));
        assert!(matches!(of(403, "no"), Some(Answer::Refused(why)) if why.contains("fulfilled")));
    }

    /// A thousand that nobody can take are asked for once.
    #[tokio::test(start_paused = true)]
    async fn no_room_is_asked_once_for_all_that_ask_for_the_same() {
        let drains = Drains::default();
        let store = store("etcd");
        let mut picky = tenant(None);
        picky.spec.data_store_assignment = Some(Default::default());
        let answer = Answer::NoRoom("0/1 DataStores are available".into());
        drains.note(&store, &tenant(None), &answer);
        let mut other = tenant(Some("a"));
        other.metadata.uid = Some("other".into());
        assert!(drains.no_room(&store, &other).unwrap().contains("0/1"));
        assert_eq!(
            drains.no_room(&store, &picky),
            None,
            "asks for something else"
        );
        let (first, slowest) = timing::DRAIN_AGAIN;
        tokio::time::advance(first).await;
        assert_eq!(drains.no_room(&store, &other), None);
        for _ in 0..20 {
            drains.note(&store, &other, &answer);
        }
        tokio::time::advance(slowest - Duration::from_secs(1)).await;
        assert!(drains.no_room(&store, &other).is_some());
        drains.note(&store, &other, &Answer::Goes("b".into()));
        assert_eq!(drains.no_room(&store, &other), None);
    }

    #[test]
    fn a_namespace_leaves_half_to_others() {
        let leaver = |namespace: &str, state| Leaver::named(namespace, "t", state);
        let drain = |leavers| Drain {
            taints: "leaving".into(),
            leavers,
        };
        let goes = || State::Goes("b".into());
        let starts = || State::Starts("b".into());
        let alone = drain(vec![
            leaver("n", goes()),
            leaver("n", starts()),
            leaver("n", State::Due),
            leaver("n", State::Due),
            leaver("n", State::Due),
        ]);
        assert_eq!(alone.turn(), [2, 3]);
        let both = drain(vec![
            leaver("n", goes()),
            leaver("n", starts()),
            leaver("n", State::Due),
            leaver("m", State::Due),
        ]);
        assert_eq!(both.turn(), [3]);
        let full = drain(vec![
            leaver("n", starts()),
            leaver("n", starts()),
            leaver("m", starts()),
            leaver("m", starts()),
            leaver("o", State::Due),
        ]);
        assert!(full.turn().is_empty(), "those of before do not get on");
        // One namespace alone does not stop the others, whatever becomes of its own.
        let stuck = drain(vec![
            leaver("n", starts()),
            leaver("n", starts()),
            leaver("n", starts()),
            leaver("n", starts()),
            leaver("n", State::Due),
            leaver("m", State::Due),
        ]);
        assert_eq!(stuck.turn(), [5]);
    }

    #[test]
    fn when_to_look_again() {
        let drain = |states: Vec<State>| Drain {
            taints: "leaving".into(),
            leavers: states
                .into_iter()
                .map(|state| Leaver::named("n", "t", state))
                .collect(),
        };
        assert_eq!(next(&drain(vec![])), None);
        let soon = next(&drain(vec![State::Due])).unwrap();
        assert!(soon < timing::DRAIN_LOOK);
        let goes = || State::Goes("b".into());
        let full = drain(vec![goes(), goes(), goes(), goes(), State::Due]);
        assert_eq!(next(&full), Some(timing::DRAIN_LOOK));
    }
}
