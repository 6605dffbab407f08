//! When certificates are made anew, and that nothing else is (features 2.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use apiservice::condition::tenant as condition;
use apiservice::names;
use apiservice::pki::{self, Entropy};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::authorities::{self, AUTHORITY_LIFE};
use super::objects;
use super::testing::{Lab, brief};

fn secret<'a>(lab: &'a mut Lab, name: &str) -> &'a mut Secret {
    Arc::make_mut(lab.world.owned.secrets.get_mut(name).unwrap())
}

fn checksums(lab: &Lab) -> BTreeMap<String, String> {
    let secrets = lab.world.owned.secrets.iter();
    secrets
        .map(|(name, secret)| (name.clone(), objects::checksum(&objects::data(secret))))
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
    let table: [(&str, &[&str], Change); 9] = [
        ("nothing happens for most of a year", &[], |lab| {
            lab.later(363 * 24 * 3600)
        }),
        ("less than a day is left", &LEAVES, |lab| {
            lab.later(364 * 24 * 3600 + 60)
        }),
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
            |lab| {
                let validity = authorities::validity(lab.world.now, AUTHORITY_LIFE);
                let pair = pki::authority("kubernetes", validity, &Entropy).unwrap();
                let data = secret(lab, "tenant-1-ca").data.as_mut().unwrap();
                data.insert("ca.crt".to_owned(), ByteString(pair.cert.into_bytes()));
                data.insert("ca.key".to_owned(), ByteString(pair.key.into_bytes()));
            },
        ),
        (
            "the DataStore has another authority",
            &["datastore-certificate"],
            |lab| {
                let authority = super::testing::authority();
                let super::world::MaterialFact::Known(material) = &mut lab.world.store.material
                else {
                    unreachable!("the lab knows it")
                };
                let material = Arc::make_mut(material);
                material.authority = authority.cert;
                material.authority_key = Some(authority.key);
            },
        ),
    ];
    for (case, expected, change) in table {
        let mut lab = Lab::ready();
        change(&mut lab);
        assert_eq!(renewed(&mut lab), expected, "{case}");
    }
}

#[test]
fn further_keys_of_others_are_left_alone() {
    let mut lab = Lab::ready();
    let names: Vec<String> = lab.world.owned.secrets.keys().cloned().collect();
    for name in names {
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
    assert_eq!(info.subject.common_name, "tenants_tenant_1");
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
    lab.later((10 * 365 - 30) * 24 * 3600);
    let renewed = renewed(&mut lab);
    assert!(!renewed.contains(&"ca".to_owned()), "{renewed:?}");
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "True CertificateExpiring"
    );
    lab.later(31 * 24 * 3600);
    lab.pass();
    assert_eq!(
        lab.condition(condition::CERTIFICATES_READY),
        "False CertificateExpired"
    );
}

/// No private key of an authority reaches the API server's container.
#[test]
fn the_api_server_holds_no_authority() {
    let lab = Lab::ready();
    let live = lab.world.owned.deployment.as_ref().unwrap();
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
