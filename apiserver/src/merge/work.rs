//! What the operations of one patch may take.

use serde_json::Value;

use super::inapplicable::Inapplicable;
use crate::object::{depth, length, weight};

/// Bytes that all `copy` operations of a patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Values that the operations of a patch may look at and push aside in lists, together.
/// Ten thousand operations on one large list would else be hours of work in a body. These
/// take a tenth of a second.
const MAX_STEPS: usize = 20_000_000;
/// As how many values a map counts: each stands somewhere else in memory.
const MAP: usize = 32;

/// What the operations of one patch took so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    copied: usize,
    /// What it takes in memory, which may be far more than its length says.
    weight: usize,
    steps: usize,
}

impl Work {
    pub(super) fn copy(&mut self, value: &Value) -> Result<(), Inapplicable> {
        self.copied = self.copied.saturating_add(length(value));
        let weight = weight::of(value, weight::TREE - self.weight);
        self.weight += weight.map_err(|weight::TooHeavy| {
            let why = "the copies would take too much memory";
            Inapplicable::Operation(why.to_owned())
        })?;
        if self.copied > MAX_COPIED {
            return Err(Inapplicable::Operation(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED}",
                self.copied
            )));
        }
        Ok(())
    }

    pub(super) fn step(&mut self, count: usize) -> Result<(), Inapplicable> {
        self.steps = self.steps.saturating_add(count);
        if self.steps > MAX_STEPS {
            return Err(Inapplicable::Operation(
                "the operations move too much in large lists or values".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether the document stays within its depth with the value at the path. Asked
    /// at every operation: copies that double the depth would else exhaust the stack
    /// before anybody looks at the result.
    pub(super) fn fits(&mut self, path: &str, value: &Value) -> Result<(), Inapplicable> {
        let above = path.matches('/').count();
        let left = depth::MAX_DEPTH.checked_sub(above);
        let mut steps = 0;
        let mut count = |value: &Value| steps += if value.is_object() { 1 + MAP } else { 1 };
        let deep = left.is_none_or(|left| depth::walk(value, left, &mut count));
        self.step(steps)?;
        match deep {
            true => Err(Inapplicable::TooDeep),
            false => Ok(()),
        }
    }
}
