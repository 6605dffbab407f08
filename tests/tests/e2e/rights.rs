//! Rule 27: nothing that we asked for was forbidden, and every right that the
//! chart gives us was used; judged by the audit log of all that was run before.

use serde_json::Value;
use tests::installed::SYSTEM;

use crate::audit::{API_SERVER, CONTROLLER, Log, Request};
use crate::stage::Stage;

/// Rights that a run does not use, each with its reason.
const UNUSED: &str = include_str!("../../golden/e2e/unused-rights.txt");
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// One right: a verb on a resource, perhaps of one object only.
#[derive(Debug)]
struct Right {
    group: String,
    resource: String,
    name: Option<String>,
    verb: String,
}

impl Right {
    fn used_by(&self, request: &Request) -> bool {
        let Some(it) = &request.object_ref else {
            return false;
        };
        let resource = if it.subresource.is_empty() {
            it.resource.clone()
        } else {
            format!("{}/{}", it.resource, it.subresource)
        };
        it.api_group == self.group
            && resource == self.resource
            && request.verb == self.verb
            && self.name.as_ref().is_none_or(|name| *name == it.name)
    }

    fn line(&self) -> String {
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

pub async fn run(stage: &Stage) {
    let lab = stage.it.lab().unwrap();
    let log = Log::all(lab.directory().audit_log());
    let all = log.since(&[CONTROLLER, API_SERVER]);
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
    for user in [CONTROLLER, API_SERVER] {
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

/// What the chart grants to a program: its ClusterRole and its Role.
async fn rights(stage: &Stage, program: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for path in [
        format!("{RBAC}/clusterroles/{program}"),
        format!("{RBAC}/namespaces/{SYSTEM}/roles/{program}"),
    ] {
        let role = stage.it.get(&path).await.unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let names = list(&rule["resourceNames"]);
            let names: Vec<_> = if names.is_empty() {
                vec![None]
            } else {
                names.into_iter().map(Some).collect()
            };
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        rights.extend(names.iter().map(|name| Right {
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verb: verb.clone(),
                        }));
                    }
                }
            }
        }
    }
    assert!(!rights.is_empty(), "{program} has no rights");
    rights
}

fn list(value: &Value) -> Vec<String> {
    let all = value.as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}
