//! What a tenant has its own database say takes little memory here.
//!
//! In a file of its own, because the peak is that of the whole process.

mod lab;

use std::time::Duration;

use lab::claim;
use lab::sql::{
    Kind, Server, connection, enter, mysql_administrator, mysql_tenant, run, run_mysql, secret,
    start,
};
use storage::tenancy::contents::Usage;
use storage::tenancy::{Claim, Connection, Data, Tenancy, connect};

const MIB: u64 = 1024 * 1024;
/// A page of the contents is read into as much.
const PAGE: usize = 8 << 20;

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap() * 1024
}

/// What this took at most, beside what was taken before.
async fn taken<T>(work: impl Future<Output = T>) -> (T, u64) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let done = work.await;
    (done, status("VmHWM:").saturating_sub(before))
}

/// As controllers connect, with more patience: what takes long here is made by the server.
fn patient(connection: Connection) -> Connection {
    Connection {
        deadline: Duration::from_secs(60),
        ..connection
    }
}

/// A server, with a tenant whose table is there.
async fn with_table(kind: Kind) -> (Server, Box<dyn Tenancy>, Claim) {
    let server = start(kind);
    let tenancy = connect(patient(connection(&server))).unwrap();
    let a = claim("1", "s1", "u1");
    let password = secret();
    let prepared = tenancy.prepare(&a, Some(&password), Data::New);
    prepared.await.unwrap();
    let opened = tenancy.contents(&a, Some(&password));
    opened.await.unwrap().close().await;
    (server, tenancy, a)
}

#[tokio::test]
async fn what_a_tenants_database_says_is_bounded() {
    let (server, tenancy, a) = with_table(Kind::PostgreSql).await;
    let password = secret();
    let mut own = enter(&server, &a.user, password.expose(), &a.schema)
        .await
        .unwrap();

    // The text of an error.
    run(
        &mut own,
        "create function public.boom() returns bool language plpgsql as $$
            begin raise exception '%', repeat('x', 100000000); end $$;
         insert into public.kine (name, deleted, lease, value) values ('/registry/x', 0, 0, 'v');
         alter table public.kine enable row level security;
         alter table public.kine force row level security;
         create policy p on public.kine using (public.boom());",
    )
    .await;
    let mut contents = tenancy.contents(&a, Some(&password)).await.unwrap();
    let mut usage = Usage::default();
    let (said, took) = taken(contents.usage(&mut usage)).await;
    let said = said.unwrap_err().to_string();
    assert!(
        said.ends_with("the answer has more than 65536 bytes"),
        "{said}"
    );
    assert!(took < 16 * MIB, "{} MiB", took / MIB);
    drop(contents);

    // Short ones are passed on, and cut.
    let short = "create or replace function public.boom() returns bool language plpgsql as $$
            begin raise exception '%', repeat('x', 20000); end $$";
    run(&mut own, short).await;
    let mut contents = tenancy.contents(&a, Some(&password)).await.unwrap();
    let said = contents.usage(&mut usage).await.unwrap_err().to_string();
    assert!(
        said.contains("xxxx") && said.len() < 2_000,
        "{}",
        said.len()
    );
    drop(contents);

    // Rows that are there only when values are read.
    run(
        &mut own,
        "drop policy p on public.kine;
         alter table public.kine disable row level security;
         alter table public.kine drop constraint kine_pkey;
         delete from public.kine;
         insert into public.kine (id, name, deleted, lease, prev_revision, value)
            values (1, '/registry/x', 0, 0, 100, 'v');
         insert into public.kine (id, name, deleted, lease, prev_revision, value)
            select 1, '/registry/x', 0, 0, g, convert_to(repeat('x', 50000000), 'UTF8')
            from generate_series(1, 3) g;
         create policy q on public.kine
            using (octet_length(value) < 1000000 or current_query() like '%where id in (%');
         alter table public.kine enable row level security;",
    )
    .await;
    let mut contents = tenancy.contents(&a, Some(&password)).await.unwrap();
    let (page, took) = taken(contents.page(None, PAGE)).await;
    let said = page.unwrap_err().to_string();
    assert!(
        said.contains("read values: the answer has more than"),
        "{said}"
    );
    assert!(took < 16 * MIB, "{} MiB", took / MIB);
    drop(contents);

    // The tenant alone is told so; the others' database goes on.
    assert!(tenancy.verify().await.unwrap().authentication);
}

/// The same in MariaDB, whose errors are short.
#[tokio::test]
async fn what_a_tenants_rows_have_is_bounded_in_mariadb() {
    let (server, tenancy, a) = with_table(Kind::MariaDb).await;
    let mut root = mysql_administrator(&server).await;
    run_mysql(&mut root, "set global max_allowed_packet = 1073741824").await;
    let password = secret();
    let mut own = mysql_tenant(&server, &a).await.unwrap();
    run_mysql(
        &mut own,
        "alter table kine drop index kine_name_prev_revision_uindex",
    )
    .await;
    run_mysql(
        &mut own,
        "insert into kine (name, created, deleted, create_revision, prev_revision, lease, value)
            values ('/registry/x', 1, 0, 0, 0, 0, 'v')",
    )
    .await;
    run_mysql(
        &mut own,
        "alter table kine modify id bigint, modify value longblob, drop primary key",
    )
    .await;
    for _ in 0..3 {
        run_mysql(
            &mut own,
            "insert into kine (id, name, created, deleted, create_revision, prev_revision, lease,
                value) select id, '/registry/z', 1, 1, 0, 0, 0, repeat('x', 50000000)
                from kine where name = '/registry/x' limit 1",
        )
        .await;
    }
    let mut contents = tenancy.contents(&a, Some(&password)).await.unwrap();
    let (page, took) = taken(contents.page(None, PAGE)).await;
    let said = page.map(|page| page.entries.len());
    assert!(took < 24 * MIB, "{} MiB, {said:?}", took / MIB);
    assert!(said.is_err(), "{said:?}");
}
