//! Field ownership and server-side apply as Kubernetes has them: random sequences of
//! updates and applied configurations, over our own schema and one that has every merge
//! type, are carried out by `apiserver::managed` and by Kubernetes' library, and every
//! object, every manager and every conflict is compared (contract 5).
//!
//! `OPERATIONS=100000` makes it as many for each schema, `SEED=7` other ones.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod random;
mod reference;
mod synthetic;

use apiserver::managed::managers::Managers;
use apiserver::managed::{Inapplicable, Tracker, scale};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use random::Random;
use reference::{Answer, Operation, Reference};
use serde_json::{Map, Value, json};

/// As many operations of each schema in every test run.
const OPERATIONS: usize = 4_000;
const MANAGERS: [&str; 4] = ["kubectl", "flux", "helm", "zed"];
const REPLICAS: [&str; 4] = ["spec", "controlPlane", "deployment", "replicas"];

fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One kind, at its endpoints.
struct Kind {
    schemas: Map<String, Value>,
    schema: String,
    api_version: String,
    kind: &'static str,
    object: Tracker,
    status: Tracker,
}

impl Kind {
    fn new(schemas: Map<String, Value>, schema: &str, kind: &'static str) -> Self {
        let gvk = &schemas[schema]["x-kubernetes-group-version-kind"][0];
        let text = |field: &str| gvk[field].as_str().unwrap().to_owned();
        let api_version = format!("{}/{}", text("group"), text("version"));
        let tracker = |subresource, ignored: &[&str]| {
            let names = (api_version.clone(), kind);
            Tracker::new(&schemas, schema, names, subresource, ignored).unwrap()
        };
        Self {
            object: tracker("", &["status"]),
            status: tracker("status", &["metadata", "spec"]),
            schema: schema.to_owned(),
            kind,
            api_version,
            schemas,
        }
    }
}

/// A sequence of operations on one object.
struct Story<'a> {
    kind: &'a Kind,
    random: Random<'a>,
    live: Option<Value>,
    /// What each manager applied last.
    applied: [Option<Value>; MANAGERS.len()],
    now: i64,
}

impl<'a> Story<'a> {
    fn new(kind: &'a Kind, rng: &'a mut StdRng) -> Self {
        Self {
            kind,
            random: Random::new(rng, &kind.schemas),
            live: None,
            applied: Default::default(),
            now: 1_600_000_000,
        }
    }

    fn identity(&self, object: &mut Value) {
        object["apiVersion"] = Value::from(self.kind.api_version.as_str());
        object["kind"] = Value::from(self.kind.kind);
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object["metadata"]["name"] = Value::from("one");
        object["metadata"]["namespace"] = Value::from("default");
    }

    /// The next operation, and what we make of it.
    fn next(&mut self) -> (Operation, Answer) {
        self.now += self.random.rng.random_range(1..3_000);
        if let Some(live) = &self.live
            && live["metadata"].get("uid").is_some()
            && self.random.one_in(12)
        {
            return self.scale(live.clone());
        }
        match self.random.one_in(2) {
            true => self.update(),
            false => self.apply(),
        }
    }

    fn operation(&self, op: &'static str, status: bool) -> Operation {
        Operation {
            op,
            api_version: self.kind.api_version.clone(),
            kind: self.kind.kind,
            subresource: if status { "status" } else { "" },
            ignored: match status {
                true => &["metadata", "spec"],
                false => &["status"],
            },
            live: self.live.clone(),
            now: Timestamp::from_second(self.now).unwrap(),
            ..Operation::default()
        }
    }

    fn update(&mut self) -> (Operation, Answer) {
        let status = self.live.is_some() && self.random.one_in(4);
        let mut operation = self.operation("update", status);
        let mut new = match &self.live {
            Some(live) => self.random.changed(&self.kind.schema, live),
            None => self.random.object(&self.kind.schema),
        };
        self.identity(&mut new);
        self.random.managers(&mut new, &self.kind.api_version);
        operation.manager = MANAGERS[self.random.rng.random_range(0..MANAGERS.len())].to_owned();
        // Many updaters at times, of which the oldest are put together.
        if self.random.one_in(3) {
            let number = self.random.rng.random_range(0..20);
            operation.manager = format!("updater-{number}");
        }
        operation.new = new.clone();
        let tracker = match status {
            true => &self.kind.status,
            false => &self.kind.object,
        };
        let (manager, now) = (&operation.manager, operation.now);
        tracker.update(self.live.as_ref(), &mut new, manager, now);
        self.settle(&new);
        (operation, Answer::Object(new))
    }

    fn apply(&mut self) -> (Operation, Answer) {
        let status = self.live.is_some() && self.random.one_in(4);
        let mut operation = self.operation("apply", status);
        let who = self.random.rng.random_range(0..MANAGERS.len());
        let mut config = match &self.applied[who] {
            Some(last) if !self.random.one_in(4) => {
                let changed = self.random.changed(&self.kind.schema, last);
                if self.random.one_in(3) {
                    last.clone()
                } else {
                    changed
                }
            }
            _ => self.random.object(&self.kind.schema),
        };
        self.identity(&mut config);
        if let Some(metadata) = config["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        if self.random.one_in(40) {
            self.random.spoil(&mut config);
        }
        operation.manager = MANAGERS[who].to_owned();
        operation.force = self.random.one_in(3);
        operation.new = config.clone();
        let tracker = match status {
            true => &self.kind.status,
            false => &self.kind.object,
        };
        let live = self.live.as_ref();
        let made = tracker.apply(live, &config, MANAGERS[who], operation.force, operation.now);
        let answer = match made {
            Ok(new) => {
                self.applied[who] = Some(config);
                self.settle(&new);
                Answer::Object(new)
            }
            Err(Inapplicable::Conflicts(conflicts)) => Answer::Conflict {
                message: conflicts.to_string(),
                causes: conflicts.causes(),
            },
            Err(Inapplicable::TooMany) => unreachable!("the objects are small"),
            Err(Inapplicable::Misdirected(why) | Inapplicable::Untyped(why)) => {
                Answer::Refused(why)
            }
        };
        (operation, answer)
    }

    /// The managers of the object as those of its Scale.
    fn scale(&mut self, live: Value) -> (Operation, Answer) {
        let mut operation = self.operation("to_scale", false);
        operation.path = &REPLICAS;
        let managers = Managers::stored(&live).unwrap();
        let seen = scale::to_scale(&managers, &REPLICAS).encode();
        let mut seen_as = live.clone();
        match seen {
            Some(seen) => seen_as["metadata"]["managedFields"] = seen,
            None => {
                seen_as["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("managedFields");
            }
        }
        if self.random.one_in(2) {
            return (operation, Answer::Object(seen_as));
        }
        // Somebody else scales, so that each other loses them.
        let mut scaled = seen_as.clone();
        let owner = json!([{"manager": "hpa", "operation": "Update", "subresource": "scale",
            "apiVersion": "autoscaling/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        scaled["metadata"]["managedFields"] = owner;
        operation.op = "to_object";
        operation.new = scaled.clone();
        let now = Managers::stored(&scaled).unwrap();
        let version = &self.kind.api_version;
        let all = scale::to_object(managers, now, &REPLICAS, version).encode();
        let mut new = live;
        new["metadata"]["managedFields"] = all.unwrap();
        self.settle(&new);
        (operation, Answer::Object(new))
    }

    /// What was made is what comes next starts from, as the store has it.
    fn settle(&mut self, new: &Value) {
        let mut new = new.clone();
        if !self.random.one_in(4) {
            drop_nulls(&mut new);
        }
        new["metadata"]["uid"] = Value::from("0123");
        new["metadata"]["resourceVersion"] = Value::from(self.now.to_string());
        self.live = Some(new);
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Carries out as many operations as are asked for, and compares.
fn judge(kind: &Kind) {
    let seed = setting("SEED", 1) as u64;
    let all = setting("OPERATIONS", OPERATIONS);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut reference = Reference::start(&kind.schemas);
    let mut seen = reference::Seen::default();
    let mut done = 0;
    while done < all {
        let mut story = Story::new(kind, &mut rng);
        let operations: Vec<_> = (0..30).map(|_| story.next()).collect();
        done += operations.len();
        let answers = reference.ask(operations.iter().map(|(operation, _)| operation));
        for ((operation, ours), theirs) in operations.iter().zip(answers) {
            reference::compare(operation, ours, &theirs, &mut seen);
        }
    }
    println!("{done} operations: {seen:?}");
    seen.must_have_all();
}

/// R5.4, R5.5, R5.6, R5.7, R5.9, R5.10, R5.17.
#[test]
fn our_kinds_are_owned_and_merged_as_by_kubernetes() {
    let document = apiservice::openapi::v3_group_version();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for kind in ["TenantControlPlane", "DataStore"] {
        let name = format!("dev.butlerlabs.steward.v1alpha1.{kind}");
        judge(&Kind::new(schemas.clone(), &name, kind));
    }
}

/// R5.3, R5.5, R5.6, R5.7, R5.18.
#[test]
fn every_merge_type_is_owned_and_merged_as_by_kubernetes() {
    judge(&Kind::new(synthetic::schemas(), "example.Widget", "Widget"));
}
