//! Lives of tenants as the plans they lead to. The golden files under
//! `golden/` are meant to be read: each is one story.

use std::sync::Arc;

use apiservice::condition::tenant as condition;
use apiservice::names;
use apiservice::v1alpha1::ServiceType;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Secret, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Object, Step};
use super::testing::{Lab, brief, golden};
use super::world::{AccessFact, MaterialFact, ProbeFailureKind, StoreProblem, StoreProblemKind};

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
    lab.world
        .owned
        .secrets
        .remove("tenant-1-datastore-certificate");
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    lab.world.store.access = Some(AccessFact::Granted);
    assert!(brief(&lab.plan()).contains("create Secret tenants/tenant-1-datastore-certificate"));
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
    let service = story.lab.world.owned.service.as_mut().unwrap();
    Arc::make_mut(service).status = Some(balanced(None, Some("lb.example.com")));
    story.pass("it gives a host name");
    let service = story.lab.world.owned.service.as_mut().unwrap();
    Arc::make_mut(service).status = Some(balanced(Some("192.0.2.1"), None));
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
        &mut lab.world.store.material,
        MaterialFact::Missing {
            what: "Secret steward-system/etcd-certs does not exist".to_owned(),
            remedy: "create it with ca.crt, ca.key, tls.crt and tls.key".to_owned(),
        },
    );
    let mut story = Story::of(lab);
    story.pass("the Secret is not there");
    story.lab.world.store.material = known;
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

#[test]
fn pausing_stops_everything() {
    let mut lab = Lab::ready();
    let annotations = lab.tenant().metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
    lab.world.owned.service = None;
    let plan = lab.pass();
    assert!(plan.steps.is_empty(), "{plan}");
    assert_eq!(lab.condition(condition::PAUSED), "True Paused");
    lab.tenant().metadata.annotations = None;
    let plan = lab.pass();
    assert!(
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::Create(object) if object.kind() == "Service"))
    );
    assert_eq!(lab.condition(condition::PAUSED), "False AsExpected");
}

fn deleted(lab: &mut Lab) {
    let now = lab.world.now;
    lab.tenant().metadata.deletion_timestamp = Some(Time(now));
}

#[test]
fn deletion() {
    let mut story = Story::of(Lab::ready());
    deleted(&mut story.lab);
    story.pass("deleted");
    story.pass("gone");
    story.end("deletion");
}

#[test]
fn deletion_that_leaves_orphans() {
    let mut lab = Lab::ready();
    deleted(&mut lab);
    let finalizers = lab.tenant().metadata.finalizers.as_mut().unwrap();
    finalizers.push("orphan".to_owned());
    let plan = lab.pass();
    let takes = |step: &Step| matches!(step, Step::Delete { .. } | Step::Remove { .. });
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
    lab.world.store.material = MaterialFact::Missing {
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
    let lost = story.lab.world.owned.secrets.remove("tenant-1-ca");
    story.pass("Secret tenant-1-ca is deleted under a tenant that was Ready");
    let broken = story
        .lab
        .world
        .owned
        .secrets
        .get_mut("tenant-1-sa-certificate")
        .unwrap();
    Arc::make_mut(broken)
        .data
        .as_mut()
        .unwrap()
        .remove("sa.key");
    story
        .lab
        .world
        .owned
        .secrets
        .insert("tenant-1-ca".to_owned(), lost.unwrap());
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
        story.lab.world.owned.secrets.remove(name);
    }
    story.pass("both are lost again");
    story.end("lost_keys");
}

#[test]
fn an_authority_lost_before_the_first_ready_is_made_again() {
    let mut lab = Lab::new();
    lab.pass();
    lab.world.owned.secrets.remove("tenant-1-ca");
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
    lab.world
        .owned
        .secrets
        .insert("tenant-1-ca".to_owned(), Arc::new(foreign));
    let mut story = Story::of(lab);
    story.pass("somebody has a Secret of that name");
    assert!(
        !story.text.contains("apply Secret tenants/tenant-1-ca\n"),
        "it is not touched"
    );

    let mut lab = Lab::ready();
    lab.tenant().metadata.uid = Some("uid-of-the-heir".to_owned());
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
        let service = lab.world.owned.service.as_deref().unwrap();
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
