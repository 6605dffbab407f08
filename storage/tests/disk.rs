//! Volumes that are full, that fail and that are damaged, on small file systems of their
//! own. Needs root, as the lab does.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use storage::{Error, Expect, Revision, WatchItem, sqlite};

/// A tmpfs that goes with the test.
struct Volume(tempfile::TempDir);

fn mount(options: &str, at: &Path) -> bool {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .status();
    status.is_ok_and(|status| status.success())
}

impl Volume {
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        mount(&format!("size={size}"), directory.path()).then_some(Volume(directory))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a test that failed may have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A file system on a device whose blocks are found on another one only when they are
/// written: when that has none left, it is the device that fails, as late as at the sync.
struct Device {
    below: Volume,
    above: tempfile::TempDir,
}

fn run(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).status();
    status.is_ok_and(|status| status.success())
}

impl Device {
    fn new(size: &str) -> Option<Self> {
        let device = Device {
            below: Volume::new(size)?,
            above: tempfile::tempdir().unwrap(),
        };
        let image = device.image();
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(64 << 20))
            .unwrap();
        let features = ["-q", "-O", "^has_journal", "-E", "nodiscard", "-N", "32"];
        let made = run("mkfs.ext4", &[&features[..], &[image.as_str()]].concat());
        (made && device.attach()).then_some(device)
    }

    fn image(&self) -> String {
        self.below
            .0
            .path()
            .join("image")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn attach(&self) -> bool {
        let at = self.above.path().to_str().unwrap();
        let image = self.image();
        run("mount", &["-o", "loop,errors=continue", image.as_str(), at])
    }

    fn detach(&self, how: &[&str]) -> bool {
        let at = self.above.path().to_str().unwrap();
        run("umount", &[how, &[at]].concat())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.detach(&["-l"]);
    }
}

/// A sync that fails: what is not confirmed is told as such, and once the device is well again
/// writes go on by themselves. What a device has lost for good the kernel may still remember;
/// when nothing is cached any more, all that was acknowledged is there, or the damage is told.
#[tokio::test]
async fn a_sync_that_fails_is_not_acknowledged_and_passes() {
    let Some(device) = Device::new("6m") else {
        eprintln!("skipped: no device can be made here");
        return;
    };
    let store = sqlite::open(device.above.path()).await.unwrap();
    let mut stored = Vec::new();
    let mut refused = None;
    for n in 0..100 {
        let key = format!("/k/{n:03}");
        let value = Bytes::from(vec![b'x'; 200_000]);
        match store.put(&key, value, Expect::Absent).await {
            Ok(entry) => stored.push(entry),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(
        matches!(&refused, Some(Error::Unavailable(why)) if why.contains("disk I/O error")),
        "{refused:?}"
    );
    assert!(stored.len() > 3, "{}", stored.len());
    let again = store.put("/l", "1".into(), Expect::Absent).await;
    assert!(
        matches!(again, Ok(_) | Err(Error::Unavailable(_))),
        "{again:?}"
    );

    assert!(mount("remount,size=64m", device.below.0.path()));
    let after = store.put("/after", "1".into(), Expect::Absent).await;
    stored.push(after.expect("the next write finds a device that works"));
    let last = stored.last().unwrap().modified;
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let mut seen = Revision(1);
    while seen < last {
        if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
            assert_eq!(change.revision().0, seen.0 + 1);
            seen = change.revision();
        }
    }
    drop(watch);
    store.close().await;
    // Read from the device, and not from what the kernel remembers of it.
    assert!(device.detach(&[]) && device.attach());
    let store = match sqlite::open(device.above.path()).await {
        Ok(store) => store,
        Err(Error::Corrupt(why)) => return eprintln!("the device lost a page: {why}"),
        Err(other) => panic!("{other}"),
    };
    for entry in &stored {
        let (found, _) = store.get(&entry.key).await.unwrap();
        assert_eq!(found.as_ref(), Some(entry));
    }
    store.close().await;
}

/// Damage that comes while the store is open: what is there is told from it, and is never
/// taken for an absence.
#[tokio::test]
async fn damage_that_comes_later_is_told_and_is_no_absence() {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    let keys: Vec<String> = (0..400).map(|n| format!("/k/{n:03}")).collect();
    for key in &keys {
        let value = Bytes::from(vec![b'x'; 100_000]);
        store.put(key, value, Expect::Absent).await.unwrap();
    }
    // All of it into the database, and nothing of it into the new one's cache.
    store.close().await;
    let store = sqlite::open(directory.path()).await.unwrap();
    let file = directory.path().join(sqlite::FILE);
    let size = std::fs::metadata(&file).unwrap().len();
    let page = vec![0xA5; 8192];
    let damaged = std::fs::File::options().write(true).open(&file).unwrap();
    for at in size / 2 / 8192..size / 8192 {
        damaged.write_all_at(&page, at * 8192).unwrap();
    }
    let mut told = 0;
    for key in &keys {
        match store.get(key).await {
            Ok((found, _)) => assert!(found.is_some(), "{key}"),
            Err(Error::Corrupt(_)) => told += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(told > 50, "{told}");
    let list = store.range("/k/", None, None, None).await;
    let whole = async {
        let mut after = list?.entries.last().map(|entry| entry.key.clone());
        while let Some(last) = after {
            let page = store.range("/k/", Some(&last), None, None).await?;
            after = page.entries.last().map(|entry| entry.key.clone());
        }
        Ok::<_, Error>(())
    };
    let failure = whole.await.unwrap_err();
    assert!(matches!(failure, Error::Corrupt(_)), "{failure}");
    store.close().await;
}

#[tokio::test]
async fn a_full_volume_refuses_writes_and_recovers() {
    let Some(volume) = Volume::new("6m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let store = sqlite::open(volume.0.path()).await.unwrap();
    let mut stored = Vec::new();
    let mut refused = None;
    for n in 0..200 {
        let value = Bytes::from(vec![b'x'; 100_000]);
        match store
            .put(&format!("/k/{n:03}"), value, Expect::Absent)
            .await
        {
            Ok(entry) => stored.push(entry),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(
        matches!(&refused, Some(Error::Unavailable(why)) if why.contains("full")),
        "{refused:?}"
    );
    assert!(stored.len() > 10);
    // Reads go on, and nothing that was acknowledged is missing.
    for entry in &stored {
        let (found, _) = store.get(&entry.key).await.unwrap();
        assert_eq!(found.as_ref(), Some(entry));
    }
    // It stays full, and says so; small writes may still find room.
    let mut again = Ok(());
    for n in 0..40 {
        let value = Bytes::from(vec![b'x'; 400_000]);
        let put = store.put(&format!("/l/{n}"), value, Expect::Absent).await;
        again = again.and(put.map(|_| ()));
    }
    assert!(matches!(again, Err(Error::Unavailable(_))), "{again:?}");

    assert!(mount("remount,size=64m", volume.0.path()));
    let after = store.put("/after", "1".into(), Expect::Absent).await;
    let after = after.expect("the next write finds the room");
    // Every change once and in order, those of refused commits not among them unless
    // they stand.
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let mut seen = Revision(1);
    while seen < after.modified {
        if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
            assert_eq!(change.revision().0, seen.0 + 1);
            seen = change.revision();
            let (standing, _) = store.get(change.key()).await.unwrap();
            assert_eq!(standing.map(|entry| entry.modified), Some(seen));
        }
    }
    store.close().await;
    let store = sqlite::open(volume.0.path()).await.unwrap();
    assert!(store.get("/after").await.unwrap().0.is_some());
    store.close().await;
}

/// A log that somebody reads all the time never comes to a moment in which it could begin
/// anew by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(
    clippy::disallowed_methods,
    reason = "the test owns the tasks that it starts"
)]
async fn the_log_is_bounded_while_somebody_reads() {
    const MIB: usize = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite::open(directory.path()).await.unwrap();
    for n in 0..32 {
        let value = Bytes::from(vec![b'x'; MIB]);
        let key = format!("/k/{n:02}");
        store.put(&key, value, Expect::Absent).await.unwrap();
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let policy = storage::compact::Policy {
        max_bytes: 32 * MIB as u64,
        ..Default::default()
    };
    let mut tasks = vec![tokio::spawn(storage::compact::run(
        store.clone(),
        policy,
        stop.clone(),
    ))];
    for _ in 0..3 {
        let (store, stop) = (store.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut at = store.revision().await.unwrap();
            let mut after: Option<String> = None;
            while !stop.is_cancelled() {
                let page = store.range("/k/", after.as_deref(), None, Some(at)).await;
                after = match page {
                    Ok(page) => {
                        let last = page.entries.last().filter(|_| page.more);
                        last.map(|entry| entry.key.clone())
                    }
                    Err(Error::Compacted { .. }) => {
                        at = store.revision().await.unwrap();
                        None
                    }
                    Err(other) => panic!("{other}"),
                };
            }
        }));
    }
    let mut expect = Expect::Absent;
    let (mut largest, mut slowest) = (0, Duration::ZERO);
    for _ in 0..300 {
        let began = std::time::Instant::now();
        let value = Bytes::from(vec![b'y'; MIB]);
        let entry = store.put("/large", value, expect).await.unwrap();
        expect = Expect::At(entry.modified);
        slowest = slowest.max(began.elapsed());
        let log = std::fs::metadata(directory.path().join("steward.db-wal"));
        largest = largest.max(log.unwrap().len());
    }
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(largest < 128 * MIB as u64, "{largest}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    store.close().await;
}
