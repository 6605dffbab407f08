//! What keeps a tenant from being written to, verb by verb, because somebody asked for it
//! (`spec.writePermissions`) or because the tenant has as much in its DataStore as it may
//! (`DataStore.spec.tenantLimits`): one policy for both, that its own API server applies, so
//! that nothing of ours has to be reached for a write to be refused or to pass.
//!
//! The originals have a webhook for it (features 3.7), with two gaps that are not here:
//! subresources pass, and while the operator is away everything is refused.

use apiservice::names;
use apiservice::v1alpha1::WritePermissions;
use serde_json::{Value, json};

use crate::inside::objects::{SYSTEM, metadata};

/// Policy and binding, as the originals' webhook is called.
const NAME: &str = "steward-write-permissions";
const API: &str = "admissionregistration.k8s.io/v1";

/// Whose writes keep the cluster working, and who may lift the limit anyway: nodes and
/// those that join, the controllers, and whoever has `super-admin.conf`.
const EXEMPT_GROUPS: [&str; 5] = [
    "system:masters",
    "system:nodes",
    "system:bootstrappers",
    "system:serviceaccounts:kube-system",
    names::GROUP_SERVING_CERTIFICATES,
];
const EXEMPT_USERS: [&str; 3] = [
    "system:kube-controller-manager",
    "system:kube-scheduler",
    names::USER_BOOTSTRAP,
];

/// Which writes are refused, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// What the tenant's spec asks for.
    pub asked: WritePermissions,
    /// The tenant has as much in its DataStore as it may.
    pub over_limit: bool,
}

impl Blocked {
    /// The writes, for whatever reason.
    pub fn all(&self) -> WritePermissions {
        WritePermissions {
            block_creation: self.asked.block_creation || self.over_limit,
            ..self.asked
        }
    }
}

/// The policy and its binding.
pub fn objects(why: &Blocked) -> [Value; 2] {
    let blocked = &why.all();
    let policy = json!({
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata(None, NAME),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": selector(json!([{
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": [SYSTEM, "kube-node-lease"],
                }])),
                "objectSelector": selector(json!([])),
                "resourceRules": blocked_rules(blocked),
                "excludeResourceRules": passed_rules(blocked),
            },
            "matchConditions": [{"name": "not-the-cluster-itself", "expression": others()}],
            "validations": [{
                "expression": "false",
                "messageExpression": told(why),
                "reason": "Forbidden",
            }],
        },
    });
    let binding = json!({
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata(None, NAME),
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": selector(json!([])),
                "objectSelector": selector(json!([])),
                "resourceRules": [],
                "excludeResourceRules": [],
            },
        },
    });
    [policy, binding]
}

/// Whole, with what is empty: whatever somebody adds to make less match is seen.
fn selector(expressions: Value) -> Value {
    json!({"matchLabels": {}, "matchExpressions": expressions})
}

/// Operations on all resources and subresources. An eviction is a creation that deletes.
fn blocked_rules(blocked: &WritePermissions) -> Value {
    let mut rules = Vec::new();
    let verbs = [
        (blocked.block_creation, "CREATE"),
        (blocked.block_update, "UPDATE"),
        (blocked.block_deletion, "DELETE"),
    ];
    let verbs = verbs.iter().filter(|(blocked, _)| *blocked);
    rules.extend(verbs.map(|(_, verb)| rule(verb, "*", "*/*")));
    if blocked.block_deletion {
        rules.push(rule("CREATE", "", "pods/eviction"));
    }
    Value::Array(rules)
}

/// What is asked or told and stores nothing of the tenant's: reviews, tokens, Events, and
/// the Leases by which controllers elect one of them.
fn passed_rules(blocked: &WritePermissions) -> Value {
    let mut rules = vec![
        rule("*", "authentication.k8s.io", "*/*"),
        rule("*", "authorization.k8s.io", "*/*"),
        rule("*", "coordination.k8s.io", "leases"),
        rule("*", "events.k8s.io", "events"),
        rule("*", "", "events"),
        rule("CREATE", "", "serviceaccounts/token"),
    ];
    if !blocked.block_deletion {
        rules.push(rule("CREATE", "", "pods/eviction"));
    }
    Value::Array(rules)
}

fn rule(operation: &str, group: &str, resource: &str) -> Value {
    json!({
        "operations": [operation],
        "apiGroups": [group],
        "apiVersions": ["*"],
        "resources": [resource],
        "resourceNames": [],
        "scope": "*",
    })
}

/// Whether the caller is none of those who are exempt.
fn others() -> String {
    let list = |names: &[&str]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!("[{}]", quoted.join(", "))
    };
    format!(
        "!(request.userInfo.username in {}) && \
         !(has(request.userInfo.groups) && request.userInfo.groups.exists(group, group in {}))",
        list(&EXEMPT_USERS),
        list(&EXEMPT_GROUPS),
    )
}

/// Which writes are blocked, and by whom. Without figures: the policy stays as it is while the
/// tenant's size changes.
fn told(why: &Blocked) -> String {
    const DELETES: &str = "request.operation == 'DELETE' || \
                           (has(request.subResource) && request.subResource == 'eviction')";
    let asked = format!(
        "(request.operation == 'UPDATE' ? 'updates' : {DELETES} ? 'deletions' : 'creations') \
         + ' are blocked in this cluster by spec.writePermissions of its TenantControlPlane'"
    );
    if !why.over_limit {
        return asked;
    }
    let too = match why.asked.block_creation {
        true => ", and by spec.writePermissions of its TenantControlPlane",
        false => "",
    };
    format!(
        "request.operation == 'UPDATE' || {DELETES} ? {asked} : 'creations are blocked in this \
         cluster because its storage limit is exceeded{too}: delete objects that are not needed, \
         or ask who runs it to raise spec.tenantLimits of its DataStore'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(creation: bool, update: bool, deletion: bool) -> [Vec<String>; 2] {
        let asked = WritePermissions {
            block_creation: creation,
            block_update: update,
            block_deletion: deletion,
        };
        refused(&Blocked {
            asked,
            over_limit: false,
        })
    }

    fn refused(blocked: &Blocked) -> [Vec<String>; 2] {
        let [policy, _] = objects(blocked);
        let constraints = &policy["spec"]["matchConstraints"];
        ["resourceRules", "excludeResourceRules"].map(|list| {
            let rules = constraints[list].as_array().unwrap().iter();
            let text = |rule: &Value| format!("{} {}", rule["operations"][0], rule["resources"][0]);
            rules.map(|rule| text(rule).replace('"', "")).collect()
        })
    }

    #[test]
    fn each_switch_blocks_its_verb() {
        let eviction = "CREATE pods/eviction".to_owned();
        let [blocked, passed] = rules(true, false, false);
        assert_eq!(blocked, ["CREATE */*"]);
        assert!(passed.contains(&eviction), "an eviction creates nothing");
        let [blocked, _] = rules(false, true, false);
        assert_eq!(blocked, ["UPDATE */*"]);
        let [blocked, passed] = rules(false, false, true);
        assert_eq!(blocked, ["DELETE */*", "CREATE pods/eviction"]);
        assert!(!passed.contains(&eviction), "an eviction deletes a pod");
        let [blocked, _] = rules(true, true, true);
        assert_eq!(blocked.len(), 4);
    }
    /// It takes creations and nothing else, whatever else is asked for.
    #[test]
    fn a_limit_blocks_creations_beside_what_is_asked_for() {
        let with = |asked| Blocked {
            asked,
            over_limit: true,
        };
        let [blocked, passed] = refused(&with(WritePermissions::default()));
        assert_eq!(blocked, ["CREATE */*"]);
        assert!(passed.contains(&"CREATE pods/eviction".to_owned()));
        let updates = WritePermissions {
            block_update: true,
            ..WritePermissions::default()
        };
        assert_eq!(refused(&with(updates))[0], ["CREATE */*", "UPDATE */*"]);
        let said = |asked| told(&with(asked));
        assert!(said(updates).contains("because its storage limit is exceeded:"));
        let creations = WritePermissions {
            block_creation: true,
            ..updates
        };
        assert!(said(creations).contains("exceeded, and by spec.writePermissions"));
        let asked = told(&Blocked {
            asked: creations,
            over_limit: false,
        });
        assert!(!asked.contains("storage limit"));
    }
}
