//! What a configuration cannot be applied for: fields that others own (R5.20).

use std::fmt;

use apiservice::told;

use super::managers::Id;
use super::set::Set;

/// As many fields are told; the message says how many there are.
const MOST: usize = 500;

/// The fields of other managers that an applied configuration would change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conflicts {
    /// Each manager with its fields, in the order in which they are told.
    managers: Vec<(Id, Set)>,
}

impl Conflicts {
    /// Sorted as Kubernetes does.
    pub fn new(mut managers: Vec<(Id, Set)>) -> Self {
        managers.retain(|(_, set)| !set.is_empty());
        managers.sort_by_cached_key(|(id, _)| id.sort_key());
        Self { managers }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.managers.is_empty()
    }

    /// Without the fields of a set.
    pub fn without(self, allowed: &Set) -> Self {
        let managers = self.managers.into_iter();
        Self::new(
            managers
                .map(|(id, set)| (id, set.difference(allowed)))
                .collect(),
        )
    }

    /// The number of fields, each counted for each of its managers.
    pub fn len(&self) -> usize {
        self.managers.iter().map(|(_, set)| set.len()).sum()
    }

    /// Each manager, as it is told, with the path of each field, up to a bound.
    pub fn causes(&self) -> Vec<(String, String)> {
        let mut causes = Vec::new();
        for (id, set) in &self.managers {
            let id = id.to_string();
            set.each(&mut |path| {
                causes.push((id.clone(), told::short(path, told::MAX_PATH)));
                causes.len() < MOST
            });
        }
        causes.truncate(MOST);
        causes
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.causes();
        let count = self.len();
        if let ([(manager, path)], 1) = (causes.as_slice(), count) {
            return write!(
                out,
                "Apply failed with 1 conflict: conflict with {manager}: {path}"
            );
        }
        write!(out, "Apply failed with {count} conflicts: ")?;
        let mut before: Option<&String> = None;
        for (manager, path) in &causes {
            if before != Some(manager) {
                let line = if before.is_some() { "\n" } else { "" };
                write!(out, "{line}conflicts with {manager}:")?;
                before = Some(manager);
            }
            write!(out, "\n- {path}")?;
        }
        match causes.len() < count {
            true => write!(out, "\n- ..."),
            false => Ok(()),
        }
    }
}
