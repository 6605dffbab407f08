//! Values that are encrypted on disk (R9.19).

use futures::StreamExt;

use super::*;
use crate::WatchItem;
use crate::seal::{Cipher, Key, Rule, Sealing};
use crate::sqlite::shared::Looked;

/// For all values; none: as they are.
pub fn with(keys: &[Option<u8>]) -> Sealing {
    let key = |number: &Option<u8>| match number {
        Some(number) => {
            let cipher = Cipher::aes_gcm(&[*number; 32]).unwrap();
            Key::new(&format!("key{number}"), cipher)
        }
        None => Key::identity(),
    };
    let rule = Rule {
        prefixes: vec!["/".to_owned()],
        keys: keys.iter().map(key).collect(),
    };
    Sealing::new(vec![rule]).unwrap()
}

const SECRET: &str = "nobody-is-to-read-this-";

/// Some versions of some keys, deletions among them; all that is known of them.
async fn history(store: &Store) -> Vec<WatchItem> {
    for round in 0..5 {
        for number in 0..40 {
            let key = format!("/a/{number}");
            let value = format!(
                "{{\"{SECRET}{round}\": {number}, {}}}",
                "x".repeat(number * 60)
            );
            let standing = store.get(&key).await.unwrap().0;
            let expect = standing.map_or(Expect::Absent, |it| Expect::At(it.modified));
            store.put(&key, value.into(), expect).await.unwrap();
        }
    }
    let gone = store.get("/a/7").await.unwrap().0.unwrap();
    store.delete("/a/7", gone.modified).await.unwrap();
    all(store).await
}

async fn all(store: &Store) -> Vec<WatchItem> {
    let watch = store.watch("/", Revision::FIRST).await.unwrap();
    let seen = watch.map(Result::unwrap);
    let changes = seen.take_while(|item| {
        let goes_on = matches!(item, WatchItem::Change(_));
        async move { goes_on }
    });
    changes.collect().await
}

/// Whether a text is in the files.
fn is_on_disk(directory: &TempDir, text: &str) -> bool {
    [FILE, LOG].iter().any(|name| {
        let file = std::fs::read(directory.path().join(name)).unwrap_or_default();
        file.windows(text.len()).any(|it| it == text.as_bytes())
    })
}

async fn sealed(directory: &TempDir, keys: &[Option<u8>]) -> Result<Store, Error> {
    sqlite::open_sealed(directory.path(), with(keys)).await
}

#[tokio::test]
async fn a_store_is_encrypted_and_its_key_changed_while_it_is_used() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let told = history(&store).await;
    assert!(is_on_disk(&directory, SECRET));
    let revision = store.revision().await.unwrap();
    let mut watch = store.watch("/", revision).await.unwrap();

    // As they are they may stay only if somebody says so.
    let refused = store.seal(with(&[Some(1)])).await;
    assert!(
        matches!(&refused, Err(Error::Sealed(why)) if why.contains("identity")),
        "{refused:?}"
    );
    store.seal(with(&[Some(1), None])).await.unwrap();
    assert_eq!(all(&store).await, told);
    assert_eq!(store.reseal().await, Ok(200));
    assert_eq!(store.reseal().await, Ok(0), "once is enough");
    assert!(!is_on_disk(&directory, SECRET));
    assert_eq!(all(&store).await, told);
    assert_eq!(store.revision().await.unwrap(), revision);

    // Another key, and then that alone.
    store.seal(with(&[Some(2), Some(1)])).await.unwrap();
    store.put("/b", "{}".into(), Expect::Absent).await.unwrap();
    assert!(
        store.seal(with(&[Some(2)])).await.is_err(),
        "some have the first one yet"
    );
    assert_eq!(store.reseal().await, Ok(200));
    store.seal(with(&[Some(2)])).await.unwrap();
    store.close().await;
    for keys in [&[][..], &[Some(1)], &[None]] {
        let opened = match keys {
            [] => sqlite::open(directory.path()).await,
            keys => sealed(&directory, keys).await,
        };
        let refused = opened.err();
        assert!(
            matches!(&refused, Some(Error::Sealed(why)) if why.contains("key2")),
            "{keys:?}: {refused:?}"
        );
    }
    let store = sealed(&directory, &[Some(2)]).await.unwrap();
    assert_eq!(all(&store).await[..told.len()], told);

    // And back.
    store.seal(with(&[None, Some(2)])).await.unwrap();
    assert_eq!(store.reseal().await, Ok(201));
    store.close().await;
    let store = sqlite::open(directory.path()).await.unwrap();
    assert_eq!(all(&store).await[..told.len()], told);
    // Who watched has heard of the one change alone.
    let heard = watch.next().await.unwrap().unwrap();
    assert!(
        matches!(&heard, WatchItem::Change(it) if it.key() == "/b"),
        "{heard:?}"
    );
}

/// The name of a key is not the key.
#[tokio::test]
async fn another_key_of_the_name_is_found_before_anything_depends_on_it() {
    let directory = TempDir::new().unwrap();
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    store.put("/a", "{}".into(), Expect::Absent).await.unwrap();
    let other = || {
        let key = Key::new("key1", Cipher::aes_gcm(&[9; 32]).unwrap());
        let prefixes = vec!["/".to_owned()];
        Sealing::new(vec![Rule {
            prefixes,
            keys: vec![key],
        }])
        .unwrap()
    };
    assert!(matches!(store.seal(other()).await, Err(Error::Sealed(_))));
    store.put("/b", "{}".into(), Expect::Absent).await.unwrap();
    store.close().await;
    let opened = sqlite::open_sealed(directory.path(), other()).await;
    assert!(matches!(opened.err(), Some(Error::Sealed(_))));
    assert!(sealed(&directory, &[Some(1)]).await.is_ok());
}

/// One damaged value is its own trouble, wherever it is damaged and whichever it is: all
/// else is read, and it can be deleted.
#[tokio::test]
async fn a_damaged_value_holds_up_no_other() {
    let end = "substr(value, 1, length(value) - 1) || x'00'";
    let mark = "x'6a' || substr(value, 2)";
    let provider = "substr(value, 1, 8) || x'62' || substr(value, 10)";
    let version = "substr(value, 1, 15) || x'74' || substr(value, 17)";
    for damage in [end, mark, provider, version] {
        for number in 0..3 {
            damaged(damage, number).await;
        }
    }
}

async fn damaged(damage: &str, number: usize) {
    let directory = TempDir::new().unwrap();
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    for key in ["/a", "/b", "/c"] {
        store.put(key, "{}".into(), Expect::Absent).await.unwrap();
    }
    store.close().await;
    let key = ["/a", "/b", "/c"][number];
    let change = format!("UPDATE version SET value = CAST({damage} AS BLOB) WHERE key = '{key}'");
    sql(&directory, change.leak()).await;
    let opened = sealed(&directory, &[Some(1)]).await;
    let store = opened.unwrap_or_else(|error| panic!("{damage} of {key}: {error}"));
    let page = store.range("/", None, None, None).await.unwrap();
    let plain: Vec<usize> = (0..3)
        .filter(|at| page.entries[*at].value != "{}")
        .collect();
    assert_eq!(plain, [number]);
    let bad = &page.entries[number];
    assert!(bad.value.starts_with(b"k8s:enc:"), "it is no object");
    store.seal(with(&[Some(1)])).await.unwrap();
    assert_eq!(store.reseal().await, Ok(0), "{damage}");
    store.delete(key, bad.modified).await.unwrap();
}

/// What lacks a provider, is of a key that is not there, or is all that there is, is not
/// taken for damage.
#[tokio::test]
async fn what_is_not_damage_of_one_is_refused() {
    for (value, why) in [
        ("CAST('{}' AS BLOB)", "identity"),
        ("CAST('k8s:enc:aesgcm:v1:key7:xxxxxxxx' AS BLOB)", "key7"),
    ] {
        let directory = TempDir::new().unwrap();
        let store = sealed(&directory, &[Some(1)]).await.unwrap();
        for key in ["/a", "/b"] {
            store.put(key, "{}".into(), Expect::Absent).await.unwrap();
        }
        store.close().await;
        let change = format!("UPDATE version SET value = {value} WHERE key = '/b'");
        sql(&directory, change.leak()).await;
        let refused = sealed(&directory, &[Some(1)]).await.err();
        assert!(
            matches!(&refused, Some(Error::Sealed(told)) if told.contains(why)),
            "{refused:?}"
        );
    }
    let directory = TempDir::new().unwrap();
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    store.put("/a", "{}".into(), Expect::Absent).await.unwrap();
    store.close().await;
    sql(&directory, "UPDATE version SET value = x'ff' || value").await;
    let refused = sealed(&directory, &[Some(1)]).await.err();
    assert!(matches!(refused, Some(Error::Sealed(_))), "{refused:?}");
}

/// What is put into the file as it is, where values are encrypted, passes for nothing.
#[tokio::test]
async fn a_value_that_is_not_encrypted_is_not_given_where_all_are() {
    let directory = TempDir::new().unwrap();
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    store.put("/a", "{}".into(), Expect::Absent).await.unwrap();
    sql(&directory, "UPDATE version SET value = x'7b7d'").await;
    let given = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!(given.value, "k8s:enc:{}");
}

/// Keys of one name in two rules are two keys.
#[tokio::test]
async fn each_rule_has_its_keys() {
    let sealing = |second: u8| {
        let rule = |prefix: &str, secret| Rule {
            prefixes: vec![prefix.to_owned()],
            keys: vec![Key::new("key1", Cipher::aes_gcm(&[secret; 32]).unwrap())],
        };
        Sealing::new(vec![rule("/a/", 1), rule("/b/", second)]).unwrap()
    };
    let directory = TempDir::new().unwrap();
    let opened = sqlite::open_sealed(directory.path(), sealing(2)).await;
    let store = opened.unwrap();
    for key in ["/a/1", "/b/1"] {
        store.put(key, "{}".into(), Expect::Absent).await.unwrap();
    }
    let refused = store.seal(sealing(3)).await;
    assert!(
        matches!(&refused, Err(Error::Sealed(why)) if why.contains("/b/1")),
        "{refused:?}"
    );
    store.close().await;
    let opened = sqlite::open_sealed(directory.path(), sealing(3)).await;
    assert!(matches!(opened.err(), Some(Error::Sealed(_))));
    let opened = sqlite::open_sealed(directory.path(), sealing(2)).await;
    opened.unwrap();
}

/// The writer looks at what has come since all was looked at, and at all of it again if
/// that has been brought to another form since.
#[tokio::test]
async fn what_came_while_values_were_looked_at_is_looked_at_too() {
    let directory = TempDir::new().unwrap();
    let log = Sqlite::open(directory.path(), with(&[Some(1)])).await;
    let log = Arc::new(log.unwrap());
    let store = Store::new(log.clone());
    let seal = async |upto: Revision, rewritten| {
        let looked = Looked { upto, rewritten };
        log.writer.seal(Arc::new(with(&[Some(2)])), looked).await
    };
    store.put("/a", "{}".into(), Expect::Absent).await.unwrap();
    let before = store.revision().await.unwrap();
    store.put("/b", "{}".into(), Expect::Absent).await.unwrap();
    assert!(matches!(seal(before, 0).await, Err(Error::Sealed(_))));
    let now = store.revision().await.unwrap();
    store.reseal().await.unwrap();
    assert!(matches!(seal(now, 1).await, Err(Error::Sealed(_))));
    assert_eq!(seal(now, 0).await, Ok(()), "they count as looked at");
    // With the key in force again, all are written anew.
    store.seal(with(&[Some(3), Some(1)])).await.unwrap();
    assert_eq!(store.reseal().await, Ok(2));
    assert!(matches!(seal(now, 0).await, Err(Error::Sealed(_))));
}

/// A store that was never encrypted is not looked through, and one that was is found out,
/// also where a program of before has encrypted it.
#[tokio::test]
async fn that_no_value_is_encrypted_is_noted() {
    const SEALED: &str = "UPDATE version SET value = CAST('k8s:enc:aesgcm:v1:key7:x' AS BLOB)";
    let opens = async |directory: &TempDir| match sqlite::open(directory.path()).await {
        Ok(store) => {
            store.close().await;
            true
        }
        Err(Error::Sealed(_)) => false,
        Err(error) => panic!("{error}"),
    };
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    store.put("/a", "{}".into(), Expect::Absent).await.unwrap();
    store.close().await;
    assert!(opens(&directory).await);
    // Past all programs.
    sql(&directory, SEALED).await;
    assert!(!opens(&directory).await, "a change is noted");
    sql(&directory, "DELETE FROM sealed").await;
    assert!(opens(&directory).await, "the values are not looked at");
    sql(
        &directory,
        "INSERT INTO version SELECT 9, '/b', 9, NULL, NULL, value FROM version",
    )
    .await;
    sql(&directory, "UPDATE store SET revision = 9").await;
    assert!(!opens(&directory).await, "a new value is noted");
    // As a file of before is.
    for part in [
        "TABLE sealed",
        "TRIGGER sealed_put",
        "TRIGGER sealed_change",
    ] {
        sql(&directory, "DELETE FROM sealed").await;
        sql(&directory, format!("DROP {part}").leak()).await;
        assert!(!opens(&directory).await, "without the {part}");
    }
    sql(&directory, "UPDATE version SET value = x'7b7d'").await;
    assert!(opens(&directory).await, "it is clean again");
    let store = sqlite::open(directory.path()).await.unwrap();
    store.seal(with(&[Some(1), None])).await.unwrap();
    store.reseal().await.unwrap();
    store.close().await;
    assert!(!opens(&directory).await, "what is encrypted is noted");
}

/// What was there before is in the write-ahead log for as long as somebody reads it.
#[tokio::test]
async fn nothing_counts_as_erased_while_the_log_is_read() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    history(&store).await;
    let mark = directory.path().join(crate::sqlite::files::ERASE_DUE);
    let mut reader = options(directory.path()).connect().await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    let read = sqlx::query("SELECT count(*) FROM version");
    read.fetch_one(&mut *reading).await.unwrap();
    store.seal(with(&[Some(1), None])).await.unwrap();
    for _ in 0..2 {
        let held_up = store.reseal().await;
        assert!(matches!(&held_up, Err(Error::Unavailable(why)) if why.contains("log")));
        assert!(mark.exists());
        assert!(is_on_disk(&directory, SECRET));
    }
    store.put("/b", "{}".into(), Expect::Absent).await.unwrap();
    reading.rollback().await.unwrap();
    assert_eq!(store.reseal().await, Ok(0));
    assert!(!mark.exists());
    assert!(!is_on_disk(&directory, SECRET));
}

/// Temporary files of SQLite that this process has open.
fn temporary_files() -> Vec<std::path::PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok());
    links
        .filter(|it| it.to_string_lossy().contains("/etilqs_"))
        .collect()
}

/// A store that is larger than what SQLite keeps in memory is made anew where nothing but
/// the data directory can be written. The place of temporary files is one for a process, so
/// that this runs in one of its own.
#[test]
fn temporary_files_lie_in_the_data_directory() {
    const NAME: &str = "sqlite::tests::seals::spilling";
    let test = std::env::current_exe().unwrap();
    let run = std::process::Command::new(test)
        .args(["--exact", NAME, "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "in a process of its own: temporary_files_lie_in_the_data_directory"]
async fn spilling() {
    let parent = TempDir::new().unwrap();
    let directory = TempDir::with_prefix_in("it's ", parent.path()).unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    for number in 0..40 {
        let value = vec![b'x'; 1 << 20];
        let key = format!("/a/{number}");
        store.put(&key, value.into(), Expect::Absent).await.unwrap();
    }
    store.seal(with(&[Some(1), None])).await.unwrap();
    let mut resealing = tokio::spawn({
        let store = store.clone();
        async move { store.reseal().await }
    });
    let mut seen = Vec::new();
    let done = loop {
        seen.extend(temporary_files());
        tokio::select! {
            done = &mut resealing => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    };
    assert_eq!(done, Ok(40));
    assert!(!seen.is_empty());
    assert!(
        seen.iter().all(|it| it.starts_with(directory.path())),
        "{seen:?}"
    );
}

/// Whoever writes while values are brought to another form is not disturbed.
#[tokio::test]
async fn writers_go_on_meanwhile() {
    let directory = TempDir::new().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    history(&store).await;
    store.seal(with(&[Some(1), None])).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..200 {
                let key = format!("/w/{number}");
                store
                    .put(&key, SECRET.into(), Expect::Absent)
                    .await
                    .unwrap();
            }
        })
    };
    assert_eq!(store.reseal().await, Ok(200));
    writer.await.unwrap();
    assert_eq!(store.reseal().await, Ok(0));
    assert!(!is_on_disk(&directory, SECRET));
}
