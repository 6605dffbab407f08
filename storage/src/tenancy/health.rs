//! What the administrator finds out about a datastore.

/// What the administrator sees of a datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// As the server says it, for example `3.6.15`.
    pub version: String,
    /// The newest revision; see [`super::Tenancy::compact_older_than`]. 0 where there is none.
    pub revision: u64,
    /// Whether the server checks who is asking. Without it there is no
    /// separation of tenants, and [`super::Tenancy::prepare`] refuses.
    pub authentication: bool,
    /// What the server raised.
    pub alarms: Vec<Alarm>,
    /// What this version lets tenants do that they must not: a sentence each.
    /// Empty is good (rule 21).
    pub gaps: Vec<String>,
    /// Bytes of the database file, or of all databases that the administrator may enter.
    pub size: u64,
    /// Bytes of it in use. The rest comes back by defragmentation.
    pub used: u64,
    /// Bytes at which the server stops writing, if it says so.
    pub quota: Option<u64>,
}

/// An alarm of the datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The quota is reached: reads and deletes only, until space was made, the
    /// database defragmented and the alarm disarmed.
    NoSpace,
    /// Members disagree about the data.
    Corrupt,
}

/// What an attempt to compact found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// It was done already, by the server itself or by someone else.
    ByOthers,
    /// Nobody had done it; this call did.
    ByUs,
    /// This driver's history is not ours to compact.
    NotOurs,
}
