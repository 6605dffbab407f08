//! Headers and the small texts of fields.

use std::str::FromStr;

use apiserver::accept::{self, Answer};
use apiserver::options::{Delete, Query};
use apiserver::policy::cel::Quantity;
use apiservice::endpoint::Endpoint;
use apiservice::version::{KubernetesVersion, Minor};
use apiservice::{duration, time};
use http::{HeaderMap, HeaderValue, header};
use proptest::prelude::*;
use serde_json::Value;

use super::{JSON, bounded, words};

const ACCEPT: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "*/*",
    "application/*",
    "text/html",
    ";",
    ",",
    "as=Table",
    "as=PartialObjectMetadataList",
    "g=meta.k8s.io",
    "v=v1",
    "v=v1beta1",
    "q=0.5",
    "q=nan",
    "q=-1",
    "q=1e999",
    "stream=watch",
    "pretty=1",
    "=",
    "/",
    "\"",
    " ",
    "\t",
];
const DELETE: &[&str] = &[
    "{",
    "}",
    ",",
    "\"gracePeriodSeconds\":",
    "\"preconditions\":",
    "{\"uid\":\"a\"}",
    "\"resourceVersion\":\"1\"",
    "\"propagationPolicy\":\"Orphan\"",
    "\"orphanDependents\":true",
    "\"dryRun\":[\"All\"]",
    "\"dryRun\":[",
    "\"All\"",
    "null",
    "-1",
    "1e9",
    "\"kind\":\"DeleteOptions\"",
    "\"apiVersion\":\"v1\"",
    "]",
];
const TIME: &[&str] = &[
    "2026",
    "0000",
    "9999",
    "-",
    "01",
    "12",
    "31",
    "T",
    "t",
    " ",
    ":",
    "23",
    "60",
    "Z",
    "z",
    ".",
    "000000001",
    "+",
    "-00:00",
    "+24:00",
    "é",
];
const DURATION: &[&str] = &[
    "1",
    "0",
    ".",
    "-",
    "+",
    "h",
    "m",
    "s",
    "ms",
    "us",
    "µs",
    "ns",
    "99999999999999999999",
    "e",
    " ",
];
const ENDPOINT: &[&str] = &[
    "a", ".", ":", "[", "]", "::", "fd00::1", "10.0.0.1", "6443", "65536", "%", "/", "0", "é", "-",
];
const QUANTITY: &[&str] = &[
    "1",
    "0",
    ".",
    "-",
    "+",
    "Ki",
    "Ei",
    "k",
    "n",
    "u",
    "m",
    "E",
    "e",
    "e9",
    "E-9",
    "e99999999999",
    "999999999999999999999999999999999999",
    "_",
    "é",
];
const VERSION: &[&str] = &[
    "v",
    "1",
    ".",
    "36",
    "0",
    "-",
    "+",
    "alpha",
    "99999999999999999999",
    "é",
];

fn any_answer() -> impl Strategy<Value = Answer> {
    prop::sample::select(vec![Answer::Object, Answer::List, Answer::Watch])
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    })]

    /// R4.1: what is chosen was asked for, whatever else stands beside it.
    #[test]
    fn accept_headers(lines in prop::collection::vec(words(ACCEPT), 0..4), answer in any_answer()) {
        let mut headers = HeaderMap::new();
        for line in &lines {
            if let Ok(value) = HeaderValue::from_str(line) {
                headers.append(header::ACCEPT, value);
            }
        }
        let input = lines.concat();
        let _ = bounded(&input, || accept::negotiate(&headers, &Query::new(&[]), answer))?;
        bounded(&input, || accept::plain_encoding(&headers))?;
        // JSON is always there for who takes it, too.
        headers.clear();
        let taken = format!("{input},application/json");
        if let Ok(value) = HeaderValue::from_str(&taken) {
            headers.insert(header::ACCEPT, value);
            let negotiated = bounded(&taken, || accept::negotiate(&headers, &Query::new(&[]), answer))?;
            prop_assert!(negotiated.is_ok() || input.contains("as="), "{:?}", taken);
        }
    }

    #[test]
    fn delete_options(body in words(DELETE), other in words(JSON)) {
        for text in [&body, &other] {
            let Ok(value) = serde_json::from_str::<Value>(text) else {
                continue;
            };
            if let Ok(options) = bounded(text, || Delete::from_body(&value))? {
                // What is written of them is read as the same.
                let again = Delete::from_body(&options.to_value());
                prop_assert_eq!(again.ok(), Some(options));
            }
        }
        let query = apiserver::target::parse_query(Some(&body));
        let _ = bounded(&body, || Delete::from_query(Query::new(&query)))?;
    }

    /// What is written of a time that is read is read as the same.
    #[test]
    fn times(text in words(TIME)) {
        if let Ok(read) = bounded(&text, || time::read(&text))? {
            prop_assert_eq!(time::read(&read.to_string()).ok(), Some(read), "{:?}", text);
        }
    }

    #[test]
    fn durations(text in words(DURATION)) {
        let read = bounded(&text, || duration::parse(&text))?;
        prop_assert!(read.is_none() || !text.contains(' '), "{:?}", text);
    }

    /// Whatever is taken for an endpoint is written as it was, but for leading zeros.
    #[test]
    fn endpoints(text in words(ENDPOINT)) {
        if let Ok(read) = bounded(&text, || Endpoint::from_str(&text))? {
            let again = Endpoint::from_str(&read.to_string());
            prop_assert_eq!(again, Ok(read), "{:?}", text);
        }
    }

    #[test]
    fn quantities(text in words(QUANTITY)) {
        if let Some(read) = bounded(&text, || Quantity::parse(&text))? {
            prop_assert!(text.bytes().any(|byte| byte.is_ascii_digit()), "{:?}", text);
            read.rounded();
        }
    }

    #[test]
    fn versions(text in words(VERSION)) {
        if let Ok(read) = bounded(&text, || KubernetesVersion::from_str(&text))? {
            prop_assert_eq!(KubernetesVersion::from_str(&read.to_string()).ok(), Some(read));
        }
        let _ = bounded(&text, || Minor::from_str(&text))?;
    }
}
