//! The status subresource (R3.72): reads are the whole object, writes change
//! nothing but `status`.

use axum::body::Body;
use http::Response;

use crate::admission::Part;
use crate::authz::{Permit, verb};
use crate::registry::{Registry, Request, patch as patches, update as updates};
use crate::status::Failure;

/// Answers with the whole object.
pub async fn get(
    registry: &Registry,
    permit: Permit<verb::Get>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    crate::registry::get::run(registry, permit, request).await
}

/// Takes the status of an object that was put.
pub async fn update(
    registry: &Registry,
    permit: Permit<verb::Update>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    updates::put(registry, &permit, request, Part::Status).await
}

/// Takes the status of the patched object.
pub async fn patch(
    registry: &Registry,
    permit: Permit<verb::Patch>,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    patches::patch(registry, &permit, request, Part::Status).await
}
