//! May they: SubjectAccessReviews, and the only maker of [`Permit`].
//!
//! Flow: [`Authorizer::authorize`] answers for every path, known or not (rule 1);
//! [`Authorized::permit`] then turns the answer into a `Permit<V>`, if the resource,
//! the subresource and the verb exist. The registry asks for that proof.
//!
//! Guarantees: without an answer from the cluster nothing is allowed. Both answers
//! are used for 10 s (R1.30); [`Authorizer::allowed_uncached`] asks anew.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use apiservice::resource::{Resource, Scope, Subresource};
use apiservice::told;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReview, SubjectAccessReviewSpec,
};
use sha2::{Digest, Sha256};

use crate::authn::Identity;
use crate::limits::Slot;
use crate::review_cache::ReviewCache;
use crate::reviews;
use crate::status::{Failure, Subject};
use crate::target::{ResourcePath, Target, Verb};

const LIFETIME: Duration = Duration::from_secs(10);
pub(crate) const CAPACITY: usize = 8192;
/// May do everything, without a question (R1.28).
const MASTERS: &str = "system:masters";
/// Open to all, so that probes need no credentials (R2.33).
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/livez"];

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

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
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

/// A digest of who asks and what.
type Question = [u8; 32];

/// Asks the cluster, and remembers.
pub struct Authorizer {
    source: Source,
    /// By digests of the questions, which are as long as callers like.
    memo: ReviewCache<Question, Reviewed, Failure>,
}

enum Source {
    Cluster(kube::Client),
    #[cfg(test)]
    Test(Box<Judge>),
}

/// Decides in place of a cluster.
#[cfg(test)]
type Judge = dyn Fn(&Identity, &Attributes) -> Decision + Send + Sync;

impl Authorizer {
    /// An authorizer that asks the cluster behind `client`.
    pub fn new(client: kube::Client) -> Arc<Self> {
        Self::over(Source::Cluster(client))
    }

    fn over(source: Source) -> Arc<Self> {
        Arc::new(Authorizer {
            source,
            memo: ReviewCache::new(LIFETIME, CAPACITY),
        })
    }

    /// An authorizer that answers by itself.
    #[cfg(test)]
    pub(crate) fn for_test(
        decide: impl Fn(&Identity, &Attributes) -> Decision + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::over(Source::Test(Box::new(decide)))
    }

    /// Whether the caller may do what the target says. A `place` is taken while the cluster
    /// is asked, by this caller or another: what is known needs none. `heard` is told what the
    /// answer was.
    ///
    /// # Errors
    /// `Forbidden` if not; `Internal` when the cluster cannot be asked; that of `place`.
    pub async fn authorize(
        &self,
        identity: Arc<Identity>,
        target: Target,
        place: impl FnOnce() -> Result<Slot, Failure>,
        heard: impl FnOnce(&Result<Decision, Failure>),
    ) -> Result<Authorized, Failure> {
        let attributes = Attributes::of(&target);
        let decision = self.answer(&identity, &attributes, place).await;
        heard(&decision);
        match decision? {
            Decision::Allow { .. } => Ok(Authorized { identity, target }),
            Decision::Deny { reason } => Err(forbidden(&identity, &attributes, &reason)),
        }
    }

    /// What the cluster says of a question that is not about a request to this server, at most
    /// 10 s old: no path of it is open to all. Whoever asks waits, and has to see to it that
    /// not too many do.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn reviewed(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Reviewed, Failure> {
        match is_master(identity) {
            true => Ok(Decision::allow().into()),
            false => self.remembered(identity, attributes, || Ok(None)).await,
        }
    }

    /// The answer to one question, at most 10 s old.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn allowed(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Decision, Failure> {
        self.answer(identity, attributes, || Ok(None)).await
    }

    async fn answer(
        &self,
        identity: &Identity,
        attributes: &Attributes,
        place: impl FnOnce() -> Result<Slot, Failure>,
    ) -> Result<Decision, Failure> {
        if let Some(decision) = locally(identity, attributes) {
            return Ok(decision);
        }
        let reviewed = self.remembered(identity, attributes, place).await?;
        Ok(reviewed.decision)
    }

    async fn remembered(
        &self,
        identity: &Identity,
        attributes: &Attributes,
        place: impl FnOnce() -> Result<Slot, Failure>,
    ) -> Result<Reviewed, Failure> {
        let ask = || async {
            let answer = self.ask(identity, attributes).await;
            answer.map(Reviewed::short).map_err(Failure::Internal)
        };
        let question = question(identity, attributes);
        if let Some(known) = self.memo.known(&question) {
            return Ok(known);
        }
        // Also for who waits for the answer to another's question: nobody else counts them.
        let _place = place()?;
        self.memo.get(&question, ask).await
    }

    /// The answer of this moment, for what must not outlive a revocation.
    ///
    /// # Errors
    /// `Internal` when the cluster cannot be asked.
    pub async fn allowed_uncached(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<Decision, Failure> {
        match locally(identity, attributes) {
            Some(decision) => Ok(decision),
            None => {
                let reviewed = self.ask(identity, attributes).await;
                let reviewed = reviewed.map_err(Failure::Internal)?;
                Ok(reviewed.decision)
            }
        }
    }

    /// The right that a patch needs when it would create the object (R1.33).
    ///
    /// # Errors
    /// `Forbidden` if the caller may not create it.
    pub async fn also_create(
        &self,
        patch: &Permit<verb::Patch>,
    ) -> Result<Permit<verb::Create>, Failure> {
        let attributes = patch.attributes(Verb::Create);
        match self.allowed(&patch.identity, &attributes).await? {
            Decision::Allow { .. } => Ok(Permit {
                identity: patch.identity.clone(),
                resource: patch.resource,
                subresource: patch.subresource,
                namespace: patch.namespace.clone(),
                name: patch.name.clone(),
                verb: PhantomData,
            }),
            Decision::Deny { reason } => Err(forbidden(&patch.identity, &attributes, &reason)),
        }
    }

    async fn ask(&self, identity: &Identity, attributes: &Attributes) -> Result<Reviewed, String> {
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "tests have a second source"
        )]
        let client = match &self.source {
            Source::Cluster(client) => client,
            #[cfg(test)]
            Source::Test(decide) => return Ok(decide(identity, attributes).into()),
        };
        let review = SubjectAccessReview {
            spec: attributes.review(identity),
            ..SubjectAccessReview::default()
        };
        let status = reviews::ask(client, &review)
            .await?
            .status
            .unwrap_or_default();
        let reason = status.reason.unwrap_or_default();
        let decision = match status.allowed && !status.denied.unwrap_or_default() {
            true => Decision::Allow { reason },
            false => Decision::Deny { reason },
        };
        Ok(Reviewed {
            decision,
            error: status.evaluation_error.unwrap_or_default(),
        })
    }
}

/// The answers that need no question (R1.28).
fn locally(identity: &Identity, attributes: &Attributes) -> Option<Decision> {
    let open = attributes
        .path
        .as_deref()
        .is_some_and(|path| OPEN_PATHS.contains(&path));
    (open || is_master(identity)).then(Decision::allow)
}

fn is_master(identity: &Identity) -> bool {
    identity.groups.iter().any(|group| group == MASTERS)
}

/// The digest of a question. Each text goes with its length, and each list with its
/// number, so that different questions are different texts.
fn question(identity: &Identity, attributes: &Attributes) -> Question {
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

impl Reviewed {
    /// The same with no more of its texts than is told.
    fn short(self) -> Self {
        Self {
            decision: self.decision.short(),
            error: told::cut(self.error, told::MAX_TEXT),
        }
    }
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

    fn review(&self, identity: &Identity) -> SubjectAccessReviewSpec {
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

/// A request that may proceed, whether or not there is anything to proceed to.
#[derive(Debug)]
pub struct Authorized {
    identity: Arc<Identity>,
    target: Target,
}

impl Authorized {
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The proof that this caller may do `V` to something that exists in our API.
    ///
    /// # Errors
    /// 404 for unknown resources, subresources and paths, 405 for verbs that they do
    /// not have (R2.1).
    pub fn permit<V: verb::PermitVerb>(&self) -> Result<Permit<V>, Failure> {
        let Target::Resource(path) = &self.target else {
            return Err(Failure::UnknownPath);
        };
        let resource = known(path)?;
        let subject = || Subject::of(resource, path.name.as_deref().unwrap_or_default());
        let subresource = match &path.subresource {
            None => None,
            Some(name) => Some(
                resource
                    .subresource(name)
                    .ok_or_else(|| Failure::NotFound(subject()))?,
            ),
        };
        if path.verb != V::VERB || !takes(path, subresource) {
            return Err(Failure::MethodNotAllowed {
                subject: subject(),
                verb: path.verb.as_str().to_owned(),
            });
        }
        Ok(Permit {
            identity: self.identity.clone(),
            resource,
            subresource,
            namespace: path.namespace.clone(),
            name: path.name.clone(),
            verb: PhantomData,
        })
    }
}

/// The kind that a path is about, if it is written where the kind's objects are.
fn known(path: &ResourcePath) -> Result<&'static Resource, Failure> {
    let resource = apiservice::find(&path.plural).ok_or(Failure::UnknownPath)?;
    let ours = path.group == apiservice::GROUP && path.version == apiservice::VERSION;
    let spans = matches!(path.verb, Verb::List | Verb::Watch);
    let placed = match resource.scope {
        Scope::Cluster => path.namespace.is_none(),
        Scope::Namespaced => path.namespace.is_some() || (spans && path.name.is_none()),
    };
    if ours && placed && path.rest.is_empty() {
        Ok(resource)
    } else {
        Err(Failure::UnknownPath)
    }
}

/// Whether the verb exists at this path: with a name or without, and for subresources
/// as their row says.
fn takes(path: &ResourcePath, subresource: Option<&Subresource>) -> bool {
    if let Some(subresource) = subresource {
        return subresource.verbs.contains(&path.verb.as_str());
    }
    match path.verb {
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => path.name.is_some(),
        Verb::List | Verb::Watch | Verb::Create | Verb::DeleteCollection => path.name.is_none(),
        Verb::None => false,
    }
}

/// The proof that a caller may do `V`. Made only by [`Authorized::permit`] and
/// [`Authorizer::also_create`].
#[derive(Debug)]
pub struct Permit<V> {
    identity: Arc<Identity>,
    resource: &'static Resource,
    subresource: Option<&'static Subresource>,
    namespace: Option<String>,
    name: Option<String>,
    verb: PhantomData<V>,
}

impl<V> Permit<V> {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    /// The namespace of the URL; `None` for cluster scope and over all namespaces.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The name of the URL.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub fn subresource(&self) -> Option<&'static Subresource> {
        self.subresource
    }

    /// The question about the same object with another verb.
    pub fn attributes(&self, verb: Verb) -> Attributes {
        Attributes {
            verb: verb.as_str().to_owned(),
            group: apiservice::GROUP.to_owned(),
            version: apiservice::VERSION.to_owned(),
            resource: self.resource.plural.to_owned(),
            subresource: self
                .subresource
                .map_or(String::new(), |sub| sub.name().to_owned()),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
            ..Attributes::default()
        }
    }

    /// A permit from nowhere.
    #[cfg(test)]
    pub(crate) fn for_test(
        identity: Identity,
        resource: &'static Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        subresource: Option<&'static Subresource>,
    ) -> Self {
        Permit {
            identity: Arc::new(identity),
            resource,
            subresource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            verb: PhantomData,
        }
    }
}

/// The verbs as types, so that a permit for one cannot be used for another.
pub mod verb {
    use crate::target::Verb;

    mod sealed {
        pub trait Sealed {}
    }

    /// A verb that a [`super::Permit`] can be for.
    pub trait PermitVerb: sealed::Sealed {
        const VERB: Verb;
    }

    macro_rules! verbs {
        ($($name:ident),*) => {$(
            #[derive(Debug)]
            pub struct $name;
            impl sealed::Sealed for $name {}
            impl PermitVerb for $name {
                const VERB: Verb = Verb::$name;
            }
        )*};
    }
    verbs!(
        Get,
        List,
        Watch,
        Create,
        Update,
        Patch,
        Delete,
        DeleteCollection
    );
}

#[cfg(test)]
mod tests;
