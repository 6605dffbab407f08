//! Headers of requests that are kept, and of all answers.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

pub(super) const AUDIT_ID: &str = "audit-id";

/// The headers that are looked at after the caller is known, copied: what came with them
/// is not kept while the request is carried out.
pub(super) fn needed(headers: &HeaderMap) -> HeaderMap {
    let names = [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        header::USER_AGENT,
    ];
    let mut needed = HeaderMap::new();
    for name in names {
        for value in headers.get_all(&name) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                needed.append(name.clone(), value);
            }
        }
    }
    needed
}

/// kube-apiserver's id of what it forwards, so that both audit logs can be joined. Nobody else
/// names a request: it could be somebody else's.
pub(super) fn audit_id(headers: &HeaderMap, proxied: bool) -> String {
    headers
        .get(AUDIT_ID)
        .filter(|_| proxied)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= 128)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

pub(super) fn common_headers(headers: &mut HeaderMap, audit_id: &str) {
    if let Ok(id) = HeaderValue::try_from(audit_id) {
        headers.insert(AUDIT_ID, id);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
}

pub(super) fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, media);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
