//! `tenantcontrolplanes/NAME/migrate` as kubectl, RBAC and the cluster's policies meet it.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tests::served::{GROUP_VERSION, Said, Served, contains, eventually};

const OBJECTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: helper, namespace: default}
rules: [{apiGroups: [steward.butlerlabs.dev], resources: [tenantcontrolplanes/migrate], resourceNames: [t], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: helper, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: helper}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: helper}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: owner, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: owner}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: viewer}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: stranger, namespace: kube-public}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: stranger}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: targets}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [steward.butlerlabs.dev], apiVersions: [v1alpha1], operations: [CREATE, DELETE], resources: [tenantcontrolplanes/migrate]}
  validations:
    - {expression: "request.operation == 'DELETE' || object.spec.target != 'c'", message: "c is for others"}
    - {expression: "request.operation == 'CREATE' || oldObject.spec.target != 'kept'", message: "this one goes on"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: targets}
spec: {policyName: targets, validationActions: [Deny]}
---
apiVersion: steward.butlerlabs.dev/v1alpha1
kind: TenantControlPlane
metadata: {name: t, namespace: default}
spec:
  kubernetes: {version: v1.36.3, kubelet: {}}
  controlPlane: {service: {serviceType: ClusterIP}}
"#;

struct World(Served);

impl World {
    /// A DataStore and what the controller says of it.
    fn store(&self, name: &str, tenants: usize) {
        let store = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "DataStore",
            "metadata": {"name": name},
            "spec": {
                "driver": "PostgreSQL", "endpoints": ["db:5432"],
                "basicAuth": {"username": {"content": "eA=="}, "password": {"content": "eA=="}},
            },
        });
        self.0.lab.apply(&store.to_string()).unwrap();
        let used_by: Vec<String> = (0..tenants).map(|n| format!("m/{n}")).collect();
        let status = json!({"usedBy": used_by, "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        self.says("datastore", name, &status);
    }

    fn says(&self, kind: &str, name: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        let status = ["--subresource=status", "--type=merge", "-p", &patch];
        self.0
            .kubectl(&[&["patch", kind, name][..], &status].concat());
    }

    fn raw(&self, verb: &str, user: &str, query: &str, body: &Value) -> Said {
        let url =
            format!("{GROUP_VERSION}/namespaces/default/tenantcontrolplanes/t/migrate{query}");
        let file = self.0.files().join("request.json");
        std::fs::write(&file, body.to_string()).unwrap();
        let file = file.display().to_string();
        let user = format!("--as={user}");
        self.0
            .try_kubectl(&[verb, "--raw", &url, "-f", &file, &user])
    }

    fn ask(&self, user: &str, spec: &Value) -> Said {
        self.raw("create", user, "", &json!({"spec": spec}))
    }

    fn abort(&self, user: &str) -> Said {
        self.raw("delete", user, "", &json!({"kind": "DeleteOptions"}))
    }

    fn wanted(&self) -> String {
        self.0
            .kubectl(&["get", "tcp", "t", "-o=jsonpath={.spec.dataStore}"])
    }
}

fn value(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.text());
    serde_json::from_str(&said.stdout).unwrap()
}

/// R8.29, R8.24, R8.25, R8.31, R3.75, R3.76.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_moved_by_who_may_move_it_and_where_policies_let_it() {
    // A process of its own, so that it has a log.
    let world = World(Served::process().await);
    let served = &world.0;
    served.lab.apply(OBJECTS).unwrap();
    for (name, tenants) in [("a", 1), ("b", 3), ("c", 5)] {
        world.store(name, tenants);
    }
    let storage = json!({"dataStoreName": "a", "setup": {"schema": "default_t"}});
    world.says("tcp", "t", &json!({"storage": storage}));

    // In discovery, and in what kubectl and generated clients read of types.
    let resources = served.kubectl(&["get", "--raw", GROUP_VERSION]);
    contains(&resources, r#""name":"tenantcontrolplanes/migrate""#);
    let types = served.kubectl(&["get", "--raw", &format!("/openapi/v3{GROUP_VERSION}")]);
    contains(
        &types,
        "dev.butlerlabs.steward.v1alpha1.MigrationRequest\":{",
    );

    // Who may what: each verb is a right of its own, and none to the tenant is needed.
    let subresource = ["get", "tcp", "t", "--subresource=migrate"];
    let get = |user: &str| served.try_kubectl(&[&subresource[..], &["--as", user]].concat());
    let to_b = json!({"target": "b"});
    for user in ["stranger", "viewer"] {
        let text = world.ask(user, &to_b).text();
        contains(
            &text,
            r#"cannot create resource "tenantcontrolplanes/migrate""#,
        );
    }
    contains(
        &get("stranger").text(),
        r#"cannot get resource "tenantcontrolplanes/migrate""#,
    );
    contains(
        &get("helper").text(),
        r#"cannot get resource "tenantcontrolplanes/migrate""#,
    );
    contains(
        &world.abort("helper").text(),
        r#"cannot delete resource "tenantcontrolplanes/migrate""#,
    );
    contains(&get("viewer").text(), "t      <none>");

    // Policies see what is asked, and what the server has chosen.
    eventually("the policy is known", Duration::from_secs(20), || {
        let text = world.ask("owner", &json!({"target": "c"})).text();
        text.contains("c is for others")
    })
    .await;
    let dry = json!({});
    let dry = world.raw("create", "helper", "?dryRun=All", &dry);
    assert_eq!(value(&dry)["spec"]["target"], "b");
    served.kubectl(&[
        "patch",
        "datastore",
        "b",
        "--type=merge",
        r#"-p={"spec":{"taints":[{"key":"full"}]}}"#,
    ]);
    let chosen = world.raw("create", "helper", "?dryRun=All", &json!({}));
    contains(&chosen.text(), "c is for others");
    assert_eq!(world.wanted(), "");

    // Who may only move it does, and sees what came of it.
    let asked = value(&world.ask("helper", &to_b));
    assert_eq!(asked["kind"], "MigrationRequest");
    assert_eq!(asked["spec"], to_b);
    assert_eq!(asked["status"]["phase"], "Pending");
    assert_eq!(world.wanted(), "b");
    assert_eq!(value(&world.ask("helper", &to_b)), asked);
    let other = world.ask("owner", &json!({"target": "x"}));
    contains(&other.text(), r#"spec.target: Not found: "x""#);

    // By the plug-in of kubectl as well (R8.28).
    let plugin = served.plugin(&["migrate", "t", "--to", "b", "--no-wait"]);
    assert_eq!((plugin.code, plugin.stdout.as_str()), (0, "t moves to b\n"));
    let none = served.plugin(&["migrate", "t", "--to=x"]);
    contains(&none.stderr, r#"spec.target: Not found: "x""#);

    // As the controller goes on, so does what is seen.
    let running = json!({"migration": {
        "phase": "Copying", "source": "a", "target": "b", "copiedKeys": 5, "totalKeys": 9,
        "copiedBytes": 77, "startTime": "2026-01-01T00:00:00Z",
    }});
    world.says("tcp", "t", &running);
    let table = get("owner").text();
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    let expected = [
        "NAME", "PHASE", "SOURCE", "TARGET", "COPIED", "BYTES", "FROZEN", "DURATION",
    ];
    assert_eq!(columns, expected);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[..7],
        ["t", "Copying", "a", "b", "5/9", "77", "<none>"],
        "{table}"
    );
    let yaml = served.kubectl(&[&subresource[..], &["-o", "yaml"]].concat());
    contains(&yaml, "kind: MigrationRequest");
    world.store("d", 0);
    let elsewhere = world.ask("owner", &json!({"target": "d"}));
    contains(&elsewhere.text(), "abort that move with a DELETE");

    // Called off, which kubectl's patch of the tenant sees as well; and not twice.
    let aborted = value(&world.abort("owner"));
    assert_eq!(aborted["status"]["phase"], "Copying");
    assert_eq!(world.wanted(), "a");
    let patched = served.try_kubectl(&[
        "patch",
        "tcp",
        "t",
        "--type=merge",
        r#"-p={"spec":{"dataStore":"b"}}"#,
    ]);
    contains(
        &patched.text(),
        "Warning: spec.dataStore: the tenant's data is moved from DataStore a to b",
    );
    world.says("tcp", "t", &json!({"migration": {"phase": "Switching"}}));
    contains(
        &world.abort("owner").text(),
        "is already served from DataStore b",
    );
    // A DELETE is admitted, too.
    world.says("tcp", "t", &json!({"migration": null}));
    world.store("kept", 0);
    value(&world.ask("owner", &json!({"target": "kept"})));
    contains(&world.abort("owner").text(), "this one goes on");
    assert_eq!(world.wanted(), "kept");

    let log = std::fs::read_to_string(served.lab.directory().log("served")).unwrap();
    contains(
        &log,
        r#"\"steward.butlerlabs.dev/migration-target\":\"kept\""#,
    );
}
