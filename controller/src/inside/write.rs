//! Looks at a tenant and writes in it: the only writer to tenants' APIs, but for what
//! a probe leaves there. What one object meets holds up no other, but for what the
//! writer may not do at all.

use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::inside::connection::{Answer, Tenant, failure};
use crate::inside::held::held;
use crate::inside::objects;
use crate::inside::plan::Step;
use crate::inside::wanted::{Inside, Kept, problem};
use crate::process::timing;
use crate::tenant::world::{InsideProblem, ProbeFailure, ProbeFailureKind as Kind};

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
/// Objects that are asked for at a time.
const TOGETHER: usize = 4;

/// What there is of what is kept in the tenant, and what of it could not be read. `first`:
/// the API server has just started.
pub async fn look(
    tenant: &Tenant,
    wanted: Vec<Kept>,
    first: bool,
) -> Result<(Inside, Vec<InsideProblem>), ProbeFailure> {
    // Out of its cache, once there is one.
    let from = if first { "" } else { "?resourceVersion=0" };
    let looks = wanted.into_iter().map(|kept| async move {
        let read = async {
            let path = format!("{}{from}", path(&kept.value)?);
            let answer = tenant.call(Method::GET, &path, "", None).await?;
            match answer.status {
                StatusCode::NOT_FOUND => Ok(None),
                // Before the next one is parsed.
                status if status.is_success() => Ok(Some(held(&kept.value, &answer.body))),
                _ => Err(refused(&answer, Kind::Read)),
            }
        };
        (read.await, kept)
    });
    let looks: Vec<_> = stream::iter(looks).buffered(TOGETHER).collect().await;
    let mut inside = Inside { found: Vec::new() };
    let mut problems = Vec::new();
    for (read, kept) in looks {
        match read {
            Ok(live) => inside.found.push((kept, live)),
            Err(failure) if failure.kind == Kind::Read => {
                let about = format!("Cannot read {}", objects::title(&kept.value));
                problems.push(problem(about, &failure.message));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok((inside, problems))
}

/// Carries out one step. `first`: the API server has just started.
///
/// # Errors
/// Of kind `Write` where the step alone is concerned.
pub async fn carry_out(tenant: &Tenant, step: &Step, first: bool) -> Result<(), ProbeFailure> {
    let work = tokio::time::timeout(timing::STEP_DEADLINE, one(tenant, step, first));
    work.await.unwrap_or_else(|_| {
        let seconds = timing::STEP_DEADLINE.as_secs();
        let message = format!("no answer within {seconds} s, as from a webhook that hangs");
        Err(failure(Kind::Write, message))
    })
}

async fn one(tenant: &Tenant, step: &Step, first: bool) -> Result<(), ProbeFailure> {
    match step {
        Step::Create(object) if first => {
            // Cheaper for it than its first server-side apply, for which it builds its
            // whole schema.
            let answer = create(tenant, object).await?;
            if answer.status != StatusCode::CONFLICT {
                return expect(&answer);
            }
            drop(answer);
            apply(tenant, object).await
        }
        Step::Create(object) | Step::Apply { object, .. } => apply(tenant, object).await,
        Step::Put { object, .. } => put(tenant, object).await,
        Step::Delete { object, uid } => delete(tenant, object, uid).await,
        Step::Replace { object, uid, field } => {
            if field == "spec.clusterIP" {
                is_free(tenant, object).await?;
            }
            delete(tenant, object, uid).await?;
            apply(tenant, object).await
        }
        // Nothing is done about it.
        Step::Blocked { .. } => Ok(()),
    }
}

/// Whether a Service can have its address: tried under another name, while the one that it
/// is to replace is still there.
async fn is_free(tenant: &Tenant, service: &Value) -> Result<(), ProbeFailure> {
    let Some((collection, name)) = objects::place(service) else {
        return Err(unknown(service));
    };
    let mut trial = service.clone();
    trial["metadata"] = json!({"generateName": format!("{name}-trial-")});
    let address = format!("{collection}?dryRun=All&fieldManager=steward-controller");
    let tried = tenant.call(Method::POST, &address, JSON, Some(&trial));
    expect(&tried.await?)
}

/// In the background, and only the one that is meant.
async fn delete(tenant: &Tenant, object: &Value, uid: &str) -> Result<(), ProbeFailure> {
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid},
        "propagationPolicy": "Background",
    });
    let path = path(object)?;
    let answer = tenant.call(Method::DELETE, &path, JSON, Some(&options));
    let answer = answer.await?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(()),
        _ => expect(&answer),
    }
}

async fn create(tenant: &Tenant, object: &Value) -> Result<Answer, ProbeFailure> {
    let Some((collection, _)) = objects::place(object) else {
        return Err(unknown(object));
    };
    let address = format!("{collection}?fieldManager=steward-controller");
    let created = tenant.call(Method::POST, &address, JSON, Some(object));
    created.await
}

async fn apply(tenant: &Tenant, object: &Value) -> Result<(), ProbeFailure> {
    let path = path(object)?;
    let address = format!("{path}?fieldManager=steward-controller&force=true");
    let applied = tenant.call(Method::PATCH, &address, APPLY, Some(object));
    expect(&applied.await?)
}

/// In place of what there is, which refuses and allows until then what it did: a deletion
/// would let everything pass for a moment.
async fn put(tenant: &Tenant, object: &Value) -> Result<(), ProbeFailure> {
    let address = format!("{}?fieldManager=steward-controller", path(object)?);
    let put = tenant.call(Method::PUT, &address, JSON, Some(object));
    expect(&put.await?)
}

fn path(object: &Value) -> Result<String, ProbeFailure> {
    objects::path_of(object).ok_or_else(|| unknown(object))
}

fn unknown(object: &Value) -> ProbeFailure {
    let message = format!("{} is not kept in tenants", objects::title(object));
    failure(Kind::Write, message)
}

fn expect(answer: &Answer) -> Result<(), ProbeFailure> {
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(refused(answer, Kind::Write)),
    }
}

/// What an answer that is no success means. Quotas and admission plug-ins refuse with the
/// code of RBAC, and in words of their own.
fn refused(answer: &Answer, otherwise: Kind) -> ProbeFailure {
    let message = answer.message();
    let rbac = ["\" cannot ", "attempting to grant RBAC permissions"];
    let kind = match answer.status {
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN if rbac.iter().any(|words| message.contains(words)) => {
            Kind::Forbidden
        }
        _ => otherwise,
    };
    failure(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::connection::tests::{Answers, tenant};
    use crate::inside::plan::{Basis, plan, wanted};

    async fn looked(answers: Answers) -> Result<(Inside, Vec<InsideProblem>), Kind> {
        let tenant = tenant(answers).await;
        let basis = Basis {
            first: true,
            anew: false,
            cluster: None,
        };
        let found = look(&tenant, wanted(&basis).0, false).await;
        found.map_err(|failure| failure.kind)
    }

    #[tokio::test]
    async fn what_one_object_meets_holds_up_no_other() {
        let answers: Answers = |_, path| match path.contains("steward:view?") {
            true => (500, "{\"message\":\"it is broken\"}"),
            false => (404, "{}"),
        };
        let (inside, problems) = looked(answers).await.unwrap();
        assert_eq!(
            problems,
            [problem(
                "Cannot read ClusterRoleBinding steward:view",
                "it is broken"
            )]
        );
        let steps = plan(&inside);
        assert!(steps.len() > 5 && steps.len() == inside.found.len());

        // Who may not look at all is told so, and another tries.
        let answers: Answers = |_, _| {
            (
                403,
                "{\"message\":\"clusterroles is forbidden: User \\\"steward:bootstrap\\\" cannot get\"}",
            )
        };
        assert_eq!(looked(answers).await.err(), Some(Kind::Forbidden));
    }

    #[tokio::test]
    async fn a_quota_is_told_from_a_lack_of_rights() {
        let step = |answers: Answers| async move {
            let tenant = tenant(answers).await;
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"},
            });
            let done = carry_out(&tenant, &Step::Create(object), false).await;
            done.map_err(|failure| failure.kind)
        };
        let quota: Answers = |_, _| (403, "{\"message\":\"exceeded quota: none\"}");
        assert_eq!(step(quota).await, Err(Kind::Write));
        let rights: Answers = |_, _| {
            (
                403,
                "{\"message\":\"User \\\"steward:bootstrap\\\" cannot patch\"}",
            )
        };
        assert_eq!(step(rights).await, Err(Kind::Forbidden));
        let escalates: Answers = |_, _| {
            (
                403,
                "{\"message\":\"user \\\"x\\\" is attempting to grant RBAC permissions not held\"}",
            )
        };
        assert_eq!(step(escalates).await, Err(Kind::Forbidden));
    }

    /// What is wholly ours is written whole, at the version that was seen.
    #[tokio::test]
    async fn what_is_put_is_put() {
        let answers: Answers = |method, path| match (method.as_str(), path) {
            (
                "PUT",
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/a?fieldManager=steward-controller",
            ) => (200, "{}"),
            _ => (500, "{\"message\":\"something else was asked\"}"),
        };
        let tenant = tenant(answers).await;
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "a", "resourceVersion": "7"},
        });
        let field = "spec".to_owned();
        let step = Step::Put { object, field };
        carry_out(&tenant, &step, false).await.unwrap();
    }
}
