//! A file that is renamed when it is large, as kube-apiserver's is: `audit.log` becomes
//! `audit-2030-01-01T00-00-00.000.log`, and old ones are removed by age and number.
//!
//! Guarantee: what is said to be written is in a file that has the name. One that somebody
//! removes or renames is made anew at the next line.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use apiservice::clock::Clock;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Of the time in the name of an old file, in UTC.
const WRITTEN: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const READ: &str = "%Y-%m-%dT%H-%M-%S%.f";

/// What is kept. 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Bytes of the file.
    pub size: u64,
    pub backups: usize,
    pub days: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Rotation {
    path: PathBuf,
    keep: Keep,
    clock: Clock,
    file: File,
    /// Bytes in it.
    size: u64,
    begin: fn(&Path) -> io::Result<File>,
}

impl Rotation {
    /// Opens the file, and makes it and its directory if they are not there. Nobody else may
    /// read them.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(path: &Path, keep: Keep, clock: Clock) -> io::Result<Self> {
        let file = begin(path)?;
        Ok(Rotation {
            path: path.to_owned(),
            keep,
            clock,
            size: file.metadata()?.len(),
            file,
            begin,
        })
    }

    /// Appends whole lines. Those that would make the file too large begin the next one; a
    /// line that is larger than a file may be has one for itself.
    ///
    /// # Errors
    /// What could not be written leaves no half line behind, where that can be helped. Where
    /// there is no file of the name, and none can be made, nothing is written.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.look()?;
        if self.fits(lines.len()) {
            return self.append(lines);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if !self.fits(line.len()) {
                self.rotate()?;
            }
            self.append(line)?;
        }
        Ok(())
    }

    fn fits(&self, bytes: usize) -> bool {
        self.keep.size == 0 || self.size == 0 || self.size + bytes as u64 <= self.keep.size
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Not of a pipe or a device: those stay as they are.
                let _ = self.file.set_len(self.size);
                Err(error)
            }
        }
    }

    /// Makes a new file where the one that is written to has its name no more: nobody would
    /// find what is in it, and it is gone when the process ends.
    fn look(&mut self) -> io::Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(there) => {
                let ours = self.file.metadata()?;
                if (there.dev(), there.ino()) != (ours.dev(), ours.ino()) {
                    return self.open_anew();
                }
                // Somebody may have emptied it.
                self.size = there.len();
                Ok(())
            }
            Err(error) if is_missing(&error) => self.open_anew(),
            // It may well be there.
            Err(_) => Ok(()),
        }
    }

    fn open_anew(&mut self) -> io::Result<()> {
        let file = (self.begin)(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    /// Begins a new file. One that cannot be renamed goes on: it is better too large than not
    /// there.
    ///
    /// # Errors
    /// When there is no file of the name any more.
    fn rotate(&mut self) -> io::Result<()> {
        match self.rename() {
            Ok(()) => {}
            // Somebody else has.
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot rename the file of audit events");
                return Ok(());
            }
        }
        // Before old ones are removed: until there is a new file this one is the last.
        self.open_anew()?;
        if let Err(error) = self.prune() {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove old files of audit events");
        }
        Ok(())
    }

    fn rename(&self) -> io::Result<()> {
        let mut at = self.clock.now();
        let mut backup = self.backup(at);
        while backup.exists() {
            at += SignedDuration::from_millis(1);
            backup = self.backup(at);
        }
        std::fs::rename(&self.path, backup)
    }

    fn backup(&self, at: Timestamp) -> PathBuf {
        let (stem, extension) = self.names();
        let name = format!("{stem}-{}{extension}", at.strftime(WRITTEN));
        self.path.with_file_name(name)
    }

    /// The name of the file in two parts: `audit` and `.log`.
    fn names(&self) -> (String, String) {
        let text =
            |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let extension = text(self.path.extension());
        let extension = extension.map_or(String::new(), |extension| format!(".{extension}"));
        (text(self.path.file_stem()).unwrap_or_default(), extension)
    }

    fn prune(&self) -> io::Result<()> {
        let mut old = self.backups()?;
        old.sort_by(|(a, _), (b, _)| b.cmp(a));
        let days = SignedDuration::from_hours(24 * i64::from(self.keep.days));
        let now = self.clock.now();
        for (position, (at, path)) in old.into_iter().enumerate() {
            let many = self.keep.backups > 0 && position >= self.keep.backups;
            let aged = self.keep.days > 0 && now.duration_since(at) > days;
            if many || aged {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The old files, by the time in their names. What has another name is somebody else's.
    fn backups(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (stem, extension) = self.names();
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(extension.as_str()))
                .and_then(|time| DateTime::strptime(READ, time).ok())
                .and_then(|time| TimeZone::UTC.to_timestamp(time).ok());
            found.extend(time.map(|time| (time, entry.path())));
        }
        Ok(found)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Opens a file to append to it, and makes it and its directory if they are not there.
fn begin(path: &Path) -> io::Result<File> {
    let directory = path.parent();
    if let Some(directory) = directory.filter(|parent| !parent.as_os_str().is_empty()) {
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700).create(directory)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    pub(crate) fn keeping(path: &Path, size: u64, backups: usize) -> io::Result<Rotation> {
        let clock = Clock::new(|| "2030-01-01T00:00:00Z".parse().unwrap());
        let keep = Keep {
            size,
            backups,
            days: 0,
        };
        Rotation::open(path, keep, clock)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// R9.12.
    #[test]
    fn a_file_is_renamed_before_it_is_too_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut file = keeping(&path, 10, 0).unwrap();
        file.write(b"aaa\nbbb\n").unwrap();
        file.write(b"cc\ndd\n").unwrap();
        file.write(b"longer than a file may be\ne\n").unwrap();
        let old = |n| format!("audit-2030-01-01T00-00-00.00{n}.log");
        let expected = [old(0), old(1), old(2), "audit.log".to_owned()];
        assert_eq!(names(directory.path()), expected);
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let read = expected.each_ref().map(|name| read(name));
        let expected = [
            "aaa\nbbb\n",
            "cc\ndd\n",
            "longer than a file may be\n",
            "e\n",
        ];
        assert_eq!(read, expected);
        // What is there already counts.
        let mut file = keeping(&path, 10, 0).unwrap();
        file.write(b"123456789\n").unwrap();
        assert_eq!(names(directory.path()).len(), 5);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// R9.12: maxbackup and maxage; files of others stay.
    #[test]
    fn old_files_are_removed_by_number_and_age() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        for other in [
            "audit-notes.log",
            "audit-2030-01-01T00-00-00.000.txt",
            "other.log",
        ] {
            std::fs::write(directory.path().join(other), "").unwrap();
        }
        let hours = Arc::new(AtomicI64::new(0));
        let of = hours.clone();
        let clock = Clock::new(move || {
            let start: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
            start + SignedDuration::from_hours(of.load(Ordering::Relaxed))
        });
        let keep = Keep {
            size: 1,
            backups: 3,
            days: 2,
        };
        let mut file = Rotation::open(&path, keep, clock).unwrap();
        for hour in 0..6 {
            hours.store(hour, Ordering::Relaxed);
            file.write(b"a\n").unwrap();
        }
        let ours = || names(directory.path()).len() - 3;
        assert_eq!(ours(), 4);
        hours.store(4 + 48, Ordering::Relaxed);
        file.write(b"a\n").unwrap();
        let kept = names(directory.path());
        let kept: Vec<_> = kept
            .iter()
            .filter(|name| name.starts_with("audit-20"))
            .collect();
        assert_eq!(kept.len(), 4, "{kept:?}");
        hours.store(6 + 48, Ordering::Relaxed);
        file.write(b"a\n").unwrap();
        assert_eq!(ours(), 3, "{:?}", names(directory.path()));
    }

    #[test]
    fn a_file_that_cannot_be_renamed_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        // With the time in it, its name would be longer than names may be.
        let path = directory.path().join("a".repeat(250));
        let mut file = keeping(&path, 4, 0).unwrap();
        file.write(b"aaa\n").unwrap();
        file.write(b"bbb\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "aaa\nbbb\n");
        // Somebody else was faster.
        let path = directory.path().join("inner/audit.log");
        let mut file = keeping(&path, 4, 0).unwrap();
        file.append(b"aaa\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        file.rotate().unwrap();
        file.append(b"bbb\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bbb\n");
    }

    /// Nobody finds what is in a file without a name.
    #[test]
    fn a_file_that_is_removed_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("inner/audit.log");
        for size in [0, 4] {
            let mut file = keeping(&path, size, 0).unwrap();
            let mut written = |line: &str| {
                file.write(line.as_bytes()).unwrap();
                std::fs::read_to_string(&path).unwrap()
            };
            assert!(written("aaa\n").ends_with("aaa\n"));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(written("bbb\n"), "bbb\n");
            std::fs::rename(&path, directory.path().join("moved")).unwrap();
            std::fs::write(&path, "").unwrap();
            assert_eq!(written("ccc\n"), "ccc\n");
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
            assert_eq!(written("ddd\n"), "ddd\n");
            std::fs::write(&path, "").unwrap();
            assert_eq!(written("eee\n"), "eee\n");
        }
    }

    /// What goes into no file of the name is not said to be written.
    #[test]
    fn a_file_that_cannot_be_begun_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut file = keeping(&path, 4, 1).unwrap();
        file.write(b"aaa\n").unwrap();
        file.begin = |_| Err(io::ErrorKind::PermissionDenied.into());
        for _ in 0..2 {
            let error = file.write(b"bbb\n").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        file.begin = begin;
        file.write(b"ccc\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ccc\n");
        let old = directory.path().join("audit-2030-01-01T00-00-00.000.log");
        assert_eq!(std::fs::read_to_string(old).unwrap(), "aaa\n");
        assert_eq!(names(directory.path()).len(), 2);
    }
}
