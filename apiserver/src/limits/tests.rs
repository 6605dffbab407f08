use axum::body::{Body, Bytes};
use serde_json::Value;

use super::room::SYSTEM_WAIT;
use super::*;
use crate::decode::{self, BODY, Media};
use crate::object::weight;

fn user(user: &str, group: &str) -> Identity {
    Identity {
        user: user.to_owned(),
        uid: None,
        groups: vec![group.to_owned()],
        extra: Default::default(),
    }
}

fn fill(limits: &Limits, who: &Identity, need: Need) -> Vec<Slot> {
    std::iter::from_fn(|| limits.enter(who, need).ok())
        .take(10_000)
        .collect()
}

/// R9.12.
#[test]
fn places_at_the_log_are_an_eighth_of_a_caller_and_apart_of_strangers() {
    let limits = Limits::new(1, 1, "s");
    let all = |who: Identity| -> Vec<Slot> {
        let places = std::iter::from_fn(|| limits.log(&who).ok());
        places.take(1000).collect()
    };
    let held = all(user("a", "g"));
    assert_eq!(held.len(), LOGGED / 8);
    assert!(limits.log(&user("b", "g")).is_ok());
    // An administrator is not counted.
    assert_eq!(all(user("c", "system:masters")).len(), 1000);
    let strangers = std::iter::from_fn(|| limits.log_from("10.0.0.1").ok());
    let strangers: Vec<_> = strangers.collect();
    assert_eq!(strangers.len(), 16);
    assert!(limits.log_from("10.0.0.2").is_ok());
}

/// R9.1.
#[test]
fn places_are_given_back_and_masters_need_none() {
    let limits = Limits::new(1, 1, "s");
    let a = user("a", "g");
    let first = limits.enter(&a, Need::Read).unwrap();
    let refused = limits.enter(&a, Need::Read).unwrap_err();
    assert_eq!(refused.retry_after(), Some(1));
    limits.enter(&a, Need::Write).unwrap();
    limits
        .enter(&user("m", "system:masters"), Need::Read)
        .unwrap();
    drop(first);
    limits.enter(&a, Need::Read).unwrap();
    assert!(limits.reads.is_unused());
}

fn head(url: usize, header: usize) -> Parts {
    let path = format!("/{}", "a".repeat(url - 1));
    let request = http::Request::get(path).header("accept", "a".repeat(header));
    request.body(()).unwrap().into_parts().0
}

/// A URL is kept several times over while a request is carried out.
#[tokio::test]
async fn long_urls_count_as_what_they_take() {
    let limits = Limits::new(400, 200, "s");
    let (a, long) = (user("a", "g"), head(60_000, 10));
    assert!(limits.head(&a, &head(400, 400)).await.unwrap().is_none());
    let mut held = Vec::new();
    while let Ok(hold) = limits.head(&a, &long).await {
        held.push(hold.unwrap());
    }
    // Half of the room for bodies.
    let half = |room: usize, each: usize| (room / each).div_ceil(2);
    let each = 60_000 * COPIES + 10;
    assert_eq!(held.len(), half(WORK, each));
    limits.head(&user("b", "g"), &long).await.unwrap();
    let free = limits.head(&user("m", "system:masters"), &long).await;
    assert!(free.unwrap().is_none());
    drop(held);
    assert!(limits.work.is_unused());
    // While nobody knows whose they are, by where they come from.
    let held = std::iter::from_fn(|| limits.head_from("1.2.3.4", &long).ok());
    let held: Vec<Slot> = held.collect();
    assert_eq!(held.len(), half(HEADS, each));
    limits.head_from("1.2.3.5", &long).unwrap();
    assert!(
        limits
            .head_from("1.2.3.4", &head(400, 400))
            .unwrap()
            .is_none()
    );
}

#[test]
fn long_selectors_of_watches_have_a_room() {
    let limits = Limits::new(400, 200, "s");
    let watch = |length: usize| {
        let query = [
            ("watch", "1".to_owned()),
            ("labelSelector", "a".repeat(length)),
        ];
        let query = query.map(|(key, value)| (key.to_owned(), value));
        Target::parse(&http::Method::GET, "/apis/g/v/r", &query)
    };
    let a = user("a", "g");
    assert!(limits.selectors(&a, &watch(SELECTOR)).unwrap().is_none());
    let held = std::iter::from_fn(|| limits.selectors(&a, &watch(50_000)).ok());
    let held: Vec<Slot> = held.collect();
    let each = 50_000 * VALUE;
    assert_eq!(held.len(), (SELECTORS / each).div_ceil(2));
    limits.selectors(&user("b", "g"), &watch(50_000)).unwrap();
    drop(held);
    assert!(limits.selectors.is_unused());
}

/// R9.2.
#[test]
fn nobody_starves_another() {
    let limits = Limits::new(400, 200, "s");
    let mut held = Vec::new();
    let mut counts = Vec::new();
    for n in 0..20 {
        let mine = fill(&limits, &user(&format!("u{n}"), "g"), Need::Read);
        counts.push(mine.len());
        held.push(mine);
    }
    assert_eq!(counts[..4], [50, 50, 50, 50]);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    // The first wave took what it could; as its requests end, the shares become even.
    for _ in 0..2_000 {
        for (n, mine) in held.iter_mut().enumerate() {
            mine.pop();
            mine.extend(limits.enter(&user(&format!("u{n}"), "g"), Need::Read).ok());
            mine.extend(limits.enter(&user(&format!("u{n}"), "g"), Need::Read).ok());
        }
    }
    let counts: Vec<usize> = held.iter().map(Vec::len).collect();
    assert!(
        counts.iter().all(|count| (15..=25).contains(count)),
        "{counts:?}"
    );
    limits.enter(&user("new", "g"), Need::Read).unwrap();
    // Writes have places of their own.
    assert_eq!(fill(&limits, &user("u", "g"), Need::Write).len(), 200 / 8);
}

#[test]
fn accounts_of_one_namespace_are_one_holder() {
    let limits = Limits::new(8, 8, "s");
    let of = |name: &str| user(&format!("system:serviceaccount:{name}"), "g");
    let _held = [
        fill(&limits, &of("n:a"), Need::Read),
        fill(&limits, &of("n:b"), Need::Read),
    ];
    assert_eq!(_held.each_ref().map(Vec::len), [4, 0]);
    limits.enter(&of("m:a"), Need::Read).unwrap();
    assert_eq!(holder(&of("n:a")), "system:serviceaccount:n");
    assert_eq!(
        holder(&user("system:serviceaccount:", "g")),
        "system:serviceaccount:"
    );
}

#[test]
fn controllers_have_places_of_their_own_and_waiting_takes_none() {
    let limits = Limits::new(4, 4, "s");
    let mut held = Vec::new();
    for n in 0..10 {
        for need in [Need::Read, Need::Write, Need::Wait] {
            held.extend(fill(&limits, &user(&format!("u{n}"), "g"), need));
        }
    }
    let ours = "system:serviceaccount:s:steward-controller";
    let all = [
        ours,
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
        "system:kube-controller-manager",
    ];
    assert_eq!(limits.system.len(), all.len());
    for name in all {
        assert!(limits.is_exempt(&user(name, "g")), "{name}");
        limits.enter(&user(name, "g"), Need::Read).unwrap();
        limits.enter(&user(name, "g"), Need::Write).unwrap();
    }
    let stranger = user("system:serviceaccount:t:steward-controller", "g");
    limits.enter(&stranger, Need::Read).unwrap_err();
    drop(held);
    let _waiting = fill(&limits, &user("u", "g"), Need::Wait);
    assert_eq!(fill(&limits, &user("u", "g"), Need::Read).len(), 2);
}

/// JSON whose tree takes about so many bytes.
fn heavy(bytes: usize) -> String {
    let of = |count: usize| format!("[{}]", vec![r#"{"":0}"#; count].join(","));
    let many = decode::weigh(Media::Json, of(1 << 14).as_bytes(), usize::MAX).unwrap();
    of(bytes / (many >> 14))
}

/// R4.12.
#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let limits = Limits::new(1, 1, "s");
    let a = user("a", "g");
    let text = format!("\"{}\"", "x".repeat(BODY - 2));
    let (body, _held) = limits
        .read(&a, Media::Json, Body::from(text))
        .await
        .unwrap();
    assert_eq!(body.len(), BODY);
    let large = Body::from(vec![b'x'; BODY + 1]);
    let failure = limits.read(&a, Media::Json, large).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Request entity too large: limit is 3145728"
    );
}

#[tokio::test]
async fn copies_count_as_stored_objects() {
    let limits = Limits::new(1, 1, "s");
    let (a, b) = (user("a", "g"), user("b", "g"));
    let text = heavy(24_000_000);
    let object: Value = serde_json::from_str(&text).unwrap();
    let held = limits.copies(&a, [&object]).await.unwrap();
    let refused = limits.copies(&a, [&object]).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(1));
    let stored = limits.decode(&a, text.as_bytes()).await.unwrap_err();
    assert_eq!(stored.retry_after(), Some(1));
    limits.copies(&b, [&object]).await.unwrap();
    drop(held);
    limits.decode(&a, text.as_bytes()).await.unwrap();
    assert!(limits.stored.is_unused());
}

/// It is what they take once they are read that is shared, however short they are.
#[tokio::test]
async fn bodies_are_counted_by_what_they_are_as_trees() {
    let limits = Limits::new(1, 1, "s");
    let (a, b) = (user("a", "g"), user("b", "g"));
    let read = |who, bytes| limits.read(who, Media::Json, Body::from(heavy(bytes)));
    let (body, held) = read(&a, weight::BODY_TREE - 1_000_000).await.unwrap();
    assert!(body.len() < weight::BODY_TREE / 50);
    // One caller has a few such bodies under way; others have theirs.
    let mut more = Vec::new();
    for _ in 0..3 {
        more.push(read(&a, weight::BODY_TREE - 1_000_000).await);
    }
    let refused = more.iter().filter_map(|read| read.as_ref().err());
    assert!(refused.clone().count() > 0);
    assert!(
        refused
            .clone()
            .all(|refused| refused.retry_after() == Some(1))
    );
    drop(more);
    let other = read(&b, weight::BODY_TREE - 1_000_000).await.unwrap();
    drop((held, other));
    let failure = read(&a, 2 * weight::BODY_TREE).await.unwrap_err();
    assert_eq!(failure.code().as_u16(), 413);
    assert!(limits.work.is_unused());
    // The same as YAML.
    let maps = "- a:\n    b: 0\n".repeat(20_000);
    let failure = limits
        .read(&a, Media::Yaml, Body::from(maps))
        .await
        .unwrap_err();
    assert_eq!(failure.code().as_u16(), 413);
}

/// Who sends headers and never a body, a thousand times on one connection.
#[tokio::test]
async fn awaited_bodies_are_counted() {
    let limits = Limits::new(1, 1, "s");
    let a = user("a", "g");
    let body = || Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
    let mut waiting = Vec::new();
    let refused = loop {
        let mut read = Box::pin(limits.read(&a, Media::Json, body()));
        match futures::FutureExt::now_or_never(&mut read) {
            None => waiting.push(read),
            Some(ended) => break ended.unwrap_err(),
        }
    };
    assert_eq!(
        (waiting.len(), refused.retry_after()),
        (BODIES / 8, Some(1))
    );
    let b = user("b", "g");
    limits.read(&b, Media::Json, Body::from("x")).await.unwrap();
    drop(waiting);
    limits.read(&a, Media::Json, Body::from("x")).await.unwrap();
}

#[tokio::test]
async fn bodies_of_others_are_in_no_administrators_way() {
    let limits = Limits::new(1, 1, "s");
    let mut held = Vec::new();
    for n in 0..40 {
        let who = user(&format!("u{n}"), "g");
        let body = Body::from(heavy(weight::BODY_TREE / 4));
        held.extend(limits.read(&who, Media::Json, body).await.ok());
    }
    let read = |who| limits.read(who, Media::Json, Body::from(heavy(weight::BODY_TREE / 2)));
    let new = user("new", "g");
    read(&new).await.unwrap_err();
    let master = user("m", "system:masters");
    let both = [read(&master).await, read(&master).await];
    assert!(both.iter().all(|read| matches!(read, Ok((_, None)))));
}

/// They wait for each other's room a little, and go on without.
#[tokio::test(start_paused = true)]
async fn the_clusters_own_controllers_are_not_refused() {
    let limits = Limits::new(1, 1, "s");
    let large = heavy(10_500_000);
    let read = |who| limits.read(who, Media::Json, Body::from(large.clone()));
    let ours = user("system:serviceaccount:s:steward-controller", "g");
    let began = tokio::time::Instant::now();
    let first = read(&ours).await.unwrap();
    let collector = user(CONTROLLERS[1], "g");
    read(&collector).await.unwrap();
    let beside = [read(&ours).await.unwrap(), read(&ours).await.unwrap()];
    assert!(began.elapsed().is_zero());
    read(&ours).await.unwrap();
    limits.decode(&ours, large.as_bytes()).await.unwrap();
    assert!(began.elapsed() >= 2 * SYSTEM_WAIT);
    let second = read(&ours);
    let (second, ()) = futures::future::join(second, async { drop((first, beside)) }).await;
    assert!(second.is_ok() && began.elapsed() < 3 * SYSTEM_WAIT);
}

/// R9.4, R9.5.
#[test]
fn the_clients_timeout_only_shortens() {
    let second = Some(Duration::from_secs(1));
    assert_eq!(time(Verb::Get, None), Some(REQUEST));
    assert_eq!(time(Verb::Get, second), second);
    assert_eq!(time(Verb::Update, Some(REQUEST)), Some(WRITE));
    assert_eq!(time(Verb::Watch, second), None);
}
