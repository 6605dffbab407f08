//! Who did what, one line a request that changes something or hands out credentials.
//!
//! Always at Metadata level: bodies, and with them keys, are never logged (R9.11).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::authn::Identity;
use crate::target::{Target, Verb};

/// Annotations of one line that this server makes itself, and as many of others; bytes of one
/// and of all of each.
const ANNOTATIONS: usize = 64;
const ANNOTATION: usize = 10 * 1024;
const ALL_ANNOTATIONS: usize = 32 * 1024;
/// What one webhook or policy may have of those of others: its share.
const SHARE: Share = Share {
    count: 16,
    bytes: 12 * 1024,
};

/// What admission has to say of a request (R7.14); clones share it. Those that are too many
/// are left out: nobody takes the place of what this server says itself.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    own: BTreeMap<String, String>,
    others: BTreeMap<String, String>,
    shares: BTreeMap<String, Share>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: usize,
    bytes: usize,
}

impl Share {
    fn of(all: &BTreeMap<String, String>) -> Self {
        Self {
            count: all.len(),
            bytes: all.iter().map(|(key, value)| key.len() + value.len()).sum(),
        }
    }

    fn and(self, bytes: usize) -> Self {
        Self {
            count: self.count + 1,
            bytes: self.bytes + bytes,
        }
    }

    fn within(self, most: Self) -> bool {
        self.count <= most.count && self.bytes <= most.bytes
    }
}

impl Annotations {
    const ALL: Share = Share {
        count: ANNOTATIONS,
        bytes: ALL_ANNOTATIONS,
    };

    /// Adds one of this server; the first of a key stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = cut(key.into(), value.into());
        let own = &mut self.0.lock().own;
        let with = Share::of(own).and(key.len() + value.len());
        if with.within(Self::ALL) {
            own.entry(key).or_insert(value);
        }
    }

    /// Adds one, as `WHO/KEY`, of a webhook or a policy.
    pub fn add_of(&self, who: &str, key: &str, value: impl Into<String>) {
        let (key, value) = cut(format!("{who}/{key}"), value.into());
        let bytes = key.len() + value.len();
        let kept = &mut *self.0.lock();
        if kept.others.contains_key(&key) || !Share::of(&kept.others).and(bytes).within(Self::ALL) {
            return;
        }
        let share = kept.shares.get(who).copied().unwrap_or_default();
        if share.and(bytes).within(SHARE) {
            kept.shares.insert(who.to_owned(), share.and(bytes));
            kept.others.insert(key, value);
        }
    }

    /// All of them, as JSON; nothing if there are none.
    pub fn to_json(&self) -> Option<String> {
        let kept = self.0.lock();
        // What others say in the name of this server does not count.
        let all: BTreeMap<_, _> = kept.others.iter().chain(&kept.own).collect();
        (!all.is_empty()).then(|| serde_json::json!(all).to_string())
    }
}

fn cut(key: String, value: String) -> (String, String) {
    use apiservice::told::{self, MAX_TEXT};
    (told::cut(key, MAX_TEXT), told::cut(value, ANNOTATION))
}

/// Writes the line of an answered request, if it is one that is kept.
pub fn request(
    id: &str,
    target: &Target,
    identity: Option<&Identity>,
    code: StatusCode,
    annotations: &Annotations,
) {
    let Target::Resource(path) = target else {
        return;
    };
    let refused = code == StatusCode::UNAUTHORIZED || code == StatusCode::FORBIDDEN;
    if !path.verb.is_mutating() && !refused || path.verb == Verb::None {
        return;
    }
    tracing::info!(
        target: "audit",
        audit_id = id,
        user = identity.map_or("", |identity| identity.user.as_str()),
        verb = path.verb.as_str(),
        group = path.group,
        resource = path.plural,
        subresource = path.subresource,
        namespace = path.namespace,
        name = path.name,
        code = code.as_u16(),
        annotations = annotations.to_json(),
        "request"
    );
}

/// Writes the line of a request that changes something and whose client left before it was
/// answered: whether it was carried out is seen by the object.
pub fn abandoned(id: &str, target: &Target, identity: &Identity) {
    let Target::Resource(path) = target else {
        return;
    };
    if !path.verb.is_mutating() {
        return;
    }
    tracing::info!(
        target: "audit",
        audit_id = id,
        user = identity.user,
        verb = path.verb.as_str(),
        group = path.group,
        resource = path.plural,
        subresource = path.subresource,
        namespace = path.namespace,
        name = path.name,
        "a request whose client left before the answer"
    );
}

/// A token for joining nodes. Its secret is not here.
#[derive(Clone, Debug)]
pub struct JoinToken<'a> {
    pub user: &'a str,
    pub namespace: &'a str,
    pub tenant: &'a str,
    pub id: &'a str,
    pub usages: &'a [&'a str],
    pub groups: &'a [String],
    pub expires: &'a str,
    /// Whether the tenant said that it has it.
    pub confirmed: bool,
}

/// Writes the line of a token that was made.
pub fn join_token_minted(token: &JoinToken<'_>) {
    tracing::info!(
        target: "audit",
        user = token.user,
        namespace = token.namespace,
        tenant = token.tenant,
        token = token.id,
        usages = token.usages.join(","),
        groups = token.groups.join(","),
        expires = token.expires,
        confirmed = token.confirmed,
        "minted a join token"
    );
}

/// Writes the line of a token that was removed, or may have been.
pub fn join_token_revoked(user: &str, namespace: &str, tenant: &str, id: &str, confirmed: bool) {
    tracing::info!(
        target: "audit",
        user,
        namespace,
        tenant,
        token = id,
        confirmed,
        "revoked a join token"
    );
}

/// The line of something that is about to be asked for elsewhere. It is written also where
/// nobody waits for the answer any more: then as not confirmed.
pub struct Line<F: FnMut(bool)>(Option<F>);

impl<F: FnMut(bool)> Line<F> {
    /// `write` is given whether it is confirmed.
    pub fn begin(write: F) -> Self {
        Line(Some(write))
    }

    /// It was done.
    pub fn confirmed(mut self) {
        if let Some(mut write) = self.0.take() {
            write(true);
        }
    }

    /// It was not done for certain, so there is nothing to write.
    pub fn nothing(mut self) {
        self.0 = None;
    }
}

impl<F: FnMut(bool)> Drop for Line<F> {
    fn drop(&mut self) {
        if let Some(write) = &mut self.0 {
            write(false);
        }
    }
}

/// A minted credential (rule 12).
#[derive(Clone, Debug)]
pub struct Mint<'a> {
    pub user: &'a str,
    pub namespace: &'a str,
    pub tenant: &'a str,
    pub role: &'a str,
    /// Hexadecimal.
    pub serial: &'a str,
    pub expires: Timestamp,
}

/// Writes the line of a minted credential.
pub fn minted(mint: &Mint<'_>) {
    tracing::info!(
        target: "audit",
        user = mint.user,
        namespace = mint.namespace,
        tenant = mint.tenant,
        role = mint.role,
        serial = mint.serial,
        expires = %mint.expires,
        "minted a kubeconfig"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No webhook takes the place of others, nor of what is said of it.
    #[test]
    fn each_has_its_share_of_annotations() {
        let annotations = Annotations::default();
        for n in 0..1000 {
            let text = "x".repeat(if n == 0 { ANNOTATION } else { 100 });
            annotations.add_of("loud.example.com", &n.to_string(), text);
        }
        annotations.add_of("quiet.example.com", "a", "b");
        annotations.add_of("failed-open.example.com", "round_0", "a lie");
        annotations.add("failed-open.example.com/round_0", "loud.example.com");
        let all: BTreeMap<String, String> =
            serde_json::from_str(&annotations.to_json().unwrap()).unwrap();
        assert_eq!(all["quiet.example.com/a"], "b");
        assert_eq!(all["failed-open.example.com/round_0"], "loud.example.com");
        let loud = all.keys().filter(|key| key.starts_with("loud"));
        assert_eq!(loud.count(), SHARE.count);
        for n in 0..1000 {
            annotations.add_of(&n.to_string(), "a", "x".repeat(ANNOTATION));
            annotations.add(n.to_string(), "x".repeat(ANNOTATION));
        }
        assert!(annotations.to_json().unwrap().len() < 3 * ALL_ANNOTATIONS);
    }
}
