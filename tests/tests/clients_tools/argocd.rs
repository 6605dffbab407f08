//! Argo CD, as its application controller works.

use serde_json::{Value, json};
use tests::lab::programs::ARGO_CD;
use tests::served::{Served, TENANT};

use crate::cluster::{data_store, edit, get, managers, namespace, report, tenant, until};
use crate::tool::Tool;

const NAMESPACE: &str = "argocd";
const GROUP: &str = "steward.butlerlabs.dev";
const CONDITIONS: &str = include_str!("../../../docs/src/reference/conditions.md");

struct Argo {
    tool: Tool,
    /// `client`, `structured` or `server`.
    mode: &'static str,
}

impl Argo {
    fn ask(&mut self, deed: &str, application: &str, objects: &str) -> Value {
        // The health check that the documentation gives.
        let lua = CONDITIONS.split("```lua\n").nth(1).unwrap();
        let lua = lua.split("```").next().unwrap();
        let answer = self.tool.ask(&json!({
            "do": deed, "application": application, "objects": objects, "mode": self.mode,
            "prune": true, "lua": lua,
        }));
        assert_eq!(answer["error"], Value::Null, "{answer}");
        answer
    }

    /// Waits until these objects, and no others, are OutOfSync.
    #[track_caller]
    fn differ(&mut self, application: &str, objects: &str, wanted: &[&str]) {
        let mode = self.mode;
        until(&format!("OutOfSync, compared by {mode}"), || {
            let answer = self.ask("diff", application, objects);
            let differ = answer["differ"].as_object().unwrap();
            let names: Vec<&str> = differ.keys().map(|key| name(key)).collect();
            (names == wanted)
                .then_some(())
                .ok_or_else(|| answer["differ"].to_string())
        });
    }

    /// A sync; what is said of each object, by its name.
    #[track_caller]
    fn sync(&mut self, application: &str, objects: &str, wanted: &[(&str, &str)]) {
        let answer = self.ask("sync", application, objects);
        let results = answer["results"].as_object().unwrap();
        let results: Vec<(&str, &str)> = results
            .iter()
            .map(|(key, said)| (name(key), said.as_str().unwrap()))
            .collect();
        assert_eq!(results.len(), wanted.len(), "{answer}");
        for (name, part) in wanted {
            let said = results
                .iter()
                .find(|(it, said)| it == name && said.contains(part));
            assert!(said.is_some(), "{name}: {part:?} is not in {answer}");
        }
    }
}

/// Of an object of `group/kind/namespace/name`.
fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

/// R8.42.
pub fn argo_cd_keeps_tenants(served: &Served) {
    namespace(served, NAMESPACE);
    served
        .lab
        .apply(&tenant(NAMESPACE, "before", 1, ""))
        .unwrap();
    let mut argo = Argo {
        tool: Tool::go(&ARGO_CD, served),
        mode: "client",
    };
    the_cache_holds_our_kinds(served, &mut argo);
    for (mode, application) in [
        ("client", "one"),
        ("structured", "two"),
        ("server", "three"),
    ] {
        argo.mode = mode;
        an_application_is_kept(served, &mut argo, application);
    }
    health_is_what_the_documentation_says(served, &mut argo);
    what_is_rewritten_differs_only_for_clients(&mut argo);
    argo.tool.end();
}

/// R8.42: what was there before, and what came since. Its start has read OpenAPI and listed
/// every kind of the cluster.
fn the_cache_holds_our_kinds(served: &Served, argo: &mut Argo) {
    served
        .lab
        .apply(&tenant(NAMESPACE, "since", 1, ""))
        .unwrap();
    let kind = format!("TenantControlPlane.{GROUP}");
    let all = served.kubectl(&["get", "tcp", "-A", "-o=name"]);
    let all = all.lines().count();
    assert!(all >= 2);
    until("the cache holds all tenants", || {
        let cached = argo.ask("cached", "", "")["cached"][&kind].clone();
        (cached == all).then_some(()).ok_or(cached.to_string())
    });
}

/// R8.42: a DataStore, a tenant, and one that sleeps.
fn an_application_is_kept(served: &Served, argo: &mut Argo, application: &str) {
    let [awake, asleep] = ["awake", "asleep"].map(|it| format!("{application}-{it}"));
    let (awake, asleep) = (awake.as_str(), asleep.as_str());
    let stays = format!(
        "{}{}",
        data_store(application),
        tenant(NAMESPACE, awake, 2, "")
    );
    let all = format!("{stays}{}", tenant(NAMESPACE, asleep, 0, ""));
    argo.differ(application, &all, &[application, asleep, awake]);
    let created = if argo.mode == "client" {
        "Synced: "
    } else {
        "serverside-applied"
    };
    argo.sync(
        application,
        &all,
        &[(application, created), (awake, created), (asleep, created)],
    );
    argo.differ(application, &all, &[]);
    let first = [awake, asleep].map(|name| get(served, NAMESPACE, name));
    assert_eq!(
        first[1]["spec"]["controlPlane"]["deployment"]["replicas"],
        0
    );

    // Once more changes nothing, and neither do status and other fields of the controller.
    argo.sync(
        application,
        &all,
        &[
            (application, "Synced"),
            (awake, "Synced"),
            (asleep, "Synced"),
        ],
    );
    assert_eq!(
        [awake, asleep].map(|name| get(served, NAMESPACE, name)),
        first
    );
    report(
        served,
        (NAMESPACE, asleep),
        &[("Ready", "False", "Sleeping")],
        0,
    );
    argo.differ(application, &all, &[]);

    // Drift, of one that sleeps, too.
    for name in [awake, asleep] {
        edit(
            served,
            NAMESPACE,
            name,
            r#"{"spec":{"controlPlane":{"deployment":{"replicas":7}}}}"#,
        );
    }
    argo.differ(application, &all, &[asleep, awake]);
    argo.sync(
        application,
        &all,
        &[
            (application, "Synced"),
            (awake, "Synced"),
            (asleep, "Synced"),
        ],
    );
    argo.differ(application, &all, &[]);
    let after = [awake, asleep].map(|name| get(served, NAMESPACE, name));
    assert_eq!(
        after.each_ref().map(|it| &it["spec"]),
        first.each_ref().map(|it| &it["spec"])
    );
    let owner = if argo.mode == "client" {
        "argocd-controller/Update/"
    } else {
        "argocd-controller/Apply/"
    };
    assert!(
        managers(&after[0]).iter().any(|it| it == owner),
        "{:?}",
        managers(&after[0])
    );

    // What left the repository is OutOfSync until it is pruned.
    argo.differ(application, &stays, &[asleep]);
    argo.sync(
        application,
        &stays,
        &[
            (application, "Synced"),
            (awake, "Synced"),
            (asleep, "Pruned"),
        ],
    );
    argo.differ(application, &stays, &[]);
    assert_eq!(get(served, NAMESPACE, asleep), Value::Null);
}

/// R8.42: the script of the chapter about conditions.
fn health_is_what_the_documentation_says(served: &Served, argo: &mut Argo) {
    let (application, object) = ("health", tenant(NAMESPACE, "health", 1, ""));
    argo.sync(application, &object, &[("health", "serverside-applied")]);
    let key = format!("{GROUP}/TenantControlPlane/{NAMESPACE}/health");
    let mut healthy = |conditions: &[(&str, &str, &str)], behind, wanted: &str| {
        if !conditions.is_empty() {
            report(served, (NAMESPACE, "health"), conditions, behind);
        }
        until(&format!("{conditions:?} is {wanted}"), || {
            let health = argo.ask("diff", application, &object)["health"][&key].clone();
            (health == wanted).then_some(()).ok_or(health.to_string())
        });
    };
    healthy(&[], 0, "Progressing");
    healthy(&[("Ready", "True", "Ready")], 0, "Healthy");
    healthy(&[("Ready", "False", "NotYet")], 0, "Progressing");
    healthy(&[("Ready", "False", "Sleeping")], 0, "Suspended");
    healthy(&[("Ready", "True", "Ready")], 1, "Progressing");
}

/// R8.42: the one spelling that the server rewrites is a difference for who compares without
/// it (docs: how-to/gitops.md).
fn what_is_rewritten_differs_only_for_clients(argo: &mut Argo) {
    let text = TENANT.replace("namespace: tenants", &format!("namespace: {NAMESPACE}"));
    let list = text.replace(
        text.lines()
            .find(|line| line.contains("admissionControllers:"))
            .unwrap(),
        "    admissionControllers: [NamespaceLifecycle, ServiceAccount]",
    );
    for (mode, text, wanted) in [
        ("client", &list, &[][..]),
        ("server", &list, &[]),
        ("client", &text, &["tenant-1"]),
        ("server", &text, &[]),
    ] {
        argo.mode = mode;
        argo.sync("spelling", text, &[("tenant-1", "Synced")]);
        argo.differ("spelling", text, wanted);
    }
}
