//! What does not come from the tenant's own spec: a changed DataStore, another release,
//! renewed certificates. It is tried first, and rolls the pods in turn (rules 28 and 29).

use std::sync::Arc;

use apiservice::condition::{self, reason, tenant as kind};
use apiservice::names;
use apiservice::v1alpha1::AdditionalMetadata;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::facts::{AccessFact, CredentialsFact, StoreProblem, StoreProblemKind};
use crate::tenant::plan::{Object, Plan, Step};
use crate::tenant::testing::{Lab, brief};
use crate::tenant::turns::{Before, Roll, Turn, Wait};
use crate::tenant::world::ProbeFailureKind;

const WRONG: &str = "etcd-0.etcd.steward-system.svc:2380";

/// The DataStore as an administrator changes it; nobody has tried it yet.
fn endpoints(lab: &mut Lab, endpoint: &str) {
    let store = lab.world.data_store.as_mut().unwrap();
    Arc::make_mut(store).spec.endpoints = vec![endpoint.to_owned()];
    let CredentialsFact::Known(credentials) = &mut lab.world.store.credentials else {
        unreachable!("the lab knows it")
    };
    Arc::make_mut(credentials).endpoints = vec![endpoint.to_owned()];
    lab.world.store.trial = None;
}

fn refused() -> StoreProblem {
    StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "connection refused".to_owned(),
    }
}

fn fails(lab: &mut Lab) {
    lab.world.store.health = Some(Err(refused()));
    lab.world.store.trial = Some(Err(refused()));
}

fn works(lab: &mut Lab) {
    lab.world.store.health = Some(Ok(Default::default()));
    lab.world.store.trial = Some(Ok(()));
}

fn live(lab: &Lab) -> &Deployment {
    lab.world.deployment().unwrap()
}

fn noted<'a>(lab: &'a Lab, annotation: &str) -> Option<&'a str> {
    crate::tenant::objects::annotation(&live(lab).metadata, annotation)
}

/// The Deployment that a plan writes.
fn written(plan: &Plan) -> Option<&Deployment> {
    plan.steps.iter().find_map(|step| match step {
        Step::Create(object) | Step::Apply(object) => match object.as_ref() {
            Object::Deployment(deployment) => Some(deployment),
            _ => None,
        },
        _ => None,
    })
}

fn said(lab: &Lab, kind: &str) -> Condition {
    let status = lab.world.tenant.status.as_ref().unwrap();
    condition::get(&status.conditions, kind).unwrap().clone()
}

/// Another release of Steward, or another setting of it: other pods for everybody.
fn upgrade(lab: &mut Lab) {
    Arc::make_mut(&mut lab.world.settings).registry = "mirror.example.com".to_owned();
}

/// Pods follow the Deployment, and the probe finds them well.
fn rolled(lab: &mut Lab) {
    lab.pass();
    lab.run_pods();
    lab.later(5);
    lab.probe(Ok(()));
    lab.pass();
}

#[test]
fn a_wrong_port_reaches_no_pod() {
    let mut lab = Lab::ready();
    let before = lab.world.owned.clone();
    endpoints(&mut lab, WRONG);
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
    lab.pass();
    let told = said(&lab, kind::PROGRESSING);
    assert_eq!(told.reason, reason::DATA_STORE_CHANGE_NOT_VERIFIED);
    assert_eq!(lab.condition(kind::DATA_STORE_READY), "True AsExpected");

    fails(&mut lab);
    let plan = lab.pass();
    assert!(plan.is_quiet(), "{plan}");
    let told = said(&lab, kind::DATA_STORE_READY);
    assert_eq!(told.status, "False");
    assert_eq!(told.reason, reason::DATA_STORE_CHANGE_NOT_VERIFIED);
    for words in [
        "connection refused",
        "spec.endpoints",
        "keep the previous ones",
    ] {
        assert!(told.message.contains(words), "{}", told.message);
    }
    assert_eq!(lab.condition(kind::READY), "True Ready");
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
    assert_eq!(lab.world.owned, before);

    // Put right, nothing rolls.
    endpoints(&mut lab, "etcd-0.etcd.steward-system.svc:2379");
    lab.world.store.health = Some(Ok(Default::default()));
    let plan = lab.pass();
    assert!(plan.steps.is_empty(), "{plan}");
    assert_eq!(lab.condition(kind::DATA_STORE_READY), "True AsExpected");
}

/// What the tenant's user asks for does not wait for the DataStore's administrator.
#[test]
fn the_spec_is_followed_with_the_settings_of_before() {
    let mut lab = Lab::ready();
    endpoints(&mut lab, WRONG);
    fails(&mut lab);
    lab.pass();
    lab.spec().kubernetes.version = "v1.36.4".to_owned();
    lab.turn = Turn::Waits(Wait::ForOthers);
    let plan = lab.pass();
    assert!(written(&plan).is_some(), "{plan}");
    let text = plan.to_string();
    assert!(
        text.contains(":v1.36.4") && text.contains(":2379"),
        "{text}"
    );
    assert!(!text.contains(WRONG), "{text}");
    assert!(lab.plan().is_quiet(), "{}", lab.plan());

    // Once it works, what is wanted since goes with the next change of the spec.
    works(&mut lab);
    lab.spec().kubernetes.version = "v1.36.5".to_owned();
    let text = lab.plan().to_string();
    assert!(text.contains(WRONG), "{text}");
}

#[test]
fn another_authority_is_tried_as_well() {
    let mut lab = Lab::ready();
    let secret = lab.secret_mut("tenant-1-datastore-certificate").clone();
    let other = crate::tenant::testing::authority();
    let CredentialsFact::Known(credentials) = &mut lab.world.store.credentials else {
        unreachable!("the lab knows it")
    };
    let credentials = Arc::make_mut(credentials);
    credentials.authority = other.cert;
    credentials.authority_key = Some(other.key);
    for trial in [None, Some(Err(refused()))] {
        lab.world.store.trial = trial;
        assert!(lab.pass().is_quiet(), "{}", lab.plan());
    }
    // It waits for the turn, too: pods that start meanwhile need what they had.
    lab.world.store.trial = Some(Ok(()));
    lab.turn = Turn::Waits(Wait::ForOthers);
    assert!(lab.pass().is_quiet(), "{}", lab.plan());
    assert_eq!(*lab.secret_mut("tenant-1-datastore-certificate"), secret);
    lab.turn = Turn::Unasked;
    let plan = brief(&lab.pass());
    for object in [
        "Secret tenants/tenant-1-datastore-certificate",
        "Deployment",
    ] {
        assert!(plan.contains(&format!("apply {object}")), "{plan}");
    }
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
}

/// Also after a restart of the controller, which knows of no trial then.
#[test]
fn a_datastore_that_is_merely_down_holds_nothing() {
    let mut lab = Lab::ready();
    lab.world.store.health = Some(Err(refused()));
    for trial in [Some(Ok(())), None, Some(Err(refused()))] {
        lab.world.store.trial = trial;
        lab.pass();
        let told = said(&lab, kind::DATA_STORE_READY);
        assert_eq!(told.reason, reason::DATA_STORE_UNREACHABLE);
        assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
        assert!(lab.plan().is_quiet());
    }
    // The Secrets are not read yet, or one of them is gone.
    for credentials in [
        CredentialsFact::Unknown,
        CredentialsFact::Missing {
            what: "Secret a/b does not exist".to_owned(),
            remedy: "create it".to_owned(),
        },
    ] {
        lab.world.store.credentials = credentials;
        assert!(lab.plan().is_quiet(), "{}", lab.plan());
    }
    let store = lab.world.data_store.as_mut().unwrap();
    Arc::make_mut(store).spec.endpoints = vec![WRONG.to_owned()];
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
    lab.pass();
    let told = said(&lab, kind::DATA_STORE_READY);
    assert_eq!(told.reason, reason::DATA_STORE_CHANGE_NOT_VERIFIED);
    assert!(told.message.contains("Secret a/b does not exist"));
}

#[test]
fn first_starts_and_sleepers_take_the_datastore_as_it_is() {
    let mut lab = Lab::new();
    lab.world.store.trial = None;
    lab.turn = Turn::Waits(Wait::ForOthers);
    lab.pass();
    assert!(written(&lab.pass()).is_some());

    let mut lab = Lab::ready();
    lab.spec().control_plane.deployment.replicas = 0;
    lab.pass();
    lab.run_pods();
    lab.pass();
    endpoints(&mut lab, WRONG);
    lab.turn = Turn::Waits(Wait::ForOthers);
    let plan = lab.pass();
    assert!(plan.to_string().contains(WRONG), "{plan}");
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
}

/// A change of the DataStore that works: the tenant waits for its turn, Ready, and is
/// not done before the probe has found the new pods well.
#[test]
fn a_change_that_works_goes_in_turn() {
    let mut lab = Lab::ready();
    let generation = lab.world.tenant.metadata.generation;
    endpoints(&mut lab, WRONG);
    works(&mut lab);
    lab.turn = Turn::Waits(Wait::ForOthers);
    let before = lab.world.owned.clone();
    let plan = lab.pass();
    assert!(plan.is_quiet() && plan.roll.is_some(), "{plan}");
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollWaiting");
    assert_eq!(lab.condition(kind::READY), "True Ready");
    assert_eq!(said(&lab, kind::READY).observed_generation, generation);
    assert_eq!(lab.world.owned, before);
    let since = said(&lab, kind::PROGRESSING).last_transition_time.0;
    lab.later(60);
    lab.turn = Turn::Waits(Wait::Halted(vec!["tenants/other".to_owned()]));
    lab.pass();
    let told = said(&lab, kind::PROGRESSING);
    assert_eq!(told.reason, reason::ROLLS_HALTED);
    assert!(told.message.contains("tenants/other"), "{}", told.message);
    assert_eq!(crate::tenant::rolls::waiting_since(&lab.world), Some(since));

    lab.turn = Turn::Unasked;
    let plan = lab.pass();
    assert!(plan.to_string().contains(WRONG), "{plan}");
    let roll = Roll::parse(noted(&lab, names::ANNOTATION_ROLL).unwrap()).unwrap();
    assert_eq!((roll.at, roll.before), (lab.world.now, Before::Ready));
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    assert!(lab.plan().steps.is_empty(), "{}", lab.plan());
    lab.later(5);
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    assert_eq!(said(&lab, kind::READY).observed_generation, generation);
    lab.run_pods();
    lab.probe(Err((ProbeFailureKind::Storage, "no")));
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    lab.later(5);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
    assert!(lab.plan().steps.is_empty(), "{}", lab.plan());
}

/// The same without any waiting: the roll shows all the same.
#[test]
fn a_roll_that_is_given_a_turn_at_once_is_progress() {
    let mut lab = Lab::ready();
    upgrade(&mut lab);
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    rolled(&mut lab);
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
}

/// The controller ended after it wrote the Deployment: the next one says what goes on.
#[test]
fn a_roll_whose_status_was_never_written_is_progress() {
    let mut lab = Lab::ready();
    lab.later(5);
    upgrade(&mut lab);
    let before = lab.world.tenant.status.clone();
    lab.pass();
    lab.tenant().status = before;
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    lab.run_pods();
    lab.later(5);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
    // A replica that goes missing later is no progress.
    lab.later(60);
    let deployment = lab.deployment_mut();
    deployment.status.as_mut().unwrap().available_replicas = Some(0);
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
}

/// What waits for a turn and what does not, when others have theirs.
#[test]
fn only_what_nobody_asked_this_tenant_for_waits() {
    type Change = fn(&mut Lab);
    let table: [(&str, bool, Change); 21] = [
        ("another release", true, upgrade),
        ("a renewal for its age", true, |lab| {
            lab.later(343 * 24 * 3600)
        }),
        ("another DataStore authority", true, |lab| {
            let authority = crate::tenant::testing::authority();
            let CredentialsFact::Known(credentials) = &mut lab.world.store.credentials else {
                unreachable!("the lab knows it")
            };
            let credentials = Arc::make_mut(credentials);
            credentials.authority = authority.cert;
            credentials.authority_key = Some(authority.key);
        }),
        ("other names in certificates by a release", true, |lab| {
            Arc::make_mut(&mut lab.world.settings).management_domain = "other".to_owned();
        }),
        ("a leaf cannot be read", false, |lab| {
            damage(
                lab,
                "front-proxy-client-certificate",
                "front-proxy-client.crt",
            );
        }),
        ("the DataStore's certificate cannot be read", false, |lab| {
            damage(lab, "datastore-certificate", "server.crt");
        }),
        ("a kubeconfig cannot be read", false, |lab| {
            damage(lab, "scheduler-kubeconfig", "scheduler.conf");
        }),
        ("a leaf has another key, and its checksum", false, |lab| {
            let other = leaf(lab, "api-server-kubelet-client-certificate").clone();
            let other = crate::tenant::objects::data(&other);
            let secret = leaf(lab, "front-proxy-client-certificate");
            let data = secret.data.as_mut().unwrap();
            let key = ByteString(other["apiserver-kubelet-client.key"].clone());
            data.insert("front-proxy-client.key".to_owned(), key);
            let sum = crate::tenant::objects::checksum(&crate::tenant::objects::data(secret));
            let annotations = secret.metadata.annotations.as_mut().unwrap();
            annotations.insert(names::ANNOTATION_CHECKSUM.to_owned(), sum);
        }),
        ("a leaf is gone", false, |lab| {
            let name = "tenant-1-api-server-kubelet-client-certificate";
            lab.lose_secret(name);
        }),
        ("rotation is asked for", false, |lab| {
            let secret = leaf(lab, "api-server-certificate");
            let annotations = secret.metadata.annotations.as_mut().unwrap();
            annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
        }),
        ("it is reached at another address", false, moved),
        ("one that its certificate has already", false, |lab| {
            let network = &mut lab.spec().network_profile;
            network.cert_sans = vec!["10.0.0.11".to_owned()];
            rolled(lab);
            moved(lab);
        }),
        ("one that it does not announce", false, |lab| {
            let network = &mut lab.spec().network_profile;
            network.advertise_address = Some("198.51.100.4".to_owned());
            rolled(lab);
            moved(lab);
        }),
        ("one after an unrelated change of the spec", true, |lab| {
            let service = &mut lab.spec().control_plane.service;
            let labels = &mut service.additional_metadata.get_or_insert_default().labels;
            labels.insert("a".to_owned(), "b".to_owned());
            lab.pass();
            lab.pass();
            assert_eq!(noted(lab, names::ANNOTATION_GENERATION), Some("1"));
            upgrade(lab);
        }),
        ("one with what the spec asks for", false, |lab| {
            upgrade(lab);
            lab.spec().kubernetes.version = "v1.36.4".to_owned();
        }),
        ("the spec", false, |lab| {
            lab.spec().kubernetes.version = "v1.36.4".to_owned();
        }),
        ("the replicas", false, |lab| {
            lab.spec().control_plane.deployment.replicas = 3;
        }),
        ("somebody has changed the pods", false, |lab| {
            let deployment = lab.deployment_mut();
            let template = &mut deployment.spec.as_mut().unwrap().template;
            template.spec.as_mut().unwrap().host_network = Some(true);
        }),
        ("somebody has taken an argument away", false, |lab| {
            let deployment = lab.deployment_mut();
            let template = &mut deployment.spec.as_mut().unwrap().template;
            let containers = &mut template.spec.as_mut().unwrap().containers;
            containers[0].args.as_mut().unwrap().pop();
        }),
        ("the Deployment is gone", false, |lab| {
            lab.lose_deployment();
        }),
        ("lost keys are replaced as somebody asked", false, |lab| {
            lab.lose_secret("tenant-1-sa-certificate");
            let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
            annotations.insert(
                names::ANNOTATION_REPLACE_LOST_KEYS.to_owned(),
                "tenant-1-sa-certificate".to_owned(),
            );
        }),
    ];
    for (case, waits, change) in table {
        let mut lab = Lab::ready();
        lab.turn = Turn::Waits(Wait::ForOthers);
        change(&mut lab);
        let plan = lab.plan();
        assert_eq!(plan.roll.is_some(), waits, "{case}: {plan}");
        assert_eq!(written(&plan).is_none(), waits, "{case}: {plan}");
        // The same for a later pass, or another controller, that finds the Secrets
        // written and the Deployment as before.
        for step in &plan.steps {
            let of = |object: &Object| object.kind() == ObjectKind::Deployment;
            if !matches!(step, Step::Create(object) | Step::Apply(object) if of(object)) {
                lab.carry_out(step);
            }
        }
        let plan = lab.plan();
        assert_eq!(written(&plan).is_none(), waits, "{case}, later: {plan}");
    }
}

/// The Service is given another address.
fn moved(lab: &mut Lab) {
    let service = lab.service_mut();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.11".to_owned());
    lab.world.probe = Default::default();
}

/// A Secret of certificates, to be changed.
fn leaf<'a>(lab: &'a mut Lab, part: &str) -> &'a mut Secret {
    let name = format!("tenant-1-{part}");
    lab.secret_mut(&name)
}

/// Somebody writes nonsense into a Secret.
fn damage(lab: &mut Lab, part: &str, key: &str) {
    let data = leaf(lab, part).data.as_mut().unwrap();
    data.insert(key.to_owned(), ByteString(b"nonsense".to_vec()))
        .unwrap();
}

/// A rotation is seen while its pods are rolled, and is nobody else's business: the next
/// renewal for age waits again.
#[test]
fn a_rotation_rolls_at_once_and_the_next_renewal_in_turn() {
    let mut lab = Lab::ready();
    lab.turn = Turn::Waits(Wait::ForOthers);
    let secret = leaf(&mut lab, "scheduler-kubeconfig");
    let annotations = secret.metadata.annotations.as_mut().unwrap();
    annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
    let plan = lab.pass();
    assert!(written(&plan).is_some() && plan.roll.is_none(), "{plan}");
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    lab.run_pods();
    lab.later(5);
    lab.probe(Ok(()));
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "False AsExpected");
    assert!(lab.plan().steps.is_empty(), "{}", lab.plan());
    lab.later(343 * 24 * 3600);
    let plan = lab.pass();
    assert!(written(&plan).is_none() && plan.roll.is_some(), "{plan}");
    let noted = |lab: &mut Lab| {
        let meta = &leaf(lab, "scheduler-kubeconfig").metadata;
        crate::tenant::objects::annotation(meta, names::ANNOTATION_OWN_CAUSE).map(str::to_owned)
    };
    assert_eq!(noted(&mut lab), None, "it is gone with what it was about");
}

/// A tenant that waited may be changed by its user, and is not held up by it.
#[test]
fn a_change_of_the_spec_ends_the_wait() {
    let mut lab = Lab::ready();
    upgrade(&mut lab);
    lab.turn = Turn::Waits(Wait::ForOthers);
    lab.pass();
    lab.pass();
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollWaiting");
    lab.spec().kubernetes.version = "v1.36.4".to_owned();
    let plan = lab.pass();
    assert!(written(&plan).is_some() && plan.roll.is_none(), "{plan}");
    assert_eq!(lab.condition(kind::PROGRESSING), "True RollingOut");
    let older = lab.world.tenant.metadata.generation.map(|it| it - 1);
    assert_eq!(said(&lab, kind::READY).observed_generation, older);
}

/// What a release of before has left: nothing is noted on the Deployment.
fn of_a_release_of_before() -> Lab {
    let mut lab = Lab::ready();
    let deployment = lab.deployment_mut();
    let annotations = deployment.metadata.annotations.as_mut().unwrap();
    for name in [
        names::ANNOTATION_TEMPLATE,
        names::ANNOTATION_GENERATION,
        names::ANNOTATION_DATA_STORE,
    ] {
        annotations.remove(name).unwrap();
    }
    annotations.insert(names::ANNOTATION_APPLIED.to_owned(), "other".to_owned());
    lab
}

#[test]
fn the_first_release_that_notes_it_rolls_nobody() {
    let mut lab = of_a_release_of_before();
    lab.turn = Turn::Waits(Wait::ForOthers);
    let before = live(&lab).spec.clone();
    let plan = lab.pass();
    assert!(plan.roll.is_none(), "{plan}");
    assert_eq!(live(&lab).spec, before);
    assert!(noted(&lab, names::ANNOTATION_DATA_STORE).is_some());
    assert!(lab.plan().steps.is_empty(), "{}", lab.plan());

    // If it does have other pods, they wait for their turn.
    let mut lab = of_a_release_of_before();
    lab.turn = Turn::Waits(Wait::ForOthers);
    upgrade(&mut lab);
    let plan = lab.plan();
    assert!(plan.is_quiet() && plan.roll.is_some(), "{plan}");

    // And a change of the DataStore meanwhile is seen by what the pods run with.
    let mut lab = of_a_release_of_before();
    endpoints(&mut lab, WRONG);
    lab.pass();
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
    assert!(lab.world.deployment().is_some_and(|live| {
        let text = serde_json::to_string(live).unwrap();
        text.contains(":2379") && !text.contains(WRONG)
    }));
}

/// Certificates are renewed when three weeks and more are left of them; no pod runs with
/// one that ended.
#[test]
fn a_renewed_certificate_does_not_wait_until_the_old_one_ends() {
    const DAY: i64 = 24 * 3600;
    let mut lab = Lab::ready();
    lab.turn = Turn::Waits(Wait::ForOthers);
    let end = lab
        .world
        .now
        .checked_add(jiff::SignedDuration::from_hours(365 * 24));
    let end = end.unwrap();
    lab.later(343 * DAY);
    let plan = lab.pass();
    let by = plan.roll.unwrap().by.unwrap();
    let wait = by.duration_since(lab.world.now).as_hours() / 24;
    assert!((6..=7).contains(&wait), "{wait} days");
    assert!(brief(&plan).contains("apply Secret"), "{}", brief(&plan));
    assert!(written(&plan).is_none(), "{}", brief(&plan));

    // Also for a later pass, or another controller, that finds the new ones there: what
    // counts is what the pods run with.
    let plan = lab.plan();
    assert_eq!(plan.roll.unwrap().by, Some(by));
    assert_eq!(end.duration_since(by).as_hours(), 15 * 24);
    assert!(plan.revisit.unwrap() <= by);
    let left = by.duration_since(lab.world.now).as_secs();
    lab.later(left - 60);
    assert!(written(&lab.plan()).is_none());
    lab.later(60);
    let plan = lab.pass();
    assert!(written(&plan).is_some(), "{}", brief(&plan));

    // The controller was away: there is nothing left to wait with.
    let mut lab = Lab::ready();
    lab.turn = Turn::Waits(Wait::ForOthers);
    lab.later(364 * DAY);
    assert!(written(&lab.pass()).is_some());
}

/// It worked while the first tenants were rolled, and does not any more.
#[test]
fn what_works_no_more_is_given_to_no_further_pods() {
    let mut lab = Lab::ready();
    endpoints(&mut lab, "other:2379");
    works(&mut lab);
    lab.world.store.health = Some(Err(refused()));
    let plan = lab.pass();
    assert!(written(&plan).is_none(), "{}", brief(&plan));
    let told = lab.condition(kind::DATA_STORE_READY);
    assert_eq!(told, "False DataStoreChangeNotVerified");
    lab.world.store.health = Some(Ok(Default::default()));
    assert!(written(&lab.pass()).is_some());
}

/// A database that knows nothing of a tenant that was Ready is the wrong one: a claim
/// there would be the beginning of an empty cluster.
#[test]
fn an_empty_database_is_no_place_for_a_tenant_that_was_ready() {
    let grants = |plan: &Plan| plan.steps.iter().any(|it| matches!(it, Step::Grant(_)));
    let mut lab = Lab::ready();
    lab.world.store.access = Some(AccessFact::Unclaimed);
    let plan = lab.pass();
    assert!(
        !grants(&plan) && written(&plan).is_none(),
        "{}",
        brief(&plan)
    );
    assert_eq!(lab.condition(kind::DATA_STORE_READY), "False DataNotFound");
    // Its pods may serve from where its data is: that is for the probe to say.
    assert_eq!(lab.condition(kind::READY), "True Ready");

    // Another uid is another tenant's word.
    let word = names::ANNOTATION_START_EMPTY;
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    annotations.insert(word.to_owned(), "another".to_owned());
    assert!(!grants(&lab.plan()));
    let uid = lab.world.uid().to_owned();
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    annotations.insert(word.to_owned(), uid);
    assert!(grants(&lab.plan()));

    // Who was never Ready has nothing to lose.
    let mut lab = Lab::new();
    lab.world.store.access = Some(AccessFact::Unclaimed);
    assert!(grants(&lab.plan()), "{}", brief(&lab.plan()));
}

/// What an owner changes is the owner's doing: if the tenant is in trouble after that, no
/// other waits for it.
#[test]
fn a_change_of_the_spec_gives_the_place_back() {
    let mut lab = Lab::ready();
    upgrade(&mut lab);
    rolled(&mut lab);
    assert!(noted(&lab, names::ANNOTATION_ROLL).is_some());
    lab.spec()
        .control_plane
        .deployment
        .registry_settings
        .api_server_image = "mine".to_owned();
    assert!(written(&lab.pass()).is_some());
    assert!(noted(&lab, names::ANNOTATION_ROLL).is_none());
}

/// What our annotations say is believed, so they are not for everybody to write: a place
/// that nobody was given would keep others from theirs.
#[test]
fn keys_of_ours_in_additional_metadata_are_left_out() {
    let ours = |of: &ObjectMeta| -> Vec<String> {
        let labels = of.labels.iter().flat_map(|it| it.keys());
        let annotations = of.annotations.iter().flat_map(|it| it.keys());
        let mut keys: Vec<String> = labels.chain(annotations).cloned().collect();
        keys.retain(|key| key != "example.com/a");
        keys
    };
    let metadata = |lab: &Lab| {
        let live = live(lab);
        let template = &live.spec.as_ref().unwrap().template;
        let service = lab.world.service().unwrap();
        let pods = template.metadata.clone().unwrap();
        [live.metadata.clone(), pods, service.metadata.clone()]
    };
    let wanted = metadata(&Lab::ready()).each_ref().map(ours);

    let roll = format!("{} ready", crate::tenant::testing::start());
    let pairs = [
        (names::ANNOTATION_ROLL, roll.as_str()),
        (names::ANNOTATION_CERTIFICATES_END, "2000-01-01T00:00:00Z"),
        ("component.steward.butlerlabs.dev/more", "b"),
        ("example.com/a", "b"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let given = Some(AdditionalMetadata {
        labels: pairs.clone().into(),
        annotations: pairs.into(),
    });
    let mut lab = Lab::new();
    let plane = &mut lab.spec().control_plane;
    plane.deployment.additional_metadata = given.clone();
    plane.deployment.pod_additional_metadata = given.clone();
    plane.service.additional_metadata = given;
    for _ in 0..5 {
        lab.pass();
    }
    let found = metadata(&lab);
    assert_eq!(found.each_ref().map(ours), wanted);
    assert!(Roll::of(live(&lab)).is_none());
    for one in found {
        let annotation = crate::tenant::objects::annotation(&one, "example.com/a");
        assert_eq!(annotation, Some("b"), "others are added");
        assert_eq!(one.labels.unwrap()["example.com/a"], "b");
    }
}
