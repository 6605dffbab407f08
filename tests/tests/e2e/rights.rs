//! x
use crate::stage::Stage;
pub async fn run(_stage: &Stage) {}
