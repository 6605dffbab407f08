//! What a move of the data to another DataStore means for plan and status (rule 30).

use std::sync::Arc;

use apiservice::condition::{self, reason, tenant as kind};
use apiservice::names;
use apiservice::v1alpha1::{
    DataStore, DataStoreOverride, Driver, MigrationPhase as Phase, MigrationStatus,
};
use apiservice::v1alpha1::{DataStoreSpec, Phase as Word, TlsConfig};
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::overrides::claimant;
use crate::report::progress::has_switched;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::{AccessFact, CredentialsFact, Held};
use crate::tenant::plan::{Object, Plan, Step};
use crate::tenant::removals::settle;
use crate::tenant::testing::Lab;
use crate::tenant::turns::{Turn, Wait};
use crate::tenant::world::ProbeFailureKind;
use storage::tenancy::{Claim, Password, Stage};

const THERE: &str = "postgres";

fn migration(phase: Phase) -> MigrationStatus {
    MigrationStatus {
        phase,
        source: Some("default".to_owned()),
        target: Some(THERE.to_owned()),
        ..MigrationStatus::default()
    }
}

/// Ready, and asked for another DataStore.
fn asked() -> Lab {
    let mut lab = Lab::ready();
    lab.spec().data_store = Some(THERE.to_owned());
    lab
}

/// The data is in service in PostgreSQL, and nothing else knows it yet.
fn moved(lab: &mut Lab) {
    moved_to(lab, THERE);
}

fn moved_to(lab: &mut Lab, there: &str) {
    let spec = DataStoreSpec {
        driver: Driver::PostgreSQL,
        endpoints: vec!["db-0.example:5432".to_owned()],
        tls_config: Some(TlsConfig::default()),
        ..DataStoreSpec::default()
    };
    let CredentialsFact::Known(known) = &mut lab.world.store.credentials else {
        unreachable!("they are known")
    };
    let known = Arc::make_mut(known);
    known.endpoints = spec.endpoints.clone();
    known.authority_key = None;
    lab.world.data_store = Some(Arc::new(DataStore::new(there, spec)));
    let from = &claim::held(&lab.world).unwrap().claim;
    let claim = claim::moved(&lab.world.tenant, from, Driver::Etcd, Driver::PostgreSQL);
    lab.world.store.held = Some(Held {
        data_store: there.to_owned(),
        claim: claim.at(Stage::Serving),
    });
    lab.world.store.access = Some(AccessFact::Granted);
    lab.world.store.password = Some(Password::new("made-by-the-move-0"));
    lab.world.migration = Some(migration(Phase::Switching));
}

fn says(lab: &Lab, type_: &str) -> (String, String) {
    let status = lab.world.tenant.status.as_ref().unwrap();
    let found = condition::get(&status.conditions, type_).unwrap();
    (found.status.clone(), found.reason.clone())
}

fn word(lab: &Lab) -> Word {
    let status = lab.world.tenant.status.as_ref().unwrap();
    let resources = status.kubernetes_resources.as_ref().unwrap();
    resources.version.as_ref().unwrap().status
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn deployment(plan: &Plan) -> Option<String> {
    plan.steps.iter().find_map(|step| match step {
        Step::Create(object) | Step::Apply(object) => match object.as_ref() {
            Object::Deployment(it) => Some(serde_json::to_string(it).unwrap()),
            _ => None,
        },
        _ => None,
    })
}

/// What is kept in DataStores of overrides is neither copied nor frozen: its keys begin in the
/// same way in the new place of the rest, and writes to it go on.
#[test]
fn overrides_stay_where_they_are() {
    let mut lab = Lab::ready();
    lab.spec().data_store_overrides = vec![DataStoreOverride {
        resource: Some("/events".to_owned()),
        data_store: Some("other".to_owned()),
    }];
    settle(&mut lab);
    let own = claimant(lab.world.uid(), "other");
    let before = lab.places[&own].held.clone();
    lab.spec().data_store = Some(THERE.to_owned());
    for phase in [Phase::Copying, Phase::Freezing, Phase::Verifying] {
        lab.world.migration = Some(migration(phase));
        let plan = lab.pass();
        assert!(plan.is_quiet(), "{phase:?}: {:?}", plan.steps);
    }
    moved(&mut lab);
    let plan = lab.pass();
    let text = deployment(&plan).expect("pods with the new place");
    for part in [
        "--etcd-servers=unix:///uds/kine",
        "--etcd-servers-overrides=/events#http://127.0.0.1:2390",
        "--endpoints=other.example:2379",
        "--etcd-prefix=/tenants_tenant_1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let others = |step: &Step| match step {
        Step::Grant(grant) => grant.claim.uid == own,
        Step::DeferDeletion { .. } => true,
        _ => false,
    };
    assert!(!plan.steps.iter().any(others), "{:?}", plan.steps);
    assert_eq!(lab.places[&own].held, before);
}

#[test]
fn nothing_changes_while_data_is_copied() {
    let mut lab = asked();
    let plan = lab.pass();
    assert!(plan.is_quiet(), "asked for: {:?}", plan.steps);
    // The spec is not what serves.
    assert_eq!(says(&lab, kind::PROGRESSING), is("True", reason::MIGRATING));
    assert_eq!(says(&lab, kind::READY), is("True", reason::READY));
    for phase in [
        Phase::Pending,
        Phase::Preparing,
        Phase::Copying,
        Phase::Following,
    ] {
        lab.world.migration = Some(migration(phase));
        let plan = lab.pass();
        assert!(plan.is_quiet(), "{phase:?}: {:?}", plan.steps);
        assert_eq!(
            says(&lab, kind::READY),
            is("True", reason::READY),
            "{phase:?}"
        );
        assert_eq!(says(&lab, kind::MIGRATING), is("True", reason::MIGRATING));
        assert_eq!(says(&lab, kind::PROGRESSING), is("True", reason::MIGRATING));
        let expected = if phase == Phase::Pending {
            Word::Ready
        } else {
            Word::Migrating
        };
        assert_eq!(word(&lab), expected);
    }
    let status = lab.world.tenant.status.clone().unwrap();
    assert_eq!(
        status.storage.unwrap().data_store_name.as_deref(),
        Some("default")
    );
    assert_eq!(status.migration, Some(migration(Phase::Following)));
}

/// A probe comes every few seconds: it need not have met what clients meet.
#[test]
fn a_tenant_that_cannot_be_written_is_not_ready() {
    for phase in [Phase::Freezing, Phase::Verifying] {
        let mut lab = asked();
        lab.world.migration = Some(migration(phase));
        // What looks like a loss of rights is none.
        lab.world.store.access = Some(AccessFact::Revoked("it may not write".to_owned()));
        let plan = lab.pass();
        assert!(plan.is_quiet(), "{phase:?}: {:?}", plan.steps);
        assert_eq!(says(&lab, kind::READY), is("False", reason::MIGRATING));
    }
}

#[test]
fn pods_are_given_the_new_place_at_once() {
    let mut lab = asked();
    lab.pass();
    moved(&mut lab);
    // Others are being rolled: they are not waited for.
    lab.turn = Turn::Waits(Wait::ForOthers);
    let plan = lab.pass();
    let written = deployment(&plan).expect("the pods are rolled");
    assert!(written.contains("unix:///uds/kine") && written.contains("db-0.example"));
    assert!(
        written.contains("--etcd-prefix=/tenants_tenant_1"),
        "{written}"
    );
    let secret: &Secret = lab
        .world
        .owned
        .get(&names::datastore_config("tenant-1"))
        .unwrap();
    let password = secret.data.as_ref().unwrap()["DB_PASSWORD"].0.clone();
    assert_eq!(
        password, b"made-by-the-move-0",
        "what the database was given"
    );
    assert!(
        !plan.steps.iter().any(|step| matches!(step, Step::Grant(_))),
        "nothing is missing there"
    );
    // Those of before still answer, and can only read.
    assert_eq!(says(&lab, kind::READY), is("False", reason::MIGRATING));
    lab.pass();
    assert_eq!(says(&lab, kind::READY), is("False", reason::MIGRATING));

    lab.run_pods();
    lab.later(5);
    lab.world.migration = Some(migration(Phase::Completed));
    lab.pass();
    assert!(lab.pass().is_quiet());
    assert_eq!(says(&lab, kind::READY), is("True", reason::READY));
    assert_eq!(says(&lab, kind::MIGRATING), is("False", reason::MIGRATED));
    assert_eq!(
        says(&lab, kind::PROGRESSING),
        is("False", reason::AS_EXPECTED)
    );
    assert_eq!(word(&lab), Word::Ready);
    let status = lab.world.tenant.status.clone().unwrap();
    assert_eq!(
        status.storage.unwrap().data_store_name.as_deref(),
        Some(THERE)
    );
}

/// A label holds 63 characters, and the move ends when the pods are known to have the target.
#[test]
fn the_name_of_the_target_may_be_long() {
    for name in [
        THERE.to_owned(),
        "x".repeat(63),
        "x".repeat(64),
        "x".repeat(253),
    ] {
        let mut lab = asked();
        lab.pass();
        moved_to(&mut lab, &name);
        assert!(!has_switched(&lab.seen()));
        lab.pass();
        assert!(!has_switched(&lab.seen()), "its pods are not there");
        lab.run_pods();
        lab.later(5);
        assert!(has_switched(&lab.seen()), "{name}");

        // What a release of before has written is not rolled for the name.
        lab.world.migration = Some(migration(Phase::Completed));
        lab.pass();
        assert!(lab.pass().is_quiet());
        let before = lab.deployment_mut().spec.clone();
        let annotations = lab.deployment_mut().metadata.annotations.as_mut().unwrap();
        let noted = annotations.remove(names::ANNOTATION_DATA_STORE_NAME);
        assert_eq!(noted.is_some(), name.len() > 63, "{name}");
        let plan = lab.pass();
        assert_eq!(plan.is_quiet(), noted.is_none(), "{name}");
        assert!(!plan.rolls && plan.roll.is_none(), "{name}");
        assert_eq!(lab.deployment_mut().spec, before);
    }
}

/// The label of the target is held, whatever else an older release let be in the template.
#[test]
fn a_move_ends_whose_pods_are_larger_than_what_is_held() {
    let mut lab = asked();
    let large = k8s_openapi::api::core::v1::Container {
        name: "large".to_owned(),
        image: Some("i".to_owned()),
        args: Some(vec!["x".repeat(200_000)]),
        ..Default::default()
    };
    lab.spec().control_plane.deployment.additional_containers = vec![large];
    lab.pass();
    lab.hold_deployment();
    moved(&mut lab);
    lab.pass();
    lab.hold_deployment();
    assert!(!has_switched(&lab.seen()), "its pods are not there");
    lab.run_pods();
    lab.later(5);
    assert!(has_switched(&lab.seen()));
    lab.world.migration = Some(migration(Phase::Completed));
    lab.pass();
    lab.hold_deployment();
    assert!(lab.pass().is_quiet());
}

/// New pods that do not come up are no longer a matter of the move alone.
#[test]
fn what_keeps_new_pods_from_serving_is_told() {
    let mut lab = asked();
    moved(&mut lab);
    lab.pass();
    lab.world.pods.clear();
    lab.probe(Err((ProbeFailureKind::Refused, "connection refused")));
    lab.pass();
    assert_eq!(says(&lab, kind::READY), is("False", reason::MIGRATING));
    let status = lab.world.tenant.status.clone().unwrap();
    let ready = condition::get(&status.conditions, kind::READY).unwrap();
    assert!(ready.message.contains("No replica"), "{}", ready.message);
}

#[test]
fn a_failure_is_told_and_leaves_ready_alone() {
    let mut lab = asked();
    let mut failed = migration(Phase::Failed);
    failed.message = Some("the target is full".to_owned());
    lab.world.migration = Some(failed);
    assert!(lab.pass().is_quiet());
    assert_eq!(says(&lab, kind::READY), is("True", reason::READY));
    assert_eq!(
        says(&lab, kind::MIGRATING),
        is("True", reason::MIGRATION_FAILED)
    );
    assert_eq!(
        says(&lab, kind::PROGRESSING),
        is("True", reason::MIGRATION_FAILED)
    );
    // Taken back.
    lab.spec().data_store = Some("default".to_owned());
    lab.world.migration = Some(migration(Phase::Aborted));
    lab.pass();
    assert_eq!(
        says(&lab, kind::MIGRATING),
        is("False", reason::MIGRATION_ABORTED)
    );
    assert_eq!(
        says(&lab, kind::PROGRESSING),
        is("False", reason::AS_EXPECTED)
    );
}

/// Somebody holds a claim elsewhere meanwhile.
#[test]
fn a_deletion_waits_for_the_end_of_a_move() {
    let mut lab = asked();
    lab.pass();
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    lab.world.migration = Some(migration(Phase::Copying));
    let plan = lab.plan();
    let taken = |plan: &Plan| {
        let mut steps = plan.steps.iter();
        steps.any(|step| matches!(step, Step::RevokeAccess(_) | Step::ReleaseFinalizer))
    };
    assert!(!taken(&plan), "{:?}", plan.steps);
    lab.world.migration = Some(migration(Phase::Aborted));
    assert!(taken(&lab.plan()));
}

/// Values may be encrypted for their keys.
#[test]
fn keys_stay_as_they_are() {
    let lab = Lab::ready();
    let tenant = &lab.world.tenant;
    let etcd = claim::wished(tenant, Driver::Etcd);
    assert_eq!(
        (etcd.prefix(false), etcd.prefix.clone()),
        ("/tenants_tenant_1".to_owned(), None)
    );
    let there = claim::moved(tenant, &etcd, Driver::Etcd, Driver::PostgreSQL);
    assert_eq!(there.stage, Stage::Incoming);
    assert_eq!(there.prefix(true), etcd.prefix(false));
    let back = claim::moved(tenant, &there, Driver::PostgreSQL, Driver::Etcd);
    assert_eq!(back, etcd.at(Stage::Incoming));

    // One that began in SQL, and one of before.
    let sql = claim::wished(tenant, Driver::MySQL);
    let there = claim::moved(tenant, &sql, Driver::MySQL, Driver::Etcd);
    assert_eq!(there.prefix(false), sql.prefix(true));
    let old = Claim {
        prefix: None,
        replicas: None,
        ..sql
    };
    let there = claim::moved(tenant, &old, Driver::MySQL, Driver::Etcd);
    assert_eq!(
        there.prefix(false),
        "/tenants_tenant_1",
        "never all tenants' own"
    );
    let there = claim::moved(tenant, &old, Driver::MySQL, Driver::PostgreSQL);
    assert_eq!(there.prefix(true), "/registry");
}
