//! DataStores in their fields and in their plans.

mod fields;
mod plans;
pub(crate) mod testing;
