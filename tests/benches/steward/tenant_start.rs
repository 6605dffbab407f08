//! From the request that creates a tenant until somebody else has written
//! something in it.

use std::path::Path;
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;
use serde_json::json;
use tests::chart::TENANTS;

use crate::bare::{self, Bare};
use crate::failure::{Doing, Failure, Result};
use crate::installation::{Installation, version};
use crate::observer::Observer;
use crate::phases::{self, Phase, Timeline};
use crate::report::{Report, SECONDS, Values};
use crate::{Built, Settings, machine, requests};

const PORT: u16 = 6443;

pub async fn run(
    settings: &Settings,
    built: &Built,
    output: &Path,
    report: &mut Report,
) -> Result<()> {
    let installation = Installation::start(built).await?;
    let bench = Bench {
        installation: &installation,
        service_type: &settings.service_type,
    };
    let (lab, etcd) = (&installation.lab, &installation.etcd);

    eprintln!("   one of each that does not count: page cache, images, caches of the cluster");
    let first = bench.start("warm-up").await?;
    let bare = Bare::like(lab, etcd, "warm-up").await?;
    bench.remove("warm-up").await?;
    bare.start(lab, etcd, 0).await?;
    eprint!("{}", first.story());

    let patience = Duration::from_secs(settings.count(20, 1) as u64);
    let pairs = settings.count(settings.pairs, settings.pairs.min(2));
    let (mut ours, mut peer, mut starts) = (Values::default(), Values::default(), Vec::new());
    for pair in 1..=pairs {
        let mut said = Vec::new();
        for turn in 0..2 {
            let busy = machine::settle(patience).await * 100.0;
            // Who begins changes from pair to pair.
            let (what, seconds) = if (turn + pair) % 2 == 0 {
                let name = format!("tenant-{pair}");
                let timeline = bench.start(&name).await?;
                bench.remove(&name).await?;
                let seconds = timeline
                    .at(Phase::FirstWrite)
                    .unwrap_or_default()
                    .as_secs_f64();
                starts.push(timeline);
                ours.push(seconds);
                ("tenant", seconds)
            } else {
                let seconds = bare.start(lab, etcd, pair).await?.as_secs_f64();
                peer.push(seconds);
                ("bare", seconds)
            };
            said.push(format!(
                "{what} {seconds:.2} s (machine {busy:.0}% busy before)"
            ));
        }
        eprintln!("   pair {pair} of {pairs}: {}", said.join(", "));
    }

    let title = format!("tenant start ({})", settings.service_type);
    for (name, percent) in [("p50", 50.0), ("p90", 90.0), ("min", 0.0), ("max", 100.0)] {
        let (ours, peer) = (ours.percentile(percent), peer.percentile(percent));
        report.add(&format!("{title}, {name}"), SECONDS, ours, peer, bare::NAME);
    }
    println!(
        "What a start is made of ({} starts):\n\n{}",
        starts.len(),
        phases::table(&starts)
    );
    let file = output.join("starts.json");
    let all: Vec<_> = starts.iter().map(Timeline::json).collect();
    std::fs::write(&file, json!(all).to_string()).doing(|| format!("write {}", file.display()))
}

struct Bench<'a> {
    installation: &'a Installation,
    service_type: &'a str,
}

impl Bench<'_> {
    async fn start(&self, name: &str) -> Result<Timeline> {
        let client = self.installation.lab.client();
        let tenants = tenants();
        let manifest = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "TenantControlPlane",
            "metadata": {"name": name, "namespace": TENANTS},
            "spec": {
                "dataStore": "default",
                "kubernetes": {"version": version(), "kubelet": {}},
                "networkProfile": {"port": PORT},
                "controlPlane": {
                    "deployment": {"replicas": 1},
                    "service": {"serviceType": self.service_type},
                },
            },
        });
        let mut observer = Observer::start(&client, TENANTS, name, PORT).await?;
        observer.begin();
        requests::post(&client, &tenants, &manifest)
            .await
            .doing(|| format!("create {name}"))?;
        observer.mark(Phase::Accepted);
        observer.until_ready(Duration::from_secs(300)).await?;
        let path = format!("{tenants}/{name}/kubeconfig");
        let minted = requests::get(&client, &path)
            .await
            .doing(|| format!("get {path}"))?;
        observer.mark(Phase::Kubeconfig);
        self.write(minted).await?;
        observer.mark(Phase::FirstWrite);
        observer.finish()
    }

    /// Writes with nothing but the kubeconfig; a refusal is tried again, and
    /// so becomes part of the time.
    async fn write(&self, minted: serde_json::Value) -> Result<()> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(minted).doing(|| "read the minted kubeconfig".into())?;
        let client = requests::client(requests::config(kubeconfig).await?)?;
        let path = "/api/v1/namespaces/default/configmaps";
        let object = json!({"metadata": {"name": "first"}, "data": {"written": "yes"}});
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = requests::post(&client, path, &object).await {
            eprintln!("   the first write is tried again: {error}");
            if Instant::now() > deadline {
                return Err(error).doing(|| "write in the tenant".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Deletes a tenant and waits until nothing of it runs.
    async fn remove(&self, name: &str) -> Result<()> {
        let client = self.installation.lab.client();
        let path = format!("{}/{name}", tenants());
        requests::delete(&client, &path)
            .await
            .doing(|| format!("delete {name}"))?;
        let deadline = Instant::now() + Duration::from_secs(180);
        let pods = format!("/api/v1/namespaces/{TENANTS}/pods");
        loop {
            let gone = matches!(requests::get(&client, &path).await, Err(error) if requests::is_absent(&error));
            let left = requests::get(&client, &pods)
                .await
                .doing(|| "list Pods".into())?;
            if gone && left["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::Said(format!("{name} is not gone within 180 s")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn tenants() -> String {
    format!(
        "{}/namespaces/{TENANTS}/tenantcontrolplanes",
        requests::GROUP_VERSION
    )
}
