//! Tenants' datastores: names, rights and data of tenants in the databases that
//! their own API servers use.
//!
//! # Flow
//! [`Tenancy::prepare`] claims the names first, under keys that only the
//! administrator can write, and then creates what the tenant needs (rule 17).
//! On deletion: [`Tenancy::revoke`], [`Tenancy::drop_data`],
//! [`Tenancy::remaining`] until it says 0, [`Tenancy::release`] (rule 18). How a tenant's data
//! moves to another datastore is in [`crate::moving`]; only that reads contents, through
//! [`Tenancy::contents`].
//!
//! # Guarantees
//! * Every call can be repeated; a repetition that finds nothing to do writes
//!   nothing.
//! * Every call ends by the deadline of its [`Connection`], give or take the
//!   number of steps it consists of.
//! * Nothing is granted, revoked or deleted under a claim of another uid.

mod access;
mod claim;
mod connect;
mod connection;
pub mod contents;
mod driver;
mod error;
pub mod etcd;
mod health;
pub mod mysql;
pub mod nats;
mod password;
pub mod postgresql;
mod sql;
mod tls;

pub use access::{Access, Data};
pub use claim::{Claim, Stage};
pub(crate) use claim::{not_to_be_turned, too_fast, unclaimed};
pub use connect::connect;
pub use connection::Connection;
pub use driver::Tenancy;
pub use error::TenancyError;
pub use health::{Alarm, Compaction, Health};
pub use password::Password;
