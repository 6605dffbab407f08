//! Room for documents, in bytes: bodies, stored objects that are read to be changed, and the
//! trees that are made of both; and URLs and headers that are long.

use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use bytes::BytesMut;
use http::request::Parts;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Limits, Slot, exempt, holder, long_head};
use crate::aside;
use crate::authn::Identity;
use crate::decode::{self, BODY, Media};
use crate::object::{self, weight};
use crate::pool::Pool;
use crate::status::Failure;
use crate::stored;

/// Bytes that bodies under way may take, and the trees of values that are made of them
/// ([`weight`]).
pub(crate) const WORK: usize = 64 * 1024 * 1024;
/// The same of stored objects that are read as trees of values, or made anew.
pub(crate) const STORED: usize = 64 * 1024 * 1024;
/// What is held of a document beside its tree, in its own size: a buffer that grows doubles,
/// and what is stored is written anew.
const RAW: usize = 2;
/// What comes of a stored object and a configuration, in their size as trees: the new object,
/// and the sets of its fields and of those that have owners.
const MADE: usize = 2;
// Each alone fits in what one holder gets, which is half.
const _: () = assert!(weight::BODY_TREE + RAW * BODY <= WORK / 2);
// A stored object and what takes its place.
const _: () = assert!(
    2 * (weight::TREE + weight::STATUS_TREE + RAW * (stored::MAX_STORED + stored::STATUS_ROOM))
        <= STORED / 2
);
/// How long one of the cluster's own controllers waits for room; then it goes on without.
pub(super) const SYSTEM_WAIT: Duration = Duration::from_secs(2);
/// Between its looks.
const LOOK: Duration = Duration::from_millis(20);

impl Limits {
    /// Room for the URL and the headers of a request, where these are long.
    ///
    /// # Errors
    /// 429 while the caller's other requests take all of its share.
    pub async fn head(&self, identity: &Identity, parts: &Parts) -> Result<Slot, Failure> {
        let Some(bytes) = long_head(parts) else {
            return Ok(None);
        };
        let mut room = self.room(identity, &self.work);
        room.reach(bytes).await?;
        Ok(room.hold)
    }

    /// Room for a stored object that is read as a tree of values.
    ///
    /// # Errors
    /// 429 while what the caller has under way takes all of its share. The cluster's own
    /// controllers wait a little, and are never refused.
    pub async fn decode(&self, identity: &Identity, stored: &[u8]) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        // What is heavier is of a release that did not weigh, and takes all that one gets.
        let tree = decode::weigh(Media::Json, stored, room.most).unwrap_or(room.most);
        room.reach(RAW * stored.len() + tree).await?;
        Ok(room)
    }

    /// Room for an object that is made of a configuration, and for what making it takes.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn make(&self, identity: &Identity, config: &Value) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        room.make(&Value::Null, config).await?;
        Ok(room)
    }

    /// Room for copies of objects, as trees and as texts, while others are asked about them.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn copies(
        &self,
        identity: &Identity,
        objects: impl IntoIterator<Item = &Value>,
    ) -> Result<Room, Failure> {
        let mut room = self.room(identity, &self.stored);
        room.hold_copies(objects).await?;
        Ok(room)
    }

    /// No room yet, of that of the caller: its own or this.
    fn room(&self, identity: &Identity, of_all: &Pool) -> Room {
        let own = self.system.get(&identity.user);
        let pool = own.unwrap_or(of_all);
        Room {
            hold: (!exempt(identity)).then(|| pool.hold(holder(identity))),
            held: 0,
            most: pool.alone(),
            patience: own.map(|_| SYSTEM_WAIT),
        }
    }

    /// Reads a whole body of at most [`BODY`] bytes, and weighs what it is as a tree of
    /// values. Both are held with it.
    ///
    /// # Errors
    /// 413 for a larger or heavier one; 400 if the client stops in the middle; 429 while the
    /// caller's other bodies take all of its share. Nobody's bodies stand in the way of an
    /// administrator or of the cluster's own controllers.
    pub async fn read<B>(
        &self,
        identity: &Identity,
        media: Media,
        body: B,
    ) -> Result<(Bytes, Slot), Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _awaited = match exempt(identity) || self.system.contains_key(&identity.user) {
            true => None,
            false => Some(self.bodies.enter(holder(identity))?),
        };
        let mut room = self.room(identity, &self.work);
        let mut body = pin!(body);
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::BadRequest(format!("reading the body: {}", error.into()))
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let longest = media.longest();
            if whole.len() + data.len() > longest {
                return Err(Failure::TooLarge(format!("limit is {longest}")));
            }
            room.reach(RAW * (whole.len() + data.len())).await?;
            whole.extend_from_slice(&data);
        }
        let weigh = || decode::weigh(media, &whole, weight::BODY_TREE);
        let tree = aside::documents(holder(identity), whole.len(), weigh).await;
        let tree =
            tree.map_err(|weight::TooHeavy| Failure::too_heavy("body", weight::BODY_TREE))?;
        room.reach(RAW * whole.len() + tree).await?;
        Ok((whole.freeze(), room.hold))
    }
}

/// What a caller holds of the room for documents; nothing for those that are not counted.
#[derive(Debug)]
pub struct Room {
    hold: Slot,
    /// As much as was asked for; a controller may go on with less.
    held: usize,
    /// What one holder gets.
    most: usize,
    /// What is left of the time that a controller waits; others are refused.
    patience: Option<Duration>,
}

impl Room {
    /// Room for an object that takes the place of what was read.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn hold(&mut self, made: &Value) -> Result<(), Failure> {
        let tree = weight::of(made, self.most).unwrap_or(self.most);
        self.reach(RAW * object::length(made) + tree).await
    }

    /// Bytes for an object beside what it takes the place of.
    pub fn both(&self, made: &Value) -> usize {
        let tree = weight::of(made, self.most).unwrap_or(self.most);
        self.held + RAW * object::length(made) + tree
    }

    /// Room for copies of objects, in place of smaller ones.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn hold_copies(
        &mut self,
        objects: impl IntoIterator<Item = &Value>,
    ) -> Result<(), Failure> {
        let most = self.most;
        let copy = |object| object::length(object) + weight::of(object, most).unwrap_or(most);
        self.reach(objects.into_iter().map(copy).sum()).await
    }

    /// More room, for what is made of a stored object and a configuration for it.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn make(&mut self, stored: &Value, config: &Value) -> Result<(), Failure> {
        let tree = |value| weight::of(value, self.most).unwrap_or(self.most);
        let more = MADE * (tree(stored) + tree(config));
        self.reach(self.held + more).await
    }

    /// Makes it at least so many bytes; what is more than one holder gets is all of that.
    ///
    /// # Errors
    /// As for [`Limits::decode`].
    pub async fn reach(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = bytes.min(self.most);
        let more = bytes.saturating_sub(self.held);
        let Some(hold) = self.hold.as_mut().filter(|_| more > 0) else {
            return Ok(());
        };
        match &mut self.patience {
            None => hold.grow(more)?,
            Some(patience) => {
                while hold.grow(more).is_err() && !patience.is_zero() {
                    tokio::time::sleep(LOOK).await;
                    *patience = patience.saturating_sub(LOOK);
                }
            }
        }
        self.held = bytes;
        Ok(())
    }
}
