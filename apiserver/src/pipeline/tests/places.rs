//! Who waits for a client, or for what is yet to come, holds up nobody.

use std::time::Duration;

use super::*;
use crate::registry::tests::harness::World;

fn write(body: Body) -> http::Request<Body> {
    let request = http::Request::post(WRITABLE).header("content-type", "application/json");
    request.body(body).unwrap()
}

/// There is one place for writes, and somebody has begun to send one. R9.1.
#[tokio::test]
async fn a_body_on_its_way_holds_no_place() {
    let context = context(allow);
    let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let mut slow = Box::pin(handle(context.clone(), Arc::default(), write(endless)));
    assert!(futures::FutureExt::now_or_never(&mut slow).is_none());
    let other = answer(&context, write(Body::from("{}"))).await;
    // The store is not open; that is known from there on only.
    assert_eq!(other.0, 503, "{}", other.2);
    // It is waited for all the same.
    assert!(futures::FutureExt::now_or_never(&mut slow).is_none());
}

/// There is one place for reads, and one for those that wait for a revision.
#[tokio::test]
async fn a_read_that_waits_holds_no_place_of_others() {
    let world = World::memory().await;
    world.tenant("a").await;
    let context = context(allow);
    context
        .registry
        .store(Some(Arc::new(world.registry.clone())));
    context.store_guard.open_for_test();
    let path = format!("{OURS}/namespaces/n/tenantcontrolplanes/a");
    let far = format!("{path}?resourceVersion=1000000");
    let waiting = handle(context.clone(), Arc::default(), request("GET", &far));
    let mut waiting = Box::pin(waiting);
    let soon = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(soon.is_err());
    assert_eq!(code(&context, "GET", &path).await, 200);
    // Those that wait have places, too: one here.
    assert_eq!(code(&context, "GET", &far).await, 429);
    // R3.16: 504 with what is there.
    assert_eq!(waiting.await.unwrap().status(), 504);
    assert_eq!(code(&context, "GET", &far).await, 504);
}
