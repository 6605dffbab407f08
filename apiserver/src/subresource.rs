//! Subresources, one a file.

mod admitting;
mod body;
pub mod join_token;
pub mod kubeconfig;
pub mod migrate;
pub mod scale;
pub mod status;
mod tenant;

use axum::body::Body;
use http::{HeaderValue, Response, header};

/// No cache keeps the answer: there is a credential in it.
fn never_cached(mut response: Response<Body>) -> Response<Body> {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}
