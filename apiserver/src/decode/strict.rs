//! JSON and YAML readers that keep the last of two equal keys and say so.

use std::fmt;

use apiservice::told::{self, Paths, Place};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::parsed::{Parsed, Unreadable};
use crate::object::weight::{Meter, TooHeavy};

/// Parses JSON; the paths of keys given twice are reported (R6.4).
pub fn json(body: &[u8]) -> Result<Parsed, Unreadable> {
    let mut duplicates = Paths::default();
    let mut meter = Meter::default();
    let value = read_json(body, &mut Keeper::keeping(&mut duplicates, &mut meter));
    let value = value.map_err(|text| match meter.exceeded() {
        false => Unreadable::Syntax(text),
        true => Unreadable::TooMany,
    })?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_vec().iter().map(duplicate_field).collect(),
    })
}

/// What the tree of a JSON document will take, and whether [`json`] reads all of it: of what
/// comes after an error no tree is made.
///
/// # Errors
/// When that is more than `most`; it is read no further.
pub fn weigh_json(body: &[u8], most: usize) -> Result<(usize, bool), TooHeavy> {
    let mut meter = Meter::new(most);
    // What is wrong with it is told by whoever makes the tree.
    let read = read_json(body, &mut Keeper::weighing(&mut meter));
    Ok((meter.weighed()?, read.is_ok()))
}

fn read_json(body: &[u8], keeper: &mut Keeper<'_>) -> Result<Value, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("unexpected end of JSON input".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Seed::root(keeper).deserialize(&mut reader);
    let read = read.and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| error.to_string())
}

/// Parses the first document of a YAML stream, with YAML 1.1 booleans (R4.4). What comes
/// after it is not looked at, as by Kubernetes.
pub fn yaml(body: &[u8]) -> Result<Parsed, Unreadable> {
    use serde_saphyr::DuplicateKeyPolicy::{Error, LastWins};
    let parsed = |policy| {
        let (mut duplicates, mut meter) = (Paths::default(), Meter::default());
        let mut keeper = Keeper::keeping(&mut duplicates, &mut meter);
        let read = with_first(body, policy, Seed::root(&mut keeper));
        // No error is: it is too large as a tree.
        read.map_err(|error| (!meter.exceeded()).then_some(error))
    };
    match parsed(Error) {
        Ok(value) => Ok(Parsed {
            value,
            duplicates: Vec::new(),
        }),
        Err(None) => Err(Unreadable::TooMany),
        // Whatever was wrong: if it goes away with the last key winning, it
        // was a key given twice.
        Err(Some(strict)) if !last_wins_is_cheap(body) => {
            Err(Unreadable::Syntax(strict.to_string()))
        }
        Err(Some(strict)) => {
            let value = parsed(LastWins).map_err(|error| match error {
                Some(error) => Unreadable::Syntax(error.to_string()),
                None => Unreadable::TooMany,
            })?;
            Ok(Parsed {
                value,
                duplicates: vec![duplicate_key(&strict)],
            })
        }
    }
}

/// What the reader of YAML says of keys that the first document gives twice; no tree is
/// made of it.
pub fn yaml_duplicates(body: &[u8]) -> Vec<String> {
    use serde_saphyr::DuplicateKeyPolicy::Error;
    let mut meter = Meter::default();
    let mut keeper = Keeper::weighing(&mut meter);
    let read = with_first(body, Error, Seed::root(&mut keeper));
    read.err().iter().map(duplicate_key).collect()
}

/// What the tree of the first document of a YAML stream will take, as far as it can be read.
///
/// # Errors
/// When that is more than `most`; it is read no further.
pub fn weigh_yaml(body: &[u8], most: usize) -> Result<usize, TooHeavy> {
    use serde_saphyr::DuplicateKeyPolicy::{Error, LastWins};
    let weigh = |policy| {
        let mut meter = Meter::new(most);
        let mut keeper = Keeper::weighing(&mut meter);
        let read = with_first(body, policy, Seed::root(&mut keeper));
        (read.is_ok(), meter)
    };
    // What is wrong with it is told by whoever makes the tree, in the same two ways.
    let (whole, meter) = weigh(Error);
    let twice = !whole && !meter.exceeded() && last_wins_is_cheap(body);
    match twice {
        true => weigh(LastWins).1.weighed(),
        false => meter.weighed(),
    }
}

/// Bytes of a document that are kept once more by the reader, for each key that makes it keep
/// what is below.
const KEPT: usize = 1024 * 1024;
/// Such keys in the smallest document.
const KEEPING: usize = 64;

/// How many keys may make the reader keep all that is in their map, which it does anew at each
/// level: 88 bytes for each event, of which there is one in every two bytes.
fn keeping_keys(body: &[u8]) -> usize {
    (KEPT / body.len().max(1)).clamp(1, KEEPING)
}

/// Whether the document can be read with the last of equal keys winning. Where a key is an
/// integer the reader keeps its whole map for that, since `1` and `0x1` are the same; whatever
/// may be one is counted, however it is written.
fn last_wins_is_cheap(body: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(byte);
    let mut keys = 0;
    // Tags, aliases, anchors and keys that are no scalars.
    if body.iter().any(|byte| b"?!*&".contains(byte)) {
        keys += KEEPING;
    }
    for (at, byte) in body.iter().enumerate() {
        if *byte != b':' {
            continue;
        }
        let before = body[..at].trim_ascii_end();
        let word = before.iter().rev().take_while(|byte| is_word(byte)).count();
        let first = before[before.len() - word..].first();
        keys += usize::from(first.is_some_and(|it| it.is_ascii_digit() || b"+-".contains(it)));
        if keys > KEEPING {
            return false;
        }
    }
    keys <= keeping_keys(body)
}

fn duplicate_key(error: &serde_saphyr::Error) -> String {
    let line = error.location().map_or(0, |location| location.line());
    let key = match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => key.as_str(),
        _ => "",
    };
    let key = told::short(key, told::MAX_PATH);
    format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")
}

/// What a small YAML document may take in any case.
const SLACK: usize = 4096;
/// What aliases may stand for, and its nodes: the reader keeps them, 200 bytes each.
const ANCHORS: usize = 1_000;
const RECORDED: usize = 4096;
const BYTES_FOR_RECORDED: usize = 512;
/// Nodes that aliases repeat.
const REPLAYED: usize = 2_000;
const BYTES_FOR_REPLAYED: usize = 24;

/// Reads the first document of a stream and no further.
fn with_first<'de, S: DeserializeSeed<'de>>(
    body: &'de [u8],
    duplicate_keys: serde_saphyr::DuplicateKeyPolicy,
    seed: S,
) -> Result<S::Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        with_snippet: false,
        // Aliases repeat what they stand for: what is read must not be much more than
        // what was sent. Texts may be somewhat longer, by escapes and written tags.
        budget: serde_saphyr::budget! {
            max_total_scalar_bytes: 2 * body.len() + SLACK,
            max_anchors: ANCHORS,
            // What is merged is kept, level by level, as well.
            max_merge_keys: keeping_keys(body),
            max_recorded_anchor_bytes: 2 * body.len() + SLACK,
            max_recorded_anchor_events: RECORDED + body.len() / BYTES_FOR_RECORDED,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED + body.len() / BYTES_FOR_REPLAYED,
        },
    };
    let mut first = None;
    let read = serde_saphyr::with_deserializer_from_slice_with_options(body, options, |reader| {
        first = Some(seed.deserialize(reader)?);
        Ok(())
    });
    match (read, first) {
        (Ok(()), Some(first)) => Ok(first),
        (Err(error), Some(first)) if is_another_document(&error) => Ok(first),
        (Err(error), _) => Err(error),
        // The reader was not asked.
        (Ok(()), None) => Err(serde::de::Error::custom("no document")),
    }
}

fn is_another_document(error: &serde_saphyr::Error) -> bool {
    let error = error.without_snippet();
    matches!(error, serde_saphyr::Error::MultipleDocuments { .. })
}

fn duplicate_field(path: &String) -> String {
    format!("duplicate field {path:?}")
}

/// What comes of what is read. Whoever weighs reads as whoever parses does, so that what
/// one takes the other takes.
struct Keeper<'a> {
    /// Where keys are told that are given twice; nowhere while a document is only weighed.
    /// Then nothing is kept, and all lists, maps and texts that are read are null.
    duplicates: Option<&'a mut Paths>,
    /// What the tree takes.
    meter: &'a mut Meter,
}

impl<'a> Keeper<'a> {
    fn keeping(duplicates: &'a mut Paths, meter: &'a mut Meter) -> Self {
        Self {
            duplicates: Some(duplicates),
            meter,
        }
    }

    fn weighing(meter: &'a mut Meter) -> Self {
        Self {
            duplicates: None,
            meter,
        }
    }

    fn keeps(&self) -> bool {
        self.duplicates.is_some()
    }
}

struct Seed<'a, 'k> {
    path: &'a Place<'a>,
    keeper: &'a mut Keeper<'k>,
}

impl<'a, 'k> Seed<'a, 'k> {
    fn root(keeper: &'a mut Keeper<'k>) -> Self {
        Self {
            path: &Place::Root,
            keeper,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        let number = Number::from_i128(value).ok_or_else(|| E::custom(OUT_OF_RANGE))?;
        Ok(Value::Number(number))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        let number = Number::from_u128(value).ok_or_else(|| E::custom(OUT_OF_RANGE))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.keeper.meter.text(value.len()).map_err(heavy)?;
        Ok(match self.keeper.keeps() {
            true => Value::from(value),
            false => Value::Null,
        })
    }

    fn visit_string<E: Error>(self, mut value: String) -> Result<Value, E> {
        self.keeper.meter.text(value.len()).map_err(heavy)?;
        value.shrink_to_fit();
        Ok(match self.keeper.keeps() {
            true => Value::String(value),
            false => Value::Null,
        })
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let mut count = 0;
        loop {
            let seed = Seed {
                path: &Place::Index(self.path, count),
                keeper: &mut *self.keeper,
            };
            let Some(item) = items.next_element_seed(seed)? else {
                break;
            };
            self.keeper.meter.element(count).map_err(heavy)?;
            count += 1;
            if self.keeper.keeps() {
                list.push(item);
            }
        }
        Ok(match self.keeper.keeps() {
            true => Value::Array(list),
            false => Value::Null,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut count = 0;
        while let Some(mut key) = entries.next_key::<String>()? {
            self.keeper.meter.text(key.len()).map_err(heavy)?;
            self.keeper.meter.entry(count).map_err(heavy)?;
            count += 1;
            let place = Place::Field(self.path, &key);
            if let Some(duplicates) = &mut self.keeper.duplicates
                && map.contains_key(&key)
            {
                duplicates.add(&place);
            }
            let seed = Seed {
                path: &place,
                keeper: &mut *self.keeper,
            };
            let value = entries.next_value_seed(seed)?;
            if self.keeper.keeps() {
                key.shrink_to_fit();
                map.insert(key, value);
            }
        }
        Ok(match self.keeper.keeps() {
            true => Value::Object(map),
            false => Value::Null,
        })
    }
}

fn heavy<E: Error>(_: TooHeavy) -> E {
    E::custom("too many maps and lists")
}

/// As `serde_json` says it.
const OUT_OF_RANGE: &str = "JSON number out of range";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{MAX_STRICT, Media, parse, weigh};
    use crate::object::weight::{self, BODY_TREE as TREE};
    use serde_json::json;

    /// R4.4, R6.4.
    #[test]
    fn duplicates_are_found_and_the_last_wins() {
        let parsed =
            json(br#"{"spec":{"a":1,"a":2,"l":[{"x":1,"x":3}]},"n":18446744073709551615}"#)
                .unwrap();
        assert_eq!(parsed.value["spec"]["a"], 2);
        assert_eq!(parsed.value["spec"]["l"][0]["x"], 3);
        assert_eq!(
            parsed.duplicates,
            [
                "duplicate field \"spec.a\"",
                "duplicate field \"spec.l[0].x\""
            ]
        );
        assert!(json(b"").is_err());
        assert!(json(b"{} {}").is_err());
    }

    /// One large body that has a duplicate at every element: before the cap
    /// and the set, this took minutes and hundreds of megabytes.
    #[test]
    fn duplicates_are_reported_up_to_the_cap() {
        let body = format!(
            "{{\"k\":[{}]}}",
            vec![r#"{"a":"one","a":2,"b":"three"}"#; 12_000].join(",")
        );
        let parsed = json(body.as_bytes()).unwrap();
        assert_eq!(parsed.duplicates.len(), MAX_STRICT);
        assert_eq!(parsed.duplicates[99], "duplicate field \"k[99].a\"");
        assert_eq!(parsed.value["k"][11_999]["a"], 2);
    }

    /// Six bytes that take a hundred times as much: refused before there is a tree of them,
    /// and by who makes one as well.
    #[test]
    fn a_body_takes_no_more_memory_than_it_may() {
        let chain = format!("{}0{}", r#"{"":"#.repeat(60), "}".repeat(60));
        let list = |count: usize| format!("[{}]", vec![chain.as_str(); count].join(","));
        let maps = |count: usize| format!("[{}]", vec!["{a: {b: 0}}"; count].join(", "));
        let block = |count: usize| format!("a:\n{}", "- b:\n    c: d\n".repeat(count));
        for (media, fits, many) in [
            (Media::Json, list(250), list(500)),
            (Media::Json, list(250), list(500) + "]"),
            (Media::Yaml, maps(7_500), maps(20_000)),
            (Media::Yaml, block(7_500), block(20_000)),
            // An error after it is no way around.
            (Media::Yaml, maps(7_500), maps(20_000) + "\n]"),
        ] {
            let (fits, many) = (fits.as_bytes(), many.as_bytes());
            let weight = weigh(media, fits, TREE).unwrap();
            assert!((TREE / 2..TREE).contains(&weight), "{weight}");
            assert_eq!(weigh(media, many, TREE), Err(TooHeavy));
            let parsed = parse(media, fits).unwrap();
            assert_eq!(weight::of(&parsed.value, TREE), Ok(weight));
            assert!(matches!(parse(media, many), Err(Unreadable::TooMany)));
        }
        let failure = Unreadable::TooMany.or(|_| unreachable!());
        assert_eq!(failure.code().as_u16(), 413);
        assert_eq!(
            failure.to_string(),
            "Request entity too large: the body has too many maps and lists: it would take more than 12 MiB of memory"
        );
        assert!(matches!(json(b"{"), Err(Unreadable::Syntax(_))));
    }

    /// Whatever follows it is no reason to hold it, or to refuse the first.
    /// R4.4.
    #[test]
    fn further_documents_are_not_read() {
        let many = vec!["{a: {b: 0}}"; 20_000].join(", ");
        for rest in ["", "b: 2\n", "b: [\n", "b: *none", many.as_str()] {
            let body = format!("---\na: 1\n---\n{rest}");
            let parsed = yaml(body.as_bytes()).unwrap();
            assert_eq!(parsed.value, json!({"a": 1}), "{rest:.20}");
            let weight = weigh(Media::Yaml, body.as_bytes(), TREE).unwrap();
            assert!(weight < 1_000, "{weight}");
        }
        for (body, value) in [
            ("", Value::Null),
            ("# x\n", Value::Null),
            ("---\n---\na: 1\n", Value::Null),
        ] {
            assert_eq!(yaml(body.as_bytes()).unwrap().value, value, "{body:?}");
        }
        for garbage in ["{a: 1} x", "a: 1\n]", "a: 1\n...\n---\n"] {
            assert_eq!(yaml(garbage.as_bytes()).is_ok(), garbage.contains("..."));
        }
    }

    /// A text that is sent once and stands for a thousand.
    #[test]
    fn aliases_do_not_multiply_a_body() {
        let large = "x".repeat(64 * 1024);
        let mut body = format!("annotations:\n  k: &a {large}\n");
        (0..100).for_each(|n| body += &format!("  d{n}: &d{n} x\n"));
        assert!(yaml(body.as_bytes()).is_ok());
        (0..1_000).for_each(|n| body += &format!("  k{n}: *a\n"));
        assert!(matches!(yaml(body.as_bytes()), Err(Unreadable::Syntax(_))));
        let list = vec!["{a: 0}"; 900].join(", ");
        let mut body = format!("a: &a [{list}]\n");
        assert!(yaml(body.as_bytes()).is_ok());
        (0..20).for_each(|n| body += &format!("k{n}: *a\n"));
        assert!(matches!(yaml(body.as_bytes()), Err(Unreadable::Syntax(_))));
        // A few of them are what people write.
        let parsed = yaml(b"a: &a {x: 1, y: [2]}\nb: *a\nc:\n  <<: *a\n  x: 3\n").unwrap();
        assert_eq!(
            parsed.value,
            json!({"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}})
        );
    }

    /// R4.4, R6.4.
    #[test]
    fn yaml_documents() {
        let parsed = yaml(b"a: yes\nb: 1\nc: 'no'\n---\nd: 1\n").unwrap();
        assert_eq!(parsed.value, json!({"a": true, "b": 1, "c": "no"}));
        assert!(parsed.duplicates.is_empty());
        let parsed = yaml(b"spec:\n  a: 1\n  a: 2\n").unwrap();
        assert_eq!(parsed.value, json!({"spec": {"a": 2}}));
        assert_eq!(
            parsed.duplicates,
            ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]
        );
        assert!(yaml(b"a: [").is_err());
        // Deeper than any stack: an error and not the end of the process.
        for deep in ["[".repeat(500_000), "- ".repeat(500_000)] {
            assert!(yaml(deep.as_bytes()).is_err());
            assert!(json(deep.as_bytes()).is_err());
        }
    }
}
