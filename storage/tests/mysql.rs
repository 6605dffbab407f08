//! The life of tenants in a real MariaDB.

mod lab;

use std::time::{Duration, Instant};

use lab::claim;
use lab::sql::{
    ADMINISTRATOR, Kind, Kine, PASSWORD, Server, Settings, connection, enter_mysql as enter,
    mysql_administrator as administrator, mysql_tenant as tenant, run_mysql as run, secret, start,
    start_with,
};
use sqlx::{Connection as _, MySqlConnection};
use storage::tenancy::{
    Access, Claim, Compaction, Connection, Data, Password, Tenancy, TenancyError, connect,
};

fn ready() -> (Server, Box<dyn Tenancy>) {
    let server = start(Kind::MariaDb);
    let tenancy = connect(connection(&server)).unwrap();
    (server, tenancy)
}

fn at(server: &Server, change: impl FnOnce(&mut Connection)) -> Box<dyn Tenancy> {
    let mut connection = Connection {
        deadline: Duration::from_secs(2),
        ..connection(server)
    };
    change(&mut connection);
    connect(connection).unwrap()
}

/// All databases, users and rights.
async fn everything(server: &Server) -> Vec<String> {
    let mut root = administrator(server).await;
    let sql = "select concat('database ', schema_name) from information_schema.schemata
        union all select concat('user ', User, '@', Host, ' ', Priv) from mysql.global_priv
        union all select concat('right ', Db, ' ', User) from mysql.db
        union all select concat('role ', User, ' ', Role) from mysql.roles_mapping order by 1";
    sqlx::query_scalar(sql).fetch_all(&mut root).await.unwrap()
}

/// Of the tenant's database, as the server says it.
async fn bytes(root: &mut MySqlConnection, claim: &Claim) -> i64 {
    let sql = "select cast(coalesce(sum(data_length + index_length), 0) as signed)
        from information_schema.tables where table_schema = ?";
    let bytes = sqlx::query_scalar(sql).bind(&claim.schema);
    bytes.fetch_one(root).await.unwrap()
}

#[tokio::test]
async fn a_tenant_lives_and_leaves_nothing() {
    let (server, tenancy) = ready();
    let fresh = tenancy.verify().await.unwrap();
    assert!(fresh.authentication);
    assert_eq!(fresh.gaps, Vec::<String>::new());
    assert_eq!(fresh.alarms, []);
    assert!(fresh.version.ends_with("-MariaDB"), "{}", fresh.version);
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert!(tenancy.claimants().await.unwrap().is_empty());
    let a = claim("1", "default_tenant-1", "default_user-1");
    assert_eq!(
        tenancy.check(&a, Some(&secret())).await,
        Ok(Access::Unclaimed)
    );
    let none = tenancy.prepare(&a, None, Data::New).await.unwrap_err();
    assert!(none.to_string().contains("needs a password"), "{none}");
    // Nothing to do, and no place to do it.
    tenancy.revoke(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));

    let first = claim("0", "first", "first");
    tenancy
        .prepare(&first, Some(&secret()), Data::New)
        .await
        .unwrap();
    tenancy.drop_data(&first).await.unwrap();
    tenancy.release(&first).await.unwrap();
    let before = everything(&server).await;

    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Exact));
    assert_eq!(tenancy.claims("1").await, Ok(vec![a.clone()]));

    // What is as it should be is not written again (rule 20).
    let mut root = administrator(&server).await;
    run(&mut root, "set global general_log = on").await;
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    run(&mut root, "set global general_log = off").await;
    let log = general_log(&server);
    assert!(log.contains("show grants"), "{log}");
    for word in ["create ", "alter ", "grant ", "insert ", "drop ", "kill "] {
        let written = log
            .lines()
            .find(|line| line.contains(&format!("Query\t{word}")) && !line.contains("show "));
        assert_eq!(written, None);
    }

    let mut open = tenant(&server, &a).await.unwrap();
    run(
        &mut open,
        "insert into kine (value) select repeat('x', 10000) from seq_1_to_300",
    )
    .await;
    let begin = Instant::now();
    while bytes(&mut root, &a).await < 3_000_000 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        run(
            &mut open,
            "insert into kine (value) values (repeat('x', 100000))",
        )
        .await;
    }
    // The size is remembered for a while.
    let size = at(&server, |_| ()).verify().await.unwrap().size;
    assert!(size > 3_000_000, "{size}");
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
    assert_eq!(tenancy.remaining(&a).await, Ok(1));
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
    assert_eq!(everything(&server).await, before);
    run(&mut root, "set global general_log = on").await;
    tenancy
        .prepare(&other, Some(&secret()), Data::New)
        .await
        .unwrap();
    let log = general_log(&server);
    assert!(log.contains("create user"), "{log}");
    assert!(!log.contains(secret().expose()), "{log}");
}

fn general_log(server: &Server) -> String {
    let data = std::fs::read_dir(server.directory().join("data")).unwrap();
    let mut text = String::new();
    for entry in data {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "log") {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    text
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
    let endpoint = format!(
        "mysql://{user}:{}@tcp({})/{}",
        secret().expose(),
        server.endpoint(),
        a.schema
    );
    let mut kine = Kine::start(&server, &endpoint);
    kine.work().await;
    drop(kine);
    Kine::refuses_strangers(&endpoint);
    // It looks for its table at each start.
    let mut kine = Kine::start(&server, &endpoint);
    let mut client = kine.client().await;
    let found = client.get("/registry/pods/x", None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"2");
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert!(Kine::create(&mut client, "/registry/pods/y").await.unwrap());
    // Keys are told apart as etcd does it, also after kine had made the table itself.
    assert!(Kine::create(&mut client, "/registry/pods/Y").await.unwrap());
    for key in ["/registry/pods/y", "/registry/pods/Y"] {
        let found = client.get(key, None).await.unwrap();
        assert_eq!(found.kvs()[0].key(), key.as_bytes());
    }
    drop(kine);
    let mut root = administrator(&server).await;
    run(&mut root, "drop table `default_tenant-1.x`.kine").await;
    let mut kine = Kine::start(&server, &endpoint);
    let mut client = kine.client().await;
    assert!(Kine::create(&mut client, "/registry/pods/y").await.unwrap());
    assert!(!Kine::create(&mut client, "/registry/pods/Y").await.unwrap());
    let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
    assert!(
        matches!(&seen, Access::Differs(why) if why.contains("capital")),
        "{seen:?}"
    );
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    assert!(Kine::create(&mut client, "/registry/pods/Y").await.unwrap());
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
    let mut new = enter(&server, "u", "another", Some("a")).await.unwrap();
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
    run(&mut new, "insert into kine (value) values ('1')").await;
    assert_eq!(tenancy.check(&after, Some(&next)).await, Ok(Access::Exact));
}

/// The name of the lock that the driver takes.
async fn lock_name(server: &Server, schema: &str) -> String {
    let mut root = administrator(server).await;
    let sql = "select text from steward.secret";
    let secret: String = sqlx::query_scalar(sql).fetch_one(&mut root).await.unwrap();
    assert_eq!(secret.len(), 32);
    let text = format!("{secret}/{schema}");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("steward/{}", &hash[..40])
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
    let name = lock_name(&server, "a").await;
    let mut other = administrator(&server).await;
    let lock = format!("do get_lock('{name}', 5)");
    let unlock = format!("do release_lock('{name}')");
    let waiting = "select cast(id as char) from information_schema.processlist
        where state like 'User lock%'";
    run(&mut other, &lock).await;
    for end in ["hand over", "cut off"] {
        let (done, ()) = tokio::join!(tenancy.drop_data(&a), async {
            let begin = Instant::now();
            let id = loop {
                assert!(begin.elapsed() < Duration::from_secs(4), "nobody waits");
                let id: Option<String> = sqlx::query_scalar(waiting)
                    .fetch_optional(&mut other)
                    .await
                    .unwrap();
                if let Some(id) = id {
                    break id;
                }
            };
            match end {
                "hand over" => {
                    run(&mut other, "update steward.claims set uid = '2'").await;
                    run(&mut other, &unlock).await;
                }
                _ => run(&mut other, &format!("kill {id}")).await,
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
    let begin = Instant::now();
    let hurried = at(&server, |it| it.deadline = Duration::from_secs(1));
    let waited = hurried.revoke(&a).await.unwrap_err();
    assert!(matches!(waited, TenancyError::Unreachable(_)), "{waited}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    run(&mut other, "do release_all_locks()").await;
    tenancy.revoke(&a).await.unwrap();
    // No lock stays behind in a connection that is kept.
    let free = format!("select is_free_lock('{name}')");
    let free: i32 = sqlx::query_scalar(sqlx::AssertSqlSafe(free))
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(free, 1);
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
    let otherwise = claim("1", "a", "v");
    let refused = tenancy
        .prepare(&otherwise, Some(&secret()), Data::New)
        .await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    tenancy.drop_data(&otherwise).await.unwrap();
    assert_eq!(everything(&server).await, before);
    // Names of users are told apart by the size of letters.
    tenancy
        .prepare(&claim("2", "b", "U"), Some(&secret()), Data::New)
        .await
        .unwrap();
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
    let patient = at(&server, |it| it.deadline = Duration::from_secs(60));
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
    let mut root = administrator(&server).await;
    run(&mut root, "create database app").await;
    run(&mut root, "create user alice@'10.%' identified by 'x'").await;
    run(&mut root, "create role auditor").await;
    for (schema, user, word) in [
        ("app", "u", "the database \"app\""),
        ("s", "alice", "the user \"alice\""),
        ("s", "auditor", "the user \"auditor\""),
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
        left.contains("database app") && left.contains("user alice@10.%"),
        "{left}"
    );
}

/// Somebody has a database of the name that Steward's has.
#[tokio::test]
async fn a_database_of_somebody_else_is_not_made_ours() {
    let (server, tenancy) = ready();
    let mut root = administrator(&server).await;
    run(&mut root, "create database steward").await;
    run(&mut root, "create table steward.ships (name text)").await;
    let a = claim("1", "a", "a");
    let refused = tenancy.prepare(&a, Some(&secret()), Data::New).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("somebody else's"), "{text}");
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    run(&mut root, "drop table steward.ships").await;
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_everybody_may_is_a_gap() {
    let (server, tenancy) = ready();
    let mut root = administrator(&server).await;
    for (open, close, word) in [
        (
            "create user ''@'10.%'",
            "drop user ''@'10.%'",
            "without a name",
        ),
        (
            "insert into mysql.db (Host, Db, User, Select_priv) values ('%', 'test\\\\_%', '', 'Y')",
            "delete from mysql.db where User = ''",
            "test",
        ),
        (
            "grant select on mysql.* to public",
            "revoke select on mysql.* from public",
            "mysql",
        ),
        (
            "grant reload on *.* to public",
            "revoke reload on *.* from public",
            "RELOAD",
        ),
    ] {
        run(&mut root, open).await;
        let gaps = tenancy.verify().await.unwrap().gaps;
        assert!(gaps.join(" ").contains(word), "{open}: {gaps:?}");
        run(&mut root, close).await;
        let gaps = tenancy.verify().await.unwrap().gaps;
        assert_eq!(gaps, Vec::<String>::new(), "{close}");
    }
    // Names that are everybody's are nobody's.
    let shared = claim("1", "test_a", "test_a");
    tenancy
        .prepare(&shared, Some(&secret()), Data::New)
        .await
        .unwrap();
    run(
        &mut root,
        "insert into mysql.db (Host, Db, User, Select_priv) values ('%', 'test\\\\_%', '', 'Y')",
    )
    .await;
    let seen = tenancy.check(&shared, None).await.unwrap();
    assert!(matches!(seen, Access::Differs(_)), "{seen:?}");
    let refused = tenancy.prepare(&shared, Some(&secret()), Data::New).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    // Nor is a name of that kind claimed by who does not get it.
    let next = claim("2", "test_b", "test_b");
    let refused = tenancy.prepare(&next, Some(&secret()), Data::New).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(tenancy.claims("2").await, Ok(vec![]));
    run(&mut root, "delete from mysql.db where User = ''").await;
    tenancy.drop_data(&shared).await.unwrap();
    tenancy.release(&shared).await.unwrap();
    // One who is let in from here without a name or a password.
    run(&mut root, "create user ''@'%'").await;
    let tenancy = at(&server, |_| ());
    assert!(!tenancy.verify().await.unwrap().authentication);
    let refused = tenancy
        .prepare(&claim("1", "a", "u"), Some(&secret()), Data::New)
        .await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("without the right password"), "{text}");
    assert!(tenancy.claimants().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_checks_nothing_gets_no_tenants() {
    let mut settings = Settings::local(PASSWORD);
    settings.configuration = "--skip-grant-tables".to_owned();
    let server = start_with(Kind::MariaDb, settings);
    let tenancy = at(&server, |_| ());
    assert!(!tenancy.verify().await.unwrap().authentication);
    let refused = tenancy
        .prepare(&claim("1", "a", "u"), Some(&secret()), Data::New)
        .await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn drift_is_seen_and_repaired() {
    let (server, tenancy) = ready();
    let (a, b) = (claim("1", "a_b", "u"), claim("2", "axb", "v"));
    for claim in [&a, &b] {
        tenancy
            .prepare(claim, Some(&secret()), Data::New)
            .await
            .unwrap();
    }
    let mut root = administrator(&server).await;
    run(&mut root, "create role more").await;
    run(&mut root, "grant select on axb.* to more").await;
    run(&mut root, "create table axb.other (x int)").await;
    for sql in [
        "grant select on *.* to u",
        "grant all on *.* to u with grant option",
        "grant process on *.* to u",
        "grant grant option on `a\\_b`.* to u",
        "grant drop on `a\\_b`.* to u",
        "grant all on `a\\_b`.* to u",
        "grant select on `a_b`.* to u",
        "grant select on axb.* to u",
        "grant select on axb.other to u",
        "grant select (x) on axb.other to u",
        "grant select on steward.* to u",
        "grant more to u",
        "insert into mysql.proxies_priv (Host, User, Proxied_host, Proxied_user)
            values ('%', 'u', '%', 'v'); flush privileges",
        "revoke index on `a\\_b`.* from u",
        "revoke all on `a\\_b`.* from u",
        "revoke all privileges, grant option from u",
        "alter user u with max_user_connections 0",
        "alter user u with max_queries_per_hour 100",
        "alter user u require x509",
        "alter user u account lock",
        "alter user u password expire",
        "alter user u password expire interval 1 day",
        "alter user u identified by 'other'",
        "set password for u = ''",
        "create user u@'127.0.0.1' identified by 'other'",
        "create user u@localhost",
        "drop user u",
        "rename user u to w",
        "alter table a_b.kine modify name varchar(630) character set ascii",
    ] {
        run(&mut root, sql).await;
        let seen = tenancy.check(&a, Some(&secret())).await.unwrap();
        assert!(matches!(seen, Access::Differs(_)), "{sql}: {seen:?}");
        tenancy
            .prepare(&a, Some(&secret()), Data::New)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let access = tenancy.check(&a, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact), "{sql}");
        let mut own = tenant(&server, &a).await.unwrap();
        run(&mut own, "insert into kine (value) values ('x')").await;
    }
    assert_eq!(tenancy.check(&b, Some(&secret())).await, Ok(Access::Exact));
}

/// An empty database in the place of one that was lost looks like a cluster without objects.
#[tokio::test]
async fn data_that_is_gone_is_not_made_anew() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    let prepare = async |data| tenancy.prepare(&a, Some(&secret()), data).await;
    let check = async || tenancy.check(&a, Some(&secret())).await.unwrap();
    let lost = prepare(Data::Kept).await;
    assert!(matches!(lost, Err(TenancyError::DataLost(_))), "{lost:?}");
    assert!(tenancy.claimants().await.unwrap().is_empty());

    let mut root = administrator(&server).await;
    for (sql, sentence) in [
        ("drop database a", "database \"a\" does not exist"),
        ("drop table a.kine", "database \"a\" has no table for kine"),
    ] {
        prepare(Data::New).await.unwrap();
        assert_eq!(check().await, Access::Exact, "{sql}");
        run(&mut root, "drop user u").await;
        prepare(Data::Kept).await.unwrap();
        run(&mut root, sql).await;
        run(&mut root, "drop user u").await;
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
    let next = Password::new("it's-\\another\"$1`");
    let wrong = tenancy.check(&a, Some(&next)).await.unwrap();
    assert!(
        matches!(&wrong, Access::Differs(why) if why.contains("password")),
        "{wrong:?}"
    );
    tenancy.prepare(&a, Some(&next), Data::New).await.unwrap();
    assert_eq!(tenancy.check(&a, Some(&next)).await, Ok(Access::Exact));
    assert!(tenant(&server, &a).await.is_err());
    // The tenant itself may change it.
    run(&mut own, "set password = password('mine')").await;
    assert!(matches!(
        tenancy.check(&a, Some(&next)).await,
        Ok(Access::Differs(_))
    ));
    tenancy.prepare(&a, Some(&next), Data::New).await.unwrap();
    assert!(enter(&server, "u", "mine", Some("a")).await.is_err());
    // A tenant that has opened all the connections that it may is not locked out.
    let mut open = Vec::new();
    while let Ok(one) = enter(&server, "u", next.expose(), Some("a")).await {
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
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut root = administrator(&server).await;
    run(&mut root, "set global general_log = on").await;
    for _ in 0..3 {
        assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    }
    let log = general_log(&server);
    assert_eq!(log.matches("Connect\tu@").count(), 1, "{log}");
    let mut own = tenant(&server, &a).await.unwrap();
    run(&mut own, "set password = password('mine')").await;
    let differs = tenancy.check(&a, Some(&secret())).await;
    assert!(matches!(differs, Ok(Access::Differs(_))), "{differs:?}");
}

#[tokio::test]
async fn names_that_are_hard_and_names_that_are_refused() {
    let (server, tenancy) = ready();
    let (long, longest) = ("x".repeat(64), "y".repeat(128));
    let names = [
        "a", "a_", "a-b", "a.b", "ab", "0", "_", "select", "user", &long,
    ];
    let mut good: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
    good.push(("longest", &longest));
    for (n, (schema, user)) in good.iter().enumerate() {
        let claim = claim(&n.to_string(), schema, user);
        tenancy
            .prepare(&claim, Some(&secret()), Data::New)
            .await
            .unwrap_or_else(|e| panic!("{schema}: {e}"));
        assert_eq!(
            tenancy.check(&claim, Some(&secret())).await,
            Ok(Access::Exact),
            "{schema}"
        );
        tenant(&server, &claim).await.unwrap();
    }
    let before = everything(&server).await;
    let longer = "x".repeat(129);
    for bad in [
        "",
        "mysql",
        "sys",
        "information_schema",
        "performance_schema",
        "steward",
        "test",
        "root",
        "mariadb.sys",
        ADMINISTRATOR,
        "public",
        "a`b",
        "a'b",
        "a b",
        "a/b",
        "a%",
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
    assert_eq!(everything(&server).await, before);
    for (n, (schema, user)) in good.iter().enumerate() {
        let claim = claim(&n.to_string(), schema, user);
        tenancy.drop_data(&claim).await.unwrap();
        tenancy.release(&claim).await.unwrap();
    }
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
            _ => without.password = None,
        }
        let error = connect(without).err().unwrap();
        assert!(matches!(error, TenancyError::Refused(_)), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }

    // Without an authority it takes what the server offers.
    let health = at(&server, |it| it.ca_pem = None).verify().await.unwrap();
    assert!(health.authentication);

    // A tenant is no administrator, nor is one without all the rights that are needed.
    let low = at(&server, |it| {
        it.username = Some("u".to_owned());
        it.password = Some(secret().expose().to_owned());
    });
    let error = low
        .prepare(&claim("2", "b", "v"), Some(&secret()), Data::New)
        .await
        .unwrap_err();
    assert!(matches!(error, TenancyError::Refused(_)), "{error}");
    assert!(error.to_string().contains("GRANT OPTION"), "{error}");

    let begin = Instant::now();
    server.signal("STOP").unwrap();
    let impatient = at(&server, |it| it.deadline = Duration::from_secs(1));
    let silent = impatient.verify().await.unwrap_err();
    assert!(matches!(silent, TenancyError::Unreachable(_)), "{silent}");
    assert!(begin.elapsed() < Duration::from_secs(4));
    server.signal("CONT").unwrap();
    tenancy.claimants().await.unwrap();
    // A connection that was kept, and its server ends: said, not hung on.
    server.signal("KILL").unwrap();
    let begin = Instant::now();
    loop {
        if let Err(error) = tenancy.claimants().await {
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
    let primary = start(Kind::MariaDb);
    let mut settings = Settings::local(PASSWORD);
    settings.configuration = "--read-only".to_owned();
    let replica = start_with(Kind::MariaDb, settings);
    let error = at(&replica, |_| ()).verify().await.unwrap_err();
    assert!(matches!(error, TenancyError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("replica"), "{error}");

    let trusted = [&primary, &replica]
        .map(|it| it.authority.cert.clone())
        .concat();
    let tenancy = at(&primary, |it| {
        it.endpoints = vec![
            "127.0.0.1:1".to_owned(),
            replica.endpoint(),
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
}

/// A transaction that was prepared outlives its connection and its user.
#[tokio::test]
async fn a_transaction_that_was_prepared_is_named() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut own = tenant(&server, &a).await.unwrap();
    for sql in [
        "xa start 'x'",
        "insert into kine (value) values ('1')",
        "xa end 'x'",
        "xa prepare 'x'",
    ] {
        run(&mut own, sql).await;
    }
    tenancy.revoke(&a).await.unwrap();
    let refused = tenancy.drop_data(&a).await.unwrap_err();
    assert!(matches!(refused, TenancyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("XA ROLLBACK"), "{refused}");
    let mut root = administrator(&server).await;
    run(&mut root, "xa rollback 'x'").await;
    tenancy.drop_data(&a).await.unwrap();
    assert_eq!(tenancy.remaining(&a).await, Ok(0));
}

/// Measuring thousands of tables takes seconds, and is no part of whether a server serves.
#[tokio::test]
async fn many_tables_of_one_tenant_keep_nobody_waiting() {
    let (server, tenancy) = ready();
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut own = tenant(&server, &a).await.unwrap();
    for n in 0..1500 {
        run(&mut own, &format!("create table t{n} (x int)")).await;
    }
    let hurried = at(&server, |it| it.deadline = Duration::from_millis(400));
    hurried.verify().await.unwrap();
    let size = tenancy.verify().await.unwrap().size;
    assert!(size > 1500 * 60_000, "{size}");
}

/// As a provider of databases gives one: not everything.
#[tokio::test]
async fn an_administrator_who_has_only_what_is_needed() {
    let server = start(Kind::MariaDb);
    let mut root = administrator(&server).await;
    run(&mut root, "create user boss identified by 'b'").await;
    run(
        &mut root,
        "grant select, insert, update, delete, create, drop, alter, index, create user, process, \
         connection admin on *.* to boss with grant option",
    )
    .await;
    let tenancy = at(&server, |it| {
        it.username = Some("boss".to_owned());
        it.password = Some("b".to_owned());
    });
    assert_eq!(tenancy.verify().await.unwrap().gaps, Vec::<String>::new());
    let a = claim("1", "a", "u");
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    run(&mut root, "grant select on mysql.* to u").await;
    tenancy
        .prepare(&a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(tenancy.check(&a, Some(&secret())).await, Ok(Access::Exact));
    let mut own = tenant(&server, &a).await.unwrap();
    // Without it the connections of others are not seen.
    run(&mut root, "revoke process on *.* from boss").await;
    let refused = at(&server, |it| {
        it.username = Some("boss".to_owned());
        it.password = Some("b".to_owned());
    });
    let refused = refused.revoke(&a).await.unwrap_err();
    assert!(matches!(refused, TenancyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("PROCESS"), "{refused}");
    own.ping().await.unwrap();
    run(&mut root, "grant process on *.* to boss").await;
    tenancy.revoke(&a).await.unwrap();
    assert!(own.ping().await.is_err());
    tenancy.drop_data(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    // What is refused after the claim gives it back.
    run(&mut root, "revoke create on *.* from boss").await;
    run(&mut root, "grant create on steward.* to boss").await;
    let tenancy = at(&server, |it| {
        it.username = Some("boss".to_owned());
        it.password = Some("b".to_owned());
    });
    let refused = tenancy.prepare(&a, Some(&secret()), Data::New).await;
    assert!(
        matches!(refused, Err(TenancyError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
}

/// What its certificate is for counts, not only who signed it.
#[tokio::test]
async fn a_server_at_several_addresses() {
    let mut settings = Settings::local(PASSWORD);
    settings.addresses = ["127.0.0.1", "127.0.0.2"]
        .map(|it| it.parse().unwrap())
        .to_vec();
    settings.names = Vec::new();
    let server = start_with(Kind::MariaDb, settings);
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
