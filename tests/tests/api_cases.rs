//! The cases from the field that need no pods (`tests/cases`), with kubectl against
//! a real kube-apiserver, our API server, the controller and an etcd for tenants.
//!
//! `CASES=C07,C12 cargo test -p tests --test api_cases` runs these only.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use tests::cases::{self, Outcome, Place};
use tests::managed::Managed;
use tests::served::{Served, eventually};

/// More than two processors do at once: commands wait most of the time.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_to_others_ends_well_here() {
    let mut served = Served::here().await;
    served.kubectl(&["create", "namespace", "tenants"]);
    let (kubectl, kubeconfig) = (served.lab.program("kubectl"), served.lab.kubeconfig());
    let place = Arc::new(Place::new(&kubectl, &kubeconfig));
    let kinds = || place.run(&cases::folder(), "kubectl explain tcp").code == 0;
    eventually("kubectl knows the kinds", Duration::from_secs(40), kinds).await;

    let api = run(&mut served, &place, "api", AT_ONCE).await;
    let alone = run(&mut served, &place, "api alone", 1).await;
    let mut managed = Managed::on(served).await;
    let controller = run(&mut managed.served, &place, "controller", AT_ONCE).await;
    managed.stop().await;
    api.and(alone).and(controller).judge();
}

/// Runs cases, and restarts the API server when one of them wishes it.
async fn run(
    served: &mut Served,
    place: &Arc<Place>,
    name: &'static str,
    at_once: usize,
) -> Outcome {
    let cases = tokio::task::spawn_blocking({
        let place = Arc::clone(place);
        move || cases::run_all(&place, name, at_once)
    });
    while !cases.is_finished() {
        if place.restart().exists() {
            served.stop().await;
            served.start_here().await;
            std::fs::remove_file(place.restart()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cases.await.unwrap()
}
