//! What is known of databases, and of what tenants have in them: the words in which observers
//! say it, and plans and conditions read it.

use std::sync::Arc;

use apiservice::pki::Pair;
use storage::tenancy::{Claim, Password};

/// What is known about the tenant's DataStore.
#[derive(Clone, Debug, Default)]
pub struct StoreFacts {
    /// Certificates and credentials that the DataStore's references lead to.
    pub credentials: CredentialsFact,
    /// The last answer of the database; `None` until it was asked.
    pub health: Option<Result<StoreHealth, StoreProblem>>,
    /// Whether the settings that the DataStore has now were found to work; `None` until
    /// they were tried. Once they worked, that stands.
    pub trial: Option<Result<(), StoreProblem>>,
    /// What the tenant's user may do there; `None` until it was asked.
    pub access: Option<AccessFact>,
    /// The password with which the tenant's user was let in last, where it has one.
    pub password: Option<Password>,
    /// The claim that a database has for this tenant's uid; `None` until it was
    /// found. Nothing else says which names pods are given (rule 17).
    pub held: Option<Held>,
    /// While the tenant is deleted: why its clean-up does not go through, whatever the
    /// database says of itself.
    pub cleanup: Option<StoreProblem>,
    /// While the tenant is deleted: no datastore that could be asked has a claim of it.
    pub unclaimed: bool,
}

/// A DataStore that is not the one that status and spec name: those who may write
/// status could name another than the one that has the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its name.
    pub data_store: String,
    /// Whether it can be asked, else why not; `None` if that is not known yet.
    pub reach: Option<Result<(), String>>,
}

/// A claim that was found in a database under the tenant's uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Name of the DataStore of that database.
    pub data_store: String,
    /// The claim as it stands there.
    pub claim: Claim,
}

/// The material behind a DataStore.
#[derive(Clone, Debug, Default)]
pub enum CredentialsFact {
    /// The caches are not filled yet.
    #[default]
    Unknown,
    /// Everything that the DataStore refers to was found and read.
    Known(Arc<StoreCredentials>),
    /// A referenced Secret or key is not there or cannot be read.
    Missing {
        /// What is wrong, for example `Secret steward-system/etcd-certs does not exist`.
        what: String,
        /// What to do, as it continues that sentence after a colon.
        remedy: String,
    },
}

/// Certificates of a DataStore, resolved from its references.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreCredentials {
    /// `host:port`, without a scheme.
    pub endpoints: Vec<String>,
    /// PEM of the authority that signs the database's serving certificate.
    pub authority: String,
    /// PEM of that authority's key; etcd tenants' certificates are signed by it.
    pub authority_key: Option<String>,
    /// PEM of our own client certificate and its key, where tenants of this driver are
    /// given a copy: where they prove by a password who they are.
    pub client: Option<Pair>,
}

/// The key never appears in a log.
impl std::fmt::Debug for StoreCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("endpoints", &self.endpoints)
            .field(
                "authority_key",
                &self.authority_key.as_ref().map(|_| "present"),
            )
            .finish_non_exhaustive()
    }
}

/// A database that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Its version as it reports it.
    pub version: String,
    /// Things that work but should not stay so (too old, nobody compacts), in
    /// the words of a condition.
    pub warnings: Vec<String>,
}

/// Why a database cannot serve its tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreProblem {
    /// What kind of trouble it is.
    pub kind: StoreProblemKind,
    /// The database's or the network's own words.
    pub message: String,
}

/// What kind of trouble a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreProblemKind {
    /// No connection, or no answer within the deadline.
    Unreachable,
    /// The certificate or password is refused.
    Unauthenticated,
    /// The database takes no more writes (etcd alarm NOSPACE).
    Full,
    /// Authentication is off: nothing would separate tenants.
    Insecure,
    /// It answers, but not as a healthy database does.
    Unhealthy,
}

/// What the tenant's user may do in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFact {
    /// Exactly its own keys or tables.
    Granted,
    /// The claim is ours, but the user, role or grant is not there (any more).
    Revoked(String),
    /// The datastore knows nothing of the tenant.
    Unclaimed,
    /// The claim is there, and the data is not: a sentence about what is missing.
    Lost(String),
    /// Schema or user belong to another uid (rule 17).
    Taken {
        /// `namespace/name (uid)` of the owner as its claim names it.
        by: String,
    },
    /// The names may not be used at all (`root` and the like).
    Refused(String),
}

/// What one look at a datastore found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// Whether tenants can be served.
    pub health: Result<StoreHealth, StoreProblem>,
    /// Whether its version keeps tenants apart; why not (rule 21).
    pub separates_tenants: Result<(), String>,
    /// Who compacts it, once that is known.
    pub compacted: Option<CompactedBy>,
}

/// Who forgets old history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactedBy {
    /// The server or somebody else.
    Others,
    /// Nobody but the controller (rule 21).
    Us,
}

impl StoreReport {
    /// It cannot serve.
    pub fn failed(problem: StoreProblem) -> Self {
        Self {
            health: Err(problem),
            separates_tenants: Ok(()),
            compacted: None,
        }
    }
}

impl StoreFacts {
    /// Why nothing can be cleaned up in the database now.
    pub fn cleanup_problem(&self) -> Option<&StoreProblem> {
        let health = self.health.as_ref();
        let unwell = || health.and_then(|health| health.as_ref().err());
        self.cleanup.as_ref().or_else(unwell)
    }
}

impl AccessFact {
    /// Names were refused, which may be free another time.
    pub fn is_refused(&self) -> bool {
        matches!(self, AccessFact::Taken { .. } | AccessFact::Refused(_))
    }
}
