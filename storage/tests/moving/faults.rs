//! What goes wrong ends with a source that serves and a target with nothing in it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::CompactionOptions;
use storage::moving::{self, Limits, MoveError, Phase, Progress, Side};
use storage::tenancy::contents::Contents;
use storage::tenancy::{
    Access, Claim, Compaction, Connection, Data, Health, Password, Stage, Tenancy, TenancyError,
    connect,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Driver;
use crate::lab::Etcd;
use crate::lab::sql::{
    Kind, connection, mysql_administrator, mysql_tenant, run, run_mysql, secret, start, tenant,
};
use crate::pairs::limits;
use crate::tenant::{Ways, create};
use crate::writer::{Writers, differences};
use storage::tenancy::etcd::bootstrap;

/// A move that does something when it comes to a phase.
async fn run_until(
    ways: &Ways,
    limits: &Limits,
    phase: Phase,
    act: impl FnMut() + Send,
) -> Result<moving::Report, MoveError> {
    let stop = CancellationToken::new();
    run_with(ways, limits, phase, act, &stop).await
}

async fn run_with(
    ways: &Ways,
    limits: &Limits,
    phase: Phase,
    act: impl FnMut() + Send,
    stop: &CancellationToken,
) -> Result<moving::Report, MoveError> {
    let act = Mutex::new((false, act));
    let told = |progress: Progress| {
        let mut act = act.lock().unwrap();
        if progress.phase == phase && !act.0 {
            act.0 = true;
            (act.1)();
        }
    };
    moving::run(&ways.source, &ways.target, limits, &told, stop).await
}

async fn filled(from: Driver, to: Driver) -> Ways {
    let ways = Ways::new(from, to).await;
    let mut api = ways.at_source().await;
    for number in 0..50 {
        let key = format!("{}/pods/{number}", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
    }
    ways
}

/// The source serves, with all that it had, and takes writes.
async fn as_before(ways: &Ways) {
    ways.source_serves().await;
    let mut api = ways.at_source().await;
    let (found, _) = api.list(&ways.prefix).await;
    assert!(found.len() >= 50, "{}", found.len());
    let key = format!("{}/after{}", ways.prefix, rand::random::<u32>());
    assert!(create(&mut api.client, &key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_every_phase() {
    for (from, to) in [
        (Driver::PostgreSql, Driver::Etcd),
        (Driver::Etcd, Driver::MariaDb),
        (Driver::MariaDb, Driver::PostgreSql),
        (Driver::Nats, Driver::Etcd),
        (Driver::PostgreSql, Driver::Nats),
    ] {
        let ways = filled(from, to).await;
        for phase in [
            Phase::Preparing,
            Phase::Copying,
            Phase::Following,
            Phase::Freezing,
            Phase::Verifying,
        ] {
            let stop = CancellationToken::new();
            let ended = run_with(&ways, &limits(), phase, || stop.cancel(), &stop).await;
            assert_eq!(
                ended,
                Err(MoveError::Aborted),
                "{from:?} to {to:?} at {phase:?}"
            );
            // What is left without a claim would have the next attempt refused.
            let claims = ways.source.tenancy.claims(&ways.source.claim.uid).await;
            assert_eq!(claims, Ok(vec![ways.source.claim.clone()]), "{phase:?}");
            let claims = ways.target.tenancy.claims(&ways.target.claim.uid).await;
            let schema = &ways.target.claim.schema;
            assert!(
                !claims.unwrap().iter().any(|it| it.schema == *schema),
                "{phase:?}"
            );
        }
        as_before(&ways).await;
        ways.target_is_clean().await;
        // Too late to stop, and it moves after all that.
        let stop = CancellationToken::new();
        let done = run_with(&ways, &limits(), Phase::Switching, || stop.cancel(), &stop).await;
        assert_eq!(done.unwrap().keys, 51, "{from:?} to {to:?}");
        let undone = moving::undo(&ways.source, &ways.target).await;
        assert!(
            matches!(undone, Err(TenancyError::Refused(_))),
            "{undone:?}"
        );
    }
}

/// A datastore of which a change of the stage fails, in one way or another.
struct Failing {
    real: Arc<dyn Tenancy>,
    /// Somebody else's request arrives first, which was on its way for long.
    late: bool,
}

#[async_trait]
impl Tenancy for Failing {
    async fn verify(&self) -> Result<Health, TenancyError> {
        self.real.verify().await
    }

    async fn claims(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        self.real.claims(uid).await
    }

    async fn claimants(&self) -> Result<BTreeSet<String>, TenancyError> {
        self.real.claimants().await
    }

    async fn prepare(
        &self,
        claim: &Claim,
        password: Option<&Password>,
        data: Data,
    ) -> Result<(), TenancyError> {
        self.real.prepare(claim, password, data).await
    }

    async fn check(&self, claim: &Claim, with: Option<&Password>) -> Result<Access, TenancyError> {
        self.real.check(claim, with).await
    }

    async fn revoke(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.real.revoke(claim).await
    }

    async fn drop_data(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.real.drop_data(claim).await
    }

    async fn remaining(&self, claim: &Claim) -> Result<u64, TenancyError> {
        self.real.remaining(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), TenancyError> {
        self.real.release(claim).await
    }

    async fn turn(
        &self,
        claim: &Claim,
        to: Stage,
        password: Option<&Password>,
    ) -> Result<Claim, TenancyError> {
        if !self.late {
            return Err(TenancyError::Unreachable("it hangs".to_owned()));
        }
        if claim.stage == Stage::Incoming {
            let served = self.real.turn(claim, Stage::Serving, password).await;
            served.unwrap();
        }
        self.real.turn(claim, to, password).await
    }

    async fn contents<'a>(
        &'a self,
        claim: &Claim,
        password: Option<&Password>,
    ) -> Result<Box<dyn Contents + 'a>, TenancyError> {
        self.real.contents(claim, password).await
    }

    fn through_kine(&self) -> bool {
        self.real.through_kine()
    }

    async fn compact_older_than(&self, revision: u64) -> Result<Compaction, TenancyError> {
        self.real.compact_older_than(revision).await
    }
}

/// Somebody has frozen the source and asked the target to serve, and nobody knows what became of
/// that: the source does not serve before it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_in_two_places() {
    for (late, to) in [false, true]
        .into_iter()
        .flat_map(|late| [Driver::MariaDb, Driver::Nats].map(|to| (late, to)))
    {
        let mut ways = filled(Driver::PostgreSql, to).await;
        let (source, target) = (ways.source.clone(), ways.target.clone());
        let incoming = target.claim.at(Stage::Incoming);
        let password = target.password.as_ref();
        let prepared = target.tenancy.prepare(&incoming, password, Data::New);
        prepared.await.unwrap();
        let frozen = source.tenancy.turn(&source.claim, Stage::Frozen, None);
        let frozen = frozen.await.unwrap();

        let real = target.tenancy.clone();
        ways.target.tenancy = Arc::new(Failing { real, late });
        let stop = CancellationToken::new();
        let ended = moving::run(&ways.source, &ways.target, &limits(), &|_| (), &stop).await;
        assert!(ended.is_err(), "{ended:?}");
        let claims = source.tenancy.claims(&source.claim.uid).await;
        assert_eq!(claims, Ok(vec![frozen]), "late: {late}");

        // It arrives, if it has not yet.
        let served = target.tenancy.turn(&incoming, Stage::Serving, password);
        assert_eq!(served.await.unwrap().stage, Stage::Serving);
        let found = moving::run(&source, &target, &limits(), &|_| (), &stop).await;
        assert!(found.unwrap().done_before, "late: {late}");
    }
}

/// A move away from there ended while it could not be reached, and the tenant comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_to_where_it_was_frozen() {
    for (from, to) in [
        (Driver::PostgreSql, Driver::MariaDb),
        (Driver::Nats, Driver::PostgreSql),
    ] {
        let ways = filled(from, to).await;
        let stop = CancellationToken::new();
        let there = moving::run(&ways.source, &ways.target, &limits(), &|_| (), &stop).await;
        there.unwrap();
        let claims = ways.source.tenancy.claims(&ways.source.claim.uid).await;
        assert_eq!(claims.unwrap()[0].stage, Stage::Frozen);
        let back = moving::run(&ways.target, &ways.source, &limits(), &|_| (), &stop).await;
        assert_eq!(back.unwrap().keys, 50);
        as_before(&ways).await;
    }
}

/// The table is the tenant's: what no API server writes is not read, however much it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_and_not_read() {
    for (from, name, value) in [
        (
            Driver::PostgreSql,
            "",
            "pg_catalog.repeat('x', 100000000)::bytea",
        ),
        (
            Driver::PostgreSql,
            " || pg_catalog.repeat('x', 50000000)",
            "'x'",
        ),
        (Driver::MariaDb, "", "repeat('x', 10000000)"),
    ] {
        let ways = filled(from, Driver::MariaDb).await;
        let server = ways.servers.sql(from);
        let claim = &ways.source.claim;
        let columns = "name, created, deleted, create_revision, prev_revision, lease, value";
        let name = format!("'{}/pods/x'{name}", ways.prefix);
        let sql = format!("insert into kine ({columns}) values ({name}, 1, 0, 0, 0, 0, {value})");
        match from {
            Driver::PostgreSql => {
                let mut own = tenant(server, claim).await.unwrap();
                run(&mut own, "drop index kine_name_index, kine_name_id_index, kine_list_query_index, kine_name_prev_revision_uindex").await;
                run(&mut own, &sql).await;
            }
            _ => {
                let mut own = mysql_tenant(server, claim).await.unwrap();
                run_mysql(&mut own, &sql).await;
            }
        }
        let stop = CancellationToken::new();
        let ended = moving::run(&ways.source, &ways.target, &limits(), &|_| (), &stop).await;
        let Err(MoveError::Refused(why)) = ended else {
            panic!("{from:?}: {ended:?}")
        };
        assert!(
            why.contains("no API server writes") && why.len() < 500,
            "{why}"
        );
        ways.source_serves().await;
        ways.target_is_clean().await;
    }
}

/// Whoever was ended while the source was frozen has left it so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_was_killed() {
    for (from, to) in [
        (Driver::Etcd, Driver::PostgreSql),
        (Driver::MariaDb, Driver::Etcd),
        (Driver::Nats, Driver::OtherNats),
    ] {
        let ways = filled(from, to).await;
        for phase in [Phase::Copying, Phase::Verifying] {
            let (tell, hear) = tokio::sync::oneshot::channel();
            let mut tell = Some(tell);
            let limits = limits();
            let running = run_until(&ways, &limits, phase, || {
                let _ = tell.take().unwrap().send(());
            });
            tokio::select! {
                done = running => panic!("{done:?}"),
                _ = hear => {}
            }
            if phase == Phase::Copying {
                // The next attempt begins anew where the first one was.
                continue;
            }
            let claims = ways
                .source
                .tenancy
                .claims(&ways.source.claim.uid)
                .await
                .unwrap();
            assert!(
                claims.iter().any(|claim| claim.stage == Stage::Frozen),
                "{claims:?}"
            );
            moving::undo(&ways.source, &ways.target).await.unwrap();
            moving::undo(&ways.source, &ways.target).await.unwrap();
            as_before(&ways).await;
            ways.target_is_clean().await;
        }
        let serving = ways.source.claim.clone();
        ways.source
            .tenancy
            .turn(&serving, Stage::Frozen, None)
            .await
            .unwrap();
        let (report, _) = crate::pairs::run(&ways, &limits()).await;
        assert_eq!(report.keys, 51);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_kept() {
    let ways = filled(Driver::PostgreSql, Driver::MariaDb).await;
    let freeze = Duration::from_millis(1);
    let short = Limits { freeze, ..limits() };
    let ended = run_until(&ways, &short, Phase::Copying, || ()).await;
    assert_eq!(ended, Err(MoveError::FrozenTooLong(freeze)));
    as_before(&ways).await;
    ways.target_is_clean().await;
    let whole = Duration::from_millis(1);
    let short = Limits {
        whole: Some(whole),
        ..limits()
    };
    let ended = run_until(&ways, &short, Phase::Copying, || ()).await;
    assert_eq!(ended, Err(MoveError::TookTooLong(whole)));
    as_before(&ways).await;
    ways.target_is_clean().await;
}

/// The source forgets what was to be followed, and comes to where the target began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_and_a_margin_that_is_overtaken() {
    for compacts in [true, false] {
        for (from, to) in [
            (Driver::Etcd, Driver::PostgreSql),
            (Driver::MariaDb, Driver::PostgreSql),
            // It forgets nothing that is to be followed.
            (Driver::Nats, Driver::OtherNats),
        ] {
            if compacts && from.is_nats() {
                continue;
            }
            let ways = filled(from, to).await;
            let api = ways.at_source().await;
            let writers = Writers::start(&api.client, &ways.prefix);
            writers.wait_for(100).await;
            let mut done = false;
            let servers = ways.servers.clone();
            let schema = ways.source.claim.schema.clone();
            let handle = tokio::runtime::Handle::current();
            // While keys are copied, the source is compacted up to now.
            let compact = || {
                if !compacts || std::mem::replace(&mut done, true) {
                    return;
                }
                let work = async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    match from {
                        Driver::MariaDb => {
                            let mut root = mysql_administrator(servers.sql(from)).await;
                            let sql = format!(
                                "update `{schema}`.kine k, (select max(id) as id from \
                                 `{schema}`.kine) m set k.prev_revision = m.id \
                                 where k.name = 'compact_rev_key'"
                            );
                            run_mysql(&mut root, &sql).await;
                        }
                        _ => {
                            let etcd = servers.etcd(from);
                            let mut root = etcd.client(&etcd.authority.client("root")).await;
                            let now = root.get("x", None).await.unwrap();
                            let now = now.header().unwrap().revision();
                            root.compact(now, Some(CompactionOptions::new()))
                                .await
                                .unwrap();
                        }
                    }
                };
                tokio::task::block_in_place(|| handle.block_on(work));
            };
            let limits = Limits {
                margin: Some(if compacts { 50_000 } else { 3 }),
                ..limits()
            };
            let report = run_until(&ways, &limits, Phase::Following, compact)
                .await
                .unwrap();
            assert!(report.begun_anew > 0, "{from:?}, {compacts}: {report:?}");
            assert!(report.source_revision < report.target_revision);
            let book = writers.end().await;
            let (mut found, _) = ways.at_target().await.list(&ways.prefix).await;
            found.retain(|key, _| key.starts_with("/pods/w"));
            assert_eq!(differences(&book, &found), Vec::<String>::new(), "{from:?}");
        }
    }
}

/// A target that does not answer, a target that is full, and a source that does not answer
/// while it is frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_fail() {
    let mut ways = filled(Driver::PostgreSql, Driver::Etcd).await;
    let slow = |mut connection: Connection| {
        connection.deadline = Duration::from_secs(1);
        connect(connection).unwrap().into()
    };
    let etcd = Etcd::start();
    let root = etcd.authority.client("root");
    bootstrap(etcd.connection(&root)).await.unwrap();
    ways.target.tenancy = slow(etcd.connection(&root));
    for phase in [Phase::Copying, Phase::Verifying] {
        let ended = run_until(&ways, &limits(), phase, || etcd.signal("STOP")).await;
        assert!(
            matches!(ended, Err(MoveError::Target(TenancyError::Unreachable(_)))),
            "{ended:?}"
        );
        as_before(&ways).await;
        etcd.signal("CONT");
        moving::undo(&ways.source, &ways.target).await.unwrap();
        ways.target_is_clean().await;
    }

    let full = Etcd::start_with(&["--client-cert-auth", "--quota-backend-bytes=1500000"]);
    let root = full.authority.client("root");
    bootstrap(full.connection(&root)).await.unwrap();
    ways.target.tenancy = connect(full.connection(&root)).unwrap().into();
    let mut api = ways.at_source().await;
    for number in 0..30 {
        let key = format!("{}/large/{number}", ways.prefix);
        let absent =
            etcd_client::Compare::mod_revision(key.clone(), etcd_client::CompareOp::Equal, 0);
        let put = etcd_client::TxnOp::put(key, vec![b'x'; 100_000], None);
        let txn = etcd_client::Txn::new().when([absent]).and_then([put]);
        assert!(api.client.txn(txn).await.unwrap().succeeded());
    }
    // How far it is raised is the tenant's to say: half of the room is not for that.
    let ended = run_until(&ways, &limits(), Phase::Copying, || ()).await;
    let Err(MoveError::Refused(why)) = ended else {
        panic!("{ended:?}")
    };
    assert!(why.contains("half of them are kept free"), "{why}");
    as_before(&ways).await;
    let narrow = Limits {
        margin: Some(100),
        ..limits()
    };
    let ended = run_until(&ways, &narrow, Phase::Copying, || ()).await;
    assert!(
        matches!(ended, Err(MoveError::Target(TenancyError::NoSpace(_)))),
        "{ended:?}"
    );
    as_before(&ways).await;
    moving::undo(&ways.source, &ways.target).await.unwrap();
    ways.target_is_clean_but_full().await;

    // A server of its own: it stops.
    let server = start(Kind::MariaDb);
    let other = Ways::new(Driver::MariaDb, Driver::PostgreSql).await;
    let source = Side {
        tenancy: slow(connection(&server)),
        claim: Claim {
            stage: Stage::Serving,
            ..other.target.claim.clone()
        },
        password: other.source.password.clone(),
    };
    let ways = Ways { source, ..other };
    let prepared = ways.source.tenancy.prepare(
        &ways.source.claim,
        ways.source.password.as_ref(),
        storage::tenancy::Data::New,
    );
    prepared.await.unwrap();
    let stop = || server.signal("STOP").unwrap();
    let ended = run_until(&ways, &limits(), Phase::Verifying, stop).await;
    assert!(
        matches!(ended, Err(MoveError::Source(TenancyError::Unreachable(_)))),
        "{ended:?}"
    );
    ways.target_is_clean().await;
    server.signal("CONT").unwrap();
    let began = Instant::now();
    while let Err(error) = moving::undo(&ways.source, &ways.target).await {
        assert!(began.elapsed() < Duration::from_secs(10), "{error}");
    }
    ways.source_serves().await;
}

/// The target has no space left when it is to be put in service. That was answered: the tenant
/// does not wait until somebody makes room there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_full_at_the_end() {
    for killed in [false, true] {
        let mut ways = filled(Driver::PostgreSql, Driver::Etcd).await;
        let full = Etcd::start_with(&["--client-cert-auth", "--quota-backend-bytes=8000000"]);
        let root = full.authority.client("root");
        bootstrap(full.connection(&root)).await.unwrap();
        ways.target.tenancy = connect(full.connection(&root)).unwrap().into();
        let handle = tokio::runtime::Handle::current();
        let fill = async || {
            let mut root = full.client(&root).await;
            for number in 0..1000 {
                let put = root
                    .put(format!("fill/{number}"), vec![b'x'; 500_000], None)
                    .await;
                if put.is_err() {
                    return;
                }
            }
            panic!("it takes more than it has");
        };
        let narrow = Limits {
            margin: Some(100),
            ..limits()
        };
        if killed {
            // By whoever was ended before that.
            let (password, incoming) = (secret(), ways.target.claim.at(Stage::Incoming));
            let prepared = ways
                .target
                .tenancy
                .prepare(&incoming, Some(&password), Data::New);
            prepared.await.unwrap();
            let source = &ways.source;
            let frozen = source
                .tenancy
                .turn(&source.claim, Stage::Frozen, None)
                .await;
            frozen.unwrap();
            fill().await;
            moving::undo(&ways.source, &ways.target).await.unwrap();
        } else {
            let act = || tokio::task::block_in_place(|| handle.block_on(fill()));
            let ended = run_until(&ways, &narrow, Phase::Switching, act).await;
            assert!(
                matches!(ended, Err(MoveError::Target(TenancyError::NoSpace(_)))),
                "{ended:?}"
            );
        }
        as_before(&ways).await;
        ways.target_is_clean_but_full().await;
    }
}

/// Values that are bound to their keys do not go where the keys are others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_are_bound_to_their_keys() {
    let mut ways = filled(Driver::PostgreSql, Driver::Etcd).await;
    let mut api = ways.at_source().await;
    let key = format!("{}/secrets/x", ways.prefix);
    let absent = etcd_client::Compare::mod_revision(key.clone(), etcd_client::CompareOp::Equal, 0);
    let put = etcd_client::TxnOp::put(key, "k8s:enc:kms:v2:x", None);
    let txn = etcd_client::Txn::new().when([absent]).and_then([put]);
    assert!(api.client.txn(txn).await.unwrap().succeeded());
    let kept = ways.target.claim.clone();
    ways.target.claim.schema += "_x";
    ways.target.claim.role = Some(Claim::role_of(&ways.target.claim.schema, &kept.uid));
    let ended = run_until(&ways, &limits(), Phase::Copying, || ()).await;
    assert!(
        matches!(&ended, Err(MoveError::Refused(why)) if why.contains("has to be")),
        "{ended:?}"
    );
    ways.target.claim.prefix = None;
    let ended = run_until(&ways, &limits(), Phase::Copying, || ()).await;
    assert!(
        matches!(&ended, Err(MoveError::Refused(why)) if why.contains("encrypted")),
        "{ended:?}"
    );
    as_before(&ways).await;
    ways.target_is_clean().await;
    // Under the same keys they do.
    ways.target.claim = kept;
    let (report, _) = crate::pairs::run(&ways, &limits()).await;
    assert_eq!(report.keys, 52);
}
