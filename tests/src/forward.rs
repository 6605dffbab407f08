//! A Service of a cluster whose network is out of reach, on a port of this
//! machine: `kubectl port-forward`, as long as the value lives.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::chart::Access;
use crate::lab::process::tail;

/// A running `kubectl port-forward`. It leads to one pod, and ends with that.
#[derive(Debug)]
pub struct Forward {
    kubectl: Child,
    address: String,
    /// It is written to with every connection: a pipe would be full one day.
    output: tempfile::TempDir,
}

impl Forward {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn start(
        access: &Access,
        namespace: &str,
        service: &str,
        port: u16,
    ) -> std::io::Result<Self> {
        let output = tempfile::tempdir()?;
        let log = File::create(output.path().join("log"))?;
        let kubectl = access
            .command()
            .args(["--namespace", namespace, "port-forward"])
            .args([&format!("service/{service}"), &format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut forward = Self {
            kubectl,
            address: String::new(),
            output,
        };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) && forward.runs() {
            if let Some(address) = forward.listens() {
                forward.address = address;
                return Ok(forward);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = tail(&forward.log(), 20);
        Err(std::io::Error::other(format!(
            "kubectl port-forward service/{service}: {said}"
        )))
    }

    /// Host and port on this machine.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it still leads to its pod.
    pub fn runs(&mut self) -> bool {
        matches!(self.kubectl.try_wait(), Ok(None))
    }

    fn log(&self) -> PathBuf {
        self.output.path().join("log")
    }

    fn listens(&self) -> Option<String> {
        let said = std::fs::read_to_string(self.log()).ok()?;
        let line = said.lines().find(|line| line.contains("127.0.0.1:"))?;
        let address = line.strip_prefix("Forwarding from ")?;
        Some(address.split_once(" -> ")?.0.to_owned())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
