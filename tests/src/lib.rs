//! The judges: a real cluster to test on, and what several tests share.

pub mod chart;
pub mod forward;
pub mod installed;
pub mod lab;
pub mod served;
