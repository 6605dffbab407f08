//! What a request asks to be done, and who does it.

use apiservice::resource::Part;
use axum::body::Body;
use http::{HeaderMap, Response};

use super::context::Context;
use crate::authz::{Authorized, Permit, verb};
use crate::decode;
use crate::protobuf;
use crate::registry::{self, Registry, Request};
use crate::status::Failure;
use crate::subresource::{join_token, kubeconfig, migrate, scale, status};
use crate::target::{Target, Verb};

/// What is to be done, with the proof that it may be done.
pub(super) enum Work {
    Get(Permit<verb::Get>),
    List(Permit<verb::List>),
    Watch(Permit<verb::Watch>),
    Create(Permit<verb::Create>),
    Update(Permit<verb::Update>),
    Patch(Permit<verb::Patch>),
    Delete(Permit<verb::Delete>),
    DeleteCollection(Permit<verb::DeleteCollection>),
}

impl Work {
    /// # Errors
    /// 404 and 405, before anything else is looked at.
    pub(super) fn of(authorized: &Authorized) -> Result<Work, Failure> {
        let Target::Resource(path) = authorized.target() else {
            return Err(Failure::UnknownPath);
        };
        Ok(match path.verb {
            Verb::Get => Work::Get(authorized.permit()?),
            Verb::List => Work::List(authorized.permit()?),
            Verb::Watch => Work::Watch(authorized.permit()?),
            Verb::Create => Work::Create(authorized.permit()?),
            Verb::Update => Work::Update(authorized.permit()?),
            Verb::Patch => Work::Patch(authorized.permit()?),
            Verb::Delete => Work::Delete(authorized.permit()?),
            Verb::DeleteCollection => Work::DeleteCollection(authorized.permit()?),
            // No permit is for this verb: the answer is 404 or 405.
            Verb::None => Work::Get(authorized.permit()?),
        })
    }

    pub(super) fn verb(&self) -> Verb {
        match self {
            Work::Get(_) => Verb::Get,
            Work::List(_) => Verb::List,
            Work::Watch(_) => Verb::Watch,
            Work::Create(_) => Verb::Create,
            Work::Update(_) => Verb::Update,
            Work::Patch(_) => Verb::Patch,
            Work::Delete(_) => Verb::Delete,
            Work::DeleteCollection(_) => Verb::DeleteCollection,
        }
    }

    /// Refuses a message where none is read, before its body comes: what is wrong with it is
    /// what it is, not how long it is (R4.4). An empty body is none.
    pub(super) fn negotiate(
        &self,
        headers: &HeaderMap,
        body: &impl http_body::Body,
    ) -> Result<(), Failure> {
        let message = decode::content_type(headers) == protobuf::MEDIA && !body.is_end_stream();
        if !message || self.reads_messages() {
            return Ok(());
        }
        match self {
            Work::Patch(_) => {
                let accepted = registry::apply::ACCEPTED.to_owned();
                Err(Failure::UnsupportedMediaType(accepted))
            }
            _ => decode::media(headers).map(|_| ()),
        }
    }

    /// Whether the body may be in protobuf: it is DeleteOptions or a Scale. Of what has no
    /// body it is not asked.
    fn reads_messages(&self) -> bool {
        match self {
            Work::Get(_) | Work::List(_) | Work::Watch(_) | Work::DeleteCollection(_) => true,
            Work::Delete(permit) => !matches!(part(permit), Some(Part::JoinToken)),
            Work::Update(permit) => matches!(part(permit), Some(Part::Scale(_))),
            Work::Create(_) | Work::Patch(_) => false,
        }
    }

    pub(super) async fn run(
        self,
        registry: &Registry,
        context: &Context,
        request: &Request,
    ) -> Result<Response<Body>, Failure> {
        let (minter, tokens) = (&context.minter, &context.join_tokens);
        match self {
            Work::Get(permit) => match part(&permit) {
                None => registry::get::run(registry, permit, request).await,
                Some(Part::Status) => status::get(registry, permit, request).await,
                Some(Part::Scale(_)) => scale::get(registry, permit, request).await,
                Some(Part::Kubeconfig) => kubeconfig::get(minter, registry, permit, request).await,
                Some(Part::JoinToken) => join_token::get(tokens, registry, permit, request).await,
                Some(Part::Migrate) => migrate::get(registry, permit, request).await,
            },
            Work::Create(permit) => match part(&permit) {
                None => registry::create::run(registry, permit, request).await,
                Some(Part::Kubeconfig) => {
                    kubeconfig::create(minter, registry, permit, request).await
                }
                Some(Part::JoinToken) => {
                    join_token::create(tokens, registry, permit, request).await
                }
                Some(Part::Migrate) => {
                    migrate::create(&context.chooser, registry, permit, request).await
                }
                Some(Part::Status | Part::Scale(_)) => Err(Failure::UnknownPath),
            },
            Work::Update(permit) => match part(&permit) {
                None => registry::update::run(registry, permit, request).await,
                Some(Part::Status) => status::update(registry, permit, request).await,
                Some(Part::Scale(_)) => scale::update(registry, permit, request).await,
                Some(Part::Kubeconfig | Part::JoinToken | Part::Migrate) => {
                    Err(Failure::UnknownPath)
                }
            },
            Work::Patch(permit) => match part(&permit) {
                None => registry::patch::run(registry, permit, request).await,
                Some(Part::Status) => status::patch(registry, permit, request).await,
                Some(Part::Scale(_)) => scale::patch(registry, permit, request).await,
                Some(Part::Kubeconfig | Part::JoinToken | Part::Migrate) => {
                    Err(Failure::UnknownPath)
                }
            },
            Work::List(permit) => registry::list::run(registry, permit, request).await,
            Work::Watch(permit) => registry::watch::run(registry, permit, request).await,
            Work::Delete(permit) => match part(&permit) {
                None => registry::delete::run(registry, permit, request).await,
                Some(Part::JoinToken) => {
                    join_token::delete(tokens, registry, permit, request).await
                }
                Some(Part::Migrate) => migrate::delete(registry, permit, request).await,
                Some(Part::Status | Part::Scale(_) | Part::Kubeconfig) => Err(Failure::UnknownPath),
            },
            Work::DeleteCollection(permit) => {
                registry::delete_collection::run(registry, permit, request).await
            }
        }
    }
}

/// The part of the object that a permit is for; `None`: the object.
fn part<V>(permit: &Permit<V>) -> Option<Part> {
    permit.subresource().map(|subresource| subresource.part)
}
