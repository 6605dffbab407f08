use std::sync::atomic::{AtomicUsize, Ordering};

use apiservice::told;
use http::Method;

use super::*;
use crate::target::parse_query;

fn jane() -> Arc<Identity> {
    Arc::new(Identity {
        user: "jane".to_owned(),
        uid: None,
        groups: vec!["system:authenticated".to_owned()],
        extra: Default::default(),
    })
}

fn target(method: Method, url: &str) -> Target {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = path.replace("/G/V", "/steward.butlerlabs.dev/v1alpha1");
    Target::parse(&method, &path, &parse_query(Some(query)))
}

fn allow() -> Arc<Authorizer> {
    Authorizer::for_test(|_, _| Decision::allow())
}

async fn permit<V: verb::PermitVerb>(method: Method, url: &str) -> Result<Permit<V>, String> {
    allow()
        .authorize(jane(), target(method, url), || Ok(None), |_| ())
        .await
        .unwrap()
        .permit::<V>()
        .map_err(|failure| format!("{} {failure}", failure.code().as_u16()))
}

/// R1.32, R3.76.
#[tokio::test]
async fn the_403_is_worded_as_kubernetes_words_it() {
    let deny = Authorizer::for_test(|_, a| Decision::Deny {
        reason: if a.verb == "delete" { "no" } else { "" }.to_owned(),
    });
    for (method, url, expected) in [
        (
            Method::GET,
            "/apis/G/V/namespaces/ns/tenantcontrolplanes/n",
            r#"tenantcontrolplanes.steward.butlerlabs.dev "n" is forbidden: User "jane" cannot get resource "tenantcontrolplanes" in API group "steward.butlerlabs.dev" in the namespace "ns""#,
        ),
        (
            Method::GET,
            "/apis/G/V/tenantcontrolplanes",
            r#"tenantcontrolplanes.steward.butlerlabs.dev is forbidden: User "jane" cannot list resource "tenantcontrolplanes" in API group "steward.butlerlabs.dev" at the cluster scope"#,
        ),
        (
            Method::PUT,
            "/apis/G/V/namespaces/ns/tenantcontrolplanes/n/status",
            r#"tenantcontrolplanes.steward.butlerlabs.dev "n" is forbidden: User "jane" cannot update resource "tenantcontrolplanes/status" in API group "steward.butlerlabs.dev" in the namespace "ns""#,
        ),
        (
            Method::DELETE,
            "/apis/G/V/datastores/n",
            r#"datastores.steward.butlerlabs.dev "n" is forbidden: User "jane" cannot delete resource "datastores" in API group "steward.butlerlabs.dev" at the cluster scope: no"#,
        ),
        (
            Method::POST,
            "/apis/G/V/no-such-thing",
            r#"no-such-thing.steward.butlerlabs.dev is forbidden: User "jane" cannot create resource "no-such-thing" in API group "steward.butlerlabs.dev" at the cluster scope"#,
        ),
        (
            Method::GET,
            "/x<y>",
            r#"forbidden: User "jane" cannot get path "/x&lt;y&gt;""#,
        ),
    ] {
        let failure = deny
            .authorize(jane(), target(method, url), || Ok(None), |_| ())
            .await
            .unwrap_err();
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.code().as_u16(), 403);
    }
}

#[tokio::test]
async fn permits_exist_for_what_exists() {
    let permit = permit::<verb::Get>(
        Method::GET,
        "/apis/G/V/namespaces/ns/tenantcontrolplanes/n/status",
    )
    .await
    .unwrap();
    assert_eq!(permit.resource().plural, "tenantcontrolplanes");
    assert_eq!(permit.namespace(), Some("ns"));
    assert_eq!(permit.name(), Some("n"));
    assert_eq!(permit.subresource().unwrap().name(), "status");
}

/// R2.1, R3.1, R3.42.
#[tokio::test]
async fn what_does_not_exist_is_404_and_what_it_cannot_do_405() {
    let unknown = "404 the server could not find the requested resource";
    for (url, expected) in [
        ("/apis/G/V/nothing/n", unknown),
        ("/apis/G/v9/datastores/n", unknown),
        ("/apis/other/v1alpha1/datastores/n", unknown),
        ("/apis/G/V/namespaces/ns/datastores/n", unknown),
        ("/apis/G/V/tenantcontrolplanes/n", unknown),
        (
            "/apis/G/V/namespaces/ns/tenantcontrolplanes/n/status/x",
            unknown,
        ),
        (
            "/apis/G/V/namespaces/ns/tenantcontrolplanes/n/nothing",
            r#"404 tenantcontrolplanes.steward.butlerlabs.dev "n" not found"#,
        ),
    ] {
        assert_eq!(
            permit::<verb::Get>(Method::GET, url).await.unwrap_err(),
            expected,
            "{url}"
        );
    }
    for (method, url, verb) in [
        (Method::POST, "/apis/G/V/datastores/n", "create"),
        (Method::PUT, "/apis/G/V/datastores", "update"),
        (Method::OPTIONS, "/apis/G/V/datastores", ""),
        (
            Method::DELETE,
            "/apis/G/V/namespaces/ns/tenantcontrolplanes/n/status",
            "delete",
        ),
    ] {
        let text = permit::<verb::Create>(method, url).await.unwrap_err();
        assert!(
            text.starts_with(&format!("405 {verb} is not supported on resources of kind")),
            "{text}"
        );
    }
}

/// R1.8, R1.28, R2.33.
#[tokio::test]
async fn masters_and_health_need_no_question() {
    let nobody = Authorizer::for_test(|_, _| unreachable!("asked"));
    let mut root = (*jane()).clone();
    root.groups.push("system:masters".to_owned());
    nobody
        .authorize(
            Arc::new(root),
            target(Method::GET, "/apis/G/V"),
            || Ok(None),
            |_| (),
        )
        .await
        .unwrap();
    nobody
        .authorize(jane(), target(Method::GET, "/readyz"), || Ok(None), |_| ())
        .await
        .unwrap();
}

/// R1.30.
#[tokio::test]
async fn both_answers_are_remembered_unless_told_otherwise() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let authorizer = Authorizer::for_test(move |_, a| {
        count.fetch_add(1, Ordering::SeqCst);
        if a.name == "yes" {
            Decision::allow()
        } else {
            Decision::Deny {
                reason: String::new(),
            }
        }
    });
    for name in ["yes", "no"] {
        let attributes = Attributes {
            name: name.to_owned(),
            ..Attributes::default()
        };
        for _ in 0..3 {
            authorizer.allowed(&jane(), &attributes).await.unwrap();
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    authorizer
        .allowed_uncached(
            &jane(),
            &Attributes {
                name: "yes".to_owned(),
                ..Attributes::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// A cluster that does not answer, and a caller who asks the same a thousand times: those
/// that wait for the first one's answer are as many as may ask.
#[tokio::test]
async fn who_waits_for_another_ones_question_holds_a_place() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let authorizer = Authorizer::new(kube::Client::new(service, "default"));
    let limits = crate::limits::Limits::new(1, 1, "s");
    let ask = |who: Arc<Identity>| {
        let (authorizer, limits) = (authorizer.clone(), limits.clone());
        let place = {
            let who = who.clone();
            move || limits.ask(&who)
        };
        let known = target(Method::GET, "/known");
        Box::pin(async move { authorizer.authorize(who, known, place, |_| ()).await })
    };
    let account = |name: &str| {
        Arc::new(Identity {
            user: format!("system:serviceaccount:n:{name}"),
            ..(*jane()).clone()
        })
    };
    let mut waiting = Vec::new();
    let refused = loop {
        let mut asked = ask(account("a"));
        match futures::FutureExt::now_or_never(&mut asked) {
            None => waiting.push(asked),
            Some(ended) => break ended.unwrap_err(),
        }
        assert!(waiting.len() < 1_000);
    };
    assert_eq!((waiting.len(), refused.retry_after()), (25, Some(1)));
    // Accounts of one namespace are one caller; others have their places.
    let mut second = ask(account("b"));
    assert!(futures::FutureExt::now_or_never(&mut second).is_some());
    assert!(futures::FutureExt::now_or_never(ask(jane())).is_none());
    drop(waiting);
    assert!(futures::FutureExt::now_or_never(ask(account("b"))).is_none());
}

/// What is remembered of a question does not grow with it, and neither does the answer.
#[tokio::test]
async fn what_is_remembered_of_a_long_question_is_short() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let authorizer = Authorizer::for_test(move |_, a| {
        count.fetch_add(1, Ordering::SeqCst);
        Decision::Deny {
            reason: a.label_selector.clone(),
        }
    });
    let attributes = Attributes {
        label_selector: "x".repeat(60_000),
        ..Attributes::default()
    };
    for _ in 0..3 {
        let answer = authorizer.allowed(&jane(), &attributes).await.unwrap();
        let Decision::Deny { reason } = answer else {
            panic!("{answer:?}");
        };
        assert!(reason.len() <= told::MAX_TEXT + 3, "{}", reason.len());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    const { assert!(size_of::<Question>() == 32) };
}

/// Two questions are one only if all that they consist of is the same.
/// R1.30.
#[test]
fn questions_are_told_apart() {
    let text = |text: &str| text.to_owned();
    let who =
        |user: &str, uid: Option<&str>, groups: &[&str], extra: &[(&str, &[&str])]| Identity {
            user: text(user),
            uid: uid.map(text),
            groups: groups.iter().copied().map(text).collect(),
            extra: extra
                .iter()
                .map(|(key, values)| (text(key), values.iter().copied().map(text).collect()))
                .collect(),
        };
    let identities = [
        who("a", None, &[], &[]),
        who("a", Some(""), &[], &[]),
        who("a", Some("b"), &[], &[]),
        who("ab", None, &[], &[]),
        who("a", None, &["b"], &[]),
        who("a", None, &["b", "c"], &[]),
        who("a", None, &["bc"], &[]),
        who("a", None, &["b", ""], &[]),
        who("a", None, &[], &[("b", &[])]),
        who("a", None, &[], &[("b", &["c"])]),
        who("a", None, &[], &[("b", &["c", "d"])]),
        who("a", None, &[], &[("b", &["c"]), ("d", &[])]),
        who("a", None, &["b"], &[("c", &[])]),
    ];
    let fields: [fn(&mut Attributes) -> &mut String; 9] = [
        |a| &mut a.verb,
        |a| &mut a.group,
        |a| &mut a.version,
        |a| &mut a.resource,
        |a| &mut a.subresource,
        |a| &mut a.namespace,
        |a| &mut a.name,
        |a| &mut a.field_selector,
        |a| &mut a.label_selector,
    ];
    let mut attributes = vec![Attributes::default()];
    for path in ["", "a"] {
        attributes.push(Attributes {
            path: Some(text(path)),
            ..Attributes::default()
        });
    }
    for field in fields {
        for value in ["a", "ab"] {
            let mut one = Attributes::default();
            field(&mut one).push_str(value);
            attributes.push(one);
        }
    }
    let mut seen = std::collections::HashSet::new();
    for identity in &identities {
        for attributes in &attributes {
            let question = question::question(identity, attributes);
            assert!(seen.insert(question), "{identity:?} {attributes:?}");
            assert_eq!(question, question::question(&identity.clone(), attributes));
        }
    }
}
