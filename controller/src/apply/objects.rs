//! Writes of objects of ours in the management cluster.

use std::hash::{DefaultHasher, Hash, Hasher};

use apiservice::condition::reason;
use apiservice::legible;
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::cluster::key::Key;
use crate::cluster::managers::{FIELD_MANAGER, is_creation};
use crate::cluster::name::NamespacedName;
use crate::cluster::pieces::{self, Bounds};
use crate::context::Context;
use crate::process::contested::{Repair, Way};
use crate::process::lease::Unfinished;
use crate::process::timing;
use crate::tenant;
use crate::tenant::plan::{EXISTS, Finding, Object, ObjectKey, ObjectKind, Outcome, Said};
use crate::tenant::world::{Ownership, World};

/// Why a call to the management cluster failed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP code; 0 if there was no answer.
    pub code: u16,
    pub reason: String,
    pub message: String,
}

/// One call, with a deadline, and over when another replica may begin. Fields of the answer
/// that are too large to be read are `null`.
pub async fn call(
    ctx: &Context,
    method: Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<Value, Refusal> {
    let bytes = body.map(|body| body.to_string().into_bytes());
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(bytes.unwrap_or_default())
        .map_err(|error| Refusal {
            code: 0,
            reason: "ApplyFailed".into(),
            message: error.to_string(),
        })?;
    ctx.metrics.calls(method.as_str());
    // Whoever may write where our objects are makes one as large as they like.
    let call = pieces::answer(&ctx.client, request, Bounds::at(path));
    let unfinished = |reason: &str, message: String| {
        Err(Refusal {
            code: 0,
            reason: reason.into(),
            message,
        })
    };
    match ctx.leadership.within(timing::CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(refusal),
        Err(ended @ Unfinished::Ended) => unfinished("NotLeading", ended.to_string()),
        Err(Unfinished::Late(_)) => unfinished(
            "ApplyFailed",
            "the management cluster's API does not answer".into(),
        ),
    }
}

fn refusal(error: kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) => Refusal {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        },
        error => Refusal {
            code: 0,
            reason: "ApplyFailed".into(),
            message: error.to_string(),
        },
    }
}

/// The metadata of an object that is there. None that can be read are not those of an object
/// that nobody owns.
fn meta_of(key: &ObjectKey, found: &Value) -> Result<ObjectMeta, Refusal> {
    let meta = legible::metadata(found).map_err(|error| error.to_string());
    let known = meta.and_then(|meta| match meta.uid {
        Some(_) => Ok(meta),
        None => Err("it has no uid".to_owned()),
    });
    known.map_err(|error| Refusal {
        code: 0,
        reason: "ApplyFailed".into(),
        message: format!("{key} cannot be read: {error}"),
    })
}

/// A refusal as the outcome of a step.
pub fn failed(refusal: Refusal) -> Outcome {
    let Refusal {
        code,
        reason: api,
        message,
    } = refusal;
    let (reason, retry) = match code {
        403 if message.contains("exceeded quota") => (reason::QUOTA_EXCEEDED.to_owned(), true),
        // A namespace that is being deleted takes nothing new.
        403 if message.contains("because it is being terminated") => (api, false),
        403 => (reason::FORBIDDEN.to_owned(), true),
        409 => ("Conflict".to_owned(), true),
        // What the API finds invalid stays so until something else changes.
        400 | 422 => (api, false),
        _ => ("ApplyFailed".to_owned(), true),
    };
    Outcome::Failed {
        reason,
        message,
        retry,
        finding: None,
    }
}

/// Creates an object that must not exist.
pub async fn create(ctx: &Context, world: &World, object: &Object) -> Outcome {
    let key = object.key();
    let body = match value(object) {
        Ok(body) => body,
        Err(outcome) => return outcome,
    };
    if let Some(outcome) = hold_back(ctx, world, object, &body, Way::Deletion) {
        return outcome;
    }
    let path = format!(
        "{}?fieldManager={FIELD_MANAGER}",
        key.kind.path(&key.namespace, None)
    );
    match call(ctx, Method::POST, &path, "application/json", Some(&body)).await {
        Ok(written) => {
            wrote(ctx, world, object, &body, written, Way::Deletion);
            Outcome::Done
        }
        Err(refusal) if refusal.code == 409 && refusal.reason == "AlreadyExists" => {
            whose(ctx, world, &key).await
        }
        Err(refusal) => rejected(ctx, world, object, &body, refusal),
    }
}

/// Remembers for a while what the API found invalid.
fn rejected(
    ctx: &Context,
    world: &World,
    object: &Object,
    body: &Value,
    refusal: Refusal,
) -> Outcome {
    let invalid = matches!(refusal.code, 400 | 422);
    let outcome = failed(refusal);
    if invalid {
        let entry = (fingerprint(object, body), ctx.now(), outcome.clone());
        ctx.writes.of(world.uid(), |memory| {
            memory.rejected.insert(object.key(), entry);
        });
    }
    outcome
}

/// An object that a cache does not show, but that is there: ours without its
/// label, or somebody else's.
async fn whose(ctx: &Context, world: &World, key: &ObjectKey) -> Outcome {
    let path = key.path();
    match call(ctx, Method::GET, &path, "application/json", None).await {
        Ok(found) => {
            let meta = match meta_of(key, &found) {
                Ok(meta) => meta,
                Err(refusal) => return failed(refusal),
            };
            if world.ownership(&meta) == Ownership::Ours {
                remember(ctx, key.kind, found);
                return Outcome::Failed {
                    reason: EXISTS.into(),
                    message: format!("{key} exists already"),
                    retry: true,
                    finding: None,
                };
            }
            taken(world, key, &meta)
        }
        Err(refusal) if refusal.code == 404 => Outcome::Failed {
            reason: "Conflict".into(),
            message: format!("{key} was there and is gone"),
            retry: true,
            finding: None,
        },
        Err(refusal) => failed(refusal),
    }
}

/// Looks for an object that ought to be there and is not in the cache, which
/// holds objects by their labels.
pub async fn look(ctx: &Context, world: &World, key: &ObjectKey) -> Outcome {
    let path = key.path();
    match call(ctx, Method::GET, &path, "application/json", None).await {
        Ok(found) => {
            let meta = match meta_of(key, &found) {
                Ok(meta) => meta,
                Err(refusal) => return failed(refusal),
            };
            if world.ownership(&meta) != Ownership::Ours {
                return Outcome::Unchanged;
            }
            let known = held(ctx, key).and_then(|held| held.resource_version);
            if known == meta.resource_version {
                return Outcome::Unchanged;
            }
            remember(ctx, key.kind, found);
            ctx.queue
                .add(Key::Tenant(NamespacedName::of(&world.tenant.metadata)));
            Outcome::Done
        }
        Err(refusal) if refusal.code == 404 => Outcome::Unchanged,
        Err(refusal) => failed(refusal),
    }
}

fn taken(world: &World, key: &ObjectKey, meta: &ObjectMeta) -> Outcome {
    let waiting = tenant::objects::taken(world, key, meta);
    Outcome::Failed {
        reason: waiting.reason.into(),
        message: waiting.message,
        retry: false,
        finding: waiting.finding,
    }
}

/// Server-side apply of an object of ours.
pub async fn apply(ctx: &Context, world: &World, object: &Object) -> Outcome {
    let key = object.key();
    let mut body = match value(object) {
        Ok(body) => body,
        Err(outcome) => return outcome,
    };
    if let Some(outcome) = hold_back(ctx, world, object, &body, Way::Change) {
        return outcome;
    }
    let fingerprinted = body.clone();
    let address = key.path();
    let mut held = match held(ctx, &key) {
        Some(meta) => meta,
        // Not in the cache: whose it is must be asked before it is written.
        None => match call(ctx, Method::GET, &address, "application/json", None).await {
            Ok(found) => match meta_of(&key, &found) {
                Ok(meta) => meta,
                Err(refusal) => return failed(refusal),
            },
            Err(refusal) if refusal.code == 404 => ObjectMeta::default(),
            Err(refusal) => return failed(refusal),
        },
    };
    let mut reduced = false;
    if let Some(uid) = held.uid.clone() {
        if world.ownership(&held) != Ownership::Ours {
            return taken(world, &key, &held);
        }
        // Another object that takes the name meanwhile is not written.
        body["metadata"]["uid"] = json!(uid);
        if matches!(object, Object::Deployment(_) | Object::Service(_)) {
            match take_out(ctx, object, &address, &uid).await {
                Ok(Some(written)) => (held, reduced) = (written, true),
                Ok(None) => {}
                Err(refusal) => return rejected(ctx, world, object, &fingerprinted, refusal),
            }
        }
    }
    if created_by_us(&held)
        && let Err(refusal) = adopt_fields(ctx, &address, &mut body).await
    {
        return failed(refusal);
    }
    let address = format!("{address}?fieldManager={FIELD_MANAGER}&force=true");
    let content_type = "application/apply-patch+yaml";
    match call(ctx, Method::PATCH, &address, content_type, Some(&body)).await {
        Ok(written) => {
            let before = held.resource_version.as_deref();
            let same = written["metadata"]["resourceVersion"].as_str() == before;
            wrote(ctx, world, object, &fingerprinted, written, Way::Change);
            if same && before.is_some() && !reduced {
                Outcome::Unchanged
            } else {
                Outcome::Done
            }
        }
        Err(refusal) => rejected(ctx, world, object, &fingerprinted, refusal),
    }
}

/// Takes out what others put into the parts of an object that are ours as a
/// whole: an apply leaves alone what another manager owns. The metadata of what
/// was written, if there was anything.
async fn take_out(
    ctx: &Context,
    object: &Object,
    address: &str,
    uid: &str,
) -> Result<Option<ObjectMeta>, Refusal> {
    let live = call(ctx, Method::GET, address, "application/json", None).await?;
    // What is too large to be compared is replaced as a whole: what the API server fills in,
    // as the addresses of a Service, it fills in again as it was.
    // The same of what is not as its kind is known.
    let whole = live["spec"].is_null() || object.kind().known(&live).is_none();
    let needed = whole || tenant::objects::needs_taking_out(object, &live);
    let reduced = match object.value() {
        Ok(wanted) if needed && live["metadata"]["uid"] == uid => match whole {
            true => json!({"spec": wanted["spec"]}),
            false => tenant::drift::reduced(object.kind(), &wanted, &live),
        },
        _ => return Ok(None),
    };
    if reduced == live {
        return Ok(None);
    }
    let patch = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec", "value": reduced["spec"]},
    ]);
    let address = format!("{address}?fieldManager={FIELD_MANAGER}");
    let content_type = "application/json-patch+json";
    let written = call(ctx, Method::PATCH, &address, content_type, Some(&patch)).await?;
    meta_of(&object.key(), &written).map(Some)
}

/// True if fields are still managed by our creation, from which an apply
/// cannot remove any.
fn created_by_us(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(is_creation)
}

/// Turns the fields of our creation into applied ones, so that what we no
/// longer want is removed by the next apply.
async fn adopt_fields(ctx: &Context, address: &str, body: &mut Value) -> Result<(), Refusal> {
    let live = call(ctx, Method::GET, address, "application/json", None).await?;
    let before = live["metadata"]["resourceVersion"].clone();
    // None if others manage so many fields that it is not read.
    let Some(mut entries) = live["metadata"]["managedFields"].as_array().cloned() else {
        return Ok(());
    };
    let is = |entry: &Value, operation: &str| {
        entry["manager"] == FIELD_MANAGER
            && entry["operation"] == operation
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    };
    if entries.iter().any(|entry| is(entry, "Apply")) {
        // Applied before: that entry stands.
        entries.retain(|entry| !is(entry, "Update"));
    } else {
        for entry in entries.iter_mut().filter(|entry| is(entry, "Update")) {
            entry["operation"] = json!("Apply");
        }
    }
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": before},
    ]);
    let written = call(
        ctx,
        Method::PATCH,
        address,
        "application/json-patch+json",
        Some(&patch),
    )
    .await?;
    // A precondition on the version that we just replaced ourselves moves on.
    if body["metadata"]["resourceVersion"] == before {
        body["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"].clone();
    }
    Ok(())
}

/// Deletes in the background; only the object of this uid.
pub async fn delete(ctx: &Context, key: &ObjectKey, uid: &str) -> Outcome {
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid},
        "propagationPolicy": "Background",
    });
    let path = key.path();
    match call(
        ctx,
        Method::DELETE,
        &path,
        "application/json",
        Some(&options),
    )
    .await
    {
        Ok(_) => Outcome::Done,
        // Gone, or replaced by another object: ours is gone.
        Err(refusal) if refusal.code == 404 || refusal.code == 409 => {
            forget(ctx, key, uid);
            Outcome::Unchanged
        }
        Err(refusal) => failed(refusal),
    }
}

fn value(object: &Object) -> Result<Value, Outcome> {
    object.value().map_err(|error| Outcome::Failed {
        reason: "ApplyFailed".into(),
        message: format!("{}: {error}", object.key()),
        retry: false,
        finding: None,
    })
}

/// The outcome of a write that is not tried now because somebody keeps
/// changing the object back.
fn hold_back(
    ctx: &Context,
    world: &World,
    object: &Object,
    body: &Value,
    way: Way,
) -> Option<Outcome> {
    let key = object.key();
    let wish = fingerprint(object, body);
    let now = ctx.now();
    let version = held(ctx, &key).and_then(|meta| meta.resource_version);
    ctx.writes.of(world.uid(), |memory| {
        if let Some((refused, at, outcome)) = memory.rejected.get(&key)
            && *refused == wish
            && now.duration_since(*at) < timing::REJECTED_FOR
        {
            return Some(outcome.clone());
        }
        let untouched = version.is_some() && memory.written.get(&key) == version.as_ref();
        let fought_over = (key.clone(), way);
        let (repair, whose) = if untouched {
            (
                memory.contest.own_change(&fought_over, now),
                "is written again and again by this controller itself",
            )
        } else {
            let whose = match way {
                Way::Change => "is changed back again and again by somebody else",
                Way::Deletion => "is deleted again and again by somebody else",
            };
            (memory.contest.ask(&fought_over, wish, now), whose)
        };
        match repair {
            Repair::Write => None,
            Repair::Contested { until } => {
                let finding = Finding {
                    object: key.clone(),
                    said: Said::Does(format!("{whose}; the next attempt is at {until:.0}")),
                    remedy: None,
                };
                Some(Outcome::Failed {
                    reason: reason::CONTESTED.into(),
                    message: finding.to_string(),
                    retry: false,
                    finding: Some(Box::new(finding)),
                })
            }
        }
    })
}

/// What a write means to bring about. New certificates in a Secret are the
/// same wish.
fn fingerprint(object: &Object, body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match object {
        Object::Secret(secret) => {
            for key in secret.data.iter().flatten().map(|(key, _)| key) {
                key.hash(&mut hasher);
            }
        }
        _ => {
            let mut body = body.clone();
            if let Some(meta) = body["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            body.to_string().hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn wrote(ctx: &Context, world: &World, object: &Object, body: &Value, written: Value, way: Way) {
    let key = object.key();
    let content = fingerprint(object, body);
    // Not under the lock, which is that of all tenants.
    let drifted = tenant::objects::drifted_in(object, &written).is_some();
    ctx.writes.of(world.uid(), |memory| {
        if let Some(version) = written["metadata"]["resourceVersion"].as_str() {
            memory.written.insert(key.clone(), version.to_owned());
        }
        if way == Way::Deletion {
            // The first change of what was just made is a change back.
            let change = (key.clone(), Way::Change);
            memory.contest.expect(change, content);
        }
        memory.contest.wrote((key.clone(), way), content, ctx.now());
        if drifted {
            let change = (key.clone(), Way::Change);
            memory.contest.overruled(change, content, ctx.now());
        }
    });
    remember(ctx, key.kind, written);
}

/// Puts the answer to a write into the cache, so that the next plan knows it
/// without waiting for the watch.
fn remember(ctx: &Context, kind: ObjectKind, object: Value) {
    kind.cache(&ctx.caches).remember(object, &ctx.caches);
}

fn forget(ctx: &Context, key: &ObjectKey, uid: &str) {
    let name = NamespacedName::new(&key.namespace, &key.name);
    key.kind.cache(&ctx.caches).forget(&name, uid);
}

/// Metadata of what the cache holds.
fn held(ctx: &Context, key: &ObjectKey) -> Option<ObjectMeta> {
    let name = NamespacedName::new(&key.namespace, &key.name);
    key.kind.cache(&ctx.caches).meta(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiservice::names;

    use crate::context::testing::{Asked, context, fill};
    use crate::tenant::testing::Lab;

    #[test]
    fn refusals_have_their_own_reasons() {
        let outcome = |code, api: &str, message: &str| {
            failed(Refusal {
                code,
                reason: api.into(),
                message: message.into(),
            })
        };
        let Outcome::Failed { reason, retry, .. } = outcome(403, "Forbidden", "exceeded quota: q")
        else {
            panic!("a refusal is a failure")
        };
        assert_eq!((reason.as_str(), retry), (reason::QUOTA_EXCEEDED, true));
        let Outcome::Failed { reason, retry, .. } = outcome(422, "Invalid", "spec.x") else {
            panic!("a refusal is a failure")
        };
        assert_eq!((reason.as_str(), retry), ("Invalid", false));
        let Outcome::Failed { retry, .. } = outcome(0, "ApplyFailed", "refused") else {
            panic!("a refusal is a failure")
        };
        assert!(retry);
    }

    /// The memory of all tenants is under one lock.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_large_object_is_not_compared_while_others_wait() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::{Duration, Instant};

        use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
        use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

        let (ctx, _) =
            crate::context::testing::context(crate::context::testing::nothing, true).await;
        let lab = crate::tenant::testing::Lab::ready();
        let env = (0..60_000).map(|it| EnvVar {
            name: format!("n{it}"),
            ..EnvVar::default()
        });
        let container = Container {
            name: "c".to_owned(),
            env: Some(env.collect()),
            ..Container::default()
        };
        let mut spec = DeploymentSpec::default();
        spec.template.spec = Some(PodSpec {
            containers: vec![container],
            ..PodSpec::default()
        });
        let object = Object::Deployment(Deployment {
            spec: Some(spec),
            ..Deployment::default()
        });
        let body = object.value().unwrap();
        let started = Instant::now();
        assert_eq!(tenant::objects::drifted_in(&object, &body), None);
        let takes = started.elapsed();
        let longest_wait = || {
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !done.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        ctx.writes.of("another", |_| ());
                        longest = longest.max(asked.elapsed());
                        std::thread::yield_now();
                    }
                    longest
                });
                wrote(&ctx, &lab.world, &object, &body, body.clone(), Way::Change);
                done.store(true, Ordering::Relaxed);
                waits.join().unwrap()
            })
        };
        // Whoever else has the machine may hold up a thread.
        let least = (0..5).map(|_| longest_wait()).min().unwrap();
        assert!(least < takes / 2, "{least:?} of {takes:?}");
    }

    /// Go takes this time, and our types do not.
    fn live(asked: &Asked) -> Value {
        let lab = Lab::ready();
        let wanted = lab.world.deployment().unwrap().clone();
        let mut live = Object::Deployment(wanted).value().unwrap();
        live["metadata"]["uid"] = json!("live");
        live["metadata"]["resourceVersion"] = json!("77");
        let late = json!([{"manager": "m", "time": "9999-12-31T23:59:59Z"}]);
        live["metadata"]["managedFields"] = late;
        if asked.method != "GET" {
            live["metadata"]["resourceVersion"] = json!("78");
        }
        live
    }

    /// What comes of an apply of a Deployment that is not in the cache, and what was written.
    async fn applied(answers: fn(&Asked) -> (u16, Value)) -> (Outcome, Vec<Value>) {
        let (ctx, asked) = context(answers, true).await;
        let lab = Lab::ready();
        fill(&ctx.caches, &lab);
        ctx.caches.deployments.replace("", vec![]);
        let wanted = lab.world.deployment().unwrap().clone();
        let outcome = apply(&ctx, &lab.world, &Object::Deployment(wanted)).await;
        let asked = asked.lock();
        let written = asked.iter().filter(|it| it.method != "GET");
        (outcome, written.map(|it| it.body.clone()).collect())
    }

    #[tokio::test]
    async fn whose_an_object_is_does_not_hang_on_times_in_it() {
        let (outcome, written) = applied(|asked| (200, live(asked))).await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        assert_eq!(written.len(), 1);
        assert_eq!(
            written[0]["metadata"]["uid"], "live",
            "and no other of the name"
        );

        let (outcome, written) = applied(|asked| {
            let mut live = live(asked);
            live["metadata"]["ownerReferences"] = json!([]);
            (200, live)
        })
        .await;
        let Outcome::Failed { reason, .. } = &outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((reason.as_str(), written.len()), (reason::NAME_TAKEN, 0));

        let (outcome, written) = applied(|_| (200, json!({"metadata": [7]}))).await;
        let Outcome::Failed { message, .. } = &outcome else {
            panic!("{outcome:?}")
        };
        assert!(message.contains("cannot be read"), "{message}");
        assert_eq!(written, Vec::<Value>::new());
    }

    /// Its spec cannot be compared, and is not taken for one that is as it is wanted.
    #[tokio::test]
    async fn a_spec_that_cannot_be_read_is_replaced() {
        let (outcome, written) = applied(|asked| {
            let mut live = live(asked);
            let template = &mut live["spec"]["template"]["metadata"];
            template["creationTimestamp"] = json!("9999-12-31T23:59:59Z");
            (200, live)
        })
        .await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        let wanted = Lab::ready().world.deployment().unwrap().clone();
        let wanted = Object::Deployment(wanted).value().unwrap();
        assert_eq!(written[0][1]["value"], wanted["spec"]);
    }

    /// Somebody has put 12,000 variables into a Deployment of ours.
    #[tokio::test]
    async fn what_is_too_large_to_be_compared_is_replaced() {
        fn deployment(lab: &Lab) -> Value {
            let wanted = lab.world.deployment().unwrap().clone();
            Object::Deployment(wanted).value().unwrap()
        }
        let answers = |asked: &Asked| {
            let mut live = deployment(&Lab::ready());
            live["metadata"]["resourceVersion"] = json!("77");
            // Of before: what is applied now is another wish.
            live["metadata"]["annotations"][names::ANNOTATION_APPLIED] = json!("other");
            if asked.method == "GET" {
                let container = &mut live["spec"]["template"]["spec"]["containers"][0];
                container["env"] = json!(vec![json!({"name": "A"}); 12_000]);
            }
            (200, live)
        };
        let (ctx, asked) = context(answers, true).await;
        let lab = Lab::ready();
        fill(&ctx.caches, &lab);
        let wanted = lab.world.deployment().unwrap().clone();
        let outcome = apply(&ctx, &lab.world, &Object::Deployment(wanted)).await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        let asked = asked.lock();
        let patch = asked.iter().find(|it| it.body.is_array()).unwrap();
        assert_eq!(
            patch.body[0]["value"], "77",
            "if nobody has changed it since"
        );
        let spec = (&patch.body[1]["path"], &patch.body[1]["value"]);
        assert_eq!(spec, (&json!("/spec"), &deployment(&lab)["spec"]));
        let applied = asked.iter().filter(|it| it.path.contains("force=true"));
        assert_eq!(applied.count(), 1);
    }

    #[test]
    fn a_secret_with_new_certificates_is_the_same_wish() {
        let secret = |value: &str| {
            Object::Secret(k8s_openapi::api::core::v1::Secret {
                data: Some(
                    [(
                        "tls.crt".to_owned(),
                        k8s_openapi::ByteString(value.as_bytes().to_vec()),
                    )]
                    .into(),
                ),
                ..Default::default()
            })
        };
        let print = |object: &Object| fingerprint(object, &object.value().unwrap());
        assert_eq!(print(&secret("a")), print(&secret("b")));
        let map = |value: &str| {
            Object::ConfigMap(k8s_openapi::api::core::v1::ConfigMap {
                data: Some([("k".to_owned(), value.to_owned())].into()),
                ..Default::default()
            })
        };
        assert_ne!(print(&map("a")), print(&map("b")));
    }
}
