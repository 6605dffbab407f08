//! Rule 27: nothing that we asked for was forbidden, and every right that the
//! chart gives us was used; judged by the audit log of all that was run before.
//! What a program may do is read from the bindings of its ServiceAccount, so
//! that no right escapes that comes from a role of another name.

use serde_json::Value;
use tests::installed::{SYSTEM, TENANTS};

use crate::audit::{API_SERVER, CONTROLLER, ETCD_SETUP, Log, Request};
use crate::stage::Stage;

/// Rights that a run does not use, each with its reason.
const UNUSED: &str = include_str!("../../golden/e2e/unused-rights.txt");
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// One right: a verb on a path, or on a resource, perhaps in one namespace or of
/// one object only.
#[derive(Debug)]
struct Right {
    /// Where it holds, if not everywhere.
    namespace: Option<String>,
    group: String,
    /// Begins with `/` if it is a path.
    resource: String,
    name: Option<String>,
    verb: String,
}

impl Right {
    fn used_by(&self, request: &Request) -> bool {
        if request.verb != self.verb {
            return false;
        }
        let Some(it) = &request.object_ref else {
            return request.request_uri.split('?').next() == Some(&self.resource);
        };
        let resource = if it.subresource.is_empty() {
            it.resource.clone()
        } else {
            format!("{}/{}", it.resource, it.subresource)
        };
        it.api_group == self.group
            && resource == self.resource
            && self.name.as_ref().is_none_or(|name| *name == it.name)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == it.namespace)
    }

    fn line(&self) -> String {
        if self.resource.starts_with('/') {
            return format!("{} {}", self.verb, self.resource);
        }
        let group = if self.group.is_empty() {
            "core"
        } else {
            &self.group
        };
        let name = self
            .name
            .as_ref()
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        format!("{} {group}/{}{name}", self.verb, self.resource)
    }
}

/// R1.34.
pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let log = Log::all(lab.directory().audit_log());
    let users = [CONTROLLER, API_SERVER, ETCD_SETUP];
    let all = log.since(&users);
    assert!(all.len() > 500, "the log holds only {} requests", all.len());
    let forbidden: Vec<_> = all
        .iter()
        .filter(|it| it.response_status.code == 403)
        .map(|it| format!("{}: {}", program(&it.user.username), it.line()))
        .collect();
    assert!(
        forbidden.is_empty(),
        "forbidden to us:\n{}",
        forbidden.join("\n")
    );

    let mut unused = Vec::new();
    let mut count = 0;
    for user in users {
        let own: Vec<_> = all.iter().filter(|it| it.user.username == user).collect();
        let program = program(user);
        for right in rights(stage, program).await {
            count += 1;
            if !own.iter().any(|request| right.used_by(request)) {
                unused.push(format!("{program}: {}", right.line()));
            }
        }
    }
    let known: Vec<&str> = UNUSED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    let new: Vec<_> = unused
        .iter()
        .filter(|line| !known.contains(&line.as_str()))
        .collect();
    assert!(
        new.is_empty(),
        "granted and never used (take it out of the chart, or say why in tests/golden/e2e/unused-rights.txt):\n{new:#?}"
    );
    let stale: Vec<_> = known
        .iter()
        .filter(|line| !unused.iter().any(|it| it == *line))
        .collect();
    assert!(
        stale.is_empty(),
        "in tests/golden/e2e/unused-rights.txt, but used or not granted:\n{stale:#?}"
    );
    stage.note(
        "rights",
        format!(
            "{count} granted, {} of them not used with a reason; {} requests, none forbidden",
            unused.len(),
            all.len()
        ),
    );
}

fn program(user: &str) -> &str {
    user.rsplit(':').next().unwrap()
}

/// What a program may do. What the controller gives to our API server in the
/// namespace of each tenant (rule 13) is left out.
async fn rights(stage: &Stage, program: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        let all = stage.it.get(&format!("{RBAC}/{kind}")).await.unwrap();
        for binding in all["items"].as_array().unwrap() {
            let namespace = binding["metadata"]["namespace"].as_str();
            if namespace == Some(TENANTS) || !binds(binding, program) {
                continue;
            }
            let role = binding["roleRef"]["name"].as_str().unwrap();
            let path = if binding["roleRef"]["kind"] == "ClusterRole" {
                format!("{RBAC}/clusterroles/{role}")
            } else {
                format!("{RBAC}/namespaces/{}/roles/{role}", namespace.unwrap())
            };
            let role = stage.it.get(&path).await.unwrap();
            for rule in role["rules"].as_array().unwrap() {
                rights.extend(of_rule(rule, namespace));
            }
        }
    }
    assert!(!rights.is_empty(), "{program} has no rights");
    rights
}

fn binds(binding: &Value, program: &str) -> bool {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.into_iter().any(|it| {
        it["kind"] == "ServiceAccount" && it["name"] == program && it["namespace"] == SYSTEM
    })
}

fn of_rule(rule: &Value, namespace: Option<&str>) -> Vec<Right> {
    let right = |group: &str, resource: &str, name: Option<String>, verb: &str| Right {
        namespace: namespace.map(str::to_owned),
        group: group.to_owned(),
        resource: resource.to_owned(),
        name,
        verb: verb.to_owned(),
    };
    let names = list(&rule["resourceNames"]);
    let names: Vec<_> = if names.is_empty() {
        vec![None]
    } else {
        names.into_iter().map(Some).collect()
    };
    let mut rights = Vec::new();
    for verb in list(&rule["verbs"]) {
        for path in list(&rule["nonResourceURLs"]) {
            rights.push(right("", &path, None, &verb));
        }
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                let names = names.iter().cloned();
                rights.extend(names.map(|name| right(&group, &resource, name, &verb)));
            }
        }
    }
    rights
}

fn list(value: &Value) -> Vec<String> {
    let all = value.as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}
