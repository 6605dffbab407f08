//! Whom a request is from, and why a credential proves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(super) const ANONYMOUS: &str = "system:anonymous";

/// A user, as Kubernetes describes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub user: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The same with `system:authenticated`, for request headers too (R1.23).
    pub(super) fn complete(mut self) -> Self {
        let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
        if !self.groups.iter().any(known) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// By what a caller was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    FrontProxy,
    Certificate,
    Token,
    Nothing,
}

/// An authenticated request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Arc<Identity>,
    pub via: Via,
}

impl Caller {
    /// Somebody, by a credential of this kind.
    pub(super) fn new(identity: Identity, via: Via) -> Self {
        Caller {
            identity: Arc::new(identity.complete()),
            via,
        }
    }

    /// Who presented nothing.
    pub(super) fn anonymous() -> Self {
        let identity = Identity {
            user: ANONYMOUS.to_owned(),
            uid: None,
            groups: vec![UNAUTHENTICATED.to_owned()],
            extra: BTreeMap::new(),
        };
        Caller {
            identity: Arc::new(identity),
            via: Via::Nothing,
        }
    }

    /// Whether the caller has an identity. A front proxy may name nobody, too.
    pub fn is_somebody(&self) -> bool {
        let nobody = |group: &String| group == UNAUTHENTICATED;
        self.via != Via::Nothing
            && self.identity.user != ANONYMOUS
            && !self.identity.groups.iter().any(nobody)
    }
}

/// Why a credential proves nothing. Logged; the caller only learns "Unauthorized".
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("front proxy certificate {0:?} is not one of the allowed names")]
    Name(String),
    #[error("header {0} is not valid UTF-8")]
    Header(String),
    #[error("the token is not valid: {0}")]
    Token(String),
    #[error("the token could not be reviewed: {0}")]
    Review(String),
    #[error("too many tokens from there were not valid")]
    Source,
    #[error("too many requests wait for the review of this token")]
    Waiting,
}
