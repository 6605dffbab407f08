use std::time::Duration;

use super::*;
use crate::authn::Identity;
use crate::warnings::Warnings;

pub(super) fn request(body: &str, query: &str) -> Request {
    Request {
        headers: Default::default(),
        query: crate::target::parse_query(Some(query)).into(),
        body: body.to_owned().into(),
        path: String::new(),
        caller: "alice".to_owned(),
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        warnings: Warnings::default(),
        annotations: Default::default(),
        held: Default::default(),
    }
}

pub(super) fn permit() -> Permit<verb::Create> {
    let identity = Identity {
        user: "alice".to_owned(),
        uid: None,
        groups: Vec::new(),
        extra: Default::default(),
    };
    let resource = apiservice::find("tenantcontrolplanes").unwrap();
    Permit::for_test(identity, resource, Some("n"), Some("t"), None)
}

/// R3.86.
#[test]
fn what_went_wrong_in_a_tenant_is_told_with_what_to_do() {
    let tenant = Tenant {
        namespace: "n".to_owned(),
        name: "t".to_owned(),
        endpoint: "10.0.0.1:6443".to_owned(),
        for_nodes: "10.0.0.1:6443".to_owned(),
        port: 6443,
        asleep: false,
        trouble: Some("ProbeFailed: it does not write".to_owned()),
    };
    let refused = |code, message: &str| Problem::Refused {
        code,
        message: message.to_owned(),
    };
    let right = r#"secrets is forbidden: User "steward:apiserver" cannot create resource "secrets" in API group "" in the namespace "kube-system""#;
    let quota = r#"secrets "bootstrap-token-abcdef" is forbidden: exceeded quota: q"#;
    let make = Doing::Create("abcdef");
    for (problem, doing, code, retry, text) in [
        (
            Problem::Unreachable("a: refused".into()),
            make,
            503,
            Some(2),
            "cannot be reached (it is not Ready: ProbeFailed: it does not write): a: refused",
        ),
        (
            Problem::Unanswered("late".into()),
            make,
            503,
            None,
            "it may have made the token abcdef, whose secret nobody has",
        ),
        (
            Problem::Unanswered("late".into()),
            Doing::Delete,
            503,
            None,
            "GET shows whether the token is still there",
        ),
        (
            Problem::Unanswered("late".into()),
            Doing::List,
            503,
            Some(2),
            "did not answer",
        ),
        (
            Problem::TooLong,
            Doing::List,
            413,
            None,
            "Secrets of type bootstrap.kubernetes.io/token in kube-system",
        ),
        (
            refused(401, "Unauthorized"),
            make,
            503,
            Some(2),
            "the authority in the Secret t-client-ca",
        ),
        (refused(403, right), make, 503, Some(2), "ClusterConfigured"),
        (refused(403, quota), make, 409, None, "exceeded quota: q;"),
        (
            refused(400, "webhook says no"),
            make,
            409,
            None,
            "a quota, a policy or a webhook",
        ),
        (
            refused(429, "slow down"),
            make,
            503,
            Some(2),
            "cannot do it now",
        ),
        (refused(500, "etcd"), make, 503, None, "cannot do it now"),
        (refused(500, "etcd"), Doing::List, 503, Some(2), "etcd"),
    ] {
        let told = format!("{problem:?} {doing:?}");
        let failure = tenant.failure(problem, doing);
        let found = (failure.code().as_u16(), failure.retry_after());
        assert_eq!(found, (code, retry), "{told}");
        let message = failure.to_string();
        assert!(message.contains(text), "{told}: {message}");
    }
}

#[test]
fn who_sleeps_is_to_be_woken_and_nobody_asks_again_by_himself() {
    let object = json!({
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {"controlPlane": {"deployment": {"replicas": 0}}},
        "status": {"controlPlaneEndpoint": "10.0.0.1:6443", "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let failure = awake(&object).err().unwrap();
    let found = (failure.code().as_u16(), failure.retry_after());
    assert_eq!(found, (503, None));
    let message = failure.to_string();
    let wake = "kubectl scale tcp t --namespace=n --replicas=1";
    assert!(message.contains(wake), "{message}");
}

fn asked(usages: &[JoinTokenUsage]) -> Asked {
    Asked {
        seconds: 60,
        usages: usages.to_vec(),
        groups: Vec::new(),
        description: String::new(),
    }
}

#[test]
fn a_command_is_given_with_a_token_that_is_for_all_that_joining_takes() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let validity = Validity {
        not_before: now,
        not_after: now + SignedDuration::from_hours(1),
    };
    let authority = pki::authority("test", validity, &Entropy).unwrap();
    let other = pki::authority("other", validity, &Entropy).unwrap();
    let signer = Signer {
        server_ca: format!("{}{}", authority.cert, other.cert),
        authority,
    };
    let hashes = pki::public_key_hashes(&signer.server_ca).unwrap();
    let tenant = Tenant {
        namespace: "n".to_owned(),
        name: "t".to_owned(),
        endpoint: "10.0.0.1:6443".to_owned(),
        for_nodes: "203.0.113.7:6443".to_owned(),
        port: 6443,
        asleep: false,
        trouble: None,
    };
    let token = Token::new(&Entropy).unwrap();
    let granted = |usages: &[JoinTokenUsage]| {
        granted(&tenant, &signer, &asked(usages), &token, &hashes, "then")
    };
    let both = granted(&JoinTokenUsage::ALL);
    assert_eq!(
        both["command"],
        format!(
            "kubeadm join 203.0.113.7:6443 --token {} --discovery-token-ca-cert-hash {} \
             --discovery-token-ca-cert-hash {}",
            token.whole(),
            hashes[0],
            hashes[1]
        )
    );
    let kubeconfig = both["discoveryKubeconfig"].as_str().unwrap();
    let kubeconfig: Value = serde_saphyr::from_str(kubeconfig).unwrap();
    assert_eq!(
        kubeconfig["users"],
        json!([{"name": "join-token", "user": {"token": token.whole()}}])
    );
    assert_eq!(
        kubeconfig["clusters"][0]["cluster"]["server"],
        "https://203.0.113.7:6443"
    );
    let signs = granted(&[JoinTokenUsage::Signing]);
    assert_eq!(signs.get("command"), None);
    let kubeconfig = signs["discoveryKubeconfig"].as_str().unwrap();
    assert!(kubeconfig.contains("users: []"), "{kubeconfig}");

    let ours = certificate(&signer, now).unwrap();
    let ours = pki::inspect(&ours.cert).unwrap();
    assert_eq!(ours.subject.common_name, "steward:apiserver");
    assert_eq!(ours.subject.organizations, ["steward:join-tokens"]);
    assert!(ours.not_after <= now + CERTIFICATE);
}
