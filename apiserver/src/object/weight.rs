//! What a document takes in memory once it is a tree of values, and the bound on it.
//!
//! Bytes on the wire say little about it: `{"":0},` has seven and takes a hundred times as
//! much, for the smallest map is a node with room for eleven entries. So a body is weighed
//! before its tree is made, by the same reader ([`crate::decode::strict`]), which then keeps nothing,
//! and a stored object before it is read. [`crate::limits`] counts what is weighed here, and `tests/memory.rs` compares
//! it with what a process really takes.

use serde_json::Value;

/// Bytes that the tree of a body may take: room for a patch of ten thousand operations.
pub const BODY_TREE: usize = 12 * 1024 * 1024;
/// The same of a stored object without its status: room for 1.5 MiB of text and eight
/// thousand maps.
pub const TREE: usize = 8 * 1024 * 1024;
/// The same of a status.
pub const STATUS_TREE: usize = 3 * 1024 * 1024;

const VALUE: usize = size_of::<Value>();
/// Room for eleven entries, which is what the first one takes: the node of a B-tree.
const NODE: usize = 8 + 4 + 11 * (size_of::<String>() + VALUE) + 4;
/// A node that has others below it.
const INNER: usize = NODE + 12 * 8;
/// Entries that a node has at least, with the one that parts it from the next.
const FEWEST: usize = 6;
/// So many fit in a map's first node.
const FIRST: usize = 11;
/// An eighth more, for allocators have classes of sizes.
const CLASS: usize = 8;
/// Elements that a list has room for once it has one.
const LIST: usize = 4;

/// The tree would take more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooHeavy;

/// Adds up what a tree takes while it is read.
#[derive(Debug)]
pub struct Meter {
    sum: usize,
    most: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Meter::new(BODY_TREE)
    }
}

impl Meter {
    /// Up to so many bytes.
    pub fn new(most: usize) -> Self {
        Meter { sum: 0, most }
    }

    /// Whether it is more than it may be.
    pub(crate) fn exceeded(&self) -> bool {
        self.sum > self.most
    }

    pub(crate) fn weighed(&self) -> Result<usize, TooHeavy> {
        match self.exceeded() {
            true => Err(TooHeavy),
            false => Ok(self.sum),
        }
    }

    fn add(&mut self, bytes: usize) -> Result<(), TooHeavy> {
        self.sum = self.sum.saturating_add(bytes);
        match self.exceeded() {
            true => Err(TooHeavy),
            false => Ok(()),
        }
    }

    /// A text of so many bytes.
    pub(crate) fn text(&mut self, length: usize) -> Result<(), TooHeavy> {
        match length {
            0 => Ok(()),
            _ => self.add(length + length / 4 + 16),
        }
    }

    /// One more element of a list that has so many. A list doubles and is copied; what it
    /// was before is not at once of use to others.
    pub(crate) fn element(&mut self, before: usize) -> Result<(), TooHeavy> {
        match before {
            0 => self.add(LIST * VALUE),
            _ if before >= LIST && before.is_power_of_two() => self.add(3 * before * VALUE),
            _ => Ok(()),
        }
    }

    /// One more entry of a map that has so many, without its key.
    pub(crate) fn entry(&mut self, before: usize) -> Result<(), TooHeavy> {
        let bytes = match before {
            0 => NODE,
            _ if before < FIRST => 0,
            // The first node is parted in two, below a new one.
            FIRST => NODE + INNER,
            // Each further node, and its part of those above it.
            _ => (NODE + INNER / FEWEST).div_ceil(FEWEST),
        };
        self.add(bytes + bytes / CLASS)
    }

    fn tree(&mut self, value: &Value) -> Result<(), TooHeavy> {
        match value {
            Value::Array(list) => {
                for (before, value) in list.iter().enumerate() {
                    self.element(before)?;
                    self.tree(value)?;
                }
                Ok(())
            }
            Value::Object(map) => {
                for (before, (key, value)) in map.iter().enumerate() {
                    self.entry(before)?;
                    self.text(key.len())?;
                    self.tree(value)?;
                }
                Ok(())
            }
            Value::String(text) => self.text(text.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }
}

/// What a value that is not deep takes.
///
/// # Errors
/// When that is more than `most`; it is looked at no further.
pub fn of(value: &Value, most: usize) -> Result<usize, TooHeavy> {
    let mut meter = Meter::new(most);
    meter.tree(value)?;
    meter.weighed()
}
