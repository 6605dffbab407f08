//! A bucket is the tenant's, who writes there what it likes; and what kine of NATS makes of what
//! was moved.

use async_nats::HeaderMap;
use bytes::Bytes;
use etcd_client::GetOptions;
use storage::moving::{self, MoveError};
use storage::tenancy::Stage;
use storage::tenancy::contents::{Contents, Entry, Op};
use tokio_util::sync::CancellationToken;

use crate::Driver;
use crate::lab::nats::{self, ask};
use crate::lab::sql::secret;
use crate::pairs::{limits, run};
use crate::tenant::{Ways, create};

/// How many keys of the target have a lease of about ten minutes.
pub async fn leased(ways: &Ways) -> i64 {
    let serving = ways.target.claim.at(Stage::Serving);
    let contents = ways.target.tenancy.contents(&serving, None).await;
    let mut contents = contents.unwrap();
    let page = contents.page(None, usize::MAX).await.unwrap();
    let leases = page.entries.iter().filter_map(|entry| entry.ttl);
    let mut found = 0;
    for ttl in leases {
        assert!((400..=600).contains(&ttl), "{ttl}");
        found += 1;
    }
    found
}

fn put(key: &str, value: impl Into<Bytes>) -> Op {
    Op::Put(Entry {
        key: key.to_owned(),
        value: value.into(),
        ttl: None,
    })
}

async fn attempt(ways: &Ways) -> Result<moving::Report, MoveError> {
    let stop = CancellationToken::new();
    moving::run(&ways.source, &ways.target, &limits(), &|_| (), &stop).await
}

/// What kine does not see either is passed over: subjects that are no keys, keys that it looks
/// for elsewhere, and what is long gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kine_does_not_see_is_not_moved() {
    let ways = Ways::new(Driver::Nats, Driver::PostgreSql).await;
    let mut api = ways.at_source().await;
    let key = format!("{}/pods/a", ways.prefix);
    assert!(create(&mut api.client, &key).await.unwrap());
    let (server, claim) = (ways.servers.nats(ways.from), &ways.source.claim);
    let own = nats::tenant(server, claim).await.unwrap();
    let bucket = format!("$KV.{}", claim.schema);
    let prefix = bs58::encode(&ways.prefix[1..]).into_string();
    for subject in [
        "x".to_owned(),
        "0OIl.0OIl".to_owned(),
        format!("{prefix}.0OIl"),
        format!("{prefix}.meta.2g"),
        format!("{prefix}.{}", bs58::encode("a/b").into_string()),
        format!("{prefix}x.2g"),
        "meta.2g".to_owned(),
    ] {
        let subject = format!("{bucket}.{subject}");
        ask(&own, &subject, &"nonsense ".repeat(20)).await.unwrap();
    }
    // Thousands of values of one key, and a key that ended without more ado.
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    for _ in 0..2000 {
        let subject = format!("{bucket}.{prefix}.{}", bs58::encode("gone").into_string());
        own.publish_with_headers(subject, headers.clone(), "x".into())
            .await
            .unwrap();
    }
    own.flush().await.unwrap();
    let (report, _) = run(&ways, &limits()).await;
    assert_eq!((report.keys, report.mended), (1, 0));
    let (found, _) = ways.at_target().await.list(&ways.prefix).await;
    assert_eq!(found.len(), 1);
}

/// A value that is none of kine's, that unpacks to gigabytes, a key that is no text, one that is
/// too long: refused in a sentence, with a source that serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_at_keys_is_refused() {
    let ways = Ways::new(Driver::Nats, Driver::Etcd).await;
    let mut api = ways.at_source().await;
    let key = format!("{}/pods/a", ways.prefix);
    assert!(create(&mut api.client, &key).await.unwrap());
    drop(api);
    let (server, claim) = (ways.servers.nats(ways.from), &ways.source.claim);
    let own = nats::tenant(server, claim).await.unwrap();
    let prefix = bs58::encode(&ways.prefix[1..]).into_string();
    let below = format!("$KV.{}.{prefix}", claim.schema);
    // A block that says that it has 4 GiB, and repeats that one byte.
    let mut bomb = b"\xff\x06\x00\x00S2sTwO\x00\x0f\x00\x00\x00\x00\x00\x00".to_vec();
    bomb.extend([0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a', 1, 1, 29, 0]);
    for (part, payload) in [
        (bs58::encode("b").into_string(), b"nonsense".to_vec()),
        (bs58::encode("b").into_string(), bomb),
        (bs58::encode([0xff, 0xfe]).into_string(), b"x".to_vec()),
        ("2".repeat(3000), b"x".to_vec()),
    ] {
        let subject = format!("{below}.{part}");
        own.request(subject.clone(), payload.into()).await.unwrap();
        let ended = attempt(&ways).await;
        let Err(MoveError::Refused(why)) = ended else {
            panic!("{ended:?}")
        };
        assert!(why.contains("delete") && why.len() < 500, "{why}");
        ways.source_serves().await;
        ways.target_is_clean().await;
        // As who is told so does.
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        headers.insert("Nats-Rollup", "sub");
        let deleted = own.request_with_headers(subject, headers, Bytes::new());
        deleted.await.unwrap();
    }
    let moved = attempt(&ways).await.unwrap();
    assert_eq!(moved.keys, 1, "all of it was deleted");
}

/// A tenant that can write a little while it is frozen, by messages that kine does not send,
/// or replaces all that there is, harms its own move alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_on_is_compared() {
    let ways = Ways::new(Driver::Nats, Driver::MariaDb).await;
    let mut api = ways.at_source().await;
    for number in 0..20 {
        let key = format!("{}/pods/{number}", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
    }
    let frozen = ways
        .source
        .tenancy
        .turn(&ways.source.claim, Stage::Frozen, None);
    let frozen = frozen.await.unwrap();
    let own = nats::tenant(ways.servers.nats(ways.from), &ways.source.claim);
    let own = own.await.unwrap();
    let prefix = bs58::encode(&ways.prefix[1..]).into_string();
    let (pods, five) = (bs58::encode("pods"), bs58::encode("5"));
    let subject = format!(
        "$KV.{}.{prefix}.{}.{}",
        ways.source.claim.schema,
        pods.into_string(),
        five.into_string()
    );
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let told = own.request_with_headers(subject.clone(), headers.clone(), Bytes::new());
    let told = String::from_utf8_lossy(&told.await.unwrap().payload).into_owned();
    assert!(told.contains("\"seq\""), "{told}");
    headers.insert("Nats-Rollup", "all");
    let told = own.request_with_headers(subject, headers, Bytes::new());
    let told = String::from_utf8_lossy(&told.await.unwrap().payload).into_owned();
    assert!(told.contains("maximum"), "{told}");
    let thawed = ways.source.tenancy.turn(&frozen, Stage::Serving, None);
    thawed.await.unwrap();
    let (report, _) = run(&ways, &limits()).await;
    assert_eq!(report.keys, 19);
}

/// More keys than are compared in one go, keys in another order than that of their writing, and
/// values as large as a message may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_and_odd_keys() {
    let ways = Ways::new(Driver::PostgreSql, Driver::Nats).await;
    let mut api = ways.at_source().await;
    let names = ["ü/ö", "a//b", "a.b*c>", "z", "A", "~", "a b", "meta", "x/"];
    for name in names {
        let key = format!("{}/{name}", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
    }
    let value: Vec<u8> = (0..600_000_u32)
        .map(|it| (it.wrapping_mul(it) >> 7) as u8)
        .collect();
    let large = format!("{}/large", ways.prefix);
    etcd_put(&mut api, &large, &value).await;
    let (report, _) = run(&ways, &limits()).await;
    assert_eq!(report.keys, names.len() as u64 + 1);
    let mut target = ways.at_target().await;
    let (found, _) = target.list(&ways.prefix).await;
    for name in names {
        assert!(
            found.contains_key(&format!("/{name}")),
            "{name}: {:?}",
            found.keys()
        );
    }
    assert_eq!(found["/large"].0, value);

    // One that kine of NATS could not write is refused with what to do.
    let ways = Ways::new(Driver::PostgreSql, Driver::Nats).await;
    let mut api = ways.at_source().await;
    let value: Vec<u8> = (0..1_200_000).map(|_| rand::random()).collect();
    let large = format!("{}/large", ways.prefix);
    etcd_put(&mut api, &large, &value).await;
    let ended = attempt(&ways).await;
    assert!(
        matches!(&ended, Err(MoveError::Refused(why)) if why.contains("max_payload")),
        "{ended:?}"
    );
    ways.source_serves().await;
    ways.target_is_clean().await;
}

async fn etcd_put(api: &mut crate::tenant::Api, key: &str, value: &[u8]) {
    use etcd_client::{Compare, CompareOp, Txn, TxnOp};
    let absent = Compare::mod_revision(key, CompareOp::Equal, 0);
    let txn = Txn::new()
        .when([absent])
        .and_then([TxnOp::put(key, value, None)]);
    assert!(api.client.txn(txn).await.unwrap().succeeded());
}

/// kine comes up on what was moved, again and again, and counts on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kine_goes_on_with_what_was_moved() {
    let ways = Ways::new(Driver::Etcd, Driver::Nats).await;
    let mut api = ways.at_source().await;
    for number in 0..30 {
        let key = format!("{}/pods/{number}", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
    }
    let (report, _) = run(&ways, &limits()).await;
    for round in 0..3 {
        let mut target = ways.at_target().await;
        let key = format!("{}/pods/{round}", ways.prefix);
        let deleted = target.client.get(key.clone(), None).await.unwrap();
        let at = deleted.kvs()[0].mod_revision();
        use etcd_client::{Compare, CompareOp, Txn, TxnOp};
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, at)])
            .and_then([TxnOp::delete(key.clone(), None)])
            .or_else([TxnOp::get(key.clone(), None)]);
        assert!(target.client.txn(txn).await.unwrap().succeeded(), "{round}");
        let key = format!("{}/new/{round}", ways.prefix);
        assert!(create(&mut target.client, &key).await.unwrap());
        let (found, revision) = target.list(&ways.prefix).await;
        assert_eq!(found.len(), 30, "{round}");
        assert!(u64::try_from(revision).unwrap() > report.target_revision);
        let count = GetOptions::new().with_prefix().with_count_only();
        let counted = target.client.get(format!("{}/", ways.prefix), Some(count));
        assert_eq!(counted.await.unwrap().count(), 30);
    }
    // And on to another one.
    let stop = CancellationToken::new();
    let back = moving::run(&ways.target, &ways.source, &limits(), &|_| (), &stop).await;
    assert_eq!(back.unwrap().keys, 30);
}

/// What one who fills a bucket leaves is nothing that one after him finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_filled_anew_is_empty() {
    let server = nats::start();
    let tenancy = storage::tenancy::connect(nats::connection(&server)).unwrap();
    let incoming = &crate::lab::claim("1", "a", "u").at(Stage::Incoming);
    let secret = secret();
    let prepared = tenancy.prepare(incoming, Some(&secret), storage::tenancy::Data::New);
    prepared.await.unwrap();
    let open = async || tenancy.contents(incoming, None).await.unwrap();
    let mut contents: Box<dyn Contents> = open().await;
    assert_eq!(contents.raise(5_000).await, Ok(5_000));
    assert_eq!(contents.raise(4_000).await, Ok(5_000), "never back");
    assert_eq!(contents.raise(7_000).await, Ok(7_000));
    assert!(contents.raise(u64::MAX).await.is_err());
    contents
        .apply(&[put("/a", "1"), put("/b", "2")])
        .await
        .unwrap();
    contents
        .apply(&[put("/a", "3"), Op::Delete("/b".into())])
        .await
        .unwrap();
    assert_eq!(contents.newest().await, Ok(7_004));
    assert!(contents.raise(9_000).await.is_err(), "it is not empty");
    assert_eq!(contents.count().await, Ok(1));
    let page = contents.page(None, 1 << 20).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].value, "3");
    assert!(contents.page(Some("/a"), 1 << 20).await.is_err());
    let changes = contents.changes(7_000, 1 << 20, true).await.unwrap();
    assert_eq!((changes.ops.len(), changes.upto), (2, 7_004));
    contents.wipe().await.unwrap();
    assert_eq!(
        (contents.count().await, contents.newest().await),
        (Ok(0), Ok(7_004))
    );
    assert_eq!(contents.raise(9_000).await, Ok(9_000));

    // More than one request for messages, and than one page, is about.
    let keys: Vec<String> = (0..1_300).rev().map(|it| format!("/{it:04}")).collect();
    let all: Vec<Op> = keys.iter().map(|key| put(key, key.clone())).collect();
    contents.apply(&all).await.unwrap();
    assert_eq!(contents.count().await, Ok(1_300));
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = contents.page(after.as_deref(), 3_000).await.unwrap();
        found.extend(page.entries.into_iter().map(|entry| entry.key));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    found.sort();
    assert!(found.iter().eq(keys.iter().rev()), "{}", found.len());
    let at = contents.newest().await.unwrap();
    let prints = contents.prints(at, None).await.unwrap();
    assert!(prints.prints.iter().map(|it| &it.key).eq(keys.iter().rev()));
    let some = contents.get(&keys[..20], 1 << 20).await.unwrap();
    assert!(some.iter().map(|it| &it.key).eq(&keys[..20]));
    assert!(
        contents.prints(at - 1, None).await.is_err(),
        "of another revision"
    );
}

/// What empties a bucket and what raises it goes by its name, and not to a place: it is refused
/// to who has not the place of now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_late_neither_empties_a_bucket_nor_raises_it() {
    let server = nats::start();
    let tenancy = storage::tenancy::connect(nats::connection(&server)).unwrap();
    let incoming = &crate::lab::claim("1", "a", "u").at(Stage::Incoming);
    let secret = secret();
    let prepared = tenancy.prepare(incoming, Some(&secret), storage::tenancy::Data::New);
    prepared.await.unwrap();
    let open = async || tenancy.contents(incoming, None).await.unwrap();
    let mut late: Box<dyn Contents> = open().await;
    assert_eq!(
        late.wipe().await,
        Ok(()),
        "nothing is there, and it is its own"
    );
    assert_eq!(late.raise(100).await, Ok(100));
    // Somebody begins anew.
    let turned = tenancy.turn(incoming, Stage::Incoming, Some(&secret));
    turned.await.unwrap();
    let mut contents: Box<dyn Contents> = open().await;
    let raised = late.raise(5_000).await;
    assert!(
        matches!(&raised, Err(why) if why.to_string().contains("place")),
        "{raised:?}"
    );
    assert_eq!(contents.newest().await, Ok(100));
    contents.apply(&[put("/a", "1")]).await.unwrap();
    let wiped = late.wipe().await;
    assert!(
        matches!(&wiped, Err(why) if why.to_string().contains("place")),
        "{wiped:?}"
    );
    assert_eq!(contents.count().await, Ok(1));
    contents.wipe().await.unwrap();
    assert_eq!(contents.count().await, Ok(0));
    assert_eq!(contents.newest().await, Ok(101));
}

/// In a cluster: each of what a move asks of a stream is asked of its leader, and what is read
/// may come from another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_and_to_a_cluster() {
    let cluster = nats::start_cluster(3).await;
    let connection = storage::tenancy::Connection {
        endpoints: cluster.iter().map(|it| it.endpoint()).collect(),
        ..nats::connection(&cluster[0])
    };
    let cluster_side: std::sync::Arc<dyn storage::tenancy::Tenancy> =
        storage::tenancy::connect(connection).unwrap().into();
    let mut ways = Ways::new(Driver::PostgreSql, Driver::Nats).await;
    let mut api = ways.at_source().await;
    for number in 0..40 {
        let key = format!("{}/pods/{number}", ways.prefix);
        assert!(create(&mut api.client, &key).await.unwrap());
    }
    drop(api);
    ways.target.tenancy = cluster_side.clone();
    let (report, _) = run(&ways, &limits()).await;
    assert_eq!((report.keys, report.mended), (40, 0));

    let there = cluster_side.claims(&ways.target.claim.uid).await.unwrap();
    assert_eq!(
        (there[0].stage, there[0].replicas),
        (Stage::Serving, Some(3))
    );
    let file = nats::File::of(&there[0]);
    let endpoint = nats::endpoint_of(&cluster, &there[0], &file);
    let authority = cluster[0].directory().join("ca.crt");
    let mut kine = crate::lab::sql::Kine::start_with(&authority, &endpoint);
    let client = kine.client().await;
    let writers = crate::writer::Writers::start(&client, &ways.prefix);
    writers.wait_for(200).await;
    let stop = CancellationToken::new();
    let back = moving::run(&ways.target, &ways.source, &limits(), &|_| (), &stop).await;
    let back = back.unwrap();
    assert_eq!((back.mended, back.begun_anew), (0, 0), "{back:?}");
    assert!(writers.are_refused());
    let book = writers.end().await;
    let (mut found, _) = ways.at_source().await.list(&ways.prefix).await;
    found.retain(|key, _| key.starts_with("/pods/w"));
    assert_eq!(
        crate::writer::differences(&book, &found),
        Vec::<String>::new()
    );
}
