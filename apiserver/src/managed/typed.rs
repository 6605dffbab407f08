//! Values of a type (R5.3): judged, taken apart, compared, merged and pruned. All of it is
//! pure, and recurses as deep as the values are, which is bounded where they are read.

mod atomics;
mod compare;
mod fieldset;
mod items;
mod merge;
mod prune;
mod reconcile;
mod validate;

pub use self::compare::Changes;
pub use self::validate::{Duplicates, Invalid};
