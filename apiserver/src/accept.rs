//! Content negotiation of answers (contract 4.1 to 4.9).
//!
//! [`negotiate`] turns the Accept header into an [`Accept`]: an encoding and the
//! shape of the object. A clause that we cannot serve is skipped, so that
//! `application/vnd.kubernetes.protobuf,application/json` yields JSON.

use apiservice::field::{self, Path};
use http::{HeaderMap, header};
use serde_json::Value;

use crate::options::Query;
use crate::protobuf;
use crate::status::Failure;

/// The text of a 406 (R4.2); the list is the one CRDs print.
const SUPPORTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Yaml,
    /// Of metadata, Status, Scale and discovery alone.
    Protobuf,
}

impl Encoding {
    /// The bytes and their media type. JSON ends with a newline (R4.5). What indentation
    /// makes larger than [`INDENTED`] is JSON without it, which is YAML as well. What has no
    /// form in protobuf is JSON.
    pub fn encode(self, value: &Value, pretty: bool) -> (Vec<u8>, &'static str) {
        let (media, indented) = match self {
            Self::Json => ("application/json", pretty.then(|| indented_json(value))),
            Self::Yaml => ("application/yaml", Some(yaml(value))),
            Self::Protobuf => match protobuf::encode(value) {
                Some(bytes) => return (bytes, protobuf::MEDIA),
                None => ("application/json", None),
            },
        };
        let bytes = indented.flatten().unwrap_or_else(|| {
            let mut bytes = value.to_string().into_bytes();
            bytes.push(b'\n');
            bytes
        });
        (bytes, media)
    }
}

fn indented_json(value: &Value) -> Option<Vec<u8>> {
    let mut written = Bounded::default();
    serde_json::to_writer_pretty(&mut written, value).ok()?;
    written.0.push(b'\n');
    Some(written.0)
}

fn yaml(value: &Value) -> Option<Vec<u8>> {
    let mut written = Bounded::default();
    serde_saphyr::to_io_writer(&mut written, value).ok()?;
    Some(written.0)
}

/// Bytes of one object with indentation. It multiplies what is deep and has many lines:
/// an object of 1 MiB would become 70.
pub const INDENTED: usize = 4 * 1024 * 1024;

/// Takes [`INDENTED`] bytes and no more.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > INDENTED {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `meta.k8s.io/v1` or the older name of the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    V1,
    V1beta1,
}

impl MetaVersion {
    /// As `apiVersion` carries it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What of an object a Table row carries (R4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncludeObject {
    Metadata,
    Object,
    None,
}

/// What the client wants to see of an object or list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The object as it is.
    Object,
    Table(MetaVersion, IncludeObject),
    /// PartialObjectMetadata.
    Partial(MetaVersion),
    /// PartialObjectMetadataList.
    PartialList(MetaVersion),
}

/// The outcome of negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// JSON, YAML or protobuf.
    pub encoding: Encoding,
    /// The object, a Table of it, or its metadata.
    pub shape: Shape,
    /// Indented JSON (R3.11); never used for watches.
    pub pretty: bool,
}

/// What an endpoint answers with; a shape that does not fit is a 406 (R4.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One object, of which metadata has a form in protobuf.
    Object,
    /// A Scale, which has one itself.
    Scale,
    /// What a subresource of our own makes: it has none.
    Made,
    /// A list of objects, of which metadata has a form in protobuf.
    List,
    /// A stream of events; there is no YAML stream (R3.21).
    Watch,
}

impl Answer {
    /// Whether this shape of it has a form in an encoding (R4.1, R4.8).
    fn has(self, encoding: Encoding, shape: Shape) -> bool {
        match (encoding, shape) {
            (Encoding::Json, _) => true,
            (Encoding::Yaml, _) => self != Self::Watch,
            (Encoding::Protobuf, Shape::Object) => self == Self::Scale,
            (Encoding::Protobuf, Shape::Table(..)) => false,
            (Encoding::Protobuf, Shape::Partial(_) | Shape::PartialList(_)) => self != Self::Made,
        }
    }
}

struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(clause).collect();
    // Stable: equal clauses keep the client's order.
    clauses.sort_by(|a, b| {
        b.quality
            .total_cmp(&a.quality)
            .then_with(|| (a.kind == "*").cmp(&(b.kind == "*")))
            .then_with(|| (a.subtype == "*").cmp(&(b.subtype == "*")))
    });
    clauses
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let (kind, subtype) = match media.split_once('/') {
        Some(split) => split,
        None if media == "*" => ("*", "*"),
        None => return None,
    };
    let mut quality = 1.0;
    let mut parameters = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key == "q" {
            quality = value.parse().unwrap_or(1.0);
        } else {
            parameters.push((key, value));
        }
    }
    Some(Clause {
        kind,
        subtype,
        quality,
        parameters,
    })
}

impl Clause<'_> {
    /// The encodings that it takes, in the order in which they are tried.
    fn encodings(&self) -> impl Iterator<Item = Encoding> {
        let all = [
            ("json", Encoding::Json),
            ("yaml", Encoding::Yaml),
            ("vnd.kubernetes.protobuf", Encoding::Protobuf),
        ];
        let is_ours = self.kind == "*" || self.kind == "application";
        all.into_iter()
            .filter(move |(subtype, _)| {
                is_ours && (self.subtype == "*" || self.subtype == *subtype)
            })
            .map(|(_, encoding)| encoding)
    }

    fn parameter(&self, key: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value)
    }

    /// `None`: this clause asks for what we do not have.
    fn shape(&self, answer: Answer, include: IncludeObject) -> Option<Shape> {
        let get = |key: &str| self.parameter(key).unwrap_or("");
        match get("stream") {
            "" => {}
            "watch" if answer == Answer::Watch => {}
            _ => return None,
        }
        if !matches!(get("sv"), "" | "v1") {
            return None;
        }
        let target = get("as");
        if target.is_empty() {
            return Some(Shape::Object);
        }
        let version = match (get("g"), get("v")) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1beta1,
            _ => return None,
        };
        match target {
            "Table" => Some(Shape::Table(version, include)),
            "PartialObjectMetadata" => Some(Shape::Partial(version)),
            "PartialObjectMetadataList" => Some(Shape::PartialList(version)),
            _ => None,
        }
    }
}

fn header_of(headers: &HeaderMap) -> &str {
    let value = headers.get(header::ACCEPT);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Encoding and shape for an answer, or 406.
pub fn negotiate(headers: &HeaderMap, query: &Query, answer: Answer) -> Result<Accept, Failure> {
    let pretty = pretty(headers, query);
    let header = header_of(headers);
    if header.trim().is_empty() {
        return Ok(Accept {
            encoding: Encoding::Json,
            shape: Shape::Object,
            pretty,
        });
    }
    for clause in clauses(header) {
        let Some(shape) = clause.shape(answer, IncludeObject::Metadata) else {
            continue;
        };
        let Some(encoding) = clause.encodings().find(|it| answer.has(*it, shape)) else {
            continue;
        };
        let shape = fit(shape, answer, query)?;
        return Ok(Accept {
            encoding,
            shape,
            pretty,
        });
    }
    Err(Failure::NotAcceptable(SUPPORTED.to_owned()))
}

/// Refuses a single object's shape for a list and the other way about.
fn fit(shape: Shape, answer: Answer, query: &Query) -> Result<Shape, Failure> {
    match (shape, answer) {
        (Shape::Table(version, _), _) => Ok(Shape::Table(version, include_object(query)?)),
        (Shape::Partial(_), Answer::List) => Err(Failure::NotAcceptable(
            "you requested PartialObjectMetadata, but the requested object is a list (*unstructured.UnstructuredList)".to_owned(),
        )),
        (Shape::PartialList(_), _) if answer != Answer::List => Err(Failure::NotAcceptable(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*unstructured.Unstructured)".to_owned(),
        )),
        (shape, _) => Ok(shape),
    }
}

fn include_object(query: &Query) -> Result<IncludeObject, Failure> {
    match query.first("includeObject").unwrap_or("") {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => {
            let error = field::Error::invalid(
                &Path::new("includeObject"),
                other,
                "must be 'Metadata', 'Object', 'None', or empty",
            );
            Err(Failure::BadRequest(format!(
                "Unable to convert to Table as requested: {error}"
            )))
        }
    }
}

/// What a Status is written in, never a reason to fail a second time, and a document of
/// discovery. Both have one shape, so that clauses with a shape are not about them: metadata
/// clients, which list protobuf with a shape only, get a Status as JSON.
pub fn plain_encoding(headers: &HeaderMap) -> Encoding {
    let takes = |clause: &Clause<'_>| {
        let plain = ["as", "g", "v"]
            .iter()
            .all(|key| clause.parameter(key).is_none());
        let get = |key: &str| clause.parameter(key).unwrap_or("");
        plain && get("sv").is_empty() && matches!(get("stream"), "" | "watch")
    };
    clauses(header_of(headers))
        .iter()
        .filter(|clause| takes(clause))
        .find_map(|clause| clause.encodings().next())
        .unwrap_or(Encoding::Json)
}

fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(value) = query.first("pretty").filter(|value| !value.is_empty()) {
        return matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True");
    }
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|prefix| agent.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(header: &str, answer: Answer) -> Option<(Encoding, Shape)> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(header::ACCEPT, header.parse().unwrap());
        }
        let accept = negotiate(&headers, &Query::default(), answer).ok()?;
        Some((accept.encoding, accept.shape))
    }

    /// R3.21, R4.1, R4.2, R4.3, R4.8, R4.9.
    #[test]
    fn clauses_in_the_order_of_the_contract() {
        use Encoding::{Json, Protobuf, Yaml};
        let partial = Shape::Partial(MetaVersion::V1);
        let table = Shape::Table(MetaVersion::V1, IncludeObject::Metadata);
        let cases = [
            ("", Answer::Object, Some((Json, Shape::Object))),
            ("*/*", Answer::Object, Some((Json, Shape::Object))),
            (
                "application/json, */*",
                Answer::List,
                Some((Json, Shape::Object)),
            ),
            (
                "application/yaml",
                Answer::Object,
                Some((Yaml, Shape::Object)),
            ),
            ("application/yaml", Answer::Watch, None),
            (
                "application/json;q=0.5,application/yaml",
                Answer::Object,
                Some((Yaml, Shape::Object)),
            ),
            ("application/vnd.kubernetes.protobuf", Answer::Object, None),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Answer::Object,
                Some((Json, Shape::Object)),
            ),
            ("text/plain", Answer::Object, None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Answer::List,
                Some((Json, table)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Answer::List,
                Some((Protobuf, Shape::PartialList(MetaVersion::V1))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Answer::Watch,
                Some((Protobuf, partial)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/yaml",
                Answer::Made,
                Some((Yaml, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
                Answer::Object,
                Some((Json, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Answer::Scale,
                Some((Protobuf, Shape::Object)),
            ),
            (
                "application/*;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Answer::Object,
                Some((Json, partial)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Answer::List,
                None,
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Answer::List,
                None,
            ),
            (
                "application/json;as=Nothing;g=meta.k8s.io;v=v1,application/json",
                Answer::Object,
                Some((Json, Shape::Object)),
            ),
            ("application/json;stream=watch", Answer::Object, None),
            (
                "application/json;stream=watch",
                Answer::Watch,
                Some((Json, Shape::Object)),
            ),
        ];
        for (header, answer, expected) in cases {
            assert_eq!(run(header, answer), expected, "{header} {answer:?}");
        }
    }

    /// R4.2: a Status is written in what is accepted without a shape, and in any case.
    #[test]
    fn failures_are_written_in_what_is_accepted() {
        use Encoding::{Json, Protobuf, Yaml};
        let protobuf = "application/vnd.kubernetes.protobuf";
        for (header, expected) in [
            (String::new(), Json),
            ("text/plain".to_owned(), Json),
            (protobuf.to_owned(), Protobuf),
            (format!("application/yaml,{protobuf}"), Yaml),
            (format!("{protobuf};stream=watch"), Protobuf),
            (format!("{protobuf};stream=other"), Json),
            (format!("{protobuf};as=Table;g=meta.k8s.io;v=v1"), Json),
            (format!("{protobuf};as=Table,{protobuf}"), Protobuf),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, header.parse().unwrap());
            assert_eq!(plain_encoding(&headers), expected, "{header}");
        }
    }

    /// Sixty levels down, each of many elements is on a line of its own.
    #[test]
    fn indentation_is_bounded() {
        let mut deep = Value::from(vec![1; 60_000]);
        for _ in 0..60 {
            deep = serde_json::json!([deep]);
        }
        let plain = deep.to_string();
        for (encoding, pretty) in [(Encoding::Json, true), (Encoding::Yaml, false)] {
            let (bytes, _) = encoding.encode(&deep, pretty);
            assert_eq!(bytes.len(), plain.len() + 1, "{encoding:?}");
            let read: Value = match encoding {
                Encoding::Json => serde_json::from_slice(&bytes).unwrap(),
                _ => serde_saphyr::from_slice(&bytes).unwrap(),
            };
            assert_eq!(read, deep);
        }
        let shallow = serde_json::json!({"a": vec![1; 500_000]});
        let (bytes, _) = Encoding::Json.encode(&shallow, true);
        assert_eq!(bytes, format!("{shallow:#}\n").into_bytes());
    }

    #[test]
    fn bad_include_object() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            "application/json;as=Table;v=v1;g=meta.k8s.io"
                .parse()
                .unwrap(),
        );
        let pairs = [("includeObject".to_owned(), "x".to_owned())];
        let query = Query::new(&pairs);
        let failure = negotiate(&headers, &query, Answer::List).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Unable to convert to Table as requested: includeObject: Invalid value: \"x\": must be 'Metadata', 'Object', 'None', or empty"
        );
    }
}
