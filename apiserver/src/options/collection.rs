//! ListOptions of list, watch and deletecollection, and the continue token.

use apiservice::Resource;
use apiservice::field::{self, Path};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Query, invalid_options, syntax};
use crate::selector::Selector;
use crate::status::Failure;

/// Seconds that a watch lasts at most: a day. A client that asks for more comes back;
/// without a bound the end of the watch is beyond what the clock can say.
pub const MAX_TIMEOUT: u64 = 24 * 60 * 60;

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// That state and no other.
    Exact,
    /// That state or a later one.
    NotOlderThan,
}

/// Options of list and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// `None` = all.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub continue_token: Option<Continue>,
    /// `None` = most recent, `Some(0)` = any.
    pub version: Option<u64>,
    /// How `version` is meant.
    pub version_match: Option<Match>,
    /// What of the collection.
    pub selector: Selector,
}

impl List {
    /// Parses and validates the query of a list or deletecollection.
    pub fn parse(query: Query<'_>, resource: &Resource) -> Result<Self, Failure> {
        let limit = query.integer("limit")?.unwrap_or(0);
        let version = query.text("resourceVersion");
        let matched = query.text("resourceVersionMatch");
        let token = query.text("continue");
        let mut errors = field::Errors::new();
        let path = Path::new("resourceVersionMatch");
        if !matched.is_empty() {
            if version.is_empty() {
                errors.push(field::Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !token.is_empty() {
                errors.push(field::Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(matched, "Exact" | "NotOlderThan") {
                errors.push(field::Error::not_supported(
                    &path,
                    matched,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if matched == "Exact" && version == "0" {
                errors.push(field::Error::forbidden(
                    &path,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if query.first("sendInitialEvents").is_some() {
            errors.push(field::Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        invalid_options("ListOptions", errors)?;
        let continue_token = if token.is_empty() {
            None
        } else {
            if !matches!(version, "" | "0") {
                return Err(Failure::BadRequest(
                    "specifying resource version is not allowed when using continue".to_owned(),
                ));
            }
            Some(Continue::decode(token)?)
        };
        Ok(Self {
            limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
            continue_token,
            version: parse_version(version)?,
            version_match: match matched {
                "Exact" => Some(Match::Exact),
                "NotOlderThan" => Some(Match::NotOlderThan),
                _ => None,
            },
            selector: selector(query, resource)?,
        })
    }
}

fn selector(query: Query<'_>, resource: &Resource) -> Result<Selector, Failure> {
    Selector::parse(
        query.text("labelSelector"),
        query.text("fieldSelector"),
        resource.scope == apiservice::resource::Scope::Namespaced,
    )
}

/// `resourceVersion` of a get or list: 400 if it is no number (R3.14).
pub fn parse_version(text: &str) -> Result<Option<u64>, Failure> {
    version(text).map_err(|error| Failure::BadRequest(format!("invalid resource version: {error}")))
}

fn version(text: &str) -> Result<Option<u64>, field::Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(version) if digits => Ok(Some(version)),
        _ => Err(field::Error::invalid(
            &Path::new("resourceVersion"),
            text,
            syntax("ParseUint", text),
        )),
    }
}

/// Options of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// `None` = most recent, `Some(0)` = any.
    pub version: Option<u64>,
    /// Begin with the present objects as ADDED events.
    pub initial: bool,
    /// The initial events end with the marker bookmark (R3.28): the client
    /// asked for initial events, or would have had it known how.
    pub marker: bool,
    /// The client understands bookmarks.
    pub bookmarks: bool,
    /// Seconds; `None` = the server chooses.
    pub timeout: Option<u64>,
    /// What of the collection.
    pub selector: Selector,
}

impl Watch {
    /// Parses and validates the query of a watch.
    pub fn parse(query: Query<'_>, resource: &Resource) -> Result<Self, Failure> {
        let text = query.text("resourceVersion");
        let matched = query.text("resourceVersionMatch");
        let send = query.boolean("sendInitialEvents");
        let mut errors = field::Errors::new();
        let path = Path::new("resourceVersionMatch");
        if send.is_some() && matched != "NotOlderThan" {
            errors.push(field::Error::forbidden(
                &path,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !matched.is_empty() {
            if send.is_none() {
                errors.push(field::Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if matched != "NotOlderThan" {
                errors.push(field::Error::not_supported(
                    &path,
                    matched,
                    &["NotOlderThan"],
                ));
            }
            if !query.text("continue").is_empty() {
                errors.push(field::Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
        }
        invalid_options("ListOptions", errors)?;
        let timeout = query.integer("timeoutSeconds")?;
        let selector = selector(query, resource)?;
        let version = version(text).map_err(|error| Failure::Invalid {
            kind: resource.plural.to_owned(),
            group: apiservice::GROUP.to_owned(),
            name: String::new(),
            errors: error.into(),
        })?;
        // R3.7: unset and "0" begin with the present objects unless told not to.
        let from_start = matches!(version, None | Some(0));
        Ok(Self {
            version,
            initial: send.unwrap_or(from_start),
            marker: send.unwrap_or(from_start),
            bookmarks: query.boolean("allowWatchBookmarks").unwrap_or(false),
            timeout: timeout
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(|seconds| seconds.min(MAX_TIMEOUT)),
            selector,
        })
    }
}

/// Where a list goes on: self-contained, so that any replica can (R3.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// `None` = at the latest state (inconsistent continuation).
    pub revision: Option<u64>,
    /// The last `NAMESPACE/NAME`, or `NAME`, already sent.
    pub after: String,
}

impl Continue {
    /// The opaque text.
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(json!(-1), |revision| json!(revision));
        let token = json!({
            "v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}\0", self.after),
        });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    /// From the text; 400 if it is not ours.
    pub fn decode(token: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::BadRequest(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|error| bad(&error.to_string()))?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        if value["v"] != "meta.k8s.io/v1" {
            return Err(bad("server does not recognize this encoded version"));
        }
        let start = value["start"].as_str().unwrap_or("");
        let after = start.strip_suffix('\0').unwrap_or(start);
        if after.is_empty() || after.contains("..") || after.contains('\0') {
            return Err(bad("encoded start key empty or out of range"));
        }
        let revision = match &value["rv"] {
            rv if rv.as_i64() == Some(-1) => None,
            rv => match rv.as_u64() {
                Some(revision) if revision > 0 => Some(revision),
                _ => return Err(bad("incorrect encoded start resourceVersion")),
            },
        };
        Ok(Self {
            revision,
            after: after.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pairs;
    use super::*;

    fn datastores() -> &'static Resource {
        apiservice::find("datastores").unwrap()
    }

    /// R3.6, R3.14.
    #[test]
    fn list_options_that_are_refused() {
        let cases = [
            (
                "resourceVersionMatch=Exact",
                422,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                422,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=X&resourceVersion=1",
                422,
                "Unsupported value: \"X\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "sendInitialEvents=true",
                422,
                "sendInitialEvents is forbidden for list",
            ),
            (
                "resourceVersion=abc",
                400,
                "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
            ),
            (
                "limit=x",
                400,
                "strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "continue=!",
                400,
                "invalid continue token: continue key is not valid",
            ),
        ];
        for (text, code, expected) in cases {
            let pairs = pairs(text);
            let failure = List::parse(Query::new(&pairs), datastores()).unwrap_err();
            assert_eq!(failure.code().as_u16(), code, "{text}");
            assert!(failure.to_string().contains(expected), "{failure}");
        }
        let token = Continue {
            revision: Some(4),
            after: "a".into(),
        }
        .encode();
        let pairs = pairs(&format!("continue={token}&resourceVersion=3"));
        let failure = List::parse(Query::new(&pairs), datastores()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "specifying resource version is not allowed when using continue"
        );
    }

    /// R3.20.
    #[test]
    fn tokens_round_trip() {
        for revision in [Some(7), None] {
            let token = Continue {
                revision,
                after: "ns/name".into(),
            };
            assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        }
    }

    /// R3.6, R3.7, R3.14.
    #[test]
    fn watch_options() {
        let parse = |text: &str| {
            let pairs = pairs(text);
            Watch::parse(Query::new(&pairs), datastores())
        };
        let plain = parse("watch=1&resourceVersion=5").unwrap();
        assert!(!plain.initial && !plain.marker && plain.version == Some(5));
        let start = parse("watch=1").unwrap();
        assert!(start.initial);
        let none = parse("sendInitialEvents=false&resourceVersionMatch=NotOlderThan").unwrap();
        assert!(!none.initial);
        let list =
            parse("sendInitialEvents=&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1")
                .unwrap();
        assert!(list.initial && list.marker && list.bookmarks);
        for bad in [
            "sendInitialEvents=true",
            "resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch=Exact&sendInitialEvents=true",
            "resourceVersion=abc",
        ] {
            assert_eq!(parse(bad).unwrap_err().code().as_u16(), 422, "{bad}");
        }
    }
}
