//! Events as lines, in a file or on standard output.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::event;
use super::rotation::Rotation;

/// See the module. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log(Arc<Mutex<Out>>);

/// Where lines go.
#[derive(Debug)]
pub enum Out {
    Stdout,
    File(Rotation),
}

impl Log {
    pub fn new(out: Out) -> Self {
        Log(Arc::new(Mutex::new(out)))
    }

    /// Writes events, one a line, on a thread that may wait for the disk.
    ///
    /// # Errors
    /// Why they may not be there.
    pub async fn write(&self, events: &[Bytes]) -> Result<(), String> {
        let mut lines = Vec::new();
        events
            .iter()
            .for_each(|event| event::line(event, &mut lines));
        let out = self.0.clone();
        let written = tokio::task::spawn_blocking(move || out.lock().write(&lines));
        match written.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Out {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        match self {
            // Whole lines at once: other lines come from elsewhere.
            Out::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Out::File(file) => file.write(lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::super::rotation::tests::keeping;
    use super::*;

    /// R9.12.
    #[tokio::test]
    async fn events_become_lines_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/audit.log");
        let log = Log::new(Out::File(keeping(&path, 0, 0).unwrap()));
        let one = event().encode();
        log.write(&[one.clone(), one.clone()]).await.unwrap();
        log.write(&[one]).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["kind"], "Event");
            assert_eq!(event["apiVersion"], "audit.k8s.io/v1");
        }
    }

    /// A disk that is full loses events and says so; it leaves no half lines.
    #[tokio::test]
    async fn what_cannot_be_written_is_told() {
        let full = std::path::Path::new("/dev/full");
        let log = Log::new(Out::File(keeping(full, 0, 0).unwrap()));
        let told = log.write(&[event().encode()]).await.unwrap_err();
        assert!(told.contains("No space left"), "{told}");
    }
}
