//! Serving certificates of kubelets: a node gets one for itself, and one that would be
//! somebody else gets none. The tenant's API server verifies what kubelets present.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use tests::lab::Worker;

use crate::life::seconds;
use crate::workers::Tenant;

/// How long after a Node is there its request may take.
const APPROVED: Duration = Duration::from_secs(20);
/// How long a request that is not approved is looked at.
const LOOKED_AT: Duration = Duration::from_secs(15);
const SIGNER: &str = "kubernetes.io/kubelet-serving";

/// Asks for it in a tenant's manifest. The API server speaks to no kubelet that has none.
pub fn ask(manifest: &mut Value) {
    manifest["spec"]["kubernetes"]["kubelet"]["servingCertificates"] = json!({});
    manifest["spec"]["controlPlane"]["deployment"]["extraArgs"] = json!({
        "apiServer": ["--kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt"],
    });
}

/// The node that has just joined gets its certificate.
pub async fn approved(tenant: &Tenant<'_>, worker: &Worker) {
    let began = Instant::now();
    let user = format!("system:node:{}", worker.name());
    let issued = async || {
        let requests = requests(tenant);
        let of_it = requests
            .iter()
            .filter(|it| it["spec"]["username"] == user.as_str());
        let mut done = of_it.filter(|it| it["status"]["certificate"].is_string());
        done.next().map(|request| {
            assert_eq!(
                request["status"]["conditions"][0]["reason"],
                "StewardAutoApproved"
            );
        })
    };
    let it = &tenant.stage.it;
    it.until("its serving certificate is issued", APPROVED, issued)
        .await;
    let what = "then until its serving certificate is issued";
    tenant.stage.note(what, seconds(began.elapsed()));
}

/// With the certificate of a node's kubelet somebody asks for the address of the API
/// server, and for the name and the address of another node.
pub async fn refused(tenant: &Tenant<'_>, impostor: &Worker, other: &Worker) {
    let node = impostor.name();
    let kubeconfig = tenant.stage.it.files().join("impostor.kubeconfig");
    let kubelet = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let pem = impostor.run(&["cat", kubelet]).unwrap();
    let server = ["config", "view", "--raw", "-o", "json"];
    let mut config: Value = serde_json::from_str(&tenant.done(&server)).unwrap();
    config["users"][0]["user"] = json!({
        "client-certificate-data": STANDARD.encode(&pem),
        "client-key-data": STANDARD.encode(&pem),
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let url = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let host = url
        .trim_start_matches("https://")
        .rsplit_once(':')
        .unwrap()
        .0;

    let other_name = other.name();
    let other_address = other.address().to_string();
    let wishes: [(&str, &[&str], &[&str]); 3] = [
        ("the-server", &[&node], &[host]),
        ("the-name", &[&other_name], &[]),
        ("the-address", &[&node], &[&other_address]),
    ];
    for (name, names, addresses) in wishes {
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "signerName": SIGNER,
                "usages": ["digital signature", "server auth"],
                "request": STANDARD.encode(request(&node, names, addresses)),
            },
        });
        let file = tenant.stage.it.files().join("request.json");
        std::fs::write(&file, request.to_string()).unwrap();
        let create = ["create", "-f", file.to_str().unwrap()];
        let said = tenant.stage.it.kubectl_with(&kubeconfig, &create);
        assert_eq!(said.code, 0, "{}", said.text());
    }
    // All of them are told of, and none is approved then or later.
    let began = Instant::now();
    let told = async || {
        let events = tenant.stage.events(tenant.name).await;
        let of = |name: &str| {
            events.iter().any(|[_, reason, what]| {
                reason == "ServingCertificateNotApproved" && what.contains(name)
            })
        };
        wishes.iter().all(|(name, ..)| of(name)).then_some(())
    };
    let it = &tenant.stage.it;
    it.until("the impostor is told of", LOOKED_AT, told).await;
    tokio::time::sleep(LOOKED_AT.saturating_sub(began.elapsed())).await;
    for (name, ..) in wishes {
        let request = requests(tenant)
            .into_iter()
            .find(|it| it["metadata"]["name"] == name);
        let request = request.unwrap();
        assert_eq!(request["status"], json!({}), "{name}");
        tenant.done(&["delete", "csr", name]);
    }
}

fn requests(tenant: &Tenant<'_>) -> Vec<Value> {
    let said = tenant.done(&["get", "csr", "-o", "json"]);
    let mut list: Value = serde_json::from_str(&said).unwrap();
    let mut all = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    all.retain(|it| it["spec"]["signerName"] == SIGNER);
    all
}

fn request(node: &str, names: &[&str], addresses: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let subject = &mut params.distinguished_name;
    *subject = rcgen::DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    let addresses = addresses
        .iter()
        .map(|it| SanType::IpAddress(it.parse().unwrap()));
    params.subject_alt_names.extend(addresses);
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}
