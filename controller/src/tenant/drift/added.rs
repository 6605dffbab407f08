//! What somebody put into an object of ours where nothing of others belongs.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::cluster::kinds::ObjectKind;
use crate::tenant::drift::{by_key, defaults, merge_key, within};

/// The parts of an object that are ours as a whole, by kind. Elsewhere others
/// may have fields of their own: labels, annotations and finalizers of the
/// object itself, keys of a Secret, and what a cloud's load balancer notes in a
/// Service.
const WHOLE: [(ObjectKind, &[&str]); 4] = [
    (ObjectKind::Deployment, &["spec"]),
    (ObjectKind::Service, &["spec", "ports"]),
    (ObjectKind::Service, &["spec", "externalIPs"]),
    (ObjectKind::Service, &["spec", "publishNotReadyAddresses"]),
];

/// The path of the first field in a part of ours that is not wanted and that
/// Kubernetes does not put there either.
pub fn added(kind: ObjectKind, wanted: &Value, live: &Value) -> Option<String> {
    parts(kind).find_map(|part| {
        let live = at(live, part)?;
        let mut path: Vec<String> = part.iter().map(|&name| name.to_owned()).collect();
        walk(at(wanted, part), live, &mut path)
    })
}

/// The live object with its parts of ours as they are wanted: what others added
/// there is gone, what they may add is kept.
pub fn reduced(kind: ObjectKind, wanted: &Value, live: &Value) -> Value {
    let mut reduced = live.clone();
    for part in parts(kind) {
        let Some((name, parents)) = part.split_last() else {
            continue;
        };
        let mut parent = Some(&mut reduced);
        for name in parents {
            parent = parent.and_then(|parent| parent.get_mut(*name));
        }
        let Some(fields) = parent.and_then(Value::as_object_mut) else {
            continue;
        };
        match at(wanted, part).filter(|wanted| !wanted.is_null()) {
            Some(wanted) => {
                let before = fields.insert((*name).to_owned(), wanted.clone());
                if let Some(before) = before
                    && let Some(after) = fields.get_mut(*name)
                {
                    keep(after, &before, &mut vec![(*name).to_owned()]);
                }
            }
            None => drop(fields.remove(*name)),
        }
    }
    reduced
}

fn parts(kind: ObjectKind) -> impl Iterator<Item = &'static [&'static str]> {
    let parts = WHOLE.iter().filter(move |(of, _)| *of == kind);
    parts.map(|(_, part)| *part)
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// Puts back what others may have, from what was there.
fn keep(after: &mut Value, before: &Value, path: &mut Vec<String>) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (name, value) in before {
                match after.get_mut(name) {
                    Some(after) => within(path, name, |path| keep(after, value, path)),
                    None if defaults::is_kept(path, name) => {
                        after.insert(name.clone(), value.clone());
                    }
                    // On the way to what is kept.
                    None if name == "annotations" => {
                        let mut fields = Value::Object(Map::new());
                        within(path, name, |path| keep(&mut fields, value, path));
                        if fields.as_object().is_some_and(|fields| !fields.is_empty()) {
                            after.insert(name.clone(), fields);
                        }
                    }
                    None => {}
                }
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            let Some(key) = merge_key(after, path.last().map_or("", String::as_str)) else {
                return;
            };
            let before = by_key(before, key);
            for element in after {
                let same = element.get(key).and_then(|id| before.get(id));
                if let Some(before) = same {
                    within(path, "[]", |path| keep(element, before, path));
                }
            }
        }
        _ => {}
    }
}

fn walk(wanted: Option<&Value>, live: &Value, path: &mut Vec<String>) -> Option<String> {
    match (wanted, live) {
        (Some(Value::Object(wanted)), Value::Object(live)) => {
            live.iter()
                .find_map(|(name, value)| match wanted.get(name) {
                    Some(wanted) => within(path, name, |path| walk(Some(wanted), value, path)),
                    None => within(path, name, |path| unwanted(value, path)),
                })
        }
        (Some(Value::Array(wanted)), Value::Array(live)) => list(wanted, live, path),
        // Another value than the wanted one is not an addition.
        (Some(_), _) => None,
        (None, live) => unwanted(live, path),
    }
}

/// A field that is not wanted: an addition, unless it says nothing or is what
/// the API puts there.
fn unwanted(live: &Value, path: &mut Vec<String>) -> Option<String> {
    let (name, parents) = path.split_last()?;
    if defaults::is_kept(parents, name) || defaults::is_default(parents, name, live) {
        return None;
    }
    match live {
        // An empty selector selects everything.
        Value::Object(fields) if fields.is_empty() && name.ends_with("Selector") => {
            Some(path.join("."))
        }
        // Of a map of which some entries may stay, the first that may not.
        Value::Object(fields) if name == "annotations" => fields
            .iter()
            .find_map(|(name, value)| within(path, name, |path| unwanted(value, path))),
        Value::Object(fields) => {
            let more = fields
                .iter()
                .any(|(name, value)| within(path, name, |path| unwanted(value, path)).is_some());
            more.then(|| path.join("."))
        }
        Value::Null => None,
        Value::Array(list) if list.is_empty() => None,
        Value::String(text) if text.is_empty() => None,
        _ => Some(path.join(".")),
    }
}

fn list(wanted: &[Value], live: &[Value], path: &mut Vec<String>) -> Option<String> {
    if let Some(key) = merge_key(wanted, path.last().map_or("", String::as_str)) {
        let wanted = by_key(wanted, key);
        let mut seen = HashSet::with_capacity(live.len());
        return live.iter().find_map(|element| {
            let given = element.get(key);
            let id = given.unwrap_or(&Value::Null);
            // Of variables with one name the last counts.
            let again = seen.contains(id);
            seen.extend(given);
            let found = wanted.get(id).copied().filter(|_| !again);
            within(path, &format!("[{key}={id}]"), |path| match found {
                Some(wanted) => walk(Some(wanted), element, path),
                None => Some(path.join(".")),
            })
        });
    }
    // Lists of another length are other values.
    let pairs = wanted.iter().zip(live).enumerate();
    let mut pairs = pairs.filter(|_| wanted.len() == live.len());
    pairs.find_map(|(index, (wanted, live))| {
        within(path, &format!("[{index}]"), |path| {
            walk(Some(wanted), live, path)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{added, reduced};
    use crate::cluster::kinds::ObjectKind;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Value {
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}})
    }

    fn wanted() -> Value {
        pod(json!({
            "serviceAccountName": "default",
            "securityContext": {"runAsNonRoot": true},
            "containers": [
                {"name": "one", "image": "i", "args": ["--a"], "ports": [{"name": "p", "containerPort": 1}],
                 "livenessProbe": {"httpGet": {"port": 1}}, "securityContext": {"privileged": false},
                 "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "two", "image": "i"},
            ],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            "tolerations": [{"key": "k"}],
        }))
    }

    fn changed(change: impl Fn(&mut Value)) -> Value {
        let mut live = wanted();
        change(&mut live["spec"]);
        live
    }

    type Change = fn(&mut Value);

    /// What somebody may put into a Deployment, and how it is named.
    const ADDITIONS: [(&str, Change); 20] = [
        ("spec.paused", |it| it["paused"] = json!(true)),
        ("spec.minReadySeconds", |it| {
            it["minReadySeconds"] = json!(9)
        }),
        ("spec.revisionHistoryLimit", |it| {
            it["revisionHistoryLimit"] = json!(0)
        }),
        ("spec.template.metadata.labels.c", |it| {
            it["template"]["metadata"]["labels"]["c"] = json!("d");
        }),
        ("spec.template.metadata.annotations.c", |it| {
            it["template"]["metadata"]["annotations"] = json!({"c": "d"});
        }),
        ("spec.template.spec.hostNetwork", |it| {
            it["template"]["spec"]["hostNetwork"] = json!(true);
        }),
        ("spec.template.spec.hostPID", |it| {
            it["template"]["spec"]["hostPID"] = json!(true)
        }),
        ("spec.template.spec.hostUsers", |it| {
            it["template"]["spec"]["hostUsers"] = json!(false)
        }),
        ("spec.template.spec.terminationGracePeriodSeconds", |it| {
            it["template"]["spec"]["terminationGracePeriodSeconds"] = json!(0);
        }),
        ("spec.template.spec.dnsPolicy", |it| {
            it["template"]["spec"]["dnsPolicy"] = json!("None");
        }),
        ("spec.template.spec.initContainers", |it| {
            it["template"]["spec"]["initContainers"] = json!([{"name": "x", "image": "i"}]);
        }),
        ("spec.template.spec.securityContext.runAsUser", |it| {
            it["template"]["spec"]["securityContext"]["runAsUser"] = json!(0);
        }),
        ("spec.template.spec.containers.[name=\"x\"]", |it| {
            let list = it["template"]["spec"]["containers"].as_array_mut().unwrap();
            list.insert(0, json!({"name": "x", "image": "i"}));
        }),
        ("spec.template.spec.containers.[name=\"two\"].env", |it| {
            it["template"]["spec"]["containers"][1]["env"] = json!([{"name": "a", "value": "b"}]);
        }),
        (
            "spec.template.spec.containers.[name=\"one\"].securityContext.runAsUser",
            |it| {
                it["template"]["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
            },
        ),
        (
            "spec.template.spec.containers.[name=\"one\"].ports.[name=\"q\"]",
            |it| {
                let list = it["template"]["spec"]["containers"][0]["ports"]
                    .as_array_mut()
                    .unwrap();
                list.push(json!({"name": "q", "containerPort": 2}));
            },
        ),
        (
            "spec.template.spec.containers.[name=\"one\"].ports.[name=\"p\"]",
            |it| {
                let list = it["template"]["spec"]["containers"][0]["ports"]
                    .as_array_mut()
                    .unwrap();
                list.push(json!({"name": "p", "containerPort": 2}));
            },
        ),
        (
            "spec.template.spec.containers.[name=\"one\"].ports.[name=\"p\"].hostPort",
            |it| {
                it["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(1);
            },
        ),
        ("spec.template.spec.volumes.[name=\"w\"]", |it| {
            let list = it["template"]["spec"]["volumes"].as_array_mut().unwrap();
            list.push(json!({"name": "w", "hostPath": {"path": "/"}}));
        }),
        ("spec.template.spec.tolerations.[0].operator", |it| {
            it["template"]["spec"]["tolerations"][0]["operator"] = json!("Exists");
        }),
    ];

    #[test]
    fn whatever_is_added_to_the_pods_is_found_and_taken_out() {
        for (path, change) in ADDITIONS {
            let live = changed(change);
            assert_eq!(
                added(ObjectKind::Deployment, &wanted(), &live).as_deref(),
                Some(path)
            );
            let reduced = reduced(ObjectKind::Deployment, &wanted(), &live);
            assert_eq!(
                added(ObjectKind::Deployment, &wanted(), &reduced),
                None,
                "{path}"
            );
            assert_eq!(reduced, wanted(), "{path}");
        }
    }

    #[test]
    fn an_empty_selector_is_not_nothing() {
        let term = |more: Value| {
            let mut term = json!({"topologyKey": "a"});
            if !more.is_null() {
                term["namespaceSelector"] = more;
            }
            pod(
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
            )
        };
        let found = added(ObjectKind::Deployment, &term(Value::Null), &term(json!({})));
        assert!(found.is_some_and(|path| path.ends_with("namespaceSelector")));
    }

    /// `kubectl rollout restart` works as on any Deployment.
    #[test]
    fn a_restart_that_was_asked_for_stays() {
        let restarted = |it: &mut Value| {
            it["template"]["metadata"]["annotations"] =
                json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        };
        let live = changed(restarted);
        assert_eq!(added(ObjectKind::Deployment, &wanted(), &live), None);
        let more = changed(|it| {
            restarted(it);
            it["template"]["spec"]["hostNetwork"] = json!(true);
        });
        assert_eq!(reduced(ObjectKind::Deployment, &wanted(), &more), live);
    }

    /// Outside the parts that are ours, others may have fields of their own.
    #[test]
    fn labels_of_the_object_itself_are_left_alone() {
        let mut live = wanted();
        live["metadata"] = json!({"labels": {"x": "y"}, "annotations": {"z": "z"}});
        live["status"] = json!({"replicas": 1});
        assert_eq!(added(ObjectKind::Deployment, &wanted(), &live), None);
        assert_eq!(reduced(ObjectKind::Deployment, &wanted(), &live), live);
        assert_eq!(
            added(ObjectKind::Secret, &json!({}), &json!({"data": {"a": "b"}})),
            None
        );
    }

    #[test]
    fn ports_and_addresses_of_a_service_are_ours() {
        let wanted = json!({"spec": {"type": "LoadBalancer", "ports": [{"name": "p", "port": 1}]}});
        let live = json!({"spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.0.0.1",
            "loadBalancerIP": "192.0.2.1",
            "loadBalancerClass": "given.by/a-webhook",
            "externalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "p", "port": 1, "protocol": "TCP", "targetPort": 1, "nodePort": 30001}],
        }});
        assert_eq!(added(ObjectKind::Service, &wanted, &live), None);
        let table: [(&str, Change); 3] = [
            ("spec.ports.[name=\"q\"]", |it| {
                it["ports"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "q", "port": 2}));
            }),
            ("spec.externalIPs", |it| {
                it["externalIPs"] = json!(["192.0.2.7"])
            }),
            ("spec.publishNotReadyAddresses", |it| {
                it["publishNotReadyAddresses"] = json!(true);
            }),
        ];
        for (path, change) in table {
            let mut more = live.clone();
            change(&mut more["spec"]);
            assert_eq!(
                added(ObjectKind::Service, &wanted, &more).as_deref(),
                Some(path)
            );
            let reduced = reduced(ObjectKind::Service, &wanted, &more);
            assert_eq!(added(ObjectKind::Service, &wanted, &reduced), None);
            let port = &reduced["spec"]["ports"][0];
            assert_eq!(port["nodePort"], 30001, "its node port is not given up");
            assert_eq!(reduced["spec"]["clusterIP"], live["spec"]["clusterIP"]);
        }
    }
}
