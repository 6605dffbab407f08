//! How a tenant is reached.

pub mod dns;
pub mod exposure;
pub mod gateway;
pub mod ingress;
pub mod names;
pub mod ranges;
pub mod routes;
pub mod service;
