//! What a probe does in a tenant once it is connected: read, write and watch.

use std::time::Duration;

use apiservice::names;
use http::{Method, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::inside::connection::{Answer, Tenant, failure};
use crate::tenant::world::{Admission, ProbeFailure, ProbeFailureKind as Kind};

/// Name of the objects that the probe writes in the tenant.
const PROBE: &str = "steward-probe";
/// Bytes of a revision, which has some twenty.
const VERSION: usize = 128;
const MERGE: &str = "application/merge-patch+json";
/// How long the tenant's own admission may take, before an object is tried that it
/// is not asked about: a webhook that nothing answers takes ten seconds and more.
const ADMISSION_PATIENCE: Duration = Duration::from_millis(1200);

/// An object that the probe writes.
struct Subject {
    collection: String,
    object: Value,
    /// What of it is changed if it is there.
    change: Value,
    /// It is removed again.
    passing: bool,
}

impl Subject {
    /// What the tenant's admission is asked about, as with any object of its users.
    fn lease(now: Timestamp) -> Self {
        let mark =
            json!({"renewTime": format!("{now:.6}"), "holderIdentity": "steward-controller"});
        Self {
            collection: format!(
                "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
                names::PROBE_NAMESPACE
            ),
            object: json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": PROBE},
                "spec": mark,
            }),
            change: json!({"spec": mark}),
            passing: false,
        }
    }

    /// What no admission of a tenant is asked about: API servers call neither
    /// webhooks nor policies for the configuration of webhooks, lest nobody could
    /// mend a broken one, and quotas are for what is in a namespace. It names no
    /// webhook, so it configures nothing.
    fn beyond_admission(now: Timestamp) -> Self {
        let annotations = json!({names::ANNOTATION_PROBED: format!("{now:.6}")});
        Self {
            collection: "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
                .to_owned(),
            object: json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {
                    "name": PROBE,
                    "labels": {names::LABEL_PROJECT: names::PROJECT},
                    "annotations": annotations,
                },
                "webhooks": [],
            }),
            change: json!({"metadata": {"annotations": annotations}}),
            passing: true,
        }
    }
}

/// A cycle that failed.
struct Failed {
    failure: ProbeFailure,
    /// It was a write, and the tenant's own admission may have refused it.
    refused: bool,
}

impl From<ProbeFailure> for Failed {
    fn from(failure: ProbeFailure) -> Self {
        Self {
            failure,
            refused: false,
        }
    }
}

/// Reads, writes, and waits for a watch to tell of the write. What the tenant's
/// own admission refuses is told apart from an API server that does not write.
/// `stage` tells at any time how far it has come.
pub async fn exercise(
    tenant: &Tenant,
    now: Timestamp,
    stage: &Mutex<Kind>,
) -> Result<Admission, ProbeFailure> {
    let (lease, beyond) = (Subject::lease(now), Subject::beyond_admission(now));
    let aside = Mutex::new(Kind::Silent);
    let mut usual = std::pin::pin!(cycle(tenant, &lease, stage));
    let begun = tokio::time::timeout(ADMISSION_PATIENCE, &mut usual).await;
    let ended = match begun {
        Ok(ended) => ended,
        Err(_) => match side_door(usual, cycle(tenant, &beyond, &aside), stage).await {
            Some(ended) => ended,
            None => return Ok(Admission::Refuses("it does not answer".to_owned())),
        },
    };
    match ended {
        Ok(()) => Ok(Admission::Passes),
        Err(failed) if failed.refused && cycle(tenant, &beyond, &aside).await.is_ok() => {
            Ok(Admission::Refuses(failed.failure.message))
        }
        Err(failed) => Err(failed.failure),
    }
}

/// Whether the group of those who may read may do so: a kubeconfig that is asked for with the
/// first Ready works at once. What an API server knows of roles comes to it bit by bit.
///
/// # Errors
/// It may not, or there is no answer.
pub async fn readers_read(tenant: &Tenant) -> Result<(), ProbeFailure> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": names::USER_CONTROLLER,
            "groups": [names::GROUP_VIEW],
            "resourceAttributes": {"verb": "list", "resource": "namespaces"},
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = tenant
        .call(Method::POST, path, "application/json", Some(&review))
        .await?;
    match answer.body["status"]["allowed"].as_bool() {
        Some(false) => {
            let message = format!("{} may not read yet", names::GROUP_VIEW);
            Err(failure(Kind::Forbidden, message))
        }
        // Whoever does not answer that question keeps no tenant from being used.
        Some(true) | None => Ok(()),
    }
}

/// How the usual cycle ends. `None`: its write has no answer, while the cycle that no
/// admission is asked about went well. Where the write was answered, what is late is
/// not admission.
async fn side_door(
    mut usual: impl Future<Output = Result<(), Failed>> + Unpin,
    beyond: impl Future<Output = Result<(), Failed>>,
    stage: &Mutex<Kind>,
) -> Option<Result<(), Failed>> {
    if *stage.lock() != Kind::Write {
        return Some(usual.await);
    }
    tokio::select! {
        ended = &mut usual => return Some(ended),
        Ok(()) = beyond => {}
    }
    if *stage.lock() == Kind::Write {
        return None;
    }
    Some(usual.await)
}

/// Begins to watch and writes. The stage is the write's from its beginning until it is
/// answered, and the watch's from then on.
async fn watch_and_write<W, A>(
    watch: impl Future<Output = Result<W, Failed>>,
    write: impl Future<Output = Result<A, Failed>>,
    stage: &Mutex<Kind>,
) -> Result<(W, A), Failed> {
    let write = async {
        *stage.lock() = Kind::Write;
        let written = write.await;
        *stage.lock() = Kind::Watch;
        written
    };
    tokio::try_join!(watch, write)
}

/// The revision of an object or of a list. All that is kept of an answer while the next one is
/// waited for, and of a length that one has.
fn version(of: &Value) -> Option<String> {
    let version = of["metadata"]["resourceVersion"].as_str()?;
    (version.len() <= VERSION).then(|| version.to_owned())
}

/// Reads an object, writes it, and waits for a watch to tell of the write.
async fn cycle(tenant: &Tenant, subject: &Subject, stage: &Mutex<Kind>) -> Result<(), Failed> {
    let collection = &subject.collection;
    let selector = format!("fieldSelector=metadata.name%3D{PROBE}");
    let (version, exists) = {
        let list = format!("{collection}?{selector}");
        let list = tenant.call(Method::GET, &list, "", None).await?;
        expect(&list, Kind::Read)?;
        let items = list.body["items"].as_array();
        (version(&list.body), items.is_some_and(|it| !it.is_empty()))
    };
    let version = version.as_deref().unwrap_or("0");
    let watch =
        format!("{collection}?{selector}&watch=true&resourceVersion={version}&timeoutSeconds=10");
    let path = format!("{collection}/{PROBE}");
    let write = async {
        let (object, change) = (Some(&subject.object), Some(&subject.change));
        let mut made = None;
        if !exists {
            let answer = tenant.call(Method::POST, collection, "application/json", object);
            // A write whose answer was lost has made it since.
            made = Some(answer.await?).filter(|it| it.status != StatusCode::CONFLICT);
        }
        let answer = match made {
            Some(answer) => answer,
            None => tenant.call(Method::PATCH, &path, MERGE, change).await?,
        };
        if answer.status == StatusCode::NOT_FOUND {
            // The namespace is one of the things that are kept in the tenant.
            return Err(failure(Kind::Forbidden, answer.message()).into());
        }
        expect(&answer, Kind::Write).map_err(|failure| Failed {
            refused: failure.kind != Kind::Unauthenticated,
            failure,
        })?;
        Ok(self::version(&answer.body))
    };
    let watch = async { tenant.watch(&watch).await.map_err(Failed::from) };
    let (mut events, ours) = watch_and_write(watch, write, stage).await?;
    while let Some(event) = events.next().await? {
        if event["type"] == "ERROR" {
            let message = event["object"]["message"].as_str().unwrap_or("unknown");
            return Err(failure(Kind::Watch, format!("the watch ends: {message}")).into());
        }
        if self::version(&event["object"]) == ours {
            drop(event);
            drop(events);
            if subject.passing {
                // What is left is written again and removed the next time.
                let _ = tenant.call(Method::DELETE, &path, "", None).await;
            }
            return Ok(());
        }
    }
    Err(failure(Kind::Watch, "the watch ended without our write").into())
}

/// Turns an answer that is not a success into its cause.
pub fn expect(answer: &Answer, stage: Kind) -> Result<(), ProbeFailure> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    let message = answer.message();
    let kind = match status {
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        _ if storage_speaks(&message) => Kind::Storage,
        _ => stage,
    };
    Err(failure(kind, message))
}

/// The API server hands on what etcd says.
fn storage_speaks(message: &str) -> bool {
    [
        "etcdserver",
        "etcd",
        "context deadline exceeded",
        "storage is (re)initializing",
    ]
    .iter()
    .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::context::testing::{alone, measure, memory};
    use crate::inside::connection::tests::{Answers, SILENT, tenant};

    #[test]
    fn causes_are_told_apart() {
        let answer = |code: u16, message: &str| Answer {
            status: StatusCode::from_u16(code).unwrap(),
            body: json!({"message": message}),
        };
        let kind = |code, message| {
            expect(&answer(code, message), Kind::Write)
                .unwrap_err()
                .kind
        };
        assert!(expect(&answer(201, ""), Kind::Write).is_ok());
        assert_eq!(kind(401, "Unauthorized"), Kind::Unauthenticated);
        assert_eq!(kind(403, "leases is forbidden"), Kind::Forbidden);
        assert_eq!(
            kind(500, "etcdserver: mvcc: database space exceeded"),
            Kind::Storage
        );
        assert_eq!(kind(500, "etcdserver: permission denied"), Kind::Storage);
        assert_eq!(kind(422, "is invalid"), Kind::Write);
    }

    /// Lists are empty, and watches tell of the one write.
    fn reads(path: &str) -> (u16, &'static str) {
        if path.contains("watch=true") {
            (
                200,
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"2\"}}}\n",
            )
        } else {
            (
                200,
                "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}",
            )
        }
    }

    const WRITTEN: (u16, &str) = (201, "{\"metadata\":{\"resourceVersion\":\"2\"}}");

    async fn exercised(answers: Answers) -> Result<Admission, Kind> {
        let tenant = tenant(answers).await;
        let stage = Mutex::new(Kind::Silent);
        let found = exercise(&tenant, Timestamp::UNIX_EPOCH, &stage).await;
        found.map_err(|failure| failure.kind)
    }

    const PROBES: &str = "STEWARD_TEST_PROBES";
    const MIB: usize = 1024 * 1024;

    /// Probes of tenants that answer at length, and whose watches say nothing.
    #[tokio::test]
    #[allow(
        clippy::disallowed_methods,
        reason = "how a test tells itself its case"
    )]
    async fn child() {
        if std::env::var(PROBES).is_err() {
            return;
        }
        let answers: Answers = |method, path| {
            static LONG: LazyLock<String> = LazyLock::new(|| {
                let items = vec![r#"{"a":0}"#; 2_000].join(",");
                format!(r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#)
            });
            match *method {
                Method::GET if path.contains("watch=true") => (SILENT, ""),
                _ => (200, &LONG),
            }
        };
        let mut tenants = Vec::new();
        for _ in 0..24 {
            tenants.push(tenant(answers).await);
        }
        let stages = tenants.iter().map(|_| Mutex::new(Kind::Silent));
        let stages: Vec<_> = stages.collect();
        let before = measure();
        let probes = tenants.iter().zip(&stages);
        let probes = probes.map(|(tenant, stage)| exercise(tenant, Timestamp::UNIX_EPOCH, stage));
        let all = futures::future::join_all(probes);
        let ended = tokio::time::timeout(Duration::from_secs(4), all).await;
        assert!(ended.is_err());
        assert!(stages.iter().all(|stage| *stage.lock() == Kind::Watch));
        eprintln!("took {}", memory("VmHWM:").saturating_sub(before));
    }

    /// Of what a tenant answers, a text of some KiB that becomes MiB, only the revision waits
    /// for the next answer.
    #[test]
    fn a_probe_holds_nothing_of_an_answer_while_it_waits() {
        let said = alone("inside::read_write_watch::tests::child", PROBES, "24");
        let took = said.lines().find_map(|line| line.strip_prefix("took "));
        let took: usize = took.unwrap().parse().unwrap();
        eprintln!("{} KiB", took / 1024);
        assert!(took < 24 * MIB, "{} MiB", took / MIB);

        let of = |text: String| version(&json!({"metadata": {"resourceVersion": text}}));
        assert_eq!(of("7".into()).as_deref(), Some("7"));
        assert_eq!(of("7".repeat(VERSION + 1)), None);
    }

    /// Whoever answers nothing of use about that keeps no tenant from being used.
    #[tokio::test]
    async fn readers_are_asked_about_before_a_tenant_is_ready() {
        let asked = async |answers: Answers| readers_read(&tenant(answers).await).await;
        let may = asked(|method, path| {
            assert_eq!(
                (method, path.contains("subjectaccessreviews")),
                (&Method::POST, true)
            );
            (201, r#"{"status":{"allowed":true}}"#)
        });
        assert_eq!(may.await.map_err(|it| it.kind), Ok(()));
        let may_not = asked(|_, _| (201, r#"{"status":{"allowed":false}}"#)).await;
        assert_eq!(may_not.unwrap_err().kind, Kind::Forbidden);
        for strange in [
            asked(|_, _| (403, r#"{"message":"a webhook"}"#)).await,
            asked(|_, _| (404, "")).await,
        ] {
            assert!(strange.is_ok(), "{strange:?}");
        }
    }

    /// A write whose answer was lost.
    #[tokio::test]
    async fn what_was_made_in_between_is_no_refusal() {
        let made: Answers = |method, path| match *method {
            Method::GET => reads(path),
            Method::POST => (409, "{\"message\":\"already exists\"}"),
            _ => WRITTEN,
        };
        assert_eq!(exercised(made).await, Ok(Admission::Passes));
    }

    #[tokio::test]
    async fn what_admission_refuses_is_told_from_what_is_not_written() {
        let well: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ => WRITTEN,
        };
        assert_eq!(exercised(well).await, Ok(Admission::Passes));

        // A webhook fails with words of its own, a quota with a code of RBAC's.
        let webhook: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ if path.contains("leases") => (
                500,
                "{\"message\":\"failed calling webhook \\\"x\\\": context deadline exceeded\"}",
            ),
            _ => WRITTEN,
        };
        assert!(matches!(
            exercised(webhook).await,
            Ok(Admission::Refuses(why)) if why.contains("failed calling webhook")
        ));
        let quota: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ if path.contains("leases") => (403, "{\"message\":\"exceeded quota: none\"}"),
            _ => WRITTEN,
        };
        assert!(matches!(exercised(quota).await, Ok(Admission::Refuses(_))));

        let bindings: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ => (403, "{\"message\":\"cannot create resource\"}"),
        };
        assert_eq!(exercised(bindings).await, Err(Kind::Forbidden));
        let storage: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ => (500, "{\"message\":\"etcdserver: permission denied\"}"),
        };
        assert_eq!(exercised(storage).await, Err(Kind::Storage));
        let namespace: Answers = |method, path| match method {
            &Method::GET => reads(path),
            _ if path.contains("leases") => (404, "{\"message\":\"namespace not found\"}"),
            _ => WRITTEN,
        };
        assert_eq!(exercised(namespace).await, Err(Kind::Forbidden));
    }

    /// What becomes of a cycle whose write and watch take so long, after a second.
    async fn late(write: Option<u64>, watch: Option<u64>) -> (Option<bool>, Kind) {
        let after = |seconds: Option<u64>| async move {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
            Ok(())
        };
        let stage = Mutex::new(Kind::Silent);
        let usual = async {
            let both = watch_and_write(after(watch), after(write), &stage);
            both.await.map(|_| ())
        };
        let mut usual = std::pin::pin!(usual);
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, &mut usual).await.is_err());
        let ended = side_door(usual, after(Some(2)), &stage);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        let refuses = ended.ok().map(|ended| ended.is_none());
        (refuses, *stage.lock())
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_hangs_is_not_laid_to_admission() {
        assert_eq!(late(None, Some(0)).await, (Some(true), Kind::Write));
        assert_eq!(late(None, None).await, (Some(true), Kind::Write));
        // The write is answered, at once or while the other is tried.
        assert_eq!(late(Some(0), None).await, (None, Kind::Watch));
        assert_eq!(late(Some(2), None).await, (None, Kind::Watch));
        assert_eq!(late(Some(2), Some(0)).await, (Some(false), Kind::Watch));
    }
}
