//! What a tenant's own password can do in a PostgreSQL that it shares. The module
//! documentation of `storage::tenancy::postgresql` says in words what this test says in
//! code; keep them the same.

mod lab;

use lab::claim;
use lab::sql::{Kind, Server, administrator, connection, enter, run, secret, start, tenant};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use storage::tenancy::{Access, Claim, Data, Stage, Tenancy, connect};

struct Lab {
    server: Server,
    tenancy: Box<dyn Tenancy>,
    tenants: [Claim; 3],
    a: PgConnection,
    b: PgConnection,
}

/// Three tenants, whose names are prefixes of each other, and patterns of `LIKE`.
async fn lab() -> Lab {
    let server = start(Kind::PostgreSql);
    let mut root = administrator(&server, "postgres").await;
    run(&mut root, "create database app").await;
    run(&mut root, "revoke all on database app from public").await;
    let tenancy = connect(connection(&server)).unwrap();
    let tenants = [
        claim("1", "a_b", "a_b_1"),
        claim("2", "a_bc", "a_b_2"),
        claim("3", "axb", "axb_3"),
    ];
    for claim in &tenants {
        tenancy
            .prepare(claim, Some(&secret()), Data::New)
            .await
            .unwrap();
        let mut own = tenant(&server, claim).await.unwrap();
        run(
            &mut own,
            "create table kine (id bigserial primary key, value text)",
        )
        .await;
        run(&mut own, "insert into kine (value) values ('secret')").await;
        run(&mut own, "grant all on kine to public").await;
    }
    Lab {
        a: tenant(&server, &tenants[0]).await.unwrap(),
        b: tenant(&server, &tenants[1]).await.unwrap(),
        server,
        tenancy,
        tenants,
    }
}

/// Denied by rights, and by nothing else that a better attempt would get around.
#[track_caller]
fn denied<T>(what: &str, answer: Result<T, sqlx::Error>, codes: &[&str]) {
    let Err(error) = answer else {
        panic!("{what}: done")
    };
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.unwrap_or_default();
    assert!(codes.contains(&&*code), "{what}: {code} {error}");
}

async fn attempt(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    done.execute(connection).await.map(drop)
}

#[tokio::test]
async fn other_databases_stay_closed() {
    let lab = lab().await;
    let (user, password) = (&lab.tenants[0].user, secret());
    let open: Vec<String> = {
        let mut root = administrator(&lab.server, "postgres").await;
        let sql = "select datname::text from pg_database";
        sqlx::query_scalar(sql).fetch_all(&mut root).await.unwrap()
    };
    assert!(open.len() >= 8, "{open:?}");
    for database in open.iter().filter(|name| **name != lab.tenants[0].schema) {
        let entered = enter(&lab.server, user, password.expose(), database).await;
        denied(database, entered, &["42501", "55000"]);
    }
    // Nor as somebody else.
    for other in ["a_b_2", "axb_3", "admin"] {
        for database in ["a_bc", "axb", "steward", "postgres"] {
            let entered = enter(&lab.server, other, "wrong", database).await;
            denied(other, entered, &["28P01"]);
        }
    }
}

#[tokio::test]
async fn rights_are_what_was_given() {
    let mut lab = lab().await;
    for sql in [
        // Names of its server.
        "create database mine",
        "create database mine template a_bc",
        "drop database a_b",
        "drop database a_bc",
        "alter database a_b rename to mine",
        "alter database a_b owner to a_b_1",
        "alter database a_b connection limit 0",
        "alter database a_b set work_mem = '1GB'",
        "alter database a_bc connection limit 0",
        "alter database steward allow_connections false",
        // Roles.
        "create role mine",
        "drop role a_b_2",
        "alter role a_b_2 password 'mine'",
        "alter role a_b_2 set work_mem = '64kB'",
        "alter role admin password 'mine'",
        "alter role a_b_1 superuser",
        "alter role a_b_1 createdb",
        "alter role a_b_1 createrole",
        "alter role a_b_1 replication",
        "alter role a_b_1 bypassrls",
        "alter role a_b_1 connection limit -1",
        "alter role a_b_1 rename to mine",
        "alter role all set work_mem = '64kB'",
        "set role a_b_2",
        "set role admin",
        "set session authorization admin",
        "grant a_b_2 to a_b_1",
        "grant a_b_1 to a_b_2",
        "grant pg_read_all_data to a_b_1",
        "reassign owned by a_b_2 to a_b_1",
        "drop owned by a_b_2",
        // Its own database.
        "create schema mine",
        "create temporary table mine (x int)",
        "create extension dblink",
        "create extension postgres_fdw",
        "create extension hstore",
        "create language plpython3u",
        "create event trigger mine on ddl_command_end execute function now()",
        "create foreign data wrapper mine",
        "create publication mine for all tables",
        "create subscription mine connection 'dbname=a_bc' publication mine",
        "create function mine() returns int language c as 'x', 'y'",
        "drop schema public cascade",
        "alter schema public rename to mine",
        // The server's files and programs.
        "copy kine from program 'id'",
        "copy kine to '/tmp/mine'",
        "copy kine (value) from '/etc/hostname'",
        "select pg_read_file('/etc/hostname')",
        "select pg_read_binary_file('PG_VERSION')",
        "select pg_ls_dir('.')",
        "select pg_stat_file('PG_VERSION')",
        "select pg_ls_logdir()",
        "select lo_import('/etc/hostname')",
        "select lo_export(1, '/tmp/mine')",
        "load 'dblink'",
        // The server.
        "alter system set max_connections = 1",
        "set log_statement = 'none'",
        "set session_preload_libraries = 'x'",
        "select pg_reload_conf()",
        "select pg_rotate_logfile()",
        "select pg_switch_wal()",
        "select pg_create_restore_point('x')",
        "select pg_promote()",
        "select pg_create_physical_replication_slot('x')",
        "select pg_create_logical_replication_slot('x', 'pgoutput')",
        "select pg_stat_reset()",
        "select pg_stat_reset_shared('bgwriter')",
        "checkpoint",
        "create tablespace mine location '/tmp'",
        // What others have.
        "select rolpassword from pg_authid",
        "select * from pg_shadow",
        "select * from pg_user_mappings, pg_authid",
        "select * from pg_hba_file_rules",
        "select * from pg_file_settings",
        "select pg_database_size('a_bc')",
        "select pg_database_size('steward')",
        "select * from pg_largeobject",
        "select * from pg_subscription",
    ] {
        denied(
            sql,
            attempt(&mut lab.a, sql).await,
            &["42501", "0A000", "58P01"],
        );
    }
    // Giving rights that one does not have is a warning and does nothing.
    for sql in [
        "grant all on database a_b to public",
        "grant connect on database a_bc to a_b_1",
        "revoke all on database a_bc from a_b_2",
        "grant all on schema public to public",
    ] {
        let _ = attempt(&mut lab.a, sql).await;
    }
    for claim in &lab.tenants {
        let access = lab.tenancy.check(claim, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact), "{}", claim.schema);
    }
    // Names of databases in a query are its own.
    let elsewhere = attempt(&mut lab.a, "select * from a_bc.public.kine").await;
    denied("another database", elsewhere, &["0A000"]);
    let own: String = sqlx::query_scalar("select value from kine")
        .fetch_one(&mut lab.a)
        .await
        .unwrap();
    assert_eq!(own, "secret");
}

#[tokio::test]
async fn others_are_not_held_up() {
    let mut lab = lab().await;
    // Locks are each database's own.
    run(
        &mut lab.a,
        "begin; lock table kine in access exclusive mode",
    )
    .await;
    run(&mut lab.b, "set lock_timeout = '2s'").await;
    run(
        &mut lab.b,
        "begin; lock table kine in access exclusive mode; commit",
    )
    .await;
    // Locks by number would take the memory that all have for locks.
    for function in [
        "pg_advisory_lock(1)",
        "pg_advisory_lock(1, 2)",
        "pg_advisory_lock_shared(1)",
        "pg_advisory_xact_lock(1)",
        "pg_advisory_xact_lock_shared(1)",
        "pg_try_advisory_lock(1)",
        "pg_try_advisory_lock_shared(1, 2)",
        "pg_try_advisory_xact_lock(1)",
        "pg_try_advisory_xact_lock_shared(1)",
    ] {
        let sql = format!("select {function}");
        denied(&sql, attempt(&mut lab.b, &sql).await, &["42501"]);
    }
    lab.tenancy.revoke(&lab.tenants[1]).await.unwrap();
    lab.tenancy
        .prepare(&lab.tenants[1], Some(&secret()), Data::New)
        .await
        .unwrap();
    run(&mut lab.a, "rollback").await;
    lab.b = tenant(&lab.server, &lab.tenants[1]).await.unwrap();

    // What others run is neither seen nor ended.
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut lab.b)
        .await
        .unwrap();
    for function in [
        "pg_terminate_backend",
        "pg_cancel_backend",
        "pg_log_backend_memory_contexts",
    ] {
        let sql = format!("select {function}({pid})");
        denied(&sql, attempt(&mut lab.a, &sql).await, &["42501"]);
    }
    let root = administrator(&lab.server, "postgres").await;
    let seen: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
        "select query, host(client_addr) from pg_stat_activity where usename <> current_user",
    )
    .fetch_all(&mut lab.a)
    .await
    .unwrap();
    assert!(seen.len() >= 2, "{seen:?}");
    for (query, address) in &seen {
        assert_eq!(query.as_deref(), Some("<insufficient privilege>"));
        assert_eq!(*address, None);
    }
    drop(root);
    lab.b.ping().await.unwrap();

    // Notifications stay in the database.
    run(&mut lab.b, "listen steward").await;
    run(&mut lab.a, "notify steward, 'x'").await;
    let heard = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        let mut listener = sqlx::postgres::PgListener::connect(&format!(
            "postgres://a_b_2:{}@127.0.0.1:{}/a_bc?sslmode=require",
            secret().expose(),
            lab.server.port
        ))
        .await
        .unwrap();
        listener.listen("steward").await.unwrap();
        run(&mut lab.a, "notify steward, 'x'").await;
        listener.recv().await
    });
    assert!(heard.await.is_err(), "heard of another database");
}

/// What a tenant makes in its database does not run with the administrator's rights.
#[tokio::test]
async fn traps_for_the_administrator_do_not_close() {
    let mut lab = lab().await;
    for sql in [
        "create or replace function public.spring() returns bool language plpgsql as $$
            begin if current_user <> 'a_b_1' then execute 'alter role a_b_1 superuser'; end if;
            return true; end $$",
        "create function public.eq(name, text) returns bool language sql as $$ select public.spring() $$",
        "create operator public.= (leftarg = name, rightarg = text, function = public.eq)",
        "create function public.ne(name, text) returns bool language sql as $$ select public.spring() $$",
        "create operator public.<> (leftarg = name, rightarg = text, function = public.ne)",
        "alter role a_b_1 set search_path = public, pg_catalog",
    ] {
        run(&mut lab.a, sql).await;
    }
    let a = &lab.tenants[0];
    let mut inside = administrator(&lab.server, "a_b").await;
    run(&mut inside, "alter table kine owner to admin").await;
    let _ = lab.tenancy.check(a, Some(&secret())).await;
    lab.tenancy
        .prepare(a, Some(&secret()), Data::New)
        .await
        .unwrap();
    assert_eq!(
        lab.tenancy.check(a, Some(&secret())).await,
        Ok(Access::Exact)
    );
    let mut root = administrator(&lab.server, "postgres").await;
    let superuser: bool =
        sqlx::query_scalar("select rolsuper from pg_roles where rolname = 'a_b_1'")
            .fetch_one(&mut root)
            .await
            .unwrap();
    assert!(!superuser);
    lab.tenancy.revoke(a).await.unwrap();
    lab.tenancy.drop_data(a).await.unwrap();
    lab.tenancy.release(a).await.unwrap();
}

/// What a tenant made for its table runs as the table's owner whenever the server looks at the
/// table. While it is frozen, and after that, the owner is nobody with rights.
#[tokio::test]
async fn a_table_that_is_kept_is_no_trap() {
    let mut lab = lab().await;
    let a = lab.tenants[0].clone();
    for sql in [
        "create function public.spring() returns bool language plpgsql volatile as $$
            begin
              if current_user <> 'a_b_1' then
                begin execute 'alter role a_b_1 superuser'; exception when others then null; end;
                begin execute 'grant admin to a_b_1'; exception when others then null; end;
                begin execute 'create role sprung'; exception when others then null; end;
              end if;
              return true;
            end $$",
        "create function public.f(text) returns text language plpgsql immutable as $$
            begin perform public.spring(); return $1; end $$",
        "create index trap on kine (public.f(value))",
    ] {
        run(&mut lab.a, sql).await;
    }
    let state = async |server: &Server| {
        let mut root = administrator(server, "postgres").await;
        let sql =
            "select r.rolsuper, exists (select from pg_auth_members m where m.member = r.oid),
                exists (select from pg_roles where rolname = 'sprung')
            from pg_roles r where rolname = 'a_b_1'";
        let found: (bool, bool, bool) = sqlx::query_as(sql).fetch_one(&mut root).await.unwrap();
        found
    };
    let looked_at = async |server: &Server| {
        let mut inside = administrator(server, "a_b").await;
        run(&mut inside, "analyze public.kine").await;
        run(&mut inside, "vacuum (analyze) public.kine").await;
    };
    let frozen = lab.tenancy.turn(&a, Stage::Frozen, Some(&secret())).await;
    let frozen = frozen.unwrap();
    assert_eq!(
        lab.tenancy.check(&frozen, Some(&secret())).await,
        Ok(Access::Exact)
    );
    looked_at(&lab.server).await;
    assert_eq!(state(&lab.server).await, (false, false, false), "frozen");
    // Somebody has made the administrator its owner: that is seen, and put right.
    let mut inside = administrator(&lab.server, "a_b").await;
    run(&mut inside, "alter table kine owner to admin").await;
    let differs = lab.tenancy.check(&frozen, Some(&secret())).await.unwrap();
    assert!(matches!(differs, Access::Differs(_)), "{differs:?}");
    let again = lab
        .tenancy
        .prepare(&frozen, Some(&secret()), Data::Kept)
        .await;
    again.unwrap();
    assert_eq!(
        lab.tenancy.check(&frozen, Some(&secret())).await,
        Ok(Access::Exact)
    );
    // It serves again, as the owner of its table.
    let password = secret();
    let serving = lab
        .tenancy
        .turn(&frozen, Stage::Serving, Some(&password))
        .await
        .unwrap();
    assert_eq!(
        lab.tenancy.check(&serving, Some(&secret())).await,
        Ok(Access::Exact)
    );
    let mut own = tenant(&lab.server, &a).await.unwrap();
    run(&mut own, "insert into kine (value) values ('z')").await;
    let frozen = lab
        .tenancy
        .turn(&serving, Stage::Frozen, Some(&password))
        .await
        .unwrap();
    let left = lab.tenancy.turn(&frozen, Stage::Left, None).await.unwrap();
    looked_at(&lab.server).await;
    assert_eq!(state(&lab.server).await, (false, false, false), "left");
    lab.tenancy.revoke(&left).await.unwrap();
    lab.tenancy.drop_data(&left).await.unwrap();
    lab.tenancy.release(&left).await.unwrap();
}

/// Nobody can make the role that keeps tables one that tenants could use.
#[tokio::test]
async fn a_keeper_with_rights_is_refused() {
    let lab = lab().await;
    let a = lab.tenants[0].clone();
    let mut root = administrator(&lab.server, "postgres").await;
    for (give, take) in [
        (
            "create role steward_keeper createdb",
            "alter role steward_keeper nocreatedb",
        ),
        (
            "grant pg_write_all_data to steward_keeper",
            "revoke pg_write_all_data from steward_keeper",
        ),
        (
            "alter role steward_keeper login",
            "alter role steward_keeper nologin",
        ),
    ] {
        run(&mut root, give).await;
        let refused = lab.tenancy.turn(&a, Stage::Frozen, Some(&secret())).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("steward_keeper"), "{refused}");
        run(&mut root, take).await;
    }
    // As a member of a tenant's role it can do nothing more.
    run(&mut root, "grant a_b_1 to steward_keeper").await;
    let frozen = lab.tenancy.turn(&a, Stage::Frozen, Some(&secret())).await;
    frozen.unwrap();
}

/// A tenant is created again under the name of one that was deleted.
#[tokio::test]
async fn a_password_of_the_tenant_before_opens_nothing() {
    let lab = lab().await;
    let before = &lab.tenants[0];
    lab.tenancy.revoke(before).await.unwrap();
    lab.tenancy.drop_data(before).await.unwrap();
    lab.tenancy.release(before).await.unwrap();
    let after = claim("9", "a_b", "a_b_9");
    let secret = storage::tenancy::Password::new("next");
    lab.tenancy
        .prepare(&after, Some(&secret), Data::New)
        .await
        .unwrap();
    let mut old = lab.a;
    assert!(old.ping().await.is_err());
    assert!(tenant(&lab.server, before).await.is_err());
    let mut new = enter(&lab.server, "a_b_9", "next", "a_b").await.unwrap();
    let left: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relnamespace = 'public'::regnamespace",
    )
    .fetch_one(&mut new)
    .await
    .unwrap();
    assert_eq!(left, 0);
}
