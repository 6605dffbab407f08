//! What can go wrong in the lab, in words that say what to do.

use std::path::PathBuf;

/// An error of the lab. Its text is shown to a person as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, directory or process could not be handled.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A command ended with an error.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status in words.
        status: String,
        /// Its standard error, or its output when that is empty.
        output: String,
    },
    /// A program of the cluster ended or did not become ready.
    #[error("{program} {what}\nthe last lines of its log:\n{tail}\nall logs: {}", logs.display())]
    Program {
        /// Its name.
        program: String,
        /// What happened to it.
        what: String,
        /// The last 20 lines of its log.
        tail: String,
        /// The directory that holds all logs of the run.
        logs: PathBuf,
    },
    /// A request to the cluster failed.
    #[error("{action}: {source}")]
    Api {
        /// What was asked.
        action: String,
        /// The client's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine, or what the caller asked for, does not fit.
    #[error("{0}")]
    Refused(String),
}

/// Result of the lab's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds what was being done to a system error.
pub(crate) trait Doing<T> {
    /// Wraps the error; `action` is only called when there is one.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            action: action(),
            source,
        })
    }
}

impl<T> Doing<T> for std::result::Result<T, kube::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Api {
            action: action(),
            source: Box::new(source),
        })
    }
}
