//! Callers who are late change nothing; tables of claims of versions before are made whole.

use storage::tenancy::{Access, Data, Stage, TenancyError};

use crate::Driver;
use crate::lab::sql::{administrator, mysql_administrator, run, run_mysql, secret};
use crate::tenant::{Ways, create};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_thaws_or_drops_what_is_at_another_stage() {
    for driver in [
        Driver::Etcd,
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::Nats,
    ] {
        let ways = Ways::new(driver, Driver::OtherEtcd).await;
        let mut api = ways.at_source().await;
        let key = format!("{}/x", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
        let tenancy = &ways.source.tenancy;
        let serving = ways.source.claim.clone();
        let secret = Some(secret());
        let secret = secret.as_ref();
        let frozen = tenancy.turn(&serving, Stage::Frozen, None).await.unwrap();
        assert_eq!(tenancy.claims(&serving.uid).await, Ok(vec![frozen.clone()]));

        // Who still takes it for one that serves.
        tenancy.prepare(&serving, secret, Data::Kept).await.unwrap();
        let check = tenancy.check(&serving, secret).await;
        assert!(
            matches!(&check, Ok(Access::Differs(why)) if why.contains("frozen")),
            "{check:?}"
        );
        assert_eq!(tenancy.check(&frozen, secret).await, Ok(Access::Exact));
        refused(tenancy.revoke(&serving).await);
        refused(tenancy.drop_data(&serving).await);
        refused(tenancy.release(&serving).await);
        refused(tenancy.turn(&serving, Stage::Incoming, None).await);
        refused(tenancy.turn(&frozen, Stage::Incoming, None).await);
        let other = format!("{}/y", ways.prefix);
        let written = create(&mut api.client, &other).await;
        assert!(!matches!(written, Ok(true)), "{driver:?}: {written:?}");
        refused(tenancy.contents(&serving, secret).await.map(drop));

        // What was left is nobody's, until it comes back.
        let left = tenancy.turn(&frozen, Stage::Left, None).await.unwrap();
        assert_eq!(tenancy.check(&left, secret).await, Ok(Access::Exact));
        tenancy.prepare(&frozen, secret, Data::Kept).await.unwrap();
        assert_eq!(
            tenancy.check(&left, secret).await,
            Ok(Access::Exact),
            "{driver:?}"
        );
        refused(tenancy.turn(&frozen, Stage::Serving, secret).await);
        refused(tenancy.turn(&left, Stage::Serving, secret).await);
        assert!(tenancy.remaining(&left).await.unwrap() > 0);
        let incoming = tenancy.turn(&left, Stage::Incoming, secret).await.unwrap();
        assert_eq!(tenancy.check(&incoming, secret).await, Ok(Access::Exact));
        refused(tenancy.drop_data(&left).await);
        {
            let mut contents = tenancy.contents(&incoming, secret).await.unwrap();
            assert_eq!(contents.count().await, Ok(0), "{driver:?}");
        }
        let again = tenancy
            .turn(&incoming, Stage::Serving, secret)
            .await
            .unwrap();
        assert_eq!(again, serving);
        ways.source_serves().await;
        let mut api = ways.at_source().await;
        assert!(create(&mut api.client, &key).await.unwrap(), "{driver:?}");
        // The clean-up of what was left before.
        refused(tenancy.drop_data(&left).await);
        refused(tenancy.release(&left).await);
        let found = api.client.get(key, None).await.unwrap();
        assert_eq!(found.kvs().len(), 1);
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, TenancyError>) {
    assert!(
        matches!(answer, Err(TenancyError::Refused(_))),
        "{answer:?}"
    );
}

/// Who writes to what is incoming has nothing to write to once it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_writer_is_cut_off() {
    use storage::tenancy::contents::{Entry, Op};
    for driver in [
        Driver::Etcd,
        Driver::PostgreSql,
        Driver::MariaDb,
        Driver::Nats,
    ] {
        let ways = Ways::new(Driver::Etcd, driver).await;
        let (tenancy, claim) = (&ways.target.tenancy, &ways.target.claim);
        // A name of its own in the same etcd.
        let claim = &storage::tenancy::Claim {
            schema: format!("{}_x", claim.schema),
            user: format!("{}_x", claim.user),
            role: None,
            prefix: None,
            replicas: None,
            ..claim.clone()
        };
        let claim = &storage::tenancy::Claim {
            role: Some(storage::tenancy::Claim::role_of(&claim.schema, &claim.uid)),
            ..claim.clone()
        };
        let secret = secret();
        tenancy
            .prepare(claim, Some(&secret), Data::New)
            .await
            .unwrap();
        let put = |key: &str| {
            [Op::Put(Entry {
                key: key.to_owned(),
                value: "1".into(),
                ttl: None,
            })]
        };
        let mut late = tenancy.contents(claim, None).await.unwrap();
        late.apply(&put("/a")).await.unwrap();
        // Somebody begins anew.
        tenancy
            .turn(claim, Stage::Incoming, Some(&secret))
            .await
            .unwrap();
        assert!(late.apply(&put("/b")).await.is_err(), "{driver:?}");
        let mut late = tenancy.contents(claim, None).await.unwrap();
        late.apply(&put("/c")).await.unwrap();
        tenancy
            .turn(claim, Stage::Serving, Some(&secret))
            .await
            .unwrap();
        assert!(late.apply(&put("/d")).await.is_err(), "{driver:?}");
        assert!(late.seal(1).await.is_err(), "{driver:?}");
        assert!(late.wipe().await.is_err(), "{driver:?}");
        let serving = claim.at(Stage::Serving);
        let mut read = tenancy.contents(&serving, Some(&secret)).await.unwrap();
        assert_eq!(read.count().await, Ok(2), "{driver:?}");
        assert!(read.apply(&put("/e")).await.is_err(), "{driver:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_before_are_made_whole() {
    let columns = "alter table steward.claims drop column stage, drop column prefix";
    for driver in [Driver::PostgreSql, Driver::MariaDb] {
        // Servers of their own: others read these tables now.
        let kind = match driver {
            Driver::PostgreSql => crate::lab::sql::Kind::PostgreSql,
            _ => crate::lab::sql::Kind::MariaDb,
        };
        let server = crate::lab::sql::start(kind);
        let tenancy = storage::tenancy::connect(crate::lab::sql::connection(&server)).unwrap();
        let claim = crate::lab::claim("1", "a", "a");
        let secret = secret();
        tenancy
            .prepare(&claim, Some(&secret), Data::New)
            .await
            .unwrap();
        match driver {
            Driver::PostgreSql => run(&mut administrator(&server, "steward").await, columns).await,
            _ => run_mysql(&mut mysql_administrator(&server).await, columns).await,
        }
        let tenancy = storage::tenancy::connect(crate::lab::sql::connection(&server)).unwrap();
        assert_eq!(tenancy.claims("1").await, Ok(vec![claim.clone()]));
        let frozen = tenancy.turn(&claim, Stage::Frozen, None).await.unwrap();
        assert_eq!(tenancy.claims("1").await, Ok(vec![frozen]));
    }
}
