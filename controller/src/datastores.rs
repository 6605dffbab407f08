//! One DataStore: what its world looks like, the plan that follows from it, and what is told of
//! it. Of what a pass works with, only connections and memories are more than values.

pub mod cleanups;
pub mod credentials;
pub mod deletion;
pub mod drain;
pub mod health;
pub mod plan;
pub mod report;
pub mod setup;
#[cfg(test)]
pub(crate) mod tests;
pub mod world;

pub use plan::plan;
#[cfg(test)]
pub(crate) use tests::testing;
