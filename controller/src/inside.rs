//! A tenant's own API: how it is reached, whether it works, and what is kept in it.
//!
//! What is kept in it goes the way of a pass: [`keep`] looks at the tenant, [`plan`]
//! says what is to be written, without I/O, and [`write`] writes it. [`probe`] only
//! finds out whether the tenant can be used.

mod coming;
pub mod connection;
mod coredns;
mod held;
mod identity;
pub mod keep;
mod konnectivity;
mod kube_proxy;
mod kubeadm;
mod objects;
mod plan;
pub mod probe;
mod rbac;
mod read_write_watch;
pub mod serving_certificates;
#[cfg(test)]
mod tests;
mod wanted;
mod ways;
mod write;
mod write_permissions;
