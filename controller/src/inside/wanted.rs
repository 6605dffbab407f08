//! What is wanted in a tenant: objects, and how much of each is kept.

use std::sync::Arc;

use apiservice::endpoint::Endpoint;
use apiservice::v1alpha1::{AddonImage, Konnectivity, TenantControlPlane};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::inside::write_permissions::{self, Blocked};
use crate::report::diagnose::quote;
use crate::tenant::world::InsideProblem;

/// A tenant as its nodes see it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The tenant as our API served it.
    pub tenant: Arc<TenantControlPlane>,
    /// Its API server.
    pub endpoint: Endpoint,
    /// The servers of its tunnel, if it is to have one.
    pub agents: Option<Endpoint>,
    /// PEM of the authority of its serving certificates.
    pub authority: String,
    /// The registry of images that are not named, without a slash at its end.
    pub registry: String,
    /// The version of Kubernetes that serves: add-ons and what nodes are told follow the
    /// control plane, and never go before it.
    pub version: String,
    /// The tenant has as much in its DataStore as it may.
    pub over_limit: bool,
}

impl Cluster {
    /// Cluster DNS, if it is wanted.
    pub fn core_dns(&self) -> Option<&AddonImage> {
        self.tenant.spec.addons.as_ref()?.core_dns.as_ref()
    }

    /// Service addresses on the nodes, if they are wanted.
    pub fn kube_proxy(&self) -> Option<&AddonImage> {
        self.tenant.spec.addons.as_ref()?.kube_proxy.as_ref()
    }

    /// The writes that are refused to the tenant's users.
    pub fn blocked(&self) -> Blocked {
        Blocked {
            asked: self.tenant.spec.write_permissions.unwrap_or_default(),
            over_limit: self.over_limit,
        }
    }

    /// What refuses them.
    pub fn refusals(&self) -> Vec<Kept> {
        let objects = write_permissions::objects(&self.blocked()).map(Kept::whole);
        match self.blocked().all().any() {
            true => objects.into(),
            false => objects.map(Kept::absent).into(),
        }
    }

    /// The tunnel to the nodes, if it is wanted.
    pub fn konnectivity(&self) -> Option<&Konnectivity> {
        self.tenant.spec.konnectivity()
    }
}

/// What somebody said about something that cannot be done, cut to a quotation.
pub fn problem(about: impl Into<String>, said: &str) -> InsideProblem {
    InsideProblem {
        about: about.into(),
        said: quote(said),
    }
}

/// What was found in a tenant.
#[derive(Clone, Debug)]
pub struct Inside {
    /// What is kept there, each with the object of its name. `None`: there is none.
    pub found: Vec<(Kept, Option<Value>)>,
}

/// An object that is kept in a tenant.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The object, whole.
    pub value: Value,
    /// How much of it is kept.
    pub how: How,
}

/// How much of an object is kept as we want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// All that we say of it.
    Whole,
    /// Made where it is missing, and the tenant's from then on.
    Seed,
    /// But for a field (a JSON pointer) that is the tenant's once it is made.
    AtFirst(&'static str),
    /// But for a text (a JSON pointer) that is the tenant's once somebody has changed
    /// it: an annotation has the checksum of what we wrote.
    UntilEdited(&'static str),
    /// Removed, if it is one of ours.
    Absent,
}

impl Kept {
    /// All that we say of it.
    pub fn whole(value: Value) -> Self {
        let how = How::Whole;
        Kept { value, how }
    }

    /// See [`How::AtFirst`].
    pub fn at_first(value: Value, field: &'static str) -> Self {
        let how = How::AtFirst(field);
        Kept { value, how }
    }

    /// See [`How::UntilEdited`].
    pub fn until_edited(value: Value, field: &'static str) -> Self {
        let how = How::UntilEdited(field);
        Kept { value, how }
    }

    /// See [`How::Absent`].
    pub fn absent(self) -> Self {
        let how = How::Absent;
        Kept { how, ..self }
    }
}

/// Of a text that goes into an object.
pub fn checksum(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}
