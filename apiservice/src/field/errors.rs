//! All that is wrong with one object.

use std::collections::HashSet;
use std::ops::Deref;

use super::error::Error;

/// As many errors are told of one object, and how many more there are.
pub const MAX_ERRORS: usize = 100;

/// Errors that are kept of one object. Each takes more memory than what it is about. More are
/// kept than are told, because equal ones are told once.
const MAX_KEPT: usize = 10 * MAX_ERRORS;

/// All that is wrong with one object, as it was found. Beyond [`MAX_KEPT`] errors are only
/// counted: who looks through what a client can make large stops when it
/// [`is_full`](Self::is_full).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    kept: Vec<Error>,
    left_out: usize,
}

impl Errors {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, error: Error) {
        match self.is_full() {
            true => self.left_out += 1,
            false => self.kept.push(error),
        }
    }

    /// Adds those of another part of the object.
    pub fn append(&mut self, others: Errors) {
        self.extend(others.kept);
        self.left_out += others.left_out;
    }

    /// Whether no more are kept.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MAX_KEPT
    }

    /// All as one text: `[e1, e2]`, duplicates left out; one error stands
    /// without brackets (R3.82). Beyond [`MAX_ERRORS`] they are only counted.
    pub fn summary(&self) -> String {
        let mut texts: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        for (position, error) in self.kept.iter().enumerate() {
            if texts.len() == MAX_ERRORS {
                let more = self.kept.len() - position + self.left_out;
                texts.push(format!("and {more} more"));
                break;
            }
            let text = error.to_string();
            if seen.insert(text.clone()) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }
}

impl Deref for Errors {
    type Target = [Error];

    fn deref(&self) -> &[Error] {
        &self.kept
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self::from_iter([error])
    }
}

impl FromIterator<Error> for Errors {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        let mut all = Self::default();
        all.extend(errors);
        all
    }
}

impl Extend<Error> for Errors {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        errors.into_iter().for_each(|error| self.push(error));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Path;
    use super::*;

    /// R3.82.
    #[test]
    fn a_summary_is_bracketed_and_without_duplicates() {
        let a = Error::required(&Path::new("a"), "");
        let b = Error::required(&Path::new("b"), "");
        assert_eq!(Errors::from(a.clone()).summary(), "a: Required value");
        assert_eq!(
            Errors::from_iter([a.clone(), b, a]).summary(),
            "[a: Required value, b: Required value]"
        );
    }

    #[test]
    fn a_summary_ends_at_the_cap() {
        let error = |n: usize| Error::required(&Path::new(format!("f{n}")), "");
        let errors: Vec<Error> = (0..300_000).map(error).collect();
        let summary = |errors: &[Error]| Errors::from_iter(errors.iter().cloned()).summary();
        let text = summary(&errors);
        assert!(text.ends_with("f99: Required value, and 299900 more]"));
        assert!(summary(&errors[..MAX_ERRORS]).ends_with("f99: Required value]"));
        let twice: Vec<Error> = errors[..60].iter().chain(&errors[..60]).cloned().collect();
        assert!(summary(&twice).ends_with("f59: Required value]"));
    }

    #[test]
    fn few_are_kept_and_all_are_counted() {
        let error = |n: usize| Error::required(&Path::new(format!("f{n}")), "");
        let mut errors: Errors = (0..MAX_KEPT - 1).map(error).collect();
        assert!(!errors.is_full());
        errors.append((0..MAX_KEPT + 3).map(error).collect());
        assert!(errors.is_full());
        assert_eq!(errors.len(), MAX_KEPT);
        let more = format!(", and {} more]", 2 * MAX_KEPT + 2 - MAX_ERRORS);
        assert!(errors.summary().ends_with(&more), "{}", errors.summary());
    }
}
