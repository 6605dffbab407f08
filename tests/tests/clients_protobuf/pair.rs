//! Both servers, each with the program that asks it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lab::programs::METADATA;
use tests::lab::{Lab, Level};
use tests::served::{DATA_STORE, GROUP_VERSION, Served, TENANT};

use crate::tool::Tool;

/// The media type.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The namespace of the examples.
pub const NAMESPACE: &str = "tenants";

/// Runs kubectl with these arguments, and has what it printed.
type Kubectl = Box<dyn Fn(&[&str]) -> String + Send + Sync>;

/// One of the servers.
pub struct Side {
    pub name: &'static str,
    tool: Tool,
    /// Everything that is read back.
    kubectl: Kubectl,
}

pub struct Pair {
    pub theirs: Side,
    pub ours: Side,
    served: Served,
    _other: Lab,
}

impl Pair {
    pub async fn start() -> Self {
        let other = Lab::start(Level::Api).await.unwrap();
        {
            let directories = other.directories();
            let _lock = directories.lock_cache(&mut |_| {}).unwrap();
            let built = METADATA.build(directories, &mut |line| println!("{line}"));
            built.unwrap();
        }
        let crds = ["tenantcontrolplanes", "datastores"].map(|plural| {
            let crd = apiservice::crd::crd(apiservice::find(plural).unwrap()).unwrap();
            serde_json::to_string(&crd).unwrap()
        });
        // Too long for the annotation of an apply.
        let path = other.directory().path().join("crds.yaml");
        std::fs::write(&path, crds.join("\n---\n")).unwrap();
        let create = ["create", "-f", &path.display().to_string()];
        other.kubectl(&create).unwrap();
        let served = Served::process().await;
        let tools = [other.kubeconfig(), served.lab.kubeconfig()].map(|kubeconfig| {
            let program = METADATA.path(other.directories(), METADATA.name);
            let mut command = std::process::Command::new(program);
            (
                Tool::start(command.arg("--kubeconfig").arg(&kubeconfig)),
                kubectl(&other, kubeconfig.display().to_string()),
            )
        });
        let [theirs, ours] = tools;
        let side = |name, (tool, kubectl)| Side {
            name,
            tool,
            kubectl,
        };
        let pair = Self {
            theirs: side("theirs", theirs),
            ours: side("ours", ours),
            served,
            _other: other,
        };
        for side in [&pair.theirs, &pair.ours] {
            side.wait();
            side.kubectl(&["create", "namespace", NAMESPACE]);
            side.write("apply", &examples());
            side.decorate();
        }
        pair
    }

    /// What both answer, without what no two servers have in common.
    pub fn both(&mut self, request: &Value) -> [Value; 2] {
        [&mut self.theirs, &mut self.ours].map(|side| {
            let answer = side.ask(request);
            settled(answer)
        })
    }

    /// The same, which must be the same.
    #[track_caller]
    pub fn alike(&mut self, request: &Value) -> Value {
        let [theirs, ours] = self.both(request);
        assert_eq!(ours, theirs, "{request}");
        ours
    }

    pub async fn end(mut self) {
        self.theirs.tool.end();
        self.ours.tool.end();
        self.served.stop().await;
    }
}

impl Side {
    pub fn ask(&mut self, request: &Value) -> Value {
        let answer = self.tool.ask(request);
        let error = &answer["error"];
        assert_eq!(*error, Value::Null, "{}: {request}: {error}", self.name);
        answer
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        (self.kubectl)(arguments)
    }

    /// Has kubectl send a document.
    pub fn write(&self, verb: &str, document: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document).unwrap();
        let file = file.path().display().to_string();
        self.kubectl(&[verb, "-f", &file, "--validate=ignore"]);
    }

    fn wait(&self) {
        let began = Instant::now();
        let served = ["get", "tcp,datastores", "-A", "--ignore-not-found"];
        while self.kubectl(&served).contains("error") {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An object with everything that metadata can have.
    fn decorate(&self) {
        self.write("create", &full("full").to_string());
        let status = r#"{"status":{"replicas":2,"selector":"a=b"}}"#;
        let by = ["-n", NAMESPACE, "patch", "tcp", "full", "--type=merge"];
        let scale = [
            "--subresource=status",
            "--field-manager=status",
            "-p",
            status,
        ];
        self.kubectl(&[&by[..], &scale].concat());
        let applied = json!({"apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "TenantControlPlane", "metadata": {"name": "full", "namespace": NAMESPACE,
                "annotations": {"example.com/applied": "<&>\u{1}é"}}});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), applied.to_string()).unwrap();
        let file = file.path().display().to_string();
        let server = [
            "apply",
            "--server-side",
            "--field-manager=applier",
            "-f",
            &file,
        ];
        self.kubectl(&server);
        let gone = ["-n", NAMESPACE, "delete", "tcp", "full", "--wait=false"];
        self.kubectl(&[&gone[..], &["--cascade=foreground"]].concat());
    }
}

/// kubectl of the lab; what it says of failures is said as well.
fn kubectl(lab: &Lab, kubeconfig: String) -> Kubectl {
    let (program, cache) = (lab.program("kubectl"), lab.kubectl_cache());
    Box::new(move |arguments| {
        let mut command = std::process::Command::new(&program);
        command.env("KUBECACHEDIR", &cache);
        let command = command.arg("--kubeconfig").arg(&kubeconfig);
        tests::served::run(command.args(arguments)).text()
    })
}

/// All objects of the examples, written as a CRD takes them.
fn examples() -> String {
    let plugins = TENANT
        .lines()
        .map(|line| match line.split_once("admissionControllers: ") {
            Some((indent, list)) => format!("{indent}admissionControllers: [{list}]"),
            None => line.to_owned(),
        });
    let tenant = plugins.collect::<Vec<_>>().join("\n");
    [
        DATA_STORE,
        include_str!("../../examples/datastore-mysql.yaml"),
        include_str!("../../examples/datastore-nats.yaml"),
        include_str!("../../examples/datastore-postgresql.yaml"),
        &tenant,
    ]
    .join("\n---\n")
}

/// A tenant with owners and finalizers.
pub fn full(name: &str) -> Value {
    let owner = |uid: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": uid,
            "controller": uid == "one", "blockOwnerDeletion": true})
    };
    json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "labels": {"app": "x", "empty": ""},
            "annotations": {"example.com/long": "y".repeat(300), "empty": ""},
            "finalizers": ["example.com/one", "example.com/two"],
            "ownerReferences": [owner("one"), owner("two")],
        },
        "spec": {"dataStore": "default",
            "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
            "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
    })
}

/// Path of a tenant of the examples, or of all.
pub fn tenants(name: &str) -> String {
    let all = format!("{GROUP_VERSION}/namespaces/{NAMESPACE}/tenantcontrolplanes");
    match name {
        "" => all,
        name => format!("{all}/{name}"),
    }
}

/// An `Accept` of a shape.
pub fn shaped(media: &str, shape: &str) -> String {
    format!("{media};as={shape};g=meta.k8s.io;v=v1")
}

/// A request as it stands.
pub fn get(path: &str, accept: &str) -> Value {
    json!({"op": "raw", "method": "GET", "path": path, "accept": accept})
}

/// Without what no two servers have in common: uids, revisions, times, and lengths that
/// depend on them.
pub fn settled(mut value: Value) -> Value {
    if let Some(answer) = value.as_object_mut() {
        answer.remove("bytes");
        answer.remove("millis");
    }
    settle(&mut value);
    value
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let changes = matches!(
                    key.as_str(),
                    "uid"
                        | "resourceVersion"
                        | "creationTimestamp"
                        | "deletionTimestamp"
                        | "time"
                        | "continue"
                );
                match value {
                    // Of an empty list Go makes nothing in JSON.
                    Value::Null if key == "items" => *value = json!([]),
                    // An owner's stays.
                    Value::String(text) if changes && text.len() > 3 => *text = "SOME".to_owned(),
                    Value::String(text) if changes && text.parse::<u64>().is_ok() => {
                        *text = "SOME".to_owned();
                    }
                    value => settle(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        // The uid in a text of a precondition.
        Value::String(text) => {
            if let Some((before, after)) = text.split_once("the UID in record (") {
                let after = after.split_once(')').map_or("", |(_, after)| after);
                *text = format!("{before}the UID in record (SOME){after}");
            }
        }
        _ => {}
    }
}
