use http_body_util::BodyExt;

use super::*;
use crate::authz::{Attributes, Decision};
use crate::namespaces::Namespaces;
use crate::registry::Clock;

const OURS: &str = "/apis/steward.butlerlabs.dev/v1alpha1";
const WRITABLE: &str =
    "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/default/tenantcontrolplanes";

fn clock() -> Clock {
    Clock::new(|| "2030-01-01T00:00:00Z".parse().unwrap())
}

/// A server whose store is not open, with a cluster that nobody reaches.
fn context(decide: fn(&Identity, &Attributes) -> Decision) -> Arc<Context> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let metrics = Arc::new(Metrics::new());
    let authorizer = Authorizer::for_test(decide);
    Arc::new(Context {
        authenticator: Authenticator::new(None, clock()),
        authorizer: authorizer.clone(),
        documents: Documents::new(),
        limits: Limits::new(1, 1),
        namespaces: Namespaces::for_test(Vec::new()),
        floor: Floor::new(client.clone(), "ns", "secret", metrics.clone()),
        registry: ArcSwapOption::empty(),
        minter: Minter::new(client, authorizer, clock(), metrics.clone(), 600),
        leaving: tokio_util::sync::CancellationToken::new(),
        metrics,
    })
}

fn allow(_: &Identity, _: &Attributes) -> Decision {
    Decision::Allow
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
    assert!(text.contains("[+]storage ok: "), "{text}");
    assert!(text.contains("the store is being opened"), "{text}");

    context.leaving.cancel();
    let (code, _, text) = answer(&context, request("GET", "/readyz")).await;
    assert_eq!(code, 500);
    assert!(text.contains("[-]shutdown failed"), "{text}");
    assert_eq!(answer(&context, request("GET", "/livez")).await.0, 200);
}

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

#[tokio::test]
async fn every_answer_has_an_id_and_says_how_long_it_may_be_kept() {
    let context = context(allow);
    let (_, headers, _) = answer(&context, request("GET", "/nothing")).await;
    assert_eq!(headers[AUDIT_ID].len(), 36);
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache, private");
    let mut with_id = request("GET", "/nothing");
    with_id
        .headers_mut()
        .insert(AUDIT_ID, "mine".parse().unwrap());
    assert_eq!(answer(&context, with_id).await.1[AUDIT_ID], "mine");
    let (code, _, text) = answer(&context, request("HEAD", OURS)).await;
    assert_eq!((code, text.as_str()), (200, ""));
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_answered() {
    let context = context(|_, attributes| match attributes.path.as_deref() {
        Some("/boom") => panic!("a bug"),
        _ => Decision::Allow,
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
