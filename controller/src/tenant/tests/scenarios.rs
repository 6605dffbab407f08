//! Lives of tenants as the plans they lead to. The golden files under
//! `golden/` are meant to be read: each is one story.

use std::sync::Arc;

use apiservice::condition::tenant as condition;
use apiservice::names;
use apiservice::v1alpha1::{Driver, ServiceType};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Secret, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::{AccessFact, CredentialsFact, StoreProblem, StoreProblemKind};
use crate::tenant::plan::{Claim, Grant, Object, Step};
use crate::tenant::testing::{Lab, brief, golden};
use crate::tenant::world::ProbeFailureKind;

fn granting(claim: Claim) -> Step {
    Step::Grant(Grant {
        claim,
        password: None,
    })
}

/// Runs passes and writes down each plan in short and what is told after it.
struct Story {
    lab: Lab,
    text: String,
}

impl Story {
    fn of(lab: Lab) -> Self {
        Story {
            lab,
            text: String::new(),
        }
    }

    fn pass(&mut self, title: &str) {
        let plan = self.lab.pass();
        self.text.push_str(&format!(
            "== {title}\n{}{}\n",
            brief(&plan),
            self.lab.told()
        ));
    }

    fn end(self, name: &str) {
        golden(name, &self.text);
    }
}

#[test]
fn a_fresh_tenant() {
    let mut lab = Lab::new();
    let mut text = String::new();
    for (number, title) in ["nothing is there", "the Service has its address", "waiting"]
        .iter()
        .enumerate()
    {
        let plan = lab.pass();
        text.push_str(&format!(
            "== pass {}: {title}\n{plan}{}\n",
            number + 1,
            lab.told()
        ));
    }
    lab.run_pods();
    lab.later(5);
    lab.probe(Ok(()));
    let plan = lab.pass();
    text.push_str(&format!("== the probe has passed\n{plan}{}\n", lab.told()));
    golden("fresh", &text);
}

#[test]
fn everything_is_planned_as_early_as_possible() {
    let mut lab = Lab::new();
    let first = lab.pass();
    let granted = first
        .steps
        .iter()
        .any(|step| matches!(step, Step::Grant(_)));
    assert!(
        granted,
        "the grant does not wait for the address:\n{}",
        brief(&first)
    );
    let second = lab.pass();
    let deployed = second.steps.iter().any(|step| {
        matches!(step, Step::Create(object) if matches!(object.as_ref(), Object::Deployment(_)))
    });
    assert!(deployed, "two passes lead to pods:\n{}", brief(&second));

    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
}

#[test]
fn credentials_come_after_the_grant() {
    let plan = Lab::new().plan();
    let stage = |wanted: &str| {
        let step = plan
            .steps
            .iter()
            .find(|step| step.to_string().contains(wanted));
        step.unwrap_or_else(|| panic!("no {wanted}")).stage()
    };
    let grant = stage("claim and grant");
    assert!(grant < stage("create Secret tenants/tenant-1-datastore-certificate"));
    assert!(
        stage("add the finalizer") < grant,
        "what is granted must be taken back"
    );
}

/// rule 17: what the status says is not enough to be given a certificate.
#[test]
fn no_certificate_for_names_that_only_the_status_knows() {
    let mut lab = Lab::ready();
    lab.world.store.access = None;
    lab.lose_secret("tenant-1-datastore-certificate");
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    lab.world.store.access = Some(AccessFact::Granted);
    assert!(brief(&lab.plan()).contains("create Secret tenants/tenant-1-datastore-certificate"));
}

/// Writes names into status as anybody may who can update it.
fn forge(lab: &mut Lab, name: &str) {
    let status = lab.tenant().status.as_mut().unwrap();
    let storage = status.storage.as_mut().unwrap();
    storage.data_store_name = Some("elsewhere".to_owned());
    let setup = storage.setup.as_mut().unwrap();
    setup.schema = Some(name.to_owned());
    setup.user = Some(name.to_owned());
}

/// rule 17: status is a report, and is put right.
#[test]
fn names_in_status_move_nothing_and_are_put_right() {
    let mut lab = Lab::ready();
    let right = lab.world.tenant.status.clone().unwrap().storage.unwrap();
    forge(&mut lab, "other_tenant");
    assert!(lab.plan().steps.is_empty(), "{}", lab.plan());
    lab.pass();
    let storage = lab.world.tenant.status.clone().unwrap().storage.unwrap();
    assert_eq!(storage.data_store_name, right.data_store_name);
    let names = |it: apiservice::v1alpha1::StorageStatus| it.setup.map(|it| (it.schema, it.user));
    assert_eq!(names(storage), names(right));

    // The same while the database is away.
    forge(&mut lab, "other_tenant");
    lab.world.store.health = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "no answer".to_owned(),
    }));
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
}

/// rule 17, after a restart of the controller: nothing is rolled before the
/// claim of this uid is known, also if something else would roll the pods.
#[test]
fn until_the_claim_is_found_what_is_there_stays() {
    let mut lab = Lab::ready();
    let held = lab.world.store.held.clone();
    lab.world.store.held = None;
    lab.world.store.access = None;
    forge(&mut lab, "other_tenant");
    lab.spec().kubernetes.version = "1.37.0".to_owned();
    for health in [
        None,
        Some(Ok(Default::default())),
        Some(Err(StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: "no answer".to_owned(),
        })),
    ] {
        lab.world.store.health = health;
        let plan = lab.plan().to_string();
        for word in ["Deployment", "datastore-config", "claim and grant"] {
            assert!(!plan.contains(word), "{word}:\n{plan}");
        }
    }
    // A claim of somebody else is no claim of this tenant's.
    let mut other = held.clone().unwrap();
    other.claim.uid = "another".to_owned();
    lab.world.store.held = Some(other);
    assert!(!lab.plan().to_string().contains("Deployment"));

    lab.world.store.health = Some(Ok(Default::default()));
    lab.world.store.held = held;
    let plan = lab.plan().to_string();
    assert!(plan.contains("Deployment"), "{plan}");
    assert!(plan.contains("--etcd-prefix=/tenants_tenant_1"), "{plan}");
    assert!(!plan.contains("other_tenant"), "{plan}");
}

/// rule 17: the claim also outranks the spec and the names made from metadata.
#[test]
fn pods_are_given_the_names_of_the_claim() {
    let mut lab = Lab::new();
    let mut claim = claim::wished(&lab.world.tenant, Driver::Etcd);
    claim.schema = "claimed".to_owned();
    claim.user = "claimant".to_owned();
    lab.carry_out(&granting(claim));
    lab.pass();
    let plan = lab.plan().to_string();
    assert!(plan.contains("--etcd-prefix=/claimed"), "{plan}");
    let status = lab.world.tenant.status.clone().unwrap();
    let setup = status.storage.unwrap().setup.unwrap();
    assert_eq!(setup.user.as_deref(), Some("claimant"));
}

/// rules 17 and 18: a deletion asks for what this uid holds.
#[test]
fn a_deletion_does_not_follow_names_in_status() {
    for known in [true, false] {
        let mut lab = Lab::ready();
        forge(&mut lab, "other_tenant");
        if !known {
            lab.world.store.held = None;
            lab.world.store.access = None;
        }
        lab.tenant().metadata.deletion_timestamp = Some(Time(crate::tenant::testing::start()));
        lab.lose_deployment();
        lab.world.pods.clear();
        let plan = lab.plan();
        let released = plan.steps.iter().find_map(|step| match step {
            Step::ReleaseClaim(claim) => Some(claim),
            _ => None,
        });
        assert_eq!(released.unwrap().schema, "tenants_tenant_1", "{plan}");
    }
}

#[test]
fn a_quiet_tenant_is_left_alone() {
    let mut lab = Lab::ready();
    assert_eq!(lab.condition(condition::READY), "True Ready");
    let before = lab.world.tenant.status.clone();
    for _ in 0..3 {
        lab.later(60);
        let plan = lab.pass();
        assert!(plan.steps.is_empty(), "{plan}");
    }
    assert_eq!(
        before, lab.world.tenant.status,
        "the status is not rewritten"
    );
}

#[test]
fn load_balancers() {
    let mut lab = Lab::new();
    lab.spec().control_plane.service.service_type = ServiceType::LoadBalancer;
    let mut story = Story::of(lab);
    story.pass("created");
    story.pass("the load balancer is silent");
    story.lab.later(20);
    story.pass("it stays silent");
    let balanced = |ip: Option<&str>, hostname: Option<&str>| ServiceStatus {
        load_balancer: Some(LoadBalancerStatus {
            ingress: Some(vec![LoadBalancerIngress {
                ip: ip.map(str::to_owned),
                hostname: hostname.map(str::to_owned),
                ..LoadBalancerIngress::default()
            }]),
        }),
        ..ServiceStatus::default()
    };
    story.lab.service_mut().status = Some(balanced(None, Some("lb.example.com")));
    story.pass("it gives a host name");
    story.lab.service_mut().status = Some(balanced(Some("192.0.2.1"), None));
    story.pass("it gives an address instead: certificate, kubeconfigs and pods follow");
    story.end("load_balancer");
}

#[test]
fn the_data_store_is_missing() {
    let mut lab = Lab::new();
    lab.spec().data_store = Some("gold".to_owned());
    let store = lab.world.data_store.take();
    lab.world.data_stores_known = false;
    let mut story = Story::of(lab);
    story.pass("DataStores are being read");
    story.lab.world.data_stores_known = true;
    story.pass("it does not exist");
    story.lab.world.data_store = store;
    story.pass("it appears");
    story.end("data_store_missing");
}

#[test]
fn a_secret_of_the_data_store_is_missing() {
    let mut lab = Lab::new();
    let known = std::mem::replace(
        &mut lab.world.store.credentials,
        CredentialsFact::Missing {
            what: "Secret steward-system/etcd-certs does not exist".to_owned(),
            remedy: "create it with ca.crt, ca.key, tls.crt and tls.key".to_owned(),
        },
    );
    let mut story = Story::of(lab);
    story.pass("the Secret is not there");
    story.lab.world.store.credentials = known;
    story.pass("it appears");
    story.end("secret_missing");
}

#[test]
fn the_database_is_down_at_the_start() {
    let mut lab = Lab::new();
    lab.world.store.health = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "dial tcp 10.0.0.3:2379: connection refused".to_owned(),
    }));
    let mut story = Story::of(lab);
    story.pass("no answer");
    story.lab.world.store.health = None;
    story.pass("it is back");
    story.end("data_store_down");
}

#[test]
fn names_that_belong_to_another_tenant() {
    let mut lab = Lab::new();
    lab.world.store.access = Some(AccessFact::Taken {
        by: "tenants/tenant_1 (uid 7)".to_owned(),
    });
    let mut story = Story::of(lab);
    story.pass("another uid has claimed the schema");
    let signed = |step: &Step| {
        matches!(step, Step::Create(object)
        if object.meta().name.as_deref() == Some("tenant-1-datastore-certificate"))
    };
    assert!(
        !story.lab.plan().steps.iter().any(signed),
        "nothing is signed for a taken name"
    );
    story.end("schema_taken");
}

/// Whoever may see this tenant may not be one to know of those of other namespaces.
#[test]
fn tenants_of_other_namespaces_are_not_named() {
    for (by, named) in [
        ("others/secret-project (uid 7)", false),
        ("tenants/b (uid 8)", true),
    ] {
        let told = |lab: &mut Lab| {
            lab.pass();
            serde_json::to_string(&lab.world.tenant.status).unwrap()
        };
        let name = by.split_once(' ').unwrap().0;
        let mut lab = Lab::new();
        lab.world.store.access = Some(AccessFact::Taken { by: by.to_owned() });
        assert_eq!(told(&mut lab).contains(name), named, "{by}");
        // The same as the answer to an attempt.
        let mut lab = Lab::new();
        let plan = lab.plan();
        let said = format!("{}{by}", crate::tenant::backing::store::TAKEN);
        let refused = plan.steps.iter().map(|step| match step {
            Step::Grant(_) => crate::tenant::Outcome::Failed {
                reason: apiservice::condition::reason::SCHEMA_TAKEN.to_owned(),
                message: said.clone(),
                retry: false,
                finding: None,
            },
            _ => crate::tenant::Outcome::NotReached,
        });
        lab.report(&plan, &refused.collect::<Vec<_>>());
        let status = serde_json::to_string(&lab.world.tenant.status).unwrap();
        assert!(status.contains("SchemaTaken"), "{status}");
        assert_eq!(status.contains(name), named, "{by}");
    }
}

/// A DataStore goes with its last tenant: it gets no further ones.
#[test]
fn a_data_store_that_is_being_deleted_takes_no_new_tenants() {
    let mut lab = Lab::new();
    let mut store = lab.world.data_store.as_deref().unwrap().clone();
    store.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let store = Arc::new(store);
    lab.world.data_store = Some(store.clone());
    let waits = |lab: &Lab| {
        lab.plan().steps.iter().any(|step| {
            matches!(step, Step::Wait(waiting) if waiting.message.contains("is being deleted"))
        })
    };
    assert!(waits(&lab));
    assert!(
        !lab.plan()
            .steps
            .iter()
            .any(|step| matches!(step, Step::Grant(_)))
    );
    // One that has its data there goes on.
    let mut lab = Lab::ready();
    lab.world.data_store = Some(store);
    assert!(!waits(&lab));
}

/// Deleted while its datastore was away, and made again: other names would stay.
#[test]
fn names_of_the_former_tenant_of_the_name_come_back_by_themselves() {
    let mut lab = Lab::new();
    lab.world.store.access = Some(AccessFact::Taken {
        by: "tenants/tenant-1 (uid 7)".to_owned(),
    });
    let waits = lab.plan().steps.iter().find_map(|step| match step {
        Step::Wait(waiting) => Some(waiting.message.clone()),
        _ => None,
    });
    let message = waits.unwrap();
    assert!(message.contains("There is nothing to set"), "{message}");
    assert!(!message.contains("dataStoreSchema"), "{message}");
}

#[test]
fn sleep_and_wake() {
    let mut story = Story::of(Lab::ready());
    story.lab.spec().control_plane.deployment.replicas = 0;
    story.pass("replicas 0");
    story.lab.run_pods();
    story
        .lab
        .probe(Err((ProbeFailureKind::Refused, "connection refused")));
    story.pass("asleep");
    story.lab.spec().control_plane.deployment.replicas = 1;
    story.pass("woken");
    story.lab.run_pods();
    story.lab.later(3);
    story.lab.probe(Ok(()));
    story.pass("awake");
    story.end("sleeping");
}

/// What may happen to a tenant.
#[derive(Clone, Copy, Debug)]
enum Turn {
    SleepOrWake,
    OtherVersion,
    CreatedAgain,
}

/// The world goes on: pods follow the Deployment, and the probe asks what the
/// tenant's storage holds.
fn rest(lab: &mut Lab) {
    lab.pass();
    for _ in 0..2 {
        lab.run_pods();
        lab.later(5);
        if lab.world.pods.is_empty() {
            lab.world.probe = Default::default();
        } else if lab.bind() {
            lab.probe(Ok(()));
        } else {
            let said = "User \"steward:bootstrap\" cannot patch resource \"clusterroles\"";
            lab.probe(Err((ProbeFailureKind::Forbidden, said)));
        }
        lab.pass();
    }
}

fn born(replicas: i32) -> Lab {
    let mut lab = Lab::new();
    lab.spec().control_plane.deployment.replicas = replicas;
    lab.pass();
    lab.pass();
    lab
}

/// A first start is known by what ran, not by what was recorded: every order of
/// sleep, wake, version and re-creation comes up.
#[test]
fn every_order_of_turns_comes_up() {
    use Turn::{CreatedAgain, OtherVersion, SleepOrWake};
    let orders = [
        [SleepOrWake, SleepOrWake, OtherVersion, CreatedAgain],
        [SleepOrWake, SleepOrWake, CreatedAgain, OtherVersion],
        [SleepOrWake, OtherVersion, SleepOrWake, CreatedAgain],
        [SleepOrWake, OtherVersion, CreatedAgain, SleepOrWake],
        [SleepOrWake, CreatedAgain, SleepOrWake, OtherVersion],
        [SleepOrWake, CreatedAgain, OtherVersion, SleepOrWake],
        [OtherVersion, SleepOrWake, SleepOrWake, CreatedAgain],
        [OtherVersion, SleepOrWake, CreatedAgain, SleepOrWake],
        [OtherVersion, CreatedAgain, SleepOrWake, SleepOrWake],
        [CreatedAgain, SleepOrWake, SleepOrWake, OtherVersion],
        [CreatedAgain, SleepOrWake, OtherVersion, SleepOrWake],
        [CreatedAgain, OtherVersion, SleepOrWake, SleepOrWake],
    ];
    for (birth, resting) in [(0, true), (1, false)] {
        let birth = born(birth);
        for order in orders {
            every_turn(&birth, &order, resting);
        }
    }
}

fn every_turn(birth: &Lab, order: &[Turn], resting: bool) {
    let mut lab = birth.clone();
    for turn in order {
        match turn {
            Turn::SleepOrWake => {
                let replicas = &mut lab.spec().control_plane.deployment.replicas;
                *replicas = 1 - *replicas;
            }
            Turn::OtherVersion => lab.spec().kubernetes.version = "v1.36.4".to_owned(),
            Turn::CreatedAgain => lab = birth.clone(),
        }
        lab.pass();
        if resting {
            rest(&mut lab);
        }
    }
    lab.spec().control_plane.deployment.replicas = 1;
    rest(&mut lab);
    let told = format!("{order:?} resting {resting}\n{}", lab.told());
    assert_eq!(lab.condition(condition::READY), "True Ready", "{told}");
    let wanted = &lab.world.tenant.spec.kubernetes.version;
    assert!(told.contains(&format!("installed {wanted}")), "{told}");
}

/// A slip can be taken back, for what was wanted asleep did not run.
#[test]
fn a_version_that_was_wanted_asleep_is_not_installed() {
    let mut lab = Lab::ready();
    lab.spec().control_plane.deployment.replicas = 0;
    rest(&mut lab);
    lab.spec().kubernetes.version = "v1.36.99".to_owned();
    rest(&mut lab);
    assert!(lab.told().contains("installed v1.36.3"), "{}", lab.told());
    // It is woken, and there is no such image.
    lab.spec().control_plane.deployment.replicas = 1;
    lab.pass();
    lab.run_pods();
    unready(&mut lab);
    lab.later(5);
    lab.probe(Err((ProbeFailureKind::Refused, "connection refused")));
    lab.pass();
    assert!(lab.told().contains("installed v1.36.3"), "{}", lab.told());
}

/// Its API server has written, so its version counts, Ready or not.
#[test]
fn a_version_that_ran_is_installed_though_the_tenant_was_not_ready_with_it() {
    let mut lab = Lab::ready();
    lab.spec().kubernetes.version = "v1.37.0".to_owned();
    lab.pass();
    let old = lab.world.pods.clone();
    lab.run_pods();
    lab.world.pods.extend(old);
    lab.later(5);
    lab.probe(Err((ProbeFailureKind::TimedOut, "i/o timeout")));
    lab.pass();
    assert!(
        lab.told().contains("NotReady, installed v1.37.0"),
        "{}",
        lab.told()
    );
}

fn unready(lab: &mut Lab) {
    for pod in &mut lab.world.pods {
        let status = Arc::make_mut(pod).status.as_mut().unwrap();
        status.conditions.as_mut().unwrap()[0].status = "False".to_owned();
    }
}

/// What a tenant that was created asleep has from an older version of Steward:
/// a version that never ran.
#[test]
fn a_version_that_was_recorded_for_a_tenant_that_never_ran_is_not_believed() {
    let mut lab = born(0);
    let status = lab.tenant().status.as_mut().unwrap();
    let resources = status.kubernetes_resources.as_mut().unwrap();
    resources.version.as_mut().unwrap().version = Some("v1.36.3".to_owned());
    let newer = [condition::PROGRESSING, condition::RECONCILING];
    status
        .conditions
        .retain(|it| !newer.contains(&it.type_.as_str()));
    assert!(!lab.world.was_ready());
    lab.later(3600);
    lab.spec().control_plane.deployment.replicas = 1;
    rest(&mut lab);
    assert_eq!(lab.condition(condition::READY), "True Ready");
    lab.spec().control_plane.deployment.replicas = 0;
    rest(&mut lab);
    assert!(lab.world.was_ready(), "it ran: {}", lab.told());
}

/// Writes a version into status as anybody may who can update it.
fn forge_version(lab: &mut Lab, version: Option<&str>) {
    let status = lab.tenant().status.as_mut().unwrap();
    let resources = status.kubernetes_resources.as_mut().unwrap();
    resources.version.as_mut().unwrap().version = version.map(str::to_owned);
}

fn said_version(lab: &Lab) -> Option<String> {
    let status = lab.world.tenant.status.clone().unwrap();
    status.installed_version().map(str::to_owned)
}

/// Rules 17 and 19: whether keys and an empty database may be made depends on whether the
/// tenant ran, and which versions may come next on the one that ran. Status only repeats it.
#[test]
fn a_version_in_status_moves_nothing_and_is_put_right() {
    for asleep in [false, true] {
        for forged in [None, Some("v1.99.0"), Some("v1.20.0"), Some("x")] {
            let mut lab = Lab::ready();
            if asleep {
                lab.spec().control_plane.deployment.replicas = 0;
                rest(&mut lab);
            }
            forge_version(&mut lab, forged);
            assert!(lab.world.was_ready(), "asleep {asleep}, {forged:?}");
            assert!(lab.plan().steps.is_empty(), "{}", lab.plan());
            let mut keyless = lab.clone();
            keyless.lose_secret("tenant-1-ca");
            let plan = keyless.plan().to_string();
            assert!(
                !plan.contains("create Secret tenants/tenant-1-ca"),
                "{plan}"
            );
            lab.pass();
            assert_eq!(
                said_version(&lab).as_deref(),
                Some("v1.36.3"),
                "asleep {asleep}, {forged:?}"
            );
        }
    }
    let mut lab = born(0);
    forge_version(&mut lab, Some("v1.36.3"));
    assert!(!lab.world.was_ready());
    lab.pass();
    assert_eq!(said_version(&lab), None);
}

/// A policy of the management cluster pins images to digests, and no tag tells a version.
#[test]
fn what_earns_ready_is_noted_whatever_the_image_says() {
    for image in [
        "registry.k8s.io/kube-apiserver@sha256:0123456789abcdef",
        "registry.k8s.io/kube-apiserver:v1.36.3@sha256:0123456789abcdef",
    ] {
        let mut lab = Lab::new();
        for _ in 0..3 {
            lab.pass();
        }
        lab.run_pods();
        for pod in &mut lab.world.pods {
            let spec = Arc::make_mut(pod).spec.as_mut().unwrap();
            let server = spec
                .containers
                .iter_mut()
                .find(|it| it.name == "kube-apiserver");
            server.unwrap().image = Some(image.to_owned());
        }
        lab.later(5);
        lab.probe(Ok(()));
        lab.pass();
        lab.pass();
        assert_eq!(
            lab.condition(condition::READY),
            "True Ready",
            "{}",
            lab.told()
        );
        assert!(lab.world.was_ready(), "{image}");
        lab.lose_secret("tenant-1-ca");
        let plan = lab.plan().to_string();
        assert!(
            !plan.contains("create Secret tenants/tenant-1-ca"),
            "{plan}"
        );
    }
}

/// An earlier release has left no note: its status is believed, once.
#[test]
fn what_an_earlier_release_says_in_status_is_noted() {
    let mut lab = Lab::ready();
    let keys = [
        "ca",
        "sa-certificate",
        "front-proxy-ca-certificate",
        "client-ca",
    ];
    let names = keys.map(|key| format!("tenant-1-{key}"));
    for name in &names {
        let annotations = lab.secret_mut(name).metadata.annotations.as_mut().unwrap();
        assert_eq!(
            annotations.remove(names::ANNOTATION_RAN).as_deref(),
            Some("v1.36.3")
        );
    }
    assert!(lab.world.was_ready());
    lab.pass();
    forge_version(&mut lab, None);
    assert!(lab.world.was_ready());
    // One that somebody has changed is put right by the others, and takes nothing along.
    for name in &names {
        for changed in ["v1.99.0", "v1.1.0", ""] {
            lab.note_of(name, changed);
            let version = crate::tenant::ran::version(&lab.world);
            assert_eq!(version.as_deref(), Some("v1.36.3"), "{name} {changed:?}");
            lab.pass();
            assert_eq!(said_version(&lab).as_deref(), Some("v1.36.3"), "{name}");
            let annotations = lab.secret_mut(name).metadata.annotations.clone().unwrap();
            assert_eq!(annotations[names::ANNOTATION_RAN], "v1.36.3", "{name}");
        }
    }
}

/// A Secret that is paused is not written, and has the note of the day on which it was.
#[test]
fn what_a_paused_secret_remembers_outvotes_nobody() {
    for (paused, text) in [("ca", ""), ("ca", "v1.35.0"), ("client-ca", "v1.99.0")] {
        let mut lab = Lab::ready();
        let name = format!("tenant-1-{paused}");
        lab.note_of(&name, text);
        let annotations = lab.secret_mut(&name).metadata.annotations.as_mut().unwrap();
        annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
        assert!(lab.world.was_ready(), "{paused} {text:?}");
        lab.pass();
        assert_eq!(said_version(&lab).as_deref(), Some("v1.36.3"), "{paused}");
        // Where nobody else knows anything, it is believed.
        for key in [
            "ca",
            "sa-certificate",
            "front-proxy-ca-certificate",
            "client-ca",
        ] {
            if key != paused {
                let name = format!("tenant-1-{key}");
                let annotations = lab.secret_mut(&name).metadata.annotations.as_mut();
                annotations.unwrap().remove(names::ANNOTATION_RAN);
            }
        }
        assert_eq!(lab.world.was_ready(), !text.is_empty());
    }
}

/// Who is not sure that it never ran must not treat it so.
#[test]
fn one_that_knows_that_it_ran_is_believed() {
    let mut lab = Lab::ready();
    for key in ["ca", "sa-certificate", "front-proxy-ca-certificate"] {
        lab.note_of(&format!("tenant-1-{key}"), "");
    }
    assert!(lab.world.was_ready());
    // Half of them were written when a version began to run.
    for key in ["ca", "sa-certificate"] {
        lab.note_of(&format!("tenant-1-{key}"), "v1.36.3");
    }
    lab.note_of("tenant-1-front-proxy-ca-certificate", "v1.36.10");
    lab.note_of("tenant-1-client-ca", "v1.36.10");
    let version = crate::tenant::ran::version(&lab.world);
    assert_eq!(version.as_deref(), Some("v1.36.10"));
}

#[test]
fn pausing_stops_everything() {
    let mut lab = Lab::ready();
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
    lab.lose_all(ObjectKind::Service);
    let plan = lab.pass();
    assert!(plan.steps.is_empty(), "{plan}");
    assert_eq!(lab.condition(condition::PAUSED), "True Paused");
    // Nothing is being waited for.
    let mut without = lab.clone();
    without.lose_deployment();
    without.pass();
    assert_eq!(
        without.condition(condition::WORKLOAD_AVAILABLE),
        "False Paused"
    );
    lab.tenant().metadata.annotations = None;
    let plan = lab.pass();
    assert!(
        plan.steps.iter().any(
            |step| matches!(step, Step::Create(object) if object.kind() == ObjectKind::Service)
        )
    );
    assert_eq!(lab.condition(condition::PAUSED), "False AsExpected");
}

/// As a tenant is seen whose namespace was taken off the list of those with tenants.
fn unreached(lab: &mut Lab) {
    lab.world.unreached = Some("Namespace tenants is not in the list".to_owned());
    lab.world.owned = Default::default();
    lab.world.pods.clear();
    lab.world.replica_sets.clear();
}

#[test]
fn a_tenant_out_of_reach_is_left_alone_and_says_so() {
    let mut lab = Lab::ready();
    let before = lab.world.tenant.status.clone().unwrap();
    let seen = lab.world.clone();
    unreached(&mut lab);
    for _ in 0..2 {
        let plan = lab.pass();
        assert!(plan.steps.is_empty() && plan.roll.is_none(), "{plan}");
    }
    for part in &before.conditions {
        assert_eq!(lab.condition(&part.type_), "Unknown NamespaceNotServed");
    }
    assert!(
        lab.told().contains("not in the list: nothing is done"),
        "{}",
        lab.told()
    );
    // What was published stays, for who uses the tenant goes on with it.
    let after = lab.world.tenant.status.clone().unwrap();
    assert_eq!(after.control_plane_endpoint, before.control_plane_endpoint);
    assert_eq!(after.storage, before.storage);
    assert!(lab.world.was_ready());

    // On the list again, it is as it was: nothing is made anew.
    let tenant = lab.world.tenant.clone();
    lab.world = crate::tenant::World { tenant, ..seen };
    let plan = lab.pass();
    assert!(plan.is_quiet(), "{plan}");
    assert_eq!(
        lab.condition(condition::READY),
        "Unknown NamespaceNotServed",
        "until the probe has looked"
    );
    lab.later(5);
    lab.pass();
    assert_eq!(lab.condition(condition::READY), "True Ready");

    // One that never was anything.
    let mut fresh = Lab::new();
    unreached(&mut fresh);
    assert!(fresh.pass().steps.is_empty());
    assert_eq!(
        fresh.condition(condition::READY),
        "Unknown NamespaceNotServed"
    );
}

#[test]
fn a_tenant_out_of_reach_can_be_deleted() {
    let mut lab = Lab::ready();
    unreached(&mut lab);
    lab.pass();
    deleted(&mut lab);
    let plan = lab.plan();
    let touches = |step: &Step| matches!(step, Step::Delete { .. } | Step::DeleteBestEffort { .. });
    assert!(!plan.steps.iter().any(touches), "{plan}");
    let text = brief(&plan);
    for step in [
        "revoke",
        "record on DataStore default",
        "release the finalizer",
    ] {
        assert!(text.contains(step), "{step}:\n{text}");
    }
    // Its pods go on until the garbage collector finds them, and hold its certificate:
    // whoever has the names next must not meet them.
    assert!(
        !text.contains("drop the data") && !text.contains("release schema"),
        "{text}"
    );

    // Where the rights are missing it is the same.
    lab.world.pods_known = false;
    assert_eq!(brief(&lab.plan()), text);
}

fn deleted(lab: &mut Lab) {
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp = Some(Time(now));
    lab.world.deleting_since = Some(now);
}

#[test]
fn deletion() {
    let mut story = Story::of(Lab::ready());
    deleted(&mut story.lab);
    story.pass("deleted");
    story.pass("its pods have ended");
    story.pass("gone");
    story.end("deletion");
}

/// A DataStore that cannot be read is in no list: what is in it is not given up for that.
#[test]
fn a_deletion_gives_up_what_is_in_a_data_store_only_if_that_was_deleted() {
    use crate::tenant::deletion::taken_for_gone;
    let mut lab = Lab::ready();
    assert_eq!(taken_for_gone(&lab.world), None);
    lab.world.data_store = None;
    assert_eq!(taken_for_gone(&lab.world), None, "it is not being deleted");
    deleted(&mut lab);
    lab.world.pods.clear();
    lab.lose_deployment();
    assert_eq!(taken_for_gone(&lab.world).as_deref(), Some("default"));
    let gone = |lab: &Lab| lab.plan().to_string().contains("is gone");
    assert!(gone(&lab), "{}", lab.plan());
    lab.world.data_store_unseen = Some("it cannot be read".to_owned());
    assert_eq!(taken_for_gone(&lab.world), None);
    assert!(!gone(&lab), "{}", lab.plan());
    let steps = lab.plan().to_string();
    assert!(steps.contains("it cannot be read"), "{steps}");
}

/// rules 17 and 18: status may name any DataStore, or none. Until the claim is
/// known, every one is asked for it by uid.
#[test]
fn a_deletion_looks_for_its_claim_in_every_data_store() {
    use crate::tenant::backing::facts::Elsewhere;
    use crate::tenant::deletion::asked;
    let mut lab = Lab::ready();
    deleted(&mut lab);
    lab.world.pods.clear();
    lab.lose_deployment();
    assert_eq!(asked(&lab.world), ["default"]);

    forge(&mut lab, "nobody");
    lab.world.store.held = None;
    lab.world.store.access = None;
    lab.world.data_store = None;
    let at = |reach| Elsewhere {
        data_store: "default".to_owned(),
        reach,
    };
    let lets_go = |plan: &crate::tenant::plan::Plan| {
        let mut steps = plan.steps.iter();
        steps.any(|step| matches!(step, Step::ReleaseFinalizer))
    };
    lab.world.elsewhere = vec![at(None)];
    let plan = lab.plan();
    assert!(!lets_go(&plan), "it is not known who can be asked:\n{plan}");

    lab.world.elsewhere = vec![at(Some(Ok(())))];
    assert_eq!(asked(&lab.world), ["default"]);
    let plan = lab.plan();
    let text = brief(&plan);
    for step in ["revoke", "drop the data", "release schema"] {
        assert!(text.contains(step), "{step}:\n{text}");
    }
    assert!(lets_go(&plan));

    // What cannot be asked now is asked later.
    lab.world.elsewhere = vec![at(Some(Err("no answer".to_owned())))];
    assert!(asked(&lab.world).is_empty());
    let plan = lab.plan();
    let recorded = plan.steps.iter().any(
        |step| matches!(step, Step::DeferDeletion { data_store, .. } if data_store == "default"),
    );
    assert!(recorded && lets_go(&plan), "{plan}");
}

/// rule 18: an etcd that knows nothing of a tenant that has data is the wrong one. The
/// tenant goes all the same, and what it has is removed when the right one is back.
#[test]
fn a_deletion_in_the_wrong_database_is_made_up_for() {
    use crate::tenant::deletion::{asked, misses_claim};
    let recorded = |plan: &crate::tenant::plan::Plan| {
        plan.steps.iter().find_map(|step| match step {
            Step::DeferDeletion {
                data_store, known, ..
            } => Some((data_store.clone(), *known)),
            _ => None,
        })
    };
    let lets_go = |plan: &crate::tenant::plan::Plan| {
        let mut steps = plan.steps.iter();
        steps.any(|step| matches!(step, Step::ReleaseFinalizer))
    };
    let owed = Some(("default".to_owned(), true));
    let mut lab = Lab::ready();
    deleted(&mut lab);
    let mut restarted = lab.clone();
    restarted.world.store.held = None;
    for lab in [&mut lab, &mut restarted] {
        assert!(misses_claim(&lab.world), "to find none is no good news");
        lab.world.store.unclaimed = true;
        assert!(asked(&lab.world).is_empty());
        let plan = lab.plan();
        assert_eq!(recorded(&plan), owed, "{plan}");
        assert!(lets_go(&plan), "{plan}");
        assert!(!misses_claim(&lab.world), "once is enough");
    }

    // A database that does not answer may be the wrong one when it does.
    restarted.world.store.unclaimed = false;
    restarted.world.store.health = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "deadline exceeded".to_owned(),
    }));
    assert_eq!(recorded(&restarted.plan()), owed);
    // Nor does one help that is well, and fails at what is asked of it.
    let problem = restarted.world.store.health.replace(Ok(Default::default()));
    assert_eq!(recorded(&restarted.plan()), None);
    restarted.world.store.cleanup = problem.clone().and_then(Result::err);
    assert_eq!(recorded(&restarted.plan()), owed);
    restarted.world.store.health = problem;

    // One that never had a claim has nothing to miss.
    let mut lab = Lab::new();
    lab.world.store.health = restarted.world.store.health.clone();
    lab.carry_out(&Step::AddFinalizer);
    deleted(&mut lab);
    assert!(!misses_claim(&lab.world));
    assert_eq!(recorded(&lab.plan()), Some(("default".to_owned(), false)));
}

/// rule 18: what a try has left that was refused half-way is known to the database alone.
#[test]
fn a_tenant_that_was_refused_is_looked_for_when_it_is_deleted() {
    for access in [
        AccessFact::Refused("grant: access denied to user 'boss'".to_owned()),
        AccessFact::Taken {
            by: "tenants/other (uid 7)".to_owned(),
        },
    ] {
        let mut lab = Lab::new();
        lab.carry_out(&Step::AddFinalizer);
        lab.world.store.access = Some(access);
        lab.pass();
        deleted(&mut lab);
        assert!(lab.world.store.held.is_none());
        let plan = lab.plan();
        let searched: Vec<&str> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::RevokeAccess(_) => Some("revoke"),
                Step::DropData(_) => Some("drop"),
                Step::ReleaseClaim(_) => Some("release"),
                Step::ReleaseFinalizer => Some("go"),
                _ => None,
            })
            .collect();
        assert_eq!(searched, ["revoke", "drop", "release", "go"], "{plan}");
        // Where the database is away it is made up for, as of one of which nothing is known.
        lab.world.store.health = Some(Err(StoreProblem {
            kind: StoreProblemKind::Unreachable,
            message: "deadline exceeded".to_owned(),
        }));
        let plan = lab.plan();
        let recorded = |step: &Step| matches!(step, Step::DeferDeletion { known: false, .. });
        assert!(plan.steps.iter().any(recorded), "{plan}");
    }
}

/// The controller ends between the release of a claim and that of the finalizer. Whoever
/// finds no claim then is not to wait for one.
#[test]
fn a_claim_that_was_released_is_not_missed() {
    use crate::tenant::deletion::misses_claim;
    let mut lab = Lab::ready();
    deleted(&mut lab);
    lab.pass();
    let plan = lab.plan();
    let place = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
    let noted = place(|step| matches!(step, Step::NoteEmpty(_)));
    let dropped = place(|step| matches!(step, Step::DropData(_)));
    let released = place(|step| matches!(step, Step::ReleaseClaim(_)));
    assert!(dropped < noted && noted < released, "{plan}");
    let stages = [dropped, noted, released].map(|index| plan.steps[index].stage());
    assert!(stages[0] < stages[1] && stages[1] < stages[2]);
    for step in &plan.steps[..=released] {
        lab.carry_out(step);
    }
    let mut restarted = lab.clone();
    restarted.world.store.held = None;
    for lab in [lab, restarted] {
        assert!(!misses_claim(&lab.world));
        let plan = lab.plan();
        let goes = |step: &Step| matches!(step, Step::ReleaseFinalizer);
        assert!(plan.steps.iter().any(goes), "{plan}");
        let notes = |step: &Step| matches!(step, Step::NoteEmpty(_));
        assert!(!plan.steps.iter().any(notes), "once:\n{plan}");
    }
}

/// rule 18: whoever has the names next must not meet pods of this tenant.
#[test]
fn names_are_held_until_the_pods_have_ended() {
    let mut lab = Lab::ready();
    let pods = lab.world.pods.clone();
    deleted(&mut lab);
    let says = |lab: &Lab| {
        let plan = lab.plan();
        let gives = |step: &Step| {
            matches!(
                step,
                Step::DropData(_) | Step::ReleaseClaim(_) | Step::ReleaseFinalizer
            )
        };
        let revokes = |step: &Step| matches!(step, Step::RevokeAccess(_));
        assert!(plan.steps.iter().any(revokes), "{plan}");
        plan.steps.iter().filter(|step| gives(step)).count()
    };
    assert_eq!(says(&lab), 0);
    lab.pass();
    assert_eq!(says(&lab), 3, "the Deployment is gone and so are its pods");

    // They take their time, or nobody knows yet.
    lab.world.pods = pods.clone();
    assert_eq!(says(&lab), 0);
    lab.pass();
    assert_eq!(lab.condition(condition::DELETION_BLOCKED), "False Deleting");
    assert!(
        lab.told()
            .contains("The pods of the tenant have to end: 1 left")
    );
    lab.world.pods.clear();
    lab.world.pods_known = false;
    assert_eq!(says(&lab), 0);
    lab.world.pods_known = true;
    lab.world.replica_sets = vec![Default::default()];
    assert_eq!(says(&lab), 0, "it may make another pod");
    lab.world.replica_sets.clear();
    let mut ended = pods[0].as_ref().clone();
    ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    lab.world.pods = vec![Arc::new(ended)];
    assert_eq!(says(&lab), 3);

    // A node that is gone reports no end; the user is revoked.
    lab.world.pods = pods;
    lab.later(59);
    assert_eq!(says(&lab), 0);
    let end = lab.plan().revisit.unwrap();
    assert_eq!(end.duration_since(lab.world.now).as_secs(), 1);
    lab.later(1);
    assert_eq!(says(&lab), 3);
}

/// rule 17: nothing that was signed for the tenant of before is of use.
#[test]
fn a_tenant_created_again_has_another_user() {
    let lab = Lab::ready();
    let first = claim::claim(&lab.world);
    let mut heir = Lab::new();
    heir.tenant().metadata.uid = Some("another-uid".to_owned());
    let next = claim::claim(&heir.world);
    assert_eq!(first.schema, next.schema);
    assert_ne!(first.user, next.user);
    assert_ne!(first.role(), next.role());
    // The same where the spec names the user, whoever had that name before.
    let named = |uid: &str| {
        let mut lab = Lab::new();
        lab.tenant().metadata.uid = Some(uid.to_owned());
        lab.spec().data_store_username = Some("given".to_owned());
        claim::claim(&lab.world).user
    };
    assert_eq!(named("one-uid"), "given_oneuid");
    assert_eq!(named("another-uid"), "given_anotheruid");
}

/// What is signed for a user that the spec names is signed for that of the claim.
#[test]
fn a_given_user_is_the_tenants_own_in_certificate_secret_and_status() {
    let mut lab = Lab::new();
    lab.spec().data_store_username = Some("b_shop".to_owned());
    for _ in 0..3 {
        lab.pass();
    }
    let user = names::user("b_shop", lab.world.uid(), Driver::Etcd.name_limits());
    assert_ne!(user, "b_shop");
    let data = lab.secret_mut("tenant-1-datastore-config").data.clone();
    assert_eq!(data.unwrap()["DB_USER"].0, user.as_bytes());
    let secret = lab.secret_mut("tenant-1-datastore-certificate").clone();
    let signed = crate::tenant::objects::text(&secret, "server.crt").unwrap();
    let signed = apiservice::pki::inspect(&signed).unwrap();
    assert_eq!(signed.subject.common_name, user);
    let storage = lab.world.tenant.status.as_ref().unwrap().storage.as_ref();
    let setup = storage.unwrap().setup.as_ref().unwrap();
    assert_eq!(setup.user.as_deref(), Some(user.as_str()));
}

/// An upgrade of Steward: a tenant keeps the user of its claim.
#[test]
fn a_tenant_of_an_earlier_version_keeps_its_user() {
    let mut lab = Lab::new();
    let mut claim = claim::wished(&lab.world.tenant, Driver::Etcd);
    // Be it made from its names or given.
    claim.user = "given".to_owned();
    lab.spec().data_store_username = Some(claim.user.clone());
    claim.role = None;
    lab.carry_out(&granting(claim.clone()));
    for _ in 0..3 {
        lab.pass();
    }
    let secret = lab.secret_mut("tenant-1-datastore-config");
    let data = secret.data.as_ref().unwrap();
    assert_eq!(data["DB_USER"].0, claim.user.as_bytes());
    assert!(lab.plan().is_quiet(), "{}", lab.plan());
    assert_eq!(claim::claim(&lab.world), claim);
}

#[test]
fn deletion_that_leaves_orphans() {
    let mut lab = Lab::ready();
    deleted(&mut lab);
    let finalizers = lab.tenant().metadata.finalizers.as_mut().unwrap();
    finalizers.push("orphan".to_owned());
    let plan = lab.pass();
    let takes = |step: &Step| matches!(step, Step::Delete { .. } | Step::DeleteBestEffort { .. });
    assert!(!plan.steps.iter().any(takes), "{plan}");
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::ReleaseFinalizer)),
        "{plan}"
    );
}

#[test]
fn deletion_with_the_database_down() {
    let mut story = Story::of(Lab::ready());
    story.lab.world.store.health = Some(Err(StoreProblem {
        kind: StoreProblemKind::Unreachable,
        message: "deadline exceeded".to_owned(),
    }));
    deleted(&mut story.lab);
    story.pass("the database does not answer");

    let mut lab = Lab::ready();
    lab.world.store.credentials = CredentialsFact::Missing {
        what: "Secret steward-system/etcd-certs does not exist".to_owned(),
        remedy: "create it".to_owned(),
    };
    deleted(&mut lab);
    story.lab = lab;
    story.pass("the DataStore's Secret is gone");

    let mut lab = Lab::ready();
    lab.world.data_store = None;
    deleted(&mut lab);
    story.lab = lab;
    story.pass("the DataStore itself is gone");

    let mut lab = Lab::ready();
    lab.world.data_store = None;
    lab.world.data_stores_known = false;
    deleted(&mut lab);
    story.lab = lab;
    story.pass("DataStores are being read: nothing is given up yet");

    let mut lab = Lab::ready();
    lab.world.deferred = true;
    deleted(&mut lab);
    story.lab = lab;
    story.pass("already recorded");
    story.end("deletion_deferred");
}

#[test]
fn a_lost_authority() {
    let mut story = Story::of(Lab::ready());
    let owned = &mut story.lab.world.owned;
    let lost = owned.remove(ObjectKind::Secret, "tenant-1-ca").unwrap();
    story.pass("Secret tenant-1-ca is deleted under a tenant that was Ready");
    let broken = story.lab.secret_mut("tenant-1-sa-certificate");
    broken.data.as_mut().unwrap().remove("sa.key");
    story.lab.world.owned.insert(lost);
    story.pass("it is restored; the service-account key is broken");
    let annotations = story
        .lab
        .tenant()
        .metadata
        .annotations
        .get_or_insert_default();
    annotations.insert(
        names::ANNOTATION_REPLACE_LOST_KEYS.to_owned(),
        "tenant-1-sa-certificate".to_owned(),
    );
    story.pass("an administrator asks for new keys");
    story.pass("they are there: the request is done with");
    for name in ["tenant-1-sa-certificate", "tenant-1-ca"] {
        story.lab.lose_secret(name);
    }
    story.pass("both are lost again");
    story.end("lost_keys");
}

#[test]
fn an_authority_lost_before_the_first_ready_is_made_again() {
    let mut lab = Lab::new();
    lab.pass();
    lab.lose_secret("tenant-1-ca");
    let plan = lab.pass();
    assert!(
        brief(&plan).contains("create Secret tenants/tenant-1-ca"),
        "{}",
        brief(&plan)
    );
}

#[test]
fn a_name_that_is_taken() {
    let mut lab = Lab::new();
    let foreign = Secret {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("tenant-1-ca".to_owned()),
            namespace: Some("tenants".to_owned()),
            ..Default::default()
        },
        ..Secret::default()
    };
    lab.world.owned.insert(Arc::new(foreign));
    let mut story = Story::of(lab);
    story.pass("somebody has a Secret of that name");
    assert!(
        !story.text.contains("apply Secret tenants/tenant-1-ca\n"),
        "it is not touched"
    );

    let mut lab = Lab::ready();
    lab.tenant().metadata.uid = Some("uid-of-the-heir".to_owned());
    let claim = claim::wished(&lab.world.tenant, Driver::Etcd);
    lab.carry_out(&granting(claim));
    story.lab = lab;
    story.pass("all that a deleted tenant of this name left");
    story.end("name_taken");
}

#[test]
fn another_version() {
    let mut story = Story::of(Lab::ready());
    story.lab.spec().kubernetes.version = "1.37.0".to_owned();
    story.pass("a new version is asked for");
    story.lab.later(3);
    story.lab.probe(Ok(()));
    story.pass("both versions run");
    story.lab.run_pods();
    story.lab.later(3);
    story.lab.probe(Ok(()));
    story.pass("rolled out");
    story.end("version_changed");
}

#[test]
fn a_first_start_is_led_to_unless_pods_of_its_name_still_end() {
    let leads = |lab: &Lab| {
        let service = lab.world.service().unwrap();
        let spec = service.spec.as_ref().unwrap();
        spec.publish_not_ready_addresses == Some(true)
    };
    let mut fresh = Lab::new();
    fresh.pass();
    assert!(leads(&fresh));

    let after_another = Lab::ready();
    let now = after_another.world.now;
    let mut left = after_another.world.pods[0].as_ref().clone();
    left.metadata.deletion_timestamp = Some(Time(now));
    let mut heir = Lab::new();
    heir.world.pods = vec![Arc::new(left)];
    heir.pass();
    assert!(
        !leads(&heir),
        "the pod of the deleted tenant would be led to"
    );
    heir.world.pods.clear();
    heir.pass();
    assert!(!leads(&heir), "it is not worth a change of the Service");

    let mut two = Lab::new();
    two.spec().control_plane.deployment.replicas = 2;
    two.pass();
    assert!(!leads(&two));
    assert!(!leads(&Lab::ready()), "it lasts until the pod is ready");
}
