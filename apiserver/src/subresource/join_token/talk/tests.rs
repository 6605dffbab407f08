#![allow(clippy::disallowed_methods, reason = "tests")]

use std::convert::Infallible;

use apiservice::pki::{self, Entropy, Leaf, Subject, Usage, Validity};
use apiservice::v1alpha1::JoinTokenUsage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::asked::Asked;
use super::*;

fn validity() -> Validity {
    let now = jiff::Timestamp::now();
    Validity {
        not_before: now - jiff::SignedDuration::from_mins(5),
        not_after: now + jiff::SignedDuration::from_mins(5),
    }
}

fn authority() -> Pair {
    pki::authority("test", validity(), &Entropy).unwrap()
}

fn leaf(authority: &Pair, usage: Usage) -> Pair {
    let leaf = Leaf {
        subject: Subject {
            common_name: "leaf".into(),
            organizations: vec![],
        },
        usage,
        dns_names: vec![],
        ip_addresses: vec!["127.0.0.1".parse().unwrap()],
        validity: validity(),
    };
    pki::sign(authority, &leaf, &Entropy).unwrap()
}

/// What a tenant answers to a method, a path with its query, and a body.
type Answers = fn(&Method, &str, &Value) -> Option<(u16, String)>;

/// A tenant that answers so, and nothing at all where there is no answer.
async fn tenant(authority: &Pair, answers: Answers) -> Way {
    let pair = leaf(authority, Usage::Server);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.cert.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(roots.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = Way::new(&listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let serve = service_fn(move |request: Request<Incoming>| async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let path = parts.uri.path_and_query().unwrap().as_str();
                    let Some((code, text)) = answers(&parts.method, path, &body) else {
                        return pending().await;
                    };
                    let response = http::Response::builder().status(code);
                    let response = response.body(Full::new(Bytes::from(text))).unwrap();
                    Ok::<_, Infallible>(response)
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection
                    .serve_connection(TokioIo::new(stream), serve)
                    .await;
            });
        }
    });
    way
}

async fn reached(ways: &[Way; 2], authority: &Pair) -> Result<Secrets, Problem> {
    let gate = Gate::for_test();
    let place = gate.enter("n", "t").unwrap();
    let client = leaf(authority, Usage::Client);
    gate.talk(place, ways, &authority.cert, &client).await
}

async fn secrets(answers: Answers) -> Secrets {
    let authority = authority();
    let way = tenant(&authority, answers).await;
    reached(&[way.clone(), way], &authority).await.unwrap()
}

/// A listener that takes connections and never says a word.
async fn silent() -> (TcpListener, Way) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = Way::new(&listener.local_addr().unwrap().to_string());
    (listener, way)
}

fn stored(id: &str) -> Value {
    let text = |text: &str| STANDARD.encode(text);
    json!({
        "metadata": {"name": format!("bootstrap-token-{id}"), "uid": "u", "resourceVersion": "7"},
        "type": secret::TYPE,
        "data": {"token-id": text(id), "token-secret": text("0123456789abcdef"),
            "usage-bootstrap-signing": text("true")},
    })
}

fn status(code: u16, reason: &str, message: &str) -> Option<(u16, String)> {
    let status = json!({"kind": "Status", "reason": reason, "message": message});
    Some((code, status.to_string()))
}

#[tokio::test]
async fn tokens_are_listed_page_by_page() {
    let mut secrets = secrets(|_, path, _| {
        let begin = "/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken&limit=50&continue=";
        let at = path.strip_prefix(begin).unwrap();
        let (items, next) = match at {
            "" => (json!([stored("aaaaaa"), {"metadata": {"name": "x"}}]), "a/b"),
            "a%2Fb" => (json!([stored("bbbbbb")]), ""),
            other => panic!("{other}"),
        };
        let page = json!({"metadata": {"continue": next}, "items": items});
        Some((200, page.to_string()))
    })
    .await;
    let listed = secrets.list().await.unwrap();
    let ids: Vec<&str> = listed
        .tokens
        .iter()
        .map(|token| token.id.as_str())
        .collect();
    assert_eq!((ids, listed.more), (vec!["aaaaaa", "bbbbbb"], false));
    assert_eq!(listed.tokens[0].usages, ["signing"]);
}

#[tokio::test]
async fn lists_of_tenants_are_bounded() {
    // One that never ends is told to go on.
    let mut endless = secrets(|_, _, _| {
        let page = json!({"metadata": {"continue": "x"}, "items": [stored("aaaaaa")]});
        Some((200, page.to_string()))
    })
    .await;
    let listed = endless.list().await.unwrap();
    assert_eq!((listed.tokens.len(), listed.more), (PAGES, true));
    let mut many = secrets(|_, _, _| {
        let items = vec![json!({}); PAGE + 1];
        Some((200, json!({"items": items}).to_string()))
    })
    .await;
    let problem = many.list().await.unwrap_err();
    assert_eq!(
        problem,
        Problem::Unanswered("its answer cannot be read".into())
    );
    let mut long = secrets(|_, _, _| Some((200, " ".repeat(ANSWER + 1)))).await;
    assert_eq!(long.list().await.unwrap_err(), Problem::TooLong);
    let mut none = secrets(|_, _, _| Some((200, json!({"items": null}).to_string()))).await;
    assert_eq!(none.list().await.unwrap(), Listed::default());
}

/// A chunk of one byte takes forty times that, as long as it is kept.
#[tokio::test]
async fn an_answer_in_small_chunks_takes_no_more_than_its_bytes() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    static LIVING: AtomicUsize = AtomicUsize::new(0);
    struct Chunk;
    impl AsRef<[u8]> for Chunk {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }
    impl Drop for Chunk {
        fn drop(&mut self) {
            LIVING.fetch_sub(1, SeqCst);
        }
    }
    for (count, fits) in [(ANSWER, true), (ANSWER + 1, false)] {
        let chunks = futures::stream::iter(0..count).map(|_| {
            assert!(LIVING.fetch_add(1, SeqCst) < 2, "those before are kept");
            let chunk = hyper::body::Frame::data(Bytes::from_owner(Chunk));
            Ok::<_, Infallible>(chunk)
        });
        let read = whole(http_body_util::StreamBody::new(chunks), ANSWER).await;
        let read = read.unwrap().map(|all| all.len());
        assert_eq!(read, fits.then_some(ANSWER));
    }
    assert_eq!(LIVING.load(SeqCst), 0);
}

fn minted() -> (Token, Value) {
    let token = Token::new(&Entropy).unwrap();
    let asked = Asked {
        seconds: 60,
        usages: JoinTokenUsage::ALL.to_vec(),
        groups: Vec::new(),
        description: String::new(),
    };
    let secret = token.secret(&asked, "2030-01-01T00:00:00Z", "alice");
    (token, secret)
}

#[tokio::test]
async fn a_token_is_made_and_an_id_that_is_taken_is_told() {
    let (token, secret) = minted();
    let mut fresh = secrets(|_, _, body| Some((201, body.to_string()))).await;
    assert!(fresh.create(&secret, &token).await.unwrap());
    let mut taken = secrets(|_, _, _| status(409, "AlreadyExists", "it exists")).await;
    assert!(!taken.create(&secret, &token).await.unwrap());
}

/// What a tenant's webhook says about a Secret may quote it, also where it is cut.
#[tokio::test]
async fn a_refusal_that_quotes_the_secret_is_passed_on_without_it() {
    for before in [0, WORDS - 8] {
        let (token, made) = minted();
        let mut secrets = secrets(|_, _, body| {
            let coded = body["data"]["token-secret"].as_str().unwrap();
            let plain = STANDARD.decode(coded).unwrap();
            let plain = String::from_utf8(plain).unwrap();
            let before = body["before"].as_u64().unwrap() as usize;
            let words = format!("{}{plain} {coded}", "x".repeat(before));
            status(403, "Forbidden", &words)
        })
        .await;
        let mut shown = made.clone();
        shown["before"] = before.into();
        let problem = secrets.create(&shown, &token).await.unwrap_err();
        let Problem::Refused { code: 403, message } = problem else {
            panic!("{problem}");
        };
        let expected = format!("{}[secret] [secret]", "x".repeat(before));
        assert_eq!(message, told::cut(expected, WORDS));
    }
}

#[tokio::test]
async fn only_the_secret_that_was_seen_is_deleted() {
    let mut secrets = secrets(|method, path, body| {
        if !path.ends_with("/bootstrap-token-aaaaaa") {
            return status(404, "NotFound", "none");
        }
        match *method {
            Method::GET => Some((200, stored("aaaaaa").to_string())),
            _ => {
                let expected = json!({"uid": "u", "resourceVersion": "7"});
                assert_eq!(body["preconditions"], expected);
                status(200, "", "")
            }
        }
    })
    .await;
    assert_eq!(secrets.find("bbbbbb").await.unwrap(), None);
    let found = secrets.find("aaaaaa").await.unwrap().unwrap();
    assert!(secrets.delete("aaaaaa", &found).await.unwrap());
    assert!(!secrets.delete("bbbbbb", &found).await.unwrap());
}

/// A 404 of whatever else answers there is no absence (rule 3).
#[tokio::test]
async fn a_404_without_a_status_is_no_absence() {
    let mut secrets = secrets(|_, _, _| Some((404, "page not found".to_owned()))).await;
    let problem = secrets.find("aaaaaa").await.unwrap_err();
    assert!(
        matches!(problem, Problem::Refused { code: 404, .. }),
        "{problem}"
    );
}

#[tokio::test]
async fn a_way_that_leads_nowhere_is_gone_round() {
    let authority = authority();
    let good = tenant(&authority, |_, _, _| Some((200, json!({}).to_string()))).await;
    let (_silent, silent) = silent().await;
    let nowhere = Way::new("127.0.0.1:1");
    let unknown = Way::new("nothing.invalid:1");
    for ways in [
        [nowhere.clone(), good.clone()],
        [unknown, good.clone()],
        [silent.clone(), good.clone()],
        [good, silent.clone()],
    ] {
        let began = Instant::now();
        reached(&ways, &authority).await.map(|_| ()).unwrap();
        assert!(began.elapsed() < CONNECT, "{ways:?}");
    }
    let began = Instant::now();
    let problem = reached(&[silent.clone(), nowhere], &authority).await;
    let problem = problem.err().unwrap().to_string();
    assert!(problem.contains("no answer within 2s"), "{problem}");
    assert!(
        problem.contains("127.0.0.1:1: Connection refused"),
        "{problem}"
    );
    assert!(began.elapsed() < 2 * CONNECT);
}

#[tokio::test]
async fn whoever_has_another_authority_is_asked_nothing() {
    let other = tenant(&authority(), |_, _, _| panic!("it was asked")).await;
    let problem = reached(&[other.clone(), other], &authority()).await;
    let problem = problem.err().unwrap().to_string();
    assert!(problem.contains("invalid peer certificate"), "{problem}");
}

#[tokio::test]
async fn a_tenant_that_does_not_answer_is_left_in_time() {
    let mut secrets = secrets(|_, _, _| None).await;
    let began = Instant::now();
    let problem = secrets.list().await.unwrap_err();
    assert_eq!(problem, Problem::Unanswered("no answer within 5s".into()));
    assert!(began.elapsed() < WHOLE + CONNECT);
}

#[test]
fn one_tenant_has_few_places_and_one_namespace_leaves_some_to_others() {
    let gate = Gate::new();
    let of_one: Vec<Held> = (0..9).filter_map(|_| gate.enter("a", "t").ok()).collect();
    assert_eq!(of_one.len(), OF_ONE);
    let refused = gate.enter("a", "t").unwrap_err();
    assert_eq!(
        (refused.code().as_u16(), refused.retry_after()),
        (429, Some(1))
    );
    drop(of_one);
    let names = (0..99).map(|n| format!("t{n}"));
    let of_namespace: Vec<Held> = names
        .filter_map(|name| gate.enter("a", &name).ok())
        .collect();
    assert_eq!(of_namespace.len(), PLACES / 2);
    gate.enter("b", "t").unwrap();
    drop(of_namespace);
    assert!(gate.of_tenants.is_unused() && gate.of_namespaces.is_unused());
}

#[tokio::test]
async fn nobody_leads_us_to_ourselves() {
    for local in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(is_local(local.parse().unwrap()), "{local}");
    }
    for other in ["10.0.0.1", "198.18.0.2", "fd00::1", "2001:db8::1"] {
        assert!(!is_local(other.parse().unwrap()), "{other}");
    }
    let authority = authority();
    let way = tenant(&authority, |_, _, _| panic!("it was asked")).await;
    let gate = Gate::new();
    let client = leaf(&authority, Usage::Client);
    let place = gate.enter("n", "t").unwrap();
    let talk = gate
        .talk(place, &[way.clone(), way], &authority.cert, &client)
        .await;
    let problem = talk.err().unwrap().to_string();
    assert!(
        problem.contains("127.0.0.1 is no address of a tenant"),
        "{problem}"
    );
}

#[test]
fn ways_are_hosts_and_ports() {
    assert_eq!(Way::new("t.n.svc:6443").parts(), Some(("t.n.svc", 6443)));
    assert_eq!(Way::new("[fd00::1]:443").parts(), Some(("fd00::1", 443)));
    for wrong in ["t.n.svc", ":1", "a:b", "a:99999"] {
        assert_eq!(Way::new(wrong).parts(), None, "{wrong}");
    }
}

/// A machine that comes before its token is signed for waits for five seconds.
#[tokio::test]
async fn a_signature_is_waited_for_where_one_may_look() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let mut signs = secrets(|_, path, _| {
        assert!(path.ends_with("/kube-public/configmaps/cluster-info"));
        let data = match LOOKS.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => json!({"jws-kubeconfig-others": "x"}),
            _ => json!({"jws-kubeconfig-abcdef": "x"}),
        };
        Some((200, json!({"data": data}).to_string()))
    })
    .await;
    assert!(signs.signed("abcdef").await);
    assert_eq!(LOOKS.load(Ordering::SeqCst), 3);

    let began = Instant::now();
    let mut never = secrets(|_, _, _| Some((200, "{}".to_owned()))).await;
    assert!(!never.signed("abcdef").await);
    assert!(began.elapsed() < SIGNED * 3, "{:?}", began.elapsed());
    let began = Instant::now();
    let mut refuses = secrets(|_, _, _| status(403, "Forbidden", "no")).await;
    assert!(!refuses.signed("abcdef").await);
    assert!(began.elapsed() < SIGNED, "it is not asked again");
}

/// Whoever leaves while the tenant is asked leaves a line nevertheless.
#[test]
fn a_line_is_written_whatever_becomes_of_the_request() {
    use crate::audit::Line;
    use std::cell::RefCell;
    let written = RefCell::new(Vec::new());
    let line = || Line::begin(|confirmed| written.borrow_mut().push(confirmed));
    line().confirmed();
    line().nothing();
    drop(line());
    assert_eq!(*written.borrow(), [true, false]);
}

#[test]
fn what_a_tenant_could_not_confirm_may_be_done() {
    let refused = |code| Problem::Refused {
        code,
        message: String::new(),
    };
    let table = [
        (refused(403), false),
        (refused(409), false),
        (refused(500), true),
        (refused(504), true),
        (Problem::Unanswered(String::new()), true),
        (Problem::TooLong, true),
        (Problem::Unreachable(String::new()), false),
    ];
    for (problem, expected) in table {
        assert_eq!(problem.may_be_done(), expected, "{problem:?}");
    }
}
