use apiservice::clock::Clock;
use arc_swap::ArcSwapOption;
use http::{HeaderValue, header};
use http_body_util::BodyExt;

use super::headers::AUDIT_ID;
use super::*;
use crate::authn::Authenticator;
use crate::authz::{Attributes, Authorizer, Decision};
use crate::documents::Documents;
use crate::health::Outcome;
use crate::limits::Limits;
use crate::namespaces::Namespaces;
use crate::protobuf;
use crate::store_guard::StoreGuard;
use crate::subresource::join_token::JoinTokens;
use crate::subresource::kubeconfig::Minter;

mod objects;
mod places;

const OURS: &str = "/apis/steward.butlerlabs.dev/v1alpha1";
const WRITABLE: &str =
    "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/default/tenantcontrolplanes";

fn clock() -> Clock {
    Clock::new(|| "2030-01-01T00:00:00Z".parse().unwrap())
}

/// A server whose store is not open, with a cluster that nobody reaches.
pub(crate) fn context(decide: fn(&Identity, &Attributes) -> Decision) -> Arc<Context> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let metrics = Arc::new(Metrics::new());
    let authorizer = Authorizer::for_test(decide);
    Arc::new(Context {
        authenticator: Authenticator::new(None, clock()),
        authorizer: authorizer.clone(),
        documents: Documents::new(clock().now()),
        limits: Limits::new(1, 1, "ns"),
        audit: None,
        namespaces: Namespaces::for_test(Vec::new()),
        policies: crate::policy::Policies::none(Namespaces::for_test(Vec::new())),
        store_guard: StoreGuard::new(client.clone(), "ns", "secret", Vec::new(), metrics.clone()),
        registry: ArcSwapOption::empty(),
        minter: Minter::new(
            client.clone(),
            authorizer.clone(),
            clock(),
            metrics.clone(),
            600,
        ),
        chooser: Default::default(),
        join_tokens: JoinTokens::new(client, authorizer, clock(), metrics.clone(), 600),
        leaving: tokio_util::sync::CancellationToken::new(),
        metrics,
    })
}

pub(crate) fn allow(_: &Identity, _: &Attributes) -> Decision {
    Decision::allow()
}

fn deny(_: &Identity, _: &Attributes) -> Decision {
    Decision::Deny {
        reason: String::new(),
    }
}

async fn answer(context: &Arc<Context>, request: http::Request<Body>) -> (u16, HeaderMap, String) {
    let peer = Arc::new(Peer::default());
    let response = handle(context.clone(), peer, request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, text)
}

fn request(method: &str, path: &str) -> http::Request<Body> {
    let request = http::Request::builder().method(method).uri(path);
    request.body(Body::from("{}")).unwrap()
}

async fn code(context: &Arc<Context>, method: &str, path: &str) -> u16 {
    answer(context, request(method, path)).await.0
}

/// R2.1, R2.31.
#[tokio::test]
async fn without_a_right_every_path_is_403_whether_or_not_it_exists() {
    let context = context(deny);
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/nothing"),
        ("GET", "/apis"),
        ("GET", OURS),
        ("POST", WRITABLE),
        ("OPTIONS", WRITABLE),
        ("GET", "/apis/steward.butlerlabs.dev/v1alpha1/nothing"),
        (
            "GET",
            "/apis/steward.butlerlabs.dev/v1alpha1/datastores/a/nothing",
        ),
    ] {
        assert_eq!(code(&context, method, path).await, 403, "{method} {path}");
    }
    assert_ne!(code(&context, "GET", "/readyz").await, 403);
}

/// A document that is not taken holds a place as an object does. Whoever asks whether we
/// are well needs none.
/// R9.1.
#[tokio::test]
async fn documents_take_places_and_checks_none() {
    let context = context(allow);
    let one = handle(context.clone(), Arc::default(), request("GET", OURS)).await;
    assert_eq!(code(&context, "GET", OURS).await, 429);
    assert_eq!(code(&context, "GET", "/metrics").await, 429);
    for path in ["/readyz", "/livez", "/readyz/ping"] {
        assert_ne!(code(&context, "GET", path).await, 429, "{path}");
    }
    drop(one);
    assert_eq!(code(&context, "GET", OURS).await, 200);
}

/// What is shared, and what is not sent, counts as nobody's bytes.
#[tokio::test]
async fn an_answer_counts_what_is_made_for_it() {
    let context = context(allow);
    for (method, path, own) in [
        ("GET", OURS, false),
        ("HEAD", WRITABLE, false),
        ("GET", WRITABLE, true),
    ] {
        let answer = handle(context.clone(), Arc::default(), request(method, path)).await;
        let about = answer
            .unwrap()
            .extensions()
            .get::<sending::About>()
            .cloned();
        assert_eq!(about.unwrap().bytes > 0, own, "{method} {path}");
    }
}

/// R1.26.
#[tokio::test]
async fn a_credential_that_proves_nothing_is_401_on_every_path() {
    let context = context(allow);
    for path in ["/readyz", "/nothing", OURS, WRITABLE] {
        let mut request = request("GET", path);
        let token = "Bearer abc".parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, token);
        let (code, _, text) = answer(&context, request).await;
        assert_eq!(code, 401, "{path}");
        assert!(text.contains(r#""message":"Unauthorized""#), "{text}");
    }
}

/// R2.1, R2.2.
#[tokio::test]
async fn what_is_unknown_comes_before_what_is_broken() {
    let context = context(allow);
    for (method, path, expected) in [
        ("GET", "/nothing", 404),
        ("GET", "/apis/steward.butlerlabs.dev/v1alpha1/nothing", 404),
        ("OPTIONS", WRITABLE, 405),
        ("PUT", WRITABLE, 405),
        ("POST", OURS, 405),
        ("GET", WRITABLE, 503),
        ("POST", WRITABLE, 503),
    ] {
        assert_eq!(
            code(&context, method, path).await,
            expected,
            "{method} {path}"
        );
    }
    let (_, headers, text) = answer(&context, request("GET", WRITABLE)).await;
    assert!(headers.contains_key(header::RETRY_AFTER));
    assert!(text.contains("the store is being opened"), "{text}");
}

/// Rule 2: no store, and yet discovery and readiness.
/// R1.8, R2.32, R9.7, R9.9.
#[tokio::test]
async fn discovery_and_readiness_need_no_store() {
    let context = context(allow);
    assert_eq!(code(&context, "GET", OURS).await, 200);
    let (code, _, text) = answer(&context, request("GET", "/readyz")).await;
    assert_eq!(code, 500);
    assert!(text.contains("[-]authentication failed"), "{text}");

    context.authenticator.load(&Default::default());
    let (code, _, text) = answer(&context, request("GET", "/readyz?verbose")).await;
    assert_eq!(code, 200);
    // Nobody in particular asks.
    assert!(text.contains("[+]storage ok: reason withheld"), "{text}");

    context.leaving.cancel();
    let (code, _, text) = answer(&context, request("GET", "/readyz")).await;
    assert_eq!(code, 500);
    assert!(text.contains("[-]shutdown failed"), "{text}");
    assert_eq!(answer(&context, request("GET", "/livez")).await.0, 200);
}

/// The state of the server is told to nobody in particular, on any path of its health.
/// R2.32.
#[tokio::test]
async fn health_tells_strangers_no_reasons() {
    let context = context(allow);
    context.leaving.cancel();
    let mut paths = Vec::new();
    for endpoint in ["/livez", "/readyz", "/healthz"] {
        let queries = [
            "",
            "?verbose",
            "?verbose=1&exclude=shutdown",
            "?exclude=nothing",
        ];
        paths.extend(queries.map(|query| format!("{endpoint}{query}")));
        paths.extend(context.ready_checks().iter().flat_map(|check| {
            ["", "?verbose"].map(|query| format!("{endpoint}/{}{query}", check.name))
        }));
    }
    let reasons = context
        .ready_checks()
        .into_iter()
        .filter_map(|check| match check.outcome {
            Outcome::Passed => None,
            Outcome::Noted(reason) | Outcome::Failed(reason) => Some(reason),
        });
    let reasons: Vec<String> = reasons.collect();
    assert!(reasons.len() >= 3, "{reasons:?}");
    for path in paths {
        let (_, _, text) = answer(&context, request("GET", &path)).await;
        let told = reasons.iter().find(|reason| text.contains(reason.as_str()));
        assert_eq!(told, None, "{path}: {text}");
    }
    let (code, _, text) = answer(&context, request("GET", "/readyz/shutdown")).await;
    assert_eq!(
        (code, text.as_str()),
        (500, "internal server error: reason withheld\n")
    );
}

/// R1.27.
#[tokio::test]
async fn impersonation_is_refused_and_not_ignored() {
    let context = context(allow);
    let mut request = request("GET", OURS);
    let root = "root".parse().unwrap();
    request.headers_mut().insert("impersonate-user", root);
    let (code, _, text) = answer(&context, request).await;
    assert_eq!(code, 403);
    assert!(text.contains("cannot impersonate here"), "{text}");
}

/// R2.3, R2.5.
#[tokio::test]
async fn every_answer_has_an_id_and_says_how_long_it_may_be_kept() {
    let context = context(allow);
    let (_, headers, _) = answer(&context, request("GET", "/nothing")).await;
    assert_eq!(headers[AUDIT_ID].len(), 36);
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache, private");
    // Only kube-apiserver says which request it is.
    let mut with_id = request("GET", "/nothing");
    let headers = with_id.headers_mut();
    headers.insert(AUDIT_ID, "mine".parse().unwrap());
    assert_eq!(audit_id(headers, true), "mine");
    assert_eq!(answer(&context, with_id).await.1[AUDIT_ID].len(), 36);
    let (code, _, text) = answer(&context, request("HEAD", OURS)).await;
    assert_eq!((code, text.as_str()), (200, ""));
}

/// R2.4.
#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_answered() {
    let context = context(|_, attributes| match attributes.path.as_deref() {
        Some("/boom") => panic!("a bug"),
        _ => Decision::allow(),
    });
    let (code, _, text) = answer(&context, request("GET", "/boom")).await;
    assert_eq!((code, text.as_str()), (500, PANICKED));
    assert_eq!(answer(&context, request("GET", OURS)).await.0, 200);
    let metrics = context.metrics.encode().unwrap();
    assert!(
        metrics.contains("apiserver_request_panics_total 1"),
        "{metrics}"
    );
}

/// What is answered here or remembered takes no place: strangers who ask about path
/// after path leave the probes theirs.
#[tokio::test]
async fn probes_and_known_answers_need_no_place_for_a_question() {
    let context = context(allow);
    context.authenticator.load(&Default::default());
    assert_eq!(code(&context, "GET", "/known").await, 404);
    let anonymous = Identity {
        user: "system:anonymous".to_owned(),
        uid: None,
        groups: vec!["system:unauthenticated".to_owned()],
        extra: Default::default(),
    };
    let _held: Vec<_> = std::iter::from_fn(|| context.limits.ask(&anonymous).ok()).collect();
    assert_eq!(code(&context, "GET", "/other").await, 429);
    assert_eq!(code(&context, "GET", "/readyz").await, 200);
    assert_eq!(code(&context, "GET", "/livez").await, 200);
    assert_eq!(code(&context, "GET", "/known").await, 404);
}

/// As at a server timeout: no error, and what was there is sent.
#[tokio::test]
async fn a_displaced_watch_ends_cleanly() {
    let pool = crate::pool::Pool::places(1);
    let place = Some(pool.displace("a").unwrap());
    let events = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))])
        .chain(futures::stream::pending());
    let mut body = until_ended(Body::from_stream(events), &place);
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "x");
    pool.displace("b").unwrap_err();
    let ended = place.as_ref().map(|place| place.ended()).unwrap();
    ended.cancel();
    assert!(body.frame().await.is_none());
}

/// Whether an answer has an end decides how long a client may take for it, and a length
/// would make the aggregator hold back events (R1.13).
#[tokio::test]
async fn a_watch_is_told_from_what_has_an_end() {
    let world = crate::registry::tests::harness::World::memory().await;
    let stored = world.tenant("a").await.body.to_string().len();
    let context = context(allow);
    context
        .registry
        .store(Some(Arc::new(world.registry.clone())));
    context.store_guard.open_for_test();
    for (query, kind, least) in [
        ("", sending::Kind::Whole, 0),
        ("?watch=1&resourceVersion=0", sending::Kind::Watch, 0),
        ("/a", sending::Kind::Whole, stored),
    ] {
        let path = format!("{OURS}/namespaces/n/tenantcontrolplanes{query}");
        let peer = Arc::new(Peer::default());
        let response = handle(context.clone(), peer, request("GET", &path)).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200, "{query}");
        let about: &sending::About = response.extensions().get().unwrap();
        assert_eq!(about.kind, kind, "{query}");
        if kind == sending::Kind::Watch {
            assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        }
        assert_eq!(&*about.holder, "system:anonymous");
        assert!(
            about.bytes >= least && (least > 0 || about.bytes == 0),
            "{about:?}"
        );
    }
}

#[test]
fn only_the_headers_that_are_looked_at_are_kept() {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("a"));
    headers.append(header::ACCEPT, HeaderValue::from_static("b"));
    headers.insert("x-long", HeaderValue::from_static("c"));
    let kept = needed(&headers);
    assert_eq!(kept.len(), 2);
    assert_eq!(kept.get_all(header::ACCEPT).iter().count(), 2);
}

/// R4.4: of what no message is read it is said so, however long it is, and before it comes.
#[tokio::test]
async fn messages_are_refused_for_what_they_are() {
    let context = context(allow);
    let ask = async |method: &str, path: &str, bytes: usize| {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", protobuf::MEDIA);
        let body = http_body_util::StreamBody::new(futures::stream::iter([Ok::<_, Infallible>(
            http_body::Frame::data(Bytes::from(vec![0; bytes])),
        )]));
        let request = request.body(Body::new(body)).unwrap();
        answer(&context, request).await
    };
    let one = format!("{WRITABLE}/a");
    for bytes in [100, 20_000] {
        for (method, path) in [
            ("POST", WRITABLE.to_owned()),
            ("POST", format!("{one}/kubeconfig")),
            ("POST", format!("{one}/jointoken")),
            ("DELETE", format!("{one}/jointoken")),
            ("PUT", one.clone()),
            ("PUT", format!("{one}/status")),
            ("PATCH", one.clone()),
            ("PATCH", format!("{one}/scale")),
        ] {
            let (code, _, text) = ask(method, &path, bytes).await;
            assert_eq!(code, 415, "{method} {path} {bytes}: {text}");
            let patch = text.contains("application/merge-patch+json");
            assert_eq!(patch, method == "PATCH", "{text}");
        }
        // The store is not open.
        let code = |bytes| if bytes > protobuf::MOST { 413 } else { 503 };
        for (method, path) in [
            ("PUT", format!("{one}/scale")),
            ("DELETE", one.clone()),
            ("DELETE", WRITABLE.to_owned()),
            ("DELETE", format!("{one}/migrate")),
        ] {
            let (answered, _, text) = ask(method, &path, bytes).await;
            assert_eq!(answered, code(bytes), "{method} {path} {bytes}: {text}");
        }
    }
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Logged(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What was handed to the store stands, whoever asked for it.
#[tokio::test]
async fn whoever_leaves_before_the_answer_leaves_a_line() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let lines = || {
        let text = String::from_utf8(logged.0.lock().clone()).unwrap();
        let audit = text.lines().filter(|line| line.contains("audit_id"));
        audit.map(str::to_owned).collect::<Vec<_>>()
    };
    let context = context(allow);
    let endless = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<Bytes>, std::io::Error>,
    >());
    let request = http::Request::post(WRITABLE)
        .header("content-type", "application/json")
        .body(endless)
        .unwrap();
    let peer = Arc::new(Peer::default());
    let mut asked = Box::pin(handle(context.clone(), peer, request));
    assert!(futures::FutureExt::now_or_never(&mut asked).is_none());
    assert_eq!(lines(), [] as [&str; 0]);
    drop(asked);
    let left = lines();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains("whose client left"), "{left:?}");
    assert!(left[0].contains("tenantcontrolplanes"), "{left:?}");

    // Not of one that is answered.
    answer(&context, self::request("DELETE", WRITABLE)).await;
    let left = lines()
        .into_iter()
        .filter(|line| line.contains("whose client left"));
    assert_eq!(left.count(), 1);
}

/// R9.4, R9.6: who asks is answered when their time is over, counted from when they came,
/// whatever is waited for; their place is free then.
#[tokio::test(start_paused = true)]
async fn a_request_ends_with_its_deadline_whatever_it_waits_for() {
    let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
        futures::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let client = kube::Client::new(silent, "default");
    let mut context = Arc::into_inner(context(allow)).unwrap();
    context.authenticator = Authenticator::new(Some(client.clone()), clock());
    context.authorizer = Authorizer::new(client);
    let context = Arc::new(context);
    let timed = async |token: Option<&str>, path: &str| {
        let mut request = request("GET", path);
        if let Some(token) = token {
            let token = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        let began = Instant::now();
        let (code, _, text) = answer(&context, request).await;
        (code, text, began.elapsed().as_secs())
    };
    let late = "Timeout: request did not complete within the allotted timeout";
    // More than there are places for questions.
    for _ in 0..250 {
        for token in [None, Some("a.b.c")] {
            let path = format!("{WRITABLE}?timeout=2s");
            let (code, text, took) = timed(token, &path).await;
            assert_eq!((code, took), (504, 2), "{text}");
            assert!(text.contains(late), "{text}");
        }
    }
    // Who does not wait for the review has not proved anything either.
    let metrics = context.metrics.encode().unwrap();
    let failed = r#"authentication_attempts_total{result="failure"} 250"#;
    assert!(metrics.contains(failed), "{metrics}");
    // With more time than the question has of its own, that is what ends it.
    let (code, _, took) = timed(None, WRITABLE).await;
    assert_eq!((code, took), (500, 10));
}

/// However long what was asked is, and whoever asked: what is said of it is short, and what
/// there is of a query is bounded.
#[tokio::test]
async fn refusals_are_short_and_queries_too() {
    let context = context(deny);
    let long = "&".repeat(60_000);
    let below = format!(
        "/apis/{}/v1/{}/{}",
        "g".repeat(9_000),
        "r".repeat(9_000),
        "n".repeat(9_000)
    );
    for path in [format!("/{long}"), below] {
        let (code, _, text) = answer(&context, request("GET", &path)).await;
        assert_eq!(code, 403);
        assert!(text.len() < 12 * 1024, "{}", text.len());
    }
    let context = self::context(allow);
    let path = |parameters: usize| format!("/version?{}", "a&".repeat(parameters));
    assert_eq!(code(&context, "GET", &path(100)).await, 200);
    let (code, _, text) = answer(&context, request("GET", &path(101))).await;
    assert_eq!(code, 400);
    assert!(
        text.contains("the query has more than 100 parameters"),
        "{text}"
    );
}

/// An answer that is large is compressed while there are places for that, and else sent as it
/// is.
#[tokio::test]
async fn answers_are_compressed_while_there_is_room() {
    let context = context(allow);
    let asked = || {
        let mut asked = request("GET", "/openapi/v2");
        let gzip = HeaderValue::from_static("gzip");
        asked.headers_mut().insert(header::ACCEPT_ENCODING, gzip);
        asked
    };
    let encoding = async |context: &Arc<Context>| {
        let answer = handle(context.clone(), Arc::default(), asked()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        answer.headers().get(header::CONTENT_ENCODING).cloned()
    };
    assert_eq!(encoding(&context).await.unwrap(), "gzip");
    let who = Identity {
        user: "system:anonymous".to_owned(),
        uid: None,
        groups: Vec::new(),
        extra: Default::default(),
    };
    let held: Vec<_> = std::iter::from_fn(|| context.limits.pack(&who)).collect();
    assert!(!held.is_empty());
    assert_eq!(encoding(&context).await, None);
    drop(held);
    assert_eq!(encoding(&context).await.unwrap(), "gzip");
}
