//! Warnings: what a client is told beside the answer.

use std::sync::Arc;

use apiservice::told;
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

/// All warnings of one answer; beyond it each is cut to [`CUT_WARNING`].
const MAX_WARNINGS: usize = 4096;
const CUT_WARNING: usize = 256;

/// More warnings than this would not fit into an answer anyway.
const MOST_WARNINGS: usize = 100;

/// Texts for the client beside the answer; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text once, cut where it is very long; those after the first hundred are
    /// left out.
    pub fn add(&self, text: impl Into<String>) {
        let text = told::cut(text.into(), told::MAX_TEXT);
        let mut texts = self.0.lock();
        if texts.len() < MOST_WARNINGS && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// What was added so far.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Writes one `Warning` header for each text (R3.83).
    pub fn apply(&self, headers: &mut HeaderMap) {
        let texts = self.texts();
        let total: usize = texts.iter().map(|text| text.chars().count()).sum();
        let mut left = MAX_WARNINGS;
        for text in texts {
            let text: String = match total > MAX_WARNINGS {
                true => text.chars().take(CUT_WARNING).collect(),
                false => text,
            };
            let length = text.chars().count();
            if length > left {
                break;
            }
            left -= length;
            // A header cannot carry line breaks; YAML's duplicate texts have them.
            let text: String = text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                headers.append(header::WARNING, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R3.83.
    #[test]
    fn warnings_are_quoted_once_and_cut() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.x\"");
        warnings.add("unknown field \"spec.x\"");
        warnings.add("a\nb");
        let mut headers = HeaderMap::new();
        warnings.apply(&mut headers);
        let texts: Vec<_> = headers.get_all(header::WARNING).iter().collect();
        assert_eq!(
            texts,
            ["299 - \"unknown field \\\"spec.x\\\"\"", "299 - \"a b\""]
        );
        let many = Warnings::default();
        (0..20).for_each(|n| many.add(format!("{n}{}", "x".repeat(1000))));
        let mut headers = HeaderMap::new();
        many.apply(&mut headers);
        assert_eq!(headers.get_all(header::WARNING).iter().count(), 16);
        (0..200_000).for_each(|n| many.add(n.to_string()));
        assert_eq!(many.texts().len(), MOST_WARNINGS);
    }
}
