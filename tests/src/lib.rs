//! The judges: a real cluster to test on, and what several tests share.
//!
//! The lab is all that is compiled without the feature `judges`.

#[cfg(feature = "judges")]
pub mod cases;
#[cfg(feature = "judges")]
pub mod chart;
#[cfg(feature = "judges")]
pub mod forward;
#[cfg(feature = "judges")]
pub mod installed;
pub mod lab;
#[cfg(feature = "judges")]
pub mod managed;
#[cfg(feature = "judges")]
pub mod served;
