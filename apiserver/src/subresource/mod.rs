//! Subresources, one a file.

pub mod kubeconfig;
pub mod scale;
pub mod status;
