//! Each driver to each, while the tenant writes.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp, WatchOptions};
use storage::moving::{self, Limits, Phase, Report};
use storage::tenancy::{Access, Stage};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Driver;
use crate::lab::sql::{administrator, mysql_administrator, secret};
use crate::tenant::{Api, Ways};
use crate::writer::{Writers, differences};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_etcd() {
    for to in [
        Driver::OwnEtcd(1),
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::Nats,
    ] {
        moves(Driver::OwnEtcd(0), to).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_postgresql() {
    for to in [
        Driver::OwnEtcd(2),
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::Nats,
    ] {
        moves(Driver::PostgreSql, to).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_mariadb() {
    for to in [
        Driver::OwnEtcd(3),
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::Nats,
    ] {
        moves(Driver::MariaDb, to).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nats() {
    for to in [
        Driver::OwnEtcd(4),
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::OtherNats,
    ] {
        moves(Driver::Nats, to).await;
    }
}

/// A tenant that was made asleep has a place, and nothing in it: kine has not made its table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ran_moves_with_nothing() {
    for (from, to) in [
        (Driver::PostgreSql, Driver::Etcd),
        (Driver::MariaDb, Driver::PostgreSql),
        (Driver::Etcd, Driver::MariaDb),
        (Driver::PostgreSql, Driver::PostgreSql),
        (Driver::Etcd, Driver::Nats),
        (Driver::Nats, Driver::MariaDb),
    ] {
        let ways = Ways::new(from, to).await;
        let (report, _) = run(&ways, &limits()).await;
        assert_eq!(report.keys, 0, "{from:?} to {to:?}");
        let mut target = ways.at_target().await;
        let key = format!("{}/registry/a", ways.prefix);
        target.client.put(key, "b", None).await.unwrap();
        assert_eq!(
            target.list(&ways.prefix).await.0.len(),
            1,
            "{from:?} to {to:?}"
        );
    }
}

/// Runs a move to its end and says what phases it had.
pub async fn run(ways: &Ways, limits: &Limits) -> (Report, Vec<Phase>) {
    let phases = std::sync::Mutex::new(Vec::new());
    let told = |progress: moving::Progress| {
        let mut phases = phases.lock().unwrap();
        if phases.last() != Some(&progress.phase) {
            phases.push(progress.phase);
        }
    };
    let stop = CancellationToken::new();
    let report = moving::run(&ways.source, &ways.target, limits, &told, &stop).await;
    (report.unwrap(), phases.into_inner().unwrap())
}

/// etcd is raised by writes, which take time.
pub fn limits() -> Limits {
    Limits {
        margin: Some(4000),
        ..Limits::default()
    }
}

async fn moves(from: Driver, to: Driver) {
    let what = format!("{from:?} to {to:?}");
    let ways = Ways::new(from, to).await;
    let source = ways.at_source().await;
    let writers = Writers::start(&source.client, &ways.prefix);
    writers.wait_for(400).await;
    let before = writers.written();
    let (report, phases) = run(&ways, &limits()).await;
    assert!(
        writers.written() > before,
        "{what}: nothing was written meanwhile"
    );
    assert!(writers.are_refused(), "{what}: a writer still can");
    let book = writers.end().await;
    assert_eq!(
        phases,
        [
            Phase::Preparing,
            Phase::Copying,
            Phase::Following,
            Phase::Freezing,
            Phase::Verifying,
            Phase::Switching
        ],
        "{what}"
    );
    eprintln!("{what}: {report:?}");
    assert!(report.frozen < Duration::from_secs(15), "{what}");
    // The comparison is for what nobody thought of: it has nothing to mend.
    assert_eq!((report.mended, report.begun_anew), (0, 0), "{what}");
    drop(source);

    let mut target = ways.at_target().await;
    let (found, revision) = target.list(&ways.prefix).await;
    assert_eq!(differences(&book, &found), Vec::<String>::new(), "{what}");
    assert_eq!(report.keys, found.len() as u64, "{what}");
    assert!(found.len() > 50, "{what}: {}", found.len());
    for (key, (_, at)) in &found {
        let floor = i64::try_from(report.target_revision).unwrap();
        assert!(*at > floor, "{what}: {key} at {at}, of {floor}");
    }
    assert!(report.source_revision < report.target_revision, "{what}");
    let claims = ways
        .target
        .tenancy
        .claims(&ways.target.claim.uid)
        .await
        .unwrap();
    let held = claims
        .iter()
        .find(|it| it.schema == ways.target.claim.schema);
    assert_eq!(held.unwrap().stage, Stage::Serving, "{what}");
    let access = ways
        .target
        .tenancy
        .check(held.unwrap(), Some(&secret()))
        .await;
    assert_eq!(access, Ok(Access::Exact), "{what}");

    leases(&ways).await;
    history(&mut target, &ways.prefix, &report, revision).await;
    drop(target);
    let mut target = ways.at_target_compacting().await;
    goes_on(&mut target, &ways, revision).await;

    // It was done; the source is given up and takes the tenant back later.
    let (again, _) = run(&ways, &limits()).await;
    assert!(again.done_before, "{what}");
    let frozen = ways.source.claim.at(Stage::Frozen);
    let left = ways
        .source
        .tenancy
        .turn(&frozen, Stage::Left, None)
        .await
        .unwrap();
    let access = ways.source.tenancy.check(&left, None).await;
    assert_eq!(access, Ok(Access::Exact), "{what}");
}

/// What had a lease has one.
async fn leases(ways: &Ways) {
    let count = |sql: &str| sql.replace("T", &format!("`{}`.kine", ways.target.claim.schema));
    let leased: i64 = match ways.to {
        Driver::PostgreSql => {
            let mut root =
                administrator(ways.servers.sql(ways.to), &ways.target.claim.schema).await;
            let sql = "select count(*) from public.kine where lease between 500 and 600";
            sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap()
        }
        Driver::MariaDb => {
            let mut root = mysql_administrator(ways.servers.sql(ways.to)).await;
            let sql = count("select count(*) from T where lease between 500 and 600");
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
            query.fetch_one(&mut root).await.unwrap()
        }
        to if to.is_nats() => crate::nats::leased(ways).await,
        _ => {
            let etcd = ways.servers.etcd(ways.to);
            let mut root = etcd.client(&etcd.authority.client("root")).await;
            let all = GetOptions::new().with_prefix();
            let found = root
                .get(format!("{}/", ways.prefix), Some(all))
                .await
                .unwrap();
            let mut leased = 0;
            for pair in found.kvs().iter().filter(|pair| pair.lease() != 0) {
                let left = root.lease_time_to_live(pair.lease(), None).await.unwrap();
                assert!((500..=600).contains(&left.ttl()), "{}", left.ttl());
                leased += 1;
            }
            leased
        }
    };
    assert!(leased > 2, "{leased} leases in {:?}", ways.to);
}

/// What is asked of the history that the target does not have is refused, not answered with
/// silence or with nothing.
async fn history(target: &mut Api, prefix: &str, report: &Report, revision: i64) {
    let old = i64::try_from(report.source_revision).unwrap();
    let range = GetOptions::new()
        .with_range(format!("{prefix}0"))
        .with_revision(old);
    let list = target.client.get(format!("{prefix}/"), Some(range)).await;
    let text = format!("{list:?}");
    assert!(
        text.contains("compacted"),
        "a list of revision {old}: {text}"
    );

    let heard = watch(&target.client, prefix, old, 1).await;
    assert_eq!(heard, Err(()), "a watch from revision {old}");
    let first = i64::try_from(report.target_revision).unwrap() + 1;
    let heard = watch(&target.client, prefix, first, report.keys)
        .await
        .unwrap();
    assert!(
        heard >= report.keys && first <= revision,
        "{heard} of {}",
        report.keys
    );
}

/// So many events after a revision; an error if the server has forgotten them.
async fn watch(client: &Client, prefix: &str, from: i64, events: u64) -> Result<u64, ()> {
    let options = WatchOptions::new()
        .with_range(format!("{prefix}0"))
        .with_start_revision(from);
    let mut client = client.clone();
    let mut stream = client
        .watch(format!("{prefix}/"), Some(options))
        .await
        .unwrap();
    let hear = async {
        let mut heard = 0;
        while heard < events {
            let message = stream.message().await.unwrap().unwrap();
            if message.canceled() {
                return Err(());
            }
            heard += message.events().len() as u64;
        }
        Ok(heard)
    };
    timeout(Duration::from_secs(10), hear)
        .await
        .expect("the watch is silent")
}

/// The tenant works: new writes, greater revisions, watches, compaction.
async fn goes_on(target: &mut Api, ways: &Ways, revision: i64) {
    let key = format!("{}/pods/new", ways.prefix);
    let options = WatchOptions::new().with_start_revision(revision + 1);
    let mut watching = target.client.clone();
    let mut stream = watching.watch(key.clone(), Some(options)).await.unwrap();
    let mut last = 0;
    for value in 0..30 {
        let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, last);
        let put = TxnOp::put(key.clone(), value.to_string(), None);
        let mut txn = Txn::new().when([unchanged]).and_then([put]);
        if last > 0 {
            txn = txn.or_else([TxnOp::get(key.clone(), None)]);
        }
        let done = target.client.txn(txn).await.unwrap();
        assert!(done.succeeded(), "{}", target.log());
        let at = done.header().unwrap().revision();
        assert!(
            at > last && at > revision,
            "{at} after {last} and {revision}"
        );
        last = at;
    }
    let hear = async {
        let mut heard = 0;
        while heard < 30 {
            heard += stream.message().await.unwrap().unwrap().events().len();
        }
    };
    timeout(Duration::from_secs(10), hear)
        .await
        .expect("the watch hears of new writes");

    let rows = match ways.to {
        to if to.is_etcd() || to.is_nats() => return,
        _ => "select cast(count(*) as INTEGER) from TABLE where name like '%/pods/new'",
    };
    let began = Instant::now();
    loop {
        let left: i64 = match ways.to {
            Driver::PostgreSql => {
                let server = ways.servers.sql(ways.to);
                let mut root = administrator(server, &ways.target.claim.schema).await;
                let sql = rows
                    .replace("TABLE", "public.kine")
                    .replace("INTEGER", "bigint");
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
                query.fetch_one(&mut root).await.unwrap()
            }
            _ => {
                let mut root = mysql_administrator(ways.servers.sql(ways.to)).await;
                let table = format!("`{}`.kine", ways.target.claim.schema);
                let sql = rows.replace("TABLE", &table).replace("INTEGER", "signed");
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
                query.fetch_one(&mut root).await.unwrap()
            }
        };
        if left == 1 {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{left}: {}",
            target.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
