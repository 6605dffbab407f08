//! The labels of an object, found in its bytes.
//!
//! A map of them beside the bytes would take several times as much memory as the bytes
//! that are counted: 170,000 short labels fit into one object. Only some places in the
//! bytes are held, about one for each [`RUN`] bytes of labels, and what lies between two
//! is looked through.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value};

/// Bytes of labels from one place that is held to the next.
const RUN: usize = 256;

/// Where the labels stand in the bytes that they were written to.
#[derive(Debug, Default)]
pub struct Labels {
    /// From the brace that opens their map to behind the one that closes it.
    start: u32,
    end: u32,
    /// Where labels begin, in order, at least [`RUN`] bytes apart. The first is not held.
    marks: Box<[u32]>,
    /// Keys are in order, and neither they nor the values are escaped. It is so of all
    /// that passed validation.
    plain: bool,
}

impl Labels {
    /// Writes a map of labels as JSON.
    pub fn write(labels: &Map<String, Value>, text: &mut String) -> Self {
        let start = position(text);
        let simple = |text: &str| !text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\');
        let pairs = || labels.iter().map(|(key, value)| (key, value.as_str()));
        let plain = labels.keys().is_sorted()
            && pairs().all(|(key, value)| simple(key) && value.is_some_and(simple));
        let mut marks = Vec::new();
        if plain {
            text.push('{');
            let mut last = text.len();
            for (number, (key, value)) in pairs().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                if text.len() - last >= RUN {
                    last = text.len();
                    marks.push(position(text));
                }
                for part in ["\"", key, "\":\"", value.unwrap_or_default(), "\""] {
                    text.push_str(part);
                }
            }
            text.push('}');
        } else {
            write(&Value::Object(labels.clone()), text);
        }
        Labels {
            start,
            end: position(text),
            marks: marks.into(),
            plain,
        }
    }

    /// The value of a label, from the bytes of the object.
    pub fn get<'a>(&self, encoded: &'a [u8], key: &str) -> Option<Cow<'a, str>> {
        let part = |from: u32, to: u32| encoded.get(from as usize..to as usize);
        let whole = part(self.start, self.end)?;
        if !self.plain {
            let labels: Map<String, Value> = serde_json::from_slice(whole).ok()?;
            let value = labels.get(key)?.as_str()?;
            return Some(Cow::Owned(value.to_owned()));
        }
        let run = self.marks.partition_point(|mark| {
            let first = part(mark + 1, self.end).unwrap_or_default();
            quoted(first).0 <= key.as_bytes()
        });
        let from = match run.checked_sub(1) {
            Some(before) => *self.marks.get(before)?,
            None => self.start + 1,
        };
        let to = self.marks.get(run).copied().unwrap_or(self.end);
        let mut rest = part(from, to)?;
        while let [b'"', after @ ..] = rest {
            let (name, after) = quoted(after);
            let (value, after) = quoted(after.get(2..)?);
            if name == key.as_bytes() {
                return std::str::from_utf8(value).ok().map(Cow::Borrowed);
            }
            rest = after.get(1..)?;
        }
        None
    }
}

/// What is before the next quotation mark, and what is behind it.
fn quoted(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| *b == b'"').unwrap_or(text.len());
    let (before, rest) = text.split_at(end);
    (before, rest.get(1..).unwrap_or_default())
}

fn position(text: &str) -> u32 {
    // Objects are much smaller; of a larger one, the labels would not be found.
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// Writes a value as JSON.
pub(super) fn write(value: &Value, text: &mut String) {
    // A text takes everything.
    let _ = write!(text, "{value}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(labels: &Map<String, Value>) -> (String, Labels) {
        let mut text = "{\"labels\":".to_owned();
        let found = Labels::write(labels, &mut text);
        text.push('}');
        (text, found)
    }

    proptest! {
        /// As in the map that they come from, whatever there is in it.
        #[test]
        fn labels_are_found_where_they_were_written(
            plain in prop::collection::btree_map("[a-d./-]{0,9}", "[a-z0-9.]{0,20}", 0..200),
            odd in prop::collection::btree_map("[a-c\"\\\\\n]{0,3}", any::<Option<String>>(), 0..3),
        ) {
            let mut labels: Map<String, Value> = Map::new();
            labels.extend(plain.into_iter().map(|(key, value)| (key, Value::from(value))));
            labels.extend(odd.into_iter().map(|(key, value)| (key, json!(value))));
            let (text, found) = written(&labels);
            prop_assert_eq!(&text, &json!({"labels": &labels}).to_string());
            for (key, value) in &labels {
                for key in [key.clone(), format!("{key}a"), format!("\"{key}")] {
                    let expected = labels.get(&key).and_then(Value::as_str);
                    let label = found.get(text.as_bytes(), &key);
                    prop_assert_eq!(label.as_deref(), expected);
                }
                prop_assert!(value.is_string() || !found.plain);
            }
            prop_assert_eq!(found.get(text.as_bytes(), "zz"), None);
        }
    }

    #[test]
    fn what_is_held_of_labels_is_little() {
        let pairs = (0..170_000).map(|n| (format!("{n:06}"), json!("")));
        let (text, found) = written(&pairs.collect());
        assert!(found.plain && found.marks.len() * 4 < text.len() / 50);
        for key in ["000000", "000001", "169999", "099999"] {
            assert_eq!(found.get(text.as_bytes(), key).as_deref(), Some(""));
        }
        assert_eq!(found.get(text.as_bytes(), "170000"), None);
        assert_eq!(Labels::default().get(text.as_bytes(), "a"), None);
    }
}
