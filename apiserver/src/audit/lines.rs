//! Lines of the log: one for a request that changes something or was refused, as long as no
//! policy is given, and one for each credential, always (rule 12).
//!
//! Always at Metadata level: bodies, and with them keys, are never logged (R9.11).

use http::StatusCode;
use jiff::Timestamp;

use super::{Annotations, bounds};
use crate::authn::Identity;
use crate::target::{Target, Verb};

/// What the URL says, whoever asks: as short as in an event.
fn part(text: &str) -> String {
    bounds::text(text, bounds::NAME)
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
        group = part(&path.group),
        resource = part(&path.plural),
        subresource = path.subresource.as_deref().map(part),
        namespace = path.namespace.as_deref().map(part),
        name = path.name.as_deref().map(part),
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
        group = part(&path.group),
        resource = part(&path.plural),
        subresource = path.subresource.as_deref().map(part),
        namespace = path.namespace.as_deref().map(part),
        name = path.name.as_deref().map(part),
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
