//! What is run on a worker host to join a control plane and to leave it.

use super::super::command::show;
use super::super::error::{Error, Result};
use super::Worker;

/// How long kubeadm may take, in seconds. It waits for minutes by itself.
const KUBEADM_PATIENCE: &str = "120";

/// Stops the kubelet for good, and lets kubeadm clean up.
const RESET: &str = r#"
rm -f /var/lib/kubelet/config.yaml
if [ -f /run/kubelet.pid ]; then
    pid=$(cat /run/kubelet.pid)
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -f /run/kubelet.pid
fi
exec timeout "$1" kubeadm reset --force
"#;

impl Worker {
    /// Runs a `kubeadm join ...` as it was printed, with errors of the preflight
    /// ignored: the host is no whole machine.
    ///
    /// # Errors
    /// What kubeadm says, with the end of the kubelet's log.
    pub fn join(&self, command: &str) -> Result<String> {
        let script = joining(command)?;
        let joined = self.run(&["sh", "-c", &script]);
        joined.map_err(|error| self.with_the_kubelets_log(&error))
    }

    /// The same for a person who waits: what kubeadm says is shown as it comes, and it
    /// ends with the calling thread.
    ///
    /// # Errors
    /// Those of [`join`](Worker::join), without what was shown.
    pub fn join_shown(&self, command: &str) -> Result<()> {
        let script = joining(command)?;
        let joined = show(&self.command(&["sh", "-c", &script])?);
        joined.map_err(|error| self.with_the_kubelets_log(&error))
    }

    fn with_the_kubelets_log(&self, error: &Error) -> Error {
        let tail = self.log("kubelet");
        Error::Refused(format!(
            "{error}\nthe last lines of the kubelet's log:\n{tail}"
        ))
    }

    /// Stops the kubelet and runs `kubeadm reset`; the host can join again.
    pub fn reset(&self) -> Result<String> {
        self.run(&["sh", "-ec", RESET, "sh", KUBEADM_PATIENCE])
    }
}

/// What the shell of a host runs for a `kubeadm join ...`.
fn joining(command: &str) -> Result<String> {
    let line = command.trim().trim_end_matches('\\').trim_end();
    if !line.starts_with("kubeadm join ") {
        return Err(Error::Refused(format!("{line:?} is no `kubeadm join`")));
    }
    Ok(format!(
        "exec timeout {KUBEADM_PATIENCE} {line} --ignore-preflight-errors=all"
    ))
}
