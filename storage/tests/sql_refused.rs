//! A SQL database whose administrator lacks a right that is needed half-way: a first try
//! leaves nothing (rule 18), and what a later one meets stands.

mod lab;

use lab::claim;
use lab::sql::server::{Kind, Server};
use lab::sql::{administrator, connection, mysql_administrator, run, run_mysql, secret, start};
use sqlx::Connection as _;
use storage::tenancy::{Access, Claim, Connection, Data, Tenancy, TenancyError, connect};

/// As somebody whom the administrator has made.
fn boss(server: &Server) -> Box<dyn Tenancy> {
    connect(Connection {
        username: Some("boss".to_owned()),
        password: Some("b".to_owned()),
        ..connection(server)
    })
    .unwrap()
}

async fn prepare(tenancy: &dyn Tenancy, claim: &Claim) -> Result<(), TenancyError> {
    tenancy.prepare(claim, Some(&secret()), Data::New).await
}

/// What the refusal says.
async fn refused(tenancy: &dyn Tenancy, claim: &Claim) -> String {
    match prepare(tenancy, claim).await {
        Err(TenancyError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Databases and users of a MariaDB, but for the one with the claims.
async fn all_of_mariadb(server: &Server) -> Vec<String> {
    let sql = "select concat('database ', schema_name) from information_schema.schemata
            where schema_name <> 'steward'
        union all select concat('user ', User) from mysql.global_priv
        union all select concat('right ', Db, ' ', User) from mysql.db order by 1";
    let mut root = mysql_administrator(server).await;
    sqlx::query_scalar(sql).fetch_all(&mut root).await.unwrap()
}

/// Databases and roles of a PostgreSQL, but for what is Steward's own.
async fn all_of_postgresql(server: &Server) -> Vec<String> {
    let sql = "select 'database ' || datname from pg_database where datname <> 'steward'
        union all select 'role ' || rolname from pg_roles where rolname <> 'steward_keeper'
        order by 1";
    let mut root = administrator(server, "postgres").await;
    sqlx::query_scalar(sql).fetch_all(&mut root).await.unwrap()
}

#[tokio::test]
async fn mariadb_gives_back_what_a_first_try_has_made() {
    const RIGHTS: &str = "select, insert, update, delete, create, drop, alter, index, create user, \
                          process, connection admin on *.*";
    let server = start(Kind::MariaDb);
    let mut root = mysql_administrator(&server).await;
    run_mysql(&mut root, "create user boss identified by 'b'").await;
    run_mysql(&mut root, &format!("grant {RIGHTS} to boss")).await;
    let before = all_of_mariadb(&server).await;
    let a = claim("1", "a", "u");

    // Database, table and user are made before the user is given its rights.
    let tenancy = boss(&server);
    let why = refused(&*tenancy, &a).await;
    assert!(why.contains("GRANT OPTION"), "{why}");
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(all_of_mariadb(&server).await, before);
    // Database and table are made before the user, which cannot be.
    run_mysql(&mut root, "revoke create user on *.* from boss").await;
    let tenancy = boss(&server);
    refused(&*tenancy, &a).await;
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(all_of_mariadb(&server).await, before);

    // Another tenant gets the names once that is mended.
    run_mysql(
        &mut root,
        &format!("grant {RIGHTS} to boss with grant option"),
    )
    .await;
    let b = claim("2", "a", "u");
    prepare(&*boss(&server), &b).await.unwrap();
    // What is refused later keeps what it has.
    run_mysql(&mut root, "revoke grant option on *.* from boss").await;
    run_mysql(&mut root, "revoke update on `a`.* from u").await;
    let tenancy = boss(&server);
    refused(&*tenancy, &b).await;
    assert_eq!(tenancy.claims("2").await, Ok(vec![b]));
    assert!(
        all_of_mariadb(&server)
            .await
            .contains(&"database a".to_owned())
    );
}

/// Without the right to see what others run, nothing may be deleted either: the claim stays, by
/// which it is found.
#[tokio::test]
async fn what_cannot_be_taken_back_keeps_its_claim() {
    let server = start(Kind::MariaDb);
    let mut root = mysql_administrator(&server).await;
    run_mysql(&mut root, "create user boss identified by 'b'").await;
    let rights = "select, insert, update, delete, create, drop, alter, index, create user, \
                  connection admin on *.*";
    run_mysql(&mut root, &format!("grant {rights} to boss")).await;
    let a = claim("1", "a", "u");
    let tenancy = boss(&server);
    let why = refused(&*tenancy, &a).await;
    assert!(
        why.contains("GRANT OPTION"),
        "the reason, not what came after: {why}"
    );
    assert_eq!(tenancy.claims("1").await, Ok(vec![a.clone()]));

    run_mysql(&mut root, "grant all on *.* to boss with grant option").await;
    let tenancy = boss(&server);
    tenancy.revoke(&a).await.unwrap();
    tenancy.drop_data(&a).await.unwrap();
    tenancy.release(&a).await.unwrap();
    assert_eq!(tenancy.check(&a, None).await, Ok(Access::Unclaimed));
}

#[tokio::test]
async fn postgresql_gives_back_what_a_first_try_has_made() {
    let server = start(Kind::PostgreSql);
    let mut root = administrator(&server, "postgres").await;
    for sql in [
        "create role boss login createdb createrole password 'b'",
        "grant connect on database postgres to boss",
        "revoke all on database postgres from public",
        "revoke all on database template1 from public",
    ] {
        run(&mut root, sql).await;
    }
    let before = all_of_postgresql(&server).await;
    let a = claim("1", "a", "u");
    let tenancy = boss(&server);

    // The role is made before the database, whose template may not be copied.
    run(&mut root, "alter database template0 is_template false").await;
    refused(&*tenancy, &a).await;
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(all_of_postgresql(&server).await, before);
    run(&mut root, "alter database template0 is_template true").await;

    // Both are made before the rights inside, which somebody keeps boss from giving.
    run(&mut root, "alter database template0 allow_connections true").await;
    let mut template = administrator(&server, "template0").await;
    for sql in [
        "create function forbid() returns event_trigger language plpgsql as \
         'begin raise insufficient_privilege; end'",
        "create event trigger forbid on ddl_command_start when tag in ('GRANT', 'REVOKE') \
         execute function forbid()",
    ] {
        run(&mut template, sql).await;
    }
    template.close().await.unwrap();
    refused(&*tenancy, &a).await;
    assert_eq!(tenancy.claims("1").await, Ok(vec![]));
    assert_eq!(all_of_postgresql(&server).await, before);

    let mut template = administrator(&server, "template0").await;
    run(&mut template, "drop event trigger forbid").await;
    run(&mut template, "drop function forbid").await;
    template.close().await.unwrap();
    prepare(&*tenancy, &claim("2", "a", "u")).await.unwrap();
}
