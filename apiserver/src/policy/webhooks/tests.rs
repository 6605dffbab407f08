use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::authz::{Authorizer, Decision};
use crate::policy::Operation;
use crate::policy::attributes::testing::Asked;
use crate::policy::questions::Asking;
use crate::policy::review::Verdict;
use crate::policy::rules::tests::with_attributes;

#[test]
fn a_request_has_what_kubernetes_says_of_it() {
    let scale = (Operation::Update, "tenantcontrolplanes", "scale");
    let request = with_attributes(scale, |attributes| {
        Value::Object(attributes.to_request("u"))
    });
    let resource = json!({"group": "steward.butlerlabs.dev", "version": "v1alpha1", "resource": "tenantcontrolplanes"});
    let kind = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let expected = json!({
        "uid": "u", "kind": kind, "requestKind": kind, "resource": resource,
        "requestResource": resource, "subResource": "scale", "requestSubResource": "scale",
        "name": "one", "namespace": "n", "operation": "UPDATE", "dryRun": false,
        "userInfo": {"username": "a", "groups": ["g"]}, "options": {},
    });
    assert_eq!(request, expected);
}

/// R7.12: configurations from before v1 may have side effects; they are not asked.
#[tokio::test]
async fn what_has_side_effects_takes_no_dry_runs() {
    let hook = |side_effects: &str| {
        let config = json!({"metadata": {"name": "c"}, "webhooks": [{
            "name": "w", "sideEffects": side_effects, "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}]});
        let config = Configuration::validating(serde_json::from_value(config).unwrap());
        config.unwrap()
    };
    let namespaces = crate::namespaces::Namespaces::for_test(Vec::new());
    for (side_effects, expected) in [
        ("Some", "admission webhook \"w\" does not support dry run"),
        (
            "NoneOnDryRun",
            "Internal error occurred: failed calling webhook \"w\": failed to call webhook: Post \"https://127.0.0.1:1/?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused",
        ),
    ] {
        let all = [("c".to_owned(), Arc::new(hook(side_effects)))];
        let webhooks = Webhooks {
            mutating: Source::known(Default::default()),
            validating: Source::known(all.into()),
            metrics: Arc::new(Metrics::new()),
        };
        let asked = Asked::by_user("a");
        let attributes = Attributes {
            dry_run: true,
            ..asked.creation()
        };
        let labels = NamespaceLabels::new(&namespaces, Some("n"));
        let object = json!({});
        let objects = Objects {
            new: Some(&object),
            old: None,
        };
        let asking = Asking::new(Authorizer::for_test(|_, _| Decision::allow()));
        let questions = Questions::new(&attributes, &asking);
        let refused = webhooks
            .validate(&attributes, &labels, objects, &questions)
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
}

/// Of a Service its DNS name is asked, which the certificate has to have as well.
#[test]
fn where_webhooks_are() {
    let endpoint = |client: Value| {
        let endpoint = crate::policy::call::Endpoint::new(serde_json::from_value(client).unwrap());
        format!("{endpoint:?}")
    };
    let cases = [
        (
            json!({"service": {"name": "s", "namespace": "n"}}),
            "https://s.n.svc:443/",
        ),
        (
            json!({"service": {"name": "s", "namespace": "n", "port": 8443, "path": "/a/b"}}),
            "https://s.n.svc:8443/a/b",
        ),
        (
            json!({"url": "https://example.com"}),
            "https://example.com/",
        ),
        (
            json!({"url": "https://[::1]:8443/a"}),
            "https://[::1]:8443/a",
        ),
        (json!({}), "must have either service or URL"),
        (
            json!({"url": "https://a/", "caBundle": "aGVsbG8="}),
            "unable to load root certificates",
        ),
    ];
    for (client, expected) in cases {
        let shown = endpoint(client.clone());
        assert!(shown.contains(expected), "{client}: {shown}");
    }
}

/// R7.8: a client whose own `timeout` is shorter than a webhook's does not get past it,
/// whatever the failure policy is; a webhook that is slow in time still does not count.
#[tokio::test]
async fn nobody_gets_past_a_webhook_by_a_short_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let config = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore", "timeoutSeconds": 1, "clientConfig": {"url": url},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}]});
    let mutating = Configuration::mutating(serde_json::from_value(config.clone()).unwrap());
    let validating = Configuration::validating(serde_json::from_value(config).unwrap());
    let known = |config: Option<Configuration>| {
        Source::known([("c".to_owned(), Arc::new(config.unwrap()))].into())
    };
    let webhooks = Webhooks {
        mutating: known(mutating),
        validating: known(validating),
        metrics: Arc::new(Metrics::new()),
    };
    let namespaces = crate::namespaces::Namespaces::for_test(Vec::new());
    let labels = NamespaceLabels::new(&namespaces, Some("n"));
    let asked = Asked::by_user("a");
    let asking = Asking::new(Authorizer::for_test(|_, _| Decision::allow()));
    for (time, passes) in [(100, false), (1500, true)] {
        let deadline = Instant::now() + Duration::from_millis(time);
        let object = json!({});
        let objects = Objects {
            new: Some(&object),
            old: None,
        };
        let mut attributes = Attributes {
            deadline,
            ..asked.creation()
        };
        let questions = Questions::new(&attributes, &asking);
        let validated = webhooks.validate(&attributes, &labels, objects, &questions);
        let validated = validated.await;
        attributes.deadline = Instant::now() + Duration::from_millis(time);
        let mut object = Some(object.clone());
        let questions = Questions::new(&attributes, &asking);
        let request = Change {
            attributes: &attributes,
            namespaces: &namespaces,
            labels: &labels,
            old: None,
            questions: &questions,
            making: &Bounded::default(),
        };
        let mut reinvoked = Reinvoked::default();
        let first = (Round::First, &mut reinvoked);
        let mutated = webhooks.mutate(&request, &mut object, first).await;
        let mutated = mutated.map(drop);
        for answered in [validated, mutated] {
            match answered {
                Ok(()) => assert!(passes, "{time}"),
                Err(why) => assert!(!passes && matches!(why, Failure::Timeout(_)), "{why}"),
            }
        }
    }
}

/// Takes a list of at most two.
#[derive(Default)]
struct Bounded(parking_lot::Mutex<Vec<usize>>);

impl Making for Bounded {
    fn complete(&self, object: &mut Value) -> Result<(), Failure> {
        match object["a"].as_array().map_or(0, Vec::len) {
            0..3 => Ok(()),
            _ => Err(Failure::TooLarge("limit is 2".to_owned())),
        }
    }

    fn hold<'a>(&'a self, object: &'a Value) -> BoxFuture<'a, Result<(), Failure>> {
        self.0
            .lock()
            .push(object["a"].as_array().map_or(0, Vec::len));
        Box::pin(async { Ok(()) })
    }
}

/// What is made is judged and held after each patch, and not once after the last.
#[tokio::test]
async fn each_patch_is_weighed() {
    let config = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}]});
    let config = Configuration::mutating(serde_json::from_value(config).unwrap()).unwrap();
    let verdict = Verdict {
        allowed: true,
        patch: br#"[{"op": "add", "path": "/a/-", "value": 1}]"#.to_vec(),
        patch_type: "JSONPatch".to_owned(),
        ..Default::default()
    };
    let making = Bounded::default();
    let mut object = Some(json!({"a": []}));
    for _ in 0..2 {
        let applied = apply("alice", &config.hooks[0], &verdict, &mut object, &making).await;
        assert!(applied.unwrap());
    }
    let applied = apply("alice", &config.hooks[0], &verdict, &mut object, &making).await;
    let too_large = |why: &Refused| matches!(why, Refused::Failure(Failure::TooLarge(_)));
    assert!(applied.is_err_and(|why| too_large(&why)));
    assert_eq!(*making.0.lock(), [1, 2]);
}

/// What all conditions of one webhook may take.
fn long_conditions() -> Configuration {
    let expression = "object.metadata.labels.all(a, object.metadata.labels.all(b, a != b + 'x'))";
    let conditions = (0..3).map(|n| json!({"name": format!("c{n}"), "expression": expression}));
    let config = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "w", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1/"},
        "matchConditions": conditions.collect::<Vec<_>>(),
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}]});
    Configuration::validating(serde_json::from_value(config).unwrap()).unwrap()
}

/// Asks a webhook with these conditions about an object with thousands of labels, which it
/// is not interested in: what is answered, and how long that took.
async fn with_long_conditions(time: Duration) -> (Result<(), Failure>, Duration) {
    let webhooks = Webhooks {
        mutating: Source::known(Default::default()),
        validating: Source::known([("c".to_owned(), Arc::new(long_conditions()))].into()),
        metrics: Arc::new(Metrics::new()),
    };
    let namespaces = crate::namespaces::Namespaces::for_test(Vec::new());
    let labels = NamespaceLabels::new(&namespaces, Some("n"));
    let asked = Asked::by_user("a");
    let many = (0..5_000).map(|n| (format!("l{n}"), Value::from("v")));
    let object = json!({"metadata": {"labels": many.collect::<serde_json::Map<_, _>>()}});
    let attributes = Attributes {
        deadline: Instant::now() + time,
        ..asked.creation()
    };
    let objects = Objects {
        new: Some(&object),
        old: None,
    };
    let asking = Asking::new(Authorizer::for_test(|_, _| Decision::allow()));
    let questions = Questions::new(&attributes, &asking);
    let began = Instant::now();
    let validated = webhooks.validate(&attributes, &labels, objects, &questions);
    let validated = validated.await;
    (validated, began.elapsed())
}

/// R7.7: the only worker of a runtime goes on with other requests meanwhile.
#[test]
#[allow(clippy::disallowed_methods, reason = "the other task of the test")]
fn conditions_keep_no_worker_from_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let both = runtime.spawn(async {
        let ticks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = ticks.clone();
        let other = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let (passed, took) = with_long_conditions(Duration::from_secs(30)).await;
        let ticks = ticks.load(std::sync::atomic::Ordering::Relaxed);
        other.abort();
        (passed, took, ticks)
    });
    let (passed, took, ticks) = runtime.block_on(both).unwrap();
    assert!(passed.is_ok(), "{passed:?}");
    assert!(
        took > Duration::from_millis(20),
        "too short to tell: {took:?}"
    );
    assert!(ticks >= 5, "{ticks} in {took:?}");
}

/// R7.8: nor are they evaluated when the answer is due, and a short `timeout` leads past no
/// webhook, whatever the failure policy is.
#[test]
fn conditions_end_when_the_answer_is_due() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let (refused, took) = runtime.block_on(with_long_conditions(Duration::from_millis(50)));
    assert!(matches!(refused, Err(Failure::Timeout(_))), "{refused:?}");
    assert!(took < Duration::from_millis(250), "{took:?}");
}
