use serde_json::json;

use super::*;
use crate::authz::Decision;
use crate::policy::Policies;
use crate::registry::tests::harness::{Call, World};

/// Where everybody has these verbs.
fn minter(verbs: &'static [&'static str]) -> Minter {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let authorizer =
        Authorizer::for_test(
            move |_, question| match verbs.contains(&question.verb.as_str()) {
                true => Decision::allow(),
                false => Decision::Deny {
                    reason: String::new(),
                },
            },
        );
    #[allow(clippy::disallowed_methods, reason = "certificates are good for now")]
    let clock = Clock::new(Timestamp::now);
    Minter::new(client, authorizer, clock, Arc::new(Metrics::new()), 3600)
}

/// Rule 12: a user who is called as we are in tenants is not taken for us there.
#[tokio::test]
async fn nobody_is_given_a_certificate_of_ours() {
    let minter = minter(&["create", "view"]);
    for (user, may) in [("bootstrap", false), ("controller", false), ("jane", true)] {
        let call = Call::tenants("a").part("kubeconfig").by(user);
        let (permit, request) = (call.permit(), call.request());
        let role = minter.role(&permit, &request).await.unwrap();
        assert_eq!(role.is_some(), may, "{user}");
        let told = request.warnings.texts().join("");
        assert_eq!(told.contains("is Steward itself"), !may, "{told}");
    }
    let world = World::memory().await;
    let call = Call::tenants("a").part("kubeconfig").by("apiserver");
    let (permit, request) = (call.permit(), call.request());
    let made = create(&minter, &world.registry, permit, &request).await;
    assert_eq!(made.unwrap_err().code(), StatusCode::FORBIDDEN);
}

/// A policy about creations of kubeconfigs, and what a user with these verbs gets by GET.
async fn granted(
    expression: &str,
    verbs: &'static [&'static str],
) -> (Result<Option<Asked>, Failure>, Vec<String>) {
    let mut world = World::memory().await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{
            "operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"],
            "resources": ["tenantcontrolplanes/kubeconfig"]}]},
        "validations": [{"expression": expression, "message": "not for you"}]}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {
        "policyName": "p", "validationActions": ["Deny"]}});
    world.registry.policies = Policies::with(world.registry.namespaces.clone(), policy, binding);
    let minter = minter(verbs);
    // A reader cannot say that it is a dry run.
    let call = Call::tenants("a").part("kubeconfig").query("dryRun=All");
    let (permit, request) = (call.permit(), call.request());
    let role = minter.role(&permit, &request).await.unwrap().unwrap();
    let granted = minter.admit(&world.registry, &permit, &request, role).await;
    (granted, request.warnings.texts())
}

/// R8.31: reading a kubeconfig makes a certificate, so it is a creation of one.
#[tokio::test]
async fn a_get_is_admitted_as_a_creation() {
    let both: &[&str] = &["create", "view"];
    let (refused, warnings) = granted("object.spec.role != 'admin'", both).await;
    assert_eq!(refused.unwrap(), None);
    assert!(
        warnings[0].contains("this kubeconfig has no user: "),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("not for you"), "{warnings:?}");
    let real = "object.spec.expirationSeconds == 3600 && !request.dryRun \
                && !has(request.options.dryRun) && request.operation == 'CREATE' \
                && object.metadata.name == 'a' && oldObject == null";
    let (passed, warnings) = granted(real, both).await;
    let admin = Asked {
        role: KubeconfigRole::Admin,
        seconds: 3600,
    };
    assert_eq!((passed.unwrap(), warnings), (Some(admin), Vec::new()));
    let (passed, _) = granted("object.spec.role != 'admin'", &["view"]).await;
    assert_eq!(passed.unwrap().unwrap().role, KubeconfigRole::View);
}
