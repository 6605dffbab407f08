//! Delivery to watchers: from the request that writes until the event is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt};
use kube::Client;
use tokio::task::JoinSet;

use crate::failure::{Doing, Failure, Result};
use crate::report::{MILLISECONDS, Report, Values, milliseconds};
use crate::side_by_side::{PEER, Stage, Target, collection};
use crate::{Built, Settings, requests};

/// Time between writes, so that one is delivered before the next.
const PACE: Duration = Duration::from_millis(50);

pub async fn run(settings: &Settings, built: &Built, report: &mut Report) -> Result<()> {
    let stage = Stage::start(&built.api_server).await?;
    let (rounds, writes) = (settings.count(4, 1), settings.count(50, 5));
    for watchers in [1, settings.count(100, 10)] {
        let mut taken: HashMap<&str, Values> = HashMap::new();
        // The first round warms up and does not count.
        for round in 0..=rounds {
            for target in Target::round(round) {
                let label = format!("{}-{watchers}-{round}-", target.name());
                let values = deliver(&stage, target, &label, watchers, writes).await?;
                if round > 0 {
                    taken.entry(target.name()).or_default().extend(values);
                }
            }
            for target in [Target::Direct, Target::Peer] {
                stage.clear(target).await?;
            }
            stage.check()?;
            eprintln!("   {watchers} watchers: round {round} of {rounds}");
        }
        let plural = if watchers == 1 { "watcher" } else { "watchers" };
        for target in [Target::Direct, Target::Aggregated] {
            for (name, percent) in [("p50", 50.0), ("p99", 99.0)] {
                let ours = taken[target.name()].percentile(percent);
                let peer = taken[Target::Peer.name()].percentile(percent);
                let name = format!(
                    "write to event, {watchers} {plural}, {}, {name}",
                    target.name()
                );
                report.add(&name, MILLISECONDS, ours, peer, PEER);
            }
        }
    }
    Ok(())
}

/// Milliseconds of each event at each watcher.
async fn deliver(
    stage: &Stage,
    target: Target,
    label: &str,
    watchers: usize,
    writes: usize,
) -> Result<Vec<f64>> {
    let writer = stage.client(target).await?;
    let list = requests::get(&writer, &format!("{}?limit=1", collection()))
        .await
        .doing(|| "list".into())?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let path = format!("{}?watch=true&resourceVersion={version}", collection());
    let mut tasks = JoinSet::new();
    for client in stage.clients(target, watchers).await? {
        let lines = open(&client, &path).await?;
        let label = label.to_owned();
        tasks.spawn(async move { arrivals(lines, &label, writes).await });
    }
    let mut asked = Vec::with_capacity(writes);
    for number in 0..writes {
        let body = stage.body(&format!("{label}{number}"));
        asked.push(Instant::now());
        requests::post_bytes(&writer, &collection(), body)
            .await
            .doing(|| "create".into())?;
        tokio::time::sleep(PACE).await;
    }
    let mut all = Vec::with_capacity(watchers * writes);
    let patience = Duration::from_secs(20);
    while let Some(arrived) = tokio::time::timeout(patience, tasks.join_next())
        .await
        .map_err(|_| Failure::Said(format!("{label}: events are missing after {patience:?}")))?
    {
        let arrived = arrived??;
        all.extend(
            asked
                .iter()
                .zip(arrived)
                .map(|(from, to)| milliseconds(to - *from)),
        );
    }
    Ok(all)
}

async fn open(
    client: &Client,
    path: &str,
) -> Result<futures::io::Lines<impl futures::AsyncBufRead + Unpin + Send + use<>>> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| Failure::Said(error.to_string()))?;
    let stream = client
        .request_stream(request)
        .await
        .doing(|| "watch".into())?;
    Ok(Box::pin(stream).lines())
}

/// When each of the objects `LABEL0`, `LABEL1`, ... was announced.
async fn arrivals(
    mut lines: futures::io::Lines<impl futures::AsyncBufRead + Unpin>,
    label: &str,
    writes: usize,
) -> Result<Vec<Instant>> {
    let pattern = format!("\"name\":\"{label}");
    let mut arrived = Vec::with_capacity(writes);
    while arrived.len() < writes {
        let line = lines.next().await;
        let now = Instant::now();
        let line = line
            .ok_or_else(|| Failure::Said(format!("{label}: the watch ended")))?
            .doing(|| "watch".into())?;
        // Events of a watch come in the order of the writes.
        let Some(at) = line.find(&pattern) else {
            continue;
        };
        let number = line[at + pattern.len()..].split('"').next();
        if number == Some(arrived.len().to_string().as_str()) {
            arrived.push(now);
        } else {
            return Err(Failure::Said(format!("{label}: out of order: {number:?}")));
        }
    }
    Ok(arrived)
}
