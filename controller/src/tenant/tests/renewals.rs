//! When certificates are made anew, and that nothing else is (features 2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::condition::tenant as condition;
use apiservice::names;
use apiservice::pki::{self, Entropy};
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::ResourceExt;

use crate::cluster::kinds::ObjectKind;
use crate::tenant::backing::claim;
use crate::tenant::backing::facts::CredentialsFact;
use crate::tenant::objects;
use crate::tenant::pki::authorities;
use crate::tenant::plan::Step;
use crate::tenant::testing::{Lab, brief};
use crate::tenant::turns::{Turn, Wait};

fn secret<'a>(lab: &'a mut Lab, name: &str) -> &'a mut Secret {
    lab.secret_mut(name)
}

fn checksums(lab: &Lab) -> BTreeMap<String, String> {
    let secrets = lab.world.owned.of::<Secret>();
    let summed = |secret: &Arc<Secret>| objects::checksum(&objects::data(secret));
    secrets
        .map(|secret| (secret.name_any(), summed(secret)))
        .collect()
}

/// The Secrets, without the tenant's name, that a pass has given other content.
fn renewed(lab: &mut Lab) -> Vec<String> {
    let before = checksums(lab);
    lab.pass();
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
    let after = checksums(lab);
    let changed = after
        .into_iter()
        .filter(|(name, sum)| before.get(name) != Some(sum));
    changed
        .map(|(name, _)| name.trim_start_matches("tenant-1-").to_owned())
        .collect()
}

const DAY: i64 = 24 * 3600;

fn message(lab: &Lab) -> String {
    let status = lab.world.tenant.status.as_ref().unwrap();
    let found = apiservice::condition::get(&status.conditions, condition::CERTIFICATES_READY);
    found.unwrap().message.clone()
}

fn pause(meta: &mut ObjectMeta) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
}

/// A user's authority in place of ours, for so many days.
fn replace_authority(lab: &mut Lab, days: i64) {
    let life = SignedDuration::from_hours(24 * days);
    let validity = authorities::validity(lab.world.now, life);
    let pair = pki::authority("kubernetes", validity, &Entropy).unwrap();
    let data = secret(lab, "tenant-1-ca").data.as_mut().unwrap();
    data.insert("ca.crt".to_owned(), ByteString(pair.cert.into_bytes()));
    data.insert("ca.key".to_owned(), ByteString(pair.key.into_bytes()));
}

/// The labels by which pods roll.
fn template(lab: &Lab) -> Option<BTreeMap<String, String>> {
    let deployment = lab.world.deployment()?;
    let template = &deployment.spec.as_ref()?.template;
    template.metadata.as_ref()?.labels.clone()
}

const LEAVES: [&str; 7] = [
    "admin-kubeconfig",
    "api-server-certificate",
    "api-server-kubelet-client-certificate",
    "controller-manager-kubeconfig",
    "datastore-certificate",
    "front-proxy-client-certificate",
    "scheduler-kubeconfig",
];

#[test]
fn what_is_renewed_and_when() {
    type Change = fn(&mut Lab);
    let table: [(&str, &[&str], Change); 10] = [
        ("nothing happens for eleven months", &[], |lab| {
            lab.later(335 * DAY - 60)
        }),
        ("a quarter of the last month is over", &LEAVES, |lab| {
            lab.later(343 * DAY)
        }),
        ("they have ended", &LEAVES, |lab| lab.later(400 * DAY)),
        ("another name", &["api-server-certificate"], |lab| {
            lab.spec()
                .network_profile
                .cert_sans
                .push("api.example.com".to_owned());
        }),
        (
            "an address that clients are sent to",
            &["admin-kubeconfig", "api-server-certificate"],
            |lab| {
                lab.spec().network_profile.advertise_address = Some("198.51.100.4".to_owned());
            },
        ),
        ("rotation is asked for", &["scheduler-kubeconfig"], |lab| {
            let annotations = secret(lab, "tenant-1-scheduler-kubeconfig")
                .metadata
                .annotations
                .as_mut();
            annotations
                .unwrap()
                .insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
        }),
        (
            "a certificate is replaced by hand",
            &["front-proxy-client-certificate"],
            |lab| {
                let other = secret(lab, "tenant-1-api-server-kubelet-client-certificate")
                    .data
                    .clone()
                    .unwrap();
                let data = secret(lab, "tenant-1-front-proxy-client-certificate")
                    .data
                    .as_mut()
                    .unwrap();
                let cert = other["apiserver-kubelet-client.crt"].clone();
                data.insert("front-proxy-client.crt".to_owned(), cert);
            },
        ),
        ("a kubeconfig is emptied", &["admin-kubeconfig"], |lab| {
            secret(lab, "tenant-1-admin-kubeconfig").data = None;
        }),
        (
            "the cluster authority is replaced on purpose",
            &[
                "admin-kubeconfig",
                "api-server-certificate",
                "api-server-kubelet-client-certificate",
                "ca",
                "client-ca",
                "controller-manager-kubeconfig",
                "scheduler-kubeconfig",
            ],
            |lab| replace_authority(lab, 3650),
        ),
        (
            "the DataStore has another authority",
            &["datastore-certificate"],
            |lab| {
                let authority = crate::tenant::testing::authority();
                let CredentialsFact::Known(credentials) = &mut lab.world.store.credentials else {
                    unreachable!("the lab knows it")
                };
                let credentials = Arc::make_mut(credentials);
                credentials.authority = authority.cert;
                credentials.authority_key = Some(authority.key);
            },
        ),
    ];
    for (case, expected, change) in table {
        let mut lab = Lab::ready();
        change(&mut lab);
        assert_eq!(renewed(&mut lab), expected, "{case}");
    }
}

/// The annotation on a Secret holds it as it is, whatever would be done to it,
/// and pods do not roll for what is not written.
#[test]
fn a_paused_secret_is_left_as_it_is() {
    for name in LEAVES {
        let mut lab = Lab::ready();
        let annotations = secret(&mut lab, &format!("tenant-1-{name}"))
            .metadata
            .annotations
            .as_mut()
            .unwrap();
        annotations.insert(names::ANNOTATION_PAUSED.to_owned(), String::new());
        annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
        lab.spec().network_profile.advertise_address = Some("198.51.100.4".to_owned());
        lab.later(343 * DAY);
        let all = renewed(&mut lab);
        assert!(!all.contains(&name.to_owned()), "{name}: {all:?}");
        assert_eq!(all.len(), LEAVES.len() - 1, "{name}: {all:?}");
    }
}

/// However far apart they were made, what pods mount is renewed in one pass, which
/// writes the Deployment once; and then nothing for the rest of their lives.
#[test]
fn all_that_pods_mount_is_renewed_in_one_roll() {
    let mut lab = Lab::ready();
    for (days, name, number) in [
        (90, "tenant-1-scheduler-kubeconfig", 1),
        (100, "tenant-1-front-proxy-client-certificate", 1),
        (120, "tenant-1-admin-kubeconfig", 0),
    ] {
        lab.later(days * DAY);
        let annotations = secret(&mut lab, name).metadata.annotations.as_mut();
        let annotations = annotations.unwrap();
        annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
        let before = template(&lab);
        assert_eq!(renewed(&mut lab).len(), 1, "{name}");
        assert_eq!(before != template(&lab), number == 1, "{name}");
    }
    // 310 days have gone by. For the one that people use, nothing rolls: it waits.
    let (mut rolls, mut all) = (0, Vec::new());
    for _ in 0..365 - 310 {
        lab.later(DAY);
        let before = template(&lab);
        let plan = lab.plan();
        let deployments = plan.steps.iter().filter(
            |step| matches!(step, Step::Apply(object) if object.kind() == ObjectKind::Deployment),
        );
        assert!(deployments.count() <= 1);
        all.extend(renewed(&mut lab));
        rolls += usize::from(before != template(&lab));
    }
    assert_eq!(rolls, 1);
    assert_eq!(all, LEAVES[1..], "all but the admin's kubeconfig");
    for _ in 0..(335 - 60) / 5 {
        lab.later(5 * DAY);
        let before = template(&lab);
        lab.pass();
        assert_eq!(before, template(&lab), "{}", lab.world.now);
    }
}

/// The controller ends between two writes: the next one renews the rest, and what
/// was renewed not again.
#[test]
fn a_renewal_that_was_cut_off_is_completed() {
    let mut lab = Lab::ready();
    lab.later(343 * DAY);
    let plan = lab.plan();
    let secrets =
        |step: &&Step| matches!(step, Step::Apply(object) if object.kind() == ObjectKind::Secret);
    let before = checksums(&lab);
    for step in plan.steps.iter().filter(secrets).take(3) {
        lab.carry_out(step);
    }
    let halfway = checksums(&lab);
    let first: Vec<_> = (halfway
        .iter()
        .filter(|(name, sum)| before.get(*name) != Some(sum)))
    .map(|(name, _)| name.trim_start_matches("tenant-1-").to_owned())
    .collect();
    assert_eq!(first.len(), 3);
    lab.later(600);
    let rest = renewed(&mut lab);
    assert_eq!(rest.len(), LEAVES.len() - 3, "{rest:?}");
    assert!(!rest.iter().any(|name| first.contains(name)), "{rest:?}");
}

#[test]
fn the_end_of_what_a_paused_secret_holds_is_told() {
    let mut lab = Lab::ready();
    let name = "tenant-1-api-server-certificate";
    pause(&mut secret(&mut lab, name).metadata);
    lab.later(334 * DAY);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
    let revisit = lab.plan().revisit.unwrap();
    assert_eq!(revisit.to_string(), "2026-12-02T00:00:00Z", "told in time");

    lab.later(2 * DAY);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True CertificateExpiring"
    );
    let said = message(&lab);
    assert!(
        said.contains("tenants/tenant-1-api-server-certificate (ends at 2027-01-01T00:00:00Z)")
            && said.contains("Take the annotation off"),
        "{said}"
    );
    assert!(lab.plan().is_quiet() || message(&lab) == said);

    lab.later(30 * DAY);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
    let annotations = secret(&mut lab, name).metadata.annotations.as_mut();
    annotations.unwrap().remove(names::ANNOTATION_PAUSED);
    assert!(renewed(&mut lab).contains(&"api-server-certificate".to_owned()));
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
}

#[test]
fn the_end_of_what_a_paused_tenant_has_is_told() {
    let mut lab = Lab::ready();
    pause(&mut lab.tenant().metadata);
    lab.later(300 * DAY);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
    lab.later(40 * DAY);
    assert_eq!(renewed(&mut lab), Vec::<String>::new());
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True CertificateExpiring"
    );
    let said = message(&lab);
    for name in LEAVES {
        assert!(said.contains(&format!("tenant-1-{name} (ends")), "{said}");
    }
    assert!(said.contains("TenantControlPlane has annotation"), "{said}");

    lab.later(40 * DAY);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
    // Replaced by hand while paused: it is over.
    let now = lab.world.now;
    let mut other = lab.clone();
    other.tenant().metadata.annotations = None;
    other.pass();
    for name in LEAVES {
        let name = format!("tenant-1-{name}");
        *secret(&mut lab, &name) = secret(&mut other, &name).clone();
    }
    assert_eq!(now, lab.world.now);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
    let said = message(&lab);
    assert!(
        said.contains("Pods run with certificates from before"),
        "{said}"
    );
    // They are restarted by hand as well.
    lab.later(60);
    let created = Some(Time(lab.world.now));
    for pod in &mut lab.world.pods {
        Arc::make_mut(pod).metadata.creation_timestamp = created.clone();
    }
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
}

/// People are told by an Event, and once.
#[test]
fn a_certificate_that_will_end_writes_one_event() {
    let mut lab = Lab::ready();
    pause(&mut secret(&mut lab, "tenant-1-api-server-certificate").metadata);
    lab.pass();
    let mut told = Vec::new();
    for _ in 0..72 {
        let before = lab.world.tenant.status.clone();
        lab.later(5 * DAY);
        lab.pass();
        let after = lab.world.tenant.status.clone().unwrap();
        told.extend(crate::report::events(before.as_ref(), &after));
    }
    let about: Vec<_> = told
        .iter()
        .filter(|it| it.reason == "CertificateExpiring")
        .collect();
    assert_eq!(about.len(), 1, "{told:?}");
    assert!(about[0].warning && about[0].message.contains("api-server-certificate"));
}

/// An authority that a user brings may end sooner than anything of ours would.
#[test]
fn a_short_authority_of_a_user_is_no_loop() {
    for days in [1, 10, 29, 40, 200] {
        let mut lab = Lab::ready();
        replace_authority(&mut lab, days);
        let first = renewed(&mut lab);
        assert!(first.contains(&"api-server-certificate".to_owned()));
        let end = lab
            .world
            .now
            .checked_add(SignedDuration::from_hours(24 * days))
            .unwrap();
        let status = lab.world.tenant.status.clone().unwrap();
        let ends = status.certificates.unwrap().api_server.unwrap().expires;
        assert_eq!(ends.unwrap().0, end, "{days} days");
        let mut count = 0;
        for _ in 0..days / 2 + 3 {
            lab.later(2 * DAY);
            count += usize::from(!renewed(&mut lab).is_empty());
        }
        assert!(count <= 1, "{days} days: {count}");
        assert_eq!(
            lab.condition(condition::CERTIFICATES_READY),
            "False CertificateExpired"
        );
        // Another one, and all is well.
        replace_authority(&mut lab, 3650);
        assert!(renewed(&mut lab).contains(&"api-server-certificate".to_owned()));
        assert_eq!(
            lab.condition(condition::CERTIFICATES_READY),
            "True AsExpected"
        );
    }
}

/// What has to be signed by an authority that has ended is not made, and nothing
/// that is there is taken away for it.
#[test]
fn an_authority_that_has_ended_signs_nothing() {
    let mut lab = Lab::ready();
    replace_authority(&mut lab, 10);
    lab.pass();
    lab.later(11 * DAY);
    lab.pass();
    lab.spec()
        .network_profile
        .cert_sans
        .push("api.example.com".to_owned());
    for _ in 0..3 {
        assert_eq!(renewed(&mut lab), Vec::<String>::new());
        lab.later(DAY);
    }
    let said = message(&lab);
    assert!(
        said.contains("the authority kubernetes that signs it ended"),
        "{said}"
    );
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
}

#[test]
fn a_clock_that_jumps_renews_once() {
    let mut lab = Lab::ready();
    lab.later(5 * 365 * DAY);
    assert_eq!(renewed(&mut lab), LEAVES);
    lab.later(-5 * 365 * DAY);
    // From the future: nobody whose clock is right would accept them.
    assert_eq!(renewed(&mut lab), LEAVES);
    for minutes in [30, -30, 20, -40, 50] {
        lab.later(minutes * 60);
        assert_eq!(renewed(&mut lab), Vec::<String>::new());
    }
}

/// The DataStore's authority is not known: the rest does not wait for it, and the
/// one certificate is told when it is late.
#[test]
fn a_renewal_waits_for_no_other() {
    let mut lab = Lab::ready();
    lab.world.store.credentials = CredentialsFact::Unknown;
    lab.later(343 * DAY);
    let all = renewed(&mut lab);
    assert_eq!(all.len(), LEAVES.len() - 1, "{all:?}");
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True AsExpected"
    );
    lab.later(10 * DAY);
    assert_eq!(renewed(&mut lab), Vec::<String>::new());
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True CertificateExpiring"
    );
    let said = message(&lab);
    assert!(
        said.contains("overdue") && said.contains("datastore-certificate"),
        "{said}"
    );
    assert!(!said.contains("api-server"), "{said}");
}

#[test]
fn a_database_that_is_down_holds_up_no_renewal() {
    let mut lab = Lab::ready();
    lab.world.store.health = Some(Err(crate::tenant::backing::facts::StoreProblem {
        kind: crate::tenant::backing::facts::StoreProblemKind::Unreachable,
        message: "connection refused".to_owned(),
    }));
    lab.later(343 * DAY);
    let before = template(&lab);
    assert_eq!(renewed(&mut lab), LEAVES);
    assert_ne!(before, template(&lab));
}

#[test]
fn the_status_says_when_each_ends() {
    let lab = Lab::ready();
    let status = lab.world.tenant.status.clone().unwrap();
    let ends: BTreeMap<_, _> = crate::report::objects::certificate_ends(&status)
        .map(|(part, end)| (part, end.to_string()))
        .collect();
    assert_eq!(ends.len(), 10, "{ends:?}");
    for name in LEAVES {
        assert!(
            ends[name].starts_with("2027-01-01T00:00:0"),
            "{name}: {ends:?}"
        );
    }
    for name in ["ca", "client-ca", "front-proxy-ca-certificate"] {
        assert!(
            ends[name].starts_with("2035-12-30T00:00:0"),
            "{name}: {ends:?}"
        );
    }
    let certificates = status.certificates.unwrap();
    assert_eq!(certificates.sa.unwrap().expires, None, "keys do not end");
    assert_eq!(status.storage.unwrap().config.unwrap().expires, None);

    let mut lab = lab;
    lab.later(343 * DAY);
    lab.pass();
    lab.pass();
    let new = a_year_from(&lab);
    assert_eq!(end_of(&lab, "api-server-certificate"), new);
}

fn a_year_from(lab: &Lab) -> String {
    let end = lab.world.now.checked_add(SignedDuration::from_hours(8760));
    end.unwrap().to_string()
}

/// When a certificate ends by the status, which is what the metric shows.
fn end_of(lab: &Lab, part: &str) -> String {
    let status = lab.world.tenant.status.as_ref().unwrap();
    let mut ends = crate::report::objects::certificate_ends(status);
    ends.find(|(it, _)| *it == part).unwrap().1.to_string()
}

/// The pods of before, as their ReplicaSet has them.
fn replica_set(lab: &Lab) -> ReplicaSet {
    let live = lab.world.deployment().unwrap();
    let template = &live.spec.as_ref().unwrap().template;
    let mut set = ReplicaSet::default();
    set.metadata.annotations = live.metadata.annotations.clone();
    set.metadata.owner_references = Some(vec![OwnerReference {
        uid: live.metadata.uid.clone().unwrap(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    set.spec.get_or_insert_default().template = Some(template.clone());
    set.status.get_or_insert_default().replicas = 1;
    set
}

/// A certificate that was renewed is of no use to pods that run with the one of before:
/// they are rolled in turn, and a roll may get stuck.
#[test]
fn the_status_says_when_what_pods_run_with_ends() {
    const OLD: &str = "2027-01-01T00:00:00Z";
    let mounted = &LEAVES[1..];
    let mut lab = Lab::ready();
    let before = Arc::new(replica_set(&lab));
    lab.turn = Turn::Waits(Wait::ForOthers);
    lab.later(343 * DAY);
    lab.pass();
    lab.pass();
    let new = a_year_from(&lab);
    for part in mounted {
        assert_eq!(end_of(&lab, part), OLD, "{part}");
    }
    assert_eq!(end_of(&lab, LEAVES[0]), new, "no pod has it");

    // Their turn has come: pods of before go on until the new ones are there.
    lab.turn = Turn::Unasked;
    lab.world.replica_sets = vec![before.clone()];
    lab.pass();
    lab.pass();
    assert_eq!(end_of(&lab, "api-server-certificate"), OLD);
    lab.later(14 * DAY);
    lab.pass();
    let told = |lab: &Lab| lab.condition(condition::CERTIFICATES_READY);
    assert_eq!(told(&lab), "True AsExpected");
    let revisit = lab.plan().revisit.unwrap();
    assert_eq!(revisit.to_string(), "2026-12-24T12:00:00Z", "told in time");
    lab.later(DAY);
    lab.pass();
    assert_eq!(told(&lab), "True CertificateExpiring");
    let said = message(&lab);
    assert!(
        said.contains("Pods run with certificates from before")
            && said.contains("tenants/tenant-1-api-server-certificate (ends at 2027-01-01"),
        "{said}"
    );
    lab.later(8 * DAY);
    lab.pass();
    assert_eq!(told(&lab), "False CertificateExpired");

    // They have gone, or are somebody else's.
    let mut other = before.as_ref().clone();
    other.metadata.owner_references = None;
    let mut gone = before.as_ref().clone();
    gone.status.as_mut().unwrap().replicas = 0;
    lab.world.replica_sets = vec![Arc::new(other), Arc::new(gone)];
    lab.pass();
    assert_eq!(told(&lab), "True AsExpected");
    for part in mounted {
        assert_eq!(end_of(&lab, part), new, "{part}");
    }
}

#[test]
fn further_keys_of_others_are_left_alone() {
    let mut lab = Lab::ready();
    for name in lab.secret_names() {
        let data = secret(&mut lab, &name).data.as_mut().unwrap();
        data.insert("aaa-note".to_owned(), ByteString(b"theirs".to_vec()));
    }
    assert!(lab.plan().is_quiet(), "{}", brief(&lab.plan()));
}

#[test]
fn rotation_is_answered_with_its_time() {
    let mut lab = Lab::ready();
    let name = "tenant-1-scheduler-kubeconfig";
    let annotations = secret(&mut lab, name)
        .metadata
        .annotations
        .as_mut()
        .unwrap();
    annotations.insert(names::ANNOTATION_ROTATE.to_owned(), String::new());
    lab.pass();
    let meta = secret(&mut lab, name).metadata.clone();
    assert_eq!(
        objects::annotation(&meta, names::ANNOTATION_ROTATE),
        Some("2026-01-01T00:00:05Z")
    );
}

#[test]
fn a_certificate_that_serves_is_kept() {
    let mut lab = Lab::ready();
    let data = objects::data(secret(&mut lab, "tenant-1-api-server-certificate"));
    let cert = String::from_utf8(data["apiserver.crt"].clone()).unwrap();
    let ca = objects::text(secret(&mut lab, "tenant-1-ca"), "ca.crt").unwrap();
    let now = lab.world.now;
    assert_eq!(pki::verify(&cert, &ca, pki::Usage::Server, now), Ok(()));
    assert!(
        pki::verify(&cert, &ca, pki::Usage::Client, now).is_err(),
        "it does not log in"
    );

    let store = objects::data(secret(&mut lab, "tenant-1-datastore-certificate"));
    let cert = String::from_utf8(store["server.crt"].clone()).unwrap();
    let info = pki::inspect(&cert).unwrap();
    let user = claim::claim(&lab.world).user;
    assert_eq!(info.subject.common_name, user);
    assert!(info.subject.organizations.is_empty(), "rule 21");
    let authority = String::from_utf8(store["ca.crt"].clone()).unwrap();
    assert_eq!(
        pki::verify(&cert, &authority, pki::Usage::Client, now),
        Ok(())
    );
    assert!(
        pki::verify(&cert, &authority, pki::Usage::Server, now).is_err(),
        "rule 21"
    );
}

#[test]
fn the_end_of_an_authority_is_told_and_nothing_is_replaced() {
    let mut lab = Lab::ready();
    lab.later((10 * 365 - 30) * DAY);
    let all = renewed(&mut lab);
    assert_eq!(all, LEAVES);
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True CertificateExpiring"
    );
    let said = message(&lab);
    for name in [
        "tenants/tenant-1-ca (ends at 2035-12-30T00:00:00Z)",
        "tenants/tenant-1-client-ca (ends",
        "tenants/tenant-1-front-proxy-ca-certificate (ends",
        "have to trust the new ones",
    ] {
        assert!(said.contains(name), "{said}");
    }
    // What it signs ends with it, and is not signed again and again for that.
    for _ in 0..40 {
        lab.later(DAY - 3600);
        assert_eq!(renewed(&mut lab), Vec::<String>::new(), "{}", lab.world.now);
    }
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
    assert!(message(&lab).contains("tenant-1-ca (ended at 2035-12-30T00:00:00Z)"));
}

/// No private key of an authority reaches the API server's container.
#[test]
fn the_api_server_holds_no_authority() {
    let lab = Lab::ready();
    let live = lab.world.deployment().unwrap();
    let pod = live.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let server = pod
        .containers
        .iter()
        .find(|it| it.name == "kube-apiserver")
        .unwrap();
    let mounted: Vec<_> = server
        .volume_mounts
        .iter()
        .flatten()
        .map(|it| it.name.as_str())
        .collect();
    let mut keys = Vec::new();
    for volume in pod
        .volumes
        .iter()
        .flatten()
        .filter(|it| mounted.contains(&it.name.as_str()))
    {
        assert!(volume.secret.is_none(), "whole Secrets are not mounted");
        for source in volume
            .projected
            .iter()
            .flat_map(|it| it.sources.iter().flatten())
        {
            let secret = source.secret.as_ref().unwrap();
            keys.extend(secret.items.iter().flatten().map(|it| it.key.clone()));
        }
    }
    assert!(keys.contains(&"bundle.crt".to_owned()));
    assert!(!keys.iter().any(|key| key.ends_with("ca.key")), "{keys:?}");
}
