//! How much a tenant has is the same in every datastore, and what its API server would count.

use bytes::Bytes;
use storage::tenancy::Data;
use storage::tenancy::contents::{Entry, Op, Usage};

use crate::Driver;
use crate::lab::sql::secret;
use crate::tenant::Ways;
use crate::writer::Writers;

const EACH: [Driver; 4] = [
    Driver::Etcd,
    Driver::PostgreSql,
    Driver::MariaDb,
    Driver::Nats,
];

/// Keys are created, changed and deleted, some of them many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_deletions_do_not_count() {
    for driver in EACH {
        let ways = Ways::new(driver, Driver::OtherEtcd).await;
        let mut source = ways.at_source().await;
        let measure = async || {
            let side = &ways.source;
            let opened = side.tenancy.contents(&side.claim, side.password.as_ref());
            let mut contents = opened.await.unwrap();
            let mut usage = Usage::default();
            contents.usage(&mut usage).await.unwrap();
            assert_eq!(contents.count().await, Ok(usage.objects), "{driver:?}");
            contents.close().await;
            usage
        };
        assert_eq!(measure().await, Usage::default(), "{driver:?}");
        let writers = Writers::start(&source.client, &ways.prefix);
        writers.wait_for(600).await;
        writers.end().await;
        let (keys, _) = source.list(&ways.prefix).await;
        let bytes = keys
            .iter()
            .map(|(key, (value, _))| ways.prefix.len() + key.len() + value.len());
        let expected = Usage {
            bytes: bytes.sum::<usize>() as u64,
            objects: keys.len() as u64,
        };
        assert!(expected.objects > 0, "{driver:?}");
        assert_eq!(measure().await, expected, "{driver:?}");
    }
}

/// More than one page of them, and large values among small ones: together they are more than
/// a page of any of them may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_tenants_are_counted_whole() {
    const KEYS: u64 = 6_001;
    const LARGE: usize = 900_000;
    /// Where they stand, after enough small ones for pages to have grown.
    const AT: std::ops::Range<u64> = 4_000..4_040;
    for driver in EACH {
        let ways = Ways::new(Driver::OtherEtcd, driver).await;
        let side = &ways.target;
        let prepared = side
            .tenancy
            .prepare(&side.claim, side.password.as_ref(), Data::New);
        prepared.await.unwrap();
        let secret = secret();
        let opened = side.tenancy.contents(&side.claim, Some(&secret));
        let mut contents = opened.await.unwrap();
        let put = |key: u64| {
            let length = if AT.contains(&key) { LARGE } else { 9 };
            Op::Put(Entry {
                key: format!("/{key:05}"),
                value: Bytes::from(vec![b'v'; length]),
                ttl: None,
            })
        };
        let all: Vec<Op> = (0..KEYS).map(put).collect();
        for some in all.chunk_by(|one, next| one.bytes() < 100 && next.bytes() < 100) {
            for some in some.chunks(500) {
                contents.apply(some).await.unwrap();
            }
        }
        let large = AT.end - AT.start;
        let keys = KEYS * (ways.prefix.len() as u64 + 6);
        let expected = Usage {
            bytes: keys + large * LARGE as u64 + (KEYS - large) * 9,
            objects: KEYS,
        };
        let began = std::time::Instant::now();
        let mut usage = Usage::default();
        contents.usage(&mut usage).await.unwrap();
        assert_eq!(usage, expected, "{driver:?}");
        // Whoever moves them reads as many.
        let (mut read, mut after) = (0, None);
        loop {
            let page = contents.page(after.as_deref(), 4 << 20).await.unwrap();
            read += page.entries.len() as u64;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(read, KEYS, "{driver:?}");
        println!("{driver:?}: {} ms", began.elapsed().as_millis());
    }
}
