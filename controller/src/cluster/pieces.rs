//! Reads objects of the management cluster piece by piece, and leaves out what is too large.
//!
//! Whoever may write in a namespace makes objects of some MiB there with our labels. A list
//! of them is as long as many of them are, an empty variable of a container becomes
//! 360 bytes, and each key of a tree 100. So the text of an answer is never there as a
//! whole: each object is cut while it comes, and what is left of one is decoded before the
//! next one is read.

use std::time::Duration;

use apiservice::{legible, names};
use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ManagedFieldsEntry};
use kube::Client;
use kube::core::Status;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

use crate::cluster::managers::is_creation;
use crate::cluster::name::NamespacedName;

/// Bytes of a field of an object, as `spec` is one, that are read. Ours have half of it at most.
const FIELD: usize = 192 * 1024;
/// Memory that a field may take, by [`Span::weight`]: what is as large as this and yet short
/// is written to be large.
const WEIGHT: usize = 4 * 1024 * 1024;
/// Levels of a field that are read: with more, no reader of JSON that we have takes the object,
/// not even for its name. `managedFields` have as many as somebody likes.
const LEVELS: usize = 100;
/// Entries of a map of texts that are read, beside those that are ours, and bytes of them.
const ENTRIES: usize = 256;
const MAP: usize = 256 * 1024;
/// Fields of an object, and of its metadata.
const FIELDS: usize = 64;
/// Bytes of the name of a field, or of a key.
const KEY: usize = 1024;
/// Fields of metadata without which an object is not known. Each has a room of its own: objects
/// of custom resources have `finalizers` and `managedFields` before most of them.
const IDENTITY: [&str; 6] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "deletionTimestamp",
    "ownerReferences",
];
/// Entries of `managedFields` that are read. There is one of ours.
const MANAGERS: usize = 8;
/// Bytes of what is read of an answer that is no success.
const REFUSAL: usize = 64 * 1024;

/// How much of an object is read.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of one field, in bytes.
    field: usize,
    /// And by what it may take in memory.
    weight: usize,
    /// Entries of data, labels and annotations, and the bytes of each of the maps.
    entries: usize,
    map: usize,
    /// What is not as its kind is known counts as its metadata.
    may_be_strange: bool,
    /// Entries of `managedFields` are read as they are, and not only what `managers.rs` asks for.
    managers: bool,
}

impl Bounds {
    /// What anybody may have made.
    pub const STRANGERS: Self = Self {
        field: FIELD,
        weight: WEIGHT,
        entries: ENTRIES,
        map: MAP,
        may_be_strange: true,
        managers: false,
    };
    /// A Secret that an administrator refers to, whatever its keys are called.
    pub const REFERENCED: Self = Self {
        entries: 4096,
        map: 3 * 1024 * 1024,
        ..Self::STRANGERS
    };
    /// Our own kinds, which our API server has bounded. A tenant without its spec would be
    /// another tenant.
    pub const OWN: Self = Self {
        field: usize::MAX,
        weight: usize::MAX,
        entries: usize::MAX,
        map: usize::MAX,
        may_be_strange: false,
        managers: false,
    };

    /// Those for what is under a path.
    pub fn at(path: &str) -> Self {
        match path.split('/').nth(2) == Some(apiservice::GROUP) {
            true => Self::OWN,
            false => Self::STRANGERS,
        }
    }
}

/// What is left of an object, as text.
#[derive(Debug, Default, PartialEq)]
pub struct Piece(Vec<u8>);

/// An object that is there and cannot be read.
#[derive(Debug)]
pub struct Unread {
    pub name: NamespacedName,
    /// Its version, if that can.
    pub version: Option<String>,
    pub error: serde_json::Error,
}

impl Piece {
    /// As what it is. What cannot be read of it is left out, as far as it can be: what somebody
    /// makes that we cannot read must not keep us from reading the others.
    fn decode<K: DeserializeOwned>(&self, bounds: Bounds) -> Result<K, Unread> {
        self.decode_or(bounds, |tree| {
            // Keys that cannot be read must not count as none, which would be made anew.
            let has_data = ["data", "binaryData"].iter().any(|it| !tree[*it].is_null());
            (!has_data).then(|| legible::bare(tree).ok()).flatten()
        })
    }

    /// The same of one that is gone, of which no more than the name is needed.
    fn decode_gone<K: DeserializeOwned>(&self, bounds: Bounds) -> Result<K, Unread> {
        self.decode_or(bounds, |tree| legible::bare(tree).ok())
    }

    fn decode_or<K: DeserializeOwned>(
        &self,
        bounds: Bounds,
        bare: impl FnOnce(&Value) -> Option<K>,
    ) -> Result<K, Unread> {
        let error = match serde_json::from_slice(&self.0) {
            Ok(whole) => return Ok(whole),
            Err(error) => error,
        };
        let mut tree = self.value().unwrap_or_default();
        let known = bounds.may_be_strange.then(|| {
            let most = legible::decode(&mut tree).ok();
            most.or_else(|| bare(&tree))
        });
        known.flatten().ok_or_else(|| {
            let text = |field: &str| tree["metadata"][field].as_str().map(str::to_owned);
            Unread {
                name: NamespacedName::new(
                    text("namespace").unwrap_or_default(),
                    text("name").unwrap_or_default(),
                ),
                version: text("resourceVersion"),
                error,
            }
        })
    }

    fn value(&self) -> Result<Value, kube::Error> {
        serde_json::from_slice(&self.0).map_err(kube::Error::SerdeError)
    }
}

/// One answer, as an object that is cut. Fields that are left out are `null`. Whoever puts
/// `managedFields` back has them as they are.
pub async fn answer(
    client: &Client,
    request: Request<Vec<u8>>,
    bounds: Bounds,
) -> Result<Value, kube::Error> {
    let mut source = open(client, request).await?;
    let managers = true;
    source.object(Bounds { managers, ..bounds }).await?.value()
}

/// The object under a path, which is cut.
pub async fn get<K: DeserializeOwned>(client: &Client, path: String) -> Result<K, kube::Error> {
    let bounds = Bounds::at(&path);
    let request = Request::get(path).body(vec![]);
    let request = request.map_err(|error| kube::Error::Service(error.into()))?;
    let mut source = open(client, request).await?;
    let piece = source.object(bounds).await?;
    let decoded = piece.decode(bounds);
    decoded.map_err(|unread| kube::Error::SerdeError(unread.error))
}

/// Asks, and begins to read if the answer is a success.
async fn open(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<Source<kube::client::Body>, kube::Error> {
    let response = client.send(request.map(Into::into)).await?;
    refused(response).await.map(Source::new)
}

/// The body of a success.
async fn refused<B>(response: Response<B>) -> Result<B, kube::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let code = response.status();
    let mut body = response.into_body();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(body);
    }
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && text.len() < REFUSAL
    {
        let data = frame.into_data().unwrap_or_default();
        text.extend_from_slice(&data[..data.len().min(REFUSAL)]);
    }
    let status = serde_json::from_slice(&text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&text);
        Status::failure(text.trim(), "Failed to parse error data").with_code(code.as_u16())
    });
    Err(kube::Error::Api(Box::new(status)))
}

/// A list that is read object by object.
pub struct Page {
    source: Source<kube::client::Body>,
    bounds: Bounds,
    stage: Stage,
    meta: ListMeta,
}

/// What is to be read next of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Start,
    Fields,
    Items,
    Over,
}

impl Page {
    /// Asks for it. How long it may be silent, at its beginning and in between.
    pub async fn open(
        client: &Client,
        request: Request<Vec<u8>>,
        bounds: Bounds,
        patience: Duration,
    ) -> Result<Self, kube::Error> {
        let source = tokio::time::timeout(patience, open(client, request)).await;
        let mut source = source.map_err(|_| silent())??;
        source.patience = patience;
        Ok(Self {
            source,
            bounds,
            stage: Stage::Start,
            meta: ListMeta::default(),
        })
    }

    /// The next object; `None` at the end. What of ours cannot be read fails the list: a tenant
    /// that is passed over would be one that is gone.
    pub async fn next<K: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Result<K, Unread>>, kube::Error> {
        let source = &mut self.source;
        loop {
            match self.stage {
                Stage::Over => return Ok(None),
                Stage::Start => {
                    source.expect(b'{').await?;
                    self.stage = Stage::Fields;
                }
                Stage::Fields => {
                    let Some(key) = source.key().await? else {
                        self.stage = Stage::Over;
                        continue;
                    };
                    let mut value = Vec::new();
                    if key.name == "items" && source.token().await? == Some(b'[') {
                        source.chunk.advance(1);
                        self.stage = Stage::Items;
                    } else if source.value(&mut value, KEY * 16, WEIGHT).await?.is_some()
                        && key.name == "metadata"
                    {
                        let meta = serde_json::from_slice::<Option<ListMeta>>(&value);
                        self.meta = meta.map_err(kube::Error::SerdeError)?.unwrap_or_default();
                    }
                }
                Stage::Items => match source.token().await? {
                    Some(b']') => {
                        source.chunk.advance(1);
                        self.stage = Stage::Fields;
                    }
                    Some(b',') => source.chunk.advance(1),
                    _ => {
                        let piece = source.object(self.bounds).await?;
                        return match piece.decode(self.bounds) {
                            Err(unread) if !self.bounds.may_be_strange => {
                                Err(kube::Error::SerdeError(unread.error))
                            }
                            object => Ok(Some(object)),
                        };
                    }
                },
            }
        }
    }

    /// The revision of the list, once all of it was read.
    pub fn version(&mut self) -> Option<String> {
        let version = self.meta.resource_version.take();
        version.filter(|version| !version.is_empty())
    }

    /// How the next page is asked for, once all of this one was read.
    pub fn next_page(&mut self) -> Option<String> {
        self.meta.continue_.take().filter(|token| !token.is_empty())
    }
}

/// A watch that is read event by event.
pub struct Changes {
    source: Source<kube::client::Body>,
    bounds: Bounds,
    /// In the middle of an event.
    within: bool,
}

/// What a watch says.
pub enum Change<K> {
    There(K),
    Gone(K),
    /// Something is there or, if so, gone that cannot be read.
    Unread(Unread, bool),
    /// So far nothing else has come.
    Until(String),
    Refused(Box<Status>),
}

impl Changes {
    /// Asks for it. How long it may be silent in between.
    pub async fn open(
        client: &Client,
        mut request: Request<Vec<u8>>,
        bounds: Bounds,
        patience: Duration,
    ) -> Result<Self, kube::Error> {
        // From Kubernetes 1.37 on each event is compressed for itself, of which the client
        // reads the first one only.
        let plain = http::HeaderValue::from_static("identity");
        let headers = request.headers_mut();
        headers.insert(http::header::ACCEPT_ENCODING, plain);
        let source = tokio::time::timeout(patience, open(client, request)).await;
        let mut source = source.map_err(|_| silent())??;
        source.patience = patience;
        Ok(Self {
            source,
            bounds,
            within: false,
        })
    }

    /// Whether the next event can be read after one that was none.
    pub fn goes_on(&self) -> bool {
        !self.within
    }

    /// The next event; `None` at the end, wherever that is: a server that stops breaks off.
    pub async fn next<K: DeserializeOwned>(&mut self) -> Result<Option<Change<K>>, kube::Error> {
        let (mut kind, mut piece) = (Vec::new(), Piece::default());
        self.within = true;
        let read = async {
            if self.source.token().await?.is_none() {
                return Err(ended());
            }
            self.source.expect(b'{').await?;
            while let Some(key) = self.source.key().await? {
                match key.name.as_str() {
                    "type" => _ = self.source.value(&mut kind, KEY, KEY).await?,
                    "object" => piece = self.source.object(self.bounds).await?,
                    _ => self.source.skip().await?,
                }
            }
            Ok(())
        };
        match read.await {
            Ok(()) => self.within = false,
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(match kind.as_slice() {
            b"\"DELETED\"" => match piece.decode_gone(self.bounds) {
                Ok(object) => Change::Gone(object),
                Err(unread) => Change::Unread(unread, true),
            },
            b"\"BOOKMARK\"" => {
                let version = &piece.value()?["metadata"]["resourceVersion"];
                Change::Until(version.as_str().unwrap_or_default().to_owned())
            }
            b"\"ERROR\"" => {
                let status = serde_json::from_slice(&piece.0);
                Change::Refused(status.map_err(kube::Error::SerdeError)?)
            }
            _ => match piece.decode(self.bounds) {
                Ok(object) => Change::There(object),
                Err(unread) => Change::Unread(unread, false),
            },
        }))
    }
}

/// A body that is read from its beginning to its end.
struct Source<B> {
    body: B,
    /// What has come of it and was not read yet: one frame.
    chunk: Bytes,
    /// How long it may be silent.
    patience: Duration,
}

/// A key of a map.
struct Key {
    /// As it is in the text, with its quotes; empty if it is too long.
    text: Vec<u8>,
    name: String,
}

impl<B> Source<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    fn new(body: B) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
            // Whoever asks for one object has a deadline.
            patience: Duration::MAX,
        }
    }

    /// The next byte, which stays; `None` at the end.
    async fn peek(&mut self) -> Result<Option<u8>, kube::Error> {
        while self.chunk.is_empty() {
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            match frame.map_err(|_| silent())? {
                None => return Ok(None),
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) if breaks_off(&error) => return Ok(None),
                Some(Err(error)) => {
                    let error = std::io::Error::other(error);
                    return Err(kube::Error::ReadEvents(error));
                }
            }
        }
        Ok(self.chunk.first().copied())
    }

    /// The same after white space.
    async fn token(&mut self) -> Result<Option<u8>, kube::Error> {
        loop {
            let byte = self.peek().await?;
            if !byte.is_some_and(|byte| byte.is_ascii_whitespace()) {
                return Ok(byte);
            }
            self.chunk.advance(1);
        }
    }

    async fn expect(&mut self, wanted: u8) -> Result<(), kube::Error> {
        match self.token().await? {
            Some(byte) if byte == wanted => {
                self.chunk.advance(1);
                Ok(())
            }
            Some(_) => Err(malformed()),
            None => Err(ended()),
        }
    }

    /// The next key of a map that has begun, and what is before its value; `None` once the
    /// map is over.
    async fn key(&mut self) -> Result<Option<Key>, kube::Error> {
        if self.token().await? == Some(b',') {
            self.chunk.advance(1);
        }
        match self.token().await? {
            Some(b'"') => {}
            Some(b'}') => {
                self.chunk.advance(1);
                return Ok(None);
            }
            Some(_) => return Err(malformed()),
            None => return Err(ended()),
        }
        let mut text = Vec::new();
        self.value(&mut text, KEY, KEY).await?;
        self.expect(b':').await?;
        let name = match text.is_empty() {
            true => String::new(),
            false => serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?,
        };
        Ok(Some(Key { text, name }))
    }

    /// Reads a value, and puts it behind what there is if it has no more than `most` bytes,
    /// weighs no more than `weight` and is not too deep. What it weighs, if so.
    async fn value(
        &mut self,
        out: &mut Vec<u8>,
        most: usize,
        weight: usize,
    ) -> Result<Option<usize>, kube::Error> {
        let Some(first) = self.token().await? else {
            return Err(ended());
        };
        let (start, mut span, mut fits) = (out.len(), Span::of(first), true);
        loop {
            let (taken, over) = span.feed(&self.chunk);
            fits &= out.len() - start + taken <= most
                && span.weight <= weight
                && span.deepest <= LEVELS;
            match fits {
                true => out.extend_from_slice(&self.chunk[..taken]),
                false => out.truncate(start),
            }
            self.chunk.advance(taken);
            if over || self.peek().await?.is_none() {
                return match over || span.scalar {
                    true => Ok(fits.then_some(span.weight)),
                    false => Err(ended()),
                };
            }
        }
    }

    async fn skip(&mut self) -> Result<(), kube::Error> {
        self.value(&mut Vec::new(), 0, 0).await.map(|_| ())
    }

    /// The next object.
    async fn object(&mut self, bounds: Bounds) -> Result<Piece, kube::Error> {
        let mut out = vec![b'{'];
        self.expect(b'{').await?;
        let (mut fields, mut left) = (0, Left::of(bounds));
        while let Some(key) = self.key().await? {
            fields += 1;
            if !begin(&mut out, &key, fields <= FIELDS) {
                self.skip().await?;
                continue;
            }
            match key.name.as_str() {
                "metadata" => self.metadata(&mut out, bounds).await?,
                "data" | "binaryData" => self.texts(&mut out, bounds, is_key_of_ours).await?,
                _ => self.field(&mut out, bounds, &mut left).await?,
            }
        }
        out.push(b'}');
        Ok(Piece(out))
    }

    /// Metadata have a room of their own, and some of them one each.
    async fn metadata(&mut self, out: &mut Vec<u8>, bounds: Bounds) -> Result<(), kube::Error> {
        let (mut fields, mut left) = (0, Left::of(bounds));
        if self.token().await? != Some(b'{') {
            return self.field(out, bounds, &mut left).await;
        }
        self.chunk.advance(1);
        out.push(b'{');
        while let Some(key) = self.key().await? {
            fields += 1;
            if !begin(out, &key, fields <= FIELDS) {
                self.skip().await?;
                continue;
            }
            match key.name.as_str() {
                "labels" | "annotations" => self.texts(out, bounds, names::is_ours).await?,
                "managedFields" if !bounds.managers => self.managers(out).await?,
                name if IDENTITY.contains(&name) => {
                    self.field(out, bounds, &mut Left::of(bounds)).await?;
                }
                _ => self.field(out, bounds, &mut left).await?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Entries of `managedFields` that say that we made the object. Their times are left out as
    /// well: a client may set any that Go takes.
    async fn managers(&mut self, out: &mut Vec<u8>) -> Result<(), kube::Error> {
        if self.token().await? != Some(b'[') {
            out.extend_from_slice(b"null");
            return self.skip().await;
        }
        self.chunk.advance(1);
        let mut ours = vec![];
        loop {
            match self.token().await? {
                Some(b',') => self.chunk.advance(1),
                Some(b'{') => {
                    let entry = self.manager().await?;
                    if is_creation(&entry) && ours.len() < MANAGERS {
                        ours.push(entry);
                    }
                }
                Some(b']') => {
                    self.chunk.advance(1);
                    break;
                }
                Some(_) => return Err(malformed()),
                None => return Err(ended()),
            }
        }
        serde_json::to_writer(out, &ours).map_err(kube::Error::SerdeError)
    }

    async fn manager(&mut self) -> Result<ManagedFieldsEntry, kube::Error> {
        self.chunk.advance(1);
        let mut entry = ManagedFieldsEntry::default();
        while let Some(key) = self.key().await? {
            let field = match key.name.as_str() {
                "manager" => &mut entry.manager,
                "operation" => &mut entry.operation,
                "subresource" => &mut entry.subresource,
                _ => {
                    self.skip().await?;
                    continue;
                }
            };
            let mut text = Vec::new();
            self.value(&mut text, KEY, KEY).await?;
            // One that is no text, or too long, is not none.
            *field = serde_json::from_slice(&text).unwrap_or_else(|_| Some("?".to_owned()));
        }
        Ok(entry)
    }

    /// A value as a whole, or `null`.
    async fn field(
        &mut self,
        out: &mut Vec<u8>,
        bounds: Bounds,
        left: &mut Left,
    ) -> Result<(), kube::Error> {
        let start = out.len();
        let bytes = bounds.field.min(left.bytes);
        let weight = bounds.weight.min(left.weight);
        match self.value(out, bytes, weight).await? {
            Some(weight) => {
                left.bytes -= out.len() - start;
                left.weight -= weight;
            }
            None => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    /// A map of texts. One that is too long by itself is empty; of too many those are left out
    /// that are not ours, which have a room of the same size beside them.
    async fn texts(
        &mut self,
        out: &mut Vec<u8>,
        bounds: Bounds,
        ours: fn(&str) -> bool,
    ) -> Result<(), kube::Error> {
        if self.token().await? != Some(b'{') {
            return self.field(out, bounds, &mut Left::of(bounds)).await;
        }
        self.chunk.advance(1);
        out.push(b'{');
        let (mut theirs_read, mut ours_read) = (Room::default(), Room::default());
        while let Some(key) = self.key().await? {
            let start = out.len();
            if !begin(out, &key, true) {
                self.skip().await?;
                continue;
            }
            let room = match ours(&key.name) {
                true => &mut ours_read,
                false => &mut theirs_read,
            };
            if self.value(out, bounds.map, bounds.weight).await?.is_none() {
                out.extend_from_slice(b"\"\"");
            }
            if !room.take(out.len() - start, bounds) {
                out.truncate(start);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// What may still be read of an object beside its maps of texts, all fields together.
struct Left {
    bytes: usize,
    weight: usize,
}

impl Left {
    fn of(bounds: Bounds) -> Self {
        Self {
            bytes: bounds.field.saturating_mul(2),
            weight: bounds.weight.saturating_mul(2),
        }
    }
}

/// What was taken of a map's room.
#[derive(Default)]
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, bytes: usize, bounds: Bounds) -> bool {
        let fits = self.entries < bounds.entries && self.bytes + bytes <= bounds.map;
        if fits {
            self.entries += 1;
            self.bytes += bytes;
        }
        fits
    }
}

/// Begins an entry of a map that has begun, unless its key is too long or there are too many.
fn begin(out: &mut Vec<u8>, key: &Key, fits: bool) -> bool {
    if !fits || key.text.is_empty() {
        return false;
    }
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(&key.text);
    out.push(b':');
    true
}

/// Keys of the Secrets and ConfigMaps that tenants are made of.
fn is_key_of_ours(key: &str) -> bool {
    names::key::ALL.contains(&key)
}

/// Where in a value we are.
struct Span {
    /// A number, or a word: it ends where something else begins.
    scalar: bool,
    depth: usize,
    /// How deep it has been.
    deepest: usize,
    in_text: bool,
    escaped: bool,
    /// What it may take in memory. A map takes up to a KiB, as a container of a pod that says
    /// nothing; a place in a list or a map some bytes.
    weight: usize,
}

impl Span {
    fn of(first: u8) -> Self {
        Self {
            scalar: !matches!(first, b'{' | b'[' | b'"'),
            depth: 0,
            deepest: 0,
            in_text: false,
            escaped: false,
            weight: 0,
        }
    }

    /// How many of these bytes are of the value, and whether it ends there.
    fn feed(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_text = false;
                        if self.depth == 0 {
                            return (at + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                    self.weight += if *byte == b'{' { 512 } else { 32 };
                }
                b',' if self.depth > 0 => self.weight += 32,
                b':' => self.weight += 32,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                b',' | b'}' | b']' => return (at, true),
                _ if self.scalar && byte.is_ascii_whitespace() => return (at, true),
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

fn malformed() -> kube::Error {
    kube::Error::SerdeError(serde_json::Error::custom("an answer is not JSON"))
}

/// A body has ended before what is in it has.
fn ended() -> kube::Error {
    kube::Error::ReadEvents(std::io::ErrorKind::UnexpectedEof.into())
}

fn is_end(error: &kube::Error) -> bool {
    matches!(error, kube::Error::ReadEvents(error) if error.kind() == std::io::ErrorKind::UnexpectedEof)
}

fn silent() -> kube::Error {
    kube::Error::ReadEvents(std::io::ErrorKind::TimedOut.into())
}

/// Whether a connection was closed in the middle, as by a server that stops.
fn breaks_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
pub(crate) mod tests;
