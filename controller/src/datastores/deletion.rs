//! The end of a DataStore: it goes with the last tenant that uses it, and when nothing of
//! tenants is left in it.

use apiservice::names;

use crate::datastores::plan::{Plan, Step, has_finalizer};
use crate::datastores::world::World;

/// Plans the end of a DataStore.
pub fn plan(world: &World, plan: &mut Plan) {
    match awaited(world) {
        Some(why) => plan.push(Step::Wait(why)),
        None if has_finalizer(world) => plan.push(Step::ReleaseFinalizer),
        None => {}
    }
}

/// What its deletion waits for, in a sentence.
pub fn awaited(world: &World) -> Option<String> {
    if !world.used_by.is_empty() {
        return Some("It is being deleted, and goes with the last tenant that uses it.".to_owned());
    }
    if world.pending().is_empty() {
        return None;
    }
    Some(format!(
        "It is being deleted, and goes when the data of tenants that have left is removed. If the \
         database is gone for good, remove its finalizer {}.",
        names::FINALIZER_DATA_STORE
    ))
}
