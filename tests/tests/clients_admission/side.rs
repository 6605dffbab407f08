//! One of the two servers, and what is done with both.

use std::time::{Duration, Instant};

use http::Request;
use kube::client::Body;
use regex::Regex;
use serde_json::{Value, json};

use crate::hook::Webhook;

pub const GROUP: &str = "steward.butlerlabs.dev";
pub const COLLECTION: &str =
    "/apis/steward.butlerlabs.dev/v1alpha1/namespaces/default/tenantcontrolplanes";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Method, what follows the path of the collection (or a whole path), Content-Type, body.
pub type Call = (&'static str, &'static str, &'static str, &'static str);

/// See the module.
pub struct Side {
    pub name: &'static str,
    pub client: kube::Client,
    /// Where it reaches the webhook.
    pub host: String,
    normal: Vec<(Regex, &'static str)>,
}

/// What became of a call.
pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

impl Side {
    pub fn new(name: &'static str, client: kube::Client, host: String) -> Self {
        let rules = [
            (
                r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                "UID",
            ),
            (r#"(resourceVersion[\\":]+)\d+"#, "${1}REVISION"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
            (r#",\\*"time\\*":\\*"TIME\\*""#, ""),
            (r"\bg-[a-z0-9]{5}\b", "g-RANDOM"),
            (r"X509SHA256=[0-9a-f]+", "CREDENTIAL"),
            (r"https://[0-9.]+:\d+/(ours|theirs)/", "https://HOST/"),
            (r"dial tcp [0-9.]+:", "dial tcp HOST:"),
            (r"https://[0-9.]+:1/", "https://HOST/"),
            (r#""continue":"","#, ""),
            // What a decoder says.
            (
                r#"json parse error: (\\.|[^"\\])*"#,
                "json parse error: WHY",
            ),
        ];
        Self {
            name,
            client,
            host,
            normal: rules
                .map(|(rule, with)| (Regex::new(rule).unwrap(), with))
                .into(),
        }
    }

    pub async fn call(&self, call: (&str, &str, &str, &str)) -> Answer {
        self.call_as("", call).await
    }

    /// The same as another user, unless none is named.
    async fn call_as(
        &self,
        user: &str,
        (method, path, media, body): (&str, &str, &str, &str),
    ) -> Answer {
        let path = match path.starts_with("/apis") || path.starts_with("/api/") {
            true => path.to_owned(),
            false => format!("{COLLECTION}{path}"),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("user-agent", "tester/1.0 (x)")
            .header("content-type", media);
        if !user.is_empty() {
            request = request.header("impersonate-user", user);
        }
        let request = request.body(Body::from(body.as_bytes().to_vec()));
        let response = self.client.send(request.unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|text| format!("{text:?}")).collect();
        let body = response.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Answer {
            code,
            warnings,
            body,
        }
    }

    /// Code, warnings and body, without what no two servers have in common.
    pub async fn answer(&self, user: &str, call: Call) -> Value {
        let mut answer = self.call_as(user, call).await;
        settle(&mut answer.body);
        self.normal(json!({
            "code": answer.code, "warnings": answer.warnings, "body": answer.body,
        }))
    }

    pub fn normal(&self, value: Value) -> Value {
        let mut text = value.to_string();
        for (rule, with) in &self.normal {
            text = rule.replace_all(&text, *with).into_owned();
        }
        serde_json::from_str(&text).unwrap()
    }

    /// What the webhook was asked, without what no two servers have in common.
    pub fn asked(&self, webhook: &Webhook) -> Vec<Value> {
        let asked = webhook.take(self.name).into_iter();
        asked
            .map(|(path, mut review)| {
                for object in ["object", "oldObject"] {
                    settle(&mut review["request"][object]);
                }
                self.normal(json!({"path": path, "review": review}))
            })
            .collect()
    }

    /// Puts configurations in force, each with a webhook or a policy more that says so.
    ///
    /// # Errors
    /// For a policy that the cluster does not take.
    pub async fn configure(&self, webhook: &Webhook, scenario: &Scenario) -> Result<(), String> {
        for (kind, hooks) in [
            ("Mutating", &scenario.mutating),
            ("Validating", &scenario.validating),
        ] {
            if hooks.is_empty() {
                continue;
            }
            let ready = format!("ready-{}", kind.to_lowercase());
            let marker = json!({
                "name": format!("{ready}.example.com"), "path": ready,
                "objectSelector": {"matchLabels": {"marker": ready}},
            });
            let all = [&marker].into_iter().chain(hooks);
            let all: Vec<Value> = all.map(|hook| self.hook(webhook, hook)).collect();
            let config = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": format!("{kind}WebhookConfiguration"),
                "metadata": {"name": "test"}, "webhooks": all,
            });
            let path = format!("{ADMISSION}/{}webhookconfigurations", kind.to_lowercase());
            let made = self
                .call(("POST", &path, "application/json", &config.to_string()))
                .await;
            assert_eq!(made.code, 201, "{}: {}", self.name, made.body);
            self.wait(&ready, true).await;
        }
        if !scenario.policies.is_empty() || !scenario.changing.is_empty() {
            for call in scenario.setup {
                self.call(*call).await;
            }
        }
        for judge in Judge::ALL {
            let said = judge.of(scenario);
            if said.is_empty() {
                continue;
            }
            let marker = judge.marker();
            // The last ones: when they are in force, so are those before.
            let all = said.iter().chain([&marker]).enumerate();
            for (at, said) in all {
                for (kind, object) in policy(judge, at, said) {
                    let path = format!("{ADMISSION}/{kind}");
                    let text = object.to_string();
                    let made = self.call(("POST", &path, "application/json", &text)).await;
                    if made.code != 201 {
                        return Err(format!("{}: {}", self.name, made.body));
                    }
                }
            }
            self.wait(judge.ready(), true).await;
        }
        Ok(())
    }

    /// A webhook with all that is not said of it.
    fn hook(&self, webhook: &Webhook, said: &Value) -> Value {
        let mut hook = json!({
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
            // Not about what asks whether they are in force.
            "objectSelector": {"matchExpressions": [{"key": "marker", "operator": "DoesNotExist"}]},
            "rules": [{"operations": ["*"], "apiGroups": [GROUP], "apiVersions": ["*"],
                "resources": ["tenantcontrolplanes", "tenantcontrolplanes/*"]}],
        });
        let bundle = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            webhook.authority.as_bytes(),
        );
        let path = said["path"].as_str().unwrap();
        let url = match path {
            "dead" => format!("https://{}:1/dead", self.host),
            path => format!(
                "https://{}:{}/{}/{path}",
                self.host, webhook.port, self.name
            ),
        };
        hook["clientConfig"] = json!({"url": url, "caBundle": bundle});
        for (key, value) in said.as_object().unwrap() {
            if key != "path" {
                hook[key] = value.clone();
            }
        }
        hook
    }

    /// Waits until a configuration is in force, or is not any more.
    async fn wait(&self, ready: &str, wanted: bool) {
        let probe = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": {"name": "probe", "labels": {"marker": ready, "team": "none"}},
            "spec": {"dataStore": "default", "kubernetes": {"version": "v1.36.3", "kubelet": {"preferredAddressTypes": ["InternalIP"]}},
                "controlPlane": {"deployment": {"replicas": 2}, "service": {"serviceType": "ClusterIP"}}},
        })
        .to_string();
        let began = Instant::now();
        loop {
            let said = self
                .call(("POST", "?dryRun=All", "application/json", &probe))
                .await;
            let message = said.body["message"].as_str().unwrap_or("");
            if message.contains(&format!("denied the request: {ready}")) == wanted {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}: {message}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes the configurations back.
    pub async fn clear(&self, scenario: &Scenario) {
        for (kind, hooks) in [
            ("mutating", &scenario.mutating),
            ("validating", &scenario.validating),
        ] {
            if !hooks.is_empty() {
                let path = format!("{ADMISSION}/{kind}webhookconfigurations/test");
                self.call(("DELETE", &path, "", "")).await;
                self.wait(&format!("ready-{kind}"), false).await;
            }
        }
        for judge in Judge::ALL {
            let said = judge.of(scenario);
            if said.is_empty() {
                continue;
            }
            for at in (0..=said.len()).rev() {
                for kind in judge.plurals() {
                    let path = format!("{ADMISSION}/{kind}/test-{at}");
                    self.call(("DELETE", &path, "", "")).await;
                }
            }
            // What was asked last is gone last.
            self.wait(judge.ready(), false).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The two kinds of policies.
#[derive(Clone, Copy)]
enum Judge {
    Mutating,
    Validating,
}

impl Judge {
    const ALL: [Self; 2] = [Self::Mutating, Self::Validating];

    fn of(self, scenario: &Scenario) -> &[Value] {
        match self {
            Self::Mutating => &scenario.changing,
            Self::Validating => &scenario.policies,
        }
    }

    /// Of bindings and of policies.
    fn plurals(self) -> [&'static str; 2] {
        match self {
            Self::Mutating => [
                "mutatingadmissionpolicybindings",
                "mutatingadmissionpolicies",
            ],
            Self::Validating => [
                "validatingadmissionpolicybindings",
                "validatingadmissionpolicies",
            ],
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingAdmissionPolicy",
            Self::Validating => "ValidatingAdmissionPolicy",
        }
    }

    fn ready(self) -> &'static str {
        match self {
            Self::Mutating => "ready-changing",
            Self::Validating => "ready-policies",
        }
    }

    /// One that says that it is in force.
    fn marker(self) -> Value {
        let ready = self.ready();
        let mut marker = match self {
            Self::Mutating => json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {
                "expression": format!("[JSONPatch{{op: 'remove', path: '/denied the request: {ready}'}}]")}}]}),
            Self::Validating => json!({
                "validations": [{"expression": "false", "message": format!("denied the request: {ready}")}]}),
        };
        marker["objectSelector"] = json!({"matchLabels": {"marker": ready}});
        marker
    }
}

/// A policy and its binding, with all that is not said of them.
fn policy(judge: Judge, at: usize, said: &Value) -> [(&'static str, Value); 2] {
    let mut spec = said.clone();
    let binding = spec.as_object_mut().unwrap().remove("binding");
    let selector = spec.as_object_mut().unwrap().remove("objectSelector");
    let others = json!({"matchExpressions": [{"key": "marker", "operator": "DoesNotExist"}]});
    if spec.get("matchConstraints").is_none() {
        spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"], "apiGroups": [GROUP],
            "apiVersions": ["*"], "resources": ["tenantcontrolplanes", "tenantcontrolplanes/*"]}]});
    }
    spec["matchConstraints"]["objectSelector"] = selector.unwrap_or(others);
    let nothing = match judge {
        Judge::Mutating => json!({}),
        Judge::Validating => json!({"validationActions": ["Deny"]}),
    };
    if let Judge::Mutating = judge
        && spec.get("reinvocationPolicy").is_none()
    {
        spec["reinvocationPolicy"] = "Never".into();
    }
    let mut binding = binding.unwrap_or(nothing);
    binding["policyName"] = format!("test-{at}").into();
    let object = |kind: String, spec: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": format!("test-{at}")}, "spec": spec})
    };
    let [bindings, policies] = judge.plurals();
    [
        (policies, object(judge.kind().to_owned(), spec)),
        (
            bindings,
            object(format!("{}Binding", judge.kind()), binding),
        ),
    ]
}

/// Where two values differ: the path, and both.
pub fn difference(path: &str, one: &Value, other: &Value) -> Vec<String> {
    let keys = |value: &Value| -> Vec<String> {
        match value {
            Value::Object(map) => map.keys().cloned().collect(),
            _ => Vec::new(),
        }
    };
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let mut all = keys(one);
            all.extend(keys(other));
            all.sort();
            all.dedup();
            let null = Value::Null;
            let below = all.iter().map(|key| {
                let (a, b) = (a.get(key), b.get(key));
                let (a, b) = (a.unwrap_or(&null), b.unwrap_or(&null));
                difference(&format!("{path}.{key}"), a, b)
            });
            below.flatten().collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let below = a.iter().zip(b).enumerate();
            let below = below.map(|(at, (a, b))| difference(&format!("{path}[{at}]"), a, b));
            below.flatten().collect()
        }
        (a, b) if a == b => Vec::new(),
        (a, b) => vec![format!("{path}\n    CRD  | {a}\n    ours | {b}\n")],
    }
}

/// Times of managers differ, and with them their order.
fn settle(object: &mut Value) {
    if let Some(managers) = object["metadata"]
        .get_mut("managedFields")
        .and_then(Value::as_array_mut)
    {
        for manager in managers.iter_mut() {
            if let Some(manager) = manager.as_object_mut() {
                manager.remove("time");
            }
        }
        managers.sort_by_key(Value::to_string);
    }
}

/// Webhooks, and what is asked while they are there. What is not said of a webhook is
/// filled in; `path` is what it does.
#[derive(Default)]
pub struct Scenario {
    pub name: &'static str,
    pub mutating: Vec<Value>,
    pub validating: Vec<Value>,
    /// Policies that validate, each with its binding.
    pub policies: Vec<Value>,
    /// Policies that change objects, each with its binding.
    pub changing: Vec<Value>,
    /// What is made before these, on both sides; it stays.
    pub setup: &'static [Call],
    pub calls: &'static [Call],
    /// Who calls, if not the administrator.
    pub user: &'static str,
    /// What is answered to the first calls, where that has to be told from an accident.
    pub codes: &'static [u16],
    /// Whether the order in which they are asked is not said.
    pub unordered: bool,
    /// Where the two differ, and why.
    pub differ: &'static [(&'static str, &'static str)],
}
