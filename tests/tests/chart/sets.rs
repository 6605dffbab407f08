//! The sets of values that are golden files, as a kube-apiserver sees them.

use serde_json::{Value, json};
use tests::chart::{Access, SYSTEM};
use tests::served::{Said, contains};

use crate::with_input;

/// The chart as it is rendered with each set of values, as golden files.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/golden");
/// A ServiceAccount without rights: those of the chart are not there yet.
const PLAIN: &str = "plain";
const SETS: [&str; 6] = ["default", "etcd", "two", "openshift", "mirror", "listed"];

/// What an API server makes of a set, in a namespace for restricted pods: everything is
/// taken, and nothing is warned about.
pub fn are_taken(access: &Access) {
    for namespace in [SYSTEM, "tenants-a", "tenants-b", "databases"] {
        access.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    let level = |mode| format!("pod-security.kubernetes.io/{mode}=restricted");
    // Pods are refused by the first, and what makes pods is warned of by the second.
    let [enforce, warn] = [level("enforce"), level("warn")];
    access
        .kubectl(&["label", "namespace", SYSTEM, &enforce, &warn])
        .unwrap();
    access
        .kubectl(&["-n", SYSTEM, "create", "serviceaccount", PLAIN])
        .unwrap();
    for set in SETS {
        let rendered = std::fs::read_to_string(format!("{GOLDEN}/chart-{set}.yaml")).unwrap();
        // Its kind is not of this cluster.
        let all = rendered.split("\n---\n");
        let known: Vec<&str> = all
            .filter(|it| !it.contains("kind: ServiceMonitor"))
            .collect();
        let taken = taken(access, &known.join("\n---\n"));
        assert!(taken.len() > 20, "{set}");
        ports(set, &taken);
        for pod in taken.iter().filter_map(pod_of) {
            taken_one(access, &pod);
        }
    }
    // A pod that is not restricted shows that they are looked at.
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": SYSTEM},
        "spec": {"serviceAccountName": PLAIN, "containers": [{"name": "c", "image": "i"}]},
    });
    let said = dry(access, &bare.to_string());
    contains(&said.stderr, "violates PodSecurity");
    let off = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}-"));
    access
        .kubectl(&["label", "namespace", SYSTEM, &off[0], &off[1]])
        .unwrap();
}

fn dry(access: &Access, manifest: &str) -> Said {
    let mut apply = access.command();
    apply.args([
        "apply",
        "--dry-run=server",
        "--warnings-as-errors",
        "-o",
        "json",
        "-f",
        "-",
    ]);
    with_input(&mut apply, manifest)
}

fn taken(access: &Access, manifest: &str) -> Vec<Value> {
    let said = dry(access, manifest);
    assert!(said.code == 0 && said.stderr.is_empty(), "{}", said.stderr);
    let list: Value = serde_json::from_str(&said.stdout).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn taken_one(access: &Access, object: &Value) {
    let said = dry(access, &object.to_string());
    let (of, stderr) = (&object["metadata"], &said.stderr);
    assert!(said.code == 0 && stderr.is_empty(), "{of}: {stderr}");
}

/// The template of what makes pods.
fn template(object: &Value) -> Option<&Value> {
    let at = match object["kind"].as_str()? {
        "Deployment" | "StatefulSet" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer(at)
}

/// A pod as it would be made, as an account that is there.
fn pod_of(object: &Value) -> Option<Value> {
    let template = template(object)?;
    let mut spec = template["spec"].clone();
    for key in ["serviceAccount", "serviceAccountName"] {
        spec[key] = json!(PLAIN);
    }
    let claims = object["spec"]["volumeClaimTemplates"].as_array();
    for claim in claims.into_iter().flatten() {
        let volume = json!({"name": claim["metadata"]["name"], "emptyDir": {}});
        match spec["volumes"].as_array_mut() {
            Some(volumes) => volumes.push(volume),
            None => spec["volumes"] = json!([volume]),
        }
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": object["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
        },
        "spec": spec,
    }))
}

/// Each port that a NetworkPolicy names is one of the pods that it selects. The lab's
/// network enforces none, so a port of another name would never be missed.
fn ports(set: &str, objects: &[Value]) {
    let policies = objects.iter().filter(|it| it["kind"] == "NetworkPolicy");
    for policy in policies {
        let name = &policy["metadata"]["name"];
        let wanted = policy["spec"]["podSelector"]["matchLabels"]
            .as_object()
            .unwrap();
        let selected: Vec<&Value> = objects
            .iter()
            .filter_map(template)
            .filter(|it| {
                let labels = &it["metadata"]["labels"];
                wanted.iter().all(|(key, value)| labels[key] == *value)
            })
            .collect();
        assert!(!selected.is_empty(), "{set}: {name} selects no pod");
        let rules = policy["spec"]["ingress"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for port in rules.iter().flat_map(|it| it["ports"].as_array().unwrap()) {
            let port = port["port"].as_str().unwrap();
            for template in &selected {
                assert!(has_port(template, port), "{set}: {name} names port {port}");
            }
        }
    }
}

fn has_port(template: &Value, name: &str) -> bool {
    let containers = template["spec"]["containers"].as_array().unwrap().iter();
    let mut ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
    ports.any(|it| it["name"] == name)
}
