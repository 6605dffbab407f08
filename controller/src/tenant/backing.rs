//! What holds a tenant's data.

pub mod backed;
pub mod beside;
pub mod claim;
pub mod drivers;
pub mod facts;
pub mod kine;
pub mod limits;
pub mod moving;
pub mod overrides;
pub mod password;
pub mod relay;
pub mod settings;
pub mod store;
pub mod wired;
pub mod wiring;

#[cfg(test)]
mod tests;
