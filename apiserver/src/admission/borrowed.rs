//! Borrowed rights (rule 8).

use apiservice::{BorrowedRight, Resource};
use serde_json::Value;

use crate::authn::Identity;
use crate::authz::{self, Attributes, Authorizer, Decision};
use crate::object::meta;
use crate::status::{Failure, Subject};

/// What the object makes us do with our rights, as far as its fields are changed.
///
/// # Errors
/// 422 for an object that borrows more than [`apiservice::resource::MAX_BORROWED`]
/// rights, before any of them is asked for.
pub fn borrows(
    resource: &'static Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<Vec<BorrowedRight>, Failure> {
    match resource.borrows_too_much(new, old) {
        Some(error) => {
            let name = meta(new, "name");
            Err(Failure::invalid(resource, name, error.into()))
        }
        None => Ok(resource.borrowed(new, old)),
    }
}

/// Rule 8: what the object borrows ([`borrows`]), the requester must be allowed to do as
/// well.
///
/// # Errors
/// 403 for a right that the requester lacks.
pub async fn borrowed(
    authorizer: &Authorizer,
    identity: &Identity,
    resource: &'static Resource,
    new: &Value,
    rights: &[BorrowedRight],
) -> Result<(), Failure> {
    for right in rights {
        let asked = attributes(right);
        if let Decision::Deny { reason } = authorizer.allowed(identity, &asked).await? {
            if let Some(other) = &right.or {
                let other = Attributes {
                    verb: other.verb.to_owned(),
                    resource: other.resource.to_owned(),
                    subresource: other.subresource.to_owned(),
                    ..asked.clone()
                };
                let allowed = authorizer.allowed(identity, &other).await?;
                if allowed.is_allowed() {
                    continue;
                }
            }
            let refusal = authz::forbidden(identity, &asked, &reason);
            let subject = Subject::of(resource, meta(new, "name"));
            let why = format!(
                "{} needs a right that the requester does not have: {refusal}",
                right.field
            );
            return Err(authz::refused(subject, &why));
        }
    }
    Ok(())
}

fn attributes(right: &BorrowedRight) -> Attributes {
    Attributes {
        verb: right.verb.to_string(),
        group: right.group.to_string(),
        version: String::new(),
        resource: right.resource.to_string(),
        subresource: right.subresource.to_string(),
        namespace: right.namespace.clone().unwrap_or_default(),
        name: right.name.clone().unwrap_or_default(),
        ..Attributes::default()
    }
}
