//! What a tenant has in a datastore, and should have.

/// Whether a tenant's user has its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Exactly those that it should have.
    Exact,
    /// Those, and a password of before still lets somebody in for whom it was kept long
    /// enough. [`super::Tenancy::prepare`] ends that.
    Former,
    /// Those, given by a key of the administrator's of before. It takes nothing from the
    /// tenant; [`super::Tenancy::prepare`] gives them by the one of now.
    Outdated,
    /// Others; a sentence says how they differ. [`super::Tenancy::prepare`] repairs it.
    Differs(String),
    /// The claim stands, and the data is gone: its database was dropped, or is being
    /// restored. A sentence says what is missing. [`super::Tenancy::prepare`] makes an empty one
    /// in its place only where it is told that there is none to be kept.
    Lost(String),
    /// None: neither of the names is claimed. A database that has the tenant's data
    /// would know them.
    Unclaimed,
}

/// Whether a tenant has data that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It may begin with an empty database.
    New,
    /// It served before: in an empty database its API server would find no objects, and
    /// its nodes would end what they run.
    Kept,
}
