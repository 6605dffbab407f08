use serde_json::{Value, json};

use super::*;
use crate::registry::tests::harness::{Answer, Call, World};

/// A registry and what chooses for it.
struct Moves {
    world: World,
    chooser: Chooser,
}

impl Moves {
    /// The tenant `t` has its data in DataStore `a`; `b` has more room than `c`.
    async fn new() -> Self {
        let world = World::memory().await;
        let moves = Moves {
            world,
            chooser: Chooser::default(),
        };
        for (name, tenants) in [("a", 5), ("b", 0), ("c", 2)] {
            moves.store(name, tenants).await;
        }
        moves.tenant("t").await;
        moves
    }

    async fn tenant(&self, name: &str) {
        self.world.tenant(name).await;
        let storage = json!({"dataStoreName": "a", "setup": {"schema": format!("n_{name}")}});
        self.says(name, json!({"storage": storage})).await;
    }

    async fn store(&self, name: &str, tenants: usize) {
        let store = json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1", "kind": "DataStore",
            "metadata": {"name": name},
            "spec": {
                "driver": "PostgreSQL", "endpoints": ["db:5432"],
                "basicAuth": {"username": {"content": "eA=="}, "password": {"content": "eA=="}},
            },
        });
        let made = self.world.create(Call::stores("").body(store)).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let used_by: Vec<String> = (0..tenants).map(|n| format!("m/{n}")).collect();
        self.store_says(name, "True", json!({"usedBy": used_by}))
            .await;
    }

    async fn store_says(&self, name: &str, ready: &str, more: Value) {
        let mut status = json!({"conditions": [{
            "type": "Ready", "status": ready, "reason": "Ready", "message": "it does not answer",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        let call = Call::stores(name).part("status");
        let said = self.world.patch(call.body(json!({"status": status}))).await;
        assert_eq!(said.code, 200, "{}", said.body);
    }

    /// What the controller does.
    async fn says(&self, name: &str, status: Value) {
        let call = Call::tenants(name).part("status");
        let said = self.world.patch(call.body(json!({"status": status}))).await;
        assert_eq!(said.code, 200, "{}", said.body);
    }

    async fn phase(&self, phase: &str) {
        self.says(
            "t",
            json!({"migration": {"phase": phase, "source": "a", "target": "b"}}),
        )
        .await;
    }

    async fn post(&self, call: Call) -> Answer {
        let request = call.request();
        let registry = &self.world.registry;
        let result = create(&self.chooser, registry, call.permit(), &request).await;
        World::finish(result, request).await
    }

    async fn ask(&self, spec: Value) -> Answer {
        self.post(on_t().body(json!({"spec": spec}))).await
    }

    async fn abort(&self, call: Call) -> Answer {
        let request = call.request();
        let result = delete(&self.world.registry, call.permit(), &request).await;
        World::finish(result, request).await
    }

    async fn seen(&self) -> Answer {
        let call = on_t();
        let request = call.request();
        let result = get(&self.world.registry, call.permit(), &request).await;
        World::finish(result, request).await
    }

    async fn wanted(&self, name: &str) -> Value {
        let tenant = self.world.get(Call::tenants(name)).await;
        tenant.body["spec"]["dataStore"].clone()
    }
}

fn on_t() -> Call {
    Call::tenants("t").part("migrate")
}

/// R8.29, R5.9.
#[tokio::test]
async fn a_move_is_asked_for_looked_at_and_called_off() {
    let moves = Moves::new().await;
    let never = moves.seen().await;
    assert_eq!(never.code, 200);
    assert_eq!(never.body["spec"], json!({}));
    assert_eq!(never.body.get("status"), None);
    assert_eq!(moves.abort(on_t()).await.code, 404);

    let before = moves.world.get(Call::tenants("t")).await;
    let dry = on_t()
        .query("dryRun=All")
        .body(json!({"spec": {"target": "b"}}));
    let dry = moves.post(dry).await;
    assert_eq!(dry.code, 201, "{}", dry.body);
    assert_eq!(dry.body["status"]["phase"], "Pending");
    assert_eq!(moves.world.get(Call::tenants("t")).await.body, before.body);

    let call = on_t().query("fieldManager=me");
    let spec = json!({"target": "b", "sourceRetention": "1h"});
    let asked = moves.post(call.body(json!({"spec": spec}))).await;
    assert_eq!(asked.code, 201, "{}", asked.body);
    assert_eq!(asked.body["kind"], "MigrationRequest");
    assert_eq!(asked.body["spec"], spec);
    assert_eq!(asked.body["status"]["phase"], "Pending");
    assert_eq!(asked.body["status"]["source"], "a");
    assert_eq!(moves.seen().await.body, asked.body);

    // One write, and it is told whose.
    let tenant = moves.world.get(Call::tenants("t")).await.body;
    assert_eq!(tenant["spec"]["dataStore"], "b");
    assert_eq!(
        tenant["metadata"]["annotations"]["steward.butlerlabs.dev/migration-source-retention"],
        "1h"
    );
    assert_eq!(tenant["metadata"]["generation"], 2);
    let managers = tenant["metadata"]["managedFields"].as_array().unwrap();
    let manager = managers.iter().find(|it| it["manager"] == "me").unwrap();
    assert_eq!(manager["subresource"], "migrate");
    assert_eq!(manager["operation"], "Update");
    assert_eq!(
        manager["fieldsV1"]["f:spec"],
        json!({"f:dataStore": {}}),
        "{manager}"
    );

    // A repetition changes nothing, whether or not it names the target.
    for spec in [json!({"target": "b"}), json!({})] {
        let again = moves.ask(spec).await;
        assert_eq!((again.code, again.version()), (200, asked.version()));
        assert_eq!(again.body["spec"]["target"], "b");
    }

    // While it runs, it goes nowhere else.
    moves.phase("Copying").await;
    let elsewhere = moves.ask(json!({"target": "c"})).await;
    assert_eq!(elsewhere.code, 409);
    assert_eq!(
        elsewhere.message(),
        "Operation cannot be fulfilled on tenantcontrolplanes.steward.butlerlabs.dev \"t\": the \
         tenant's data is being moved to DataStore b (phase Copying): abort that move with a \
         DELETE of this subresource, or wait for its end, and try again"
    );
    let dry = moves.abort(on_t().query("dryRun=All")).await;
    assert_eq!(dry.code, 200, "{}", dry.body);
    assert_eq!(moves.wanted("t").await, "b");
    let aborted = moves.abort(on_t()).await;
    assert_eq!(aborted.code, 200, "{}", aborted.body);
    assert_eq!(aborted.body["status"]["phase"], "Copying", "as it is yet");
    assert_eq!(aborted.body["spec"].get("target"), None);
    assert_eq!(moves.wanted("t").await, "a");
    let again = moves.abort(on_t()).await;
    assert_eq!((again.code, again.version()), (200, aborted.version()));

    // After the switch there is nothing to call off.
    moves.ask(json!({"target": "b"})).await;
    moves.phase("Switching").await;
    let late = moves.abort(on_t()).await;
    assert_eq!(late.code, 409);
    assert!(
        late.message()
            .contains("is already served from DataStore b"),
        "{}",
        late.message()
    );
    assert_eq!(moves.wanted("t").await, "b");
}

/// R8.29.
#[tokio::test]
async fn a_target_must_be_there() {
    let moves = Moves::new().await;
    let none = moves.ask(json!({"target": "x"})).await;
    assert_eq!(none.code, 422);
    assert_eq!(
        none.message(),
        "MigrationRequest.steward.butlerlabs.dev \"t\" is invalid: spec.target: Not found: \"x\""
    );
    assert_eq!(
        none.body["details"]["causes"][0]["reason"],
        "FieldValueNotFound"
    );
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    moves.world.patch(Call::stores("c").body(hold)).await;
    moves.world.delete(Call::stores("c")).await;
    let leaving = moves.ask(json!({"target": "c"})).await;
    assert_eq!(leaving.code, 422);
    assert!(
        leaving
            .message()
            .ends_with("the DataStore is being deleted")
    );
    moves.store_says("b", "False", json!({})).await;
    let waits = moves.ask(json!({"target": "b"})).await;
    assert_eq!(waits.code, 201);
    assert_eq!(
        waits.warnings,
        ["DataStore b is not Ready, and the tenant waits for it: it does not answer"]
    );
    let missing = Call::tenants("x").part("migrate").body(json!({}));
    assert_eq!(moves.post(missing).await.code, 404);
}

/// R8.29, R3.48.
#[tokio::test]
async fn preconditions() {
    let moves = Moves::new().await;
    let tenant = moves.world.get(Call::tenants("t")).await.body;
    let asked = |metadata: Value| {
        let body = json!({"metadata": metadata, "spec": {"target": "b"}});
        moves.post(on_t().body(body))
    };
    let uid = asked(json!({"uid": "x"})).await;
    assert_eq!(uid.code, 409);
    assert!(
        uid.message()
            .contains("Precondition failed: UID in precondition: x"),
        "{}",
        uid.message()
    );
    let version = asked(json!({"resourceVersion": "1"})).await;
    assert_eq!(version.code, 409);
    assert!(
        version.message().contains("the object has been modified"),
        "{}",
        version.message()
    );
    let right = json!({
        "uid": tenant["metadata"]["uid"],
        "resourceVersion": tenant["metadata"]["resourceVersion"],
    });
    let right = asked(right).await;
    assert_eq!(right.code, 201, "{}", right.body);
    let options = |uid: &str| json!({"kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let wrong = moves.abort(on_t().body(options("x"))).await;
    assert_eq!(wrong.code, 409);
    assert!(
        wrong
            .message()
            .contains("the UID in the precondition (x) does not match"),
        "{}",
        wrong.message()
    );
    let uid = tenant["metadata"]["uid"].as_str().unwrap();
    assert_eq!(moves.abort(on_t().body(options(uid))).await.code, 200);
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    moves.world.patch(Call::tenants("t").body(hold)).await;
    moves.world.delete(Call::tenants("t")).await;
    let leaving = asked(json!({})).await;
    assert_eq!(leaving.code, 409);
    assert!(leaving.message().ends_with("the tenant is being deleted"));
    // A target with a typing error is not one that is left to the server.
    let typo = moves
        .post(on_t().body(json!({"spec": {"tagret": "b"}})))
        .await;
    assert_eq!(typo.code, 400);
    assert!(typo.message().contains("unknown field \"spec.tagret\""));
}

/// R8.29.
#[tokio::test]
async fn without_a_target_tenants_are_spread_over_those_not_in_use() {
    let moves = Moves::new().await;
    let where_to = moves.post(on_t().query("dryRun=All").body(json!({}))).await;
    assert_eq!(
        (where_to.code, &where_to.body["spec"]["target"]),
        (201, &json!("b"))
    );
    // b has none and c has two: what is written counts, and what is not yet.
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..6 {
        let name = format!("t{n}");
        moves.tenant(&name).await;
        let call = Call::tenants(&name).part("migrate").body(json!({}));
        let asked = moves.post(call).await;
        assert_eq!(asked.code, 201, "{}", asked.body);
        let target = asked.body["spec"]["target"].as_str().unwrap().to_owned();
        *counts.entry(target).or_insert(0) += 1;
    }
    let expected = [("b".to_owned(), 4), ("c".to_owned(), 2)];
    assert_eq!(counts, expected.into());
    for name in ["b", "c"] {
        moves.store_says(name, "False", json!({})).await;
    }
    let none = moves.post(on_t().body(json!({}))).await;
    assert_eq!(none.code, 409);
    assert!(
        none.message()
            .ends_with("0/2 DataStores are available: 2 are not Ready."),
        "{}",
        none.message()
    );
    assert_eq!(moves.wanted("t").await, Value::Null);
}

/// Who is on the way by `spec.dataStore` alone counts as well, until the DataStore says so.
#[tokio::test]
async fn who_comes_by_the_field_counts() {
    let moves = Moves::new().await;
    let mut last = 0;
    for name in ["p0", "p1", "p2"] {
        moves.tenant(name).await;
        let to_b = Call::tenants(name).body(json!({"spec": {"dataStore": "b"}}));
        last = moves.world.patch(to_b).await.version();
    }
    let cache = &moves.world.registry.cache;
    assert!(cache.reached(last, std::time::Duration::from_secs(5)).await);
    let where_to = async || {
        let asked = moves.post(on_t().query("dryRun=All").body(json!({}))).await;
        asked.body["spec"]["target"].as_str().unwrap().to_owned()
    };
    assert_eq!(where_to().await, "c", "3 against 2");
    // One that is counted there already is not counted twice.
    moves
        .store_says("b", "True", json!({"usedBy": ["n/p0", "n/p1"]}))
        .await;
    moves
        .store_says("c", "True", json!({"usedBy": ["m/0", "m/1", "m/2", "m/3"]}))
        .await;
    assert_eq!(where_to().await, "b", "3 against 4");
}

/// What is not stored yet counts, and what never will be does not.
#[tokio::test]
async fn choices_are_remembered_until_they_are_written_or_refused() {
    let moves = Moves::new().await;
    let call = on_t();
    let tenant = |uid: &str| json!({"metadata": {"uid": uid}, "spec": {"dataStore": "a"}});
    let permit = call.permit::<verb::Create>();
    let registry = &moves.world.registry;
    let choose = async |uid: &str, dry_run| {
        let tenant = tenant(uid);
        let choice = moves.chooser.choose(registry, &permit, &tenant, dry_run);
        choice.await.unwrap()
    };
    let one = choose("1", false).await;
    let two = choose("2", false).await;
    let three = choose("3", false).await;
    assert_eq!([&*one.data_store, &*two.data_store], ["b", "b"]);
    assert_eq!(three.data_store, "b", "first among equals");
    assert_eq!(choose("4", true).await.data_store, "c");
    drop((two, three));
    assert_eq!(choose("4", true).await.data_store, "b");
    one.stands();
    assert_eq!(moves.chooser.sent_by("1").as_deref(), Some("b"));
}
