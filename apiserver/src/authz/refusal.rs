//! The words of a 403.

use apiservice::told;

use super::question::Attributes;
use crate::authn::Identity;
use crate::status::{Failure, Subject};

/// The 403 of a denied question, in Kubernetes' words (R1.32). However long what was asked
/// is, the text is not.
pub fn forbidden(identity: &Identity, attributes: &Attributes, reason: &str) -> Failure {
    let short = |text: &str| told::short(text, told::MAX_TEXT);
    let (user, verb) = (short(&identity.user), short(&attributes.verb));
    let mut message = match &attributes.path {
        Some(path) => format!("User {user:?} cannot {verb} path {:?}", short(path)),
        None => {
            let mut resource = short(&attributes.resource);
            if !attributes.subresource.is_empty() {
                resource.push('/');
                resource.push_str(&short(&attributes.subresource));
            }
            let place = match attributes.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {:?}", short(namespace)),
            };
            let group = short(&attributes.group);
            format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
            )
        }
    }
    .replace('&', "&amp;")
    .replace('<', "&lt;")
    .replace('>', "&gt;");
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    let subject = Subject::new(
        short(&attributes.group),
        short(&attributes.resource),
        short(&attributes.name),
    );
    refused(subject, &message)
}

/// A 403 about `subject`, for a reason that is not a missing right on it.
pub fn refused(subject: Subject, why: &str) -> Failure {
    let message = match (subject.resource.is_empty(), subject.name.is_empty()) {
        (true, _) => format!("forbidden: {why}"),
        (false, true) => format!("{} is forbidden: {why}", subject.group_resource()),
        (false, false) => format!("{subject} is forbidden: {why}"),
    };
    Failure::Forbidden {
        message,
        subject,
        causes: Vec::new(),
    }
}
