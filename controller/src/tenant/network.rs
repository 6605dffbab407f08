//! How a tenant is reached.

pub mod dns;
pub mod exposure;
pub mod names;
pub mod ranges;
pub mod service;
