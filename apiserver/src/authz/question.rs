//! What the cluster is asked, and what it says.

use apiservice::told;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReviewSpec,
};
use sha2::{Digest, Sha256};

use crate::authn::Identity;
use crate::target::Target;

/// What is asked about. Empty text means "none"; with a `path`, it is a question about
/// a non-resource URL and `verb` is the lower-case HTTP method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: Option<String>,
    /// As in the query of a list, watch or deletecollection.
    pub field_selector: String,
    pub label_selector: String,
}

impl Attributes {
    /// The question that a request asks.
    pub fn of(target: &Target) -> Attributes {
        match target {
            Target::NonResource { path, verb } => Attributes {
                verb: verb.clone(),
                path: Some(path.clone()),
                ..Attributes::default()
            },
            Target::Resource(path) => Attributes {
                verb: path.verb.as_str().to_owned(),
                group: path.group.clone(),
                version: path.version.clone(),
                resource: path.plural.clone(),
                subresource: path.subresource.clone().unwrap_or_default(),
                namespace: path.namespace.clone().unwrap_or_default(),
                name: path.authorized_name().unwrap_or_default().to_owned(),
                path: None,
                field_selector: path.field_selector.clone().unwrap_or_default(),
                label_selector: path.label_selector.clone().unwrap_or_default(),
            },
        }
    }

    /// The question in the words of a SubjectAccessReview.
    pub(super) fn review(&self, identity: &Identity) -> SubjectAccessReviewSpec {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let non_resource_attributes = self.path.as_ref().map(|path| NonResourceAttributes {
            path: Some(path.clone()),
            verb: some(&self.verb),
        });
        let resource_attributes = self.path.is_none().then(|| ResourceAttributes {
            verb: some(&self.verb),
            group: some(&self.group),
            version: some(&self.version),
            resource: some(&self.resource),
            subresource: some(&self.subresource),
            namespace: some(&self.namespace),
            name: some(&self.name),
            // kube-apiserver parses them, and ignores what it cannot parse.
            field_selector: some(&self.field_selector).map(|raw| FieldSelectorAttributes {
                raw_selector: Some(raw),
                requirements: None,
            }),
            label_selector: some(&self.label_selector).map(|raw| LabelSelectorAttributes {
                raw_selector: Some(raw),
                requirements: None,
            }),
        });
        SubjectAccessReviewSpec {
            user: some(&identity.user),
            uid: identity.uid.clone(),
            groups: (!identity.groups.is_empty()).then(|| identity.groups.clone()),
            extra: (!identity.extra.is_empty()).then(|| identity.extra.clone()),
            non_resource_attributes,
            resource_attributes,
        }
    }
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
}

impl Decision {
    /// The same with no more of its reason than is told.
    fn short(self) -> Self {
        let short = |reason| told::cut(reason, told::MAX_TEXT);
        match self {
            Decision::Allow { reason } => Decision::Allow {
                reason: short(reason),
            },
            Decision::Deny { reason } => Decision::Deny {
                reason: short(reason),
            },
        }
    }

    /// Yes, without a reason.
    pub(crate) fn allow() -> Self {
        let reason = String::new();
        Decision::Allow { reason }
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    /// Why.
    pub fn into_reason(self) -> String {
        let (Decision::Allow { reason } | Decision::Deny { reason }) = self;
        reason
    }
}

/// A decision, and what went wrong on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    pub decision: Decision,
    /// Empty if nothing did.
    pub error: String,
}

impl From<Decision> for Reviewed {
    fn from(decision: Decision) -> Self {
        let error = String::new();
        Self { decision, error }
    }
}

impl Reviewed {
    /// The same with no more of its texts than is told.
    pub(super) fn short(self) -> Self {
        Self {
            decision: self.decision.short(),
            error: told::cut(self.error, told::MAX_TEXT),
        }
    }
}

/// A digest of who asks and what.
pub(super) type Question = [u8; 32];

/// The digest of a question. Each text goes with its length, and each list with its
/// number, so that different questions are different texts.
pub(super) fn question(identity: &Identity, attributes: &Attributes) -> Question {
    let Identity {
        user,
        uid,
        groups,
        extra,
    } = identity;
    let Attributes {
        verb,
        group,
        version,
        resource,
        subresource,
        namespace,
        name,
        path,
        field_selector,
        label_selector,
    } = attributes;
    let mut digest = Sha256::new();
    let mut number = |number: usize, text: &str| {
        digest.update((number as u64).to_be_bytes());
        digest.update(text);
    };
    let mut texts = |texts: &mut dyn ExactSizeIterator<Item = &String>| {
        number(texts.len(), "");
        texts.for_each(|text| number(text.len(), text));
    };
    texts(&mut std::iter::once(user));
    texts(&mut uid.iter());
    texts(&mut groups.iter());
    texts(&mut extra.keys());
    extra.values().for_each(|values| texts(&mut values.iter()));
    texts(&mut path.iter());
    let rest = [
        verb,
        group,
        version,
        resource,
        subresource,
        namespace,
        name,
        field_selector,
        label_selector,
    ];
    texts(&mut rest.into_iter());
    digest.finalize().into()
}
