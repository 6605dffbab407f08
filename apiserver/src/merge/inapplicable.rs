//! Why a patch does not apply.

use apiservice::told;

use crate::object::depth;

/// What is wrong with an operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inapplicable {
    /// It does not fit the document; the client is not told how (R3.56).
    #[error("{0}")]
    Operation(String),
    /// The document is not what it was tested to be.
    #[error("testing value {0} failed: test failed")]
    Untrue(String),
    /// The document would be nested deeper than [`depth::MAX_DEPTH`].
    #[error("{}", depth::message())]
    TooDeep,
}

impl Inapplicable {
    /// With a text that can be told.
    pub(super) fn shortened(self) -> Self {
        match self {
            Self::Operation(why) => Self::Operation(told::cut(why, told::MAX_TEXT)),
            Self::Untrue(path) => Self::Untrue(told::cut(path, told::MAX_PATH)),
            Self::TooDeep => Self::TooDeep,
        }
    }

    /// With what it is about.
    pub(super) fn told(self, tell: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Operation(why) => Self::Operation(tell(why)),
            other => other,
        }
    }
}

pub(super) fn missing(what: String) -> Inapplicable {
    Inapplicable::Operation(format!("{what}: missing value"))
}
