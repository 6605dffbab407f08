//! How a tenant is reached.

pub mod address;
pub mod dns;
pub mod service;
