//! The authorities, certificates and kubeconfigs of a tenant.

pub mod authorities;
pub mod certificates;
pub mod expiry;
pub mod kubeconfig;
pub mod terms;
