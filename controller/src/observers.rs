//! What asks databases, again and again: how each of them is, and what a tenant's user may do
//! there. What they find are facts.

pub mod access;
pub mod beside;
pub mod health;
