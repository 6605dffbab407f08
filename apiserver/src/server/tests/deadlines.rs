//! Connections that are of no use, and those that are too many.

use tokio::net::TcpSocket;

use super::*;

const PING: u8 = 6;
const ACK: u8 = 1;
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(600);

/// No deadline but these.
const NEVER: Deadlines = Deadlines {
    handshake: LONG,
    first_request: LONG,
    idle: LONG,
    ping: LONG,
    pong: LONG,
};

fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get(&[]))
}

/// How long it takes until the other side has gone, and what it said last.
async fn end(wire: &mut Wire) -> (Duration, Option<u8>) {
    let (began, mut last) = (Instant::now(), None);
    while let Some((kind, ..)) = wire.next().await {
        last = Some(kind);
    }
    (began.elapsed(), last)
}

/// A socket on which nothing comes is closed before it has cost a certificate.
#[tokio::test]
async fn who_does_not_shake_hands_is_closed() {
    let deadlines = Deadlines {
        handshake: SHORT,
        ..NEVER
    };
    let cluster = Cluster::new();
    let (address, context, _drain) = cluster.serving(deadlines, Pool::places(100)).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut byte));
    assert!(matches!(closed.await.unwrap(), Ok(0) | Err(_)));
    assert!(began.elapsed() >= SHORT);
    let metrics = context.metrics.encode().unwrap();
    assert!(
        metrics.contains("apiserver_tls_handshake_errors_total 1"),
        "{metrics}"
    );
}

/// Who has shaken hands and asks nothing is closed without a word; who has asked is told.
#[tokio::test]
async fn who_asks_nothing_is_closed() {
    let deadlines = Deadlines {
        first_request: SHORT,
        idle: 2 * SHORT,
        ..NEVER
    };
    let cluster = Cluster::new();
    let (address, _context, _drain) = cluster.serving(deadlines, Pool::places(100)).await;
    let mut quiet = cluster.connect(address, None).await;
    let (took, last) = end(&mut quiet).await;
    assert!(took < LONG && last != Some(GOAWAY), "{took:?} {last:?}");
    let mut done = cluster.connect(address, None).await;
    done.send(&ask(1)).await;
    done.until(&[HEADERS]).await.unwrap();
    let began = Instant::now();
    // Whoever asks again in time goes on.
    tokio::time::sleep(SHORT + SHORT / 2).await;
    done.send(&ask(3)).await;
    assert_eq!(done.until(&[HEADERS, GOAWAY]).await.unwrap().0, HEADERS);
    assert_eq!(done.until(&[GOAWAY]).await.unwrap().0, GOAWAY);
    assert!(began.elapsed() >= 3 * SHORT);
}

/// A client that is gone without a word, as after a power failure, answers no ping.
#[tokio::test]
async fn who_answers_no_ping_is_closed() {
    let deadlines = Deadlines {
        ping: SHORT,
        pong: SHORT,
        ..NEVER
    };
    let cluster = Cluster::new();
    let (address, _context, _drain) = cluster.serving(deadlines, Pool::places(100)).await;
    let mut alive = cluster.connect(address, None).await;
    alive.send(&ask(1)).await;
    for _ in 0..4 {
        let (_, _, data) = alive.until(&[PING]).await.expect("it is still open");
        alive.send(&frame(PING, ACK, 0, &data)).await;
    }
    let mut gone = cluster.connect(address, None).await;
    gone.send(&ask(1)).await;
    let (took, _) = end(&mut gone).await;
    assert!(took >= SHORT, "{took:?}");
}

/// Of a thousand connections one source has 125; the next one is closed, and those
/// that there are go on.
#[tokio::test]
async fn one_source_has_an_eighth_of_all_connections() {
    let cluster = Cluster::new();
    let connections = Pool::places(1_000);
    let (address, context, _drain) = cluster.serving(NEVER, connections.clone()).await;
    let held = (0..124).map(|_| connections.displace("127.0.0.1").unwrap());
    let _held: Vec<_> = held.collect();
    let mut last = cluster.connect(address, None).await;
    last.send(&ask(1)).await;
    last.until(&[HEADERS]).await.unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    // It may be closed before it has said hello.
    if let Ok(mut refused) = cluster.greet(socket, None).await {
        assert_eq!(end(&mut refused).await.1, None);
    }
    let metrics = context.metrics.encode().unwrap();
    assert!(
        metrics.contains("apiserver_connections_refused_total 1"),
        "{metrics}"
    );
    last.send(&ask(3)).await;
    assert_eq!(last.until(&[HEADERS, GOAWAY]).await.unwrap().0, HEADERS);
}

/// When there are none left, who comes from elsewhere gets the oldest of the source that
/// has most.
#[tokio::test]
async fn a_new_source_ends_the_oldest_connection_of_the_largest() {
    let cluster = Cluster::new();
    let connections = Pool::places(16);
    let (address, _context, _drain) = cluster.serving(NEVER, connections.clone()).await;
    let mut oldest = cluster.connect(address, None).await;
    oldest.send(&ask(1)).await;
    oldest.until(&[HEADERS]).await.unwrap();
    // Its source takes all it can, and then there are others until nothing is left.
    let mut held = Vec::new();
    held.extend(std::iter::from_fn(|| {
        connections.displace("127.0.0.1").ok()
    }));
    held.extend((0..).map_while(|n| connections.enter(&format!("{n}")).ok()));
    assert!(held.len() == 15, "{}", held.len());
    let from = TcpSocket::new_v4().unwrap();
    from.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let socket = from.connect(address).await.unwrap();
    let mut new = cluster.greet(socket, None).await.unwrap();
    new.send(&ask(1)).await;
    assert_eq!(new.until(&[HEADERS]).await.unwrap().0, HEADERS);
    assert_eq!(oldest.until(&[GOAWAY]).await.unwrap().0, GOAWAY);
}
