//! The proof that a caller may do what it asks for.

use std::marker::PhantomData;
use std::sync::Arc;

use apiservice::resource::{Resource, Scope, Subresource};

use super::question::Attributes;
use crate::authn::Identity;
use crate::status::{Failure, Subject};
use crate::target::{ResourcePath, Target, Verb};

/// A request that may proceed, whether or not there is anything to proceed to.
#[derive(Debug)]
pub struct Authorized {
    identity: Arc<Identity>,
    target: Target,
}

impl Authorized {
    /// What [`super::Authorizer`] has found to be allowed.
    pub(super) fn new(identity: Arc<Identity>, target: Target) -> Self {
        Authorized { identity, target }
    }

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
/// [`Authorizer::also_create`](super::Authorizer::also_create).
#[derive(Debug)]
pub struct Permit<V> {
    identity: Arc<Identity>,
    resource: &'static Resource,
    subresource: Option<&'static Subresource>,
    namespace: Option<String>,
    name: Option<String>,
    verb: PhantomData<V>,
}

impl Permit<verb::Patch> {
    /// The one to create what the patch is for. Only after the cluster was asked.
    pub(super) fn to_create(&self) -> Permit<verb::Create> {
        Permit {
            identity: self.identity.clone(),
            resource: self.resource,
            subresource: self.subresource,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            verb: PhantomData,
        }
    }
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
