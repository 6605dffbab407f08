//! Looks at a tenant and writes in it: the only writer to tenants' APIs, but for what
//! a probe leaves there.

use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::inside::connection::{Answer, Tenant, failure};
use crate::inside::objects;
use crate::inside::plan::{Inside, Kept, Step};
use crate::tenant::world::{ProbeFailure, ProbeFailureKind as Kind};

const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
/// Objects that are asked for at a time.
const TOGETHER: usize = 8;

/// What there is of what is kept in the tenant.
pub async fn look(tenant: &Tenant, wanted: Vec<Kept>) -> Result<Inside, ProbeFailure> {
    let looks = wanted.into_iter().map(|kept| async move {
        let path = path(&kept.value)?;
        let answer = tenant.call(Method::GET, &path, "", None).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok((kept, None)),
            status if status.is_success() => Ok((kept, Some(answer.body))),
            _ => Err(refused(&answer, Kind::Read)),
        }
    });
    let found = stream::iter(looks).buffered(TOGETHER).try_collect().await?;
    Ok(Inside { found })
}

/// Carries out one step. `first`: the API server has just started.
pub async fn carry_out(tenant: &Tenant, step: &Step, first: bool) -> Result<(), ProbeFailure> {
    match step {
        Step::Create(object) if first => {
            // Cheaper for it than its first server-side apply, for which it builds its
            // whole schema.
            let answer = create(tenant, object).await?;
            if answer.status == StatusCode::CONFLICT {
                return apply(tenant, object).await;
            }
            expect(&answer)
        }
        Step::Create(object) | Step::Apply(object) => apply(tenant, object).await,
        Step::Delete { object, uid } => delete(tenant, object, uid).await,
        Step::Replace { object, uid } => {
            delete(tenant, object, uid).await?;
            apply(tenant, object).await
        }
    }
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

/// What an answer that is no success means.
fn refused(answer: &Answer, otherwise: Kind) -> ProbeFailure {
    let kind = match answer.status {
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        _ => otherwise,
    };
    failure(kind, answer.message())
}
