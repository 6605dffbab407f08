//! What health and metrics say of stored objects.

use super::*;
use crate::registry::tests::harness::{Call, World};

/// Rule 2: it is shown, and nothing fails because of it. R2.32.
#[tokio::test]
async fn what_cannot_be_read_is_a_check_and_a_metric() {
    let world = World::memory().await;
    world.tenant("a").await;
    let context = context(allow);
    context.authenticator.load(&Default::default());
    context
        .registry
        .store(Some(Arc::new(world.registry.clone())));
    context.store_guard.open_for_test();
    let objects = || {
        let checks = context.ready_checks();
        let check = checks.into_iter().find(|check| check.name == "objects");
        check.unwrap().outcome
    };
    assert_eq!(objects(), Outcome::Passed);
    let store = &world.registry.store;
    let key = "/tenantcontrolplanes/n/bad";
    let put = store.put(key, "no object".into(), storage::Expect::Absent);
    put.await.unwrap();
    // The cache has it once another is listed that came later.
    world.tenant("b").await;
    assert_eq!(world.list(Call::tenants("")).await.code, 200);
    let Outcome::Noted(text) = objects() else {
        panic!("{:?}", objects());
    };
    assert!(
        text.starts_with("1 stored objects cannot be read"),
        "{text}"
    );
    let (code, _, text) = answer(&context, request("GET", "/readyz?verbose")).await;
    assert_eq!(code, 200, "{text}");
    // Nobody in particular asks.
    assert!(text.contains("[+]objects ok: reason withheld"), "{text}");
    let metric = |expected: &str| {
        let text = context.metrics.encode().unwrap();
        assert!(
            text.contains(&format!("\nsteward_objects_quarantined {expected}\n")),
            "{text}"
        );
    };
    metric("1");
    assert_eq!(world.delete(Call::tenants("bad")).await.code, 200);
    assert_eq!(world.list(Call::tenants("")).await.code, 200);
    assert_eq!(objects(), Outcome::Passed);
    metric("0");
}
