//! The life of tenants in a real PostgreSQL.

mod lab;

use std::time::{Duration, Instant};

use lab::claim;
use lab::sql::{ADMINISTRATOR, Kind, Kine, Server, connection, secret, start};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, PgConnection};
use storage::tenancy::{
    Access, Claim, Compaction, Connection, Password, Tenancy, TenancyError, connect,
};

fn ready() -> (Server, Box<dyn Tenancy>) {
    let server = start(Kind::PostgreSql);
    let tenancy = connect(connection(&server)).unwrap();
    (server, tenancy)
}

async fn enter(
    server: &Server,
    user: &str,
    password: &str,
    database: &str,
) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port)
        .username(user)
        .password(password)
        .database(database)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(server.authority.cert.clone().into_bytes())
        .connect()
        .await
}

async fn administrator(server: &Server, database: &str) -> PgConnection {
    enter(server, ADMINISTRATOR, &server.password, database)
        .await
        .unwrap()
}

async fn tenant(server: &Server, claim: &Claim) -> Result<PgConnection, sqlx::Error> {
    enter(server, &claim.user, secret().expose(), &claim.schema).await
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// All that there is, and by which transaction it was written.
async fn everything(server: &Server) -> Vec<String> {
    let mut root = administrator(server, "postgres").await;
    let sql = "select 'database ' || datname || ' ' || xmin::text from pg_database
        union all select 'role ' || rolname || ' ' || xmin::text from pg_authid
            where rolname !~ '^pg_'
        union all select 'member ' || roleid::text || ' ' || xmin::text from pg_auth_members
        order by 1";
    sqlx::query_scalar(sql).fetch_all(&mut root).await.unwrap()
}

#[tokio::test]
async fn a_tenant_lives_and_leaves_nothing() {
    let (server, tenancy) = ready();
    let fresh = tenancy.verify().await.unwrap();
    assert!(fresh.authentication);
    assert_eq!(fresh.gaps, Vec::<String>::new());
    assert_eq!(fresh.alarms, []);
    assert!(fresh.version.split('.').count() == 2, "{}", fresh.version);
    assert!(fresh.size > 1_000_000, "{}", fresh.size);
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    let a = claim("1", "default_tenant-1", "default_user-1");
    assert_eq!(
        tenancy.check(&a, Some(&secret())).await,
        Ok(Access::Unclaimed)
    );
    let none = tenancy.prepare(&a, None).await.unwrap_err();
    assert!(none.to_string().contains("needs a password"), "{none}");

    // One that comes and goes, so that what remains of everybody is there.
    let first = claim("0", "first", "first");
    tenancy.prepare(&first, Some(&secret())).await.unwrap();
    for step in 0..3 {
        match step {
            0 => tenancy.revoke(&first).await,
            1 => tenancy.drop_data(&first).await,
            _ => tenancy.release(&first).await,
        }
        .unwrap();
    }
    let before = everything(&server).await;

    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Exact));
    assert_eq!(tenancy.claims("1").await.unwrap(), [a.clone()]);

    // What is as it should be is not written again (rule 20).
    let quiet = everything(&server).await;
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    assert_eq!(everything(&server).await, quiet);
    assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());

    let mut open = tenant(&server, &a).await.unwrap();
    run(&mut open, "create table kine (value text)").await;
    run(
        &mut open,
        "insert into kine select repeat('x', 1000) from generate_series(1, 5000)",
    )
    .await;
    assert!(tenancy.size(&a).await.unwrap() > 5_000_000);
    assert_eq!(tenancy.remaining(&a).await, Ok(2));
    let early = tenancy.release(&a).await;
    assert!(matches!(early, Err(TenancyError::Refused(_))), "{early:?}");
    let claimants = tenancy.claimants().await.unwrap();
    assert!(claimants.iter().eq([&a.uid]), "{claimants:?}");
    assert_eq!(tenancy.compact_older_than(5).await, Ok(Compaction::NotOurs));

    tenancy.revoke(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    assert!(open.ping().await.is_err(), "what is open ends");
    assert!(tenant(&server, &a).await.is_err());
    assert_eq!(tenancy.remaining(&a).await, Ok(2));
    let revoked = tenancy.check(&a, None).await;
    assert!(matches!(revoked, Ok(Access::Differs(_))), "{revoked:?}");
    tenancy.drop_data(&a).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
    // Until it is released nobody else may have the name (rule 18).
    let other = claim("2", &a.schema, "other");
    let taken = tenancy.prepare(&other, Some(&secret())).await;
    assert!(matches!(taken, Err(TenancyError::SchemaTaken { .. })));
    tenancy.release(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Unclaimed));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    assert_eq!(tenancy.size(&a).await, Ok(0));
    assert_eq!(everything(&server).await, before);
    tenancy.prepare(&other, Some(&secret())).await.unwrap();
    assert!(
        !server.log().contains(secret().expose()),
        "in the server's log"
    );
}

#[tokio::test]
async fn a_revoked_user_goes_with_its_database_in_any_order() {
    let (_server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    tenancy.revoke(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
}

/// The very grants, the very connection string: kine serves.
#[tokio::test]
async fn kine_works_with_what_a_tenant_has() {
    let (server, tenancy) = ready();
    let user = "default_tenant-1_3d0c0a5e000040008000000000000001";
    let a = claim("1", "default_tenant-1.x", user);
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    let endpoint = |hosts: &str| {
        format!(
            "postgres://{user}:{}@{hosts}/{}?sslmode=verify-full",
            secret().expose(),
            a.schema
        )
    };
    let mut kine = Kine::start(&server, &endpoint(&server.endpoint()));
    kine.work().await;
    drop(kine);
    // It creates its table at each start. Of two servers it takes the one that is up.
    let several = format!("127.0.0.1:1,{}", server.endpoint());
    let mut kine = Kine::start(&server, &endpoint(&several));
    let mut client = kine.client().await;
    let found = client.get("/registry/pods/x", None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"2");
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert!(Kine::create(&mut client, "/registry/pods/y").await.unwrap());
    // Revoked, it does nothing more.
    tenancy.revoke(&a).await.unwrap();
    let late = Kine::create(&mut client, "/registry/pods/z").await;
    assert!(late.is_err(), "{late:?}");
}

/// rule 17: whoever is late with anything does nothing to the tenant that has the names now.
#[tokio::test]
async fn who_is_late_harms_nobody() {
    let (server, tenancy) = ready();
    let (before, after) = (claim("1", "a", "u"), claim("2", "a", "u"));
    tenancy.prepare(&before, Some(&secret())).await.unwrap();
    let mut old = tenant(&server, &before).await.unwrap();
    tenancy.revoke(&before).await.unwrap();
    tenancy.drop_data(&before).await.unwrap();
    tenancy.release(&before).await.unwrap();
    let next = Password::new("another");
    tenancy.prepare(&after, Some(&next)).await.unwrap();
    let mut new = enter(&server, "u", "another", "a").await.unwrap();
    run(&mut new, "create table kine (value text)").await;
    // What the one before knew opens nothing, also under the same name of a user.
    assert!(old.ping().await.is_err());
    assert!(tenant(&server, &before).await.is_err());
    for late in [
        tenancy.prepare(&before, Some(&secret())).await,
        tenancy.revoke(&before).await,
        tenancy.drop_data(&before).await,
        tenancy.release(&before).await,
        tenancy.check(&before, None).await.map(drop),
    ] {
        assert!(
            matches!(late, Err(TenancyError::SchemaTaken { .. })),
            "{late:?}"
        );
    }
    run(&mut new, "insert into kine values ('1')").await;
    assert_eq!(tenancy.check(&after, Some(&next)).await, Ok(Access::Exact));

    // One that read its claim and was stopped then: the next waits until its connection is
    // gone, and after that its statements do not run.
    let mut lock = administrator(&server, "steward").await;
    let number = "select objid::bigint | classid::bigint << 32 from pg_locks
        where locktype = 'advisory' limit 1";
    let held: Vec<i64> = sqlx::query_scalar(number)
        .fetch_all(&mut lock)
        .await
        .unwrap();
    assert_eq!(held, Vec::<i64>::new(), "no lock is left");
}

#[tokio::test]
async fn changes_to_one_schema_wait_for_each_other_until_the_deadline() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    let mut other = administrator(&server, "steward").await;
    // The lock on every schema that there can be: whoever asks for one waits.
    let hash = aws_lc_rs_number("schema/a");
    run(&mut other, &format!("select pg_advisory_lock({hash})")).await;
    let hurried = Connection {
        deadline: Duration::from_millis(700),
        ..connection(&server)
    };
    let hurried = connect(hurried).unwrap();
    let begin = Instant::now();
    let waited = hurried.revoke(&a).await.unwrap_err();
    assert!(matches!(waited, TenancyError::Unreachable(_)), "{waited}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let (revoked, ()) = tokio::join!(tenancy.revoke(&a), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.close().await.unwrap();
    });
    revoked.unwrap();
}

/// As the driver makes it of a name.
fn aws_lc_rs_number(name: &str) -> i64 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    i64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap())
}

#[tokio::test]
async fn a_name_belongs_to_who_claimed_it_first() {
    let (server, tenancy) = ready();
    let first = claim("1", "a", "u");
    tenancy.prepare(&first, Some(&secret())).await.unwrap();
    let before = everything(&server).await;
    for (thief, what) in [
        (claim("2", "a", "v"), "schema \"a\""),
        (claim("2", "b", "u"), "user \"u\""),
        (claim("2", "a", "u"), "schema \"a\""),
    ] {
        let taken = Err(TenancyError::SchemaTaken {
            what: what.to_owned(),
            uid: "1".to_owned(),
            namespace: "default".to_owned(),
            name: "tenant-1".to_owned(),
        });
        assert_eq!(tenancy.prepare(&thief, Some(&secret())).await, taken);
        assert_eq!(tenancy.check(&thief, None).await.map(|_| ()), taken);
        // The thief's own deletion touches nothing of the holder's.
        assert_eq!(tenancy.revoke(&thief).await, taken);
        assert_eq!(tenancy.drop_data(&thief).await, taken);
        assert_eq!(tenancy.release(&thief).await, taken);
        assert_eq!(tenancy.remaining(&thief).await.map(|_| ()), taken);
    }
    // The holder itself does not get a second user on its schema.
    let otherwise = claim("1", "a", "v");
    let refused = tenancy.prepare(&otherwise, Some(&secret())).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    let differs = tenancy.check(&otherwise, None).await;
    assert!(matches!(differs, Ok(Access::Differs(_))), "{differs:?}");
    tenancy.drop_data(&otherwise).await.unwrap();
    assert_eq!(tenancy.remaining(&otherwise).await, Ok(0));
    assert_eq!(everything(&server).await, before);
    assert_eq!(
        tenancy.check(&first, Some(&secret())).await,
        Ok(Access::Exact)
    );
}

#[tokio::test]
async fn claims_are_found_by_uid_oldest_first() {
    let (_server, tenancy) = ready();
    let mut first = claim("1", "z", "z");
    first.role = Some(Claim::role_of("z", "1"));
    let second = claim("1", "b", "c");
    for claim in [&first, &claim("2", "m", "m"), &second] {
        tenancy.prepare(claim, Some(&secret())).await.unwrap();
    }
    assert_eq!(
        tenancy.claims("1").await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(tenancy.claims("3").await.unwrap(), []);
    assert_eq!(tenancy.claimants().await.unwrap().len(), 2);
    tenancy.drop_data(&first).await.unwrap();
    tenancy.release(&first).await.unwrap();
    assert_eq!(tenancy.claims("1").await.unwrap(), [second]);
}

#[tokio::test]
async fn many_at_once() {
    let (server, tenancy) = ready();
    // Eight want the same name, and thirty a name of their own, before anybody was there.
    let rivals: Vec<_> = (1..=8)
        .map(|uid| claim(&format!("r{uid}"), "same", "same"))
        .collect();
    let own: Vec<_> = (1..=30)
        .map(|n| {
            claim(
                &format!("t{n}"),
                &format!("tenant_{n}"),
                &format!("user_{n}"),
            )
        })
        .collect();
    let secret = secret();
    let patient = connect(Connection {
        deadline: Duration::from_secs(60),
        ..connection(&server)
    })
    .unwrap();
    let all = rivals.iter().chain(&own);
    let asked = all.map(|claim| patient.prepare(claim, Some(&secret)));
    let answers = futures::future::join_all(asked).await;
    let (rivals, own) = answers.split_at(rivals.len());
    assert_eq!(
        rivals.iter().filter(|it| it.is_ok()).count(),
        1,
        "{rivals:?}"
    );
    for rival in rivals.iter().filter_map(|it| it.as_ref().err()) {
        assert!(matches!(rival, TenancyError::SchemaTaken { .. }), "{rival}");
    }
    assert!(own.iter().all(Result::is_ok), "{own:?}");
    assert_eq!(tenancy.claimants().await.unwrap().len(), 31);
}

#[tokio::test]
async fn what_others_left_is_not_taken_over() {
    let (server, tenancy) = ready();
    let mut root = administrator(&server, "postgres").await;
    run(&mut root, "create database app").await;
    run(&mut root, "create role alice login password 'x'").await;
    for (schema, user, word) in [
        ("app", "u", "the database \"app\""),
        ("s", "alice", "the user \"alice\""),
        (
            "app",
            "alice",
            "the database \"app\" and the user \"alice\"",
        ),
    ] {
        let claim = claim("1", schema, user);
        let refused = tenancy.prepare(&claim, Some(&secret())).await;
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains(&format!("already holds {word}, which no")),
            "{text}"
        );
        // It is not ours to delete either.
        tenancy.revoke(&claim).await.unwrap();
        tenancy.drop_data(&claim).await.unwrap();
        tenancy.release(&claim).await.unwrap();
    }
    assert!(tenancy.claimants().await.unwrap().is_empty());
    let left = everything(&server).await.join("\n");
    assert!(
        left.contains("database app ") && left.contains("role alice "),
        "{left}"
    );
    let gaps = tenancy.verify().await.unwrap().gaps;
    assert!(gaps.len() == 1 && gaps[0].contains("\"app\""), "{gaps:?}");
    run(
        &mut root,
        "revoke connect, temporary on database app from public",
    )
    .await;
    assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());
}

/// Somebody has a database of the name that Steward's has.
#[tokio::test]
async fn a_database_of_somebody_else_is_not_made_ours() {
    let (server, tenancy) = ready();
    let mut root = administrator(&server, "postgres").await;
    run(&mut root, "create database steward").await;
    let mut theirs = administrator(&server, "steward").await;
    run(&mut theirs, "create table ships (name text)").await;
    let refused = tenancy
        .prepare(&claim("1", "a", "a"), Some(&secret()))
        .await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("somebody else's"), "{text}");
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    run(&mut theirs, "drop table ships").await;
    tenancy
        .prepare(&claim("1", "a", "a"), Some(&secret()))
        .await
        .unwrap();
}

#[tokio::test]
async fn drift_is_seen_and_repaired() {
    let (server, tenancy) = ready();
    let (a, b) = (claim("1", "a", "u"), claim("2", "b", "v"));
    for claim in [&a, &b] {
        tenancy.prepare(claim, Some(&secret())).await.unwrap();
    }
    let mut root = administrator(&server, "postgres").await;
    let mut inside = administrator(&server, "a").await;
    let mut own = tenant(&server, &a).await.unwrap();
    run(&mut own, "create table kine (id bigserial primary key)").await;
    run(&mut root, "create role more").await;
    let drifts = [
        "alter role u superuser",
        "alter role u createdb",
        "alter role u createrole",
        "alter role u replication",
        "alter role u bypassrls",
        "alter role u inherit",
        "alter role u nologin",
        "alter role u connection limit -1",
        "alter role u valid until '2020-01-01'",
        "alter role u set search_path = nowhere",
        "alter role u in database a set default_transaction_read_only = on",
        "alter role u password null",
        "alter role u password 'other'",
        "grant more to u",
        "grant more to u with admin option",
        "grant v to u",
        "grant u to v",
        "grant connect on database b to u",
        "grant create on database a to u",
        "grant connect on database a to u with grant option",
        "grant connect on database a to v",
        "grant connect on database a to public",
        "revoke connect on database a from u",
        "alter database a owner to u",
        "alter database a owner to more",
        "alter database a allow_connections false",
        "drop database a with (force)",
    ];
    let inner = [
        "revoke all on schema public from u",
        "revoke create on schema public from u",
        "alter table kine owner to admin",
        "drop schema public cascade",
    ];
    let all = drifts.map(|sql| (true, sql)).into_iter();
    for (outside, sql) in inner.map(|sql| (false, sql)).into_iter().chain(all) {
        match outside {
            true => run(&mut root, sql).await,
            false => run(&mut inside, sql).await,
        }
        let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
        assert!(matches!(seen, Access::Differs(_)), "{sql}: {seen:?}");
        tenancy
            .prepare(&a, Some(&secret()))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let access = tenancy.check(&a, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact), "{sql}");
    }
    assert_eq!(tenancy.check(&b, Some(&secret())).await, Ok(Access::Exact));

    // What cannot be taken back without looking at somebody's data is said.
    let mut other = administrator(&server, "b").await;
    run(
        &mut other,
        "create table shared (x int); grant select on shared to u",
    )
    .await;
    let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(
        matches!(&seen, Access::Differs(why) if why.contains("database \"b\"")),
        "{seen:?}"
    );
    let refused = tenancy.prepare(&a, Some(&secret())).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    run(&mut other, "revoke select on shared from u").await;
    tenancy.prepare(&a, Some(&secret())).await.unwrap();

    // The role itself.
    drop(own);
    tenancy.drop_data(&a).await.unwrap();
    let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(matches!(seen, Access::Differs(_)), "{seen:?}");
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
}

#[tokio::test]
async fn passwords_are_rotated_and_kept() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    let mut own = tenant(&server, &a).await.unwrap();
    let stored = async || -> String {
        let mut root = administrator(&server, "postgres").await;
        let sql = "select rolpassword from pg_authid where rolname = 'u'";
        sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap()
    };
    let first = stored().await;
    assert!(first.starts_with("SCRAM-SHA-256$4096:"), "{first}");
    tenancy.prepare(&a, Some(&secret())).await.unwrap();
    assert_eq!(stored().await, first);
    let next = Password::new("it's-\\another\"$1");
    let wrong = tenancy.check(&a, Some(&next)).await.unwrap();
    assert!(
        matches!(&wrong, Access::Differs(why) if why.contains("password")),
        "{wrong:?}"
    );
    tenancy.prepare(&a, Some(&next)).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    // The tenant itself may change it.
    run(&mut own, "alter role u password 'mine'").await;
    assert!(matches!(
        tenancy.check(&a, Some(&next)).await,
        Ok(Access::Differs(_))
    ));
    tenancy.prepare(&a, Some(&next)).await.unwrap();
    assert!(enter(&server, "u", "mine", "a").await.is_err());
    // A tenant that has opened all the connections that it may is not locked out.
    let mut open = Vec::new();
    while let Ok(one) = enter(&server, "u", next.expose(), "a").await {
        open.push(one);
        assert!(open.len() < 60, "the limit does not bite");
    }
    assert_eq!(open.len() + 1, 50);
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    let again = tenancy.check(&a, Some(&secret())).await;
    assert!(matches!(again, Ok(Access::Differs(_))), "{again:?}");
}

#[tokio::test]
async fn names_that_are_hard_and_names_that_are_refused() {
    let (server, tenancy) = ready();
    let long = "x".repeat(63);
    let good = [
        "a", "a_", "a-b", "a.b", "ab", "0", "_", "select", "user", &long,
    ];
    for (n, name) in good.iter().enumerate() {
        let claim = claim(&n.to_string(), name, name);
        tenancy
            .prepare(&claim, Some(&secret()))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            tenancy.check(&claim, Some(&secret())).await,
            Ok(Access::Exact),
            "{name}"
        );
        tenant(&server, &claim).await.unwrap();
    }
    let before = everything(&server).await;
    let longer = "x".repeat(64);
    for bad in [
        "",
        "postgres",
        "template1",
        "pg_x",
        "steward",
        ADMINISTRATOR,
        "public",
        "none",
        "a\"b",
        "a'b",
        "a b",
        "a/b",
        "a;drop",
        "é",
        "..",
        &longer,
    ] {
        for claim in [claim("x", bad, "fine"), claim("x", "fine", bad)] {
            let refused = tenancy.prepare(&claim, Some(&secret())).await;
            assert!(
                matches!(refused, Err(TenancyError::Refused(_))),
                "{bad}: {refused:?}"
            );
            let refused = tenancy.drop_data(&claim).await;
            assert!(
                matches!(refused, Err(TenancyError::Refused(_))),
                "{bad}: {refused:?}"
            );
        }
    }
    let capital = tenancy
        .prepare(&claim("x", "A", "fine"), Some(&secret()))
        .await;
    assert!(capital.unwrap_err().to_string().contains("capital"));
    assert_eq!(everything(&server).await, before);
    for (n, name) in good.iter().enumerate() {
        tenancy
            .drop_data(&claim(&n.to_string(), name, name))
            .await
            .unwrap();
        tenancy
            .release(&claim(&n.to_string(), name, name))
            .await
            .unwrap();
    }
}
