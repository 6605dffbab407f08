use std::convert::Infallible;

use axum::body::Body;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::Request;
use tokio_util::sync::CancellationToken;

use super::super::backend::Mode;
use super::super::backend::tests::{Desk, desk};
use super::*;
use crate::authn::{self, Peer};
use crate::metrics::Metrics;
use crate::pipeline::{self, Context};
use crate::status::{Denied, Details};

const OURS: &str = "/apis/steward.butlerlabs.dev/v1alpha1";
const TENANTS: &str = "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/a/tenantcontrolplanes";
const ALL: &str = "{rules: [{level: RequestResponse}]}";

/// A server whose store is not open, and what it says of its requests.
pub(crate) struct World {
    pub(crate) context: Arc<Context>,
    pub(crate) desk: Desk,
}

pub(crate) fn auditor(desk: &Desk, policy: &str) -> Arc<Auditor> {
    let policy = serde_saphyr::from_str(policy).unwrap();
    let clock = apiservice::clock::Clock::new(|| "2030-01-01T00:00:00Z".parse().unwrap());
    Auditor::for_test(
        policy,
        vec![desk.backend.clone()],
        desk.metrics.clone(),
        clock,
    )
}

fn world(mode: Mode, policy: &str) -> World {
    truncating(mode, policy, None)
}

fn truncating(mode: Mode, policy: &str, largest: Option<usize>) -> World {
    let desk = desk(mode, 100, largest);
    let context = pipeline::tests::context(|identity, attributes| {
        assert_ne!(attributes.path.as_deref(), Some("/boom"), "a bug");
        let reason = format!("because it is {}", identity.user);
        match attributes.verb == "delete" {
            true => Decision::Deny { reason },
            false => Decision::Allow { reason },
        }
    });
    let mut context = Arc::into_inner(context).unwrap();
    context.audit = Some(auditor(&desk, policy));
    World {
        context: Arc::new(context),
        desk,
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("user-agent", "tests/1")
        .header("x-forwarded-for", "1.2.3.4");
    request.body(Body::from(body.to_owned())).unwrap()
}

impl World {
    async fn ask(&mut self, request: Request<Body>) -> (Response<Body>, Vec<Value>) {
        let peer = Peer::default().at("10.0.0.1".parse().unwrap());
        let answer = pipeline::handle(self.context.clone(), Arc::new(peer), request);
        let answer = answer.await.unwrap();
        (answer, self.desk.events())
    }

    async fn events(&mut self, method: &str, path: &str, body: &str) -> Vec<Value> {
        self.ask(request(method, path, body)).await.1
    }
}

fn stages(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["stage"].as_str().unwrap())
        .collect()
}

/// R9.10, R9.11.
#[tokio::test]
async fn a_request_is_told_as_by_kubernetes() {
    let mut world = world(Mode::Batch, ALL);
    let body = "{\"metadata\": {\"name\": \"t\", \"uid\": \"u\"},\n \"spec\": {}}";
    let url = format!("{TENANTS}?dryRun=All");
    let (answer, events) = world.ask(request("POST", &url, body)).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let id = answer.headers()["audit-id"].to_str().unwrap();
    assert_eq!(events[0]["auditID"], id);
    let user = json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]});
    let mut object = json!({
        "resource": "tenantcontrolplanes", "namespace": "a",
        "apiGroup": "steward.butlerlabs.dev", "apiVersion": "v1alpha1",
    });
    let time = "2030-01-01T00:00:00.000000Z";
    let mut last = events[1].clone();
    for key in ["requestReceivedTimestamp", "stageTimestamp"] {
        let told = last.as_object_mut().unwrap().remove(key).unwrap();
        assert!(
            told == time || told.as_str().unwrap().starts_with("2029-12-31T23:59:5"),
            "{told}"
        );
    }
    assert_eq!(
        events[0]["stageTimestamp"],
        events[0]["requestReceivedTimestamp"]
    );
    assert_eq!(events[0]["objectRef"], object);
    object["name"] = json!("t");
    object["uid"] = json!("u");
    let message = "the object store is not available: the store is being opened";
    let details = json!({"retryAfterSeconds": 1});
    let status = json!({
        "metadata": {}, "status": "Failure", "message": message,
        "reason": "ServiceUnavailable", "details": details, "code": 503,
    });
    let mut answered = status.clone();
    answered["kind"] = json!("Status");
    answered["apiVersion"] = json!("v1");
    let expected = json!({
        "level": "RequestResponse", "auditID": id, "stage": "ResponseComplete",
        "requestURI": url, "verb": "create", "user": user,
        "sourceIPs": ["1.2.3.4", "10.0.0.1"], "userAgent": "tests/1", "objectRef": object,
        "responseStatus": status,
        "requestObject": {"metadata": {"name": "t", "uid": "u"}, "spec": {}},
        "responseObject": answered,
        "annotations": {
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": "because it is system:anonymous",
        },
    });
    assert_eq!(last, expected);
    let metrics = world.desk.metrics.encode().unwrap();
    assert!(
        metrics.contains("apiserver_audit_event_total 2"),
        "{metrics}"
    );
    assert!(metrics.contains(r#"apiserver_audit_level_total{level="RequestResponse"} 1"#));
}

/// R9.10: the level and the stages are those of the policy.
#[tokio::test]
async fn no_more_is_told_than_the_policy_says() {
    let mut world = world(
        Mode::Batch,
        "{omitStages: [RequestReceived], rules: [\
            {level: None, verbs: [get]}, \
            {level: Metadata, verbs: [update], omitStages: [ResponseComplete]}, \
            {level: Metadata, verbs: [delete]}, \
            {level: Request, verbs: [create]}]}",
    );
    let tenant = &format!("{TENANTS}/t");
    assert!(world.events("GET", tenant, "").await.is_empty());
    assert!(world.events("PATCH", tenant, "").await.is_empty());
    assert!(world.events("PUT", tenant, "{}").await.is_empty());
    let events = world.events("POST", TENANTS, "{}").await;
    assert_eq!(stages(&events), ["ResponseComplete"]);
    assert_eq!(events[0]["requestObject"], json!({}));
    assert!(events[0].get("responseObject").is_none());
    let events = world.events("DELETE", tenant, "{}").await;
    assert!(events[0].get("requestObject").is_none());
    assert_eq!(
        events[0]["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(events[0]["responseStatus"]["code"], 403);
    assert_eq!(events[0]["objectRef"]["name"], "t");
    let metrics = world.desk.metrics.encode().unwrap();
    assert!(
        metrics.contains(r#"apiserver_audit_level_total{level="None"} 2"#),
        "{metrics}"
    );
}

/// R8.31, R9.11: whatever is sent to it, however it is refused.
#[tokio::test]
async fn bodies_with_secrets_are_in_no_event() {
    let mut world = world(Mode::Batch, ALL);
    for (path, body) in [
        (
            format!("{OURS}/datastores"),
            r#"{"spec": {"basicAuth": "hunter2"}}"#,
        ),
        (format!("{OURS}/datastores"), "hunter2"),
        (format!("{TENANTS}/t/kubeconfig"), "hunter2"),
        (
            format!("{TENANTS}/t/jointoken?token=abcdef.hunter2"),
            r#"{"token": "hunter2"}"#,
        ),
    ] {
        let events = world.events("POST", &path, body).await;
        assert_eq!(
            stages(&events),
            ["RequestReceived", "ResponseComplete"],
            "{path}"
        );
        for event in events {
            assert_eq!(event["level"], "Metadata", "{path}");
            assert!(!event.to_string().contains("hunter2"), "{event}");
        }
    }
    let quoted = || "got &{hunter2}".to_owned();
    let denied = |code| {
        Failure::Denied(Box::new(Denied {
            message: quoted(),
            code,
            details: Some(Details::new(
                &json!({"causes": [{"message": quoted()}]}).to_string(),
            )),
            ..Denied::default()
        }))
    };
    let conflict = Failure::ApplyConflict {
        message: quoted(),
        causes: Vec::new(),
    };
    for failure in [
        Failure::BadRequest(quoted()),
        // A configuration that does not fit the schema.
        Failure::Unexplained(quoted()),
        Failure::TooLarge(quoted()),
        Failure::Internal(quoted()),
        conflict,
        denied(401),
        denied(403),
        denied(500),
    ] {
        let mut trail = trail(&world, "POST", &format!("{OURS}/datastores"));
        trail.failed(&failure);
        let answer = trail.answered(Response::new(Body::empty())).await;
        drop(answer);
        let events = world.desk.events();
        assert_eq!(stages(&events), ["ResponseComplete"]);
        let status = &events[0]["responseStatus"];
        assert_eq!(status["status"], "Failure", "{failure:?}");
        assert!(!events[0].to_string().contains("hunter2"), "{}", events[0]);
    }
    let mut trail = trail(&world, "POST", &format!("{OURS}/datastores"));
    trail.failed(&Failure::too_many());
    drop(trail.answered(Response::new(Body::empty())).await);
    let status = world.desk.events()[0]["responseStatus"].clone();
    assert!(status["message"].as_str().is_some(), "it quotes nothing");
}

/// R9.11: whoever is not recognised leaves one event.
#[tokio::test]
async fn a_caller_who_is_not_recognised_is_told_once() {
    let mut world = world(Mode::Batch, ALL);
    let mut asked = request("GET", TENANTS, "");
    let token = "Bearer abc".parse().unwrap();
    asked.headers_mut().insert(header::AUTHORIZATION, token);
    let (answer, events) = world.ask(asked).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(stages(&events), ["ResponseStarted"]);
    assert_eq!(events[0]["user"], json!({}));
    let status = json!({
        "metadata": {}, "status": "Failure", "message": "Unauthorized",
        "reason": "Unauthorized", "code": 401,
    });
    assert_eq!(events[0]["responseStatus"], status);
    assert!(!events[0].to_string().contains("abc"));
}

/// R9.10: Panic.
#[tokio::test]
async fn a_panic_is_a_stage_of_its_own() {
    let mut world = world(Mode::Batch, ALL);
    let events = world.events("GET", "/boom", "").await;
    assert_eq!(stages(&events), ["RequestReceived", "Panic"]);
    let status = &events[1]["responseStatus"];
    assert_eq!(status["code"], 500);
    assert_eq!(status["reason"], "InternalError");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("APIServer panic'd: ")
    );
    assert!(events[1].get("objectRef").is_none());
}

/// R9.10: ResponseStarted is told of watches alone.
#[tokio::test]
async fn a_watch_has_one_stage_more() {
    let mut world = world(Mode::Batch, ALL);
    let events = world.events("GET", &format!("{TENANTS}?watch=1"), "").await;
    let expected = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
    assert_eq!(stages(&events), expected);
    assert_eq!(events[1]["responseStatus"]["code"], 503);
    assert_eq!(events[1]["verb"], "watch");
}

/// R9.11: what was handed to the store stands, also if nobody hears of it.
#[tokio::test]
async fn whoever_leaves_is_told_nevertheless() {
    let mut world = world(Mode::Batch, ALL);
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    let asked = Request::post(TENANTS).body(never).unwrap();
    let answer = pipeline::handle(world.context.clone(), Arc::default(), asked);
    assert!(answer.boxed().now_or_never().is_none());
    let events = world.desk.events();
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let status = json!({"metadata": {}, "message": "Connection closed early"});
    assert_eq!(events[1]["responseStatus"], status);
}

/// R9.12: blocking-strict.
#[tokio::test]
async fn a_request_that_cannot_be_recorded_is_refused_where_that_is_wanted() {
    for (mode, code, rejected) in [
        (Mode::Batch, 503, "0"),
        (Mode::Blocking, 503, "0"),
        (Mode::BlockingStrict, 500, "1"),
    ] {
        let World { context, desk } = world(mode, ALL);
        // Nobody takes events.
        drop(desk.worker);
        let asked = request("GET", TENANTS, "");
        let answer = pipeline::handle(context, Arc::default(), asked)
            .await
            .unwrap();
        assert_eq!(answer.status(), code, "{mode:?}");
        if code == 500 {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains("failed to store audit event"), "{text}");
        }
        let metrics = desk.metrics.encode().unwrap();
        let line = format!("apiserver_audit_requests_rejected_total {rejected}");
        assert!(metrics.contains(&line), "{mode:?}: {metrics}");
    }
}

/// A server whose log takes nothing once so many events are on their way.
fn stalled(capacity: usize) -> World {
    let mut world = world(Mode::Blocking, ALL);
    let desk = desk(Mode::Blocking, capacity, None);
    let mut context = Arc::into_inner(world.context).unwrap();
    context.audit = Some(auditor(&desk, ALL));
    world.context = Arc::new(context);
    World { desk, ..world }
}

/// Those that are not answered, as far as they can be.
async fn pending<T>(mut asking: Vec<BoxFuture<'_, T>>) -> Vec<BoxFuture<'_, T>> {
    for _ in 0..20 {
        let mut left = Vec::new();
        for mut one in asking {
            if futures::poll!(one.as_mut()).is_pending() {
                left.push(one);
            }
        }
        asking = left;
        tokio::task::yield_now().await;
    }
    asking
}

fn lost(metrics: &Metrics) -> usize {
    let text = metrics.encode().unwrap();
    let start = "apiserver_audit_error_total{plugin=\"buffered\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.map_or(0, |lost| lost.parse().unwrap())
}

/// R9.12: a log that takes nothing holds few requests of callers without credentials, whatever
/// they send.
#[tokio::test]
async fn strangers_do_not_pile_up_at_the_log() {
    for (capacity, most) in [(4, 1), (100_000, 16)] {
        let world = stalled(capacity);
        let asking = (0..1000).map(|n| {
            let mut asked = request("GET", TENANTS, "");
            let headers = asked.headers_mut();
            headers.insert("x-long", "x".repeat(60 * 1024).parse().unwrap());
            if n % 2 == 0 {
                headers.insert(header::AUTHORIZATION, "Bearer abc".parse().unwrap());
            }
            let peer = Peer::default().at("10.0.0.1".parse().unwrap());
            pipeline::handle(world.context.clone(), Arc::new(peer), asked).boxed()
        });
        let waiting = pending(asking.collect()).await;
        assert_eq!(waiting.len(), most, "{capacity}");
        // Of whom nobody waits for, the event is queued all the same, where there is room.
        assert_eq!(lost(&world.desk.metrics) > 0, capacity == 4, "{capacity}");
    }
}

/// R9.12: nor many of one user, of which those that are not refused wait until it was taken
/// what they are.
#[tokio::test]
async fn requests_of_one_user_that_wait_for_the_log_are_few() {
    let mut world = stalled(4);
    let (authenticator, peers) = authn::tests::recognised(["jane", "bob"]);
    let [jane, bob] = peers.map(Arc::new);
    let context = Arc::get_mut(&mut world.context).unwrap();
    context.authenticator = authenticator;
    let ask = |who: &Arc<Peer>| {
        let asked = request("GET", TENANTS, "");
        pipeline::handle(world.context.clone(), who.clone(), asked).boxed()
    };
    let waiting = pending((0..1000).map(|_| ask(&jane)).collect()).await;
    assert_eq!(waiting.len(), 50);
    assert!(lost(&world.desk.metrics) >= 950);
    let others = pending(vec![ask(&bob)]).await;
    assert_eq!(others.len(), 1);
    let (before, stop) = (lost(&world.desk.metrics), CancellationToken::new());
    let asking = async {
        let answers = futures::future::join_all(waiting.into_iter().chain(others));
        assert!(answers.await.iter().all(Result::is_ok));
        // Both stages of each.
        assert_eq!(world.desk.taken.count(), 2 * 51);
        stop.cancel();
    };
    tokio::join!(world.desk.worker.run(stop.clone()), asking);
    assert_eq!(lost(&world.desk.metrics), before);
}

/// The trail of a request that is answered by hand.
pub(crate) fn trail(world: &World, method: &str, url: &str) -> Trail {
    let (parts, _) = request(method, url, "").into_parts();
    let query = crate::target::parse_query(parts.uri.query());
    let target = Target::parse(&parts.method, parts.uri.path(), &query);
    let seen = Seen {
        id: "id",
        parts: &parts,
        target: &target,
        source: None,
        began: Instant::now(),
    };
    let auditor = world.context.audit.as_ref().unwrap();
    Trail::begin(auditor, seen, None, &Annotations::default())
}

fn json_answer(body: Body) -> Response<Body> {
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(body).unwrap()
}

fn pieces(pieces: &'static [&'static str]) -> Body {
    let pieces = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Bytes::from(*piece)));
    Body::from_stream(futures::stream::iter(pieces))
}

/// R9.11: an answer that is made while it is sent is complete when it ends.
#[tokio::test]
async fn a_list_is_told_when_it_was_sent() {
    let mut world = world(
        Mode::Batch,
        "{omitManagedFields: true, rules: [{level: RequestResponse}]}",
    );
    let list: &[&str] = &[
        "{\"kind\": \"AList\", \"items\": [",
        "{\"metadata\": {\"name\": \"a\", \"managedFields\": []}}",
        "]}",
    ];
    let answer = trail(&world, "GET", TENANTS)
        .answered(json_answer(pieces(list)))
        .await;
    assert!(world.desk.events().is_empty());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, list.concat());
    let events = world.desk.events();
    assert_eq!(stages(&events), ["ResponseComplete"]);
    let expected = json!({"kind": "AList", "items": [{"metadata": {"name": "a"}}]});
    assert_eq!(events[0]["responseObject"], expected);
    assert_eq!(
        events[0]["responseStatus"],
        json!({"metadata": {}, "code": 200})
    );

    // Who leaves in the middle.
    let answer = trail(&world, "GET", TENANTS)
        .answered(json_answer(pieces(list)))
        .await;
    drop(answer);
    let events = world.desk.events();
    assert_eq!(stages(&events), ["ResponseComplete"]);
    assert!(events[0].get("responseObject").is_none());
    assert_eq!(events[0]["annotations"]["audit.k8s.io/truncated"], "true");
}

/// An answer as the server sends it, asked for by a client with this version of HTTP.
#[allow(clippy::disallowed_methods, reason = "a test")]
async fn sent(answer: Response<Body>, http2: bool) -> Bytes {
    use crate::{live_bytes::Live, response_body::ResponseBody, sending::Unread};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let taking = Unread::new(Live::default()).connection();
    let answer = answer.map(|body| {
        let body = ResponseBody::new(body, None, Default::default());
        taking.take(Body::new(body), Default::default())
    });
    let answer = Arc::new(parking_lot::Mutex::new(Some(answer)));
    let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
        let answer = answer.lock().take().unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    let (client, server) = tokio::io::duplex(1024);
    let (client, server) = (TokioIo::new(client), TokioIo::new(server));
    let asked = Request::get("http://server/").header("host", "server");
    let asked = asked.body(Body::empty()).unwrap();
    let answered = if http2 {
        let executor = TokioExecutor::new();
        let serving = hyper::server::conn::http2::Builder::new(executor.clone());
        tokio::spawn(serving.serve_connection(server, service));
        let (mut sender, line) = hyper::client::conn::http2::handshake(executor, client)
            .await
            .unwrap();
        tokio::spawn(line);
        sender.send_request(asked).await.unwrap()
    } else {
        let serving = hyper::server::conn::http1::Builder::new();
        tokio::spawn(serving.serve_connection(server, service));
        let (mut sender, line) = hyper::client::conn::http1::handshake(client).await.unwrap();
        tokio::spawn(line);
        sender.send_request(asked).await.unwrap()
    };
    answered.into_body().collect().await.unwrap().to_bytes()
}

/// R9.11: a connection that knows how many bytes there are asks for no end after them.
#[tokio::test]
async fn a_list_whose_length_is_known_is_told_with_its_body() {
    let list: &[&str] = &[r#"{"kind":"AList","#, r#""items":[1,"#, "2]}"];
    for http2 in [false, true] {
        for declared in [false, true] {
            let mut world = world(Mode::Batch, ALL);
            let mut answer = json_answer(pieces(list));
            if declared {
                let length = list.concat().len().into();
                answer.headers_mut().insert(header::CONTENT_LENGTH, length);
            }
            let answer = trail(&world, "GET", TENANTS).answered(answer).await;
            assert_eq!(sent(answer, http2).await, list.concat());
            let events = world.desk.events();
            let what = format!("{http2} {declared}: {events:?}");
            assert_eq!(stages(&events), ["ResponseComplete"], "{what}");
            let expected = json!({"kind": "AList", "items": [1, 2]});
            assert_eq!(events[0]["responseObject"], expected, "{what}");
        }
    }
}

/// R9.11: nor is the last of them sent before the event is where it has to be.
#[tokio::test]
async fn the_last_of_a_known_length_waits_for_the_event() {
    let world = world(Mode::Blocking, ALL);
    let mut answer = json_answer(pieces(&["[1,", "2]"]));
    let length = http::HeaderValue::from(5);
    answer.headers_mut().insert(header::CONTENT_LENGTH, length);
    let answer = trail(&world, "GET", TENANTS).answered(answer).await;
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "[1,");
    // Nobody delivers.
    assert!(body.frame().now_or_never().is_none());
}

/// A list may be as long as all there is.
#[tokio::test]
async fn long_lists_are_not_kept() {
    let mut world = world(Mode::Batch, ALL);
    let piece = Bytes::from("[".repeat(1024 * 1024));
    let many = futures::stream::repeat(piece).map(Ok::<_, Infallible>);
    let body = Body::from_stream(many.take(50));
    let answer = trail(&world, "GET", TENANTS)
        .answered(json_answer(body))
        .await;
    let mut body = answer.into_body();
    let mut sent = 0;
    while let Some(frame) = body.frame().await {
        sent += frame.unwrap().data_ref().unwrap().len();
        let all = world.context.audit.as_ref().unwrap().room.take(body::MOST);
        assert!(all.is_some(), "after {sent}");
    }
    assert_eq!(sent, 50 * 1024 * 1024);
    let events = world.desk.events();
    assert!(events[0].get("responseObject").is_none());
    assert_eq!(events[0]["annotations"]["audit.k8s.io/truncated"], "true");
}

/// R9.10: also after the answer has begun.
#[tokio::test]
async fn a_panic_in_a_stream_is_told() {
    let mut world = world(Mode::Batch, ALL);
    let frames = futures::stream::iter([1]).map(|n| {
        assert!(n < 1, "a bug");
        Ok::<_, Infallible>(Bytes::from_static(b"x"))
    });
    let body = json_answer(Body::from_stream(frames));
    let answer = trail(&world, "GET", &format!("{TENANTS}?watch=1"))
        .answered(body)
        .await;
    let body =
        crate::response_body::ResponseBody::new(answer.into_body(), None, Default::default());
    assert!(body.collect().await.is_err());
    assert_eq!(stages(&world.desk.events()), ["ResponseStarted", "Panic"]);
}

/// R9.11: what a deletion says is in every event of it.
#[tokio::test]
async fn a_status_that_is_no_failure_is_told() {
    let mut world = world(Mode::Batch, "{rules: [{level: Metadata}]}");
    let mut answer = json_answer(Body::empty());
    let status = crate::status::deleted(&crate::status::Subject::new("g", "r", "n"), "u");
    answer.extensions_mut().insert(Said(status));
    trail(&world, "DELETE", TENANTS).answered(answer).await;
    let events = world.desk.events();
    let details = json!({"name": "n", "group": "g", "kind": "r", "uid": "u"});
    let expected = json!({"metadata": {}, "status": "Success", "details": details, "code": 200});
    assert_eq!(events[0]["responseStatus"], expected);
}

/// R9.11: what is not read is not recorded.
#[test]
fn bodies_of_other_types_are_not_recorded() {
    for (verb, media, expected) in [
        (Verb::Create, "", Some(Media::Json)),
        (Verb::Update, "application/yaml", Some(Media::Yaml)),
        (Verb::Create, "text/plain", None),
        (
            Verb::Patch,
            "application/merge-patch+json",
            Some(Media::Json),
        ),
        (
            Verb::Patch,
            "application/apply-patch+yaml",
            Some(Media::Either),
        ),
        (Verb::Patch, "application/json", None),
        (Verb::Patch, "text/plain", None),
    ] {
        let mut headers = HeaderMap::new();
        if !media.is_empty() {
            headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
        }
        assert_eq!(readable(verb, &headers), expected, "{verb:?} {media}");
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(readable(verb, &headers), None);
    }
}

#[test]
fn user_agents_are_short() {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, "x".repeat(5000).parse().unwrap());
    let expected = format!("{}...TRUNCATED", "x".repeat(1024));
    assert_eq!(user_agent(&headers), expected);
}

/// As many bytes as an event may have where it is truncated and nothing else is said.
const LARGEST: usize = 100 * 1024;

/// R9.11, R9.12: nobody has the event of what was done dropped by the length of a text.
#[tokio::test]
async fn long_texts_do_not_make_an_event_too_large() {
    let mut world = truncating(Mode::Batch, ALL, Some(LARGEST));
    let long = "x".repeat(200 * 1024);
    let body = json!({"metadata": {
        "name": long, "namespace": long, "uid": long, "resourceVersion": long,
    }});
    let events = world.events("POST", TENANTS, &body.to_string()).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let object = &events[1]["objectRef"];
    let cut = |most| format!("{}...TRUNCATED", "x".repeat(most));
    assert_eq!(object["name"], cut(253));
    assert_eq!(object["namespace"], "a");
    assert_eq!(
        (&object["uid"], &object["resourceVersion"]),
        (&json!(cut(128)), &json!(cut(128)))
    );
    assert_eq!(events[1]["annotations"]["audit.k8s.io/truncated"], "true");

    // A Status as the answer is a body.
    let mut world = truncating(Mode::Batch, "{rules: [{level: Metadata}]}", Some(LARGEST));
    let long = "x".repeat(30_000);
    for (method, path) in [
        ("GET", format!("{TENANTS}?x={long}")),
        ("GET", format!("{TENANTS}/{long}")),
        ("GET", format!("{TENANTS}/t/{long}")),
        (
            "DELETE",
            format!("{OURS}/namespaces/{long}/tenantcontrolplanes/{long}"),
        ),
        ("GET", format!("/apis/{long}/v1/things")),
        (&long, TENANTS.to_owned()),
        (&long, format!("/{long}")),
    ] {
        let events = world.events(method, &path, "").await;
        assert_eq!(events.len(), 2, "{} {}", &method[..3], &path[..9]);
        for event in events {
            let bytes = event.to_string().len();
            assert!(
                bytes < 16 * 1024,
                "{bytes} of {} {}",
                &method[..3],
                &path[..9]
            );
        }
    }
}

/// R9.11: of whoever, whatever admission says, and however it is refused.
#[tokio::test]
async fn all_texts_of_an_event_together_are_bounded() {
    let world = truncating(Mode::Batch, ALL, Some(LARGEST));
    let text = |bytes| "\u{1}".repeat(bytes);
    let many: Vec<_> = (0..1000).map(|n| format!("{n}{}", text(100))).collect();
    let who = Identity {
        user: text(10_000),
        uid: Some(text(10_000)),
        groups: many.clone(),
        extra: many.iter().map(|key| (key.clone(), many.clone())).collect(),
    };
    let annotations = Annotations::default();
    for n in 0..1000 {
        annotations.add(format!("own/{n}"), text(500));
        annotations.add_of(&format!("{n}"), "a", text(5000));
    }
    let long = "\"".repeat(60_000);
    let mut asked = request(
        "POST",
        &format!("{OURS}/namespaces/{long}/tenantcontrolplanes"),
        "",
    );
    let headers = asked.headers_mut();
    let agent = http::HeaderValue::from_bytes(&[0xff; 5000]).unwrap();
    headers.insert(header::USER_AGENT, agent);
    headers.insert(
        "x-forwarded-for",
        ["1:2:3:4:5:6:7:8"; 100].join(",").parse().unwrap(),
    );
    let (parts, _) = asked.into_parts();
    let target = Target::parse(&parts.method, parts.uri.path(), &[]);
    let seen = Seen {
        id: "id",
        parts: &parts,
        target: &target,
        source: None,
        began: Instant::now(),
    };
    let auditor = world.context.audit.as_ref().unwrap();
    let mut trail = Trail::begin(auditor, seen, Some(&who), &annotations);
    trail.authorized(&Ok(Decision::Allow { reason: text(1000) }), Duration::ZERO);
    let denied = crate::status::Denied {
        message: text(60_000),
        reason: text(60_000),
        code: 403,
        details: Some(Details::new(
            &json!({"name": text(60_000), "causes": [{"message": text(60_000)}]}).to_string(),
        )),
    };
    trail.failed(&Failure::Denied(Box::new(denied)));
    let mut event = trail.0.as_ref().unwrap().event.clone();
    trail.answered(Response::new(Body::empty())).await;
    let mut desk = world.desk;
    let events = desk.events();
    assert_eq!(stages(&events), ["ResponseComplete"]);
    assert_eq!(
        events[0]["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert!(events[0]["annotations"]["own/0"].is_string());
    event.object_ref.as_mut().unwrap().complete(body::Meta {
        name: Some(text(1000)),
        namespace: None,
        uid: Some(text(1000)),
        resource_version: Some(text(1000)),
    });
    let bytes = event.truncated().encode().len();
    assert!(bytes < LARGEST, "{bytes}");
}

/// R9.12: nor do callers without credentials take the room of the others.
#[tokio::test]
async fn callers_without_credentials_leave_room_for_others() {
    let mut world = world(Mode::Batch, "{rules: [{level: Metadata}]}");
    let long = "x".repeat(60_000);
    for n in 0..300 {
        let mut asked = request("GET", &format!("{TENANTS}?x={long}"), "");
        if n % 2 == 0 {
            let token = "Bearer abc".parse().unwrap();
            asked.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let answer = pipeline::handle(world.context.clone(), Arc::default(), asked);
        let _ = answer.await;
    }
    let who = Identity {
        user: "jane".to_owned(),
        uid: None,
        groups: vec!["system:authenticated".to_owned()],
        extra: Default::default(),
    };
    for _ in 0..75 {
        let (parts, _) = request("GET", TENANTS, "").into_parts();
        let target = Target::parse(&parts.method, parts.uri.path(), &[]);
        let seen = Seen {
            id: "id",
            parts: &parts,
            target: &target,
            source: None,
            began: Instant::now(),
        };
        let auditor = world.context.audit.as_ref().unwrap();
        let trail = Trail::begin(auditor, seen, Some(&who), &Annotations::default());
        trail.answered(Response::new(Body::empty())).await;
    }
    let events = world.desk.events();
    let jane = events
        .iter()
        .filter(|event| event["user"]["username"] == "jane");
    assert_eq!((jane.count(), events.len()), (75, 100));
}
