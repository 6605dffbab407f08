//! The scale subresource (R3.74, 8.4): `autoscaling/v1` Scale over the fields
//! that the resource's row names.

use apiservice::ScalePaths;
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::accept::{self, Answer};
use crate::admission::{self, Part};
use crate::authz::{Permit, verb};
use crate::decode;
use crate::options::{FieldValidation, Write, WriteKind};
use crate::registry::apply::{self, Config};
use crate::registry::ownership::{self, Applied};
use crate::registry::patch as patches;
use crate::registry::scale::{complete, scale, scaled};
use crate::registry::update::Change;
use crate::registry::{Registry, Request, get};
use crate::respond;
use crate::status::Failure;
use crate::table;

/// Answers with the Scale.
pub async fn get(
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let accept = accept::negotiate(&request.headers, &request.query(), Answer::Scale)?;
    let (object, _room) = get::object(registry, &permit).await?;
    let scale = scale(paths(&permit)?, &object)?;
    Ok(respond::with_columns(
        table::SCALE,
        &scale,
        &accept,
        StatusCode::OK,
        registry.clock.now(),
    ))
}

/// Sets the replicas of a Scale that was put.
pub async fn update(
    registry: &Registry,
    permit: Permit<verb::Update>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Scale)?;
    let media = decode::any_media(&request.headers)?;
    let name = get::name(&permit)?;
    let options = Write::parse(query, WriteKind::Update)?;
    let parsed = request.read(|| decode::parse(media, &request.body)).await;
    let parsed = parsed.map_err(|error| error.unrecognized("Scale", &request.body))?;
    let mut scale = parsed.value;
    complete(
        &mut scale,
        parsed.duplicates,
        options.field_validation,
        &request.warnings,
    )
    .map_err(|error| {
        Failure::BadRequest(format!(
            "Scale in version \"v1\" cannot be handled as a Scale: {error}"
        ))
    })?;
    admission::match_name(&scale, name)?;
    admission::match_namespace(permit.resource(), &mut scale, permit.namespace())?;
    let paths = paths(&permit)?;
    let change = Change::new(registry, &permit, request, Part::Replicas, options.dry_run)?;
    let stored = change.apply(|old| scaled(paths, old, &scale)).await?;
    answer(registry, paths, &stored, &accept)
}

/// Patches the Scale and sets its replicas.
pub async fn patch(
    registry: &Registry,
    permit: Permit<verb::Patch>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    if apply::is_asked(request) {
        return apply(registry, &permit, request).await;
    }
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Scale)?;
    let name = get::name(&permit)?;
    let (patch, strict) = request.read(|| patches::parse(request)).await?;
    let options = Write::parse(query, WriteKind::Patch)?;
    let paths = paths(&permit)?;
    let change = Change::new(registry, &permit, request, Part::Replicas, options.dry_run)?;
    let stored = change
        .patching(&patch)
        .apply(|old| {
            let mut patched = patches::patched(&patch, &scale(paths, old)?)?;
            let document = patched.to_string();
            complete(
                &mut patched,
                strict.clone(),
                options.field_validation,
                &request.warnings,
            )
            .map_err(|error| patches::invalid(&document, &error))?;
            admission::match_name(&patched, name)?;
            admission::match_namespace(permit.resource(), &mut patched, permit.namespace())?;
            scaled(paths, old, &patched)
        })
        .await?;
    answer(registry, paths, &stored, &accept)
}

/// Applies a configuration of the Scale (R5.25).
async fn apply(
    registry: &Registry,
    permit: &Permit<verb::Patch>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let query = request.query();
    let accept = accept::negotiate(&request.headers, &query, Answer::Scale)?;
    let options = Write::parse(query, WriteKind::Apply)?;
    let name = get::name(permit)?;
    let config = request.read(|| Config::read(request)).await?;
    let paths = paths(permit)?;
    let resource = permit.resource();
    let by = Applied {
        manager: query.first("fieldManager").unwrap_or_default(),
        force: options.force,
        now: registry.clock.now(),
    };
    let change = Change::new(registry, permit, request, Part::Replicas, options.dry_run)?;
    let stored = change
        .applying(&config.value)
        .apply(|old| {
            let live = (old, scale(paths, old)?);
            ownership::apply_scale(resource, paths, live, &config.value, by, |mut applied| {
                config.judge(options.field_validation, &request.warnings)?;
                let ignore = FieldValidation::Ignore;
                complete(&mut applied, Vec::new(), ignore, &request.warnings)
                    .map_err(Failure::Unexplained)?;
                admission::match_name(&applied, name)?;
                admission::match_namespace(resource, &mut applied, permit.namespace())?;
                scaled(paths, old, &applied)
            })
        })
        .await?;
    answer(registry, paths, &stored, &accept)
}

fn answer(
    registry: &Registry,
    paths: &ScalePaths,
    stored: &Value,
    accept: &accept::Accept,
) -> Result<Response<Body>, Failure> {
    let scale = scale(paths, stored)?;
    Ok(respond::with_columns(
        table::SCALE,
        &scale,
        accept,
        StatusCode::OK,
        registry.clock.now(),
    ))
}

fn paths<V>(permit: &Permit<V>) -> Result<&'static ScalePaths, Failure> {
    ownership::scale_paths(permit.resource()).ok_or(Failure::UnknownPath)
}
