//! Expressions of admission as Kubernetes evaluates them: those of `cases.txt` are evaluated by
//! `apiserver::policy::cel` and by the libraries of kube-apiserver 1.36, and every value and
//! every error is compared.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use apiserver::policy::cel::{
    Answer, Budget, POLICY, Program, Question, Resolve, ResourceCheck, Text, Unusable, Val, Who,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::lab::directories::Directories;
use tests::lab::programs::EXPRESSIONS;

/// What Kubernetes says of an expression.
#[derive(Debug, Deserialize)]
struct Theirs {
    value: String,
    error: String,
    /// Whether it was found wrong before it was evaluated.
    uncompiled: bool,
}

/// Kubernetes' answers.
fn theirs(object: &Value, expressions: &[&str]) -> Vec<Theirs> {
    let directories = Directories::from_environment().unwrap();
    {
        let _lock = directories.lock_cache(&mut |_| {}).unwrap();
        EXPRESSIONS
            .build(&directories, &mut |line| println!("{line}"))
            .unwrap();
    }
    let mut child = Command::new(EXPRESSIONS.path(&directories, "expressions"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = format!("{object}\n");
    for expression in expressions {
        lines.push_str(&format!("{}\n", Value::from(*expression)));
    }
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let answers = text.lines().map(|line| serde_json::from_str(line).unwrap());
    answers.collect()
}

/// The same request, and the same judge, for ours.
struct Subjects<'a>(&'a Value);

impl<'a> Resolve<'a> for Subjects<'a> {
    fn resolve(&self, name: &str) -> Option<Result<Val<'a>, Unusable>> {
        match name {
            "object" => Some(Ok(Val::from(self.0))),
            "authorizer" => Some(Ok(Val::authorizer(ResourceCheck {
                group: Text::Borrowed("example.com"),
                resource: Text::Borrowed("things"),
                subresource: Text::Borrowed("scale"),
                namespace: Text::Borrowed("n"),
                name: Text::Borrowed("one"),
                ..ResourceCheck::default()
            }))),
            _ => None,
        }
    }

    fn ask(&self, question: Question) -> Result<Arc<Answer>, Unusable> {
        let (user, groups) = match &question.who {
            Who::Caller => ("anna".to_owned(), "g h".to_owned()),
            Who::ServiceAccount { namespace, name } => (
                format!("system:serviceaccount:{namespace}:{name}"),
                format!("system:serviceaccounts system:serviceaccounts:{namespace}"),
            ),
        };
        let path = question.path.as_deref().unwrap_or_default();
        let texts = [
            &user,
            &groups,
            &question.verb,
            &question.group,
            &question.resource,
            &question.subresource,
            &question.namespace,
            &question.name,
            path,
        ];
        let failed = question.verb.starts_with("fail");
        Ok(Arc::new(Answer {
            allowed: question.verb.starts_with("get"),
            reason: texts.join("|"),
            error: match failed {
                true => "broken".to_owned(),
                false => String::new(),
            },
        }))
    }
}

fn shown(value: &Val<'_>) -> String {
    let all = |items: Vec<String>| items.join(", ");
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => format!("{number}u"),
        Val::Double(number) => format!("double {:016x}", number.to_bits()),
        Val::Text(text) => Value::from(&**text).to_string(),
        Val::Bytes(bytes) => format!("bytes {}", hex::encode(bytes)),
        Val::Optional(None) => "none".to_owned(),
        Val::Optional(Some(inner)) => format!("some {}", shown(inner)),
        Val::Time(time) => format!("time {time}"),
        Val::Duration(duration) => format!("duration {}", duration.as_nanos()),
        Val::Url(url) => format!("url {}", url.text()),
        Val::Type(name) => format!("type {name}"),
        list if list.is_list() => {
            format!(
                "[{}]",
                all(list.listed().map(|item| shown(&item)).collect())
            )
        }
        map if map.is_map() => {
            let pairs = map.pairs().unwrap();
            let pairs = pairs.map(|(key, value)| format!("{}: {}", shown(&key), shown(&value)));
            let mut pairs: Vec<String> = pairs.collect();
            pairs.sort();
            format!("{{{}}}", all(pairs))
        }
        other => format!("of {}", other.type_name()),
    }
}

fn ours(object: &Value, expression: &str) -> Result<String, String> {
    let program = Program::compile(expression, &["object", "authorizer"]);
    let value = program.value(&Subjects(object), &Budget::new(POLICY));
    value
        .map(|value| shown(&value))
        .map_err(|why| why.to_string())
}

/// An error without what Go says of the types of values.
fn words(error: &str) -> &str {
    const KNOWN: [&str; 4] = [
        "no such overload",
        "unsupported conversion to ref.Val",
        "value type: unsupported type conversion",
        "value type: unsupported native conversion",
    ];
    let end = KNOWN.iter().find_map(|known| {
        let at = error.find(known)?;
        Some(at + known.len())
    });
    &error[..end.unwrap_or(error.len())]
}

#[test]
fn expressions_are_evaluated_as_by_kubernetes() {
    let object = json!({"a": "b", "n": 3, "half": 0.5, "list": [3, 1, 2], "none": null});
    let cases = include_str!("cases.txt").lines();
    let cases = cases.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases: Vec<&str> = cases.collect();
    let theirs = theirs(&object, &cases);
    assert_eq!(theirs.len(), cases.len());
    let (mut values, mut errors, mut wrong) = (0, 0, Vec::new());
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = ours(&object, case);
        let same = match &ours {
            // What has wrong types cannot be in a policy that is stored.
            _ if theirs.uncompiled && !theirs.error.contains("undeclared reference") => continue,
            Ok(value) => {
                values += 1;
                theirs.error.is_empty() && *value == theirs.value
            }
            Err(_) if theirs.uncompiled => true,
            Err(why) => {
                errors += 1;
                !theirs.error.is_empty() && words(why) == words(&theirs.error)
            }
        };
        if !same {
            wrong.push(format!("{case}\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A comparison in which nothing happens proves nothing.
    assert!(values > 250 && errors > 30, "{values} {errors}");
}
