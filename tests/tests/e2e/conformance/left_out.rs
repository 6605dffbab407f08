//! The tests that are not run, and why.

use regex::Regex;

const LIST: &str = include_str!("../../../conformance/left-out.txt");

pub struct LeftOut {
    lines: Vec<Line>,
}

pub struct Line {
    pub pattern: Regex,
    pub reason: &'static str,
}

impl LeftOut {
    pub fn read() -> Self {
        let lines = LIST
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (pattern, reason) = line
                    .split_once(" -- ")
                    .unwrap_or_else(|| panic!("{line:?} has no reason"));
                assert!(!reason.trim().is_empty(), "{line:?} has no reason");
                Line {
                    pattern: Regex::new(pattern).unwrap(),
                    reason: reason.trim(),
                }
            })
            .collect();
        Self { lines }
    }

    /// As ginkgo takes them: the syntax is Go's, and the same as far as it is used here.
    pub fn patterns(&self) -> Vec<String> {
        let all = self.lines.iter();
        all.map(|line| line.pattern.as_str().to_owned()).collect()
    }

    /// Why a test is left out.
    pub fn reason(&self, name: &str) -> Option<&'static str> {
        let found = self.lines.iter().find(|line| line.pattern.is_match(name));
        found.map(|line| line.reason)
    }

    /// What fits no test is about one that is no more.
    pub fn judge<'a>(&self, names: impl Iterator<Item = &'a String> + Clone) {
        for Line { pattern, .. } in &self.lines {
            assert!(
                names.clone().any(|name| pattern.is_match(name)),
                "left-out.txt: {pattern} fits no test"
            );
        }
    }
}
