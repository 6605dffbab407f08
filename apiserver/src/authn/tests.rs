use std::time::Duration;

use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use http::HeaderName;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::identity::{ANONYMOUS, AUTHENTICATED};
use super::lane::LANE_PACE;
use super::peer::CREDENTIAL_ID;
use super::*;

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn year() -> Validity {
    Validity {
        not_before: now() - SignedDuration::from_hours(1),
        not_after: now() + SignedDuration::from_hours(24 * 365),
    }
}

/// The certificates of one test cluster.
struct World {
    front: Pair,
    users: Pair,
}

impl World {
    fn new() -> World {
        let authority = |name| pki::authority(name, year(), &Entropy).unwrap();
        World {
            front: authority("front-proxy-ca"),
            users: authority("kubernetes"),
        }
    }

    fn config_map(&self) -> BTreeMap<String, String> {
        [
            ("client-ca-file", self.users.cert.as_str()),
            ("requestheader-client-ca-file", &self.front.cert),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            (
                "requestheader-extra-headers-prefix",
                r#"["X-Remote-Extra-"]"#,
            ),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn authenticator(&self, at: Timestamp) -> Arc<Authenticator> {
        let authenticator = Authenticator::new(None, Clock::new(move || at));
        authenticator.load(&self.config_map());
        authenticator
    }
}

fn peer(authority: &Pair, name: &str, groups: &[&str]) -> Peer {
    let leaf = Leaf {
        subject: Subject {
            common_name: name.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
        },
        usage: Usage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        validity: year(),
    };
    let pair = pki::sign(authority, &leaf, &Entropy).unwrap();
    Peer::new(&[CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()])
}

/// Who recognises these users of a cluster, and they.
pub(crate) fn recognised<const N: usize>(users: [&str; N]) -> (Arc<Authenticator>, [Peer; N]) {
    let world = World::new();
    let peers = users.map(|user| peer(&world.users, user, &[]));
    (world.authenticator(now()), peers)
}

/// A certificate of `name` with this key, signed with another one in the name of `issuer`.
fn certificate(
    (name, key): (&str, &rcgen::KeyPair),
    (issuer, signer): (&str, &rcgen::KeyPair),
    authority: bool,
    until: i32,
) -> CertificateDer<'static> {
    let params = |name: &str, authority: bool| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        if authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        } else {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        }
        params
    };
    let issuer = rcgen::Issuer::new(params(issuer, true), signer);
    let certificate = params(name, authority).signed_by(key, &issuer).unwrap();
    certificate.der().clone()
}

/// An authority for users whose certificates this test makes itself.
fn trusting(root: &CertificateDer<'_>, at: Timestamp) -> Arc<Authenticator> {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(root);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let mut data = World::new().config_map();
    data.insert("client-ca-file".to_owned(), pem);
    let authenticator = Authenticator::new(None, Clock::new(move || at));
    authenticator.load(&data);
    authenticator
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// R1.19, R1.22, R1.23, R1.24, R1.25.
#[tokio::test]
async fn the_front_proxy_speaks_for_users() {
    let world = World::new();
    let mut headers = headers(&[
        ("x-remote-user", "jane"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "a,b"),
        ("x-remote-group", "c"),
        ("x-remote-extra-example.com%2ffoo", "one"),
        ("x-remote-extra-example.com%2ffoo", "two"),
        ("x-remote-extra-bad%zz", "kept"),
        ("accept", "application/json"),
    ]);
    let peer = peer(&world.front, "front-proxy-client", &[]);
    let caller = world
        .authenticator(now())
        .authenticate(&peer, &mut headers)
        .await
        .unwrap();
    assert_eq!(caller.via, Via::FrontProxy);
    assert_eq!(
        *caller.identity,
        Identity {
            user: "jane".to_owned(),
            uid: Some("7".to_owned()),
            groups: ["a,b", "c", "system:authenticated"]
                .map(str::to_owned)
                .into(),
            extra: [
                (
                    "example.com/foo".to_owned(),
                    vec!["one".to_owned(), "two".to_owned()]
                ),
                ("bad%zz".to_owned(), vec!["kept".to_owned()]),
            ]
            .into(),
        }
    );
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["accept"]);
}

/// Its connections are not limited by where they come from; a user's, or those of a
/// certificate of the same authority that may not speak for others, are.
#[test]
fn connections_of_the_front_proxy_are_told_from_others() {
    let world = World::new();
    let authenticator = world.authenticator(now());
    let is = |peer: Peer| authenticator.is_front_proxy(&peer);
    assert!(is(peer(&world.front, "front-proxy-client", &[])));
    assert!(!is(peer(&world.front, "another", &[])));
    assert!(!is(peer(&world.users, "front-proxy-client", &[])));
    assert!(!is(Peer::default()));
}

/// R1.22, R1.25.
#[tokio::test]
async fn headers_of_anybody_else_are_removed_and_mean_nothing() {
    let world = World::new();
    let authenticator = world.authenticator(now());
    let forged = [
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
    ];

    let mut lines = headers(&forged);
    let caller = authenticator
        .authenticate(&Peer::default(), &mut lines)
        .await
        .unwrap();
    assert_eq!(caller.identity.user, "system:anonymous");
    assert_eq!(caller.identity.groups, ["system:unauthenticated"]);
    assert!(lines.is_empty());

    let user = peer(&world.users, "jane", &["dev"]);
    let caller = authenticator
        .authenticate(&user, &mut headers(&forged))
        .await
        .unwrap();
    assert_eq!(caller.via, Via::Certificate);
    assert_eq!(caller.identity.user, "jane");
    assert_eq!(caller.identity.groups, ["dev", "system:authenticated"]);
    assert!(caller.identity.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
}

/// R1.22.
#[tokio::test]
async fn what_proves_nothing_is_rejected() {
    let world = World::new();
    let stranger = World::new();
    let jane = [("x-remote-user", "jane")];
    for (peer, lines, what) in [
        (
            peer(&stranger.front, "front-proxy-client", &[]),
            &jane[..],
            "a stranger's",
        ),
        (
            peer(&world.front, "somebody", &[]),
            &jane[..],
            "a name that is not allowed",
        ),
        (
            peer(&world.front, "front-proxy-client", &[]),
            &[][..],
            "no user named",
        ),
        (peer(&world.users, "", &[]), &[][..], "no common name"),
    ] {
        let authenticator = world.authenticator(now());
        let result = authenticator.authenticate(&peer, &mut headers(lines)).await;
        assert!(result.is_err(), "{what}: {result:?}");
    }
    let token = headers(&[("authorization", "Bearer abc")]);
    let authenticator = world.authenticator(now());
    let mut lines = token.clone();
    assert!(
        authenticator
            .authenticate(&Peer::default(), &mut lines)
            .await
            .is_err()
    );
    assert!(lines.is_empty());
}

/// A connection may outlive its certificate, and the trust in it.
/// R1.20, R1.22.
#[tokio::test]
async fn a_certificate_is_judged_at_each_request() {
    let world = World::new();
    let time = Arc::new(Mutex::new(now()));
    let read = time.clone();
    let authenticator = Authenticator::new(None, Clock::new(move || *read.lock()));
    authenticator.load(&world.config_map());
    let user = peer(&world.users, "jane", &[]);
    let ask = async || {
        let mut none = HeaderMap::new();
        authenticator
            .authenticate(&user, &mut none)
            .await
            .map(|caller| caller.via)
    };
    assert_eq!(ask().await.unwrap(), Via::Certificate);

    authenticator.load(&World::new().config_map());
    assert!(ask().await.is_err());
    authenticator.load(&world.config_map());
    assert_eq!(ask().await.unwrap(), Via::Certificate);

    *time.lock() = now() + SignedDuration::from_hours(24 * 366);
    assert!(ask().await.is_err());
}

/// Authorities of one name that may all have signed each other are tried in every order:
/// a stranger makes them himself, and nobody else waits for that.
#[tokio::test]
async fn a_strangers_chain_costs_next_to_nothing() {
    let key = || rcgen::KeyPair::generate().unwrap();
    let (own, signer) = (key(), key());
    let leaf = certificate(("jane", &own), ("x", &signer), false, 2040);
    let mut chain = vec![leaf.clone()];
    for _ in 0..10 {
        chain.push(certificate(("x", &key()), ("x", &signer), true, 2040));
    }
    let authenticator = World::new().authenticator(now());
    // The number of bytes is bounded as well as that of certificates.
    let long = "x".repeat(16 * 1024);
    let large = certificate(("x", &own), (&long, &signer), true, 2040);
    for chain in [&chain[..], &[leaf, large], &chain[..5]] {
        let began = std::time::Instant::now();
        let peer = Peer::new(chain);
        assert!(!authenticator.is_front_proxy(&peer));
        let answer = authenticator
            .authenticate(&peer, &mut HeaderMap::new())
            .await;
        assert!(
            matches!(answer, Err(Rejected::Certificate(_))),
            "{answer:?}"
        );
        let took = began.elapsed();
        assert!(took < Duration::from_millis(100), "{took:?}");
        let kept: usize = peer.chain.iter().map(|certificate| certificate.len()).sum();
        assert!(kept <= MAX_CHAIN_BYTES, "{kept}");
        // It is not looked at again at each request, either.
        let verdict = || authenticator.verdict(&peer).unwrap();
        assert!(Arc::ptr_eq(&verdict(), &verdict()));
    }
}

#[tokio::test]
async fn authorities_in_between_are_followed() {
    let key = || rcgen::KeyPair::generate().unwrap();
    let (root, upper, lower, own) = (key(), key(), key(), key());
    let anchor = certificate(("root", &root), ("root", &root), true, 2040);
    let chain = [
        certificate(("jane", &own), ("lower", &lower), false, 2040),
        certificate(("lower", &lower), ("upper", &upper), true, 2040),
        certificate(("upper", &upper), ("root", &root), true, 2040),
    ];
    let caller = trusting(&anchor, now())
        .authenticate(&Peer::new(&chain), &mut HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(caller.identity.user, "jane");
}

/// RFC 5280 has the end of 9999 for what does not end, which is later than a timestamp.
/// What has ended is judged once as well.
#[tokio::test]
async fn a_certificate_is_judged_once_whenever_it_ends() {
    let key = || rcgen::KeyPair::generate().unwrap();
    let (root, own) = (key(), key());
    let anchor = certificate(("root", &root), ("root", &root), true, 9999);
    let authenticator = trusting(&anchor, now());
    for (until, valid) in [(9999, true), (2029, false)] {
        let leaf = certificate(("jane", &own), ("root", &root), false, until);
        let peer = Peer::new(&[leaf]);
        let caller = authenticator
            .authenticate(&peer, &mut HeaderMap::new())
            .await;
        assert_eq!(caller.is_ok(), valid, "{until} {caller:?}");
        let verdict = || authenticator.verdict(&peer).unwrap();
        assert!(Arc::ptr_eq(&verdict(), &verdict()), "{until}");
    }
}

#[tokio::test]
async fn before_the_config_map_is_read_nobody_is_recognised_by_certificate() {
    let world = World::new();
    let authenticator = Authenticator::new(None, Clock::new(now));
    assert!(!authenticator.is_loaded());
    let peer = peer(&world.front, "front-proxy-client", &[]);
    let mut lines = headers(&[("x-remote-user", "root")]);
    let caller = authenticator.authenticate(&peer, &mut lines).await.unwrap();
    assert_eq!(caller.via, Via::Nothing);
}

/// R1.19.
#[test]
fn a_typing_error_in_the_config_map_never_widens_trust() {
    let world = World::new();
    let mut data = world.config_map();
    data.insert(
        "requestheader-allowed-names".to_owned(),
        "front-proxy".to_owned(),
    );
    let (trust, problems) = Trust::parse(&data);
    assert!(trust.front_proxy.is_none() && trust.client.is_some());
    assert_eq!(problems.len(), 1);

    data = world.config_map();
    data.insert("requestheader-allowed-names".to_owned(), "[]".to_owned());
    data.insert(
        "requestheader-client-ca-file".to_owned(),
        world.users.cert.clone(),
    );
    let (_, problems) = Trust::parse(&data);
    assert!(problems[0].contains("every client certificate may act as any user"));
}

/// Who asks about tokens: those that begin with `good` are valid. With the number of questions.
fn reviewing() -> (Arc<Authenticator>, Arc<std::sync::atomic::AtomicUsize>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = asked.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let good = review["spec"]["token"]
                .as_str()
                .unwrap()
                .starts_with("good");
            review["status"] = serde_json::json!({
                "authenticated": good, "user": {"username": "u"},
            });
            let body = kube::client::Body::from(review.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    let client = kube::Client::new(service, "default");
    let at = now();
    let authenticator = Authenticator::new(Some(client), Clock::new(move || at));
    authenticator.load(&BTreeMap::new());
    (authenticator, asked)
}

/// Presents a token from there.
async fn present(
    authenticator: &Authenticator,
    source: &str,
    token: String,
) -> Result<Caller, Rejected> {
    let peer = Peer::default().at(source.parse().unwrap());
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    headers.insert(header::AUTHORIZATION, value);
    authenticator.authenticate(&peer, &mut headers).await
}

/// Whoever does not wait for the answer (a short `timeout`, a stream that is reset) pays for
/// the question nevertheless.
#[tokio::test(start_paused = true)]
async fn a_flood_that_waits_for_no_answer_keeps_the_pace() {
    let (authenticator, asked) = reviewing();
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(1) {
        let flood = (0..2 * LANE).map(|n| {
            let token = format!("bad{}", number + n);
            let asked = present(&authenticator, "10.0.0.1", token);
            tokio::time::timeout(Duration::from_millis(5), asked)
        });
        futures::future::join_all(flood).await;
        number += 2 * LANE;
    }
    let in_a_second = Duration::from_secs(1).div_duration_f64(LANE_PACE) as usize;
    // A burst, what comes to it in a second, and each turn at its pace, the first at once.
    let most = 20 + 2 + LANE * (in_a_second + 1);
    assert!((21..=most).contains(&count()), "{}", count());
    // Who has a valid token and waits for it has the next turn, and pays nothing.
    let ask = |n: usize| present(&authenticator, "10.0.0.1", format!("good{n}"));
    let began = tokio::time::Instant::now();
    for n in 0..3 * LANE {
        ask(n).await.unwrap();
    }
    assert!(began.elapsed() <= LANE_PACE, "{:?}", began.elapsed());
}

/// A flood of tokens that are not valid is answered without a question to the cluster,
/// and only where it comes from.
#[tokio::test]
async fn invalid_tokens_are_limited_by_where_they_come_from() {
    let (authenticator, asked) = reviewing();
    let ask = |source, token| present(&authenticator, source, token);
    ask("10.0.0.1", "good".to_owned()).await.unwrap();
    let began = std::time::Instant::now();
    let flood = (0..500).map(|n| ask("10.0.0.1", format!("bad{n}")));
    let flood = futures::future::join_all(flood);
    // Whoever is elsewhere does not notice, and what is valid costs nothing, however much
    // of it there is.
    let others = async {
        for n in 0..50 {
            ask("10.0.0.2", format!("good{n}")).await.unwrap();
        }
        began.elapsed()
    };
    let (answers, others) = tokio::join!(flood, others);
    assert!(others < LANE_PACE * 5, "{others:?}");
    let mut refused = 0;
    for answer in answers {
        match answer {
            Err(Rejected::Source) => refused += 1,
            other => assert!(matches!(other, Err(Rejected::Token(_)))),
        }
    }
    // A burst, who has a turn, and who waits.
    assert!(refused >= 400, "{refused}");
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(count() <= 51 + 20 + LANE + LANE_WAITING + 10, "{}", count());

    // From the same address, what was valid is asked about again when the answer is too
    // old, and what nobody knows is asked about as well.
    while authenticator
        .tokens
        .failures
        .take("10.0.0.1".parse().unwrap())
    {}
    authenticator.tokens.answers.forget();
    let before = count();
    ask("10.0.0.1", "good".to_owned()).await.unwrap();
    assert_eq!(count(), before + 1);
    let places = [(); LANE].map(|()| authenticator.tokens.lane.turns.try_acquire().unwrap());
    authenticator.tokens.answers.forget();
    let good = ask("10.0.0.1", "good".to_owned());
    let good = tokio::time::timeout(Duration::from_secs(5), good).await;
    good.expect("it waits for nobody").unwrap();
    drop(places);
    while authenticator
        .tokens
        .failures
        .take("10.0.0.1".parse().unwrap())
    {}
    for n in 0..30 {
        ask("10.0.0.1", format!("good-new{n}")).await.unwrap();
    }
    // The number of those that are remembered is bounded.
    for n in 0..2 * TOKEN_CAPACITY as u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        authenticator.tokens.remember(key);
    }
    assert!(authenticator.tokens.good.lock().len() <= TOKEN_CAPACITY);
}

/// Many requests with one token while the cluster does not answer: it was valid, and is
/// counted nowhere else.
#[tokio::test]
async fn who_waits_for_the_review_of_a_known_token_holds_a_place() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let client = kube::Client::new(service, "default");
    let at = now();
    let authenticator = Authenticator::new(Some(client), Clock::new(move || at));
    let ask = |token: &'static str| {
        let key = Sha256::digest(token.as_bytes()).into();
        authenticator.tokens.remember(key);
        let authenticator = authenticator.clone();
        Box::pin(async move {
            let source = "10.0.0.1".parse().ok();
            authenticator.tokens.review(token, source).await
        })
    };
    let mut waiting = Vec::new();
    let refused = loop {
        let mut asked = ask("one");
        match futures::FutureExt::now_or_never(&mut asked) {
            None => waiting.push(asked),
            Some(ended) => break ended.unwrap_err(),
        }
        assert!(waiting.len() < 1_000);
    };
    assert!(matches!(refused, Rejected::Waiting), "{refused}");
    assert_eq!(waiting.len(), WAITING / 8);
    assert!(futures::FutureExt::now_or_never(ask("another")).is_none());
}

/// What is withheld from callers without an identity is withheld from those of the front
/// proxy as well.
#[test]
fn nobody_is_nobody_whoever_says_so() {
    let identity = |user: &str, group: &str| Identity {
        user: user.to_owned(),
        uid: None,
        groups: vec![group.to_owned()],
        extra: BTreeMap::new(),
    };
    for (user, group, via, somebody) in [
        ("jane", AUTHENTICATED, Via::FrontProxy, true),
        ("jane", AUTHENTICATED, Via::Token, true),
        (ANONYMOUS, UNAUTHENTICATED, Via::FrontProxy, false),
        (ANONYMOUS, "others", Via::FrontProxy, false),
        ("jane", UNAUTHENTICATED, Via::FrontProxy, false),
        (ANONYMOUS, UNAUTHENTICATED, Via::Nothing, false),
    ] {
        let caller = Caller::new(identity(user, group), via);
        assert_eq!(caller.is_somebody(), somebody, "{user} {group} {via:?}");
    }
}
