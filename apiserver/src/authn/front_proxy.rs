//! The headers in which the front proxy says for whom it asks (R1.22-R1.25).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};

use super::identity::{Identity, Rejected};
use super::peer::Verdict;
use crate::target::percent_decode;
use crate::trust::RequestHeader;

/// Whether the peer's certificate is that of the front proxy.
pub(super) fn is_it(verdict: &Verdict) -> bool {
    let rules = verdict.trust.front_proxy.as_ref();
    matches!(verdict.front_proxy, Some(Ok(())))
        && rules.is_some_and(|rules| has_its_name(rules, verdict))
}

fn has_its_name(rules: &RequestHeader, verdict: &Verdict) -> bool {
    rules.allowed_names.is_empty() || rules.allowed_names.contains(&verdict.common_name)
}

/// The user that the front proxy names, if this is the front proxy and it names one.
///
/// # Errors
/// It is not the front proxy, or says what is no text.
pub(super) fn identity(
    verdict: &Verdict,
    headers: &HeaderMap,
) -> Result<Option<Identity>, Rejected> {
    let Some(rules) = &verdict.trust.front_proxy else {
        return Ok(None);
    };
    match &verdict.front_proxy {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(Rejected::Certificate(error.clone())),
        None => return Ok(None),
    }
    if !has_its_name(rules, verdict) {
        return Err(Rejected::Name(verdict.common_name.clone()));
    }
    let Some(user) = first_value(headers, &rules.username)? else {
        return Ok(None);
    };
    let mut groups = Vec::new();
    for name in &rules.group {
        for value in headers.get_all(name) {
            groups.push(text(name, value)?);
        }
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let key = rules
            .extra_prefix
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
        if let Some(key) = key {
            let values = extra.entry(extra_key(key)).or_default();
            values.push(text(name, value)?);
        }
    }
    Ok(Some(Identity {
        user,
        uid: first_value(headers, &rules.uid)?,
        groups,
        extra,
    }))
}

/// The key of an extra header: percent-decoded, or as it is if that fails (R1.24).
fn extra_key(encoded: &str) -> String {
    let valid = encoded
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if valid {
        percent_decode(encoded, false)
    } else {
        encoded.to_owned()
    }
}

fn first_value(headers: &HeaderMap, names: &[HeaderName]) -> Result<Option<String>, Rejected> {
    for name in names {
        if let Some(value) = headers.get(name).filter(|value| !value.is_empty()) {
            return text(name, value).map(Some);
        }
    }
    Ok(None)
}

/// Two users must never become one by replaced bytes, so that text is UTF-8 or refused.
fn text(name: &HeaderName, value: &http::HeaderValue) -> Result<String, Rejected> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| Rejected::Header(name.to_string()))
}

/// Takes out all by which the front proxy names a user.
pub(super) fn strip(rules: &RequestHeader, headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            rules.username.contains(name)
                || rules.uid.contains(name)
                || rules.group.contains(name)
                || rules
                    .extra_prefix
                    .iter()
                    .any(|prefix| name.as_str().starts_with(prefix.as_str()))
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}
