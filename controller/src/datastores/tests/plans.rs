//! Lives of DataStores as the plans they lead to.

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::names;
use apiservice::v1alpha1::{DataStore, PendingCleanup};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::datastores::cleanups::{Cleaned, Owner, Pods};
use crate::datastores::drain::{Drain, Leaver, State};
use crate::datastores::plan::{Outcome, Step};
use crate::datastores::world::World;
use crate::datastores::{plan, report};
use crate::tenant::backing::facts::{StoreHealth, StoreProblem, StoreProblemKind, StoreReport};
use crate::tenant::testing::golden;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A DataStore that answers and is used by nobody.
fn unused() -> World {
    let store: DataStore = serde_json::from_value(json!({
        "apiVersion": "steward.butlerlabs.dev/v1alpha1",
        "kind": "DataStore",
        "metadata": {"name": "default", "uid": "u", "generation": 1},
        "spec": {"driver": "etcd", "endpoints": ["etcd:2379"]},
    }))
    .unwrap();
    World {
        report: Some(StoreReport {
            health: Ok(StoreHealth::default()),
            separates_tenants: Ok(()),
            compacted: None,
        }),
        ..World::of(store, at(0))
    }
}

fn change(world: &mut World, change: impl FnOnce(&mut DataStore)) {
    change(Arc::make_mut(&mut world.store));
}

fn record(world: &mut World, name: &str, owner: Owner, until: Option<Timestamp>) {
    let entry = PendingCleanup {
        not_before: until.map(Time),
        uid: format!("uid of {name}"),
        namespace: Some("tenants".to_owned()),
        name: Some(name.to_owned()),
        schema: Some(format!("tenants_{name}")),
        user: Some("user".to_owned()),
        message: None,
    };
    world.owners.insert(entry.uid.clone(), owner);
    change(world, |store| {
        let status = store.status.get_or_insert_default();
        status.pending_cleanups.push(entry);
    });
}

/// A pass: the plans one after the other, as if all of them went well.
fn pass(world: &mut World) -> String {
    let mut text = String::new();
    loop {
        let plan = plan(world);
        text.push_str(&plan.to_string());
        let outcomes: Vec<Outcome> = plan
            .steps
            .iter()
            .map(|step| went_well(world, step))
            .collect();
        let mut done = world.done.clone();
        let goes_on = done.note(world, &plan, &outcomes);
        world.done = done;
        if !goes_on {
            break;
        }
        text.push_str("then\n");
    }
    world.done = Default::default();
    let status = report::status(world);
    for one in &status.conditions {
        let told = ["Ready", "AllowedDeletion", "CleanupPending", "Drained"];
        if told.contains(&one.type_.as_str()) {
            let line = format!(
                "{}={} {}: {}\n",
                one.type_, one.status, one.reason, one.message
            );
            text.push_str(&line);
        }
    }
    text
}

fn went_well(world: &mut World, step: &Step) -> Outcome {
    match step {
        Step::CleanUp(cleanup) if cleanup.running.is_some() => {
            Outcome::Cleaned(Cleaned::Not(cleanup.running.clone().unwrap()))
        }
        Step::CleanUp(cleanup) => {
            let uid = cleanup.entry.uid.clone();
            change(world, |store| {
                let status = store.status.get_or_insert_default();
                status.pending_cleanups.retain(|it| it.uid != uid);
            });
            Outcome::Cleaned(Cleaned::Whole)
        }
        Step::AddFinalizer => {
            let ours = Some(vec![names::FINALIZER_DATA_STORE.to_owned()]);
            change(world, |store| store.metadata.finalizers = ours);
            Outcome::Done
        }
        Step::ReleaseFinalizer => {
            change(world, |store| store.metadata.finalizers = None);
            Outcome::Done
        }
        Step::SendAway(_) | Step::Try => Outcome::Done,
        Step::Wait(_) => Outcome::Unchanged,
    }
}

/// Runs passes and writes down the plans of each and what is told after it.
struct Story {
    world: World,
    text: String,
}

impl Story {
    fn pass(&mut self, title: &str) {
        let text = pass(&mut self.world);
        self.text.push_str(&format!("== {title}\n{text}\n"));
    }
}

#[test]
fn the_life_of_a_data_store() {
    let mut story = Story {
        world: unused(),
        text: String::new(),
    };
    story.world.untried = true;
    story.pass("nobody uses it, and its settings are new");
    story.world.untried = false;
    story.world.used_by = vec!["tenants/a".to_owned()];
    story.pass("a tenant uses it");
    story.pass("nothing has changed");

    let gone = Owner {
        pods: Some(Pods {
            since: at(0),
            left: Some(1),
        }),
        ..Owner::default()
    };
    record(&mut story.world, "b", gone, None);
    story.pass("b has left, and a pod of it runs");
    story.world.now = at(60);
    story.world.report = Some(StoreReport::failed(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "connection refused".to_owned(),
    }));
    story.pass("it is away");

    change(&mut story.world, |store| {
        store.metadata.deletion_timestamp = Some(Time(at(60)));
    });
    story.pass("it is deleted, and a uses it");
    story.world.used_by.clear();
    story.pass("a was moved elsewhere");
    story.world.report = unused().report;
    let moved = Owner {
        lives: true,
        ..Owner::default()
    };
    record(&mut story.world, "a", moved, Some(at(3600)));
    story.pass("it is back, and has a copy of the data of a");
    golden("data_store", &story.text);
}

#[test]
fn a_data_store_that_is_emptied() {
    let mut world = unused();
    world.used_by = vec!["n/a".to_owned(), "n/b".to_owned()];
    change(&mut world, |store| {
        store.metadata.finalizers = Some(vec![names::FINALIZER_DATA_STORE.to_owned()]);
    });
    world.drain = Some(Drain {
        taints: "leaving".to_owned(),
        leavers: vec![
            Leaver::named("n", "a", State::Goes("other".to_owned())),
            Leaver::named("n", "b", State::Due),
            Leaver::named("n", "c", State::Waits("it is paused".to_owned())),
        ],
    });
    let mut story = Story {
        world,
        text: String::new(),
    };
    record(&mut story.world, "d", Owner::default(), None);
    story.pass("one goes, one is to go, and one has left something");
    golden("data_store_emptied", &story.text);
}

#[test]
fn a_paused_data_store_is_left_alone() {
    let mut world = unused();
    world.used_by = vec!["tenants/a".to_owned()];
    assert!(!plan(&world).is_quiet());
    change(&mut world, |store| {
        let annotations = store.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
    });
    assert!(plan(&world).steps.is_empty());
}

/// What others hold it by is theirs, and ours is set once.
#[test]
fn the_finalizer_is_there_while_the_data_store_is_used() {
    let planned = |finalizers: &[&str], used: bool, deleted: bool| {
        let mut world = unused();
        if used {
            world.used_by = vec!["tenants/a".to_owned()];
        }
        change(&mut world, |store| {
            let all = finalizers.iter().map(|it| (*it).to_owned());
            store.metadata.finalizers = Some(all.collect());
            store.metadata.deletion_timestamp = deleted.then(|| Time(at(5)));
        });
        world.owners = BTreeMap::new();
        plan(&world).to_string()
    };
    let ours = [names::FINALIZER_DATA_STORE, "x"];
    assert_eq!(planned(&[], true, false), "add the finalizer\n");
    assert_eq!(planned(&ours, true, false), "nothing to do\n");
    assert_eq!(planned(&ours, false, false), "release the finalizer\n");
    assert_eq!(planned(&["x"], false, false), "nothing to do\n");
    assert!(
        planned(&ours, true, true).starts_with("wait"),
        "held while used"
    );
    assert_eq!(planned(&ours, false, true), "release the finalizer\n");
    assert_eq!(planned(&["x"], false, true), "nothing to do\n");
}
