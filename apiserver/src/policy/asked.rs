//! A request, as policies and webhooks are asked about it.

use futures::future::BoxFuture;
use serde_json::Value;

use super::attributes::Attributes;
use super::labels::NamespaceLabels;
use super::questions::Questions;
use crate::namespaces::Namespaces;
use crate::status::Failure;

/// An object before and after, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    pub new: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// A request, as it is looked at by policies that may refuse it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub attributes: &'a Attributes<'a>,
    pub labels: &'a NamespaceLabels<'a>,
    pub objects: Objects<'a>,
}

/// A request, as it is admitted by all who may change its object.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub attributes: &'a Attributes<'a>,
    pub namespaces: &'a Namespaces,
    pub labels: &'a NamespaceLabels<'a>,
    pub old: Option<&'a Value>,
    pub questions: &'a Questions<'a>,
    /// What makes an object of what they made of it.
    pub making: &'a dyn Making,
}

/// What becomes of what a webhook or a policy makes of an object.
pub trait Making: Sync {
    /// Makes an object of its kind of it.
    ///
    /// # Errors
    /// Why it is none, or one that is too large.
    fn complete(&self, object: &mut Value) -> Result<(), Failure>;

    /// Holds the room that it takes.
    ///
    /// # Errors
    /// 429 when there is none for the caller.
    fn hold<'a>(&'a self, object: &'a Value) -> BoxFuture<'a, Result<(), Failure>>;
}
