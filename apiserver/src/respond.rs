//! Answers: failures, objects, lists, Tables, metadata only, and compression.

use std::sync::Arc;

use apiservice::Resource;
use apiservice::resource::Column;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use crate::accept::{self, Accept, Encoding, MetaVersion, Shape};
use crate::audit::trail::Said;
use crate::cache::{Item, Pace, Rest};
use crate::live_bytes::{Kept, Live, Own};
use crate::protobuf;
use crate::status::Failure;
use crate::table;

/// Bodies above this many bytes are compressed for clients that can (R4.10).
const COMPRESS_ABOVE: u64 = 128 * 1024;
/// Lists are handed to the connection in pieces of about this size.
const PIECE: usize = 64 * 1024;

impl Failure {
    /// The answer to a request with these headers: the Status as YAML or protobuf if the
    /// client prefers that, as JSON in every other case.
    pub fn into_response(self, request: &HeaderMap) -> Response<Body> {
        let (body, media) = accept::plain_encoding(request).encode(&self.to_status(), false);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Forbidden { .. }) {
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
        }
        response
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

    fn to_message(&self) -> protobuf::meta::ListMeta {
        protobuf::meta::ListMeta {
            resource_version: self.revision.to_string(),
            continue_token: self.continue_token.clone().unwrap_or_default(),
            remaining_item_count: self.remaining.and_then(|count| count.try_into().ok()),
            ..Default::default()
        }
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
    let mut response = response(code, media, Body::from(bytes));
    if value["kind"] == "Status" && value["apiVersion"] == "v1" {
        response.extensions_mut().insert(Said(value.clone()));
    }
    response
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
    if let (Encoding::Protobuf, Shape::Partial(version)) = (accept.encoding, accept.shape) {
        let body = Body::from(item.partial_protobuf(version));
        return response(StatusCode::OK, protobuf::MEDIA, body);
    }
    object(resource, &item.value(), accept, StatusCode::OK, now)
}

/// A list, or the Table of it, made item by item while it is being sent: however long
/// it is, no more than a piece of it is held beside the items, and is counted. `held` is
/// let go of when it was sent.
pub async fn list<H: Send + 'static>(
    resource: &'static Resource,
    meta: &ListMeta,
    items: Vec<Arc<Item>>,
    accept: &Accept,
    now: Timestamp,
    held: (Live, H),
) -> Response<Body> {
    if let (Encoding::Protobuf, Shape::PartialList(version)) = (accept.encoding, accept.shape) {
        return messages(version, meta, items, held).await;
    }
    let plain = accept.encoding == Encoding::Json && !accept.pretty;
    let metadata = meta.to_value();
    let whole = |kind: &str, api_version: &str| json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": []});
    let frame = Frame::of(accept);
    match accept.shape {
        Shape::Object | Shape::Partial(_) => {
            let list = whole(resource.list_kind, &resource.api_version());
            let pieces = frame.around(&list, "items");
            if plain {
                // Nothing is made anew, so the length is known.
                let lengths: usize = items.iter().map(|item| item.encoded.len()).sum();
                let length = pieces.length(items.len()) + lengths;
                let mut response = pieces.stream(items, |item| item.encoded.clone(), held);
                let length = HeaderValue::from(length);
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, length);
                return response;
            }
            let form = move |item: &Item| frame.entry(&item.value());
            pieces.stream(items, form, held)
        }
        Shape::PartialList(version) => {
            let list = whole("PartialObjectMetadataList", version.api_version());
            let pieces = frame.around(&list, "items");
            let form = move |item: &Item| match plain {
                true => item.partial(version),
                false => frame.entry(&table::partial(&item.value(), version)),
            };
            pieces.stream(items, form, held)
        }
        Shape::Table(version, include) => {
            let columns = table::columns(resource);
            let definitions = table::definitions(columns);
            let table = table::table(version, metadata, Some(definitions), Vec::new());
            let pieces = frame.around(&table, "rows");
            let form = move |item: &Item| {
                frame.entry(&table::row(columns, &item.value(), version, include, now))
            };
            pieces.stream(items, form, held)
        }
    }
}

/// A PartialObjectMetadataList in protobuf. The lengths of its items stand before them: they
/// are counted once for each object, and the messages are made anew while they are sent.
async fn messages<H: Send + 'static>(
    version: MetaVersion,
    meta: &ListMeta,
    items: Vec<Arc<Item>>,
    held: (Live, H),
) -> Response<Body> {
    let mut pace = Pace::default();
    let mut bytes = 0;
    for item in &items {
        let read = match item.has_message_len() {
            true => 0,
            false => item.encoded.len(),
        };
        pace.step(read).await;
        bytes += protobuf::list::entry_len(item.message_len());
    }
    let message = meta.to_message();
    let (head, tail) = protobuf::list::around(version.api_version(), &message, bytes);
    let length = HeaderValue::from(head.len() + bytes + tail.len());
    let pieces = Pieces {
        empty: Bytes::from([&head[..], &tail].concat()),
        head,
        between: "",
        tail,
        media: protobuf::MEDIA,
    };
    let form = |item: &Item| protobuf::list::entry(&item.message());
    let mut response = pieces.stream(items, form, held);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

/// How the entries of a list stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Plain,
    Pretty,
    Yaml,
}

/// A list around its entries.
struct Pieces {
    head: Bytes,
    between: &'static str,
    tail: Bytes,
    /// What there is if there are no entries.
    empty: Bytes,
    media: &'static str,
}

impl Frame {
    fn of(accept: &Accept) -> Self {
        match (accept.encoding, accept.pretty) {
            (Encoding::Yaml, _) => Self::Yaml,
            (_, false) => Self::Plain,
            (_, true) => Self::Pretty,
        }
    }

    /// The list without entries, cut where they belong: at its empty field `field`,
    /// which is told from others of the name by the place at which it stands.
    fn around(self, list: &Value, field: &str) -> Pieces {
        let encoding = match self {
            Self::Plain | Self::Pretty => Encoding::Json,
            Self::Yaml => Encoding::Yaml,
        };
        let (bytes, media) = encoding.encode(list, self == Self::Pretty);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (mark, open, between, close) = match self {
            Self::Plain => (
                format!("\"{field}\":[]"),
                format!("\"{field}\":["),
                ",",
                "]",
            ),
            Self::Pretty => (
                format!("\n  \"{field}\": []"),
                format!("\n  \"{field}\": [\n"),
                ",\n",
                "\n  ]",
            ),
            Self::Yaml => (format!("\n{field}: []\n"), format!("\n{field}:\n"), "", ""),
        };
        let (before, after) = text.rsplit_once(&mark).unwrap_or((&text, ""));
        Pieces {
            head: Bytes::from(format!("{before}{open}")),
            between,
            tail: Bytes::from(format!("{close}{after}")),
            empty: Bytes::from(bytes),
            media,
        }
    }

    /// One entry, as it stands in the list.
    fn entry(self, value: &Value) -> Bytes {
        let (indent, first, encoding) = match self {
            Self::Plain => return Bytes::from(value.to_string()),
            Self::Pretty => ("    ", "    ", Encoding::Json),
            Self::Yaml => ("  ", "- ", Encoding::Yaml),
        };
        let (bytes, _) = encoding.encode(value, true);
        let text = String::from_utf8_lossy(&bytes);
        let mut entry = String::with_capacity(text.len() + text.len() / 4);
        for (number, line) in text.lines().enumerate() {
            if number > 0 {
                entry.push('\n');
            }
            if !line.is_empty() {
                entry.push_str(if number == 0 { first } else { indent });
            }
            entry.push_str(line);
        }
        if self == Self::Yaml {
            entry.push('\n');
        }
        Bytes::from(entry)
    }
}

impl Pieces {
    /// The length of everything but the entries.
    fn length(&self, count: usize) -> usize {
        match count {
            0 => self.empty.len(),
            count => self.head.len() + (count - 1) * self.between.len() + self.tail.len(),
        }
    }

    fn stream<H: Send + 'static>(
        self,
        items: Vec<Arc<Item>>,
        form: impl Fn(&Item) -> Bytes + Send + 'static,
        held: (Live, H),
    ) -> Response<Body> {
        let Self {
            head,
            between,
            tail,
            empty,
            media,
        } = self;
        if items.is_empty() {
            return response(StatusCode::OK, media, Body::from(empty));
        }
        let estimate: usize = items.iter().map(|item| item.encoded.len()).sum();
        let items = Arc::new(Rest::new(items, &held.0));
        let own = Own::default();
        let kept = Kept::of(&items, own.clone());
        let made = move |live: &Live, piece: BytesMut| own.mark(live.count(piece.freeze()));
        let start = Some((items, head, form, held));
        let pieces = stream::unfold(start, move |state| {
            let next = state.map(|(items, head, form, held)| {
                let mut first = !head.is_empty();
                let mut piece = BytesMut::from(head.as_ref());
                loop {
                    let Some(item) = items.next() else {
                        piece.extend_from_slice(&tail);
                        return (made(&held.0, piece), None);
                    };
                    if !first {
                        piece.extend_from_slice(between.as_bytes());
                    }
                    first = false;
                    piece.extend_from_slice(&form(&item));
                    if piece.len() >= PIECE {
                        let piece = made(&held.0, piece);
                        let rest = (items, Bytes::new(), form, held);
                        return (piece, Some(rest));
                    }
                }
            });
            std::future::ready(
                next.map(|(piece, rest)| (Ok::<_, std::convert::Infallible>(piece), rest)),
            )
        });
        let mut response = response(StatusCode::OK, media, Body::from_stream(pieces.fuse()));
        response.extensions_mut().insert(Estimate(estimate as u64));
        response.extensions_mut().insert(kept);
        response
    }
}

/// About how long a body is whose length is not known.
#[derive(Clone, Copy, Debug)]
struct Estimate(u64);

/// Compresses a large answer if the client accepts gzip (R4.10). Watches have
/// no length and stay as they are.
pub async fn compress(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let Some(accepted) = request.get(header::ACCEPT_ENCODING).cloned() else {
        return response;
    };
    if !is_compressed(request, &response) {
        return response;
    }
    let layer = CompressionLayer::new()
        .no_br()
        .no_deflate()
        .no_zstd()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        // Whether it is large was asked above; a stream cannot say.
        .compress_when(SizeAbove::new(0));
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

/// Whether the answer is large enough to be compressed, and its client may take it so.
pub fn is_compressed(request: &HeaderMap, response: &Response<Body>) -> bool {
    request.contains_key(header::ACCEPT_ENCODING)
        && size(response).is_some_and(|size| size > COMPRESS_ABOVE)
}

/// The length of a body, or about that, if it is known.
fn size(response: &Response<Body>) -> Option<u64> {
    let declared = response.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
    declared
        .or_else(|| response.body().size_hint().exact())
        .or_else(|| response.extensions().get::<Estimate>().map(|about| about.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// What is sent piece by piece is what the encoder makes of the whole.
    /// R3.11, R4.5.
    #[tokio::test]
    async fn lists_in_pieces_are_the_lists() {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let now = "2026-01-01T00:05:30Z".parse().unwrap();
        let object = |n: usize| {
            json!({
                "apiVersion": resource.api_version(), "kind": resource.kind,
                "metadata": {"name": format!("a{n}"), "namespace": "n", "resourceVersion": "7",
                    "annotations": {
                        "items": "\n  \"items\": []\n\nitems: []\n",
                        "long": "x ".repeat(n * 20_000), "lines": "a\n\n  b\n- c: |\n",
                    }},
                "spec": {"list": [{"a": []}, {"b": {}}, "\"rows\":[]"]},
            })
        };
        let meta = ListMeta {
            revision: 7,
            continue_token: Some("t".to_owned()),
            remaining: Some(3),
        };
        let v1 = MetaVersion::V1;
        let shapes = [
            Shape::Object,
            Shape::PartialList(v1),
            Shape::Table(v1, crate::accept::IncludeObject::Object),
        ];
        for count in [0, 1, 4] {
            let objects: Vec<Value> = (0..count).map(object).collect();
            let items: Vec<Arc<Item>> = objects
                .iter()
                .map(|o| Arc::new(Item::new(o, &Default::default())))
                .collect();
            for shape in shapes {
                for (encoding, pretty) in [
                    (Encoding::Json, false),
                    (Encoding::Json, true),
                    (Encoding::Yaml, false),
                ] {
                    let accept = Accept {
                        shape,
                        encoding,
                        pretty,
                    };
                    let response = list(
                        resource,
                        &meta,
                        items.clone(),
                        &accept,
                        now,
                        (Live::default(), ()),
                    )
                    .await;
                    let declared = response.headers().get(header::CONTENT_LENGTH).cloned();
                    let bytes = response.into_body().collect().await.unwrap().to_bytes();
                    if let Some(declared) = declared {
                        assert_eq!(declared.to_str().unwrap(), bytes.len().to_string());
                    }
                    let expected = match shape {
                        Shape::Table(version, include) => {
                            let columns = table::columns(resource);
                            let rows = objects.iter();
                            let rows = rows.map(|o| table::row(columns, o, version, include, now));
                            let definitions = Some(table::definitions(columns));
                            table::table(version, meta.to_value(), definitions, rows.collect())
                        }
                        Shape::PartialList(version) => json!({
                            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                            "metadata": meta.to_value(),
                            "items": objects.iter().map(|o| table::partial(o, version)).collect::<Vec<_>>(),
                        }),
                        _ => json!({
                            "kind": resource.list_kind, "apiVersion": resource.api_version(),
                            "metadata": meta.to_value(), "items": objects,
                        }),
                    };
                    let text = std::str::from_utf8(&bytes).unwrap();
                    let read: Value = match encoding {
                        Encoding::Json => serde_json::from_str(text).unwrap(),
                        _ => serde_saphyr::from_str(text).unwrap(),
                    };
                    assert_eq!(read, expected, "{text}");
                    if pretty {
                        assert_eq!(text, format!("{expected:#}\n"));
                    }
                }
            }
        }
    }

    /// Indentation multiplies what is deep; such an entry is written without it.
    #[tokio::test]
    async fn entries_of_lists_are_bounded_with_their_indentation() {
        let resource = apiservice::find("tenantcontrolplanes").unwrap();
        let mut deep = Value::from(vec![1; 60_000]);
        for _ in 0..50 {
            deep = json!([deep]);
        }
        let small = json!({"metadata": {"name": "a"}});
        let large = json!({"metadata": {"name": "b"}, "spec": deep});
        let of = |object: &Value| Arc::new(Item::new(object, &Default::default()));
        let items = vec![of(&small), of(&large)];
        for encoding in [Encoding::Json, Encoding::Yaml] {
            let accept = Accept {
                shape: Shape::Object,
                encoding,
                pretty: true,
            };
            let meta = ListMeta::default();
            let now = Timestamp::UNIX_EPOCH;
            let held = (Live::default(), ());
            let list = list(resource, &meta, items.clone(), &accept, now, held).await;
            let bytes = list.into_body().collect().await.unwrap().to_bytes();
            assert!(bytes.len() < 1_000_000, "{encoding:?}: {}", bytes.len());
            let read: Value = match encoding {
                Encoding::Json => serde_json::from_slice(&bytes).unwrap(),
                _ => serde_saphyr::from_slice(&bytes).unwrap(),
            };
            assert_eq!(read["items"], json!([small, large]));
        }
    }

    /// R4.10.
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
