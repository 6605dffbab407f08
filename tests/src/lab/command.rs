//! Commands that the lab waits for.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use super::error::{Doing, Error, Result};

/// Runs a command to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    finish(command, None)
}

/// Runs a command with `input` on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    finish(command, Some(input))
}

/// Runs a command and says only whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    run(command).is_ok()
}

/// A command with its arguments.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The command line as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn finish(command: &mut Command, input: Option<&str>) -> Result<String> {
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("start `{}`", describe(command)))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A command that does not read its input says why on its own.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .doing(|| format!("wait for `{}`", describe(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = if stderr.trim().is_empty() {
        stdout.trim()
    } else {
        stderr.trim()
    };
    Err(Error::Command {
        command: describe(command),
        status: output.status.to_string(),
        output: text.to_owned(),
    })
}
