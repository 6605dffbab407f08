//! Paused is paused: nobody connects to a tenant that is, and so nothing is written there.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use apiservice::names::ANNOTATION_PAUSED;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::cluster::name::NamespacedName;
use crate::context::Context;
use crate::context::testing::{context, fill, nothing};
use crate::inside::{keep, probe};
use crate::tenant::testing::Lab;
use crate::tenant::world::PathFact;

/// An address, and how often somebody has connected to it.
async fn counting() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, SeqCst);
        }
    });
    (address, count)
}

/// A tenant that was Ready and is reached at this address, and nowhere else.
async fn reached_at(address: &str, paused: bool) -> (Arc<Context>, NamespacedName, String) {
    let mut lab = Lab::ready();
    let tenant = lab.tenant();
    let status = tenant.status.as_mut().unwrap();
    status.control_plane_endpoint = Some(address.to_owned());
    if paused {
        let annotations = tenant.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_PAUSED.to_owned(), "true".to_owned());
    }
    lab.lose_all(crate::cluster::kinds::ObjectKind::Service);
    let (ctx, _) = context(nothing, true).await;
    fill(&ctx.caches, &lab);
    let (name, uid) = (
        NamespacedName::of(&lab.world.tenant.metadata),
        lab.world.uid(),
    );
    ctx.facts.enter_tenant(uid, ctx.now());
    ctx.facts.update_tenant(uid, |facts| {
        facts.probe.endpoint = Some(PathFact {
            started: ctx.now(),
            address: address.to_owned(),
            result: Ok(()),
        });
    });
    (ctx, name, uid.to_owned())
}

/// How often somebody connects within a while; no longer than until the first time.
async fn connections(paused: bool, probed: bool) -> usize {
    let (address, count) = counting().await;
    let (ctx, name, uid) = reached_at(&address, paused).await;
    let first = async {
        while count.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let long = Duration::from_secs(if paused { 1 } else { 20 });
    // On the heap, as tasks are.
    let work: Pin<Box<dyn Future<Output = ()>>> = match probed {
        true => Box::pin(probe::run(ctx, name, uid)),
        false => Box::pin(keep::run(ctx, name, uid)),
    };
    let _ = timeout(long, async {
        tokio::select! { () = work => {}, () = first => {} }
    })
    .await;
    count.load(SeqCst)
}

#[tokio::test]
async fn nobody_connects_to_a_tenant_that_is_paused() {
    for probed in [true, false] {
        assert_ne!(connections(false, probed).await, 0, "{probed}");
        assert_eq!(connections(true, probed).await, 0, "{probed}");
    }
}
