//! What an object's status said, and when: a watch that remembers, so that also
//! what lasted for a moment only is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiservice::v1alpha1::TenantControlPlane;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tests::installed::{TENANTS, condition};

/// One status, from the moment at which it was seen.
#[derive(Clone, Debug)]
pub struct Moment {
    pub at: Instant,
    pub object: Value,
}

/// The statuses of one tenant, from the beginning of the watch on.
pub struct Story {
    name: String,
    moments: Arc<Mutex<Vec<Moment>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Story {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Story {
    /// Begins to watch the tenant, which need not exist.
    pub fn of(client: kube::Client, name: &str) -> Self {
        let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
        let api: kube::Api<TenantControlPlane> = kube::Api::namespaced(client, TENANTS);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let into = Arc::clone(&moments);
        let task = tokio::spawn(async move {
            let changes = watcher(api, config).default_backoff().applied_objects();
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                let Ok(object) = change else { continue };
                let object = serde_json::to_value(object).unwrap();
                into.lock().push(Moment {
                    at: Instant::now(),
                    object,
                });
            }
        });
        Self {
            name: name.to_owned(),
            moments,
            task,
        }
    }

    /// What was said since an instant.
    pub fn since(&self, instant: Instant) -> Vec<Moment> {
        let all = self.moments.lock();
        all.iter()
            .filter(|moment| moment.at >= instant)
            .cloned()
            .collect()
    }

    /// The status that stood at an instant.
    fn before(&self, instant: Instant) -> Value {
        let all = self.moments.lock();
        let last = all.iter().rev().find(|moment| moment.at < instant);
        last.map_or(Value::Null, |moment| moment.object["status"].clone())
    }

    /// The last status.
    pub fn last(&self) -> Option<Value> {
        self.moments
            .lock()
            .last()
            .map(|moment| moment.object.clone())
    }

    /// Waits until a status that was seen since `instant` satisfies `test`; how
    /// long after `instant` that was.
    pub async fn until(
        &self,
        instant: Instant,
        patience: Duration,
        what: &str,
        test: impl Fn(&Value) -> bool,
    ) -> Duration {
        loop {
            let found = self
                .since(instant)
                .into_iter()
                .find(|moment| test(&moment.object));
            if let Some(moment) = found {
                return moment.at - instant;
            }
            let waited = instant.elapsed();
            assert!(
                waited < patience,
                "tenant {}, within {patience:?}: {what}. It said:\n{}",
                self.name,
                self.told(instant)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a condition has this status and reason.
    pub async fn says(
        &self,
        since: Instant,
        patience: Duration,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Duration {
        let what = format!("{kind}={status} {reason}");
        self.until(since, patience, &what, |object| {
            is(object, kind, status, reason)
        })
        .await
    }

    /// Waits for Ready. Only what is seen after `since` counts, so a tenant that
    /// is Ready and stays so is asked for with [`is`].
    pub async fn ready(&self, since: Instant, patience: Duration) -> Duration {
        self.until(since, patience, "Ready", |object| {
            is(object, "Ready", "True", "")
        })
        .await
    }

    /// Fails if Ready was lost since an instant.
    pub fn stayed_ready(&self, since: Instant) {
        for moment in self.since(since) {
            let lost =
                condition(&moment.object, "Ready").is_some_and(|[status, ..]| status != "True");
            assert!(
                !lost,
                "tenant {} lost Ready:\n{}",
                self.name,
                self.told(since)
            );
        }
    }

    /// Each change of a condition, or of another part of the status, since an
    /// instant, one a line.
    pub fn told(&self, since: Instant) -> String {
        let mut text = String::new();
        let mut before: Vec<String> = Vec::new();
        let mut status = self.before(since);
        for moment in self.since(since) {
            let mut now = lines(&moment.object);
            now.extend(changes(&status, &moment.object["status"]));
            for line in now.iter().filter(|line| !before.contains(line)) {
                let after = (moment.at - since).as_secs_f64();
                text.push_str(&format!("  {after:6.1} s  {line}\n"));
            }
            before = now;
            status = moment.object["status"].clone();
        }
        if text.is_empty() {
            text = format!(
                "  nothing; before: {:#?}\n",
                self.last().map(|object| lines(&object))
            );
        }
        text
    }
}

/// What is new in a status beside its conditions: field and value.
fn changes(before: &Value, now: &Value) -> Vec<String> {
    let fields = now.as_object().into_iter().flatten();
    let new = fields.filter(|(key, value)| *key != "conditions" && before[*key] != **value);
    new.map(|(key, value)| {
        let value: String = value.to_string().chars().take(300).collect();
        format!("status.{key}: {value}")
    })
    .collect()
}

fn lines(object: &Value) -> Vec<String> {
    let all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let word =
        |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|it| {
            let [kind, status, reason] = ["type", "status", "reason"].map(|key| word(it, key));
            format!("{kind}={status} {reason}: {}", word(it, "message"))
        })
        .collect()
}

/// Whether a condition has this status and reason (any, if it is empty).
pub fn is(object: &Value, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind)
        .is_some_and(|[found, why, _]| found == status && (reason.is_empty() || why == reason))
}
