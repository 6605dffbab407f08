//! A program that answers JSON requests, one line each way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tests::lab::programs::GoProgram;
use tests::served::Served;

/// Longer than any program waits by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running program; killed when it is dropped.
pub struct Tool {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Tool {
    /// One that the lab builds, with the administrator's rights.
    pub fn go(program: &GoProgram, served: &Served) -> Self {
        let path = program.path(served.lab.directories(), program.name);
        Self::start(
            Command::new(path)
                .arg("--kubeconfig")
                .arg(served.lab.kubeconfig()),
        )
    }

    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with the program.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    /// The answer to a request.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.hear()
    }

    pub fn send(&mut self, request: &Value) {
        let input = self.input.as_mut().expect("it was not told to end");
        writeln!(input, "{request}").unwrap();
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("the program says nothing: {error}"));
        serde_json::from_str(&line).unwrap()
    }

    /// Ends its input, and waits until it has ended in order.
    pub fn end(mut self) {
        self.input = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the program: {status}");
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // One that has ended already is none to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
