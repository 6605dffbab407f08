//! Where a field stands.

use std::fmt;

use crate::told::{self, MAX_TEXT};

/// A path to a field from the root of an object: `spec.list[0].map[key]`. Each part of it
/// is cut where it is longer than any key that is valid, and so is the whole.
///
/// The empty path is the root itself and prints as `<nil>`, as Kubernetes does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// The root of the object.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path given in its printed form, for example `spec.controlPlane`.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The field `name` of the object at this path.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self(told::short(name, MAX_TEXT))
        } else {
            self.with(format_args!(".{name}"))
        }
    }

    /// The element at `position`, counted from 0, of the list at this path.
    pub fn index(&self, position: usize) -> Self {
        self.with(format_args!("[{position}]"))
    }

    /// The entry `key` of the map at this path.
    pub fn key(&self, key: &str) -> Self {
        self.with(format_args!("[{key}]"))
    }

    fn with(&self, part: fmt::Arguments<'_>) -> Self {
        Self(told::short(format_args!("{}{part}", self.0), MAX_TEXT))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as it stands in a sentence; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R3.81.
    #[test]
    fn paths_print_as_kubernetes_prints_them() {
        let path = Path::root().child("spec").child("list").index(0).child("x");
        assert_eq!(path.to_string(), "spec.list[0].x");
        assert_eq!(path.key("a/b").to_string(), "spec.list[0].x[a/b]");
        assert_eq!(Path::root().to_string(), "<nil>");
    }
}
