use serde_json::json;

use super::pointer::place;
use super::*;

fn run(document: Value, operations: Value) -> Result<Value, String> {
    let (patch, _) =
        super::json(operations.to_string().as_bytes()).map_err(|failure| failure.to_string())?;
    let mut document = document;
    patch
        .apply(&mut document)
        .map_err(|error| error.to_string())?;
    Ok(document)
}

/// What is short to say and long to do: many operations on a list or a value that
/// is large.
#[test]
fn the_work_of_a_patch_is_bounded() {
    let document = json!({"l": vec![0; 100_000], "a": {"x": vec![0; 100_000]}});
    let insert = json!({"op": "add", "path": "/l/0", "value": 1});
    let remove = json!({"op": "remove", "path": "/l/0"});
    let maps = json!({"m": vec![json!({}); 4_000]});
    let from = json!({"op": "move", "from": "/m", "path": "/n"});
    let to = json!({"op": "move", "from": "/n", "path": "/m"});
    let moves: Vec<&Value> = [&from, &to].into_iter().cycle().take(200).collect();
    let refused = run(maps, json!(moves)).unwrap_err();
    assert!(refused.contains("move too much"), "{refused}");
    let there = json!({"op": "move", "from": "/a", "path": "/b"});
    let back = json!({"op": "move", "from": "/b", "path": "/a"});
    for pair in [[&insert, &insert], [&insert, &remove], [&there, &back]] {
        let few: Vec<&Value> = pair.into_iter().cycle().take(100).collect();
        run(document.clone(), json!(few)).unwrap();
        let many: Vec<&Value> = pair.into_iter().cycle().take(10_000).collect();
        let refused = run(document.clone(), json!(many)).unwrap_err();
        assert!(refused.contains("move too much"), "{refused}");
    }
}

/// Short maps, copied: each takes a hundred times what its text does.
#[test]
fn copies_take_no_more_memory_than_they_may() {
    let document = json!({"few": vec![json!({"": 0}); 500], "x": []});
    let copy = json!({"op": "copy", "from": "/few", "path": "/x/-"});
    run(document.clone(), json!(vec![&copy; 15])).unwrap();
    let refused = run(document, json!(vec![&copy; 200])).unwrap_err();
    assert!(refused.contains("too much memory"), "{refused}");
}

/// R3.57.
#[test]
fn json_patches() {
    let document = json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 0});
    let cases = [
        (
            json!([{"op": "add", "path": "/a/c", "value": null}]),
            Some(json!({"a": {"b": 1, "c": null}, "l": [1, 2, 3], "x/y": 0})),
        ),
        (
            json!([{"op": "add", "path": "/l/-", "value": 4}]),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3, 4], "x/y": 0})),
        ),
        (
            json!([{"op": "add", "path": "/l/0", "value": 0}]),
            Some(json!({"a": {"b": 1}, "l": [0, 1, 2, 3], "x/y": 0})),
        ),
        (json!([{"op": "add", "path": "/l/9", "value": 0}]), None),
        (json!([{"op": "add", "path": "/q/c", "value": 0}]), None),
        (
            json!([{"op": "remove", "path": "/l/-1"}]),
            Some(json!({"a": {"b": 1}, "l": [1, 2], "x/y": 0})),
        ),
        (json!([{"op": "remove", "path": "/q"}]), None),
        (
            json!([{"op": "replace", "path": "/x~1y", "value": 5}]),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 5})),
        ),
        // As the library of Kubernetes does: what a map does not have is added.
        (
            json!([{"op": "replace", "path": "/q", "value": 5}]),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3], "x/y": 0, "q": 5})),
        ),
        (json!([{"op": "replace", "path": "/l/3", "value": 5}]), None),
        (
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            Some(json!({"a": {}, "c": 1, "l": [1, 2, 3], "x/y": 0})),
        ),
        (
            json!([{"op": "copy", "from": "/a", "path": "/c"}]),
            Some(json!({"a": {"b": 1}, "c": {"b": 1}, "l": [1, 2, 3], "x/y": 0})),
        ),
        (
            json!([{"op": "test", "path": "/a/b", "value": 1}]),
            Some(document.clone()),
        ),
        (json!([{"op": "test", "path": "/a/b", "value": 2}]), None),
        (
            json!([{"op": "test", "path": "/q", "value": null}]),
            Some(document.clone()),
        ),
        (json!([{"op": "what", "path": "/q"}]), None),
        (json!([{"op": "add", "path": "/q"}]), None),
    ];
    for (operations, expected) in cases {
        assert_eq!(
            run(document.clone(), operations.clone()).ok(),
            expected,
            "{operations}"
        );
    }
}

/// R3.57: of what is not there, a client that gives null and one that gives nothing are
/// the same; an expression that gives null asks for something else, as in Kubernetes.
#[test]
fn tests_of_what_is_not_there() {
    let document = || json!({"a": null, "b": 1});
    for path in ["/a", "/q"] {
        for operation in [
            json!([{"op": "test", "path": path, "value": null}]),
            json!([{"op": "test", "path": path}]),
        ] {
            assert!(run(document(), operation.clone()).is_ok(), "{operation}");
        }
        let made = |value: Option<Value>| {
            let made = Operation::new("test", path.to_owned(), None, value).unwrap();
            Patch::Json(vec![made]).apply(&mut document())
        };
        assert_eq!(made(None), Ok(()));
        let untrue = Err(Inapplicable::Untrue(path.to_owned()));
        assert_eq!(made(Some(Value::Null)), untrue);
        assert_eq!(made(Some(json!(1))), untrue);
    }
    let operation = json!([{"op": "test", "path": "/b", "value": null}]);
    assert!(run(document(), operation).is_err());
}

/// However long a path is, it is read no further than it leads, and told in part.
#[test]
fn long_paths_lead_nowhere() {
    let long = "/".repeat(3_000_000);
    for op in ["remove", "test", "add", "replace", "copy", "move"] {
        let operation = json!([{"op": op, "path": long, "from": long, "value": 1}]);
        let refused = run(json!({"a": {"": 1}}), operation).unwrap_err();
        assert!(refused.len() < 2 * told::MAX_TEXT, "{}", refused.len());
    }
    let deep = "/a".repeat(70);
    let found = place(&mut json!({"a": {}}), &deep).map(|found| found.key);
    assert_eq!(found, None);
    let found = place(&mut json!({"a": {"b~/": {}}}), "/a/b~0~1/c").map(|found| found.key);
    assert_eq!(found.as_deref(), Some("c"));
}

/// A list in a list, this many of them.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

#[test]
fn depth_is_bounded_at_every_operation() {
    // At depth 2 of the document: 62 levels fit, 63 do not.
    for op in ["add", "replace"] {
        let operation = |levels| json!([{"op": op, "path": "/a/b", "value": nested(levels)}]);
        assert!(run(json!({"a": {"b": 1}}), operation(62)).is_ok());
        let error = run(json!({"a": {"b": 1}}), operation(63)).unwrap_err();
        assert_eq!(error, "the object is nested deeper than 64 levels");
    }
    // Each copy doubles the depth; a few of them would exhaust any stack.
    let (mut document, mut doubling) = (json!({"a": {"b": {}}}), Vec::new());
    let mut end = "/a/b".to_owned();
    for _ in 0..18 {
        doubling.push(json!({"op": "copy", "from": "/a", "path": format!("{end}/c")}));
        let below = end["/a".len()..].to_owned();
        end = format!("{end}/c{below}");
        if end.len() > 4000 {
            break;
        }
    }
    let (patch, _) = super::json(json!(doubling).to_string().as_bytes()).unwrap();
    assert_eq!(patch.apply(&mut document), Err(Inapplicable::TooDeep));
    assert!(!depth::exceeds(&document, depth::MAX_DEPTH));
    let (patch, _) = merge(json!({"a": nested(64)}).to_string().as_bytes()).unwrap();
    assert_eq!(patch.apply(&mut json!({})), Err(Inapplicable::TooDeep));
}

/// R3.58.
#[test]
fn merge_patches() {
    // The table of RFC 7386, appendix A, as far as the patch is an object.
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [{"b": "c"}]}),
            json!({"a": [1]}),
            json!({"a": [1]}),
        ),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ];
    for (mut document, patch, expected) in cases {
        let (patch, _) = merge(patch.to_string().as_bytes()).unwrap();
        patch.apply(&mut document).unwrap();
        assert_eq!(document, expected);
    }
    assert!(merge(b"[]").is_err());
}

/// R3.56, R6.4.
#[test]
fn strict_reports_and_limits() {
    let (_, strict) = super::json(br#"[{"op":"remove","op":"remove","path":"/a","x":1}]"#).unwrap();
    assert_eq!(
        strict,
        [
            "json patch duplicate field \"[0].op\"",
            "json patch unknown field \"[0].x\""
        ]
    );
    let many: Vec<Value> = (0..10_001)
        .map(|_| json!({"op": "remove", "path": "/a"}))
        .collect();
    let failure = super::json(json!(many).to_string().as_bytes()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}
