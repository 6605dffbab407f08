//! Paths that are no resource: discovery, OpenAPI, health, metrics.

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::context::Context;
use super::headers::plain;
use crate::health::{self, Check};
use crate::metrics;
use crate::status::{Failure, Subject};

/// Marks an answer whose bytes are everybody's.
#[derive(Clone, Copy)]
pub(super) struct Shared;

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a [(String, String)],
    /// Whether somebody asks whom we know: others are not told why a check fails.
    pub(super) by_somebody: bool,
}

impl Context {
    /// The answer about a path.
    ///
    /// # Errors
    /// 405 for what can only be read.
    pub(super) fn document(
        &self,
        asked: Asked<'_>,
        parts: &Parts,
    ) -> Result<Response<Body>, Failure> {
        match self.document_at(asked, &parts.headers) {
            Some(_) if !matches!(parts.method, Method::GET | Method::HEAD) => {
                Err(Failure::MethodNotAllowed {
                    verb: parts.method.as_str().to_ascii_lowercase(),
                    subject: Subject::default(),
                })
            }
            Some(answer) => answer,
            None => {
                let text = "404 page not found\n".to_owned();
                Ok(plain(StatusCode::NOT_FOUND, text))
            }
        }
    }

    fn document_at(
        &self,
        asked: Asked<'_>,
        headers: &HeaderMap,
    ) -> Option<Result<Response<Body>, Failure>> {
        let Asked { path, query, .. } = asked;
        if path == "/metrics" {
            return Some(self.measured());
        }
        let mut segments = path.trim_matches('/').splitn(2, '/');
        let endpoint = segments.next().unwrap_or_default();
        let checks = match endpoint {
            "readyz" => self.ready_checks(),
            "livez" | "healthz" => vec![Check::of("ping", true, "")],
            _ => {
                let answer = self.documents.answer(path, query, headers)?;
                return Some(answer.map(|mut answer| {
                    answer.extensions_mut().insert(Shared);
                    answer
                }));
            }
        };
        let known = asked.by_somebody;
        let (code, text) = health::answer(endpoint, segments.next(), &checks, query, known)?;
        Some(Ok(plain(code, text)))
    }

    fn measured(&self) -> Result<Response<Body>, Failure> {
        let text = self.metrics.encode();
        let text = text.map_err(|error| Failure::Internal(error.to_string()))?;
        let mut response = plain(StatusCode::OK, text);
        let media = HeaderValue::from_static(metrics::MEDIA_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        Ok(response)
    }
}
