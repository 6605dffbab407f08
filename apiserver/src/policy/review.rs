//! AdmissionReviews: what is asked, and what an answer says. Pure.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::hooks::{Kind, Version};
use crate::status::{Denied, Details};

/// Bytes of the details of a refusal; longer ones are left out.
const DETAILS: usize = 16 * 1024;
/// Bytes of the text of a refusal.
const MESSAGE: usize = 16 * 1024;
/// Bytes of a refusal, which waits for the answers of other webhooks.
pub const REFUSAL: usize = DETAILS + MESSAGE + apiservice::told::MAX_TEXT;
/// Warnings and annotations of one answer.
const TOLD: usize = 100;

/// The pieces of a review, of which the objects are shared by all that are asked.
pub fn ask(
    version: Version,
    request: &Map<String, Value>,
    object: Option<&Bytes>,
    old: Option<&Bytes>,
) -> Vec<Bytes> {
    let null = || Bytes::from_static(b"null");
    let mut head = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"{}","request":"#,
        version.api_version()
    );
    // The request is a map with entries, so that more can follow.
    let request = Value::Object(request.clone()).to_string();
    head.push_str(request.strip_suffix('}').unwrap_or(&request));
    head.push_str(r#","object":"#);
    vec![
        Bytes::from(head),
        object.cloned().unwrap_or_else(null),
        Bytes::from_static(br#","oldObject":"#),
        old.cloned().unwrap_or_else(null),
        Bytes::from_static(b"}}"),
    ]
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is no review at all.
    Undecoded(String),
    /// It is a review that does not answer.
    Invalid(String),
}

/// What an answer says.
#[derive(Debug, Default)]
pub struct Verdict {
    pub allowed: bool,
    pub status: Option<Status>,
    /// A JSON patch, as text.
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(borrow, default)]
    response: Option<Response<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    allowed: Option<bool>,
    #[serde(borrow, default)]
    status: Option<RawStatus<'a>>,
    #[serde(default)]
    patch: Option<String>,
    #[serde(default)]
    patch_type: Option<String>,
    #[serde(default)]
    audit_annotations: FirstByName,
    #[serde(default)]
    warnings: First,
}

/// The first [`TOLD`] texts of a list, which may be null. Others take no memory.
#[derive(Default)]
struct First(Vec<String>);

/// The first [`TOLD`] texts of a map, which may be null, in the order of their names.
#[derive(Default)]
struct FirstByName(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = First;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<First, A::Error> {
                let mut first = Vec::new();
                while let Some(text) = entries.next_element::<String>()? {
                    if first.len() < TOLD {
                        first.push(text);
                    }
                }
                Ok(First(first))
            }

            fn visit_unit<E>(self) -> Result<First, E> {
                Ok(First::default())
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl<'de> Deserialize<'de> for FirstByName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = FirstByName;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<FirstByName, A::Error> {
                let mut first = BTreeMap::new();
                while let Some((name, text)) = entries.next_entry::<String, String>()? {
                    first.insert(name, text);
                    if first.len() > TOLD {
                        first.pop_last();
                    }
                }
                Ok(FirstByName(first))
            }

            fn visit_unit<E>(self) -> Result<FirstByName, E> {
                Ok(FirstByName::default())
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

#[derive(Deserialize)]
struct RawStatus<'a> {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    code: Option<i32>,
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

/// Why something is refused, as the webhook says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub message: String,
    pub reason: String,
    pub code: i32,
    pub details: Option<Details>,
}

impl Verdict {
    /// Reads an answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(kind: Kind, answer: &[u8], version: Version, uid: &str) -> Result<Self, Unusable> {
        let review: Review<'_> = serde_json::from_slice(answer).map_err(|why| {
            Unusable::Undecoded(format!(
                "couldn't get version/kind; json parse error: {why}"
            ))
        })?;
        let invalid = |why: String| Err(Unusable::Invalid(why));
        let Some(response) = review.response else {
            return invalid("webhook response was absent".to_owned());
        };
        let patch = response.patch.unwrap_or_default();
        let patch = STANDARD
            .decode(patch)
            .map_err(|_| Unusable::Undecoded("illegal base64 data in response.patch".to_owned()))?;
        let mut patch_type = response.patch_type.clone().unwrap_or_default();
        match version {
            Version::V1 => {
                let told = response.uid.unwrap_or_default();
                if told != uid {
                    let told = apiservice::told::short(told.as_str(), apiservice::told::MAX_PATH);
                    return invalid(format!("expected response.uid={uid:?}, got {told:?}"));
                }
                let expected = version.api_version();
                if review.kind != "AdmissionReview" || review.api_version != expected {
                    let slash = if review.api_version.contains('/') {
                        ""
                    } else {
                        "/"
                    };
                    let got = format!("{slash}{}, Kind={}", review.api_version, review.kind);
                    let got = apiservice::told::cut(got, apiservice::told::MAX_PATH);
                    return invalid(format!(
                        "expected webhook response of {expected}, Kind=AdmissionReview, got {got}"
                    ));
                }
                let why = match (kind, patch.is_empty(), response.patch_type.as_deref()) {
                    (Kind::Mutating, false, None) => {
                        Some("webhook returned response.patch but not response.patchType")
                    }
                    (Kind::Mutating, true, Some(_)) => {
                        Some("webhook returned response.patchType but not response.patch")
                    }
                    (Kind::Mutating, false, Some("")) => {
                        Some("webhook returned invalid response.patchType of \"\"")
                    }
                    (Kind::Validating, false, _) => {
                        Some("validating webhook may not return response.patch")
                    }
                    (Kind::Validating, true, Some(_)) => {
                        Some("validating webhook may not return response.patchType")
                    }
                    _ => None,
                };
                if let Some(why) = why {
                    return invalid(why.to_owned());
                }
            }
            Version::V1Beta1 => patch_type = "JSONPatch".to_owned(),
        }
        let allowed = response.allowed.unwrap_or(false);
        Ok(Self {
            allowed,
            status: response.status.filter(|_| !allowed).map(status),
            patch: match kind {
                Kind::Mutating => patch,
                Kind::Validating => Vec::new(),
            },
            patch_type,
            warnings: response.warnings.0,
            annotations: response.audit_annotations.0.into_iter().collect(),
        })
    }
}

fn status(raw: RawStatus<'_>) -> Status {
    let details = raw.details.filter(|details| details.get().len() <= DETAILS);
    Status {
        message: raw.message.unwrap_or_default(),
        reason: raw.reason.unwrap_or_default(),
        code: raw.code.unwrap_or(0),
        details: details.map(|details| Details::new(details.get())),
    }
}

/// The answer to a request that a webhook refused (R7.11).
pub fn denied(webhook: &str, status: Option<Status>) -> Denied {
    let status = status.unwrap_or_default();
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (status.message.is_empty(), status.reason.is_empty()) {
        (false, _) => format!("{by}: {}", status.message),
        (true, false) => format!("{by}: {}", status.reason),
        (true, true) => format!("{by} without explanation"),
    };
    Denied {
        message: apiservice::told::cut(message, MESSAGE),
        reason: apiservice::told::cut(status.reason, apiservice::told::MAX_TEXT),
        code: if status.code < 400 { 400 } else { status.code },
        details: status.details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(response: Value, kind: Kind) -> Result<Verdict, Unusable> {
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        Verdict::read(kind, answer.to_string().as_bytes(), Version::V1, "u")
    }

    #[test]
    fn a_review_has_its_objects_in_place() {
        let mut request = Map::new();
        request.insert("uid".to_owned(), Value::from("u"));
        let object = Bytes::from(r#"{"a":"}"}"#);
        let pieces = ask(Version::V1Beta1, &request, Some(&object), None);
        let whole: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        let expected = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1",
            "request": {"uid": "u", "object": {"a": "}"}, "oldObject": null}});
        assert_eq!(whole, expected);
    }

    #[test]
    fn answers() {
        let invalid = |response, kind| match read(response, kind) {
            Err(Unusable::Invalid(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            invalid(json!({"uid": "v"}), Kind::Mutating),
            "expected response.uid=\"u\", got \"v\""
        );
        let cases = [
            (
                json!({"uid": "u", "patch": "W10="}),
                Kind::Mutating,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Kind::Mutating,
                "webhook returned response.patchType but not response.patch",
            ),
            (
                json!({"uid": "u", "patch": "W10="}),
                Kind::Validating,
                "validating webhook may not return response.patch",
            ),
            (
                json!({"uid": "u", "patchType": "JSONPatch"}),
                Kind::Validating,
                "validating webhook may not return response.patchType",
            ),
        ];
        for (response, kind, why) in cases {
            assert_eq!(invalid(response, kind), why);
        }
        let allowed = read(
            json!({"uid": "u", "allowed": true, "warnings": ["w"]}),
            Kind::Validating,
        )
        .unwrap();
        assert!(allowed.allowed && allowed.warnings == ["w"]);
        assert!(matches!(
            read(json!({"uid": "u", "allowed": "x"}), Kind::Validating),
            Err(Unusable::Undecoded(_))
        ));
    }

    /// What a webhook says is bounded where it goes on: in headers, logs and answers.
    #[test]
    fn what_is_told_is_bounded() {
        let long = "x".repeat(1 << 20);
        let causes = vec![json!({"message": "y".repeat(100)}); 10_000];
        let warnings = vec![long.as_str(); 3];
        let many: Vec<&str> = std::iter::repeat_n("w", 100_000).collect();
        let verdict = read(json!({"uid": "u", "warnings": many}), Kind::Validating).unwrap();
        assert_eq!(verdict.warnings.len(), TOLD);
        assert!(verdict.warnings.capacity() <= 2 * TOLD);
        let named: BTreeMap<String, &str> = (0..1_000).map(|n| (n.to_string(), "")).collect();
        let response = json!({"uid": "u", "allowed": true, "auditAnnotations": named,
            "warnings": null, "status": {"message": long}});
        let verdict = read(response, Kind::Validating).unwrap();
        assert_eq!(verdict.annotations.len(), TOLD);
        assert_eq!(verdict.annotations[1].0, "1");
        assert_eq!(verdict.status, None, "why it is allowed is told to nobody");
        let verdict = read(
            json!({"uid": "u", "warnings": warnings, "status": {"message": long, "reason": long, "details": {"causes": causes}}}),
            Kind::Validating,
        );
        let denied = denied("w", verdict.unwrap().status);
        assert!(denied.message.len() <= MESSAGE + 8 && denied.details.is_none());
        assert!(denied.reason.len() <= 1_100);
    }

    #[test]
    fn refusals() {
        let status = |code, message: &str, reason: &str| {
            Some(Status {
                message: message.to_owned(),
                reason: reason.to_owned(),
                code,
                details: None,
            })
        };
        let cases = [
            (
                None,
                "admission webhook \"w\" denied the request without explanation",
                400,
            ),
            (
                status(0, "no", "R"),
                "admission webhook \"w\" denied the request: no",
                400,
            ),
            (
                status(422, "", "R"),
                "admission webhook \"w\" denied the request: R",
                422,
            ),
            (
                status(200, "", ""),
                "admission webhook \"w\" denied the request without explanation",
                400,
            ),
        ];
        for (status, message, code) in cases {
            let denied = denied("w", status);
            assert_eq!((denied.message.as_str(), denied.code), (message, code));
        }
    }
}
