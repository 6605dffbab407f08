use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use jiff::SignedDuration;
use rustls::pki_types::pem::PemObject;

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
    Peer::new(vec![
        CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap(),
    ])
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

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
