use http::Method;

use super::*;
use crate::target::{Target, parse_query};

const OURS: &str = "/apis/steward.butlerlabs.dev/v1alpha1";

fn policy(rules: &str) -> Policy {
    let text = format!("{{omitStages: [Panic], rules: [{rules}]}}");
    serde_saphyr::from_str(&text).unwrap()
}

fn who(user: &str, groups: &[&str]) -> Identity {
    Identity {
        user: user.to_owned(),
        uid: None,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        extra: Default::default(),
    }
}

fn what(method: &str, url: &str) -> Attributes {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Attributes::of(&Target::parse(&method, path, &parse_query(Some(query))))
}

/// Whether the one rule is the one for what jane, of the group `devs`, asks.
fn matches(rule: &str, method: &str, url: &str) -> bool {
    let policy = policy(&format!("{{level: Metadata, {rule}}}"));
    let jane = who("jane", &["devs", "system:authenticated"]);
    policy.verdict(Some(&jane), &what(method, url)).level == Level::Metadata
}

/// R9.10: as kube-apiserver matches them.
#[test]
fn rules_match_as_in_kubernetes() {
    let pod = "/apis/g/v/namespaces/a/pods/p";
    let status = "/apis/g/v/namespaces/a/pods/p/status";
    for (rule, method, url, expected) in [
        ("", "GET", "/", true),
        ("users: [jane]", "GET", "/", true),
        ("users: [joe]", "GET", "/", false),
        ("userGroups: [ops, devs]", "GET", "/", true),
        ("userGroups: [ops]", "GET", "/", false),
        ("users: [jane], userGroups: [ops]", "GET", "/", false),
        ("verbs: [get]", "GET", pod, true),
        ("verbs: [list]", "GET", pod, false),
        ("verbs: [get]", "HEAD", "/readyz", false),
        (
            "verbs: [deletecollection]",
            "DELETE",
            "/apis/g/v/pods",
            true,
        ),
        // Paths.
        ("nonResourceURLs: ['*']", "GET", "/anything", true),
        ("nonResourceURLs: ['*']", "GET", pod, false),
        ("nonResourceURLs: [/readyz]", "GET", "/readyz", true),
        ("nonResourceURLs: [/readyz]", "GET", "/readyz/ping", false),
        ("nonResourceURLs: ['/readyz*']", "GET", "/readyz/ping", true),
        ("nonResourceURLs: ['/readyz*']", "GET", "/ready", false),
        // Namespaces.
        ("namespaces: [a]", "GET", pod, true),
        ("namespaces: [b]", "GET", pod, false),
        ("namespaces: [a]", "GET", "/readyz", false),
        ("namespaces: ['']", "GET", "/apis/g/v/pods", true),
        ("namespaces: ['']", "GET", "/readyz", false),
        // Groups.
        ("resources: [{group: g}]", "GET", status, true),
        ("resources: [{group: g}]", "GET", "/apis", false),
        ("resources: [{group: h}]", "GET", pod, false),
        ("resources: [{}]", "GET", pod, false),
        ("resources: [{group: '*'}]", "GET", pod, true),
        (
            "namespaces: [b], resources: [{group: g}]",
            "GET",
            pod,
            false,
        ),
        // Resources and their parts.
        (
            "resources: [{group: g, resources: [pods]}]",
            "GET",
            pod,
            true,
        ),
        (
            "resources: [{group: g, resources: [pods]}]",
            "GET",
            status,
            false,
        ),
        (
            "resources: [{group: g, resources: [pods/status]}]",
            "GET",
            status,
            true,
        ),
        (
            "resources: [{group: g, resources: [pods/status]}]",
            "GET",
            pod,
            false,
        ),
        (
            "resources: [{group: g, resources: ['*']}]",
            "GET",
            status,
            true,
        ),
        (
            "resources: [{group: g, resources: ['*/status']}]",
            "GET",
            status,
            true,
        ),
        (
            "resources: [{group: g, resources: ['*/status']}]",
            "GET",
            pod,
            false,
        ),
        (
            "resources: [{group: g, resources: ['*/scale']}]",
            "GET",
            status,
            false,
        ),
        (
            "resources: [{group: g, resources: ['pods/*']}]",
            "GET",
            status,
            true,
        ),
        (
            "resources: [{group: g, resources: ['pods/*']}]",
            "GET",
            pod,
            true,
        ),
        (
            "resources: [{group: g, resources: ['services/*']}]",
            "GET",
            pod,
            false,
        ),
        (
            "resources: [{group: h}, {group: g, resources: [pods]}]",
            "GET",
            pod,
            true,
        ),
        // Names.
        (
            "resources: [{group: g, resources: [pods], resourceNames: [p]}]",
            "GET",
            pod,
            true,
        ),
        (
            "resources: [{group: g, resources: [pods], resourceNames: [q]}]",
            "GET",
            pod,
            false,
        ),
        (
            "resources: [{group: g, resources: [pods], resourceNames: [p]}]",
            "GET",
            "/apis/g/v/pods?fieldSelector=metadata.name%3Dp",
            true,
        ),
    ] {
        assert_eq!(
            matches(rule, method, url),
            expected,
            "{rule}: {method} {url}"
        );
    }
}

/// R9.10: the first counts, and without one nothing is said.
#[test]
fn the_first_rule_that_matches_counts() {
    let policy = policy(
        "{level: None, users: [joe]}, \
         {level: Request, verbs: [create], omitStages: [RequestReceived], omitManagedFields: true}, \
         {level: RequestResponse, userGroups: [devs]}",
    );
    let (jane, joe, jim) = (
        who("jane", &["devs"]),
        who("joe", &["devs"]),
        who("jim", &[]),
    );
    let (get, create) = (what("GET", "/apis/g/v/r/n"), what("POST", "/apis/g/v/r"));
    assert_eq!(policy.verdict(Some(&joe), &create).level, Level::None);
    assert_eq!(
        policy.verdict(Some(&jane), &get).level,
        Level::RequestResponse
    );
    let verdict = policy.verdict(Some(&jane), &create);
    let expected = Verdict {
        level: Level::Request,
        omit_stages: vec![Stage::Panic, Stage::RequestReceived],
        omit_managed_fields: true,
    };
    assert_eq!(verdict, expected);
    let none = Verdict {
        omit_stages: vec![Stage::Panic],
        ..Verdict::default()
    };
    assert_eq!(policy.verdict(Some(&jim), &get), none);
    // Nobody is neither a user nor in a group.
    assert_eq!(policy.verdict(None, &get).level, Level::None);
    assert_eq!(policy.verdict(None, &create).level, Level::Request);
}

/// R8.31, R9.11: no policy has bodies of credentials logged.
#[test]
fn secrets_are_never_said() {
    let policy = policy("{level: RequestResponse}");
    let level = |path: &str| {
        policy
            .verdict(None, &what("POST", &format!("{OURS}/{path}")))
            .level
    };
    let tenant = "namespaces/a/tenantcontrolplanes/t";
    assert_eq!(level(tenant), Level::RequestResponse);
    assert_eq!(level(&format!("{tenant}/scale")), Level::RequestResponse);
    assert_eq!(level(&format!("{tenant}/kubeconfig")), Level::Metadata);
    assert_eq!(level(&format!("{tenant}/jointoken")), Level::Metadata);
    assert_eq!(level("datastores"), Level::Metadata);
}
