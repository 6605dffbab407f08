//! Our API server, and as its peer a kube-apiserver with a CRD of the same
//! schema; one etcd, one disk, one client, the same objects.
//!
//! # Assumptions
//! Both lie in the directory of the lab's run, which is on a disk: ours syncs
//! each commit (`synchronous=FULL`), etcd does as well.

use std::path::Path;
use std::time::{Duration, Instant};

use apiservice::resource::Resource;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tests::lab::process::{Process, Program};
use tests::lab::{Lab, Level};
use tests::served::{NAME, NAMESPACE, Served, TENANT};

use crate::failure::{Doing, Failure, Result};
use crate::{installation, machine, requests};

/// What the report calls the peer.
pub const PEER: &str = "kube-apiserver 1.36.3 with a CRD of the same schema, etcd 3.6";
/// Where the objects are.
pub const SPACE: &str = "bench";

const OUR_PORT: u16 = 8443;
const PEER_PORT: u16 = 7443;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Our server itself.
    Direct,
    /// Our server through the kube-apiserver that aggregates it.
    Aggregated,
    /// kube-apiserver with a CRD.
    Peer,
}

impl Target {
    /// All, each before another in turn.
    pub fn round(number: usize) -> [Target; 3] {
        let mut all = [Target::Direct, Target::Peer, Target::Aggregated];
        all.rotate_left(number % 3);
        all
    }

    /// For names of objects and lines of the table.
    pub fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::Aggregated => "aggregated",
            Target::Peer => "peer",
        }
    }
}

/// Both servers, fresh.
pub struct Stage {
    served: Served,
    ours: Process,
    peer: Process,
    object: Value,
}

impl Stage {
    pub async fn start(program: &Path) -> Result<Self> {
        let lab = installation::start_lab(Level::Api).await?;
        let sync = machine::sync_time(lab.directory().path())?;
        eprintln!("   a write of 4 KiB is on the disk after {sync:.2} ms");
        eprintln!("   starting both servers");
        let served = Served::on(lab).await;
        let lab = &served.lab;
        let data = lab.directory().path().join("steward");
        let kubeconfig = served.files().join("kubeconfig");
        let ours = lab.spawn(Program::new("steward-apiserver", program).args([
            format!("--namespace={NAMESPACE}"),
            format!("--secure-port={OUR_PORT}"),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--data-dir={}", data.display()),
            // More than anybody has, in one namespace.
            "--max-objects=100000".to_owned(),
            "--max-objects-per-namespace=100000".to_owned(),
            "--max-bytes=1000000000".to_owned(),
            "--max-bytes-per-namespace=1000000000".to_owned(),
        ]))?;
        lead_to(lab).await?;
        let peer = lab.spawn(lab.further_api_server("peer", "/bench-crd", PEER_PORT)?)?;
        served.wait_until_served().await;
        // Its garbage collector watches all kinds of the cluster, ours among
        // them; the peer has nothing of the kind.
        lab.signal("kube-controller-manager", "KILL")?;

        let resource = apiservice::find("tenantcontrolplanes")
            .ok_or_else(|| Failure::Said("no kind tenantcontrolplanes".into()))?;
        let stage = Self {
            object: object(resource)?,
            ours,
            peer,
            served,
        };
        let peer = stage.client(Target::Peer).await?;
        requests::until_ready(&peer, Duration::from_secs(60)).await?;
        let crd = apiservice::crd::crd(resource).doing(|| "write the CRD".into())?;
        let crd = serde_json::to_value(crd).doing(|| "write the CRD".into())?;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        requests::post(&peer, path, &crd)
            .await
            .doing(|| "create the CRD".into())?;
        let space = json!({"metadata": {"name": SPACE}});
        for target in [Target::Aggregated, Target::Peer] {
            let client = stage.client(target).await?;
            let made = requests::post(&client, "/api/v1/namespaces", &space).await;
            made.doing(|| format!("create the namespace {SPACE}"))?;
        }
        for target in Target::round(0) {
            stage.until_writable(target).await?;
        }
        Ok(stage)
    }

    /// The first object tells when a server knows kind and namespace.
    async fn until_writable(&self, target: Target) -> Result<()> {
        let client = self.client(target).await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let body = self.body(&format!("first-{}", target.name()));
        while let Err(error) = requests::post_bytes(&client, &collection(), body.clone()).await {
            if Instant::now() > deadline {
                return Err(error).doing(|| format!("create the first object, {}", target.name()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.clear(target).await
    }

    /// An administrator's client with a connection of its own.
    pub async fn client(&self, target: Target) -> Result<Client> {
        let lab = &self.served.lab;
        let mut config = requests::config_of(&lab.kubeconfig()).await?;
        let port = match target {
            Target::Direct => Some(OUR_PORT),
            Target::Aggregated => None,
            Target::Peer => Some(PEER_PORT),
        };
        if let Some(port) = port {
            let url = format!("https://{}:{port}", lab.addresses().node());
            config.cluster_url = url
                .parse()
                .map_err(|error| Failure::Said(format!("{url}: {error}")))?;
        }
        // Ours has an authority that only the aggregator is told.
        config.accept_invalid_certs = true;
        requests::client(config)
    }

    /// `count` clients.
    pub async fn clients(&self, target: Target, count: usize) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.client(target).await?);
        }
        Ok(clients)
    }

    /// The object under another name, as a request's body.
    pub fn body(&self, name: &str) -> Vec<u8> {
        let mut object = self.object.clone();
        object["metadata"]["name"] = name.into();
        object.to_string().into_bytes()
    }

    /// Deletes all objects.
    pub async fn clear(&self, target: Target) -> Result<()> {
        let client = self.client(target).await?;
        requests::delete(&client, &collection())
            .await
            .doing(|| "delete the objects".into())?;
        Ok(())
    }

    /// The process that is ours (either target) or the peer.
    pub fn pid(&self, target: Target) -> u32 {
        if target == Target::Peer {
            self.peer.id.pid
        } else {
            self.ours.id.pid
        }
    }

    /// etcd, which the peer needs and ours does not.
    pub fn etcd(&self) -> Result<u32> {
        Ok(self.served.lab.process("etcd")?.id.pid)
    }

    /// Fails if one of the servers has ended.
    pub fn check(&self) -> Result<()> {
        self.ours.check()?;
        Ok(self.peer.check()?)
    }
}

/// The path of the objects.
pub fn collection() -> String {
    format!(
        "{}/namespaces/{SPACE}/tenantcontrolplanes",
        requests::GROUP_VERSION
    )
}

/// The example, with its list of plug-ins as a list: a CRD takes no other form.
fn object(resource: &Resource) -> Result<Value> {
    let mut object: Value = serde_saphyr::from_str(TENANT)
        .map_err(|error| Failure::Said(format!("the example: {error}")))?;
    resource.normalize(&mut object);
    object["metadata"]["namespace"] = SPACE.into();
    Ok(object)
}

/// The aggregator finds our server on the node's address.
async fn lead_to(lab: &Lab) -> Result<()> {
    lab.register_local_service(NAMESPACE, NAME, OUR_PORT)
        .await?;
    let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(lab.client(), NAMESPACE);
    let endpoints = json!({"endpoints": [{
        "addresses": [lab.addresses().node()], "conditions": {"ready": true},
    }]});
    let (name, parameters) = (format!("{NAME}-lab"), PatchParams::default());
    let patched = slices
        .patch(&name, &parameters, &Patch::Merge(endpoints))
        .await;
    patched.doing(|| "lead the Service to our server".into())?;
    Ok(())
}
