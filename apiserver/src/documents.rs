//! What is said about the API: discovery, OpenAPI, version (contract 2).
//!
//! Everything is made once, at start, from `apiservice`: the answers need neither the
//! cluster nor the database, are the same bytes on all replicas, and change with the
//! program only.

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::accept::{self, Encoding};
use crate::protobuf;
use crate::status::Failure;

const JSON: &str = "application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_MESSAGE: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const REVALIDATE: &str = "no-cache, private";
const FOR_EVER: &str = "public, immutable";

/// One document and its hash.
#[derive(Clone, Debug)]
struct Document {
    body: Bytes,
    media: &'static str,
    /// Upper-case hexadecimal, without quotes (R2.17, R2.27).
    hash: String,
}

impl Document {
    fn new(value: &Value, media: &'static str) -> Document {
        let mut body = value.to_string().into_bytes();
        body.push(b'\n');
        Document::of(body, media)
    }

    fn of(body: Vec<u8>, media: &'static str) -> Document {
        let hash = hex::encode_upper(Sha512::digest(&body));
        Document {
            body: body.into(),
            media,
            hash,
        }
    }

    /// The document, or 304 for a client that has it.
    fn answer(&self, request: &HeaderMap, cache: &'static str) -> Response<Body> {
        let tag = format!("\"{}\"", self.hash);
        let known = request
            .get(header::IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
        let mut response = if known {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(Body::from(self.body.clone()));
            let media = HeaderValue::from_static(self.media);
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            response
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// A document of discovery, in both of its forms.
#[derive(Clone, Debug)]
struct Discovery {
    json: Document,
    message: Document,
}

impl Discovery {
    fn new(value: &Value, json: &'static str, message: &'static str) -> Discovery {
        // Each has its type among the messages; a test sees that.
        let bytes = protobuf::encode(value).unwrap_or_default();
        Discovery {
            json: Document::new(value, json),
            message: Document::of(bytes, message),
        }
    }

    fn plain(value: &Value) -> Discovery {
        Discovery::new(value, JSON, protobuf::MEDIA)
    }

    /// Anything but protobuf is JSON.
    fn written_as(&self, encoding: Encoding) -> &Document {
        match encoding {
            Encoding::Protobuf => &self.message,
            Encoding::Json | Encoding::Yaml => &self.json,
        }
    }
}

/// The documents of this program.
pub struct Documents {
    groups: Discovery,
    group: Discovery,
    resources: Discovery,
    aggregated: Discovery,
    open_api: Document,
    open_api_index: Document,
    open_api_v2: Document,
    /// When they were made, as HTTP writes it.
    made: HeaderValue,
    version: Document,
}

impl Documents {
    /// Those of a process that started at `now`.
    pub fn new(now: Timestamp) -> Self {
        let open_api = Document::new(&apiservice::openapi::v3_group_version(), JSON);
        let index = json!({"paths": {
            (group_version()): {
                "serverRelativeURL":
                    format!("/openapi/v3/{}?hash={}", group_version(), open_api.hash),
            },
        }});
        Documents {
            groups: Discovery::plain(&apiservice::discovery::api_group_list()),
            group: Discovery::plain(&apiservice::discovery::api_group()),
            resources: Discovery::plain(&apiservice::discovery::api_resource_list()),
            aggregated: Discovery::new(
                &apiservice::discovery::aggregated(),
                AGGREGATED,
                AGGREGATED_MESSAGE,
            ),
            open_api_index: Document::new(&index, JSON),
            open_api,
            open_api_v2: Document::new(&apiservice::openapi::v2(), JSON),
            made: http_date(now),
            version: Document::new(&version(), JSON),
        }
    }

    /// The document at a path; `None` if there is none.
    ///
    /// # Errors
    /// 406 when an OpenAPI client takes no JSON: of v2 nobody but kube-apiserver asks, which
    /// takes JSON and serves the rest itself.
    pub fn answer(
        &self,
        path: &str,
        query: &[(String, String)],
        request: &HeaderMap,
    ) -> Option<Result<Response<Body>, Failure>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let below = |root: &str| {
            path.strip_prefix(root)
                .and_then(|rest| rest.strip_prefix('/'))
        };
        let plain = accept::plain_encoding(request);
        let document = match path {
            "/apis" => match aggregated(request) {
                Some(encoding) => self.aggregated.written_as(encoding),
                None => self.groups.written_as(plain),
            },
            "/version" => &self.version,
            "/openapi/v3" => return Some(json_only(request, &self.open_api_index, REVALIDATE)),
            "/openapi/v2" => {
                let answer = json_only(request, &self.open_api_v2, REVALIDATE);
                return Some(answer.map(|mut answer| {
                    let headers = answer.headers_mut();
                    headers.insert(header::LAST_MODIFIED, self.made.clone());
                    answer
                }));
            }
            _ if below("/apis") == Some(apiservice::GROUP) => self.group.written_as(plain),
            _ if below("/apis").is_some_and(|rest| rest == group_of_path()) => {
                self.resources.written_as(plain)
            }
            _ if below("/openapi/v3").is_some_and(|rest| rest == group_version()) => {
                // A stale hash gets the present document instead of a redirect, which
                // the aggregator would turn into 502 (R1.14, R2.26).
                let current = query
                    .iter()
                    .any(|(key, value)| key == "hash" && *value == self.open_api.hash);
                let cache = if current { FOR_EVER } else { REVALIDATE };
                return Some(json_only(request, &self.open_api, cache));
            }
            _ => return None,
        };
        let cache = match path {
            "/apis" => "public",
            _ => REVALIDATE,
        };
        Some(Ok(document.answer(request, cache)))
    }
}

fn http_date(time: Timestamp) -> HeaderValue {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let text = printer.timestamp_to_rfc9110_string(&time);
    let text = text.ok().and_then(|text| HeaderValue::try_from(text).ok());
    // Only of a year that has not four digits.
    text.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// `GROUP/VERSION`, as in paths below `/apis`.
fn group_of_path() -> String {
    format!("{}/{}", apiservice::GROUP, apiservice::VERSION)
}

/// `apis/GROUP/VERSION`, as OpenAPI names it.
fn group_version() -> String {
    format!("apis/{}", group_of_path())
}

fn json_only(
    request: &HeaderMap,
    document: &Document,
    cache: &'static str,
) -> Result<Response<Body>, Failure> {
    let accept = accept_of(request);
    let takes_json = accept.is_empty()
        || accept.split(',').any(|clause| {
            let media = clause.split(';').next().unwrap_or_default().trim();
            matches!(media, "*/*" | "application/*" | "application/json")
        });
    if takes_json {
        Ok(document.answer(request, cache))
    } else {
        Err(Failure::NotAcceptable(
            "only the following media types are accepted: application/json".to_owned(),
        ))
    }
}

/// In which form aggregated discovery v2 is wanted, if the clause that the client likes best
/// is that; the order decides between equals (R2.16).
fn aggregated(request: &HeaderMap) -> Option<Encoding> {
    let mut best: Option<(f32, Option<Encoding>)> = None;
    for clause in accept_of(request).split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let value = |key: &str| {
            let found = parameters.iter().find(|(name, _)| *name == key);
            found.map_or("", |(_, value)| *value)
        };
        let aggregated = (value("as"), value("g"), value("v"))
            == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");
        let plain = value("as").is_empty();
        let encoding = match media {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            protobuf::MEDIA => Encoding::Protobuf,
            _ => continue,
        };
        if !(aggregated || plain) {
            continue;
        }
        let quality = value("q").parse().unwrap_or(1.0);
        if best.is_none_or(|(most, _)| quality > most) {
            best = Some((quality, aggregated.then_some(encoding)));
        }
    }
    best.and_then(|(_, aggregated)| aggregated)
}

fn accept_of(request: &HeaderMap) -> &str {
    request
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn version() -> Value {
    let mut numbers = env!("CARGO_PKG_VERSION").split('.');
    json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        headers
    }

    fn documents() -> Documents {
        Documents::new(Timestamp::from_second(1_800_000_000).unwrap())
    }

    /// R2.19, R2.20, R2.21: as kube-apiserver asks.
    #[test]
    fn open_api_v2() {
        let documents = documents();
        let ask = |headers: &HeaderMap| documents.answer("/openapi/v2", &[], headers).unwrap();
        let first = ask(&headers(JSON)).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let of = |name| first.headers()[name].to_str().unwrap();
        assert_eq!(of(header::CONTENT_TYPE), JSON);
        assert_eq!(of(header::VARY), "Accept");
        assert_eq!(of(header::LAST_MODIFIED), "Fri, 15 Jan 2027 08:00:00 GMT");
        let hash = hex::encode_upper(Sha512::digest(&documents.open_api_v2.body));
        assert_eq!(of(header::ETAG), format!("\"{hash}\""));
        let mut again = headers(JSON);
        again.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(ask(&again).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&headers("*/*")).unwrap().status(), StatusCode::OK);
        let protobuf = headers("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        assert_eq!(ask(&protobuf).unwrap_err().code().as_u16(), 406);
    }

    /// R2.30.
    #[test]
    fn the_version_has_what_clients_read_of_it() {
        let Document { body, .. } = documents().version;
        let version: Value = serde_json::from_slice(&body).unwrap();
        let texts = version.as_object().unwrap();
        let names: Vec<&str> = texts.keys().map(String::as_str).collect();
        let wanted = [
            "buildDate",
            "compiler",
            "gitCommit",
            "gitTreeState",
            "gitVersion",
            "goVersion",
            "major",
            "minor",
            "platform",
        ];
        assert_eq!(names, wanted);
        let text = |name: &str| texts[name].as_str().unwrap();
        assert!(texts.values().all(Value::is_string), "{version}");
        let numbers = format!("v{}.{}.", text("major"), text("minor"));
        assert!(text("gitVersion").starts_with(&numbers), "{version}");
        let answer = documents().answer("/version", &[], &headers(JSON));
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], JSON);
    }

    /// R2.16, R2.18.
    #[test]
    fn aggregated_discovery_is_chosen_as_clients_ask() {
        for (accept, expected) in [
            ("", false),
            ("application/json", false),
            ("*/*", false),
            (AGGREGATED, true),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                false,
            ),
            (
                "application/json,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;q=0.5",
                false,
            ),
        ] {
            assert_eq!(aggregated(&headers(accept)).is_some(), expected, "{accept}");
        }
    }

    /// R2.17.
    #[test]
    fn a_client_that_has_the_document_gets_304() {
        let document = Document::new(&json!({"a": 1}), JSON);
        let first = document.answer(&HeaderMap::new(), REVALIDATE);
        assert_eq!(first.status(), StatusCode::OK);
        let mut again = HeaderMap::new();
        again.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let second = document.answer(&again, REVALIDATE);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert!(!second.headers().contains_key(header::CONTENT_TYPE));
    }

    /// R1.14, R2.25, R2.26.
    #[test]
    fn a_stale_hash_gets_the_document_and_is_not_cached() {
        let documents = documents();
        let path = format!("/openapi/v3/{}", group_version());
        let ask = |hash: &str| {
            let query = [("hash".to_owned(), hash.to_owned())];
            documents
                .answer(&path, &query, &headers(JSON))
                .unwrap()
                .unwrap()
        };
        let stale = ask("ABC");
        assert_eq!(stale.status(), StatusCode::OK);
        assert_eq!(stale.headers()[header::CACHE_CONTROL], REVALIDATE);
        let current = ask(&documents.open_api.hash);
        assert_eq!(current.headers()[header::CACHE_CONTROL], FOR_EVER);
        let protobuf = headers("application/com.github.proto-openapi.spec.v3.v1.0+protobuf");
        let refused = documents.answer("/openapi/v3", &[], &protobuf).unwrap();
        assert_eq!(refused.unwrap_err().code().as_u16(), 406);
    }

    /// R2.27: what the aggregator compares is made from the bytes that clients get.
    #[test]
    fn the_hash_is_that_of_the_document() {
        let documents = documents();
        let document = &documents.open_api;
        let hash = hex::encode_upper(Sha512::digest(&document.body));
        assert_eq!(document.hash, hash);
        let index = documents.answer("/openapi/v3", &[], &headers(JSON));
        assert_eq!(index.unwrap().unwrap().status(), StatusCode::OK);
        let answer = document.answer(&HeaderMap::new(), REVALIDATE);
        assert_eq!(answer.headers()[header::ETAG], format!("\"{hash}\""));
        assert_eq!(self::documents().open_api.hash, hash, "in every process");
    }

    /// R2.6.
    #[test]
    fn unknown_paths_have_no_document() {
        let documents = documents();
        for path in [
            "/",
            "/apis/other",
            "/apis/steward.butlerlabs.dev/v9",
            "/openapi/v2/x",
            "/api",
        ] {
            assert!(
                documents.answer(path, &[], &HeaderMap::new()).is_none(),
                "{path}"
            );
        }
        for path in [
            "/apis/",
            "/apis/steward.butlerlabs.dev",
            "/apis/steward.butlerlabs.dev/v1alpha1/",
        ] {
            assert!(
                documents.answer(path, &[], &HeaderMap::new()).is_some(),
                "{path}"
            );
        }
    }
}
