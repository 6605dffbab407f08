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

/// Runs a command to its end and shows what it says as it comes. If the calling thread
/// ends before, the command is told to end (`SIGTERM`).
///
/// # Errors
/// Any status but success; what the command said is not repeated.
pub(crate) fn show(command: &Command) -> Result<()> {
    let status = bound(command)
        .stdin(Stdio::null())
        .status()
        .doing(|| format!("start `{}`", describe(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: describe(command),
        status: status.to_string(),
        output: "(what it said is above)".to_owned(),
    })
}

/// The same program, arguments and environment, as a command that gets `SIGTERM` when the
/// thread that starts it ends, however that ends: what it becomes by `exec` as well.
fn bound(command: &Command) -> Command {
    let mut bound = self::command("setpriv", ["--pdeathsig", "TERM", "--"]);
    bound.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            bound.env(name, value);
        }
    }
    bound
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bound_command_ends_with_the_thread_that_started_it() {
        let starts = || {
            let child = bound(&command("sleep", ["20"])).spawn().unwrap();
            let name = format!("/proc/{}/comm", child.id());
            while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
                std::thread::sleep(Duration::from_millis(5));
            }
            child
        };
        let mut child = std::thread::scope(|scope| scope.spawn(starts).join().unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }

    #[test]
    fn what_is_shown_has_its_environment_and_its_status_counts() {
        let mut echo = command("sh", ["-c", "test \"$WORD\" = said"]);
        assert!(show(&echo).is_err());
        show(echo.env("WORD", "said")).unwrap();
    }
}
