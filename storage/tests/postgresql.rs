//! The life of tenants in a real PostgreSQL.

mod lab;

use std::time::{Duration, Instant};

use lab::claim;
use lab::sql::{
    ADMINISTRATOR, Kind, Kine, PASSWORD, Server, Settings, administrator, connection, enter, run,
    secret, start, start_with, tenant,
};
use sqlx::Connection as _;
use storage::tenancy::{
    Access, Claim, Compaction, Connection, Data, Password, Stage, Tenancy, TenancyError, connect,
};

fn ready() -> (Server, Box<dyn Tenancy>) {
    let server = start(Kind::PostgreSql);
    let tenancy = connect(connection(&server)).unwrap();
    (server, tenancy)
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
    let none = tenancy.prepare(&a, None, Data::New).await.unwrap_err();
    assert!(none.to_string().contains("needs a password"), "{none}");

    // One that comes and goes, so that what remains of everybody is there.
    let first = claim("0", "first", "first");
    tenancy
        .prepare(&first, Some(&secret()), Data::New)
        .await
        .unwrap();
    for step in 0..3 {
        match step {
            0 => tenancy.revoke(&first).await,
            1 => tenancy.drop_data(&first).await,
            _ => tenancy.release(&first).await,
        }
        .unwrap();
    }
    let before = everything(&server).await;

    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Exact));
    assert_eq!(tenancy.claims("1").await, Ok(vec![a.clone()]));

    // What is as it should be is not written again (rule 20).
    let quiet = everything(&server).await;
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(everything(&server).await, quiet);
    assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());

    let mut open = tenant(&server, &a).await.unwrap();
    run(&mut open, "create table kine (value text)").await;
    run(
        &mut open,
        "insert into kine select repeat('x', 1000) from generate_series(1, 5000)",
    )
    .await;
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
    let taken = tenancy.prepare(&other, Some(&secret()), Data::New).await;
    assert!(matches!(taken, Err(TenancyError::SchemaTaken { .. })));
    tenancy.release(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Unclaimed));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    assert_eq!(everything(&server).await, before);
    tenancy
        .prepare(&other, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert!(
        !server.log().contains(secret().expose()),
        "in the server's log"
    );
}

#[tokio::test]
async fn a_revoked_user_goes_with_its_database_in_any_order() {
    let (_server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
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
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let endpoint = |hosts: &str| {
        format!(
            "postgres://{user}:{}@{hosts}/{}?sslmode=verify-full&target_session_attrs=read-write",
            secret().expose(),
            a.schema
        )
    };
    let mut kine = Kine::start(&server, &endpoint(&server.endpoint()));
    kine.work().await;
    drop(kine);
    Kine::refuses_strangers(&endpoint(&server.endpoint()));
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
    tenancy
        .prepare(&before, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut old = tenant(&server, &before).await.unwrap();
    tenancy.revoke(&before).await.unwrap();
    tenancy.drop_data(&before).await.unwrap();
    tenancy.release(&before).await.unwrap();
    let next = Password::new("another");
    tenancy
        .prepare(&after, Some(&next), Data::New)
        .await
        .unwrap();
    let mut new = enter(&server, "u", "another", "a").await.unwrap();
    run(&mut new, "create table kine (value text)").await;
    // What the one before knew opens nothing, also under the same name of a user.
    assert!(old.ping().await.is_err());
    assert!(tenant(&server, &before).await.is_err());
    for late in [
        tenancy.prepare(&before, Some(&secret()), Data::New).await,
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

    // No lock stays behind in a connection that is kept.
    let mut root = administrator(&server, "steward").await;
    let held: Vec<i32> = sqlx::query_scalar("select pid from pg_locks where locktype = 'advisory'")
        .fetch_all(&mut root)
        .await
        .unwrap();
    assert_eq!(held, Vec::<i32>::new());
}

/// The claim counts as it is once the lock is had, and nothing happens without the lock.
#[tokio::test]
async fn a_claim_is_read_under_the_lock() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut other = administrator(&server, "steward").await;
    let number = number_of("schema/a");
    let lock = format!("select pg_advisory_lock({number})");
    let unlock = format!("select pg_advisory_unlock({number})");
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    run(&mut other, &lock).await;
    for end in ["hand over", "cut off"] {
        let (done, ()) = tokio::join!(tenancy.drop_data(&a), async {
            let begin = Instant::now();
            loop {
                assert!(begin.elapsed() < Duration::from_secs(4), "nobody waits");
                let count: i64 = sqlx::query_scalar(waiting)
                    .fetch_one(&mut other)
                    .await
                    .unwrap();
                if count == 1 {
                    break;
                }
            }
            match end {
                "hand over" => {
                    run(&mut other, "update steward.claims set uid = '2'").await;
                    run(&mut other, &unlock).await;
                }
                _ => {
                    let sql = "select pg_terminate_backend(pid) from pg_locks
                        where locktype = 'advisory' and not granted";
                    run(&mut other, sql).await;
                }
            }
        });
        match end {
            "hand over" => assert!(matches!(done, Err(TenancyError::SchemaTaken { .. }))),
            _ => assert!(
                matches!(done, Err(TenancyError::Unreachable(_))),
                "{done:?}"
            ),
        }
        run(&mut other, "update steward.claims set uid = '1'").await;
        run(&mut other, &lock).await;
    }
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
}

#[tokio::test]
async fn changes_to_one_schema_wait_for_each_other_until_the_deadline() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut other = administrator(&server, "steward").await;
    // The lock on every schema that there can be: whoever asks for one waits.
    let hash = number_of("schema/a");
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
fn number_of(name: &str) -> i64 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    i64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap())
}

#[tokio::test]
async fn a_name_belongs_to_who_claimed_it_first() {
    let (server, tenancy) = ready();
    let first = claim("1", "a", "u");
    tenancy
        .prepare(&first, Some(&secret()), Data::New)
        .await
        .unwrap();
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
        assert_eq!(
            tenancy.prepare(&thief, Some(&secret()), Data::New).await,
            taken
        );
        assert_eq!(tenancy.check(&thief, None).await.map(|_| ()), taken);
        // The thief's own deletion touches nothing of the holder's.
        assert_eq!(tenancy.revoke(&thief).await, taken);
        assert_eq!(tenancy.drop_data(&thief).await, taken);
        assert_eq!(tenancy.release(&thief).await, taken);
        assert_eq!(tenancy.remaining(&thief).await.map(|_| ()), taken);
    }
    // The holder itself does not get a second user on its schema.
    let otherwise = claim("1", "a", "v");
    let refused = tenancy
        .prepare(&otherwise, Some(&secret()), Data::New)
        .await;
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
        tenancy
            .prepare(claim, Some(&secret()), Data::New)
            .await
            .unwrap();
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
    let asked = all.map(|claim| patient.prepare(claim, Some(&secret), Data::New));
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
        let refused = tenancy.prepare(&claim, Some(&secret()), Data::New).await;
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
        .prepare(&claim("1", "a", "a"), Some(&secret()), Data::New)
        .await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("somebody else's"), "{text}");
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    run(&mut theirs, "drop table ships").await;
    tenancy
        .prepare(&claim("1", "a", "a"), Some(&secret()), Data::New)
        .await
        .unwrap();
}

#[tokio::test]
async fn drift_is_seen_and_repaired() {
    let (server, tenancy) = ready();
    let (a, b) = (claim("1", "a", "u"), claim("2", "b", "v"));
    for claim in [&a, &b] {
        tenancy
            .prepare(claim, Some(&secret()), Data::New)
            .await
            .unwrap();
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
        "alter role u in database b set work_mem = '1MB'",
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
    ];
    let inner = [
        "revoke all on schema public from u",
        "revoke create on schema public from u",
        "alter table kine owner to admin",
        "grant execute on function pg_advisory_lock(bigint) to u",
        "grant execute on function pg_try_advisory_xact_lock(int, int) to public",
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
            .prepare(&a, Some(&secret()), Data::New)
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
        "create table shared (x int); alter table shared owner to u",
    )
    .await;
    let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(
        matches!(&seen, Access::Differs(why) if why.contains("database \"b\"")),
        "{seen:?}"
    );
    let refused = tenancy.prepare(&a, Some(&secret()), Data::New).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    run(&mut other, "alter table shared owner to admin").await;
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();

    // The role itself.
    drop(own);
    tenancy.drop_data(&a).await.unwrap();
    let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(matches!(seen, Access::Lost(_)), "{seen:?}");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
}

/// An empty database in the place of one that was lost looks like a cluster without objects.
#[tokio::test]
async fn data_that_is_gone_is_not_made_anew() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    let prepare = async |data| tenancy.prepare(&a, Some(&secret()), data).await;
    let check = async || tenancy.check(&a, Some(&secret())).await.unwrap();
    let lost = Err(TenancyError::DataLost(
        "database \"a\" does not exist, and nobody has claimed it: the datastore is another \
         one, or it was emptied"
            .to_owned(),
    ));
    assert_eq!(prepare(Data::Kept).await, lost);
    assert!(tenancy.claimants().await.unwrap().is_empty());

    for (database, sql, sentence) in [
        (
            "postgres",
            "drop database a with (force)",
            "database \"a\" does not exist",
        ),
        (
            "a",
            "drop table kine",
            "database \"a\" has no table \"kine\" any more",
        ),
        (
            "a",
            "drop schema public cascade",
            "database \"a\" has no table \"kine\" any more",
        ),
    ] {
        prepare(Data::New).await.unwrap();
        // kine has not started yet.
        assert_eq!(check().await, Access::Exact, "{sql}");
        let mut own = tenant(&server, &a).await.unwrap();
        run(&mut own, "create table kine (id bigserial primary key)").await;
        assert_eq!(check().await, Access::Exact, "{sql}");
        let mut root = administrator(&server, database).await;
        for harmless in [
            "revoke connect on database a from u",
            "alter database a allow_connections false",
        ] {
            let mut outside = administrator(&server, "postgres").await;
            run(&mut outside, harmless).await;
            prepare(Data::Kept).await.unwrap();
        }
        run(&mut root, sql).await;
        let before = everything(&server).await;
        assert_eq!(check().await, Access::Lost(sentence.to_owned()), "{sql}");
        let refused = prepare(Data::Kept).await;
        assert_eq!(refused, Err(TenancyError::DataLost(sentence.to_owned())));
        assert_eq!(everything(&server).await, before);
    }
    prepare(Data::New).await.unwrap();
    assert_eq!(check().await, Access::Exact);
}

#[tokio::test]
async fn passwords_are_rotated_and_kept() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut own = tenant(&server, &a).await.unwrap();
    let stored = async || -> String {
        let mut root = administrator(&server, "postgres").await;
        let sql = "select rolpassword from pg_authid where rolname = 'u'";
        sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap()
    };
    let first = stored().await;
    assert!(first.starts_with("SCRAM-SHA-256$4096:"), "{first}");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(stored().await, first);
    let next = Password::new("it's-\\another\"$1");
    let wrong = tenancy.check(&a, Some(&next)).await.unwrap();
    assert!(
        matches!(&wrong, Access::Differs(why) if why.contains("password")),
        "{wrong:?}"
    );
    tenancy.prepare(&a, Some(&next), Data::New).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    // The tenant itself may change it.
    run(&mut own, "alter role u password 'mine'").await;
    assert!(matches!(
        tenancy.check(&a, Some(&next)).await,
        Ok(Access::Differs(_))
    ));
    tenancy.prepare(&a, Some(&next), Data::New).await.unwrap();
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

/// While nothing has changed, a look at a tenant is no login.
#[tokio::test]
async fn a_password_is_tried_when_it_may_have_changed() {
    let mut settings = Settings::local(PASSWORD);
    settings.configuration = "log_connections = on".to_owned();
    let server = start_with(Kind::PostgreSql, settings);
    let tenancy = connect(connection(&server)).unwrap();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let logins = || {
        server
            .log()
            .matches("connection authorized: user=u ")
            .count()
    };
    for _ in 0..3 {
        assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    }
    assert_eq!(logins(), 1, "{}", server.log());
    let mut own = tenant(&server, &a).await.unwrap();
    run(&mut own, "alter role u password 'mine'").await;
    let differs = tenancy.check(&a, Some(&secret())).await;
    assert!(matches!(differs, Ok(Access::Differs(_))), "{differs:?}");
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
            .prepare(&claim, Some(&secret()), Data::New)
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
            let refused = tenancy.prepare(&claim, Some(&secret()), Data::New).await;
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
        .prepare(&claim("x", "A", "fine"), Some(&secret()), Data::New)
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

fn at(server: &Server, change: impl FnOnce(&mut Connection)) -> Box<dyn Tenancy> {
    let mut connection = Connection {
        deadline: Duration::from_secs(2),
        ..connection(server)
    };
    change(&mut connection);
    connect(connection).unwrap()
}

#[tokio::test]
async fn strangers_are_told_apart() {
    let (server, tenancy) = ready();
    tenancy
        .prepare(&claim("1", "a", "u"), Some(&secret()), Data::New)
        .await
        .unwrap();
    let verify =
        async |change: &dyn Fn(&mut Connection)| at(&server, change).verify().await.unwrap_err();
    let here = server.endpoint();

    let error = verify(&|it| it.password = Some("wrong".to_owned())).await;
    assert!(matches!(error, TenancyError::Unauthenticated(_)), "{error}");
    assert!(error.to_string().contains(&here), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");

    let foreign = lab::sql::server::Authority::new("foreign");
    let error = verify(&|it| it.ca_pem = Some(foreign.cert.clone().into())).await;
    assert!(matches!(error, TenancyError::Unauthenticated(_)), "{error}");
    assert!(error.to_string().contains(&here), "{error}");

    let error = verify(&|it| it.endpoints = vec!["127.0.0.1:1".to_owned()]).await;
    assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
    assert!(
        error.to_string().contains("127.0.0.1:1: connect"),
        "{error}"
    );

    for missing in ["username", "password"] {
        let mut without = connection(&server);
        match missing {
            "username" => without.username = None,
            _ => without.password = Some(String::new()),
        }
        let error = connect(without).err().unwrap();
        assert!(matches!(error, TenancyError::Refused(_)), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
    let mut broken = connection(&server);
    broken.ca_pem = Some(b"none".to_vec());
    assert!(matches!(
        connect(broken).err(),
        Some(TenancyError::Refused(_))
    ));

    // Without an authority it takes what the server offers.
    let health = at(&server, |it| it.ca_pem = None).verify().await.unwrap();
    assert!(health.authentication);

    // A tenant is no administrator.
    let error = at(&server, |it| {
        it.username = Some("u".to_owned());
        it.password = Some(secret().expose().to_owned());
    });
    let error = error
        .prepare(&claim("2", "b", "v"), Some(&secret()), Data::New)
        .await
        .unwrap_err();
    assert!(matches!(error, TenancyError::Refused(_)), "{error}");

    let begin = Instant::now();
    server.signal("STOP").unwrap();
    let impatient = at(&server, |it| it.deadline = Duration::from_secs(1));
    let silent = impatient.verify().await.unwrap_err();
    assert!(matches!(silent, TenancyError::Unreachable(_)), "{silent}");
    assert!(begin.elapsed() < Duration::from_secs(4));
    server.signal("CONT").unwrap();
    tenancy.claimants().await.unwrap();
    // A connection that was kept, and its server ends: said, not hung on.
    server.signal("INT").unwrap();
    let begin = Instant::now();
    loop {
        let gone = tenancy.claimants().await;
        if let Err(error) = gone {
            assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
            if error.to_string().contains("refused") {
                break;
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn of_several_servers_the_one_that_writes() {
    let primary = start(Kind::PostgreSql);
    let mut settings = Settings::local(PASSWORD);
    settings.standby = true;
    let standby = start_with(Kind::PostgreSql, settings);
    let error = at(&standby, |_| ()).verify().await.unwrap_err();
    assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("standby"), "{error}");

    // What providers set when the disk is full.
    let mut settings = Settings::local(PASSWORD);
    settings.configuration = "default_transaction_read_only = on".to_owned();
    let full = start_with(Kind::PostgreSql, settings);
    let error = at(&full, |_| ()).verify().await.unwrap_err();
    assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("only reads"), "{error}");

    let trusted = [&primary, &standby]
        .map(|it| it.authority.cert.clone())
        .concat();
    let tenancy = at(&primary, |it| {
        it.endpoints = vec![
            "127.0.0.1:1".to_owned(),
            standby.endpoint(),
            primary.endpoint(),
        ];
        it.ca_pem = Some(trusted.into_bytes());
    });
    tenancy.verify().await.unwrap();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    tenant(&primary, &a).await.unwrap();
    primary.signal("KILL").unwrap();
    let begin = Instant::now();
    let error = loop {
        let error = tenancy.verify().await.unwrap_err();
        if error.to_string().matches("refused").count() == 2 {
            break error.to_string();
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{error}");
    };
    for endpoint in ["127.0.0.1:1: ", &standby.endpoint(), &primary.endpoint()] {
        assert!(error.contains(endpoint), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_lets_everybody_in_gets_no_tenants() {
    for (hba, guarded) in [
        ("host all all all trust", false),
        (
            "host all admin all scram-sha-256\nhost all all all trust",
            false,
        ),
        (
            "host all admin all trust\nhost all all all scram-sha-256",
            false,
        ),
        ("host all all all scram-sha-256", true),
        ("host all all all md5", true),
    ] {
        let mut settings = Settings::local(PASSWORD);
        settings.hba = Some(hba.to_owned());
        let server = start_with(Kind::PostgreSql, settings);
        let tenancy = at(&server, |_| ());
        assert_eq!(
            tenancy.verify().await.unwrap().authentication,
            guarded,
            "{hba}"
        );
        let prepared = tenancy
            .prepare(&claim("1", "a", "u"), Some(&secret()), Data::New)
            .await;
        match guarded {
            true => prepared.unwrap(),
            false => {
                let text = prepared.unwrap_err().to_string();
                assert!(text.contains("without the right password"), "{text}");
                assert!(tenancy.claimants().await.unwrap().is_empty());
            }
        }
    }
}

/// The certificate of a `DataStore` is copied to tenants' pods.
#[tokio::test]
async fn a_certificate_that_makes_one_the_administrator_gets_no_tenants() {
    for (hba, gaps) in [
        (
            "hostssl all admin all cert\nhostssl all all all scram-sha-256",
            1,
        ),
        ("hostssl all all all scram-sha-256 clientcert=verify-ca", 0),
    ] {
        let mut settings = Settings::local(PASSWORD);
        settings.hba = Some(hba.to_owned());
        let server = start_with(Kind::PostgreSql, settings);
        let pair = server.authority.client(ADMINISTRATOR);
        let tenancy = at(&server, |it| {
            it.client_cert = Some(pair.cert.clone().into());
            it.client_key = Some(pair.key.clone().into());
        });
        let health = tenancy.verify().await.unwrap();
        assert!(health.authentication, "{hba}");
        assert_eq!(health.gaps.len(), gaps, "{hba}: {:?}", health.gaps);
        let a = claim("1", "a", "u");
        let prepared = tenancy.prepare(&a, Some(&secret()), Data::New).await;
        if gaps == 0 {
            prepared.unwrap();
            assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
            continue;
        }
        let refused = prepared.unwrap_err();
        assert!(matches!(refused, TenancyError::Refused(_)), "{refused}");
        assert!(refused.to_string().contains("clientcert"), "{refused}");
        assert!(tenancy.claimants().await.unwrap().is_empty());
        // Mended, it is asked again at once.
        let hba = "hostssl all all all scram-sha-256 clientcert=verify-ca";
        std::fs::write(server.directory().join("hba"), hba).unwrap();
        server.signal("HUP").unwrap();
        let begin = Instant::now();
        while tenancy
            .prepare(&a, Some(&secret()), Data::New)
            .await
            .is_err()
        {
            assert!(begin.elapsed() < Duration::from_secs(5));
        }
    }
}

/// As a provider of databases gives one: not a superuser.
#[tokio::test]
async fn an_administrator_who_is_no_superuser() {
    let server = start(Kind::PostgreSql);
    let mut root = administrator(&server, "postgres").await;
    run(
        &mut root,
        "create role boss login createdb createrole password 'b'",
    )
    .await;
    let tenancy = at(&server, |it| {
        it.username = Some("boss".to_owned());
        it.password = Some("b".to_owned());
    });
    // It may not close what is open.
    let gaps = tenancy.verify().await.unwrap().gaps;
    assert!(
        gaps.len() == 2 && gaps[0].contains("\"postgres\""),
        "{gaps:?}"
    );
    run(&mut root, "grant connect on database postgres to boss").await;
    for name in ["postgres", "template1"] {
        run(
            &mut root,
            &format!("revoke all on database {name} from public"),
        )
        .await;
    }
    assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());

    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let mut own = tenant(&server, &a).await.unwrap();
    run(&mut own, "create table kine (id bigserial primary key)").await;
    for drift in [
        "alter role u createdb",
        "alter role u password 'x'",
        "alter role u connection limit 1",
        "alter role u set work_mem = '1GB'",
        "revoke connect on database a from u",
        "alter database a owner to u",
        "grant connect on database a to public",
    ] {
        run(&mut root, drift).await;
        let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
        assert!(matches!(seen, Access::Differs(_)), "{drift}: {seen:?}");
        tenancy
            .prepare(&a, Some(&secret()), Data::New)
            .await
            .unwrap_or_else(|e| panic!("{drift}: {e}"));
        assert_eq!(
            tenancy.check(&a, Some(&secret())).await,
            Ok(Access::Exact),
            "{drift}"
        );
    }
    // What the tenant has set itself, of what the administrator's session does not know.
    for of in ["", "in database a "] {
        let set = "set plpgsql.extra_warnings = 'none'";
        run(
            &mut own,
            &format!("do $$begin end$$; alter role u {of}{set}"),
        )
        .await;
        let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
        assert!(matches!(seen, Access::Differs(_)), "{of}{seen:?}");
        let prepared = tenancy.prepare(&a, Some(&secret()), Data::New).await;
        assert_eq!(prepared, Ok(()), "{of}");
        assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    }
    // A new password does not wait for what cannot be mended.
    run(&mut root, "create table left_here (id int)").await;
    run(&mut root, "alter table left_here owner to u").await;
    let other = Password::new("b0bacafe-1111-4222-8333-444455556666");
    let refused = tenancy.prepare(&a, Some(&other), Data::New).await;
    assert!(
        matches!(&refused, Err(TenancyError::Refused(why)) if why.contains("\"postgres\"")),
        "{refused:?}"
    );
    assert!(tenant(&server, &a).await.is_err());
    let changed = enter(&server, &a.user, other.expose(), &a.schema).await;
    assert!(changed.is_ok(), "{changed:?}");
    run(&mut root, "drop table left_here").await;
    let prepared = tenancy.prepare(&a, Some(&secret()), Data::New).await;
    assert_eq!(prepared, Ok(()));
    // It freezes and thaws: a role of its making keeps the table meanwhile.
    let password = secret();
    let frozen = tenancy.turn(&a, Stage::Frozen, Some(&password)).await;
    let frozen = frozen.unwrap();
    assert_eq!(
        tenancy.check(&frozen, Some(&password)).await,
        Ok(Access::Exact)
    );
    let write = "insert into kine default values";
    assert!(sqlx::raw_sql(write).execute(&mut own).await.is_err());
    let serving = tenancy.turn(&frozen, Stage::Serving, Some(&password)).await;
    assert_eq!(serving.unwrap(), a);
    assert_eq!(tenancy.check(&a, Some(&password)).await, Ok(Access::Exact));
    run(&mut own, write).await;
    // What only a superuser mends is said.
    run(&mut root, "alter role u superuser").await;
    let refused = tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("superuser"), "{refused}");
    run(&mut root, "alter role u nosuperuser").await;

    tenancy.revoke(&a).await.unwrap();
    assert!(own.ping().await.is_err());
    tenancy.drop_data(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
    tenancy.release(&a).await.unwrap();

    run(&mut root, "alter role boss nocreatedb").await;
    let refused = tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap_err();
    assert!(matches!(refused, TenancyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("CREATEDB"), "{refused}");
    assert!(tenancy.claimants().await.unwrap().is_empty());
}

/// What its certificate is for counts, not only who signed it.
#[tokio::test]
async fn a_server_at_several_addresses() {
    let mut settings = Settings::local(PASSWORD);
    settings.addresses = ["127.0.0.1", "127.0.0.2"]
        .map(|it| it.parse().unwrap())
        .to_vec();
    settings.names = Vec::new();
    let server = start_with(Kind::PostgreSql, settings);
    for (host, is_known) in [("127.0.0.2", true), ("localhost", false)] {
        let endpoint = format!("{host}:{}", server.port);
        let tenancy = at(&server, |it| it.endpoints = vec![endpoint]);
        match tenancy.verify().await {
            Ok(_) => assert!(is_known, "{host}"),
            Err(error) => {
                assert!(!is_known, "{host}: {error}");
                assert!(matches!(error, TenancyError::Unauthenticated(_)), "{error}");
            }
        }
    }
}

/// What an administrator opens again is said, and closed before the next tenant comes.
#[tokio::test]
async fn what_was_closed_is_closed_again() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut root = administrator(&server, "postgres").await;
    for name in ["postgres", "template1", "steward"] {
        run(
            &mut root,
            &format!("grant connect on database {name} to public"),
        )
        .await;
        let gaps = tenancy.verify().await.unwrap().gaps;
        assert!(gaps.len() == 1 && gaps[0].contains(name), "{gaps:?}");
        tenancy
            .prepare(&a, Some(&secret()), Data::New)
            .await
            .unwrap();
        assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());
    }
}
