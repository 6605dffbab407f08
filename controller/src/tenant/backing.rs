//! What holds a tenant's data.

pub mod settings;
pub mod store;
