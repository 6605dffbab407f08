//! How much of what others write an event has, beside bodies (R9.11). Pure.
//!
//! Measured as JSON writes it: a control character takes six bytes. All of it together is
//! less than an event may have where it is truncated (100 KiB), so that nobody has the event
//! of what was done dropped by the length of a name.

use std::collections::BTreeMap;

use apiservice::told;
use serde_json::{Map, Value, json};

/// Bytes of a name, a namespace, and of whatever else is one part of a URL.
pub const NAME: usize = 253;
/// Bytes of a uid and of a resourceVersion.
pub const ID: usize = 128;
/// Bytes of a URL.
pub const URI: usize = 4 * 1024;
/// Bytes of a user agent.
pub const USER_AGENT: usize = 1024;
/// Bytes of a user's name.
pub const USER: usize = 1024;
/// Bytes of all groups of a user, and of all that is said of it besides.
pub const GROUPS: usize = 16 * 1024;
pub const EXTRA: usize = 8 * 1024;
/// Bytes of the answer's status, and of the message of one that has more.
pub const STATUS: usize = 8 * 1024;
const MESSAGE: usize = 4 * 1024;
/// Bytes of all annotations: those of this server fit in any case, unless they are mostly
/// characters that JSON escapes.
const ANNOTATIONS: usize = 40 * 1024;
/// What stands in place of the rest, as by Kubernetes.
const REST: &str = "...TRUNCATED";
/// Quotation marks and what is between one text and the next.
const AROUND: usize = 4;

/// The text, or its beginning and `...TRUNCATED` if it is longer.
pub fn text(text: &str, most: usize) -> String {
    let mut written = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        written += width(c);
        (written > most).then_some(at)
    });
    match end {
        Some(end) => format!("{}{REST}", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first of some texts, and `...TRUNCATED` as the last one if they are longer.
pub fn texts(all: &[String], most: usize) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = most;
    for one in all {
        let one = text(one, USER);
        match room.checked_sub(length(&one) + AROUND) {
            Some(rest) => room = rest,
            None => {
                kept.push(REST.to_owned());
                break;
            }
        }
        kept.push(one);
    }
    kept
}

/// The same of texts under keys.
pub fn lists(all: &BTreeMap<String, Vec<String>>, most: usize) -> BTreeMap<String, Vec<String>> {
    let mut kept = BTreeMap::new();
    let mut room = most;
    for (key, values) in all {
        let key = text(key, NAME);
        let Some(rest) = room.checked_sub(length(&key) + 2 * AROUND + REST.len()) else {
            kept.insert(REST.to_owned(), Vec::new());
            break;
        };
        let values = texts(values, rest);
        let taken: usize = values.iter().map(|value| length(value) + AROUND).sum();
        room = rest.saturating_sub(taken);
        kept.insert(key, values);
    }
    kept
}

/// A Status without what makes it too large: its causes, and the end of its message.
///
/// # Errors
/// The smaller one, if it was too large.
pub fn status(status: Value) -> Result<Value, Value> {
    if status.to_string().len() <= STATUS {
        return Ok(status);
    }
    let short = |of: &Value, key: &str, most| Some(json!(text(of[key].as_str()?, most)));
    let number = |of: &Value, key: &str| of[key].as_u64().map(Value::from);
    let details = &status["details"];
    let names = ["name", "group", "kind", "uid"];
    let mut kept: Map<String, Value> = names
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), short(details, key, NAME)?)))
        .collect();
    let after = "retryAfterSeconds";
    kept.extend(number(details, after).map(|seconds| (after.to_owned(), seconds)));
    let parts = [
        ("status", short(&status, "status", NAME)),
        ("message", short(&status, "message", MESSAGE)),
        ("reason", short(&status, "reason", NAME)),
        ("code", number(&status, "code")),
    ];
    let mut smaller = Map::from_iter([("metadata".to_owned(), json!({}))]);
    smaller.extend(
        parts
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?))),
    );
    if !kept.is_empty() {
        smaller.insert("details".to_owned(), kept.into());
    }
    Err(smaller.into())
}

/// Adds an annotation; the first of a key stays. False: there is no room for it.
pub fn annotate(all: &mut BTreeMap<String, String>, key: &str, value: &str) -> bool {
    if all.contains_key(key) {
        return true;
    }
    let taken = |key: &str, value: &str| length(key) + length(value) + 2 * AROUND;
    let before: usize = all.iter().map(|(key, value)| taken(key, value)).sum();
    let fits = before + taken(key, value) <= ANNOTATIONS;
    if fits {
        all.insert(key.to_owned(), value.to_owned());
    }
    fits
}

/// A panic's text.
pub fn panic(said: &str) -> String {
    text(said, told::MAX_TEXT)
}

/// Bytes of a text in JSON.
fn length(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_as_json_writes_them() {
        assert_eq!(text("abc", 3), "abc");
        assert_eq!(text("abcd", 3), "abc...TRUNCATED");
        assert_eq!(text("aéé", 4), "aé...TRUNCATED");
        assert_eq!(text("a\"\"", 4), "a\"...TRUNCATED");
        assert_eq!(text("\0\0", 11), "\0...TRUNCATED");
        let all = ["a".repeat(10), "b".repeat(10)];
        assert_eq!(texts(&all, 28), all);
        assert_eq!(texts(&all, 27), [&all[0], REST]);
    }

    #[test]
    fn what_is_said_of_a_user_is_bounded() {
        let many: Vec<String> = (0..10_000).map(|n| format!("\0{n}")).collect();
        let written = |value: Value| value.to_string().len();
        let groups = texts(&many, GROUPS);
        assert_eq!(groups.last().unwrap(), REST);
        assert!(groups.len() > 500, "{}", groups.len());
        assert!(written(json!(groups)) <= GROUPS + 32);
        let one = BTreeMap::from([("k".to_owned(), many.clone())]);
        assert!(written(json!(lists(&one, EXTRA))) <= EXTRA + 32);
        let keys = many.iter().map(|key| (key.repeat(9), vec![key.clone()]));
        let keys = lists(&keys.collect(), EXTRA);
        assert!(keys.contains_key(REST) && keys.len() > 50, "{}", keys.len());
        assert!(written(json!(keys)) <= EXTRA + 32);
    }

    #[test]
    fn a_status_loses_its_causes_first() {
        let small = json!({"metadata": {}, "details": {"causes": [1]}, "code": 422});
        assert_eq!(status(small.clone()), Ok(small));
        let large = json!({
            "metadata": {}, "status": "Failure", "message": "m".repeat(5000), "reason": "Invalid",
            "details": {"name": "n".repeat(300), "causes": ["x".repeat(STATUS)], "retryAfterSeconds": 1},
            "code": 422,
        });
        let expected = json!({
            "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
            "message": format!("{}{REST}", "m".repeat(MESSAGE)),
            "details": {"name": format!("{}{REST}", "n".repeat(NAME)), "retryAfterSeconds": 1},
        });
        assert_eq!(status(large), Err(expected));
    }
}
