//! What a `DataStore` of NATS says is changed while tenants are there: none of them loses
//! anything by it, or seems to.

mod lab;

use std::time::Duration;

use lab::claim;
use lab::nats::{File, Nats, ask, connection, endpoint_of, granted, start, start_cluster, tenant};
use lab::sql::{Kine, secret};
use storage::tenancy::{Access, Claim, Connection, Data, Tenancy, TenancyError, connect};

fn at(servers: &[Nats], endpoints: Vec<String>) -> Box<dyn Tenancy> {
    connect(Connection {
        endpoints,
        ..connection(&servers[0])
    })
    .unwrap()
}

async fn check(tenancy: &dyn Tenancy, claim: &Claim) -> Result<Access, TenancyError> {
    tenancy.check(claim, Some(&secret())).await
}

/// As the controller does: again, where servers that are busy answer too late.
async fn prepare(tenancy: &dyn Tenancy, claim: &Claim) -> Result<(), TenancyError> {
    let begin = std::time::Instant::now();
    loop {
        let prepared = tenancy.prepare(claim, Some(&secret()), Data::New).await;
        let late = matches!(prepared, Err(TenancyError::Unreachable(_)));
        if !late || begin.elapsed() > Duration::from_secs(30) {
            return prepared;
        }
    }
}

async fn copies(server: &Nats, claim: &Claim) -> u64 {
    let open = tenant(server, claim).await.unwrap();
    let info = format!("$JS.API.STREAM.INFO.KV_{}", claim.schema);
    let info = ask(&open, &info, "").await.unwrap();
    info["config"]["num_replicas"].as_u64().unwrap()
}

/// One of three is left out of the list because it is being replaced.
#[tokio::test]
async fn fewer_endpoints_take_no_copies_away() {
    let servers = start_cluster(3).await;
    let endpoints: Vec<String> = servers.iter().map(Nats::endpoint).collect();
    let three = at(&servers, endpoints.clone());
    let a = claim("1", "a", "u");
    prepare(&*three, &a).await.unwrap();
    assert_eq!(copies(&servers[0], &a).await, 3);

    let two = at(&servers, endpoints[..2].to_vec());
    assert_eq!(check(&*two, &a).await, Ok(Access::Exact));
    prepare(&*two, &a).await.unwrap();
    assert_eq!(copies(&servers[0], &a).await, 3);
    assert_eq!(check(&*two, &a).await, Ok(Access::Exact));
    // kine starts with the number of copies that the claim has, and with no other.
    let stored = two.claims("1").await.unwrap().remove(0);
    let file = File::of(&a);
    let authority = servers[0].directory().join("ca.crt");
    let told = |claim: &Claim| endpoint_of(&servers[..2], claim, &file);
    Kine::start_with(&authority, &told(&stored)).work().await;
    let mut other = Kine::start_with(&authority, &told(&a));
    let begin = std::time::Instant::now();
    while !other.ended() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", other.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(other.log().contains("KV bucket"), "{}", other.log());

    // Who comes now gets what the list stands for, and more with the next grant under a
    // longer one.
    let b = claim("2", "b", "v");
    prepare(&*two, &b).await.unwrap();
    assert_eq!(copies(&servers[0], &b).await, 1);
    assert_eq!(check(&*three, &b).await, Ok(Access::Exact));
    assert_eq!(
        copies(&servers[0], &b).await,
        1,
        "nothing is written by a look"
    );
    prepare(&*three, &b).await.unwrap();
    assert_eq!(copies(&servers[0], &b).await, 3);
    assert_eq!(check(&*three, &b).await, Ok(Access::Exact));
    assert_eq!(three.claims("2").await.unwrap()[0].replicas, Some(3));
}

/// Three endpoints are taken for a cluster. Where they are none, those who are there go on.
#[tokio::test]
async fn endpoints_that_are_no_cluster_refuse_new_tenants_alone() {
    let servers = [start()];
    let one = at(&servers, vec![servers[0].endpoint()]);
    let a = claim("1", "a", "u");
    prepare(&*one, &a).await.unwrap();

    let more = (0..2).map(|_| format!("127.0.0.1:{}", lab::free_port()));
    let three = at(
        &servers,
        [servers[0].endpoint()].into_iter().chain(more).collect(),
    );
    assert_eq!(check(&*three, &a).await, Ok(Access::Exact));
    prepare(&*three, &a).await.unwrap();
    assert_eq!(check(&*three, &a).await, Ok(Access::Exact));
    assert_eq!(copies(&servers[0], &a).await, 1);

    let b = claim("2", "b", "v");
    let Err(TenancyError::Refused(why)) = prepare(&*three, &b).await else {
        panic!("a bucket cannot have three copies");
    };
    assert!(why.contains("servers of one cluster"), "{why}");
    assert_eq!(three.claims("2").await, Ok(vec![]));
    let left = tenant(&servers[0], &b).await;
    assert!(left.is_err(), "nothing is left of who was refused");
}

/// Everything that was signed by the key of before is signed anew, tenant by tenant, and those
/// who are in stay in.
#[tokio::test]
async fn another_signing_key_of_the_operator_takes_nothing_away() {
    let server = start();
    let former = connect(connection(&server)).unwrap();
    let a = claim("1", "a", "u");
    prepare(&*former, &a).await.unwrap();
    let open = tenant(&server, &a).await.unwrap();

    let next = connect(Connection {
        password: Some(server.next_operator.clone()),
        ..connection(&server)
    })
    .unwrap();
    next.verify().await.unwrap();
    assert_eq!(next.claims("1").await, Ok(vec![granted(&a)]));
    assert_eq!(check(&*next, &a).await, Ok(Access::Outdated));
    assert_eq!(next.check(&a, None).await, Ok(Access::Outdated));

    next.prepare(&a, Some(&secret()), Data::Kept).await.unwrap();
    assert_eq!(check(&*next, &a).await, Ok(Access::Exact));
    assert_eq!(next.check(&a, None).await, Ok(Access::Exact));
    ask(&open, "$KV.a.key", "value").await.expect("it stays in");
    tenant(&server, &a).await.unwrap();
    next.revoke(&a).await.unwrap();
    next.drop_data(&a).await.unwrap();
    next.release(&a).await.unwrap();
}

/// What is signed by the key of before and is not what it should be is no matter of keys.
#[tokio::test]
async fn a_user_that_is_shut_out_is_not_merely_outdated() {
    let server = start();
    let former = connect(connection(&server)).unwrap();
    let a = claim("1", "a", "u");
    prepare(&*former, &a).await.unwrap();
    former.revoke(&a).await.unwrap();
    let next = connect(Connection {
        password: Some(server.next_operator.clone()),
        ..connection(&server)
    })
    .unwrap();
    for with in [Some(secret()), None] {
        let found = next.check(&a, with.as_ref()).await;
        assert!(matches!(found, Ok(Access::Differs(_))), "{found:?}");
    }
}
