//! How fast it is. Not run by itself: cargo test -p storage --test moving figures -- --ignored
//! --nocapture

use bytes::Bytes;
use storage::moving::Limits;
use storage::tenancy::Stage;
use storage::tenancy::contents::{Entry, Op};

use crate::Driver;
use crate::pairs::run;
use crate::tenant::Ways;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn figures() {
    for objects in [100_000, 1_000] {
        for (from, to) in [
            (Driver::Etcd, Driver::PostgreSql),
            (Driver::PostgreSql, Driver::MariaDb),
            (Driver::MariaDb, Driver::Etcd),
            (Driver::Etcd, Driver::OtherEtcd),
            (Driver::Etcd, Driver::MariaDb),
            (Driver::PostgreSql, Driver::Etcd),
            (Driver::PostgreSql, Driver::PostgreSql),
            (Driver::MariaDb, Driver::PostgreSql),
            (Driver::MariaDb, Driver::MariaDb),
        ] {
            measure(objects, from, to).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn figures_of_nats() {
    for objects in [1_000, 10_000] {
        for other in [Driver::Etcd, Driver::PostgreSql, Driver::MariaDb] {
            measure(objects, Driver::Nats, other).await;
            measure(objects, other, Driver::Nats).await;
        }
        measure(objects, Driver::Nats, Driver::OtherNats).await;
    }
}

async fn measure(objects: usize, from: Driver, to: Driver) {
    let ways = Ways::new(from, to).await;
    let (tenancy, serving) = (&ways.source.tenancy, &ways.source.claim);
    let password = ways.source.password.as_ref();
    // As what was left is filled again.
    for stage in [Stage::Frozen, Stage::Left, Stage::Incoming] {
        let claims = tenancy.claims(&serving.uid).await.unwrap();
        tenancy.turn(&claims[0], stage, password).await.unwrap();
    }
    let incoming = serving.at(Stage::Incoming);
    {
        let mut contents = tenancy.contents(&incoming, password).await.unwrap();
        contents.raise(0).await.unwrap();
        for first in (0..objects).step_by(1000) {
            let ops = (first..first + 1000).map(|number| {
                let mut value = vec![b'x'; 1000];
                value[..8].copy_from_slice(&(number as u64).to_be_bytes());
                Op::Put(Entry {
                    key: format!("/pods/namespace/{number:08}"),
                    value: Bytes::from(value),
                    ttl: None,
                })
            });
            contents.apply(&ops.collect::<Vec<_>>()).await.unwrap();
        }
    }
    tenancy
        .turn(&incoming, Stage::Serving, password)
        .await
        .unwrap();
    let limits = Limits {
        margin: Some(1000),
        ..Limits::default()
    };
    let (report, _) = run(&ways, &limits).await;
    assert_eq!(report.keys, objects as u64);
    eprintln!(
        "{objects} {from:?} to {to:?}: copied {:.1} s ({:.1} MB/s), frozen {:.2} s",
        report.copying.as_secs_f64(),
        report.bytes as f64 / 1e6 / report.copying.as_secs_f64(),
        report.frozen.as_secs_f64()
    );
    // The servers are shared.
    let frozen = serving.at(Stage::Frozen);
    tenancy.revoke(&frozen).await.unwrap();
    tenancy.drop_data(&frozen).await.unwrap();
    let target = ways.target.claim.at(Stage::Serving);
    ways.target.tenancy.revoke(&target).await.unwrap();
    ways.target.tenancy.drop_data(&target).await.unwrap();
}
