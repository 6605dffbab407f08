//! Texts for a client about what it sent. However long its keys and values are, and
//! however many of them are wrong, the texts are few and short: a text for each element
//! that repeats a key from above it would multiply the body by itself.

use std::fmt::{self, Write};

/// Bytes of the path to a field that is told of; what is longer is cut.
pub const MAX_PATH: usize = 256;
/// Bytes of any other text that a client wrote and is shown again.
pub const MAX_TEXT: usize = 1024;
/// As many unknown and repeated fields as the JSON decoder of Kubernetes reports (R6.4).
pub const MAX_PATHS: usize = 100;
/// What stands in place of the rest.
const REST: &str = "...";

/// What is displayed, or its beginning and `...` if it is longer than `most` bytes. The
/// rest is never made.
pub fn short(value: impl fmt::Display, most: usize) -> String {
    struct Short {
        text: String,
        most: usize,
    }
    impl Write for Short {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = self.most - self.text.len();
            if part.len() <= room {
                self.text.push_str(part);
                return Ok(());
            }
            let whole = (0..=room).rev().find(|at| part.is_char_boundary(*at));
            self.text.push_str(&part[..whole.unwrap_or(0)]);
            // Ends the writing of the value as well.
            Err(fmt::Error)
        }
    }
    let mut short = Short {
        text: String::new(),
        most,
    };
    if write!(short, "{value}").is_err() {
        short.text.push_str(REST);
    }
    short.text
}

/// As [`short`], of a text that is there already.
pub fn cut(text: String, most: usize) -> String {
    match text.len() <= most {
        true => text,
        false => short(&text, most),
    }
}

/// Where the reader of a document is: links to what is around it, so that a path is
/// spelled out only when it is told.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The document itself.
    Root,
    /// A field of the object at a place.
    Field(&'a Place<'a>, &'a str),
    /// An element of the list at a place, counted from 0.
    Index(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => out.write_str(name),
            Self::Field(around, name) => write!(out, "{around}.{name}"),
            Self::Index(around, position) => write!(out, "{around}[{position}]"),
        }
    }
}

/// The first fields of a kind, each once; no more and no longer than are ever told.
#[derive(Debug, Default)]
pub struct Paths(Vec<String>);

impl Paths {
    /// Adds the path to a field.
    pub fn add(&mut self, place: &Place<'_>) {
        if self.0.len() == MAX_PATHS {
            return;
        }
        let path = short(place, MAX_PATH);
        // Few, so that a set would only keep each of them twice.
        if !self.0.contains(&path) {
            self.0.push(path);
        }
    }

    /// The paths, in the order in which they were found.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("abcd", 3), "abc...");
        assert_eq!(short("aéé", 4), "aé...");
        assert_eq!(cut("ééé".to_owned(), 6), "ééé");
        assert_eq!(cut("ééé".to_owned(), 5), "éé...");
        assert_eq!(short(12345, 2), "12...");
    }

    #[test]
    fn paths_are_few_and_short() {
        let long = "k".repeat(1 << 20);
        let (root, mut paths) = (Place::Root, Paths::default());
        let around = Place::Field(&root, "spec");
        let around = Place::Field(&around, &long);
        for name in 0..10_000 {
            paths.add(&Place::Field(&around, &name.to_string()));
        }
        let long = format!("spec.{}...", "k".repeat(MAX_PATH - 5));
        assert_eq!(paths.0, [long]);
        let list = Place::Field(&root, "l");
        (0..10_000).for_each(|at| paths.add(&Place::Index(&list, at)));
        assert_eq!(paths.0.len(), MAX_PATHS);
        assert_eq!(paths.0[99], "l[98]");
    }
}
