//! The management cluster, as the controller works with it.

pub mod kinds;
