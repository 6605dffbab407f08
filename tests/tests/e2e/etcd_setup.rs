//! The set-up of the chart's etcd, run once more in a Job of our own.

use std::time::Duration;

use serde_json::{Value, json};
use tests::installed::SYSTEM;

use crate::stage::Stage;

/// How long one may take, with its image there.
const PATIENCE: Duration = Duration::from_secs(90);
/// The CronJob of the chart.
const CRON: &str = "steward-etcd-renewal";

/// Runs to its end what the chart's CronJob would run, with other arguments.
pub async fn run(stage: &Stage, name: &str, edit: impl FnOnce(&mut Vec<String>)) {
    let path = format!("/apis/batch/v1/namespaces/{SYSTEM}");
    let cron = stage.it.get(&format!("{path}/cronjobs/{CRON}")).await;
    let mut spec = cron.unwrap()["spec"]["jobTemplate"]["spec"].take();
    let given = &mut spec["template"]["spec"]["containers"][0]["args"];
    let mut arguments: Vec<String> = serde_json::from_value(given.take()).unwrap();
    edit(&mut arguments);
    *given = Value::from(arguments);
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": spec,
    });
    stage.it.post(&format!("{path}/jobs"), &job).await.unwrap();
    let one = format!("{path}/jobs/{name}");
    let ended = || async {
        let job = stage.it.get(&one).await.ok()?;
        assert!(job["status"]["failed"].is_null(), "{job:#}");
        (job["status"]["succeeded"] == 1).then_some(())
    };
    let what = format!("Job {name} ends");
    stage.it.until(&what, PATIENCE, ended).await;
    let delete = ["-n", SYSTEM, "delete", "job", name, "--cascade=foreground"];
    stage.it.kubectl(&delete);
}
