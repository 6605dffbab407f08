//! Does a tenant's user still hold exactly its own keys? Asked every few
//! seconds, because rights can be taken away in the datastore itself.

use std::sync::Arc;

use apiservice::names::{self, key};
use apiservice::v1alpha1::{
    DataStore, Driver, MigrationPhase as Phase, MigrationStatus, TenantControlPlane,
};
use storage::tenancy::{Access, Claim, Data, Password, Stage, Tenancy};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::cluster::chosen;
use crate::cluster::key::Key;
use crate::cluster::kinds::Inventory;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::datastores::health;
use crate::facts::TenantFacts;
use crate::process::observers::{CHECKS, pause};
use crate::process::timing;
use crate::tenant::backing::facts::{
    AccessFact, Held, StoreHealth, StoreProblem, StoreProblemKind,
};
use crate::tenant::backing::{claim, drivers, moving, password, store as place};
use crate::tenant::objects;

/// Checks one tenant's rights until the task is ended.
pub async fn run(ctx: Arc<Context>, name: NamespacedName, uid: String) {
    let wake = ctx.facts.tenant(&uid).wake_access;
    let mut refused: Option<Instant> = None;
    loop {
        ask_again(&ctx, &name, &uid, &mut refused);
        if let Some(Checked {
            access,
            held,
            with,
            _asking,
        }) = check(&ctx, &name, &uid).await
        {
            let changed = ctx.facts.update_tenant(&uid, |facts| {
                // Whoever moves the data has taken rights away meanwhile.
                if is_frozen(facts) {
                    return false;
                }
                if access == AccessFact::Granted {
                    facts.password = with;
                }
                facts.learn(access, held)
            });
            if changed {
                ctx.queue.add(Key::Tenant(name.clone()));
            }
        }
        pause(timing::ACCESS_EVERY, &wake).await;
    }
}

/// A claim that was refused is tried again after a while: its holder may have
/// gone. The plan does so when nothing is known.
pub fn ask_again(ctx: &Context, name: &NamespacedName, uid: &str, refused: &mut Option<Instant>) {
    let known = ctx.facts.tenant(uid).access;
    if !known.as_ref().is_some_and(AccessFact::is_refused) {
        *refused = None;
        return;
    }
    let since = *refused.get_or_insert_with(Instant::now);
    if since.elapsed() >= timing::CLAIM_AGAIN {
        *refused = None;
        ctx.facts.update_tenant(uid, |facts| facts.access = None);
        ctx.queue.add(Key::Tenant(name.clone()));
    }
}

/// Whether a datastore answers who reads. That takes no space.
fn answers(health: Option<&Result<StoreHealth, StoreProblem>>) -> bool {
    match health {
        Some(Ok(_)) => true,
        Some(Err(problem)) => problem.kind == StoreProblemKind::Full,
        None => false,
    }
}

/// What a look at a tenant's rights found.
pub struct Checked {
    pub access: AccessFact,
    pub held: Option<Held>,
    /// The password with which it was looked.
    pub with: Option<Password>,
    /// What is being granted meanwhile would be seen in part.
    pub _asking: OwnedMutexGuard<()>,
}

/// The password in a Secret of a tenant, where its database has passwords and it has one.
pub fn password_of(
    ctx: &Context,
    tenant: &TenantControlPlane,
    secret: &str,
    driver: Driver,
) -> Option<Password> {
    if !driver.has_passwords() {
        return None;
    }
    let name = NamespacedName::of(&tenant.metadata);
    let secret = NamespacedName::new(name.namespace, secret);
    let secret = ctx.caches.secrets.get(&secret)?;
    password::usable(&objects::text(&secret, key::DB_PASSWORD)?)
}

/// What the user may do, and the claim of this uid if it was found. `None`:
/// nothing was learnt, and what was known stands.
///
/// Status says no more than that there is something to ask. Names come from
/// the claim that the datastore has for this uid (rule 17); the search for it
/// may read all claims, so it is made once.
async fn check(ctx: &Context, name: &NamespacedName, uid: &str) -> Option<Checked> {
    let tenant = ctx.caches.tenants.get(name)?;
    let known = ctx.facts.tenant(uid).held;
    if is_frozen(&ctx.facts.tenant(uid)) {
        return None;
    }
    if tenant.metadata.uid.as_deref() != Some(uid)
        || tenant.metadata.deletion_timestamp.is_some()
        || (known.is_none() && !chosen::settled(&tenant) && !has_traces(ctx, &tenant))
    {
        return None;
    }
    let held = match known {
        Some(held) => Some(held),
        None => {
            let found = search(ctx, &tenant, uid).await.ok()?;
            let found = found.map(|(held, left)| {
                if let Some(left) = left {
                    learn_of_move(ctx, &tenant, uid, &left, &held.data_store);
                }
                held
            });
            if found.is_none() {
                let news = ctx
                    .facts
                    .update_tenant(uid, |facts| !std::mem::replace(&mut facts.nowhere, true));
                if news {
                    ctx.queue.add(Key::Tenant(name.clone()));
                }
            }
            found
        }
    };
    let (data_store, claim) = match &held {
        Some(held) => (held.data_store.clone(), held.claim.clone()),
        // None anywhere: whether it may be made is for the datastore to say.
        None => (
            chosen::choose(&tenant)?,
            claim::wished(&tenant, driver_of(ctx, &tenant)),
        ),
    };
    let in_secret = || {
        let secret = names::datastore_config(&name.name);
        password_of(ctx, &tenant, &secret, driver(ctx, &data_store))
    };
    look(ctx, held, claim, data_store.clone(), in_secret).await
}

/// What may be done under a claim: what is held, or else what would be.
pub async fn look(
    ctx: &Context,
    held: Option<Held>,
    claim: Claim,
    data_store: String,
    in_secret: impl FnOnce() -> Option<Password>,
) -> Option<Checked> {
    let uid = &claim.uid;
    let tenancy = reach(ctx, &data_store)?;
    // A wait for others is no silence of the datastore.
    let _turn = CHECKS.take(&data_store).await;
    // They are being changed: what is found out then is known without a look.
    let asking = ctx.facts.tenant(uid).rights.try_lock_owned().ok()?;
    // Another one in its Secret is for the plan to bring to the database: until then its
    // pods are let in with the one of before.
    let known = ctx.facts.tenant(uid).password;
    let with = known.or_else(in_secret);
    let work = tenancy.check(&claim, with.as_ref());
    let mut held = held;
    let access = match tokio::time::timeout(timing::STORE_DEADLINE, work).await {
        Ok(Ok(access)) => {
            if matches!(access, Access::Former | Access::Outdated)
                && renew(ctx, tenancy.as_ref(), &claim, with.as_ref(), &access).await
            {
                held = Some(again(ctx, tenancy.as_ref(), &claim, data_store).await?);
            }
            health::access(access)
        }
        Ok(Err(error)) => health::access_of(&error)?,
        Err(_) => return None,
    };
    Some(Checked {
        access,
        held,
        with,
        _asking: asking,
    })
}

/// Gives the rights anew where that changes nothing for the tenant: it ends a password of
/// before whose time is over, or gives them by the administrator's key of now. It does not wait
/// for a plan, which a tenant that is paused does not have: a password may have been changed
/// because somebody else knows it, and the key of before may be about to go. Whether it is done.
async fn renew(
    ctx: &Context,
    tenancy: &dyn Tenancy,
    claim: &Claim,
    with: Option<&Password>,
    found: &Access,
) -> bool {
    if with.is_none() || !ctx.leadership.leads() {
        return false;
    }
    let work = tenancy.prepare(claim, with, Data::Kept);
    let tenant = format!("{}/{}", claim.namespace, claim.name);
    match ctx.leadership.within(timing::STORE_WRITE, work).await {
        Ok(Ok(())) => {
            tracing::info!(tenant, ?found, "rights in the DataStore are renewed");
            return true;
        }
        Ok(Err(error)) => {
            tracing::warn!(tenant, ?found, %error, "rights in the DataStore are not renewed");
        }
        Err(_) => {}
    }
    false
}

/// What a tenant holds after its rights were renewed: more may be stored of it than before.
/// `None`: that cannot be read, and is searched for anew.
async fn again(
    ctx: &Context,
    tenancy: &dyn Tenancy,
    claim: &Claim,
    data_store: String,
) -> Option<Held> {
    let found = tokio::time::timeout(timing::STORE_DEADLINE, tenancy.claims(&claim.uid)).await;
    let Ok(Ok(found)) = found else {
        ctx.facts
            .update_tenant(&claim.uid, |facts| facts.held = None);
        return None;
    };
    let claim = health::settle(claim, &found);
    Some(Held { data_store, claim })
}

/// The data is in one datastore, and frozen in another: whoever moved it ended before it could
/// say so. Nobody else remembers what is left there.
fn learn_of_move(
    ctx: &Context,
    tenant: &TenantControlPlane,
    uid: &str,
    source: &str,
    target: &str,
) {
    let said = tenant.status.as_ref().and_then(|it| it.migration.as_ref());
    let learnt = ctx.facts.update_tenant(uid, |facts| {
        if moving::is_under_way(facts.migration.as_ref().or(said)) {
            return false;
        }
        facts.migration = Some(MigrationStatus {
            phase: Phase::Switching,
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            ..MigrationStatus::default()
        });
        true
    });
    if learnt {
        ctx.facts.tenant(uid).wake_migration.notify_one();
        ctx.queue
            .add(Key::Tenant(NamespacedName::of(&tenant.metadata)));
    }
}

/// Whether the data of a tenant cannot be written, because it is being moved: whoever does
/// that looks after the rights.
fn is_frozen(facts: &TenantFacts) -> bool {
    let migration = facts.migration.as_ref();
    let stopped = migration.is_some_and(|it| moving::stops_writes(it.phase));
    let held = facts.held.as_ref();
    stopped || held.is_some_and(|held| held.claim.stage == Stage::Frozen)
}

/// Whether there are objects of a tenant that are made after its grant: its status may
/// have been emptied, and it has a claim that has to be found before it is given another.
fn has_traces(ctx: &Context, tenant: &TenantControlPlane) -> bool {
    let name = NamespacedName::of(&tenant.metadata);
    place::may_have_claimed(tenant, &Inventory::gather(&ctx.caches, &name))
}

/// Whether somebody has taken a DataStore away. That it is not seen is no proof: one that
/// cannot be read is left out of lists and watches.
///
/// # Errors
/// What the API says instead, in a sentence.
pub async fn is_taken_away(ctx: &Context, data_store: &str) -> Result<bool, String> {
    if ctx.caches.data_store(data_store).is_some() {
        return Ok(false);
    }
    let api: kube::Api<DataStore> = kube::Api::all(ctx.client.clone());
    let asked = api.get_metadata_opt(data_store);
    let asked = tokio::time::timeout(timing::CALL_DEADLINE, asked).await;
    let why = match asked {
        Ok(Ok(found)) => return Ok(found.is_none()),
        Ok(Err(why)) => why.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    Err(format!(
        "whether DataStore {data_store} exists cannot be told: {why}"
    ))
}

/// The driver of the DataStore with this name.
pub fn driver(ctx: &Context, data_store: &str) -> Driver {
    let store = ctx.caches.data_store(data_store);
    store.map_or_else(Driver::default, |store| store.spec.driver)
}

/// The driver of the DataStore where a tenant is said to be.
fn driver_of(ctx: &Context, tenant: &TenantControlPlane) -> Driver {
    let chosen = chosen::choose(tenant);
    chosen.map_or_else(Driver::default, |chosen| driver(ctx, &chosen))
}

/// Looks for the claim of this uid, first where the tenant is said to be, then
/// in all other datastores; also where it was met frozen, if that is another one. `Err`: there
/// is none in those that answered, and one did not, so nothing is known.
async fn search(
    ctx: &Context,
    tenant: &TenantControlPlane,
    uid: &str,
) -> Result<Option<(Held, Option<String>)>, ()> {
    let chosen = chosen::choose(tenant);
    let wished = claim::wished(tenant, driver_of(ctx, tenant));
    let stores = ctx.caches.data_stores.all();
    let mut names: Vec<String> = stores
        .iter()
        .filter(|store| store.spec.driver.is_built())
        .filter_map(|store| store.metadata.name.clone())
        .collect();
    names.sort_by_key(|name| (Some(name) != chosen.as_ref(), name.clone()));
    let (wished, chosen) = (&wished, chosen.as_deref());
    let ask = |data_store: String| async move {
        let tenancy = reach(ctx, &data_store)?;
        let _turn = CHECKS.take(&data_store).await;
        let work = async {
            // Mostly it has what it asked for, which is quickly seen.
            if Some(data_store.as_str()) == chosen
                && drivers::row(driver(ctx, &data_store)).has_many_claims
                && tenancy.check(wished, None).await == Ok(Access::Exact)
            {
                return Ok(vec![wished.clone()]);
            }
            tenancy.claims(uid).await
        };
        let found = tokio::time::timeout(timing::STORE_DEADLINE, work).await;
        found.ok()?.ok()
    };
    let found = find(names, chosen, ask).await?;
    Ok(found.map(|found| {
        let held = Held {
            data_store: found.data_store,
            claim: health::settle(wished, &found.claims),
        };
        (held, found.left)
    }))
}

/// Where a tenant is served from.
struct Found {
    data_store: String,
    /// What it has claimed there.
    claims: Vec<Claim>,
    /// Where it was met frozen before that.
    left: Option<String>,
}

/// The first of the datastores that serves the tenant, and what it has claimed there. `ask`
/// says `None` where there is no answer. Where the tenant is said to be is asked before all
/// others: reading all claims of all others because that one is silent would help nobody.
///
/// One that has a claim by which nothing can be written is where the tenant is served from
/// only if no other one is: its data may have been moved just now.
async fn find<F, A>(names: Vec<String>, chosen: Option<&str>, ask: F) -> Result<Option<Found>, ()>
where
    F: Fn(String) -> A,
    A: Future<Output = Option<Vec<Claim>>>,
{
    let mut silent = false;
    let mut frozen: Option<Found> = None;
    for data_store in names {
        let Some(mut found) = ask(data_store.clone()).await else {
            if Some(data_store.as_str()) == chosen {
                return Err(());
            }
            silent = true;
            continue;
        };
        let stage = |stage| move |claim: &Claim| claim.stage == stage;
        if found.iter().any(stage(Stage::Serving)) {
            found.retain(stage(Stage::Serving));
            return Ok(Some(Found {
                data_store,
                claims: found,
                left: frozen.map(|it| it.data_store),
            }));
        }
        found.retain(stage(Stage::Frozen));
        if !found.is_empty() {
            frozen.get_or_insert(Found {
                data_store,
                claims: found,
                left: None,
            });
        }
    }
    if silent { Err(()) } else { Ok(frozen) }
}

/// A datastore that answers. The breaker: one that does not is asked by one
/// task only.
pub fn reach(ctx: &Context, data_store: &str) -> Option<Arc<dyn Tenancy>> {
    let store = ctx.caches.data_store(data_store)?;
    let uid = store.metadata.uid.as_deref().unwrap_or_default();
    let health = ctx.facts.store(uid).health();
    if !answers(health.as_ref()) {
        return None;
    }
    ctx.connections.get(&store, &ctx.caches).ok()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use storage::tenancy::Stage;

    use super::*;
    use crate::tenant::testing::claim;

    /// Looks in `a` and `b`, of which some do not answer; what was found, and which
    /// were asked.
    async fn found(
        chosen: &str,
        silent: &[&str],
        holder: &str,
    ) -> (Result<Option<String>, ()>, Vec<String>) {
        let asked = Mutex::new(Vec::new());
        let ask = |name: String| {
            let answer = match name.as_str() {
                silent_one if silent.contains(&silent_one) => None,
                name if name == holder => Some(vec![claim()]),
                _ => Some(vec![]),
            };
            asked.lock().push(name);
            async { answer }
        };
        let names = vec!["a".to_owned(), "b".to_owned()];
        let found = find(names, Some(chosen), ask).await;
        let found = found.map(|found| found.map(|it| it.data_store));
        (found, asked.into_inner())
    }

    #[tokio::test]
    async fn a_silent_datastore_does_not_set_all_others_to_work() {
        let (what, asked) = found("a", &["a"], "b").await;
        assert_eq!((what, asked.len()), (Err(()), 1));
        let (what, asked) = found("a", &[], "b").await;
        assert_eq!((what, asked.len()), (Ok(Some("b".into())), 2));
        assert_eq!(found("a", &["b"], "").await.0, Err(()));
        assert_eq!(found("a", &[], "").await.0, Ok(None));
        // The one that was chosen is gone.
        assert_eq!(found("gone", &["a"], "b").await.0, Ok(Some("b".into())));
    }

    /// Moved just now: the former place is frozen, and what is kept or comes is no place.
    #[tokio::test]
    async fn a_tenant_is_served_from_where_it_can_write() {
        let found = async |stages: &[(&str, Stage)]| {
            let ask = |name: String| {
                let of = |it: &&(&str, Stage)| it.0 == name;
                let claims = stages
                    .iter()
                    .filter(of)
                    .map(|(_, stage)| claim().at(*stage));
                let claims = claims.collect();
                async { Some(claims) }
            };
            let names = vec!["a".to_owned(), "b".to_owned()];
            let found = find(names, Some("a"), ask).await.unwrap();
            found.map(|it| (it.data_store, it.claims[0].stage, it.left))
        };
        let at = |name: &str, stage| Some((name.to_owned(), stage, None));
        // What is left in the first is known to nobody else, if who moved it has ended.
        let both = [("a", Stage::Frozen), ("b", Stage::Serving)];
        let moved = Some(("b".to_owned(), Stage::Serving, Some("a".to_owned())));
        assert_eq!(found(&both).await, moved);
        let copying = [("a", Stage::Frozen), ("b", Stage::Incoming)];
        assert_eq!(found(&copying).await, at("a", Stage::Frozen));
        let kept = [("a", Stage::Left), ("b", Stage::Serving)];
        assert_eq!(found(&kept).await, at("b", Stage::Serving));
        assert_eq!(found(&[("a", Stage::Left)]).await, None);
        assert_eq!(found(&[("b", Stage::Incoming)]).await, None);
    }

    #[test]
    fn claims_are_read_in_a_datastore_without_space() {
        let problem = |kind| {
            Err(StoreProblem {
                kind,
                message: String::new(),
            })
        };
        assert!(answers(Some(&Ok(StoreHealth::default()))));
        assert!(answers(Some(&problem(StoreProblemKind::Full))));
        assert!(!answers(Some(&problem(StoreProblemKind::Unreachable))));
        assert!(!answers(Some(&problem(StoreProblemKind::Insecure))));
        assert!(!answers(None));
    }
}
