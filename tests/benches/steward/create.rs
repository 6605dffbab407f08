//! Creates: how many in a second, and how long the slowest take.

use std::collections::HashMap;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::failure::{Doing, Result};
use crate::report::{CREATES, MILLISECONDS, Report, Values, milliseconds};
use crate::side_by_side::{PEER, Stage, Target, collection};
use crate::{Built, Settings, requests};

pub async fn run(settings: &Settings, built: &Built, report: &mut Report) -> Result<()> {
    let stage = Stage::start(&built.api_server).await?;
    let rounds = settings.count(6, 2);
    for (clients, each) in [(1, settings.count(300, 20)), (32, settings.count(50, 3))] {
        let mut rates: HashMap<&str, Values> = HashMap::new();
        let mut latencies: HashMap<&str, Values> = HashMap::new();
        // The first round warms up and does not count.
        for round in 0..=rounds {
            for target in Target::round(round) {
                let label = format!("{}-{clients}-{round}", target.name());
                let (rate, taken) = creates(&stage, target, &label, clients, each).await?;
                if round > 0 {
                    rates.entry(target.name()).or_default().push(rate);
                    latencies.entry(target.name()).or_default().extend(taken);
                }
            }
            for target in [Target::Direct, Target::Peer] {
                stage.clear(target).await?;
            }
            stage.check()?;
            eprintln!("   {clients} clients: round {round} of {rounds}");
        }
        let rate = |target: Target| rates[target.name()].percentile(50.0);
        let p99 = |target: Target| latencies[target.name()].percentile(99.0);
        let plural = if clients == 1 { "client" } else { "clients" };
        for target in [Target::Direct, Target::Aggregated] {
            let name = format!("creates, {clients} {plural}, {}", target.name());
            report.add(&name, CREATES, rate(target), rate(Target::Peer), PEER);
            report.add(
                &format!("{name}, p99"),
                MILLISECONDS,
                p99(target),
                p99(Target::Peer),
                PEER,
            );
        }
    }
    Ok(())
}

/// Creates `each` objects with each of `clients`, side by side. Returns
/// creates a second and how long each took in milliseconds.
pub async fn creates(
    stage: &Stage,
    target: Target,
    label: &str,
    clients: usize,
    each: usize,
) -> Result<(f64, Vec<f64>)> {
    let path = collection();
    let connections = stage.clients(target, clients).await?;
    for client in &connections {
        // The handshake is not what is measured.
        requests::get_text(client, "/readyz")
            .await
            .doing(|| "connect".into())?;
    }
    let mut tasks: JoinSet<Result<Vec<f64>>> = JoinSet::new();
    let began = Instant::now();
    for (number, client) in connections.into_iter().enumerate() {
        let bodies: Vec<_> = (0..each)
            .map(|n| stage.body(&format!("{label}-{number}-{n}")))
            .collect();
        let path = path.clone();
        tasks.spawn(async move {
            let mut taken = Vec::with_capacity(each);
            for body in bodies {
                let asked = Instant::now();
                let made = requests::post_bytes(&client, &path, body).await;
                made.doing(|| "create an object".into())?;
                taken.push(milliseconds(asked.elapsed()));
            }
            Ok(taken)
        });
    }
    let mut all = Vec::with_capacity(clients * each);
    while let Some(taken) = tasks.join_next().await {
        all.extend(taken??);
    }
    Ok((all.len() as f64 / began.elapsed().as_secs_f64(), all))
}
