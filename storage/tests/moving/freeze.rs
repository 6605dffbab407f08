//! When a freeze is confirmed, nothing is written any more: by writers as fast as they can
//! be, with statements prepared before, transactions open, and connections of before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};
use storage::tenancy::{Access, Claim, Stage};

use crate::Driver;
use crate::lab::sql::{
    administrator, mysql_administrator, mysql_tenant, run, run_mysql, secret, tenant,
};
use crate::tenant::{Ways, create};
use crate::writer::Writers;

/// Freezes while they write; how many rows or keys there are then, and a moment later.
async fn freeze_and_count<F: Future<Output = i64>>(ways: &Ways, count: impl Fn() -> F) -> Claim {
    let Ways { source, .. } = ways;
    let frozen = source
        .tenancy
        .turn(&source.claim, Stage::Frozen, None)
        .await
        .unwrap();
    let then = count().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        count().await,
        then,
        "something was written after the freeze"
    );
    let access = source.tenancy.check(&frozen, Some(&secret())).await;
    assert_eq!(access, Ok(Access::Exact));
    // Once more, as after a crash.
    let again = source
        .tenancy
        .turn(&source.claim, Stage::Frozen, None)
        .await;
    assert_eq!(again.as_ref(), Ok(&frozen));
    frozen
}

async fn thaw(ways: &Ways, frozen: &Claim) {
    let tenancy = &ways.source.tenancy;
    let thawed = tenancy.turn(frozen, Stage::Serving, None).await.unwrap();
    assert_eq!(thawed, ways.source.claim);
    ways.source_serves().await;
    // A kine of before the freeze goes on, and a new one comes up.
    let mut api = ways.at_source().await;
    let key = format!("{}/after", ways.prefix);
    assert!(create(&mut api.client, &key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_etcd() {
    let ways = Ways::new(Driver::Etcd, Driver::PostgreSql).await;
    let api = ways.at_source().await;
    let writers = Writers::start(&api.client, &ways.prefix);
    writers.wait_for(300).await;
    let etcd = ways.servers.etcd(ways.from);
    let root = etcd.client(&etcd.authority.client("root")).await;
    let newest = || {
        let (mut root, prefix) = (root.clone(), ways.prefix.clone());
        async move {
            let all = etcd_client::GetOptions::new().with_prefix();
            let found = root.get(format!("{prefix}/"), Some(all)).await.unwrap();
            found
                .kvs()
                .iter()
                .map(|pair| pair.mod_revision())
                .max()
                .unwrap()
        }
    };
    let frozen = freeze_and_count(&ways, newest).await;
    assert!(writers.are_refused());
    writers.end().await;
    let mut client = api.client.clone();
    assert!(
        client.get(format!("{}/x", ways.prefix), None).await.is_ok(),
        "it reads"
    );
    let write = client.put(format!("{}/x", ways.prefix), "1", None).await;
    assert!(write.unwrap_err().to_string().contains("permission denied"));
    thaw(&ways, &frozen).await;
}

/// Messages that are on their way are taken or refused, and none is taken afterwards: neither
/// of kine's, which is told so at once, nor of who publishes by himself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_nats() {
    let ways = Ways::new(Driver::Nats, Driver::Etcd).await;
    let mut api = ways.at_source().await;
    let key = format!("{}/x", ways.prefix);
    assert!(create(&mut api.client, &key).await.unwrap());
    let writers = Writers::start(&api.client, &ways.prefix);
    let server = ways.servers.nats(ways.from);
    let claim = &ways.source.claim;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..4 {
        let own = crate::lab::nats::tenant(server, claim).await.unwrap();
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        let bucket = claim.schema.clone();
        tasks.push(tokio::spawn(async move {
            let mut last = 0_u64;
            for count in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let subject = format!("$KV.{bucket}.x{number}.{count}");
                match crate::lab::nats::ask(&own, &subject, &"x".repeat(40)).await {
                    Ok(answer) => {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        last = last.max(answer["seq"].as_u64().unwrap());
                    }
                    Err(why) => return (last, why),
                }
            }
            (last, String::new())
        }));
    }
    writers.wait_for(200).await;
    let newest = || async {
        let read = ways.source.tenancy.claims(&claim.uid).await.unwrap();
        let contents = ways.source.tenancy.contents(&read[0], None).await;
        let newest = contents.unwrap().newest().await.unwrap();
        i64::try_from(newest).unwrap()
    };
    let before = std::time::Instant::now();
    let serving = claim.clone();
    let frozen = ways.source.tenancy.turn(&serving, Stage::Frozen, None);
    let frozen = frozen.await.unwrap();
    let then = newest().await;
    for task in tasks {
        let (last, why) = task.await.unwrap();
        assert!(i64::try_from(last).unwrap() < then, "{last} of {then}");
        assert!(why.contains("maximum"), "{why}");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(writers.are_refused() && before.elapsed() < Duration::from_secs(10));
    assert_eq!(newest().await, then, "something was written");
    assert!(acknowledged.load(Ordering::Relaxed) > 20);
    writers.end().await;
    let access = ways.source.tenancy.check(&frozen, Some(&secret())).await;
    assert_eq!(access, Ok(Access::Exact));
    // It reads, and is told at once that it cannot write.
    let begin = std::time::Instant::now();
    let found = api.client.get(key.clone(), None).await.unwrap();
    assert_eq!(found.kvs().len(), 1);
    let other = format!("{}/y", ways.prefix);
    assert!(!matches!(create(&mut api.client, &other).await, Ok(true)));
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    // Nobody of the tenant's lets itself write again.
    let own = crate::lab::nats::tenant(server, claim).await.unwrap();
    let stream = format!("KV_{}", claim.schema);
    for call in ["UPDATE", "DELETE", "PURGE"] {
        let subject = format!("$JS.API.STREAM.{call}.{stream}");
        let asked = crate::lab::nats::ask(&own, &subject, "{}").await;
        assert!(asked.is_err(), "{call}");
    }
    thaw(&ways, &frozen).await;
    // The kine of before goes on.
    assert!(create(&mut api.client, &other).await.unwrap());
}

const INSERT: &str = "insert into kine (name, created, deleted, create_revision, prev_revision, \
                      lease, value) values";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgresql() {
    let ways = Ways::new(Driver::PostgreSql, Driver::Etcd).await;
    // kine makes its table, as the tenant.
    drop(ways.at_source().await);
    let server = ways.servers.sql(ways.from);
    let claim = &ways.source.claim;
    let written = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..4 {
        let mut own = tenant(server, claim).await.unwrap();
        let (written, stop) = (written.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let sql = format!("{INSERT} ($1, 1, 0, 0, 0, 0, 'x')");
            for count in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                // The statement is prepared once, and runs as such.
                let query = sqlx::query(AssertSqlSafe(sql.clone()));
                let done = query
                    .bind(format!("/w{number}/{count}"))
                    .execute(&mut own)
                    .await;
                if let Err(error) = done {
                    return Some((error, own));
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
            None
        }));
    }
    // One that has written and does not end, one that has only read, one that prepared.
    let mut open = tenant(server, claim).await.unwrap();
    run(&mut open, "begin").await;
    run(
        &mut open,
        &format!("{INSERT} ('/open', 1, 0, 0, 0, 0, 'x')"),
    )
    .await;
    let mut reads = tenant(server, claim).await.unwrap();
    run(&mut reads, "begin; select count(*) from kine").await;
    let mut idle = tenant(server, claim).await.unwrap();
    run(
        &mut idle,
        &format!("prepare late as {INSERT} ('/late', 1, 0, 0, 0, 0, 'x')"),
    )
    .await;
    while written.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let schema = claim.schema.clone();
    let count = || {
        let schema = schema.clone();
        async move {
            let mut root: PgConnection = administrator(server, &schema).await;
            let sql = "select count(*) from public.kine where name <> 'compact_rev_key'";
            sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap()
        }
    };
    let frozen = freeze_and_count(&ways, count).await;
    let acknowledged = i64::try_from(written.load(Ordering::Relaxed)).unwrap();
    // kine's key for health is one more.
    assert_eq!(count().await, acknowledged + 1);
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        let (error, mut own) = task.await.unwrap().expect("it is refused");
        let code = error
            .as_database_error()
            .and_then(|it| it.code().map(String::from));
        // Who had the table at the moment when the one that held it was ended went with it.
        if code.as_deref() == Some("57P01") {
            continue;
        }
        assert_eq!(code.as_deref(), Some("42501"), "{error}");
        // It was not ended, and reads.
        let found: i64 = sqlx::query_scalar("select count(*) from kine")
            .fetch_one(&mut own)
            .await
            .unwrap();
        assert_eq!(found, acknowledged + 2);
        for sql in [
            "alter table kine owner to current_user",
            "grant all on kine to current_user",
            "create table other (x int)",
            "drop table kine",
            "truncate kine",
            "update kine set value = 'y'",
            "delete from kine",
            "lock table kine in row exclusive mode",
            "alter table kine disable trigger all",
        ] {
            let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
                .execute(&mut own)
                .await;
            assert!(done.is_err() || sql.starts_with("grant"), "{sql}");
        }
    }
    assert!(open.ping().await.is_err(), "what held the table is ended");
    let late = sqlx::raw_sql("execute late").execute(&mut idle).await;
    assert!(late.is_err());
    assert_eq!(count().await, acknowledged + 1);
    thaw(&ways, &frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mariadb() {
    let ways = Ways::new(Driver::MariaDb, Driver::Etcd).await;
    let server = ways.servers.sql(ways.from);
    let claim = &ways.source.claim;
    let written = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..4 {
        let mut own = mysql_tenant(server, claim).await.unwrap();
        let written = written.clone();
        tasks.push(tokio::spawn(async move {
            let sql = format!("{INSERT} (?, 1, 0, 0, 0, 0, 'x')");
            for count in 0.. {
                let query = sqlx::query(AssertSqlSafe(sql.clone()));
                let name = format!("/w{number}/{count}");
                if query.bind(name).execute(&mut own).await.is_err() {
                    return;
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut open = mysql_tenant(server, claim).await.unwrap();
    run_mysql(&mut open, "begin").await;
    run_mysql(
        &mut open,
        &format!("{INSERT} ('/open', 1, 0, 0, 0, 0, 'x')"),
    )
    .await;
    while written.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let schema = claim.schema.clone();
    let count = || {
        let schema = schema.clone();
        async move {
            let mut root: MySqlConnection = mysql_administrator(server).await;
            let sql = AssertSqlSafe(format!("select count(*) from `{schema}`.kine"));
            sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap()
        }
    };
    let frozen = freeze_and_count(&ways, count).await;
    for task in tasks {
        task.await.unwrap();
    }
    // Of each connection the last may have been written and not answered.
    let acknowledged = i64::try_from(written.load(Ordering::Relaxed)).unwrap();
    let there = count().await;
    assert!(
        (acknowledged..=acknowledged + 4).contains(&there),
        "{there} of {acknowledged}"
    );
    assert!(open.ping().await.is_err());
    let mut new = mysql_tenant(server, claim).await.unwrap();
    let sql = "select count(*) from kine";
    let found: i64 = sqlx::query_scalar(sql).fetch_one(&mut new).await.unwrap();
    assert_eq!(found, there);
    let insert = format!("{INSERT} ('/late', 1, 0, 0, 0, 0, 'x')");
    for sql in [
        insert.as_str(),
        "delete from kine",
        "alter table kine add column x int",
    ] {
        let done = crate::lab::sql::try_mysql(&mut new, sql).await;
        assert!(done.is_err(), "{sql}");
    }
    thaw(&ways, &frozen).await;
}
