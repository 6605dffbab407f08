//! What a tenant's own password can do in a MariaDB that it shares. The module
//! documentation of `storage::tenancy::mysql` says in words what this test says in code;
//! keep them the same.

mod lab;

use lab::claim;
use lab::sql::{
    Kind, Server, connection, enter_mysql as enter, mysql_administrator as administrator,
    mysql_tenant as tenant, run_mysql as run, secret, start, try_mysql as attempt,
};
use sqlx::{Connection as _, MySqlConnection};
use storage::tenancy::{Access, Claim, Data, Password, Tenancy, connect};

struct Lab {
    server: Server,
    tenancy: Box<dyn Tenancy>,
    tenants: [Claim; 3],
    a: MySqlConnection,
    b: MySqlConnection,
}

/// Three tenants, whose names are prefixes of each other, and patterns that stand for each
/// other.
async fn lab() -> Lab {
    let server = start(Kind::MariaDb);
    let mut root = administrator(&server).await;
    run(&mut root, "create database app").await;
    run(&mut root, "create table app.kine (value text)").await;
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
        run(&mut own, "insert into kine (value) values ('secret')").await;
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
fn denied<T>(what: &str, answer: Result<T, sqlx::Error>) {
    let Err(error) = answer else {
        panic!("{what}: done")
    };
    let number = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .map_or(0, |error| error.number());
    // Access denied: to a user, a database, a command, a table, a column, a routine, a right.
    let denied = [1044, 1045, 1095, 1142, 1143, 1227, 1370, 1698];
    assert!(denied.contains(&number), "{what}: {number} {error}");
}

#[tokio::test]
async fn other_databases_stay_closed() {
    let mut lab = lab().await;
    let (user, password) = (lab.tenants[0].user.clone(), secret());
    for database in [
        "a_bc", "axb", "app", "steward", "mysql", "sys", "test", "A_B", "a",
    ] {
        let entered = enter(&lab.server, &user, password.expose(), Some(database)).await;
        denied(database, entered);
        for sql in [
            format!("select * from {database}.kine"),
            format!("insert into {database}.kine values (1, 'mine')"),
            format!("update {database}.kine set value = 'mine'"),
            format!("delete from {database}.kine"),
            format!("create table {database}.mine (x int)"),
            format!("create table {database}.mine like a_b.kine"),
            format!("create table {database}.mine select * from a_b.kine"),
            format!("create table a_b.mine like {database}.kine"),
            format!("alter table {database}.kine add column y int"),
            format!("alter table a_b.kine rename to {database}.mine"),
            format!("rename table {database}.kine to a_b.mine"),
            format!("create index mine on {database}.kine (id)"),
            format!("drop table {database}.kine"),
            format!("truncate table {database}.kine"),
            format!("lock tables {database}.kine write"),
            format!("use {database}"),
            format!("drop database {database}"),
            format!("create database {database}"),
            format!("alter database {database} character set latin1"),
            format!("create view {database}.mine as select 1"),
            format!("create procedure {database}.mine() select 1"),
            format!(
                "create trigger {database}.mine before insert on {database}.kine for each row set @x = 1"
            ),
            format!("create event {database}.mine on schedule every 1 day do select 1"),
            format!("show tables from {database}"),
            format!("show create table {database}.kine"),
            format!("handler {database}.kine open"),
            format!("analyze table {database}.kine"),
        ] {
            // There nobody may make triggers.
            if database != "mysql" || !sql.starts_with("create trigger") {
                denied(&sql, attempt(&mut lab.a, &sql).await);
            }
        }
    }
    // Names of others are not even seen.
    let seen: Vec<String> = sqlx::query_scalar(
        "select cast(schema_name as char) from information_schema.schemata order by 1",
    )
    .fetch_all(&mut lab.a)
    .await
    .unwrap();
    assert_eq!(seen, ["a_b", "information_schema"]);
    // Of the server's own, counters and one's own connection.
    for sql in [
        "select count(*) from information_schema.tables where table_schema not in ('a_b', 'information_schema', 'performance_schema')",
        "select count(*) from information_schema.columns where table_schema not in ('a_b', 'information_schema', 'performance_schema')",
        "select count(*) from information_schema.processlist where user <> 'a_b_1'",
        "select count(*) from information_schema.user_privileges where grantee not like '_a\\_b\\_1_@%'",
        "select count(*) from information_schema.schema_privileges where grantee not like '_a\\_b\\_1_@%'",
    ] {
        let seen: i64 = sqlx::query_scalar(sql).fetch_one(&mut lab.a).await.unwrap();
        assert_eq!(seen, 0, "{sql}");
    }
    for other in ["a_b_2", "axb_3", "admin", "", "root", "mariadb.sys"] {
        for password in ["wrong", ""] {
            denied(other, enter(&lab.server, other, password, None).await);
        }
    }
}

#[tokio::test]
async fn rights_are_what_was_given() {
    let mut lab = lab().await;
    for sql in [
        // Databases and users.
        "create database mine",
        "create database a_b2",
        "create database `a\\_b`",
        "drop database a_b",
        "create user mine",
        "create role mine",
        "drop user a_b_2",
        "rename user a_b_2 to mine",
        "alter user a_b_2 identified by 'mine'",
        "alter user a_b_1 with max_user_connections 0",
        "set password for a_b_2 = password('mine')",
        "set password for admin = password('mine')",
        "grant select on a_b.* to a_b_2",
        "grant all on *.* to a_b_1",
        "grant select on a_bc.* to a_b_1",
        "grant proxy on a_b_2 to a_b_1",
        "revoke all privileges, grant option from a_b_2",
        "show grants for a_b_2",
        "show create user a_b_2",
        // Its own database.
        "drop table kine",
        "truncate table kine",
        "create view mine as select 1",
        "create procedure mine() select 1",
        "create function mine() returns int return 1",
        "create trigger mine before insert on kine for each row set @x = 1",
        "create event mine on schedule every 1 day do select 1",
        "create temporary table mine (x int)",
        "lock tables kine write",
        "create function mine returns integer soname 'mine.so'",
        // The server's files.
        "select * from kine into outfile '/tmp/mine'",
        "select load_file('/etc/hostname') into dumpfile '/tmp/mine'",
        "load data infile '/etc/hostname' into table kine",
        "install plugin mine soname 'mine.so'",
        "install soname 'mine'",
        // The server.
        "set global max_connections = 1",
        "set global general_log = on",
        "set global read_only = on",
        "set session sql_log_bin = off",
        "flush tables",
        "flush tables with read lock",
        "flush privileges",
        "flush logs",
        "flush hosts",
        "reset master",
        "shutdown",
        "purge binary logs before now()",
        "show binary logs",
        "show master status",
        "show slave status",
        "change master to master_host = 'x'",
        "show engine innodb status",
        "create server mine foreign data wrapper mysql options (host 'x')",
        "select * from information_schema.innodb_trx",
        "select * from mysql.user",
        "select * from mysql.global_priv",
        "select * from mysql.db",
        "select * from mysql.general_log",
        "select * from performance_schema.threads",
        "select * from steward.claims",
        "select * from steward.secret",
    ] {
        denied(sql, attempt(&mut lab.a, sql).await);
    }
    let file: Option<String> = sqlx::query_scalar("select load_file('/etc/hostname')")
        .fetch_one(&mut lab.a)
        .await
        .unwrap();
    assert_eq!(file, None);
    for claim in &lab.tenants {
        let access = lab.tenancy.check(claim, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact), "{}", claim.schema);
    }
}

#[tokio::test]
async fn others_are_not_held_up() {
    let mut lab = lab().await;
    // Any name of a lock can be taken, but ours cannot be known.
    for name in ["steward", "steward/a_bc", "a_bc", "schema/a_bc"] {
        run(&mut lab.a, &format!("do get_lock('{name}', 0)")).await;
    }
    run(&mut lab.a, "begin").await;
    run(&mut lab.a, "select * from kine for update").await;
    run(&mut lab.b, "set innodb_lock_wait_timeout = 1").await;
    run(&mut lab.b, "update kine set value = 'x'").await;
    let b = &lab.tenants[1];
    lab.tenancy.revoke(b).await.unwrap();
    lab.tenancy
        .prepare(b, Some(&secret()), Data::New)
        .await
        .unwrap();
    let mut b = tenant(&lab.server, b).await.unwrap();
    let id: u64 = sqlx::query_scalar("select connection_id()")
        .fetch_one(&mut b)
        .await
        .unwrap();
    for sql in [format!("kill {id}"), format!("kill query {id}")] {
        denied(&sql, attempt(&mut lab.a, &sql).await);
    }
    // Nor by names: of its own it may end what it likes.
    let _ = attempt(&mut lab.a, "kill user a_b_2").await;
    b.ping().await.unwrap();
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
    let next = Password::new("next");
    lab.tenancy
        .prepare(&after, Some(&next), Data::New)
        .await
        .unwrap();
    let mut old = lab.a;
    assert!(old.ping().await.is_err());
    denied("the one before", tenant(&lab.server, before).await);
    let mut new = enter(&lab.server, "a_b_9", "next", Some("a_b"))
        .await
        .unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from kine")
        .fetch_one(&mut new)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
