//! Everything that speaks to a database.
//!
//! Two families live here. The **log** of API objects ([`Store`]) is an
//! ordered, watchable, compactable log of bytes. **Tenant datastores**
//! ([`tenancy`]) are the databases in which tenants' own API servers keep their
//! state, of which this crate manages rights and names, and whose contents it
//! moves from one to another ([`moving`]).
//!
//! The crate knows nothing of Kubernetes or HTTP: keys are strings that begin
//! with `/`, values are bytes.
//!
//! # Guarantees of the log
//!
//! * One revision for each change, larger than every revision before it, in the
//!   order of commits; never used twice, whatever was deleted, however the
//!   process ended.
//! * A write that was answered is on disk (rule 23).
//! * A write names the version that it replaces ([`Expect`]); there is no blind
//!   write.
//! * A watch gives each change after its starting point once and in order, or
//!   ends with an [`Error`] that says why.
//! * What cannot be read is an [`Error`], never an absence (rule 3).
//! * On disk a value is as it was put, or encrypted ([`seal`]).

mod log;
pub mod moving;
pub mod seal;
pub mod sqlite;
pub mod tenancy;

pub use log::{
    Change, Entry, Error, Expect, Held, Identity, PAGE_BYTES, Page, REPLAY_BYTES, RING_BYTES,
    Revision, Store, Watch, WatchItem, compact, failing, memory,
};
