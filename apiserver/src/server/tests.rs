use apiservice::pki::{self, Entropy, Leaf, Pair, Subject, Usage, Validity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::pipeline::tests::{allow, context};

mod deadlines;

/// R9.8.
#[test]
fn the_drain_fits_in_the_chart() {
    let chart = include_str!("../../../charts/steward/templates/apiserver/deployment.yaml");
    let line = chart
        .lines()
        .find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
    let given: u64 = line.unwrap().parse().unwrap();
    let delay = Duration::from_secs(crate::args::MAX_SHUTDOWN_DELAY);
    let connections = GRACE + CUT;
    // A step that is under way is not awaited
    // (`a_step_under_way_does_not_hold_up_the_end`); the last one is.
    let record = crate::store_guard::STEP;
    let last = audit::backend::FLUSH + telemetry::FAREWELL;
    let all = delay + connections + last + record + CLOSING;
    assert!(all.as_secs() < given, "{all:?}");
    assert!(GRACE > limits::WRITE);
}

#[test]
fn a_connection_is_busy_until_its_last_answer_was_taken() {
    let activity = Activity::new();
    assert!(!activity.began());
    let (first, second) = (activity.begin(), activity.begin());
    drop(first);
    assert_eq!(activity.0.lock().open, 1);
    let before = activity.0.lock().since;
    drop(Asked {
        _place: None,
        body: Unread::new(Live::default())
            .connection()
            .take(axum::body::Body::empty(), Default::default()),
        _busy: second,
    });
    let requests = activity.0.lock();
    assert!(requests.open == 0 && requests.began && requests.since >= before);
}

/// The certificates of a cluster whose front proxy and users have authorities of their own.
struct Cluster {
    front: Pair,
    serving: Pair,
}

/// Whatever the time is: the client of these tests asks the clock of the machine.
fn validity() -> Validity {
    Validity {
        not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2090-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn signed(authority: &Pair, name: &str, usage: Usage) -> Pair {
    let leaf = Leaf {
        subject: Subject {
            common_name: name.to_owned(),
            organizations: Vec::new(),
        },
        usage,
        dns_names: vec!["server".to_owned()],
        ip_addresses: Vec::new(),
        validity: validity(),
    };
    pki::sign(authority, &leaf, &Entropy).unwrap()
}

impl Cluster {
    fn new() -> Self {
        let authority = |name| pki::authority(name, validity(), &Entropy).unwrap();
        Cluster {
            front: authority("front"),
            serving: authority("serving"),
        }
    }

    fn trusting(front: &Pair) -> std::collections::BTreeMap<String, String> {
        [
            ("requestheader-client-ca-file", front.cert.as_str()),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-allowed-names", r#"["front-proxy"]"#),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// A server that takes every connection which is made to it.
    async fn server(&self) -> (SocketAddr, Arc<Context>, CancellationToken) {
        self.serving(DEADLINES, Pool::places(100)).await
    }

    /// With these deadlines, and so many connections.
    async fn serving(
        &self,
        deadlines: Deadlines,
        connections: Pool,
    ) -> (SocketAddr, Arc<Context>, CancellationToken) {
        self.behind(|door| {
            door.deadlines = deadlines;
            door.connections = connections;
        })
        .await
    }

    /// With what connections go through changed.
    async fn behind(
        &self,
        change: impl FnOnce(&mut Door),
    ) -> (SocketAddr, Arc<Context>, CancellationToken) {
        let context = context(allow);
        let serving = Arc::new(Serving::default());
        let pair = signed(&self.serving, "server", Usage::Server);
        serving.install(&pair).unwrap();
        let mut door = Door {
            acceptor: TlsAcceptor::from(tls::config(serving.clone()).unwrap()),
            serving,
            deadlines: DEADLINES,
            streams: 1_000,
            handshakes: Pool::places(100).renewing(),
            connections: Pool::places(100),
            excessive: Pool::places(EXCESSIVE),
            unplaced: Pool::places(UNPLACED),
            unread: Unread::new(Live::default()),
        };
        change(&mut door);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = CancellationToken::new();
        let tracker = TaskTracker::new();
        let served = accept(
            listener,
            door,
            context.clone(),
            tracker.clone(),
            drain.clone(),
        );
        tracker.spawn(served);
        (address, context, drain)
    }

    /// A connection with HTTP/2, as somebody with this certificate.
    async fn connect(&self, address: SocketAddr, client: Option<&Pair>) -> Wire {
        let socket = TcpStream::connect(address).await.unwrap();
        self.greet(socket, client).await.unwrap()
    }

    /// The same over a socket that there is.
    async fn greet(&self, socket: TcpStream, client: Option<&Pair>) -> std::io::Result<Wire> {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&self.serving.cert)).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match client {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                let chain = vec![der(&pair.cert)];
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("server").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut wire = Wire(connector.connect(name, socket).await?, 0);
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        wire.0.write_all(&hello).await?;
        Ok(wire)
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET https://a` and this path.
fn get_at(path: &str) -> Vec<u8> {
    // Of the static table: the method, the scheme; the authority and the path as texts.
    let length = u8::try_from(path.len()).unwrap();
    let mut block = vec![0x82, 0x87, 0x01, 1, b'a', 0x04, length];
    block.extend(path.as_bytes());
    block
}

/// `GET https://a/livez`, with a header more.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = get_at("/livez");
    for (name, value) in more {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        block.extend([0, length(name)]);
        block.extend(name.as_bytes());
        block.push(length(value));
        block.extend(value.as_bytes());
    }
    block
}

/// HTTP/2 as it goes over the line, and the flags of the last frame that came.
struct Wire(TlsStream<TcpStream>, u8);

impl Wire {
    /// The next frame: what it is, of which stream, and what it says.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        let read = tokio::time::timeout(Duration::from_secs(20), self.0.read_exact(&mut head));
        read.await.expect("a frame").ok()?;
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        self.1 = head[4];
        Some((head[3], number(&head[5..]), payload))
    }

    /// The next frame of one of these kinds.
    async fn until(&mut self, kinds: &[u8]) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let frame = self.next().await?;
            if kinds.contains(&frame.0) {
                return Some(frame);
            }
        }
    }

    async fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.unwrap();
        self.0.flush().await.unwrap();
    }
}

/// A connection is what its certificate is by what is trusted now, and not by what was when
/// it began.
/// R1.20.
#[tokio::test]
async fn a_connection_whose_certificate_is_judged_otherwise_is_ended() {
    let cluster = Cluster::new();
    let (address, context, _drain) = cluster.server().await;
    let proxy = signed(&cluster.front, "front-proxy", Usage::Client);
    let ask = frame(HEADERS, WHOLE, 1, &get(&[]));
    let answered = async |wire: &mut Wire| {
        wire.send(&ask).await;
        let answer = wire.until(&[HEADERS, GOAWAY]).await.unwrap();
        assert_eq!(answer.0, HEADERS);
    };
    // Before it is known whom to trust, the front proxy is anybody.
    let mut early = cluster.connect(address, Some(&proxy)).await;
    let mut stranger = cluster.connect(address, None).await;
    answered(&mut early).await;
    answered(&mut stranger).await;
    context
        .authenticator
        .load(&Cluster::trusting(&cluster.front));
    assert_eq!(early.until(&[GOAWAY]).await.unwrap().0, GOAWAY);
    // It comes again, and stays while others are told of nothing.
    let mut again = cluster.connect(address, Some(&proxy)).await;
    answered(&mut again).await;
    // Another authority: who has the old one's certificate is nobody now.
    let other = pki::authority("front", validity(), &Entropy).unwrap();
    context.authenticator.load(&Cluster::trusting(&other));
    assert_eq!(again.until(&[GOAWAY]).await.unwrap().0, GOAWAY);
    let mut ask = frame(HEADERS, WHOLE, 3, &get(&[]));
    ask.extend(frame(SETTINGS, 0, 0, &[]));
    stranger.send(&ask).await;
    assert_eq!(stranger.until(&[HEADERS, GOAWAY]).await.unwrap().0, HEADERS);
}

/// What a client may send ahead is little but for the front proxy, which sends the bodies
/// of all users over one connection.
/// R1.18, R4.11.
#[tokio::test]
async fn windows_are_those_of_the_front_proxy_and_of_others() {
    let cluster = Cluster::new();
    let (address, context, _drain) = cluster.server().await;
    context
        .authenticator
        .load(&Cluster::trusting(&cluster.front));
    let proxy = signed(&cluster.front, "front-proxy", Usage::Client);
    const KIB: u32 = 1024;
    for (client, streams, stream, connection, most, headers) in [
        (None, 100, 64 * KIB, 64 * KIB - 1, 16 * KIB, 64 * KIB),
        (
            Some(&proxy),
            1_000,
            256 * KIB,
            16 * KIB * KIB,
            256 * KIB,
            256 * KIB,
        ),
    ] {
        let mut wire = cluster.connect(address, client).await;
        wire.send(&frame(HEADERS, WHOLE, 1, &get(&[]))).await;
        // As HTTP/2 has them if nothing is said.
        let mut said = std::collections::HashMap::from([(4, 65_535), (5, 16_384)]);
        let mut window = 65_535;
        loop {
            let (kind, of, payload) = wire.next().await.unwrap();
            let number = |bytes: &[u8]| {
                bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            };
            match kind {
                SETTINGS => said.extend(
                    payload
                        .chunks(6)
                        .map(|s| (number(&s[..2]), number(&s[2..]))),
                ),
                WINDOW_UPDATE if of == 0 => window += number(&payload),
                HEADERS => break,
                _ => {}
            }
        }
        let settings = [3, 4, 5, 6].map(|name| said.get(&name).copied());
        assert_eq!(settings, [streams, stream, most, headers].map(Some));
        // One byte more is not worth a frame.
        assert_eq!(window, connection);
    }
}

/// One user of the front proxy who sends what is refused, or calls off what he has asked
/// for, does not end the connection of all; who has a connection of his own ends that.
#[tokio::test]
async fn what_is_reset_does_not_end_the_connection_of_the_front_proxy() {
    let cluster = Cluster::new();
    let (address, context, _drain) = cluster.server().await;
    context
        .authenticator
        .load(&Cluster::trusting(&cluster.front));
    let proxy = signed(&cluster.front, "front-proxy", Usage::Client);
    let stream = |n: u32| 2 * n + 1;
    let called_off = |n: u32| {
        let mut both = frame(HEADERS, WHOLE, stream(n), &get(&[]));
        both.extend(frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]));
        both
    };
    // A body of five bytes that has none.
    let refused = |n: u32| frame(HEADERS, WHOLE, stream(n), &get(&[("content-length", "5")]));
    for client in [Some(&proxy), None] {
        let mut wire = cluster.connect(address, client).await;
        // At once, so that they are called off before anything is done for them.
        let frames: Vec<u8> = (0..300).flat_map(called_off).collect();
        wire.send(&frames).await;
        goes_on(&mut wire, stream(300), client.is_some()).await;
    }
    for client in [Some(&proxy), None] {
        let mut wire = cluster.connect(address, client).await;
        for n in 0..1_200 {
            wire.send(&refused(n)).await;
            let answer = wire.until(&[RST_STREAM, GOAWAY]).await.unwrap();
            if answer.0 == GOAWAY {
                assert!(client.is_none(), "{n}");
                break;
            }
            assert!(n < 1_100 || client.is_some(), "its connection goes on");
        }
        if client.is_some() {
            goes_on(&mut wire, stream(1_200), true).await;
        }
    }
}

/// Whether a further request is answered, or the connection was told to calm down.
async fn goes_on(wire: &mut Wire, stream: u32, answered: bool) {
    wire.send(&frame(HEADERS, WHOLE, stream, &get(&[]))).await;
    loop {
        let (kind, of, payload) = wire.until(&[HEADERS, GOAWAY]).await.unwrap();
        match kind {
            GOAWAY => {
                assert!(!answered, "{payload:?}");
                // ENHANCE_YOUR_CALM
                return assert_eq!(payload[7], 11);
            }
            _ if of == stream => return assert!(answered, "its connection goes on"),
            _ => {}
        }
    }
}

/// Who takes no answers has a few of them counted, byte by byte; all others are headers alone,
/// with which their streams end.
#[tokio::test]
async fn answers_that_hold_no_place_are_few_for_each_source() {
    const END_STREAM: u8 = 1;
    let cluster = Cluster::new();
    let (live, unplaced) = (Live::default(), Pool::places(40));
    let (of, places) = (live.clone(), unplaced.clone());
    let (address, _context, _drain) = cluster
        .behind(|door| {
            door.unread = Unread::new(of);
            door.unplaced = places;
        })
        .await;
    let mut wire = cluster.connect(address, None).await;
    // Bodies have no room.
    let mut frames = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let stream = |n: u32| 2 * n + 1;
    // Some of them are watches that do not begin.
    let asked = |n: u32| match n % 2 {
        0 => get(&[]),
        _ => get_at("/apis/steward.butlerlabs.dev/v1alpha1/datastores?watch=1&timeoutSeconds=x"),
    };
    frames.extend((0..40).flat_map(|n| frame(HEADERS, WHOLE, stream(n), &asked(n))));
    wire.send(&frames).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        let (_, of, _) = wire.until(&[HEADERS]).await.unwrap();
        if wire.1 & END_STREAM == 0 {
            open.push(of);
        }
    }
    assert_eq!(open.len(), 16, "{open:?}");
    assert!(live.used() > open.len());
    for stream in open {
        wire.send(&frame(WINDOW_UPDATE, 0, stream, &[0, 0, 16, 0]))
            .await;
    }
    while !unplaced.is_unused() || live.used() > 0 {
        wire.next().await.unwrap();
    }
    wire.send(&frame(HEADERS, WHOLE, stream(40), &get(&[])))
        .await;
    wire.until(&[HEADERS]).await.unwrap();
    assert_eq!(wire.1 & END_STREAM, 0);
}
