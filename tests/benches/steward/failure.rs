//! Why a benchmark has no result.

use tests::{chart, lab};

/// Shown to a person as it is.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Lab(#[from] lab::Error),
    #[error(transparent)]
    Chart(#[from] chart::Error),
    #[error("{action}: {source}")]
    Request {
        action: String,
        source: Box<kube::Error>,
    },
    #[error("{action}: {source}")]
    Io {
        action: String,
        source: std::io::Error,
    },
    #[error("{action}: {source}")]
    Json {
        action: String,
        source: serde_json::Error,
    },
    #[error("a task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Said(String),
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Adds what was being done to an error.
pub trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Failure::Io {
            action: action(),
            source,
        })
    }
}

impl<T> Doing<T> for std::result::Result<T, kube::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Failure::Request {
            action: action(),
            source: Box::new(source),
        })
    }
}

impl<T> Doing<T> for std::result::Result<T, serde_json::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Failure::Json {
            action: action(),
            source,
        })
    }
}
