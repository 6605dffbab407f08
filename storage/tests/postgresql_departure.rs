//! Tenants of a PostgreSQL that keep their own deletion, or each other's, from ending.

mod lab;

use lab::claim;
use lab::sql::{
    Kind, PASSWORD, Server, Settings, administrator, connection, run, secret, start, start_with,
    tenant,
};
use sqlx::{AssertSqlSafe, PgConnection};
use storage::tenancy::{Access, Claim, Connection, Data, Tenancy, TenancyError, connect};

/// Its administrator, or one who is no superuser.
async fn administered(server: &Server, superuser: bool) -> Box<dyn Tenancy> {
    if superuser {
        return connect(connection(server)).unwrap();
    }
    let mut root = administrator(server, "postgres").await;
    run(
        &mut root,
        "create role boss login createdb createrole password 'b'",
    )
    .await;
    connect(Connection {
        username: Some("boss".to_owned()),
        password: Some("b".to_owned()),
        ..connection(server)
    })
    .unwrap()
}

async fn prepare(tenancy: &dyn Tenancy, claims: &[&Claim]) {
    for claim in claims {
        let done = tenancy.prepare(claim, Some(&secret()), Data::New).await;
        done.unwrap();
    }
}

async fn leaves_nothing(tenancy: &dyn Tenancy, claim: &Claim) {
    tenancy.revoke(claim).await.unwrap();
    tenancy.drop_data(claim).await.unwrap();
    assert_eq!(tenancy.remaining(claim).await, Ok(0));
    tenancy.release(claim).await.unwrap();
}

/// Whatever one tenant gives another's user, that is as it should be, and can be deleted.
#[tokio::test]
async fn what_a_neighbour_gives_opens_nothing_and_holds_nothing_up() {
    for superuser in [true, false] {
        let server = start(Kind::PostgreSql);
        let tenancy = &*administered(&server, superuser).await;
        let (a, b) = (claim("1", "a", "a_1"), claim("2", "b", "b_1"));
        prepare(tenancy, &[&a, &b]).await;
        let mut own = tenant(&server, &a).await.unwrap();
        for sql in [
            "create table t (x int)",
            "grant select, insert (x) on t to b_1 with grant option",
            "alter default privileges grant all on tables to b_1",
            "alter default privileges grant all on sequences to b_1",
            "create sequence s; grant usage on sequence s to b_1",
            "create type p as (x int); grant usage on type p to b_1",
            "create function f() returns int language sql as 'select 1'",
            "grant execute on function f() to b_1",
            "select lo_create(4711); grant select on large object 4711 to b_1",
            "create policy p on t to b_1",
        ] {
            run(&mut own, sql).await;
        }
        let access = tenancy.check(&b, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact));
        prepare(tenancy, &[&b]).await;
        // A transaction that holds what is in the way goes, too.
        run(&mut own, "begin; lock table t in access exclusive mode").await;
        leaves_nothing(tenancy, &b).await;
        let access = tenancy.check(&a, Some(&secret())).await;
        assert_eq!(access, Ok(Access::Exact));
        let mut own = tenant(&server, &a).await.unwrap();
        run(&mut own, "select lo_get(4711); insert into t values (1)").await;
        leaves_nothing(tenancy, &a).await;
    }
}

/// A right on a schema, which only its owner gives, and one on what all databases share.
#[tokio::test]
async fn what_an_administrator_gives_goes_with_the_user() {
    let server = start(Kind::PostgreSql);
    let tenancy = connect(connection(&server)).unwrap();
    let (a, b) = (claim("1", "a", "a_1"), claim("2", "b", "b_1"));
    prepare(&*tenancy, &[&a, &b]).await;
    let mut inside = administrator(&server, "a").await;
    run(&mut inside, "grant usage on schema public to b_1").await;
    let access = tenancy.check(&b, Some(&secret())).await;
    assert_eq!(access, Ok(Access::Exact));
    run(&mut inside, "grant set on parameter work_mem to b_1").await;
    let access = tenancy.check(&b, Some(&secret())).await;
    assert!(matches!(access, Ok(Access::Differs(_))), "{access:?}");
    run(&mut inside, "grant connect on database a to b_1").await;
    leaves_nothing(&*tenancy, &b).await;

    // What it owns elsewhere may be somebody's data.
    prepare(&*tenancy, &[&b]).await;
    run(
        &mut inside,
        "create table shared (x int); alter table shared owner to b_1",
    )
    .await;
    let access = tenancy.check(&b, Some(&secret())).await;
    assert!(matches!(access, Ok(Access::Differs(_))), "{access:?}");
    let refused = tenancy.drop_data(&b).await.unwrap_err();
    assert!(matches!(refused, TenancyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("database \"a\""), "{refused}");
    run(&mut inside, "alter table shared owner to admin").await;
    leaves_nothing(&*tenancy, &b).await;
}

async fn prepared(connection: &mut PgConnection) -> i64 {
    let sql = "select count(*) from pg_prepared_xacts";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn transactions_that_were_prepared_are_rolled_back() {
    let settings = || Settings {
        configuration: "max_prepared_transactions = 10".to_owned(),
        ..Settings::local(PASSWORD)
    };
    for superuser in [true, false] {
        let server = start_with(Kind::PostgreSql, settings());
        let tenancy = &*administered(&server, superuser).await;
        let (a, b) = (claim("1", "a", "a_1"), claim("2", "b", "b_1"));
        prepare(tenancy, &[&a, &b]).await;
        for (claim, id) in [(&a, "it's a"), (&b, "b")] {
            let mut own = tenant(&server, claim).await.unwrap();
            run(&mut own, "create table t (x int)").await;
            let id = id.replace('\'', "''");
            let sql = format!("begin; lock table t; prepare transaction '{id}'");
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut own)
                .await
                .unwrap();
        }
        leaves_nothing(tenancy, &a).await;
        // Of its own database alone.
        let mut root = administrator(&server, "postgres").await;
        assert_eq!(prepared(&mut root).await, 1);
        leaves_nothing(tenancy, &b).await;
        assert_eq!(prepared(&mut root).await, 0);
    }
}
