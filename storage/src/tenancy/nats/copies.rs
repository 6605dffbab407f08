//! How many copies there are of a tenant's data.

use crate::tenancy::Claim;

/// How many copies of its data a tenant gets in a NATS with so many endpoints: three servers
/// and more are a cluster.
pub fn replicas(endpoints: usize) -> usize {
    match endpoints {
        0..=2 => 1,
        _ => 3,
    }
}

/// How many copies kine has to ask for (`replicas` of its endpoint) of a tenant whose claim
/// this is: those that its bucket has, else those that it gets with so many endpoints.
pub fn copies(claim: &Claim, endpoints: usize) -> usize {
    claim.replicas.unwrap_or_else(|| replicas(endpoints))
}
