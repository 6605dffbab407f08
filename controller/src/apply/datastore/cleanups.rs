//! Clean-ups that a DataStore has to make up for: they are recorded in its status, and done
//! when it can be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use apiservice::{
    condition::reason,
    v1alpha1::{DataStore, DataStoreStatus, PendingCleanup},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use storage::tenancy::{Claim, Stage, Tenancy, TenancyError};

use crate::apply;
use crate::apply::objects::failed;
use crate::cluster::key::Key;
use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::process::lease::Unfinished;
use crate::process::timing;
use crate::tenant::deletion;
use crate::tenant::plan::Outcome;
use crate::tenant::world::World;

/// Clean-ups that one DataStore has to make up for. Their entries have a few hundred bytes
/// each, and all have to fit into its status.
const MOST_PENDING: usize = 1_000;
/// Those of one namespace of which nothing but a claim may be there: anybody can make and
/// delete tenants while a database does not answer.
const MOST_UNPROVEN: usize = 100;
/// Characters of the reason in an entry.
const MESSAGE: usize = 200;

/// What became of a clean-up that is to be recorded.
#[derive(Debug, Clone, PartialEq)]
enum Recorded {
    /// It is recorded, in place of another one if there was no room.
    InPlaceOf(Option<PendingCleanup>),
    /// There is no room for it.
    NoRoom,
}

/// Adds a clean-up to those that a DataStore has to make up for. Where they are too many,
/// one of the namespace with the most of them gives way to one of a namespace with fewer,
/// and one that may have nothing there to one that has data.
fn record(pending: &mut Vec<PendingCleanup>, entry: PendingCleanup) -> Recorded {
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

/// Records on the DataStore what is to be cleaned up later (rule 18). `known`: the tenant
/// has data there, so that its absence is not believed at once. An entry without a user
/// stands for what may not be there. Where there is no room for it, an Event says what
/// stays in the database, and the deletion goes on.
pub async fn defer(
    ctx: &Context,
    world: &World,
    claim: &Claim,
    data_store: &str,
    known: bool,
    why: &str,
) -> Outcome {
    let Some(store) = ctx.caches.data_store(data_store) else {
        return Outcome::Failed {
            reason: reason::DATA_STORE_NOT_FOUND.into(),
            message: format!("DataStore {data_store} is not there to record the clean-up on"),
            retry: true,
            finding: None,
        };
    };
    let mut status = store.status.clone().unwrap_or_default();
    if status
        .pending_cleanups
        .iter()
        .any(|pending| pending.uid == claim.uid)
    {
        return Outcome::Unchanged;
    }
    let entry = PendingCleanup {
        not_before: None,
        uid: claim.uid.clone(),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        schema: Some(claim.schema.clone()),
        user: known.then(|| claim.user.clone()),
        message: Some(why.chars().take(MESSAGE).collect()),
    };
    let too_many = format!("DataStore {data_store} has too many clean-ups to make up for");
    let displaced = match record(&mut status.pending_cleanups, entry) {
        Recorded::InPlaceOf(displaced) => displaced,
        Recorded::NoRoom => {
            let message = format!(
                "{too_many}, so this one is not recorded: schema {} and user {} stay in its \
                 database, if they are there. Remove them there when it is back.",
                claim.schema, claim.user
            );
            tracing::warn!(tenant = world.tenant_name(), "{message}");
            let tenant = world.tenant.as_ref();
            ctx.events
                .tell(tenant, true, reason::CLEANUP_DEFERRED, &message)
                .await;
            return Outcome::Done;
        }
    };
    match apply::store_status(ctx, &store, &status).await {
        Ok(()) => {
            if let Some(it) = displaced {
                let text = |it: &Option<String>| it.clone().unwrap_or_default();
                let message = format!(
                    "{too_many}, so one of namespace {} is no longer recorded: schema {} of \
                     tenant {} stays in its database, with its user, if they are there. Remove \
                     them there when it is back.",
                    text(&it.namespace),
                    text(&it.schema),
                    text(&it.name)
                );
                tracing::warn!(data_store, "{message}");
                ctx.events
                    .tell(store.as_ref(), true, reason::CLEANUP_DEFERRED, &message)
                    .await;
            }
            ctx.queue.add(Key::DataStore(data_store.to_owned()));
            Outcome::Done
        }
        Err(refusal) => failed(refusal),
    }
}

/// What a tenant that lives has left in a DataStore, or may have.
pub struct Left<'a> {
    /// The tenant's names, there or where it is now.
    pub claim: &'a Claim,
    /// It is removed then.
    pub until: Timestamp,
    /// There has to be something.
    pub known: bool,
    /// A sentence about it.
    pub why: &'a str,
}

/// Records on a DataStore what a tenant has left there whose data is elsewhere.
///
/// # Errors
/// A sentence: the DataStore is not there, or cannot be written now.
pub async fn keep_until(ctx: &Context, data_store: &str, left: &Left<'_>) -> Result<(), String> {
    let claim = left.claim;
    let store = current(ctx, data_store)?;
    let mut status = store.status.clone().unwrap_or_default();
    let pending = &mut status.pending_cleanups;
    pending.retain(|it| it.uid != claim.uid);
    let entry = PendingCleanup {
        not_before: Some(Time(left.until)),
        uid: claim.uid.clone(),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        schema: Some(claim.schema.clone()),
        user: left.known.then(|| claim.user.clone()),
        message: Some(left.why.chars().take(MESSAGE).collect()),
    };
    if record(pending, entry) == Recorded::NoRoom {
        return Err(format!(
            "DataStore {data_store} has too many clean-ups to make up for"
        ));
    }
    write_pending(ctx, &store, &status).await
}

/// Takes back what [`keep_until`] has recorded, before data comes to this DataStore again.
///
/// # Errors
/// As there.
pub async fn keep_no_more(ctx: &Context, uid: &str, data_store: &str) -> Result<(), String> {
    let store = current(ctx, data_store)?;
    let mut status = store.status.clone().unwrap_or_default();
    status.pending_cleanups.retain(|it| it.uid != uid);
    write_pending(ctx, &store, &status).await
}

fn current(ctx: &Context, data_store: &str) -> Result<Arc<DataStore>, String> {
    let name = NamespacedName::new("", data_store);
    let store = ctx.caches.data_stores.get(&name);
    store.ok_or_else(|| format!("DataStore {data_store} does not exist"))
}

async fn write_pending(
    ctx: &Context,
    store: &DataStore,
    status: &DataStoreStatus,
) -> Result<(), String> {
    let written = apply::store_status(ctx, store, status).await;
    let name = store.metadata.name.clone().unwrap_or_default();
    ctx.queue.add(Key::DataStore(name));
    written.map_err(|refusal| refusal.message)
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
    /// Whether a database with these claims is the right one. One that lacks the claim of
    /// a tenant that was Ready may have been given others while it took its place.
    fn hold(&self, known: &BTreeSet<String>) -> bool {
        let some = !known.is_disjoint(&self.tenants) || !known.is_disjoint(&self.left);
        some && self.tenants.is_subset(known)
    }
}

/// What became of a clean-up that was put off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned {
    /// Nothing is left, and the names are free again.
    Whole,
    /// Nothing is left but the claim, which is to be noted before that is released.
    ButClaim,
    /// Not yet, for this reason.
    Not(String),
}

/// Does all of a deletion that was put off; while some of the tenant's pods may run, for
/// which `running` is the reason, no more than to revoke. `proofs` tell the right database.
/// Of a tenant that `lives` it is what was left when its data was moved elsewhere.
pub async fn clean_up(
    ctx: &Context,
    store: &DataStore,
    pending: &PendingCleanup,
    proofs: &Proofs,
    lives: bool,
    running: Option<String>,
) -> Cleaned {
    let tenancy = match ctx.connections.get(store, &ctx.caches) {
        Ok(tenancy) => tenancy,
        Err(error) => return Cleaned::Not(error.to_string()),
    };
    let work = clean(tenancy.as_ref(), pending, proofs, lives, running);
    match ctx.leadership.within(timing::DROP_DEADLINE, work).await {
        Ok(Ok(cleaned)) => cleaned,
        Ok(Err(TenancyError::SchemaTaken { .. })) => Cleaned::Whole,
        Ok(Err(error)) => Cleaned::Not(error.to_string()),
        Err(Unfinished::Late(_)) => Cleaned::Not("the datastore does not answer".into()),
        Err(ended) => Cleaned::Not(ended.to_string()),
    }
}

/// Why such a clean-up waits, and what ends it.
fn unclaimed() -> String {
    format!(
        "{}; put the right one back or, if that is lost for good, remove the entry from \
         status.pendingCleanups",
        deletion::UNCLAIMED
    )
}

async fn clean(
    tenancy: &dyn Tenancy,
    pending: &PendingCleanup,
    proofs: &Proofs,
    lives: bool,
    running: Option<String>,
) -> Result<Cleaned, TenancyError> {
    // Found by uid: the record on the DataStore is a status like another.
    let mut claims = tenancy.claims(&pending.uid).await?;
    // What a tenant that lives is served from is not what it has left.
    if lives {
        claims.retain(|claim| claim.stage != Stage::Serving);
    }
    // A user is named for as long as there has to be a claim.
    if claims.is_empty() && pending.user.is_some() {
        let known = tenancy.claimants().await?;
        if !proofs.hold(&known) {
            return Ok(Cleaned::Not(unclaimed()));
        }
    }
    let mut left = 0;
    for claim in &claims {
        tenancy.revoke(claim).await?;
        if running.is_some() {
            continue;
        }
        tenancy.drop_data(claim).await?;
        left += tenancy.remaining(claim).await?;
    }
    if let Some(why) = running {
        return Ok(Cleaned::Not(why));
    }
    if left > 0 {
        return Ok(Cleaned::Not(format!("{left} keys are still there")));
    }
    if !claims.is_empty() && pending.user.is_some() {
        return Ok(Cleaned::ButClaim);
    }
    for claim in &claims {
        tenancy.release(claim).await?;
    }
    Ok(Cleaned::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastores::testing::Fake;

    fn entry(user: Option<&str>) -> PendingCleanup {
        PendingCleanup {
            not_before: None,
            uid: "gone".into(),
            user: user.map(str::to_owned),
            ..PendingCleanup::default()
        }
    }

    async fn cleaned(store: &Fake, entry: &PendingCleanup) -> Cleaned {
        let proofs = Proofs {
            tenants: ["lives".to_owned()].into(),
            left: ["went".to_owned()].into(),
        };
        clean(store, entry, &proofs, false, None).await.unwrap()
    }

    /// Nothing is removed of where a tenant is served from, while it is there; once it has
    /// gone, all is.
    #[tokio::test]
    async fn what_a_tenant_has_left_is_not_what_it_has() {
        let entry = PendingCleanup {
            not_before: Some(Time(Timestamp::UNIX_EPOCH)),
            ..entry(None)
        };
        let proofs = Proofs::default();
        for (stage, lives, expected) in [
            (Stage::Serving, true, 1),
            (Stage::Serving, false, 0),
            (Stage::Left, true, 0),
            (Stage::Frozen, true, 0),
            (Stage::Incoming, true, 0),
        ] {
            let store = Fake::with(&["gone"]);
            store.claims.lock()[0].0.stage = stage;
            clean(&store, &entry, &proofs, lives, None).await.unwrap();
            assert_eq!(store.uids().len(), expected, "{stage:?}, lives: {lives}");
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

    /// An etcd that has none of our tenants tells nothing about one that has gone.
    #[tokio::test]
    async fn a_clean_up_waits_for_the_right_database() {
        let owed = entry(Some("u"));
        let waits = Cleaned::Not(unclaimed());
        for wrong in [
            Fake::default(),
            Fake::with(&["of another installation"]),
            // What another left there does not outweigh the lack of one that was Ready.
            Fake::with(&["went"]),
        ] {
            assert_eq!(cleaned(&wrong, &owed).await, waits);
        }
        // The right one without it: an older state, or somebody has tidied up.
        let right = Fake::with(&["lives"]);
        assert_eq!(cleaned(&right, &owed).await, Cleaned::Whole);
        // The right one is back, and has nobody else's.
        let right = Fake::with(&["gone"]);
        assert_eq!(cleaned(&right, &owed).await, Cleaned::ButClaim);
        assert_eq!(right.uids(), ["gone"]);
        assert_eq!(right.claims.lock()[0].1, 0, "its data is removed");
    }

    /// The claim is released after it was noted that nothing else is left. Whoever finds
    /// none after that, because the controller ended in between, is done.
    #[tokio::test]
    async fn a_claim_that_was_released_is_waited_for_by_nobody() {
        let store = Fake::with(&["gone"]);
        let noted = entry(None);
        assert_eq!(cleaned(&store, &noted).await, Cleaned::Whole);
        assert!(store.uids().is_empty());
        assert_eq!(cleaned(&store, &noted).await, Cleaned::Whole);
    }
}
