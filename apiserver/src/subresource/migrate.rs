//! `tenantcontrolplanes/NAME/migrate`: a tenant's data on its way to another DataStore.
//!
//! POST takes a MigrationRequest and sets `spec.dataStore`, GET says how far the move is,
//! DELETE sets `spec.dataStore` back to where the data is. The move itself is the
//! controller's; nothing is stored here but the tenant.
//!
//! Guarantees: a target that the caller names is there; one that the server chooses is
//! chosen as for a new tenant; a POST that is repeated changes nothing; a move that is
//! under way is not turned elsewhere; what is decided is decided on the object that is
//! written, or not written.
//!
//! Admission, as for `pods/eviction` and `serviceaccounts/token` in Kubernetes, sees the
//! request (CREATE or DELETE of `tenantcontrolplanes/migrate`) and not the tenant that is
//! changed by it.

mod asked;
mod plan;
mod stores;
mod table;

use apiservice::v1alpha1::MigrationRequest;
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::accept::{self, Accept, Answer, Shape};
use crate::admission::Part;
use crate::authz::{Permit, verb};
use crate::object::{self, set_meta};
use crate::options::{Write, WriteKind};
use crate::registry::update::{self, Change};
use crate::registry::{self, Registry, Request, delete as deletes, get as gets};
use crate::respond;
use crate::status::{Failure, Subject};
use crate::subresource::admitting::{Admission, How};

use asked::Asked;
use plan::Refused;
use stores::Choice;
pub use stores::Chooser;

/// Annotation of the audit line: where the data goes.
const AUDIT_TARGET: &str = "steward.butlerlabs.dev/migration-target";

/// GET.
///
/// # Errors
/// 404 without the tenant.
pub async fn get(
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let (object, _room) = registry::get::object(registry, &permit).await?;
    Ok(answer(registry, &object, &accept, StatusCode::OK))
}

/// POST.
///
/// # Errors
/// 404 without the tenant; 409 while another move is under way, without a DataStore that
/// can take the tenant, and for preconditions that do not hold; 422 for a target that is
/// not there.
pub async fn create(
    chooser: &Chooser,
    registry: &Registry,
    permit: Permit<verb::Create>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let write = Write::parse(request.query(), WriteKind::Create)?;
    let asked = request.read(|| Asked::parse(request, &permit)).await?;
    let decided = decide(chooser, registry, &permit, request, asked, write.dry_run).await?;
    let (stored, changed) = set(registry, &permit, request, &decided, write.dry_run).await?;
    if let Some(choice) = decided.choice {
        choice.stands();
    }
    let code = match changed {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok(answer(registry, &stored, &accept, code))
}

/// DELETE.
///
/// # Errors
/// 404 without the tenant or a move; 409 when the tenant is served from the target
/// already, and for preconditions that do not hold.
pub async fn delete(
    registry: &Registry,
    permit: Permit<verb::Delete>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Made)?;
    let options = request.read(|| deletes::options(request)).await?;
    let (resource, name) = (permit.resource(), gets::name(&permit)?);
    let check = |object: &Value| {
        deletes::check_preconditions(resource, name, object, &options)?;
        plan::aborted(object).map_err(|why| refused(&permit, why))
    };
    {
        let (object, _room) = registry::get::object(registry, &permit).await?;
        check(&object)?;
        let schema = MigrationRequest::schema();
        let admission = Admission::deleting(registry, &permit, request, schema, &options);
        admission.allow_deletion(&plan::view(&object)).await?;
    }
    let change = Change::new(registry, &permit, request, Part::Place, options.dry_run)?;
    let stored = change.apply(check).await?;
    Ok(answer(registry, &stored, &accept, StatusCode::OK))
}

/// What is to be written.
struct Decided<'a> {
    asked: Asked,
    target: String,
    /// Of the server's, if it was.
    choice: Option<Choice<'a>>,
}

/// Where the data goes, once admission has seen it.
async fn decide<'a>(
    chooser: &'a Chooser,
    registry: &Registry,
    permit: &Permit<verb::Create>,
    request: &Request,
    asked: Asked,
    dry_run: bool,
) -> Result<Decided<'a>, Failure> {
    let (object, _room) = registry::get::object(registry, permit).await?;
    check(permit, &asked, &object)?;
    let how = How::Sent { dry_run };
    let schema = MigrationRequest::schema();
    let admission = Admission::new(registry, permit, request, schema, how);
    let name = permit.name().unwrap_or_default();
    let changed = admission.mutate(asked.frame(&object)).await?;
    let mut asked = Asked::again(&changed, name)?;
    check(permit, &asked, &object)?;
    let named = asked.target.clone();
    let named = named.or_else(|| plan::under_way(&object).map(str::to_owned));
    let refuse = |why| refused(permit, why);
    let (target, choice) = match named {
        Some(target) => {
            if plan::step(&object, &target).map_err(refuse)? {
                stores::check(registry, permit, request, &target).await?;
            }
            (target, None)
        }
        None => {
            let choice = chooser.choose(registry, permit, &object, dry_run).await?;
            plan::step(&object, &choice.data_store).map_err(refuse)?;
            (choice.data_store.clone(), Some(choice))
        }
    };
    if !plan::has_data(&object) {
        request.warnings.add(format!(
            "the tenant has no data yet: it begins in DataStore {target}"
        ));
    }
    asked.target = Some(target.clone());
    admission.validate(&asked.frame(&object)).await?;
    request.annotations.add(AUDIT_TARGET, target.as_str());
    Ok(Decided {
        asked,
        target,
        choice,
    })
}

/// Writes it; says whether that changed anything.
async fn set(
    registry: &Registry,
    permit: &Permit<verb::Create>,
    request: &Request,
    decided: &Decided<'_>,
    dry_run: bool,
) -> Result<(Value, bool), Failure> {
    let mut changed = false;
    let change = Change::new(registry, permit, request, Part::Place, dry_run)?;
    let stored = change
        .apply(|old| {
            check(permit, &decided.asked, old)?;
            let mut new = plan::moved(old, &decided.target, decided.asked.retention.as_deref())
                .map_err(|why| refused(permit, why))?;
            changed = new != *old;
            if let Some(version) = &decided.asked.version {
                set_meta(&mut new, "resourceVersion", Some(version.as_str().into()));
            }
            Ok(new)
        })
        .await?;
    Ok((stored, changed))
}

/// The preconditions that can be judged before the write, and that the tenant stays.
fn check(permit: &Permit<verb::Create>, asked: &Asked, object: &Value) -> Result<(), Failure> {
    let name = permit.name().unwrap_or_default();
    if let Some(uid) = &asked.uid {
        let wanted = serde_json::json!({"metadata": {"uid": uid}});
        update::check_uid(permit, name, &wanted, object)?;
    }
    match object::deleting(object) {
        true => Err(refused(
            permit,
            Refused::Conflict("the tenant is being deleted".to_owned()),
        )),
        false => Ok(()),
    }
}

fn refused<V>(permit: &Permit<V>, why: Refused) -> Failure {
    let name = permit.name().unwrap_or_default();
    match why {
        Refused::Conflict(message) => Failure::Conflict {
            subject: Subject::of(permit.resource(), name),
            message,
        },
        Refused::Nothing => {
            Failure::NotFound(Subject::new(apiservice::GROUP, "migrationrequests", name))
        }
    }
}

fn answer(
    registry: &Registry,
    object: &Value,
    accept: &Accept,
    code: StatusCode,
) -> Response<Body> {
    let request = plan::view(object);
    let now = registry.clock.now();
    match accept.shape {
        Shape::Table(version, include) => {
            let table = table::of(&request, version, include, now);
            respond::raw(&table, accept, code)
        }
        _ => respond::with_columns(&[], &request, accept, code, now),
    }
}

#[cfg(test)]
mod tests;
