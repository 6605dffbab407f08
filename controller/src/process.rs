//! What runs the process: who leads, what is worked on next, when, and how it is told.

pub mod clock;
pub mod contested;
pub mod health;
pub mod lanes;
pub mod lease;
pub mod metrics;
pub mod observers;
pub mod places;
pub mod queue;
pub mod shares;
pub mod spans;
pub mod timing;
pub mod turns;
