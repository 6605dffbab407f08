use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::authz::Decision;
use crate::policy::Operation;
use crate::policy::attributes::testing::Asked;
use crate::policy::cel::{Budget, Program, Resolve};
use crate::policy::definition::{Definition, NAMES, Said, Variables};
use crate::policy::rules::tests::with_attributes;
use crate::policy::values::{Bound, Values};

/// One with a clock, and no other worker.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

/// Who may do what is what the verb begins with; each question is heard.
fn judge(asked: &Arc<Mutex<Vec<String>>>) -> Asking {
    let asked = asked.clone();
    let authorizer = Authorizer::for_test(move |who, what| {
        let path = what.path.as_deref().unwrap_or_default();
        let texts = [
            &who.user,
            &who.groups.join(" "),
            &what.verb,
            &what.group,
            &what.version,
            &what.resource,
            &what.subresource,
            &what.namespace,
            &what.name,
            path,
            &what.field_selector,
            &what.label_selector,
        ];
        let text = texts.join("|");
        asked.lock().push(text.clone());
        match what.verb.starts_with("get") {
            true => Decision::Allow { reason: text },
            false => Decision::Deny { reason: text },
        }
    });
    Asking::new(authorizer)
}

fn definition(variables: Value) -> Definition {
    Definition::new(Said {
        name: None,
        constraints: None,
        conditions: None,
        variables: serde_json::from_value(variables).unwrap(),
        failure_policy: None,
        param_kind: None,
    })
}

/// What expressions say, each with a budget of its own, after all that they ask was answered.
fn said(asking: &Asking, variables: &Variables, sources: &[&str]) -> Vec<String> {
    let sources = sources.iter();
    let programs: Vec<_> = sources
        .map(|source| Program::compile(source, &NAMES))
        .collect();
    let null = Value::Null;
    with_attributes(
        (Operation::Create, "tenantcontrolplanes", "scale"),
        |attributes| {
            let questions = Questions::new(attributes, asking);
            let values = Values {
                object: &json!({"a": "b"}),
                old: &null,
                request: &null,
                params: &null,
                namespace: &null,
                questions: Some(&questions),
                until: std::time::Instant::now(),
            };
            let said = evaluate(&questions, |until| {
                let values = values.ending(until);
                let bound = Bound::new(variables, &values);
                let said = programs.iter().map(|program| {
                    let budget = Budget::new(cel::POLICY).ending(until);
                    match program.value(&bound, &budget) {
                        Ok(value) => value.shown(),
                        Err(why) => format!("error: {why}"),
                    }
                });
                said.collect()
            });
            runtime().block_on(said).unwrap()
        },
    )
}

/// What is asked, as Kubernetes asks it, and what is made of the answer.
#[test]
fn questions_are_those_of_kubernetes() {
    let asked = Arc::default();
    let asking = judge(&asked);
    let cases = [
        (
            "authorizer.group('apps').resource('deployments').check('get').allowed()",
            "true",
            "a|g|get|apps|*|deployments||||||",
        ),
        (
            "authorizer.group('').resource('pods').subresource('log').namespace('m').name('p').check('list').allowed()",
            "false",
            "a|g|list||*|pods|log|m|p|||",
        ),
        (
            "authorizer.requestResource.check('getall').allowed()",
            "true",
            "a|g|getall|steward.butlerlabs.dev|*|tenantcontrolplanes|scale|n|one|||",
        ),
        (
            "authorizer.requestResource.subresource('').name('other').check('create').errored()",
            "false",
            "a|g|create|steward.butlerlabs.dev|*|tenantcontrolplanes||n|other|||",
        ),
        (
            // Open to all here, and not for the cluster to say.
            "authorizer.path('/healthz').check('post').allowed()",
            "false",
            "a|g|post|||||||/healthz||",
        ),
        (
            "authorizer.serviceAccount('m', 'sa').group('').resource('pods').fieldSelector('spec.nodeName=x').labelSelector('a in (b)').check('get').allowed()",
            "true",
            "system:serviceaccount:m:sa|system:serviceaccounts system:serviceaccounts:m|get||*|pods||||\
             |spec.nodeName=x|a in (b)",
        ),
    ];
    for (source, expected, question) in cases {
        let answers = said(&asking, &Variables::default(), &[source]);
        assert_eq!(answers, [expected], "{source}");
        assert_eq!(asked.lock().drain(..).collect::<Vec<_>>(), [question]);
        let reason = source.replace(".allowed()", ".reason()");
        let reason = reason.replace(".errored()", ".reason()");
        // It is remembered, as answers to requests are.
        let answers = said(&asking, &Variables::default(), &[&reason]);
        assert_eq!(answers, [question]);
        assert!(asked.lock().is_empty());
    }
}

/// Only what an evaluation comes to is asked, and what several ask is asked once.
#[test]
fn what_is_not_needed_is_not_asked() {
    let asked = Arc::default();
    let asking = judge(&asked);
    let variables = definition(json!([
        {"name": "may", "expression": "authorizer.path('/a').check('get').allowed()"},
    ]));
    let answers = said(
        &asking,
        &variables.variables,
        &[
            "variables.may || authorizer.path('/a').check('put').allowed()",
            "variables.may && authorizer.path('/b').check('get').allowed()",
            "authorizer.path('/c').check('get').allowed() ? 'yes' : authorizer.path('/d').check('get').reason()",
            "['x', 'y'].exists(v, authorizer.path('/' + v).check('get').allowed())",
            "object.a == 'b' || authorizer.path('/e').check('get').allowed()",
            "variables.may",
        ],
    );
    assert_eq!(answers, ["true", "true", "yes", "true", "true", "true"]);
    let mut paths: Vec<_> = asked
        .lock()
        .iter()
        .map(|one| one.replace('|', ""))
        .collect();
    paths.sort();
    assert_eq!(paths, ["agget/a", "agget/b", "agget/c", "agget/x"]);
}

/// Two of them fit into what an expression may take, as in Kubernetes.
#[test]
fn a_check_has_its_price() {
    let check = "authorizer.path('/a').check('get').allowed()";
    let asking = judge(&Arc::default());
    let both = [check, check].join(" && ");
    let three = [check, check, check].join(" && ");
    let answers = said(&asking, &Variables::default(), &[&both, &three]);
    assert_eq!(
        answers,
        [
            "true",
            "error: operation cancelled: actual cost limit exceeded"
        ]
    );
    // A selector has one of its length.
    let long = "x,".repeat(10_000);
    let selector = format!(
        "[1, 2].map(i, authorizer.group('').resource('pods').fieldSelector('{long}')).size() == 2"
    );
    let answers = said(&asking, &Variables::default(), &[&selector]);
    assert_eq!(
        answers,
        ["error: operation cancelled: actual cost limit exceeded"]
    );
}

/// However many expressions there are, and however long what they ask about is.
#[test]
fn questions_are_bounded_by_count_and_bytes() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let asking = judge(&asked);
    let sources: Vec<String> = (0..150)
        .map(|at| format!("authorizer.path('/{at}').check('get').allowed()"))
        .collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let answers = said(&asking, &Variables::default(), &sources);
    let answered = answers.iter().filter(|answer| *answer == "true").count();
    let refused = answers
        .iter()
        .filter(|answer| answer.contains("more than 100 questions"));
    assert_eq!((answered, refused.count()), (MOST, 50));
    assert_eq!(asked.lock().drain(..).count(), MOST);

    let long = "x".repeat(16_000);
    let sources: Vec<String> = (10..40)
        .map(|at| format!("authorizer.path('/{at}{long}').check('get').allowed()"))
        .collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let answers = said(&asking, &Variables::default(), &sources);
    let answered = answers.iter().filter(|answer| *answer == "true").count();
    assert_eq!(answered, BYTES / 16_006);
    let texts = asked.lock().iter().map(String::len).sum::<usize>();
    assert!(texts <= BYTES + 30 * MOST, "{texts}");
    let longer = format!("authorizer.path('{long}{long}').check('get').allowed()");
    let answers = said(&asking, &Variables::default(), &[&longer]);
    assert_eq!(
        answers,
        ["error: a question to the authorizer has more than 16384 bytes"]
    );
}

/// Who has no room for more is refused, whatever the failure policy is; others have theirs.
#[test]
fn the_room_of_questions_is_shared() {
    let asking = judge(&Arc::default());
    with_attributes(
        (Operation::Create, "tenantcontrolplanes", ""),
        |attributes| {
            let ask = |questions: &Questions<'_>, at: usize| {
                let work = |_: Instant| {
                    let question = Question {
                        verb: format!("get{at}"),
                        ..Question::default()
                    };
                    questions.answer(question).is_ok()
                };
                runtime().block_on(evaluate(questions, work))
            };
            let mut held = Vec::new();
            let refused = loop {
                let questions = Questions::new(attributes, &asking);
                let failed = (0..MOST).find_map(|at| ask(&questions, at).err());
                held.push(questions);
                if let Some(failed) = failed {
                    break failed;
                }
                assert!(held.len() < 1_000);
            };
            assert!(refused.retry_after().is_some(), "{refused}");
            let bytes = (held.len() - 1) * MOST * ONE;
            assert!(bytes <= ROOM && bytes > ROOM / 4, "{bytes}");
            let identity = service_account("n", "other");
            let other = Attributes {
                identity: &identity,
                ..attributes.clone()
            };
            assert!(ask(&Questions::new(&other, &asking), 1).unwrap());
            drop(held);
            assert!(ask(&Questions::new(attributes, &asking), 1).unwrap());
        },
    );
}

/// A cluster that refuses to say fails the expression; it is not a "no", and not asked again.
#[tokio::test]
async fn without_an_answer_the_expression_fails() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "no", "reason": "Forbidden", "code": 403});
        let answer = http::Response::builder().status(403);
        let answer = answer.body(kube::client::Body::from(status.to_string().into_bytes()));
        std::future::ready(Ok::<_, std::io::Error>(answer.unwrap()))
    });
    let asking = Asking::new(Authorizer::new(kube::Client::new(service, "default")));
    let request = Asked::by_user("a");
    let attributes = request.creation();
    let questions = Questions::new(&attributes, &asking);
    let question = || Question {
        verb: "get".to_owned(),
        path: Some("/a".to_owned()),
        ..Question::default()
    };
    for _ in 0..3 {
        let said = evaluate(&questions, |_| questions.answer(question())).await;
        let Err(Unusable::Error(why)) = said.unwrap() else {
            panic!("there is no answer");
        };
        assert_eq!(why, "the authorizer could not be asked: no (403)");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// What is sent has all that is known of the user; what went wrong in the cluster is told.
#[tokio::test]
async fn a_question_is_a_subject_access_review() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sent = Arc::new(Mutex::new(Value::Null));
    let seen = sent.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            *seen.lock() = review["spec"].clone();
            review["status"] = json!({"allowed": false, "reason": "r", "evaluationError": "e"});
            let answer = http::Response::builder().status(201);
            let answer = answer.body(kube::client::Body::from(review.to_string().into_bytes()));
            Ok::<_, std::io::Error>(answer.unwrap())
        }
    });
    let asking = Asking::new(Authorizer::new(kube::Client::new(service, "default")));
    let asked = Asked::by(Identity {
        user: "anna".to_owned(),
        uid: Some("1".to_owned()),
        groups: vec!["g".to_owned()],
        extra: BTreeMap::from([("example.com/x".to_owned(), vec!["y".to_owned()])]),
    });
    let attributes = asked.creation();
    let questions = Questions::new(&attributes, &asking);
    let question = || Question {
        verb: "get".to_owned(),
        group: "apps".to_owned(),
        resource: "deployments".to_owned(),
        label_selector: "a=b".to_owned(),
        ..Question::default()
    };
    let said = evaluate(&questions, |_| questions.answer(question())).await;
    let expected = Answer {
        allowed: false,
        reason: "r".to_owned(),
        error: "e".to_owned(),
    };
    assert_eq!(*said.unwrap().unwrap(), expected);
    let spec = json!({
        "user": "anna", "uid": "1", "groups": ["g"], "extra": {"example.com/x": ["y"]},
        "resourceAttributes": {"verb": "get", "group": "apps", "version": "*",
            "resource": "deployments", "labelSelector": {"rawSelector": "a=b"}},
    });
    assert_eq!(*sent.lock(), spec);
}

/// A request whose time is over while the authorizer is asked is late, whatever the failure
/// policy is; and nothing is waited for longer.
#[tokio::test]
async fn the_time_of_the_request_is_that_of_its_questions() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let asking = Asking::new(Authorizer::new(kube::Client::new(service, "default")));
    let asked = Asked::by(service_account("n", "sa"));
    let attributes = Attributes {
        resource: apiservice::find("datastores").unwrap(),
        namespace: None,
        deadline: tokio::time::Instant::now() + std::time::Duration::from_millis(100),
        ..asked.creation()
    };
    let questions = Questions::new(&attributes, &asking);
    let began = Instant::now();
    let said = evaluate(&questions, |_| {
        questions.answer(Question::default()).is_ok()
    });
    let late = said.await.unwrap_err();
    assert!(matches!(late, Failure::Timeout(_)), "{late}");
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

/// However often it has to begin anew, a policy is evaluated no longer than one may be.
#[test]
fn all_rounds_have_the_time_of_one() {
    let asking = judge(&Arc::default());
    with_attributes(
        (Operation::Create, "tenantcontrolplanes", ""),
        |attributes| {
            let questions = Questions::new(attributes, &asking);
            let mut round = 0;
            let work = |until: Instant| {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(std::time::Duration::from_millis(100).min(left));
                round += 1;
                let question = Question {
                    verb: format!("get{round}"),
                    ..Question::default()
                };
                if !left.is_zero() {
                    questions.answer(question).unwrap_err();
                }
            };
            runtime().block_on(evaluate(&questions, work)).unwrap();
            assert!((4..=6).contains(&round), "{round}");
        },
    );
}

/// Expressions that say something have no authorizer, nor have their variables.
#[test]
fn texts_ask_nobody() {
    let variables = definition(json!([
        {"name": "may", "expression": "authorizer.path('/a').check('get').allowed()"},
    ]));
    let null = Value::Null;
    let asking = judge(&Arc::default());
    with_attributes(
        (Operation::Create, "tenantcontrolplanes", ""),
        |attributes| {
            let questions = Questions::new(attributes, &asking);
            let values = Values {
                object: &null,
                old: &null,
                request: &null,
                params: &null,
                namespace: &null,
                questions: Some(&questions),
                until: Instant::now() + cel::TIME,
            };
            let values = values.of_texts();
            let bound = Bound::new(&variables.variables, &values);
            let why = bound.variable("may", &Budget::new(cel::POLICY)).unwrap();
            let why = why.unwrap_err().to_string();
            let expected =
                "composited variable \"may\" fails to evaluate: no such attribute(s): authorizer";
            assert_eq!(why, expected);
            assert!(!questions.has_open());
        },
    );
}
