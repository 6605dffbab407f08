//! What is said of an import.

use std::fmt;

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {error}")]
    Api {
        what: String,
        #[source]
        error: Box<kube::Error>,
    },
    #[error("{0}")]
    Refused(String),
    #[error("{0} of {1} objects are refused; see above")]
    Some(usize, usize),
}

/// What becomes, or would become, of one object.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub about: String,
    pub word: &'static str,
    pub more: Vec<String>,
}

impl Told {
    pub const REFUSED: &str = "refused";

    pub fn new(about: impl Into<String>, word: &'static str, more: Vec<String>) -> Self {
        let about = about.into();
        Self { about, word, more }
    }

    pub fn refused(about: impl Into<String>, why: Vec<String>) -> Self {
        Self::new(about, Self::REFUSED, why)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.word)?;
        self.more
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}
