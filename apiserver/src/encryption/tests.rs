//! What follows from a file, with a store on disk.

use clap::Parser;
use storage::{Error, Expect};
use tempfile::TempDir;

use super::*;

const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const TOLD: &str = "all stored objects are in the form of the first provider";

/// A directory with a file of these keys, each with its name.
fn write(directory: &TempDir, keys: &[(&str, &str)]) {
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, secret)| format!("{{name: {name}, secret: {secret}}}"))
        .collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: ['*.*']\n  providers: [aesgcm: {{keys: [{}]}}]\n",
        keys.join(", ")
    );
    std::fs::write(directory.path().join("file"), text).unwrap();
}

fn encryption(directory: &TempDir, with_file: bool) -> Encryption {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut args = vec![
        "x".to_owned(),
        "--namespace=n".to_owned(),
        format!("--data-dir={}", path("data")),
    ];
    if with_file {
        args.push(format!("--encryption-provider-config={}", path("file")));
    }
    let clock = Clock::new(|| jiff::Timestamp::UNIX_EPOCH);
    Encryption::new(&Args::parse_from(args), Arc::new(Metrics::new()), clock)
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How often it is told that nothing is left to do, by a server from its start.
async fn told(directory: &TempDir, with_file: bool) -> usize {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let encryption = encryption(directory, with_file);
    let (store, seen) = encryption.open().await.unwrap();
    // Without looks at the file it ends by itself.
    encryption.follow(store.clone(), seen).await;
    store.close().await;
    let text = String::from_utf8(logged.0.lock().clone()).unwrap();
    text.matches(TOLD).count()
}

/// Who changes a key waits for the line, also across a restart.
#[tokio::test]
async fn that_nothing_is_left_is_told_at_each_start() {
    let directory = TempDir::new().unwrap();
    assert_eq!(told(&directory, false).await, 0, "nothing is configured");
    write(&directory, &[("key1", ONE)]);
    assert_eq!(told(&directory, true).await, 1);
    assert_eq!(told(&directory, true).await, 1, "after a restart");
}

/// A file that does not fit the store has it looked through once, and not with each look at
/// the file; another file is taken in at once.
#[tokio::test]
async fn a_file_that_was_refused_is_not_tried_again_at_once() {
    let directory = TempDir::new().unwrap();
    write(&directory, &[("key1", ONE)]);
    let encryption = encryption(&directory, true);
    let (store, seen) = encryption.open().await.unwrap();
    let key = crate::object::prefix(apiservice::RESOURCES[0], None) + "a/b";
    let put = store.put(&key, "{}".into(), Expect::Absent);
    let put = put.await.unwrap();

    write(&directory, &[("key2", OTHER)]);
    let refused = encryption.change(&store, seen).await.unwrap_err();
    assert!(refused.contains("key1"), "{refused}");
    // It would fit now.
    let gone = store.delete(&put.key, put.modified).await.unwrap();
    store.compact(gone).await.unwrap();
    assert_eq!(encryption.change(&store, seen).await, Err(refused.clone()));
    assert_eq!(encryption.refused(None), Ok(()), "of another file");
    encryption.refused.lock().as_mut().unwrap().until = Instant::now();
    let taken = encryption.change(&store, seen).await.unwrap();
    assert!(taken.is_some() && taken != seen);

    // What is no fault of the file is not held against it.
    store.close().await;
    write(&directory, &[("key3", ONE)]);
    assert!(encryption.change(&store, taken).await.is_err());
    let closed = encryption.taken(Err::<(), _>(Error::Closed), None, ToString::to_string);
    assert!(closed.is_err() && encryption.refused.lock().is_none());
}
