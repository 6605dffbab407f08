//! Why a datastore did not do what it was asked.

/// Why a datastore did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenancyError {
    /// No answer, or a server that cannot answer now. Worth repeating.
    #[error("the datastore cannot be reached: {0}")]
    Unreachable(String),
    /// The server does not accept who we are, or we do not accept who it is.
    #[error("the datastore and the controller do not accept each other: {0}")]
    Unauthenticated(String),
    /// The server accepts reads and deletes only.
    #[error("the datastore is full: {0}")]
    NoSpace(String),
    /// Another tenant holds a name.
    #[error("{what} is claimed by tenant control plane {namespace}/{name} (uid {uid})")]
    SchemaTaken {
        /// Which name, for example `schema "a"`.
        what: String,
        /// Of the holder.
        uid: String,
        /// Of the holder.
        namespace: String,
        /// Of the holder.
        name: String,
    },
    /// The claim stands, and the data that has to be there is gone.
    #[error("{0}")]
    DataLost(String),
    /// It cannot be done as asked, now or later, unless somebody changes
    /// something. The sentence says what.
    #[error("{0}")]
    Refused(String),
    /// Anything else the server said.
    #[error("the datastore failed: {0}")]
    Other(String),
}
