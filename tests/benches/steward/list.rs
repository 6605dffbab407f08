//! Full lists of 1,000 and 10,000 objects, and the memory that these need.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};

use crate::create::creates;
use crate::failure::{Doing, Failure, Result};
use crate::report::{MEBIBYTES, MILLISECONDS, Report, Values, milliseconds};
use crate::side_by_side::{PEER, Stage, Target, collection};
use crate::{Built, Settings, machine, requests};

pub async fn run(settings: &Settings, built: &Built, report: &mut Report) -> Result<()> {
    let stage = Stage::start(&built.api_server).await?;
    let (few, many) = (settings.count(1_000, 64), settings.count(10_000, 320));
    memory(&stage, report, "no objects").await?;
    fill(&stage, 0, few).await?;
    same_size(&stage).await?;
    let taken = lists(&stage, few, settings.count(20, 2)).await?;
    rows(report, few, &taken);
    fill(&stage, few, many).await?;
    memory(&stage, report, &format!("{many} objects")).await?;
    let rounds = settings.count(10, 2);
    lists(&stage, many, rounds).await?;
    memory(
        &stage,
        report,
        &format!("{many} objects, after lists of all"),
    )
    .await?;
    same_size(&stage).await?;
    let taken = lists(&stage, many, rounds).await?;
    rows(report, many, &taken);
    stage.check()
}

/// Fills both servers from `from` to `to` objects.
async fn fill(stage: &Stage, from: usize, to: usize) -> Result<()> {
    const CLIENTS: usize = 8;
    for target in [Target::Direct, Target::Peer] {
        let missing = to - from;
        let each = missing / CLIENTS;
        let (rate, _) = creates(stage, target, &format!("many-{from}"), CLIENTS, each).await?;
        let rest = missing - each * CLIENTS;
        creates(stage, target, &format!("rest-{from}"), 1, rest).await?;
        eprintln!("   {}: {to} objects ({rate:.0} creates/s)", target.name());
    }
    Ok(())
}

/// Once both have come to rest.
async fn memory(stage: &Stage, report: &mut Report, what: &str) -> Result<()> {
    machine::settle(Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ours = machine::resident(stage.pid(Target::Direct))?;
    let peer = machine::resident(stage.pid(Target::Peer))?;
    let etcd = machine::resident(stage.etcd()?)?;
    report.add(
        &format!("resident memory, {what}"),
        MEBIBYTES,
        ours,
        peer,
        PEER,
    );
    let name = format!("resident memory with database, {what}");
    report.add(&name, MEBIBYTES, ours, peer + etcd, PEER);
    Ok(())
}

/// The peer records field managers, which makes its objects larger by two
/// thirds; ours does not yet. They are taken away, so that both list the same.
async fn same_size(stage: &Stage) -> Result<()> {
    const AT_ONCE: usize = 8;
    let client = stage.client(Target::Peer).await?;
    let text = requests::get_text(&client, &collection())
        .await
        .doing(|| "list".into())?;
    let list: Value = serde_json::from_str(&text).doing(|| "read a list".into())?;
    let managed = |it: &&Value| it["metadata"]["managedFields"].is_array();
    let names = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(managed);
    let paths: Vec<String> = names
        .filter_map(|it| {
            Some(format!(
                "{}/{}",
                collection(),
                it["metadata"]["name"].as_str()?
            ))
        })
        .collect();
    let patch = json!({"metadata": {"managedFields": [{}]}});
    let client = &client;
    let patched = paths
        .iter()
        .map(|path| requests::merge(client, path, &patch));
    let mut patched = futures::stream::iter(patched).buffer_unordered(AT_ONCE);
    while let Some(answer) = patched.next().await {
        answer.doing(|| "take away field managers".into())?;
    }
    Ok(())
}

type Taken = HashMap<&'static str, Values>;

/// Lists everything in turn; milliseconds of each.
async fn lists(stage: &Stage, objects: usize, rounds: usize) -> Result<Taken> {
    let mut taken = Taken::new();
    let mut clients = HashMap::new();
    for target in Target::round(0) {
        clients.insert(target.name(), stage.client(target).await?);
    }
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for target in Target::round(round) {
            let client = &clients[target.name()];
            let asked = Instant::now();
            let text = requests::get_text(client, &collection())
                .await
                .doing(|| "list".into())?;
            let milliseconds = milliseconds(asked.elapsed());
            if round > 0 {
                taken.entry(target.name()).or_default().push(milliseconds);
                continue;
            }
            let list: Value = serde_json::from_str(&text).doing(|| "read a list".into())?;
            let found = list["items"].as_array().map_or(0, Vec::len);
            eprintln!(
                "   {}: {found} objects are {} bytes",
                target.name(),
                text.len()
            );
            if found != objects {
                let name = target.name();
                return Err(Failure::Said(format!(
                    "{name} lists {found} objects, not {objects}"
                )));
            }
        }
    }
    Ok(taken)
}

fn rows(report: &mut Report, objects: usize, taken: &Taken) {
    let p50 = |target: Target| taken[target.name()].percentile(50.0);
    for target in [Target::Direct, Target::Aggregated] {
        let name = format!("full list of {objects}, {}, p50", target.name());
        report.add(&name, MILLISECONDS, p50(target), p50(Target::Peer), PEER);
    }
}
