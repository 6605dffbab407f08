//! Empties DataStores: a taint with effect `NoExecute` sends away the tenants that do not
//! tolerate it.
//!
//! Each is sent by a POST to its subresource `migrate`, as anybody could: the API server
//! chooses where it goes and admission judges it. A few are on their way at a time, so that
//! the rest stays if the taint is taken away. One that comes back, because `spec.dataStore`
//! is set to this DataStore again, is sent away again later and later: data does not go to
//! and fro for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use apiservice::assignment;
use apiservice::condition::reason;
use apiservice::v1alpha1::{
    DataStore, DataStoreTaint, MigrationPhase, MigrationStatus, TenantControlPlane,
};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::caches::NamespacedName;
use crate::context::Context;
use crate::process::{lease, timing};
use crate::report::diagnose::quote;
use crate::tenant::objects;

/// Tenants of one DataStore that are on their way at a time.
const AT_A_TIME: usize = 4;

/// Requests that one pass waits for.
const ASKED_BY_A_PASS: usize = 2;

/// How long the answer to a request counts for more than what is read of the tenant.
const FOLLOWS: Duration = Duration::from_secs(10);

/// What became of the requests to tenants, by their uid.
#[derive(Default)]
pub struct Drains(Mutex<BTreeMap<String, Asked>>);

/// The last request to a tenant.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    /// Not again before.
    until: Instant,
    /// Requests in a row that sent it away, and that were refused.
    sent: u32,
    refused: u32,
    answer: Answer,
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// To this DataStore.
    Goes(String),
    /// Why not.
    Refused(String),
}

impl Asked {
    /// One more answer after those of before.
    fn after(before: Option<&Asked>, answer: Answer, now: Instant) -> Self {
        let (sent, refused) = before.map_or((0, 0), |it| (it.sent, it.refused));
        let (sent, refused) = match answer {
            Answer::Goes(_) => (sent + 1, 0),
            Answer::Refused(_) => (sent, refused + 1),
        };
        let ((first, slowest), count) = match answer {
            Answer::Goes(_) => (timing::DRAIN_BACK, sent),
            Answer::Refused(_) => (timing::DRAIN_AGAIN, refused),
        };
        Self {
            at: now,
            until: now + timing::observer_backoff(first, slowest, count),
            sent,
            refused,
            answer,
        }
    }
}

/// A tenant that is to leave, and how far that is.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaver {
    pub name: NamespacedName,
    pub state: State,
}

/// How far a tenant is that is to leave.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It has not been asked, or is to be asked again.
    Due,
    /// Its data goes to this DataStore.
    Goes(String),
    /// Something is in the way, which the sentence says.
    Waits(String),
}

/// What a DataStore is that is to be emptied.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    /// The taints, as messages have them.
    pub taints: String,
    /// The tenants that do not tolerate them.
    pub leavers: Vec<Leaver>,
}

impl Drain {
    /// How many of them are on their way.
    pub fn going(&self) -> usize {
        let goes = |it: &&Leaver| matches!(it.state, State::Goes(_));
        self.leavers.iter().filter(goes).count()
    }
}

/// Sends away who is to leave. None: nothing says that it is to be emptied. `well`: the
/// database can be read, without which nothing can be moved.
pub async fn turn(ctx: &Context, store: &DataStore, well: bool) -> Option<Drain> {
    let taints: Vec<&DataStoreTaint> = store.spec.taints.iter().collect();
    let executes: Vec<&DataStoreTaint> = taints.into_iter().filter(|it| it.executes()).collect();
    if executes.is_empty() {
        return None;
    }
    let name = store.metadata.name.as_deref().unwrap_or_default();
    let mut tenants = super::placed(ctx, name);
    tenants.retain(|tenant| {
        tenant.metadata.deletion_timestamp.is_none() && is_sent_away(tenant, store)
    });
    ctx.drains.forget(ctx);
    let mut leavers = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
        let said = || tenant.status.as_ref()?.migration.clone();
        let migration = ctx.facts.migration_of(uid).or_else(said);
        let asked = ctx.drains.0.lock().get(uid).cloned();
        leavers.push(Leaver {
            name: NamespacedName::of(&tenant.metadata),
            state: state(tenant, store, migration.as_ref(), asked.as_ref(), well),
        });
    }
    let mut drain = Drain {
        taints: executes
            .iter()
            .map(|taint| taint.key.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        leavers,
    };
    let room = AT_A_TIME.saturating_sub(drain.going());
    let due = drain.leavers.iter_mut().zip(&tenants);
    let due = due.filter(|(leaver, _)| leaver.state == State::Due);
    for (leaver, tenant) in due.take(room.min(ASKED_BY_A_PASS)) {
        leaver.state = match ask(ctx, store, tenant).await {
            Answer::Goes(target) => State::Goes(target),
            Answer::Refused(why) => State::Waits(why),
        };
    }
    Some(drain)
}

/// When there is something to do again.
pub fn next(drain: &Drain) -> Option<Duration> {
    let due = drain.leavers.iter().any(|it| it.state == State::Due);
    match (drain.leavers.is_empty(), due && drain.going() < AT_A_TIME) {
        (true, _) => None,
        (false, true) => Some(Duration::from_millis(100)),
        (false, false) => Some(timing::DRAIN_LOOK),
    }
}

fn is_sent_away(tenant: &TenantControlPlane, store: &DataStore) -> bool {
    let wish = tenant.spec.data_store_assignment.as_ref();
    assignment::sent_away_by(wish, store).is_some()
}

/// How far a tenant is, from what is known of it.
fn state(
    tenant: &TenantControlPlane,
    store: &DataStore,
    migration: Option<&MigrationStatus>,
    asked: Option<&Asked>,
    well: bool,
) -> State {
    let here = store.metadata.name.as_deref();
    let wanted = tenant.spec.data_store.as_deref();
    let wanted = wanted.filter(|name| !name.is_empty());
    let waits = |why: &str| State::Waits(why.to_owned());
    if objects::is_paused(&tenant.metadata) {
        return waits("it is paused");
    }
    if let Some(target) = wanted.filter(|wanted| Some(*wanted) != here) {
        let last = migration.filter(|it| it.target.as_deref() == Some(target));
        return match last.map(|it| it.phase) {
            Some(MigrationPhase::Failed) => State::Waits(format!(
                "moving it to DataStore {target} failed, as its condition Migrating tells"
            )),
            _ => State::Goes(target.to_owned()),
        };
    }
    if !store.spec.driver.is_movable() {
        let driver = store.spec.driver.as_str();
        return State::Waits(format!("data is not moved from a DataStore of {driver}"));
    }
    let now = Instant::now();
    match asked {
        Some(Asked {
            answer: Answer::Goes(target),
            at,
            ..
        }) if now < *at + FOLLOWS => State::Goes(target.clone()),
        Some(Asked { until, answer, .. }) if now < *until => match answer {
            Answer::Refused(why) => waits(why),
            Answer::Goes(target) => State::Waits(format!(
                "it was sent to DataStore {target}, and its spec.dataStore was set back: it is \
                 sent again later, or at once when spec.dataStore names another one"
            )),
        },
        _ if !well => waits("this DataStore is not Ready"),
        _ => State::Due,
    }
}

/// Asks for a move of the tenant's data to wherever there is room.
async fn ask(ctx: &Context, store: &DataStore, tenant: &TenantControlPlane) -> Answer {
    let name = NamespacedName::of(&tenant.metadata);
    let answer = match request(ctx, &name, tenant).await {
        Ok(target) => {
            let from = store.metadata.name.as_deref().unwrap_or_default();
            let message = format!(
                "DataStore {from} is being emptied (taint with effect NoExecute): the data goes to \
                 DataStore {target}"
            );
            tracing::info!(tenant = %name, "{message}");
            let events = &ctx.events;
            events.tell(tenant, false, reason::DRAINING, &message).await;
            Answer::Goes(target)
        }
        Err(why) => Answer::Refused(quote(&why)),
    };
    let uid = tenant.metadata.uid.clone().unwrap_or_default();
    let mut all = ctx.drains.0.lock();
    let asked = Asked::after(all.get(&uid), answer.clone(), Instant::now());
    all.insert(uid, asked);
    answer
}

/// Where the API server sends it.
async fn request(
    ctx: &Context,
    name: &NamespacedName,
    tenant: &TenantControlPlane,
) -> Result<String, String> {
    let tenants: Api<TenantControlPlane> = Api::namespaced(ctx.client.clone(), &name.namespace);
    let body = json!({
        "metadata": {"name": name.name, "uid": tenant.metadata.uid},
        "spec": {},
    });
    let params = PostParams::default();
    let call = tenants.create_subresource::<Value, Value>("migrate", &name.name, &params, &body);
    let call = tokio::time::timeout(timing::CALL_DEADLINE, call);
    match ctx.leadership.hold(call).await {
        Some(Ok(Ok(answer))) => {
            let target = answer["spec"]["target"].as_str();
            target
                .map(str::to_owned)
                .ok_or_else(|| "the API server does not say where it goes".to_owned())
        }
        Some(Ok(Err(kube::Error::Api(status)))) => Err(status.message.clone()),
        Some(Ok(Err(error))) => Err(error.to_string()),
        Some(Err(_)) => Err("the API server does not answer".to_owned()),
        None => Err(lease::ENDED.to_owned()),
    }
}

impl Drains {
    /// Nothing is remembered of tenants that are gone.
    fn forget(&self, ctx: &Context) {
        let mut all = self.0.lock();
        if all.is_empty() {
            return;
        }
        let tenants = ctx.caches.tenants.all();
        let is_there = |uid: &String| {
            let of =
                |it: &std::sync::Arc<TenantControlPlane>| it.metadata.uid.as_ref() == Some(uid);
            tenants.iter().any(of)
        };
        all.retain(|uid, _| is_there(uid));
    }
}

#[cfg(test)]
mod tests {
    use apiservice::names;

    use super::*;

    fn store(driver: &str) -> DataStore {
        serde_json::from_value(json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "a"},
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

    fn of(tenant: &TenantControlPlane, asked: Option<&Asked>) -> State {
        state(tenant, &store("etcd"), None, asked, true)
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
        let nats = state(&tenant(None), &store("NATS"), None, None, true);
        assert!(matches!(nats, State::Waits(_)), "{nats:?}");
        let down = state(&tenant(None), &store("etcd"), None, None, false);
        assert!(matches!(down, State::Waits(_)), "{down:?}");

        let failed = |target: &str| MigrationStatus {
            phase: MigrationPhase::Failed,
            target: Some(target.into()),
            ..MigrationStatus::default()
        };
        let goes = tenant(Some("b"));
        let at =
            |migration: &MigrationStatus| state(&goes, &store("etcd"), Some(migration), None, true);
        assert!(matches!(at(&failed("b")), State::Waits(_)));
        assert_eq!(at(&failed("c")), State::Goes("b".into()), "an earlier one");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_sent_later_and_later() {
        let back = tenant(Some("a"));
        let goes =
            |before: Option<&Asked>| Asked::after(before, Answer::Goes("b".into()), Instant::now());
        let mut asked = goes(None);
        assert_eq!(of(&back, Some(&asked)), State::Goes("b".into()), "unread");
        tokio::time::advance(FOLLOWS).await;
        let told = of(&back, Some(&asked));
        assert!(
            matches!(&told, State::Waits(why) if why.contains("set back")),
            "{told:?}"
        );

        let (first, slowest) = timing::DRAIN_BACK;
        tokio::time::advance(first).await;
        assert_eq!(of(&back, Some(&asked)), State::Due);
        for _ in 0..30 {
            asked = goes(Some(&asked));
        }
        assert_eq!(asked.until - asked.at, slowest);
        assert_eq!(goes(Some(&goes(None))).until - Instant::now(), first * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_asked_again_soon() {
        let stays = tenant(None);
        let refused = Answer::Refused("0/1 DataStores are available".into());
        let asked = Asked::after(None, refused, Instant::now());
        let told = of(&stays, Some(&asked));
        assert!(
            matches!(&told, State::Waits(why) if why.contains("0/1")),
            "{told:?}"
        );
        tokio::time::advance(timing::DRAIN_AGAIN.0).await;
        assert_eq!(of(&stays, Some(&asked)), State::Due);
        // A refusal does not count as a way back.
        let sent = Asked::after(Some(&asked), Answer::Goes("b".into()), Instant::now());
        assert_eq!(sent.until - Instant::now(), timing::DRAIN_BACK.0);
    }

    #[test]
    fn when_to_look_again() {
        let drain = |states: Vec<State>| Drain {
            taints: "leaving".into(),
            leavers: states
                .into_iter()
                .map(|state| Leaver {
                    name: NamespacedName::new("n", "t"),
                    state,
                })
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
