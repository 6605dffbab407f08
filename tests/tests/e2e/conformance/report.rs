//! How tests ended, by ginkgo's reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::left_out::LeftOut;

/// The whole names of tests of conformance.
#[derive(Default)]
pub struct Report {
    pub passed: BTreeSet<String>,
    /// With what was said.
    pub failed: BTreeMap<String, String>,
    /// Not chosen: left out, or outside of the focus.
    not_run: BTreeSet<String>,
}

impl Report {
    /// Adds what a run reports.
    pub fn add(&mut self, file: &Path) {
        let text = std::fs::read(file)
            .unwrap_or_else(|error| panic!("ginkgo wrote no report {}: {error}", file.display()));
        let suites: Value = serde_json::from_slice(&text).unwrap();
        let of = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for suite in of(&suites) {
            for spec in of(&suite["SpecReports"]) {
                self.spec(&spec);
            }
        }
        let ran = self.passed.iter().chain(self.failed.keys());
        let ran: BTreeSet<String> = ran.cloned().collect();
        self.not_run.retain(|name| !ran.contains(name));
    }

    fn spec(&mut self, spec: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array();
            all.into_iter().flatten().map(text).collect()
        };
        let mut words = texts(&spec["ContainerHierarchyTexts"]);
        words.push(text(&spec["LeafNodeText"]));
        let name = words.join(" ");
        let state = text(&spec["State"]);
        let said = text(&spec["Failure"]["Message"]);
        if spec["LeafNodeType"] != "It" {
            // What all tests stand on.
            if !matches!(&*state, "passed" | "skipped") {
                let what = format!("{} {name}", text(&spec["LeafNodeType"]));
                self.failed.insert(what, said);
            }
            return;
        }
        let labels = texts(&spec["LeafNodeLabels"]);
        let above = spec["ContainerHierarchyLabels"].as_array();
        let mut labels = labels
            .into_iter()
            .chain(above.into_iter().flatten().flat_map(texts));
        if !labels.any(|label| label == "Conformance") {
            return;
        }
        match &*state {
            "passed" => {
                self.passed.insert(name);
            }
            // One that gives up by itself says why.
            "skipped" | "pending" if said.is_empty() => {
                self.not_run.insert(name);
            }
            _ => {
                self.failed.insert(name, format!("{state}: {said}"));
            }
        }
    }

    /// Of all tests, run or not.
    pub fn names(&self) -> impl Iterator<Item = &String> + Clone {
        let ran = self.passed.iter().chain(self.failed.keys());
        ran.chain(&self.not_run)
    }

    /// Those that are neither run nor left out.
    pub fn outside(&self, left_out: &LeftOut) -> usize {
        let all = self.not_run.iter();
        all.filter(|name| left_out.reason(name).is_none()).count()
    }

    pub fn print(&self, left_out: &LeftOut, took: Duration) {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in &self.not_run {
            if let Some(reason) = left_out.reason(name) {
                reasons.entry(reason).or_default().push(name);
            }
        }
        println!(
            "\nconformance: {} passed, {} failed, {} left out, {} outside of the focus, in {} s",
            self.passed.len(),
            self.failed.len(),
            reasons.values().map(Vec::len).sum::<usize>(),
            self.outside(left_out),
            took.as_secs(),
        );
        for (reason, names) in reasons {
            println!("  left out ({reason}):");
            for name in names {
                println!("    {name}");
            }
        }
        for (name, said) in &self.failed {
            println!("  FAILED {name}");
            for line in said.lines().take(12) {
                println!("      {line}");
            }
        }
        println!();
    }
}
