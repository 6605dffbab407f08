//! Kubernetes' own library, behind a pipe, and the comparison with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tests::lab::directories::Directories;
use tests::lab::programs::MANAGED_FIELDS;

/// One operation, as the program reads it.
#[derive(Debug)]
pub struct Operation {
    pub op: &'static str,
    pub api_version: String,
    pub kind: &'static str,
    pub subresource: &'static str,
    pub ignored: &'static [&'static str],
    pub live: Option<Value>,
    pub new: Value,
    pub manager: String,
    pub force: bool,
    pub now: Timestamp,
    pub path: &'static [&'static str],
}

impl Default for Operation {
    fn default() -> Self {
        Self {
            op: "",
            api_version: String::new(),
            kind: "",
            subresource: "",
            ignored: &[],
            live: None,
            new: Value::Null,
            manager: String::new(),
            force: false,
            now: Timestamp::UNIX_EPOCH,
            path: &[],
        }
    }
}

impl Operation {
    fn line(&self) -> String {
        let value = json!({
            "op": self.op, "apiVersion": self.api_version, "kind": self.kind,
            "subresource": self.subresource, "ignored": self.ignored, "live": self.live,
            "new": self.new, "manager": self.manager, "force": self.force,
            "now": self.now.to_string(), "path": self.path,
        });
        format!("{value}\n")
    }
}

/// What became of an operation.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Object(Value),
    Conflict {
        message: String,
        /// Manager and path.
        causes: Vec<(String, String)>,
    },
    Refused(String),
}

/// How often what was compared.
#[derive(Debug, Default)]
pub struct Seen {
    objects: usize,
    unchanged: usize,
    conflicts: usize,
    refused: usize,
    untyped: usize,
}

impl Seen {
    /// A comparison in which nothing happens proves nothing.
    pub fn must_have_all(&self) {
        let all = [self.objects, self.unchanged, self.conflicts, self.refused];
        assert!(all.iter().all(|count| *count > 10), "{self:?}");
    }
}

/// The program.
pub struct Reference {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Reference {
    /// Builds it unless it is there, and starts it.
    pub fn start(schemas: &Map<String, Value>) -> Self {
        let directories = Directories::from_environment().unwrap();
        {
            let _lock = directories.lock_cache(&mut |_| {}).unwrap();
            MANAGED_FIELDS
                .build(&directories, &mut |line| println!("{line}"))
                .unwrap();
        }
        let mut child = Command::new(MANAGED_FIELDS.path(&directories, "managedfields"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take();
        let schemas = Value::Object(schemas.clone());
        writeln!(input.as_mut().unwrap(), "{schemas}").unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// The answers to several operations.
    pub fn ask<'a>(&mut self, all: impl Iterator<Item = &'a Operation>) -> Vec<Answer> {
        let lines: Vec<String> = all.map(Operation::line).collect();
        let count = lines.len();
        let mut input = self.input.take().unwrap();
        let writer = std::thread::spawn(move || {
            for line in lines {
                input.write_all(line.as_bytes()).unwrap();
            }
            input.flush().unwrap();
            input
        });
        let answers = (0..count).map(|_| {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            let answer = serde_json::from_str(&line);
            read(answer.unwrap_or_else(|error| panic!("{error}: {line}")))
        });
        let answers = answers.collect();
        self.input = Some(writer.join().unwrap());
        answers
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut answer: Value) -> Answer {
    let Some(error) = answer.get("error").and_then(Value::as_str) else {
        return Answer::Object(answer["object"].take());
    };
    if answer["code"] != 409 {
        return Answer::Refused(error.to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = answer["causes"].as_array().unwrap().iter();
    let mut causes: Vec<(String, String)> = causes
        .map(|cause| {
            let message = text(&cause["message"]);
            let manager = message.strip_prefix("conflict with ").unwrap();
            (manager.to_owned(), text(&cause["field"]))
        })
        .collect();
    // The library tells of managers in no order, but of the fields of each in one.
    causes.sort_by(|(a, _), (b, _)| a.cmp(b));
    Answer::Conflict {
        message: error.to_owned(),
        causes,
    }
}

/// Fails unless both made the same of an operation.
pub fn compare(operation: &Operation, ours: &Answer, theirs: &Answer, seen: &mut Seen) {
    let same = match (ours, theirs) {
        (Answer::Object(ours), Answer::Object(theirs)) => {
            seen.objects += 1;
            let live = operation.live.as_ref();
            let managers = |object: &Value| object["metadata"]["managedFields"].clone();
            seen.unchanged += usize::from(live.map(managers) == Some(managers(ours)));
            let normal = |object: &Value| normal(operation, object.clone());
            normal(ours) == normal(theirs)
        }
        (
            Answer::Conflict { message, causes },
            Answer::Conflict {
                message: text,
                causes: all,
            },
        ) => {
            seen.conflicts += 1;
            let mut causes = causes.clone();
            causes.sort_by(|(a, _), (b, _)| a.cmp(b));
            message == text && causes == *all
        }
        // Which of several mistakes it tells of is left to chance.
        (Answer::Refused(ours), Answer::Refused(theirs)) => {
            seen.refused += 1;
            let several = |text: &str| text.contains("errors:");
            ours == theirs || several(ours) || several(theirs)
        }
        // An update that is not of the type is refused by the schema after this.
        (Answer::Object(_), Answer::Refused(theirs)) if operation.op == "update" => {
            seen.untyped += 1;
            theirs.contains("to smd typed")
        }
        _ => false,
    };
    assert!(
        same,
        "{}\n\nours:   {}\n\ntheirs: {}",
        operation.line(),
        shown(ours),
        shown(theirs)
    );
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Object(object) => object.to_string(),
        other => format!("{other:#?}"),
    }
}

/// Numbers as they are in JSON, whatever they were made of; and what is better with us.
fn normal(operation: &Operation, mut object: Value) -> Value {
    numbers(&mut object);
    if operation.op == "to_object" {
        // The library forgets since when somebody scales.
        let managers = object["metadata"]["managedFields"].as_array_mut();
        for manager in managers.into_iter().flatten() {
            if manager["subresource"] == "scale" {
                manager.as_object_mut().unwrap().remove("time");
            }
        }
    }
    object
}

fn numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(numbers),
        Value::Object(map) => map.values_mut().for_each(numbers),
        _ => {}
    }
}
