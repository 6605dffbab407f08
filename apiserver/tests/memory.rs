//! What a document takes once it is a tree is what it is weighed as (`object::weight`),
//! measured: each case is read in a process of its own, with the allocator of the server.

use std::process::Command;

use apiserver::audit::body::{Left, MOST, Room};
use apiserver::decode::{self, Media};
use apiserver::object::weight;
use apiserver::policy::cel::{self, Program};
use apiserver::protobuf::list;
use apiserver::protobuf::meta::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference, PartialObjectMetadata, Text,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CASE: &str = "STEWARD_TEST_CASE";
const MIB: usize = 1024 * 1024;
/// What is not of the tree: pages that are half used, and the reader itself.
const SLACK: usize = 4 * MIB;

type Piece = fn(usize) -> String;

/// Pieces of bodies that take far more than their length, or are what people write.
const CASES: &[(&str, Media, Piece)] = &[
    ("maps", Media::Json, |_| r#"{"":0}"#.into()),
    ("lists", Media::Json, |_| "[0]".into()),
    ("numbers", Media::Json, |_| "0".into()),
    ("texts", Media::Json, |_| r#""x""#.into()),
    ("chains", Media::Json, |_| {
        format!("{}0{}", r#"{"":"#.repeat(60), "}".repeat(60))
    }),
    ("wide maps", Media::Json, |n| {
        let entries: Vec<String> = (0..2_000).map(|m| format!(r#""{m:x}":{n}"#)).collect();
        format!("{{{}}}", entries.join(","))
    }),
    ("variables", Media::Json, |n| {
        format!(r#"{{"name":"LOG_LEVEL_{n}","value":"debug"}}"#)
    }),
    ("managed fields", Media::Json, |n| {
        format!(
            r#"{{"k:{{\"name\":\"c{n}\"}}":{{".":{{}},"f:image":{{}},"f:name":{{}},"f:resources":{{"f:limits":{{".":{{}},"f:cpu":{{}},"f:memory":{{}}}}}},"f:terminationMessagePath":{{}}}}}}"#
        )
    }),
    ("YAML maps", Media::Yaml, |_| "{a: 0}".into()),
    ("YAML texts", Media::Yaml, |_| "\"\\x41bc\"".into()),
    ("YAML variables", Media::Yaml, |n| {
        format!("\n    {{name: LOG_LEVEL_{n}, value: \"debug\"}}")
    }),
    ("YAML anchors", Media::Yaml, |n| format!("&a{n} {{a: 0}}")),
    ("applied maps", Media::Either, |_| r#"{"a":{"b":0}}"#.into()),
    ("applied YAML", Media::Either, |_| "{a: {b: 0}}".into()),
    // Some readers of JSON take such a number, others do not.
    (
        "applied after an infinite number",
        Media::Either,
        |n| match n {
            0 => "17976931348623158e292".into(),
            _ => r#"{"a":{"b":0}}"#.into(),
        },
    ),
    ("applied with keys given twice", Media::Either, |_| {
        r#"{"a":{"b":0},"a":{"b":0}}"#.into()
    }),
];

fn body(piece: Piece, count: usize) -> String {
    let pieces: Vec<String> = (0..count).map(piece).collect();
    format!("[{}]", pieces.join(", "))
}

/// The largest body of a kind that may be sent.
fn largest(media: Media, piece: Piece) -> String {
    let fits = |count: usize| {
        let body = body(piece, count);
        let fits = decode::weigh(media, body.as_bytes(), weight::BODY_TREE).is_ok();
        (fits && body.len() < decode::BODY).then_some(body)
    };
    let mut count = 1;
    while fits(2 * count).is_some() {
        count *= 2;
    }
    let (mut low, mut high) = (count, 2 * count);
    while high - low > low / 50 + 1 {
        let middle = low.midpoint(high);
        match fits(middle).is_some() {
            true => low = middle,
            false => high = middle,
        }
    }
    fits(low).unwrap()
}

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

/// Reads one body, and says what that took.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how a test tells itself its case"
)]
fn child() {
    let Ok(path) = std::env::var(CASE) else {
        return;
    };
    let body = std::fs::read(&path).unwrap();
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    let media = match extension {
        Some("yaml" | "weighed") => Media::Yaml,
        Some("json") => Media::Json,
        Some("pb" | "answer") => Media::Protobuf,
        _ => Media::Either,
    };
    // The largest it has been is what it is now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    // What cannot be read to its end took something as well.
    let read: Box<dyn std::any::Any> = match extension {
        Some("answer") => Box::new(Room::default().record(media, &body, false)),
        Some("cel") => Box::new(Program::compile(
            std::str::from_utf8(&body).unwrap(),
            &["a", "object"],
        )),
        Some("weighed") => Box::new(decode::weigh(media, &body, weight::BODY_TREE).ok()),
        _ => Box::new(decode::parse(media, &body)),
    };
    let took = status("VmHWM:").saturating_sub(before);
    std::fs::write(format!("{path}.took"), took.to_string()).unwrap();
    drop(read);
}

fn took(media: Media, body: &[u8]) -> usize {
    took_as(
        match media {
            Media::Yaml => "body.yaml",
            Media::Json => "body.json",
            Media::Protobuf => "body.pb",
            Media::Either => "body",
        },
        body,
    )
}

fn took_as(name: &str, body: &[u8]) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, body).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(CASE, &path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let told = directory.path().join(format!("{name}.took"));
    std::fs::read_to_string(told).unwrap().parse().unwrap()
}

/// Keys for which the reader of YAML keeps all that is below them, level by level: integers,
/// where the last of equal keys wins, and what is merged.
#[test]
fn what_a_reader_keeps_for_a_key_is_not_kept_at_each_level() {
    const LEVELS: usize = 60;
    let list = "[],".repeat(100_000);
    // A key given twice, before all or after it.
    for (name, key, first, last) in [
        ("integers", "{1: ", "", ", a: 0, a: 0"),
        ("integers after all", "{1: ", "a: 0, a: 0, ", ""),
        ("written otherwise", "{? 0x1 : ", "", ", a: 0, a: 0"),
        ("with tags", "{!!int \"1\": ", "", ", a: 0, a: 0"),
        ("alone", "{1: ", "", ""),
        ("merged", "{<<: ", "", ""),
        ("merged, and twice", "{<<: ", "", ", a: 0, a: 0"),
    ] {
        let (open, close) = (key.repeat(LEVELS - 1), "}".repeat(LEVELS - 1));
        let body = format!("{{{first}b: {open}[{list}]{close}{last}}}");
        for extension in ["body.yaml", "body.weighed"] {
            let took = took_as(extension, body.as_bytes());
            eprintln!("{name}, {extension}: {} KiB", took / 1024);
            assert!(took < 128 * MIB, "{name}, {extension}: {} MiB", took / MIB);
        }
    }
}

#[test]
fn a_tree_takes_what_it_is_weighed_as() {
    for (name, media, piece) in CASES {
        let body = largest(*media, *piece);
        let weighed = decode::weigh(*media, body.as_bytes(), weight::BODY_TREE).unwrap();
        // What reader and allocator take for themselves shows with a sixteenth of it.
        let few = self::body(*piece, body.len() / 16 / self::body(*piece, 1).len());
        let weighed_few = decode::weigh(*media, few.as_bytes(), weight::BODY_TREE).unwrap();
        let itself = took(*media, few.as_bytes()).saturating_sub(weighed_few);
        let took = took(*media, body.as_bytes());
        let times = |bytes: usize| bytes as f64 / body.len() as f64;
        eprintln!(
            "{name}: {} KiB, weighed {:.1} times as much, took {:.1} times as much",
            body.len() / 1024,
            times(weighed),
            times(took),
        );
        let most = itself + weighed + 2 * body.len() + SLACK;
        assert!(took <= most, "{name}: {took} of {most}");
        // And not far less: what is real must not be refused for nothing.
        assert!(2 * took + SLACK >= weighed, "{name}: {took} of {weighed}");
    }
}

/// Of a message each piece is a map or a list element; the heaviest of them.
#[test]
fn a_message_takes_no_more_than_it_is_weighed_as() {
    for (name, piece) in [
        ("labels", &[0x5a, 0][..]),
        ("owners", &[0x6a, 0]),
        ("finalizers", &[0x72, 0]),
        ("managers", &[0x8a, 0x01, 0]),
    ] {
        let metadata = piece.repeat((Media::Protobuf.longest() - 64) / piece.len());
        let mut scale = vec![0x0a];
        prost::encoding::encode_varint(metadata.len() as u64, &mut scale);
        scale.extend(metadata);
        let mut body = b"k8s\0\x0a\x17\x0a\x0eautoscaling/v1\x12\x05Scale\x12".to_vec();
        prost::encoding::encode_varint(scale.len() as u64, &mut body);
        body.extend(scale);
        decode::parse(Media::Protobuf, &body).unwrap();
        let weighed = decode::weigh(Media::Protobuf, &body, weight::BODY_TREE).unwrap();
        let took = took(Media::Protobuf, &body);
        eprintln!("{name}: weighed {weighed}, took {took}");
        assert!(took <= weighed + SLACK, "{name}: {took} of {weighed}");
    }
}

/// Metadata with so many entries of a kind, each as short as our encoder makes it.
fn item(kind: &str, count: usize) -> PartialObjectMetadata {
    let mut metadata = ObjectMeta::default();
    let text = |n: usize| Text {
        key: format!("{n:x}"),
        value: String::new(),
    };
    match kind {
        "owners" => metadata.owner_references = vec![OwnerReference::default(); count],
        "finalizers" => metadata.finalizers = vec![String::new(); count],
        "managers" => metadata.managed_fields = vec![ManagedFieldsEntry::default(); count],
        _ => metadata.annotations = (0..count).map(text).collect(),
    }
    PartialObjectMetadata { metadata }
}

/// A list of such items, of about so many bytes together.
fn answer(item: &PartialObjectMetadata, bytes: usize) -> Vec<u8> {
    let entry = list::entry(item);
    let items = entry.repeat((bytes / entry.len()).max(1));
    let (head, tail) = list::around("meta.k8s.io/v1", &Default::default(), items.len());
    [&head[..], &items, &tail].concat()
}

/// The body of an answer in protobuf is read for its event, and is not weighed as what
/// clients send: ten bytes of an owner become a map of four texts.
#[test]
fn an_answer_takes_no_more_for_its_event_than_a_body() {
    for (kind, short) in [
        ("owners", 10),
        ("finalizers", 2),
        ("managers", 13),
        ("annotations", 11),
    ] {
        // One item that is not read, many that are nearly so, and many short ones.
        for (entries, bytes) in [(3 * MIB, 1), (180 * 1024, MOST), (100, MOST), (100, MIB)] {
            let body = answer(&item(kind, entries / short), bytes);
            let took = took_as("body.answer", &body);
            let left = Room::default().record(Media::Protobuf, &body, true).err();
            eprintln!("{kind}: {} bytes took {took}, {left:?}", body.len());
            // The tree of one item, and the text of all, which doubles while it grows and is
            // written anew.
            assert!(took <= 2 * weight::BODY_TREE + 4 * MOST, "{kind}: {took}");
            assert!(
                entries != 3 * MIB || left == Some(Left::TooMuch),
                "{left:?}"
            );
        }
    }
    let body = answer(&item("annotations", 10), MIB);
    Room::default()
        .record(Media::Protobuf, &body, true)
        .unwrap();
}

/// Half a MiB of what has most maps of all that people write is not refused.
#[test]
fn real_objects_of_half_a_mebibyte_pass() {
    for name in ["variables", "managed fields", "YAML variables"] {
        let (_, media, piece) = CASES.iter().find(|case| case.0 == name).unwrap();
        let one = body(*piece, 1_000).len() / 1_000;
        let body = body(*piece, MIB / 2 / one);
        assert!(body.len() > MIB / 2 - MIB / 20);
        let weighed = decode::weigh(*media, body.as_bytes(), weight::BODY_TREE);
        eprintln!("{name}: {} bytes, weighed {weighed:?}", body.len());
        decode::parse(*media, body.as_bytes()).unwrap();
        weighed.unwrap();
    }
}

/// Expressions of policies that the parser takes most for: 64 KiB, each.
#[test]
fn an_expression_takes_no_more_than_is_counted_for_reading_it() {
    const LONGEST: usize = 64 * 1024;
    let filled = |first: &str, piece: &str, last: &str| {
        let count = (LONGEST - first.len() - last.len()) / piece.len();
        format!("{first}{}{last}", piece.repeat(count))
    };
    for (name, expression) in [
        ("list", filled("[1", ",1", "]")),
        ("map", filled("{0:0", ",0:0", "}")),
        ("sum", filled("1", "+1", "")),
        ("and", filled("a", "&&a", "")),
        ("index", filled("a", "[0]", "")),
        ("fields", filled("object", ".a", "")),
        ("not", filled("", "!", "a")),
        ("conditional", filled("", "a?a:", "a")),
    ] {
        let took = took_as("expression.cel", expression.as_bytes());
        eprintln!("{name}: {} KiB", took / 1024);
        assert!(took < cel::READING, "{name}: {} MiB", took / MIB);
    }
}
