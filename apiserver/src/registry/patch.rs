//! PATCH (contract 3.9): JSON patch and JSON merge patch; [`apply`] has configurations.

use apiservice::Resource;
use apiservice::field::{self, Path};
use axum::body::Body;
use http::{Response, StatusCode, header};
use serde_json::Value;

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authz::{Permit, verb};
use crate::decode::{self, Reject};
use crate::merge::{self, Inapplicable, Patch};
use crate::options::{FieldValidation, Write, WriteKind};
use crate::registry::update::Change;
use crate::registry::{Registry, Request, apply, get};
use crate::respond;
use crate::status::Failure;
use crate::warnings::Warnings;

/// Answers with the patched object.
pub async fn run(
    registry: &Registry,
    permit: Permit<verb::Patch>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    patch(registry, &permit, request, Part::Main).await
}

/// PATCH of the object or of its status.
pub async fn patch(
    registry: &Registry,
    permit: &Permit<verb::Patch>,
    request: &Request,
    part: Part,
) -> Result<Response<Body>, Failure> {
    if apply::is_asked(request) {
        return apply::run(registry, permit, request, part).await;
    }
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Object)?;
    let resource = permit.resource();
    let name = get::name(permit)?;
    let (patch, strict) = request.read(|| parse(request)).await?;
    let options = Write::parse(query, WriteKind::Patch)?;
    let change = Change::new(registry, permit, request, part, options.dry_run)?;
    let stored = change
        .patching(&patch)
        .apply(|old| {
            let mut patched = patched(&patch, old)?;
            complete(
                resource,
                &mut patched,
                strict.clone(),
                options.field_validation,
                &request.warnings,
            )?;
            admission::match_name(&patched, name)?;
            admission::match_namespace(resource, &mut patched, permit.namespace())?;
            Ok(patched)
        })
        .await?;
    let now = registry.clock.now();
    Ok(respond::object(
        resource,
        &stored,
        &accept,
        StatusCode::OK,
        now,
    ))
}

/// The patch in the body, by its Content-Type, and what a strict reader says.
pub fn parse(request: &Request) -> Result<(Patch, Vec<String>), Failure> {
    let encoded = request.headers.contains_key(header::CONTENT_ENCODING);
    match decode::content_type(&request.headers).as_str() {
        _ if encoded => Err(Failure::UnsupportedMediaType(apply::ACCEPTED.to_owned())),
        "application/json-patch+json" => merge::json(&request.body),
        "application/merge-patch+json" => merge::merge(&request.body),
        _ => Err(Failure::UnsupportedMediaType(apply::ACCEPTED.to_owned())),
    }
}

/// The patched document.
pub fn patched(patch: &Patch, old: &Value) -> Result<Value, Failure> {
    let mut patched = old.clone();
    patch.apply(&mut patched).map_err(|error| match error {
        Inapplicable::TooDeep => Failure::BadRequest(error.to_string()),
        // Kubernetes does not tell the client (R3.56); the log does.
        Inapplicable::Operation(_) | Inapplicable::Untrue(_) => {
            tracing::debug!(%error, "a patch does not apply");
            Failure::Unprocessable
        }
    })?;
    Ok(patched)
}

fn complete(
    resource: &'static Resource,
    patched: &mut Value,
    strict: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let document = patched.to_string();
    decode::complete(resource, patched, strict, validation, warnings).map_err(|reject| match reject
    {
        Reject::Failure(failure) => failure,
        Reject::Decode(error) => invalid(&document, &error),
    })
}

/// 422 for a patch whose result is no object of the kind (R3.56).
pub fn invalid(document: &str, error: &str) -> Failure {
    Failure::Invalid {
        kind: String::new(),
        group: String::new(),
        name: String::new(),
        errors: field::Error::invalid(&Path::new("patch"), document, error).into(),
    }
}
