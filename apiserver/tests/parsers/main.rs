//! Every parser of what strangers send: whatever it is given, it answers, within time
//! that grows with the input, and the process lives. Seconds of it in every test run;
//! `make fuzz` for as long as one likes (`PROPTEST_CASES`).
//!
//! Inputs are of three kinds: any bytes, pieces of each language in any order, and one
//! short piece many times over, which is what makes a parser slow or deep.

use std::time::{Duration, Instant};

use apiserver::decode::{self, Media, strict};
use apiserver::managed::fields;
use apiserver::merge;
use apiserver::object::{depth, weight};
use apiserver::options::{Continue, Delete, FieldValidation, List, Query};
use apiserver::protobuf;
use apiserver::selector::Selector;
use apiserver::target::{Target, parse_query};
use apiserver::warnings::Warnings;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

mod credentials;
mod texts;

/// Time that one input may take, and so much more for each KiB of it. Generous for a
/// debug build on a busy machine: what is not linear is over it by far.
const TIME: Duration = Duration::from_secs(10);
const TIME_PER_KIB: Duration = Duration::from_millis(20);
/// What the process may have taken at its peak, whatever it was given: of inputs of
/// 128 KiB a parser that keeps them many times over shows.
const MEMORY: u64 = 600 * 1024 * 1024;

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"a\"",
    "\"b\":",
    "\"a\":1",
    "1",
    "-0",
    "1e999",
    "null",
    "true",
    "\"\\ud800\"",
    "\"\\u0000\"",
    " ",
    "\"",
    "\\",
    "\u{0}",
    "é",
    "[[",
    "{\"a\":",
    "{\"a\":{\"a\":",
    "12345678901234567890123",
];
const YAML: &[&str] = &[
    "a:",
    "- ",
    "  ",
    "\n",
    "&a ",
    "*a ",
    "!!str ",
    "|",
    ">",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "? ",
    ": ",
    "# x",
    "---\n",
    "...\n",
    "<<: ",
    "1",
    "~",
    "%YAML 1.2\n",
    "\t",
    "a: &a [*a]\n",
    "é",
    "-\n",
    "a: |\n ",
];
const PATCH: &[&str] = &[
    "{\"op\":\"add\",\"path\":\"/a\",\"value\":{}}",
    "{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"}",
    "{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/a/b\"}",
    "{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/b\"}",
    "{\"op\":\"remove\",\"path\":\"/l/0\"}",
    "{\"op\":\"add\",\"path\":\"/l/-\",\"value\":[1]}",
    "{\"op\":\"copy\",\"from\":\"/l\",\"path\":\"/l/0\"}",
    "{\"op\":\"replace\",\"path\":\"/~0~1~2\",\"value\":1}",
    "{\"op\":\"test\",\"path\":\"\",\"value\":null}",
    "{\"op\":1}",
    "{}",
];
const FIELDS: &[&str] = &[
    "f:",
    "v:",
    "k:",
    "i:",
    ".",
    "x:",
    "f:a",
    "f:.",
    "v:1",
    "v:1.0",
    "v:\"a\"",
    "v:null",
    "v:[",
    "k:{",
    "\"a\":",
    "1",
    "1e21",
    "-0",
    ",",
    "}",
    "\"<&>\\u0001\"",
    "é",
    "i:0",
];
const SELECTOR: &[&str] = &[
    "a",
    "=",
    "==",
    "!=",
    "!",
    ",",
    "in",
    "notin",
    "(",
    ")",
    " ",
    "a in (",
    "a,b",
    "metadata.name",
    "metadata.namespace",
    "/",
    ".",
    "-",
    "\\",
    "\\,",
    "é",
    "x=",
    ">1",
    "<",
    "\t",
    "\u{b}",
    "\u{c}",
    "\u{a0}",
];
const QUERY: &[&str] = &[
    "limit=",
    "1",
    "&",
    "=",
    "continue=",
    "resourceVersion=",
    "resourceVersionMatch=Exact",
    "labelSelector=",
    "%0C",
    "fieldSelector=",
    "%",
    "%2",
    "%00",
    "%ff",
    "+",
    ";",
    "watch=1",
    "timeoutSeconds=",
    "-1",
    "18446744073709551616",
    "é",
    "a%3Db",
];

/// Keys of all wire types, lengths that fit and that do not, numbers that never end.
const MESSAGE: &[&[u8]] = &[
    b"k8s\0",
    b"\x0a\x1f\x0a\x0emeta.k8s.io/v1\x12\x0dDeleteOptions",
    b"\x0a\x17\x0a\x0eautoscaling/v1\x12\x05Scale",
    b"\x0a",
    b"\x12",
    b"\x12\x03All",
    b"\x2a\x03All",
    b"\x08\x01",
    b"\x09\0\0\0\0\0\0\0\0",
    b"\x0b",
    b"\x0c",
    b"\x0d\0\0\0\0",
    b"\x0f",
    b"\x5a\x04\x0a\0\x12\0",
    b"\x6a\0",
    b"\x8a\x01\x02\x3a\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\0",
    b"\xc3\x28",
];

fn message() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::collection::vec(prop::sample::select(MESSAGE), 0..40);
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    // An envelope whose message is anything.
    let whole = (
        prop::sample::select(&MESSAGE[1..3]),
        message_of(parts.clone()),
    );
    let whole = whole.prop_map(|(of, raw)| {
        let length = u8::try_from(raw.len().min(127)).unwrap_or(127);
        [
            b"k8s\0",
            of,
            &[0x12, length][..],
            &raw[..usize::from(length)],
        ]
        .concat()
    });
    prop_oneof![2 => message_of(parts), 2 => whole, 1 => bytes]
}

fn message_of(pieces: impl Strategy<Value = Vec<&'static [u8]>>) -> impl Strategy<Value = Vec<u8>> {
    pieces.prop_map(|pieces| pieces.concat())
}

fn words(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let any = prop::collection::vec(prop::sample::select(words), 0..60);
    let many = (
        prop::collection::vec(prop::sample::select(words), 1..4),
        0..20_000usize,
    );
    prop_oneof![
        4 => any.prop_map(|words| words.concat()),
        2 => ".{0,200}",
        1 => many.prop_map(|(words, times)| {
            let piece = words.concat();
            piece.repeat(times.min(128 * 1024 / piece.len()))
        }),
    ]
}

/// Numbers at the ends of their types, depths that not all readers take, texts that are no
/// JSON, keys that are given twice: on all of this readers part.
const ODD: &[&str] = &[
    "17976931348623157e292",
    "17976931348623158e292",
    "-1e999",
    "1e-999",
    "-0",
    "0123",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "0x10",
    "0x7fffffffffffffffffffffffffffffffff",
    "1_0",
    ".inf",
    "~",
    "\"\\ud800\"",
    "\"\\x41\"",
    "'a'",
    "!!binary YQ==",
    "? !!binary YQ==\n",
    "&a [1]",
    "*a",
    "{\"a\":1,\"a\":{\"b\":1}}",
    "{\"<<\":{\"c\":{\"d\":1}}}",
    "{!!binary YQ==: 1}",
    "",
    "] [",
    "\n---\n",
    "\n...\n",
];

/// Something odd among what all readers take.
fn any_document() -> impl Strategy<Value = String> {
    let odd = || {
        prop_oneof![
            8 => prop::sample::select(ODD).prop_map(str::to_owned),
            1 => (1..300usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        ]
    };
    let framed = (odd(), odd(), 0..60usize).prop_map(|(first, last, times)| {
        let many = vec![r#"{"a":{"b":0},"b":["x"]}"#; times].join(",");
        format!(r#"{{"a":{first},"b":[{many}],"c":{last},"d":[{many}]}}"#)
    });
    prop_oneof![4 => framed, 1 => words(JSON), 1 => words(YAML)]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The largest resident set of the process so far.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs a parser within its bounds.
fn bounded<T>(input: &str, parse: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let begin = Instant::now();
    let parsed = parse();
    let took = begin.elapsed();
    let kib = u32::try_from(input.len() / 1024).unwrap_or(u32::MAX);
    let start: String = input.chars().take(80).collect();
    let length = input.len();
    prop_assert!(
        took < TIME + TIME_PER_KIB * kib,
        "{took:?} for {length} bytes that begin with {start:?}"
    );
    let peak = peak();
    prop_assert!(
        peak < MEMORY,
        "{peak} bytes after {start:?}, {length} bytes"
    );
    Ok(parsed)
}

fn document() -> Value {
    json!({"a": {"b": 1}, "l": [1, 2], "metadata": {"name": "n"}})
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn json(text in words(JSON)) {
        let parsed = bounded(&text, || strict::json(text.as_bytes()))?;
        // It reads what serde reads, and nothing else.
        let read = serde_json::from_str::<Value>(&text);
        prop_assert_eq!(parsed.is_ok(), read.is_ok(), "{:?}", text);
        let weighed = bounded(&text, || strict::weigh_json(text.as_bytes(), weight::BODY_TREE))?;
        if let (Ok(parsed), Ok(read)) = (parsed, read) {
            let (weighed, is_whole) = weighed.map_or((usize::MAX, true), |weighed| weighed);
            prop_assert!(is_whole);
            prop_assert!(weight::of(&read, usize::MAX).is_ok_and(|tree| tree <= weighed), "{:?}", text);
            prop_assert_eq!(parsed.value, read);
        }
    }

    #[test]
    fn yaml(text in words(YAML)) {
        let weighed = bounded(&text, || strict::weigh_yaml(text.as_bytes(), weight::BODY_TREE))?;
        if let Ok(parsed) = bounded(&text, || strict::yaml(text.as_bytes()))? {
            prop_assert!(weight::of(&parsed.value, usize::MAX).ok() <= weighed.ok(), "{:?}", text);
        }
    }

    /// Whatever is sent as whatever it is: what is weighed is not less than what is made.
    #[test]
    fn what_is_weighed_is_what_is_made(text in any_document()) {
        for media in [Media::Json, Media::Yaml, Media::Either] {
            let weighed = decode::weigh(media, text.as_bytes(), weight::BODY_TREE);
            if let Ok(parsed) = decode::parse(media, text.as_bytes()) {
                let made = weight::of(&parsed.value, usize::MAX).ok();
                prop_assert!(made <= weighed.ok(), "{:?} {:?}", media, text);
            }
        }
    }

    /// What is read of a message is weighed before, is an object, and is written and read as
    /// the same.
    #[test]
    fn messages(bytes in message()) {
        let text = hex(&bytes);
        let answered = bounded(&text, || protobuf::told::json(&bytes, usize::MAX).ok())?;
        let answered: Option<Value> = answered.and_then(|text| serde_json::from_str(&text).ok());
        if let Ok(read) = bounded(&text, || decode::parse(Media::Protobuf, &bytes))? {
            let weighed = decode::weigh(Media::Protobuf, &bytes, usize::MAX).ok();
            prop_assert!(weight::of(&read.value, usize::MAX).ok() <= weighed, "{}", text);
            let _ = bounded(&text, || Delete::from_body(&read.value))?;
            if let Some(again) = protobuf::encode(&read.value) {
                prop_assert_eq!(protobuf::decode(&again).ok(), Some(read.value.clone()), "{}", text);
                prop_assert_eq!(answered, Some(read.value), "{}", text);
            }
        }
    }

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for media in [Media::Json, Media::Yaml, Media::Either, Media::Protobuf] {
            let _ = bounded(&text, || decode::parse(media, &bytes))?;
        }
        let _ = bounded(&text, || (merge::json(&bytes), merge::merge(&bytes)))?;
    }

    #[test]
    fn patches(operations in prop::collection::vec(prop::sample::select(PATCH), 0..40), times in 1..60usize) {
        let text = format!("[{}]", vec![operations.join(","); times].join(","));
        bounded(&text, || {
            if let Ok((patch, _)) = merge::json(text.as_bytes()) {
                let mut object = document();
                // What applies can be stored: it is no deeper than what is read back.
                if patch.apply(&mut object).is_ok() {
                    assert!(!depth::exceeds(&object, depth::MAX_DEPTH));
                }
            }
        })?;
    }

    #[test]
    fn merge_patches(text in words(JSON)) {
        bounded(&text, || {
            if let Ok((patch, _)) = merge::merge(text.as_bytes()) {
                let _ = patch.apply(&mut document());
            }
        })?;
    }

    /// The keys of FieldsV1 have a language of their own, and come in any order.
    #[test]
    fn fields(keys in prop::collection::vec(words(FIELDS), 0..6), below in words(FIELDS)) {
        let input = format!("{}{below}", keys.join(""));
        let inner = json!({below.as_str(): {}});
        let written: serde_json::Map<String, Value> =
            keys.into_iter().map(|key| (key, inner.clone())).collect();
        let written = Value::Object(written);
        if let Ok(set) = bounded(&input, || fields::decode(&written))? {
            // What is written of it is read as the same.
            let canonical = bounded(&input, || fields::encode(&set))?;
            let again = fields::decode(&canonical);
            prop_assert_eq!(again.as_ref(), Ok(&set), "{}", canonical);
            prop_assert_eq!(fields::encode(&again.unwrap_or_default()), canonical);
        }
    }

    #[test]
    fn selectors(labels in words(SELECTOR), fields in words(SELECTOR)) {
        let input = format!("{labels}{fields}");
        if let Ok(selector) = bounded(&input, || Selector::parse(&labels, &fields, true))? {
            selector.matches("n", "a", |_| None);
        }
    }

    #[test]
    fn queries_and_targets(raw in words(QUERY), path in words(QUERY)) {
        let input = format!("{raw}{path}");
        bounded(&input, || {
            let query = parse_query(Some(&raw));
            let resource = apiservice::find("tenantcontrolplanes").expect("a kind");
            let _ = List::parse(Query::new(&query), resource);
            let _ = Target::parse(&http::Method::GET, &format!("/{path}"), &query);
        })?;
    }

    #[test]
    fn continue_tokens(text in ".{0,100}", revision in any::<Option<u64>>(), after in "[a-z/.]{1,40}") {
        let _ = bounded(&text, || Continue::decode(&text))?;
        let ours = Continue { revision, after };
        // A token of ours is read as it was written, or refused, but never as another.
        if let Ok(read) = Continue::decode(&ours.encode()) {
            prop_assert_eq!(read, ours);
        }
    }
}

/// What is told of the fields of a body takes no more than the body, however long the
/// keys above them are.
#[test]
fn what_is_told_of_a_body_is_bounded() {
    let key = "k".repeat(1 << 20);
    let fields = (0..1_000).map(|n| format!("\"a{n}\": 0, \"a{n}\": 1"));
    let fields = fields.collect::<Vec<_>>().join(", ");
    let text = format!(
        r#"{{"spec": {{"controlPlane": {{"deployment": {{"nodeSelector": {{"{key}": {{{fields}}}}}}}}}}}}}"#
    );
    let resource = apiservice::find("tenantcontrolplanes").expect("a kind");
    for media in [Media::Json, Media::Yaml] {
        for validation in [FieldValidation::Warn, FieldValidation::Strict] {
            let warnings = Warnings::default();
            let read = || decode::object(resource, media, text.as_bytes(), validation, &warnings);
            let read = bounded(&text, read);
            assert!(read.is_ok(), "{read:?}");
            assert!(warnings.texts().len() <= 100);
        }
    }
}
