//! The kinds of databases.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::NameLimits;

/// A kind of database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Driver {
    /// etcd.
    #[default]
    #[serde(rename = "etcd")]
    Etcd,
    /// MySQL and MariaDB, through kine.
    MySQL,
    /// PostgreSQL, through kine.
    PostgreSQL,
    /// NATS JetStream, through kine.
    NATS,
    /// A value that this version does not know.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl Driver {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::MySQL => "MySQL",
            Self::PostgreSQL => "PostgreSQL",
            Self::NATS => "NATS",
            Self::Unrecognized => "Unrecognized",
        }
    }

    /// Whether this version runs tenants on it, and moves their data from and to it. Rule 9:
    /// the change that builds a driver adds it here, and the Warning and the condition about it
    /// go.
    pub fn is_built(self) -> bool {
        matches!(
            self,
            Self::Etcd | Self::PostgreSQL | Self::MySQL | Self::NATS
        )
    }

    /// The drivers of [`Driver::is_built`], as a sentence has them.
    pub const BUILT: &str = "etcd, PostgreSQL, MySQL or NATS";

    /// Whether kine stands between a tenant's API server and the database.
    pub fn is_through_kine(self) -> bool {
        self != Self::Etcd
    }

    /// Whether a tenant's user proves by a password who it is. In etcd it does by its
    /// certificate. With NATS the password is what its key is made of.
    pub fn has_passwords(self) -> bool {
        self != Self::Etcd
    }

    /// The endpoints that are used. kine takes one of a MySQL: what it does not use is not
    /// used by anybody, so that what was tried is what pods get.
    pub fn endpoints(self, all: &[String]) -> &[String] {
        match self {
            Self::MySQL => &all[..all.len().min(1)],
            _ => all,
        }
    }

    /// How long names may be: a key of etcd takes any, the common name of a certificate
    /// has 64 characters at most; a name in PostgreSQL has 63 bytes, a database in MySQL
    /// 64 characters and a user 32.
    pub fn name_limits(self) -> NameLimits {
        let (schema, user) = match self {
            Self::MySQL => (63, 32),
            Self::PostgreSQL | Self::NATS => (63, 63),
            Self::Etcd | Self::Unrecognized => (255, 63),
        };
        NameLimits { schema, user }
    }
}
