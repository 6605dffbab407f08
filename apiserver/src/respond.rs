//! Answers: objects, lists, Tables, metadata only, warnings and compression.

use std::sync::Arc;

use apiservice::Resource;
use apiservice::resource::Column;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use crate::accept::{Accept, Encoding, MetaVersion, Shape};
use crate::cache::Item;
use crate::table;

/// Bodies above this many bytes are compressed for clients that can (R4.10).
const COMPRESS_ABOVE: u64 = 128 * 1024;
/// Lists are handed to the connection in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// All warnings of one answer; beyond it each is cut to [`CUT_WARNING`].
const MAX_WARNINGS: usize = 4096;
const CUT_WARNING: usize = 256;

/// Texts for the client beside the answer; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// What was added so far.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Writes one `Warning` header for each text (R3.83).
    pub fn apply(&self, headers: &mut HeaderMap) {
        let texts = self.texts();
        let total: usize = texts.iter().map(|text| text.chars().count()).sum();
        let mut left = MAX_WARNINGS;
        for text in texts {
            let text: String = match total > MAX_WARNINGS {
                true => text.chars().take(CUT_WARNING).collect(),
                false => text,
            };
            let length = text.chars().count();
            if length > left {
                break;
            }
            left -= length;
            // A header cannot carry line breaks; YAML's duplicate texts have them.
            let text: String = text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                headers.append(header::WARNING, value);
            }
        }
    }
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListMeta {
    /// The state that the list is of.
    pub revision: u64,
    /// Where the next page begins, if there is one.
    pub continue_token: Option<String>,
    /// Objects after this page, if nothing is selected.
    pub remaining: Option<u64>,
}

impl ListMeta {
    /// As JSON.
    pub fn to_value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            meta["continue"] = Value::from(token.as_str());
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = Value::from(remaining);
        }
        meta
    }
}

fn response(code: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Any object as it is: a Status, a Config.
pub fn raw(value: &Value, accept: &Accept, code: StatusCode) -> Response<Body> {
    let (bytes, media) = accept.encoding.encode(value, accept.pretty);
    response(code, media, Body::from(bytes))
}

/// An object of the resource in the shape that the client asked for.
pub fn object(
    resource: &Resource,
    value: &Value,
    accept: &Accept,
    code: StatusCode,
    now: Timestamp,
) -> Response<Body> {
    with_columns(table::columns(resource), value, accept, code, now)
}

/// As [`object`], with columns given: subresources have their own.
pub fn with_columns(
    columns: &[Column],
    value: &Value,
    accept: &Accept,
    code: StatusCode,
    now: Timestamp,
) -> Response<Body> {
    match accept.shape {
        Shape::Object | Shape::PartialList(_) => raw(value, accept, code),
        Shape::Partial(version) => raw(&table::partial(value, version), accept, code),
        Shape::Table(version, include) => {
            let mut metadata = json!({});
            if let Some(version) = value["metadata"].get("resourceVersion") {
                metadata["resourceVersion"] = version.clone();
            }
            let rows = vec![table::row(columns, value, version, include, now)];
            let table = table::table(version, metadata, Some(table::definitions(columns)), rows);
            raw(&table, accept, code)
        }
    }
}

/// A stored object: its prepared bytes if the client takes them as they are.
pub fn item(resource: &Resource, item: &Item, accept: &Accept, now: Timestamp) -> Response<Body> {
    if accept.shape == Shape::Object && accept.encoding == Encoding::Json && !accept.pretty {
        let mut bytes = BytesMut::with_capacity(item.encoded.len() + 1);
        bytes.extend_from_slice(&item.encoded);
        bytes.extend_from_slice(b"\n");
        return response(
            StatusCode::OK,
            "application/json",
            Body::from(bytes.freeze()),
        );
    }
    object(resource, &item.value(), accept, StatusCode::OK, now)
}

/// A list, or the Table of it.
pub fn list(
    resource: &Resource,
    meta: &ListMeta,
    items: Vec<Arc<Item>>,
    accept: &Accept,
    now: Timestamp,
) -> Response<Body> {
    let plain = accept.encoding == Encoding::Json && !accept.pretty;
    let api_version = resource.api_version();
    match accept.shape {
        Shape::Object | Shape::Partial(_) if plain => {
            let head = head(resource.list_kind, &api_version, meta);
            concatenate(head, items, |item| item.encoded.clone())
        }
        Shape::PartialList(version) if plain => {
            let head = head("PartialObjectMetadataList", version.api_version(), meta);
            concatenate(head, items, move |item| item.partial(version))
        }
        Shape::Object | Shape::Partial(_) => {
            let items: Vec<Value> = items.iter().map(|item| item.value()).collect();
            let list = json!({
                "kind": resource.list_kind, "apiVersion": api_version,
                "metadata": meta.to_value(), "items": items,
            });
            raw(&list, accept, StatusCode::OK)
        }
        Shape::PartialList(version) => {
            let partial = |item: &Arc<Item>| table::partial(&item.value(), version);
            let items: Vec<Value> = items.iter().map(partial).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": version.api_version(),
                "metadata": meta.to_value(), "items": items,
            });
            raw(&list, accept, StatusCode::OK)
        }
        Shape::Table(version, include) => {
            let columns = table::columns(resource);
            let row = |item: &Arc<Item>| table::row(columns, &item.value(), version, include, now);
            let rows = items.iter().map(row).collect();
            let definitions = table::definitions(columns);
            let table = table::table(version, meta.to_value(), Some(definitions), rows);
            raw(&table, accept, StatusCode::OK)
        }
    }
}

fn head(kind: &str, api_version: &str, meta: &ListMeta) -> Bytes {
    let metadata = meta.to_value();
    Bytes::from(format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        Value::from(kind),
        Value::from(api_version)
    ))
}

/// A list by concatenation of prepared bytes, made while it is being sent.
fn concatenate(
    head: Bytes,
    items: Vec<Arc<Item>>,
    form: impl Fn(&Item) -> Bytes + Send + 'static,
) -> Response<Body> {
    const TAIL: &[u8] = b"]}\n";
    let forms: Vec<Bytes> = items.iter().map(|item| form(item)).collect();
    let commas = forms.len().saturating_sub(1);
    let length = head.len() + forms.iter().map(Bytes::len).sum::<usize>() + commas + TAIL.len();
    let pieces = stream::unfold(Some((head, forms.into_iter())), |state| async {
        let (head, mut forms) = state?;
        let mut first = !head.is_empty();
        let mut piece = BytesMut::from(head.as_ref());
        loop {
            let Some(form) = forms.next() else {
                piece.extend_from_slice(TAIL);
                return Some((Ok::<_, std::convert::Infallible>(piece.freeze()), None));
            };
            if !first {
                piece.extend_from_slice(b",");
            }
            first = false;
            piece.extend_from_slice(&form);
            if piece.len() >= PIECE {
                return Some((Ok(piece.freeze()), Some((Bytes::new(), forms))));
            }
        }
    });
    let pieces = pieces.fuse();
    let mut response = response(
        StatusCode::OK,
        "application/json",
        Body::from_stream(pieces),
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Compresses a large answer if the client accepts gzip (R4.10). Watches have
/// no length and stay as they are.
pub async fn compress(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let Some(accepted) = request.get(header::ACCEPT_ENCODING).cloned() else {
        return response;
    };
    if size(&response).is_none_or(|size| size <= COMPRESS_ABOVE) {
        return response;
    }
    let layer = CompressionLayer::new()
        .no_br()
        .no_deflate()
        .no_zstd()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESS_ABOVE));
    let mut inner = http::Request::new(());
    inner
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    let mut slot = Some(response);
    let service = tower::service_fn(move |_: http::Request<()>| {
        // Called once: `oneshot` is.
        let response = slot.take().unwrap_or_default();
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    match layer.layer(service).oneshot(inner).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// The length of a body, if it is known.
fn size(response: &Response<Body>) -> Option<u64> {
    let declared = response.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
    declared.or_else(|| response.body().size_hint().exact())
}

/// One frame of a watch: the event and a newline (R3.22).
pub fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(object.len() + 32);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(kind.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object);
    frame.extend_from_slice(b"}\n");
    frame.freeze()
}

/// The bytes of PartialObjectMetadata around prepared metadata.
pub fn partial_bytes(metadata: &str, version: MetaVersion) -> Bytes {
    Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":{metadata}}}",
        version.api_version()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn warnings_are_quoted_once_and_cut() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.x\"");
        warnings.add("unknown field \"spec.x\"");
        warnings.add("a\nb");
        let mut headers = HeaderMap::new();
        warnings.apply(&mut headers);
        let texts: Vec<_> = headers.get_all(header::WARNING).iter().collect();
        assert_eq!(
            texts,
            ["299 - \"unknown field \\\"spec.x\\\"\"", "299 - \"a b\""]
        );
        let many = Warnings::default();
        (0..20).for_each(|n| many.add(format!("{n}{}", "x".repeat(1000))));
        let mut headers = HeaderMap::new();
        many.apply(&mut headers);
        assert_eq!(headers.get_all(header::WARNING).iter().count(), 16);
    }

    #[tokio::test]
    async fn compresses_only_large_answers() {
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for (size, expected) in [(1000, false), (200_000, true)] {
            let answer = Response::new(Body::from(vec![b'x'; size]));
            let answer = compress(&request, answer).await;
            assert_eq!(
                answer.headers().contains_key(header::CONTENT_ENCODING),
                expected
            );
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() < size, expected);
        }
        let endless =
            Body::from_stream(stream::iter([Ok::<_, std::io::Error>(vec![b'x'; 200_000])]));
        let answer = compress(&request, Response::new(endless)).await;
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING));
        request.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip;q=0"),
        );
        let answer = compress(&request, Response::new(Body::from(vec![b'x'; 200_000]))).await;
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING));
    }
}
