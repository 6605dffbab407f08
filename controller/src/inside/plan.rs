//! What has to be written in a tenant, out of what was found there. Without I/O, as
//! the plan for its outside.

use std::fmt;

use apiservice::names;
use serde_json::{Value, json};

use crate::inside::objects::{added_to_spec, is_ours, is_wholly_ours, title};
use crate::inside::wanted::{Cluster, How, Inside, Kept, checksum};
use crate::inside::{coredns, konnectivity, kube_proxy, kubeadm, rbac, serving_certificates};
use crate::tenant::drift;
use crate::tenant::world::InsideProblem;

/// What the objects in a tenant are made of.
#[derive(Clone, Debug)]
pub struct Basis {
    /// No control plane of it was ever Ready, and its API server may not have made its
    /// own objects yet. It is given what it needs to be of use, and the rest later.
    pub first: bool,
    /// Somebody had it begin with an empty database, where nobody has any rights yet.
    pub anew: bool,
    /// What nodes are told, once it is known.
    pub cluster: Option<Cluster>,
}

impl Basis {
    /// The same objects come out of both.
    pub fn is_same(&self, other: &Basis) -> bool {
        let of = |basis: &Basis| {
            let cluster = basis.cluster.clone()?;
            Some((
                cluster.tenant.metadata.generation,
                cluster.endpoint,
                cluster.agents,
                cluster.authority,
                cluster.registry,
                cluster.version,
                cluster.over_limit,
            ))
        };
        self.first == other.first && of(self) == of(other)
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is no object of this name.
    Create(Value),
    /// There is one with other fields.
    Apply {
        /// The object.
        object: Value,
        /// The first field that differs.
        field: String,
        /// It replaces pods that run as they are to, or changes what they read.
        rolls: bool,
    },
    /// There is one that is wholly ours and says something else: it is written whole, and
    /// nothing stays of what others have put there.
    Put {
        /// The object, with the version that was seen.
        object: Value,
        /// The first field that differs.
        field: String,
    },
    /// Somebody else's object is in the way: it differs in what cannot be changed.
    Blocked {
        /// What we want in its place.
        object: Value,
        /// The field.
        field: &'static str,
    },
    /// What differs cannot be changed: it is deleted and made anew.
    Replace {
        /// The new object.
        object: Value,
        /// The one that is deleted.
        uid: String,
        /// The field that differs.
        field: String,
    },
    /// Nobody asks for it any more.
    Delete {
        /// What.
        object: Value,
        /// The one that is meant.
        uid: String,
    },
}

/// What is kept in a tenant, in the order in which it can be created, and what of it
/// cannot be made.
pub fn wanted(basis: &Basis) -> (Vec<Kept>, Vec<InsideProblem>) {
    let mut problems = Vec::new();
    let seed = |value| Kept {
        value,
        how: How::Seed,
    };
    let mut all: Vec<Kept> = Vec::new();
    if basis.first {
        all.extend(rbac::default_roles().into_iter().map(seed));
    }
    let cluster = basis.cluster.as_ref().filter(|_| !basis.first);
    // Before all that a webhook of the tenant's can hold up: nobody is asked about these.
    all.extend(cluster.into_iter().flat_map(Cluster::refusals));
    all.extend(rbac::bindings().into_iter().map(Kept::whole));
    let Some(cluster) = cluster else {
        return (all, problems);
    };
    all.extend(kubeadm::objects(cluster, &mut problems));
    for (objects, is_wanted) in [
        (coredns::objects(cluster), cluster.core_dns().is_some()),
        (kube_proxy::objects(cluster), cluster.kube_proxy().is_some()),
        (
            konnectivity::objects(cluster),
            cluster.konnectivity().is_some(),
        ),
        (
            serving_certificates::rights().map(Kept::whole).into(),
            cluster.tenant.spec.approved_subnets().is_some(),
        ),
    ] {
        match is_wanted {
            true => all.extend(objects),
            false => all.extend(objects.into_iter().map(Kept::absent)),
        }
    }
    (all, problems)
}

/// The writes that make a tenant what it is to be. None if it is.
pub fn plan(inside: &Inside) -> Vec<Step> {
    inside.found.iter().filter_map(step).collect()
}

fn step((kept, live): &(Kept, Option<Value>)) -> Option<Step> {
    let Some(live) = live else {
        let made = || marked(kept.value.clone(), kept.how);
        return (kept.how != How::Absent).then(|| Step::Create(made()));
    };
    let uid = || {
        live["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let object = match kept.how {
        How::Seed => return None,
        How::Absent => {
            return is_ours(live).then(|| Step::Delete {
                object: kept.value.clone(),
                uid: uid(),
            });
        }
        How::Whole => kept.value.clone(),
        How::AtFirst(field) => with_theirs(kept.value.clone(), live, field),
        How::UntilEdited(field) if is_edited(live, field) => {
            with_theirs(kept.value.clone(), live, field)
        }
        How::UntilEdited(_) => marked(kept.value.clone(), kept.how),
    };
    // Server-side apply cannot take away what somebody else has put there, neither a field
    // nor an element of a list that it merges.
    if is_wholly_ours(&object) {
        let added = added_to_spec(&object, live).map(|field| format!("spec.{field}"));
        let field = added.or_else(|| drift::first(&object, live))?;
        let object = at_version(object, live);
        return Some(Step::Put { object, field });
    }
    let field = drift::first(&object, live)?;
    if let Some(field) = differs_for_good(&object, live) {
        // A binding has nothing in it that could be lost.
        let is_binding = object.get("roleRef").is_some();
        return Some(match is_binding || is_ours(live) {
            true => Step::Replace {
                object,
                uid: uid(),
                field: field.to_owned(),
            },
            false => Step::Blocked { object, field },
        });
    }
    let rolls = replaces_pods(&object, live) || rewrites(&object, live, kept.how);
    Some(Step::Apply {
        object: as_seen(object, live, kept.how),
        field,
        rolls,
    })
}

/// Whether pods that run are replaced for a reason that other tenants may have as well: not
/// because this tenant is reached elsewhere.
fn replaces_pods(object: &Value, live: &Value) -> bool {
    let template = |it: &Value| it["spec"]["template"].clone();
    let mark = format!(
        "/metadata/annotations/{}",
        names::ANNOTATION_CHECKSUM.replace('/', "~1")
    );
    let (wanted, there) = (template(object), template(live));
    let moved = wanted.pointer(&mark) != there.pointer(&mark);
    // A DaemonSet without nodes has none.
    let runs = live["status"]["desiredNumberScheduled"] != 0;
    let runs = runs && is_settled(live) == Some(true);
    runs && !moved && drift::first(&wanted, &there).is_some()
}

/// Whether the text changes that pods read.
fn rewrites(object: &Value, live: &Value, how: How) -> bool {
    matches!(how, How::UntilEdited(field) if object.pointer(field) != live.pointer(field))
}

/// With the version that was seen, where something of the tenant's own is written again:
/// what it has changed since is not lost.
fn as_seen(object: Value, live: &Value, how: How) -> Value {
    match how {
        How::AtFirst(_) | How::UntilEdited(_) => at_version(object, live),
        _ => object,
    }
}

/// To be written only if nobody has changed it since it was seen.
fn at_version(mut object: Value, live: &Value) -> Value {
    if let Some(version) = live["metadata"].get("resourceVersion") {
        object["metadata"]["resourceVersion"] = version.clone();
    }
    object
}

/// Whether all pods of a Deployment or DaemonSet are as it asks, and available. `None`
/// for other kinds.
pub fn is_settled(live: &Value) -> Option<bool> {
    let number = |path: &str| live.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let (wanted, updated, available) = match live["kind"].as_str()? {
        "Deployment" => (
            number("/spec/replicas"),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        ),
        "DaemonSet" => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => return None,
    };
    let seen = number("/status/observedGeneration") >= number("/metadata/generation");
    Some(seen && updated >= wanted && available >= wanted)
}

impl Step {
    /// What is written, or deleted.
    pub fn object(&self) -> &Value {
        match self {
            Step::Create(object)
            | Step::Apply { object, .. }
            | Step::Put { object, .. }
            | Step::Replace { object, .. }
            | Step::Blocked { object, .. }
            | Step::Delete { object, .. } => object,
        }
    }
}

/// With the checksum of the text that may be edited.
fn marked(mut object: Value, how: How) -> Value {
    if let How::UntilEdited(field) = how
        && let Some(text) = object.pointer(field).and_then(Value::as_str)
    {
        let sum = checksum(text);
        object["metadata"]["annotations"][names::ANNOTATION_CHECKSUM] = json!(sum);
    }
    object
}

/// Whether the text is not what we wrote, or was never ours.
fn is_edited(live: &Value, field: &str) -> bool {
    let mark = live["metadata"]["annotations"][names::ANNOTATION_CHECKSUM].as_str();
    let text = live.pointer(field).and_then(Value::as_str);
    mark.is_none() || text.map(checksum).as_deref() != mark
}

fn with_theirs(mut object: Value, live: &Value, field: &str) -> Value {
    if let (Some(ours), Some(theirs)) = (object.pointer_mut(field), live.pointer(field)) {
        *ours = theirs.clone();
    }
    object
}

/// The first field that differs and that the API refuses to change.
fn differs_for_good(object: &Value, live: &Value) -> Option<&'static str> {
    let fields: &[&str] = match object["kind"].as_str() {
        Some("RoleBinding" | "ClusterRoleBinding") => &["roleRef"],
        Some("Service") => &["spec.clusterIP", "spec.clusterIPs"],
        Some("Deployment" | "DaemonSet") => &["spec.selector"],
        _ => &[],
    };
    fields.iter().copied().find(|field| {
        let pointer = format!("/{}", field.replace('.', "/"));
        let name = field.rsplit('.').next().unwrap_or(field);
        let of = |it: &Value| it.pointer(&pointer).map(|part| json!({name: part}));
        let there = of(live).unwrap_or_default();
        of(object).is_some_and(|wanted| drift::first(&wanted, &there).is_some())
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create(object) => write!(f, "create {}", title(object)),
            Step::Apply { object, .. } => write!(f, "apply {}", title(object)),
            Step::Put { object, .. } => write!(f, "put {}", title(object)),
            Step::Replace { object, .. } => write!(f, "replace {}", title(object)),
            Step::Blocked { object, .. } => write!(f, "leave {}", title(object)),
            Step::Delete { object, .. } => write!(f, "delete {}", title(object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::held::held;
    use crate::inside::objects::path_of;
    use crate::tenant::testing::golden;
    use apiservice::endpoint::Endpoint;
    use apiservice::v1alpha1::{
        AddonImage, JsonPatch, Konnectivity, TenantControlPlane, TenantControlPlaneSpec,
        WritePermissions,
    };
    use std::sync::Arc;

    /// Before the first Ready.
    fn first() -> Basis {
        Basis {
            first: true,
            anew: false,
            cluster: None,
        }
    }

    /// A tenant that was Ready, with add-ons.
    fn later(change: impl FnOnce(&mut TenantControlPlaneSpec)) -> Basis {
        let mut tenant = TenantControlPlane::default();
        tenant.metadata.name = Some("tenant-1".to_owned());
        tenant.spec.kubernetes.version = "v1.36.3".to_owned();
        let addons = tenant.spec.addons.get_or_insert_default();
        addons.core_dns = Some(AddonImage::default());
        addons.kube_proxy = Some(AddonImage::default());
        addons.konnectivity = Some(Konnectivity::default());
        change(&mut tenant.spec);
        Basis {
            first: false,
            anew: false,
            cluster: Some(Cluster {
                tenant: Arc::new(tenant),
                endpoint: Endpoint::new("10.0.0.10", 6443),
                agents: Some(Endpoint::new("10.0.0.10", 8132)),
                authority: "an authority".to_owned(),
                registry: "registry.k8s.io".to_owned(),
                version: "v1.36.3".to_owned(),
                over_limit: false,
            }),
        }
    }

    /// A tenant's API.
    #[derive(Default)]
    struct Tenant(std::collections::BTreeMap<String, Value>);

    impl Tenant {
        /// Looks, plans and writes.
        fn pass(&mut self, basis: &Basis) -> Vec<String> {
            let found = wanted(basis).0.into_iter();
            let found = found.map(|kept| {
                let live = self.0.get(&title(&kept.value));
                let live = live.map(|live| held(&kept.value, live));
                (kept, live)
            });
            let steps = plan(&Inside {
                found: found.collect(),
            });
            for step in &steps {
                match step {
                    Step::Delete { object, .. } => drop(self.0.remove(&title(object))),
                    Step::Blocked { .. } => {}
                    step => {
                        let mut object = step.object().clone();
                        if matches!(step, Step::Apply { .. }) {
                            self.merge(&mut object);
                        }
                        object["metadata"]["uid"] = json!(format!("uid of {}", title(&object)));
                        self.0.insert(title(&object), object);
                    }
                }
            }
            steps.iter().map(ToString::to_string).collect()
        }

        /// As server-side apply does it: what others have added to these lists stays.
        fn merge(&self, object: &mut Value) {
            let live = &self.0[&title(object)]["spec"];
            for (list, key) in [("matchConditions", "/name"), ("validationActions", "")] {
                let Some(ours) = object["spec"].get_mut(list).and_then(Value::as_array_mut) else {
                    continue;
                };
                for theirs in live[list].as_array().into_iter().flatten() {
                    if !ours.iter().any(|it| it.pointer(key) == theirs.pointer(key)) {
                        ours.push(theirs.clone());
                    }
                }
            }
        }

        fn live(&mut self, name: &str) -> &mut Value {
            self.0.get_mut(name).unwrap()
        }
    }

    const NOTHING: [String; 0] = [];

    #[test]
    fn a_first_start_writes_what_makes_it_of_use_and_the_rest_later() {
        let mut tenant = Tenant::default();
        let mut text = tenant.pass(&first());
        assert_eq!(tenant.pass(&first()), NOTHING);
        text.push("then".to_owned());
        text.extend(tenant.pass(&later(|_| {})));
        assert_eq!(tenant.pass(&later(|_| {})), NOTHING);
        for object in tenant.0.values() {
            text.push("---".to_owned());
            text.push(serde_json::to_string_pretty(object).unwrap());
            assert!(path_of(object).is_some(), "{object}");
        }
        golden("inside", &(text.join("\n") + "\n"));
    }

    #[test]
    fn default_roles_are_the_tenants_once_they_are_there() {
        let mut tenant = Tenant::default();
        tenant.pass(&first());
        // The tenant's controller manager puts it together out of others.
        tenant.live("ClusterRole view")["rules"] = json!([]);
        assert_eq!(tenant.pass(&first()), NOTHING);
        // Later they are nobody's business.
        let steps = Tenant::default().pass(&later(|_| {}));
        assert!(!steps.contains(&"create ClusterRole view".to_owned()));
        assert!(steps.contains(&"create ClusterRole cluster-admin".to_owned()));
    }

    #[test]
    fn what_is_changed_or_missing_is_put_right() {
        let basis = later(|_| {});
        let mut tenant = Tenant::default();
        tenant.pass(&basis);
        let admin = "ClusterRoleBinding steward:admin";
        tenant.live(admin)["subjects"] = json!([]);
        assert_eq!(tenant.pass(&basis), [format!("apply {admin}")]);
        // Made anew by somebody, without our label.
        tenant.live(admin)["roleRef"]["name"] = json!("view");
        tenant.live(admin)["metadata"]["labels"] = json!({});
        assert_eq!(tenant.pass(&basis), [format!("replace {admin}")]);
        tenant.0.remove(admin);
        assert_eq!(tenant.pass(&basis), [format!("create {admin}")]);
        // What others add is theirs, the signatures of tokens among it.
        tenant.live(admin)["metadata"]["annotations"] = json!({"note": "x"});
        tenant.live("ConfigMap kube-public/cluster-info")["data"]["jws-kubeconfig-abcdef"] =
            json!("signed");
        assert_eq!(tenant.pass(&basis), NOTHING);
    }

    #[test]
    fn another_endpoint_or_authority_reaches_whoever_joins() {
        let mut tenant = Tenant::default();
        let mut basis = later(|_| {});
        tenant.pass(&basis);
        let before = basis.clone();
        basis.cluster.as_mut().unwrap().endpoint = "api.example.org:443".parse().unwrap();
        assert!(!basis.is_same(&before));
        assert_eq!(
            tenant.pass(&basis),
            [
                "apply ConfigMap kube-public/cluster-info",
                "apply ConfigMap kube-system/kubeadm-config",
                "apply ConfigMap kube-system/kube-proxy",
                "apply DaemonSet kube-system/kube-proxy",
                "apply DaemonSet kube-system/konnectivity-agent",
            ]
        );
        basis.cluster.as_mut().unwrap().authority = "another".to_owned();
        let steps = tenant.pass(&basis);
        assert_eq!(steps, ["apply ConfigMap kube-public/cluster-info"]);
    }

    #[test]
    fn add_ons_come_and_go_with_their_field() {
        let mut tenant = Tenant::default();
        tenant.pass(&later(|_| {}));
        // Somebody else's is left alone.
        let theirs = &mut tenant.live("ServiceAccount kube-system/coredns")["metadata"];
        theirs["labels"] = json!({});
        let without = later(|spec| {
            spec.addons.as_mut().unwrap().core_dns = None;
        });
        assert_eq!(
            tenant.pass(&without),
            [
                "delete ClusterRole system:coredns",
                "delete ClusterRoleBinding system:coredns",
                "delete ConfigMap kube-system/coredns",
                "delete Service kube-system/kube-dns",
                "delete Deployment kube-system/coredns",
            ]
        );
        assert_eq!(tenant.pass(&without), NOTHING);
        let other = later(|spec| {
            let addons = spec.addons.as_mut().unwrap();
            let image = addons.kube_proxy.as_mut().unwrap();
            // Without a repository as well.
            image.image_tag = Some("v1.36.9".to_owned());
        });
        tenant.pass(&other);
        let set = tenant.live("DaemonSet kube-system/kube-proxy");
        assert_eq!(
            set["spec"]["template"]["spec"]["containers"][0]["image"],
            "registry.k8s.io/kube-proxy:v1.36.9"
        );
    }

    #[test]
    fn a_tenant_beyond_its_limit_refuses_creations_until_it_is_not() {
        let mut tenant = Tenant::default();
        let within = later(|_| {});
        tenant.pass(&within);
        let mut beyond = within.clone();
        beyond.cluster.as_mut().unwrap().over_limit = true;
        assert!(!beyond.is_same(&within), "it is looked into at once");
        let policy = "ValidatingAdmissionPolicy steward-write-permissions";
        let binding = "ValidatingAdmissionPolicyBinding steward-write-permissions";
        assert_eq!(
            tenant.pass(&beyond),
            [format!("create {policy}"), format!("create {binding}")]
        );
        // Somebody asks for it as well, and for more.
        let asked = &mut Arc::make_mut(&mut beyond.cluster.as_mut().unwrap().tenant).spec;
        asked.write_permissions.get_or_insert_default().block_update = true;
        assert_eq!(tenant.pass(&beyond), [format!("put {policy}")]);
        beyond.cluster.as_mut().unwrap().over_limit = false;
        tenant.pass(&beyond);
        let rules = &tenant.live(policy)["spec"]["matchConstraints"]["resourceRules"];
        assert_eq!(rules[0]["operations"], json!(["UPDATE"]));
        assert_eq!(
            tenant.pass(&within),
            [format!("delete {policy}"), format!("delete {binding}")]
        );
    }

    #[test]
    fn refusing_writes_comes_and_goes_with_its_field() {
        let blocking = |change: fn(&mut WritePermissions)| {
            later(|spec| change(spec.write_permissions.get_or_insert_default()))
        };
        let policy = "ValidatingAdmissionPolicy steward-write-permissions";
        let binding = "ValidatingAdmissionPolicyBinding steward-write-permissions";
        let mut tenant = Tenant::default();
        tenant.pass(&later(|_| {}));
        let creation = blocking(|it| it.block_creation = true);
        assert_eq!(
            tenant.pass(&creation),
            [format!("create {policy}"), format!("create {binding}")]
        );
        let text = |live: &Value| serde_json::to_string_pretty(live).unwrap();
        let both = [text(tenant.live(policy)), text(tenant.live(binding))];
        golden("write_permissions", &(both.join("\n---\n") + "\n"));
        assert_eq!(tenant.pass(&creation), NOTHING);
        // What somebody makes weaker is put right.
        tenant.live(binding)["spec"]["validationActions"] = json!(["Audit"]);
        assert_eq!(tenant.pass(&creation), [format!("put {binding}")]);
        assert_eq!(tenant.pass(&creation), NOTHING);
        for (object, field, weaker) in [
            (policy, "/matchConstraints/excludeResourceRules", json!([])),
            (
                policy,
                "/matchConstraints/objectSelector/matchLabels",
                json!({"a": "b"}),
            ),
            (
                policy,
                "/matchConstraints/resourceRules/0/resourceNames",
                json!(["x"]),
            ),
            (
                policy,
                "/matchConditions",
                json!([{"name": "a", "expression": "false"}]),
            ),
            (
                binding,
                "/matchResources/namespaceSelector/matchLabels",
                json!({"a": "b"}),
            ),
            (
                binding,
                "/matchResources/objectSelector/matchExpressions",
                json!([{"key": "a"}]),
            ),
            (binding, "/matchResources/excludeResourceRules", json!([{}])),
        ] {
            *tenant.live(object)["spec"].pointer_mut(field).unwrap() = weaker;
            assert_eq!(tenant.pass(&creation), [format!("put {object}")], "{field}");
        }
        // An element that nobody but them has: apply would leave it, as it does with fields.
        let conditions = &mut tenant.live(policy)["spec"]["matchConditions"];
        let never = json!({"name": "x", "expression": "false"});
        conditions.as_array_mut().unwrap().push(never);
        assert_eq!(tenant.pass(&creation), [format!("put {policy}")]);
        assert_eq!(tenant.pass(&creation), NOTHING);
        for (object, field) in [
            (policy, "paramKind"),
            (policy, "variables"),
            (binding, "paramRef"),
        ] {
            tenant.live(object)["spec"][field] = json!({"name": "none"});
            assert_eq!(tenant.pass(&creation), [format!("put {object}")], "{field}");
        }
        // What was seen, and nothing that somebody has written since.
        tenant.live(policy)["metadata"]["resourceVersion"] = json!("7");
        tenant.live(policy)["spec"]["failurePolicy"] = json!("Ignore");
        tenant.pass(&creation);
        assert_eq!(
            tenant.live(policy)["metadata"]["resourceVersion"],
            json!("7")
        );
        // Before what the tenant's own webhooks can hold up.
        let titles = wanted(&creation).0.into_iter();
        let titles: Vec<String> = titles.map(|kept| title(&kept.value)).take(2).collect();
        assert_eq!(titles, [policy, binding]);
        let all = blocking(|it| (it.block_creation, it.block_deletion) = (true, true));
        assert_eq!(tenant.pass(&all), [format!("put {policy}")]);
        let none = blocking(|_| {});
        let gone = [format!("delete {policy}"), format!("delete {binding}")];
        assert_eq!(tenant.pass(&none), gone);
    }

    #[test]
    fn agents_run_as_the_spec_says_and_in_one_way_only() {
        use apiservice::v1alpha1::KonnectivityAgentMode;
        let with = |change: fn(&mut Konnectivity)| {
            later(|spec| change(spec.addons.as_mut().unwrap().konnectivity.as_mut().unwrap()))
        };
        let mut tenant = Tenant::default();
        tenant.pass(&with(|_| {}));
        let on_host = with(|tunnel| tunnel.agent.host_network = true);
        let set = "DaemonSet kube-system/konnectivity-agent";
        let deployment = "Deployment kube-system/konnectivity-agent";
        assert_eq!(tenant.pass(&on_host), [format!("apply {set}")]);
        // What is taken out of the spec is taken back.
        assert_eq!(tenant.pass(&with(|_| {})), [format!("apply {set}")]);
        let few = with(|tunnel| tunnel.agent.mode = KonnectivityAgentMode::Deployment);
        assert_eq!(
            tenant.pass(&few),
            [format!("create {deployment}"), format!("delete {set}")]
        );
        // The number is the tenant's unless the spec names one.
        tenant.live(deployment)["spec"]["replicas"] = json!(5);
        assert_eq!(tenant.pass(&few), NOTHING);
        let three = with(|tunnel| {
            tunnel.agent.mode = KonnectivityAgentMode::Deployment;
            tunnel.agent.replicas = Some(3);
        });
        assert_eq!(tenant.pass(&three), [format!("apply {deployment}")]);
        let port = with(|tunnel| tunnel.server.port = 9000);
        assert_eq!(
            tenant.pass(&port),
            [format!("create {set}"), format!("delete {deployment}")]
        );
        let without = later(|spec| spec.addons.as_mut().unwrap().konnectivity = None);
        assert_eq!(
            tenant.pass(&without),
            [
                "delete ServiceAccount kube-system/konnectivity-agent",
                "delete ClusterRoleBinding system:konnectivity-server",
                "delete Role kube-system/system:konnectivity-server",
                "delete RoleBinding kube-system/system:konnectivity-server",
                "delete Role kube-system/system:konnectivity-agent",
                "delete RoleBinding kube-system/system:konnectivity-agent",
                "delete DaemonSet kube-system/konnectivity-agent",
            ]
        );
        assert_eq!(tenant.pass(&without), NOTHING);
    }

    #[test]
    fn rights_to_approve_come_and_go_with_the_wish() {
        let mut tenant = Tenant::default();
        tenant.pass(&later(|_| {}));
        let asked = later(|spec| {
            spec.kubernetes.kubelet.serving_certificates = Some(Default::default());
        });
        assert_eq!(
            tenant.pass(&asked),
            [
                "apply ConfigMap kube-system/kubelet-config",
                "create ClusterRole steward:serving-certificates",
                "create ClusterRoleBinding steward:serving-certificates",
            ]
        );
        assert_eq!(
            tenant.pass(&later(|_| {})),
            [
                "apply ConfigMap kube-system/kubelet-config",
                "delete ClusterRole steward:serving-certificates",
                "delete ClusterRoleBinding steward:serving-certificates",
            ]
        );
        // As Talos asks for it.
        let talos = later(|spec| {
            let addons = spec.addons.get_or_insert_default();
            addons.worker_bootstrap = Some(Default::default());
        });
        assert_eq!(tenant.pass(&talos).len(), 2);
    }

    #[test]
    fn what_the_tenant_made_its_own_stays() {
        let mut tenant = Tenant::default();
        tenant.pass(&later(|_| {}));
        let ranges = later(|spec| spec.network_profile.pod_cidr = "10.1.0.0/16".to_owned());
        assert_eq!(
            tenant.pass(&ranges),
            [
                "apply ConfigMap kube-system/kubeadm-config",
                "apply ConfigMap kube-system/kube-proxy",
            ],
            "nobody has changed it"
        );
        tenant.live("Deployment kube-system/coredns")["spec"]["replicas"] = json!(5);
        tenant.live("ConfigMap kube-system/coredns")["data"]["Corefile"] = json!(". {}");
        let config = &mut tenant.live("ConfigMap kube-system/kube-proxy")["data"];
        config["config.conf"] = json!("mode: nftables");
        assert_eq!(tenant.pass(&ranges), NOTHING);
        let mut moved = later(|_| {});
        moved.cluster.as_mut().unwrap().endpoint = "api.example.org:443".parse().unwrap();
        tenant.pass(&moved);
        let config = &tenant.live("ConfigMap kube-system/kube-proxy")["data"];
        assert_eq!(config["config.conf"], "mode: nftables");
        let kubeconfig = config["kubeconfig.conf"].as_str().unwrap();
        assert!(kubeconfig.contains("api.example.org"), "{kubeconfig}");
    }

    #[test]
    fn another_dns_address_replaces_the_service() {
        let mut tenant = Tenant::default();
        tenant.pass(&later(|_| {}));
        let other = later(|spec| {
            spec.network_profile.dns_service_ips = vec!["10.96.0.77".to_owned()];
        });
        assert_eq!(
            tenant.pass(&other),
            [
                "apply ConfigMap kube-system/kubelet-config",
                "replace Service kube-system/kube-dns",
            ]
        );
        // Of somebody else's nothing is taken away.
        let dns = "Service kube-system/kube-dns";
        tenant.live(dns)["metadata"]["labels"] = json!({});
        tenant.live(dns)["spec"]["clusterIP"] = json!("10.96.0.9");
        assert_eq!(tenant.pass(&other), [format!("leave {dns}")]);
    }

    #[test]
    fn patches_of_the_kubelets_configuration_are_carried_out_or_told() {
        let patched = |patches: Value| {
            let basis = later(|spec| {
                let patches: Vec<JsonPatch> = serde_json::from_value(patches).unwrap();
                spec.kubernetes.kubelet.configuration_json_patches = patches;
            });
            let config = kubeadm::kubelet(basis.cluster.as_ref().unwrap());
            let (kept, problems) = wanted(&basis);
            let has = kept
                .iter()
                .any(|kept| title(&kept.value) == "ConfigMap kube-system/kubelet-config");
            // What was there before stays.
            assert_eq!(has, config.is_ok());
            assert_eq!(problems.len(), usize::from(!has));
            config
        };
        let config = patched(json!([
            {"op": "replace", "path": "/cgroupDriver", "value": "cgroupfs"},
            {"op": "add", "path": "/serverTLSBootstrap", "value": true},
        ]));
        let config = config.unwrap();
        assert_eq!(config["cgroupDriver"], "cgroupfs");
        assert_eq!(config["serverTLSBootstrap"], true);
        let refused = patched(json!([{"op": "remove", "path": "/nothing"}])).unwrap_err();
        assert!(refused.starts_with("operation 0: "), "{refused}");
        // It doubles with each.
        let double: Vec<Value> = (0..60)
            .map(|_| json!({"op": "copy", "from": "", "path": "/a"}))
            .collect();
        let refused = patched(json!(double)).unwrap_err();
        assert!(
            refused.contains("levels") || refused.contains("bytes"),
            "{refused}"
        );
    }

    #[test]
    fn add_ons_follow_the_control_plane() {
        let mut tenant = Tenant::default();
        let mut basis = later(|_| {});
        tenant.pass(&basis);
        let cluster = basis.cluster.as_mut().unwrap();
        Arc::make_mut(&mut cluster.tenant).spec.kubernetes.version = "v1.37.0".to_owned();
        assert_eq!(tenant.pass(&basis), NOTHING, "the one of before serves");
        basis.cluster.as_mut().unwrap().version = "v1.37.0".to_owned();
        assert_eq!(
            tenant.pass(&basis),
            [
                "apply ConfigMap kube-system/kubeadm-config",
                "apply DaemonSet kube-system/kube-proxy",
            ]
        );
    }

    #[test]
    fn pods_that_run_are_told_from_those_that_do_not() {
        let set = |available: i64| {
            json!({
                "kind": "DaemonSet",
                "metadata": {"generation": 3},
                "status": {
                    "observedGeneration": 3,
                    "desiredNumberScheduled": 2,
                    "updatedNumberScheduled": 2,
                    "numberAvailable": available,
                },
            })
        };
        assert_eq!(is_settled(&set(2)), Some(true));
        assert_eq!(is_settled(&set(1)), Some(false));
        assert_eq!(is_settled(&json!({"kind": "Role"})), None);
        let rolls = |live: &Value| {
            let basis = later(|_| {});
            let mut all = wanted(&basis).0.into_iter();
            let name = "DaemonSet kube-system/kube-proxy";
            let set = all.find(|kept| title(&kept.value) == name).unwrap();
            let mut there = set.value.clone();
            let image = &mut there["spec"]["template"]["spec"]["containers"][0]["image"];
            *image = json!("other");
            there["metadata"]["generation"] = json!(3);
            // Something else differs as well, and before it.
            there["metadata"]["labels"] = json!({});
            there["status"] = live["status"].clone();
            let found = vec![(set, Some(there))];
            let steps = plan(&Inside { found });
            matches!(&steps[..], [Step::Apply { rolls: true, .. }])
        };
        assert!(rolls(&set(2)));
        assert!(!rolls(&set(1)), "it takes nothing away");
    }
}
