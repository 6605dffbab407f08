//! The cases from the field that need pods (`tests/cases`), several tenants at once.

use tests::cases::{Place, run_all};

use crate::stage::Stage;

/// Each brings up a tenant or two. Three at a time is what two processors bear: with four
/// they are never idle, and on a machine half as fast every deadline is missed.
const AT_ONCE: usize = 3;

/// What they need of the lab: tenants are reached at addresses of the cluster.
pub const ADDRESSES: &str = "the addresses of Services";

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().expect("a part for the lab only");
    let place = Place::new(&lab.program("kubectl"), &lab.kubeconfig());
    let work = move || run_all(&place, "pods", AT_ONCE);
    tokio::task::spawn_blocking(work).await.unwrap().judge();
}
