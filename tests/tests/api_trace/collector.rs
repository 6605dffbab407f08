//! A collector, and the spans that it was given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use tests::lab::directories::Directories;
use tests::lab::programs::COLLECTOR;

/// What the program writes of a span.
#[derive(Clone, Debug, Deserialize)]
pub struct Span {
    pub service: String,
    pub instance: String,
    pub trace: String,
    pub span: String,
    pub parent: String,
    pub name: String,
    pub kind: String,
    pub status: String,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    pub links: Option<Vec<serde_json::Value>>,
}

impl Span {
    /// An attribute, or nothing.
    pub fn says(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// Names of attributes, those of OpenTelemetry's conventions for HTTP apart.
    pub fn keys(&self) -> Vec<&str> {
        self.attributes.keys().map(String::as_str).collect()
    }
}

/// The program; it ends with this.
pub struct Collector {
    child: Child,
    file: PathBuf,
    /// Where it listens on this machine, whatever network one is in.
    pub socket: PathBuf,
    /// Where it listens on every address.
    pub port: u16,
}

impl Collector {
    /// Starts it with files in `directory`.
    pub fn start(directory: &Path) -> Self {
        let directories = Directories::from_environment().unwrap();
        {
            let _lock = directories.lock_cache(&mut |_| {}).unwrap();
            let say = &mut |line: &str| println!("{line}");
            COLLECTOR.build(&directories, say).unwrap();
        }
        let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (file, socket) = (directory.join("spans"), directory.join("collector"));
        let child = Command::new(COLLECTOR.path(&directories, "collector"))
            .arg(&file)
            .arg(format!("unix={}", socket.display()))
            .arg(format!("tcp=0.0.0.0:{port}"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            file,
            socket,
            port,
        }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let spans = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        spans.collect()
    }

    /// Ends it: nobody listens any more.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}
