//! Values that are encrypted on disk (R9.19).

use futures::StreamExt;

use super::*;
use crate::WatchItem;
use crate::seal::{Cipher, Key, Rule, Sealing};

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

/// One damaged value is its own trouble: all else is read, and it can be deleted.
#[tokio::test]
async fn a_damaged_value_holds_up_no_other() {
    let directory = TempDir::new().unwrap();
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    for key in ["/a", "/b", "/c"] {
        store.put(key, "{}".into(), Expect::Absent).await.unwrap();
    }
    store.close().await;
    let change = "UPDATE version SET value = substr(value, 1, length(value) - 1) || x'00' \
                  WHERE key = '/b'";
    sql(&directory, change).await;
    let store = sealed(&directory, &[Some(1)]).await.unwrap();
    let page = store.range("/", None, None, None).await.unwrap();
    let plain: Vec<bool> = page.entries.iter().map(|it| it.value == "{}").collect();
    assert_eq!(plain, [true, false, true]);
    let bad = &page.entries[1];
    assert!(store.reseal().await.is_ok(), "it has the right form");
    store.delete("/b", bad.modified).await.unwrap();
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
