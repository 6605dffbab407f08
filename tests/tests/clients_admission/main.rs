//! Admission of the management cluster: the same webhooks for our server and for a
//! CustomResourceDefinition of the same schema in a kube-apiserver of its own. What they are
//! asked is the same, and so is what clients are answered (contract 7).
#![allow(clippy::disallowed_methods, reason = "tests")]

mod asking;
mod audited;
mod hook;
mod mutations;
mod quotas;
mod scenarios;
mod side;

use std::time::{Duration, Instant};

use hook::Webhook;
use serde_json::{Value, json};
use side::{Scenario, Side};
use tests::lab::{Lab, Level};
use tests::served::Served;

/// Both servers, and a webhook that both reach.
struct Pair {
    theirs: Side,
    ours: Side,
    webhook: Webhook,
    served: Served,
    other: Lab,
}

impl Pair {
    async fn start() -> Self {
        let other = Lab::start(Level::Api).await.unwrap();
        let crd = apiservice::crd::crd(apiservice::find("tenantcontrolplanes").unwrap()).unwrap();
        let path = other.directory().path().join("crd.json");
        std::fs::write(&path, serde_json::to_string(&crd).unwrap()).unwrap();
        other
            .kubectl(&["create", "-f", &path.display().to_string()])
            .unwrap();
        // A process of its own, so that it has a log.
        let served = Served::process().await;
        let (there, here) = (other.host_ip(), served.lab.host_ip());
        let webhook = Webhook::start(&[there, here]).await;
        let theirs = Side::new("theirs", other.client(), there.to_string());
        let ours = Side::new("ours", served.lab.client(), here.to_string());
        let started = Instant::now();
        for side in [&theirs, &ours] {
            while side.call(("GET", "", "", "")).await.code != 200 {
                assert!(
                    started.elapsed() < Duration::from_secs(60),
                    "the kind is not served"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Self {
            theirs,
            ours,
            webhook,
            served,
            other,
        }
    }

    /// What differs between the two in a scenario.
    ///
    /// kube-apiserver keeps its policies in a Go map and asks several of them in an order
    /// that it draws anew each time that one of them changes. Ours must answer as one of these
    /// orders does: one that is not found in 12 draws among two is none (1 in 4,096).
    async fn differences(&self, scenario: &Scenario) -> String {
        let draws = if scenario.changing.len() > 1 { 12 } else { 1 };
        let mut wrong = String::new();
        for _ in 0..draws {
            wrong = self.compared(scenario).await;
            if wrong.is_empty() {
                break;
            }
        }
        wrong
    }

    async fn compared(&self, scenario: &Scenario) -> String {
        let sides = [&self.theirs, &self.ours];
        let mut refused = String::new();
        let [theirs, ours] = sides.map(|side| side.configure(&self.webhook, scenario));
        let (theirs, ours) = tokio::join!(theirs, ours);
        for (side, configured) in sides.into_iter().zip([theirs, ours]) {
            if let Err(why) = configured {
                refused += &why;
            }
            side.asked(&self.webhook);
        }
        let mut wrong = String::new();
        // Nothing is learnt from a policy that is not there.
        let calls = scenario.calls.iter().filter(|_| refused.is_empty());
        for (at, call) in calls.enumerate() {
            let [theirs, ours] = sides;
            let (a, b) = tokio::join!(
                theirs.answer(scenario.user, *call),
                ours.answer(scenario.user, *call)
            );
            let mut told = side::difference("answer", &a, &b);
            if let Some(code) = scenario.codes.get(at)
                && a["code"] != *code
            {
                told.push(format!("not {code} as it has to be: {a}\n"));
            }
            let [mut a, mut b] = sides.map(|side| side.asked(&self.webhook));
            if scenario.unordered {
                a.sort_by_key(Value::to_string);
                b.sort_by_key(Value::to_string);
            }
            told.extend(side::difference("asked", &Value::from(a), &Value::from(b)));
            told.retain(|told| {
                let mut known = scenario.differ.iter();
                !known.any(|(path, _)| told.split('\n').next().is_some_and(|at| at.ends_with(path)))
            });
            if !told.is_empty() {
                let (method, path, ..) = call;
                wrong += &format!("{method} {path}\n  {}", told.join("  "));
            }
        }
        let [theirs, ours] = sides.map(|side| async move {
            side.clear(scenario).await;
            side.call(("DELETE", "", "", "")).await;
        });
        tokio::join!(theirs, ours);
        wrong += &refused;
        match wrong.is_empty() {
            true => wrong,
            false => format!("\n== {}\n{wrong}", scenario.name),
        }
    }
}

/// Reviews, answers and what is stored, beside a CRD: R5.29, R7.1, R7.2, R7.6, R7.8, R7.9,
/// R7.10, R7.11, R7.13; policies: R7.16, R7.17, R7.18.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_as_by_kube_apiserver() {
    let pair = Pair::start().await;
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut wrong = String::new();
    for scenario in scenarios::all().into_iter().chain(asking::all()) {
        if scenario.name.contains(&only) {
            wrong += &pair.differences(&scenario).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    nobody_waits_for_anothers_webhook(&pair).await;
    what_is_minted_is_admitted(&pair).await;
    audited::run(&pair).await;
    quotas::run(&pair).await;
}

/// R8.31: a request for a credential is admitted as a creation of the subresource.
async fn what_is_minted_is_admitted(pair: &Pair) {
    let (ours, webhook) = (&pair.ours, &pair.webhook);
    let rules = |subresource: &str| {
        json!([{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"],
            "resources": [format!("tenantcontrolplanes/{subresource}")]}])
    };
    let scenario = Scenario {
        mutating: vec![
            json!({"name": "a.example.com", "path": "view", "rules": rules("kubeconfig")}),
        ],
        validating: vec![
            json!({"name": "b.example.com", "path": "allow", "rules": rules("kubeconfig")}),
            json!({"name": "c.example.com", "path": "deny", "rules": rules("jointoken")}),
        ],
        ..Scenario::default()
    };
    let tenant = quotas::tenant("t");
    assert_eq!(
        ours.call(("POST", "", "application/json", &tenant))
            .await
            .code,
        201
    );
    ours.configure(webhook, &scenario).await.unwrap();
    ours.asked(webhook);
    let made = ours
        .call(("POST", "/t/kubeconfig?dryRun=All", "application/json", ""))
        .await;
    assert_eq!(
        (made.code, &made.body["spec"]["role"]),
        (201, &json!("view")),
        "{}",
        made.body
    );
    let asked = ours.asked(webhook);
    let roles: Vec<_> = asked
        .iter()
        .map(|asked| &asked["review"]["request"]["object"]["spec"]["role"])
        .collect();
    assert_eq!(roles, ["admin", "view"]);
    let request = &asked[0]["review"]["request"];
    assert_eq!(request["subResource"], "kubeconfig");
    assert_eq!(request["kind"]["kind"], "KubeconfigRequest");
    assert_eq!(request["name"], "t");
    let made = ours
        .call(("POST", "/t/jointoken?dryRun=All", "application/json", ""))
        .await;
    let words = "admission webhook \"c.example.com\" denied the request: we do not like it";
    assert_eq!((made.code, &made.body["message"]), (400, &json!(words)));
    ours.clear(&scenario).await;
    ours.call(("DELETE", "", "", "")).await;
}

/// A webhook may ask the server that asks it; and while one is slow, those whom it is not
/// asked about go on.
async fn nobody_waits_for_anothers_webhook(pair: &Pair) {
    let (ours, webhook) = (&pair.ours, &pair.webhook);
    webhook.asks(ours.client.clone());
    let slow = json!({"name": "slow.example.com", "path": "slow",
        "objectSelector": {"matchLabels": {"slow": "yes"}}});
    let scenario = Scenario {
        mutating: vec![json!({"name": "loop.example.com", "path": "loop"})],
        validating: vec![json!({"name": "loop.example.com", "path": "loop"}), slow],
        ..Scenario::default()
    };
    ours.configure(webhook, &scenario).await.unwrap();
    let create = |name: String, slow: bool| async move {
        let began = Instant::now();
        let mut body: Value = serde_json::from_str(&quotas::tenant(&name)).unwrap();
        if slow {
            body["metadata"]["labels"] = json!({"slow": "yes"});
        }
        let text = body.to_string();
        let answer = ours.call(("POST", "", "application/json", &text)).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
        began.elapsed()
    };
    let slow = (0..20).map(|n| create(format!("slow{n}"), true));
    let quick = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        create("quick".to_owned(), false).await
    };
    let (slow, quick) = tokio::join!(futures::future::join_all(slow), quick);
    assert!(quick < Duration::from_millis(1_500), "{quick:?}");
    assert!(
        slow.iter().all(|took| *took >= Duration::from_secs(3)),
        "{slow:?}"
    );
    ours.clear(&scenario).await;
    ours.call(("DELETE", "", "", "")).await;
}
