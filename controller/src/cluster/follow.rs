//! A list of a kind and then a watch of it, for as long as somebody listens: object by
//! object, and of each no more than is read of one (`pieces.rs`).

use std::marker::PhantomData;
use std::mem;

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::api::{ListParams, WatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event};
use kube::{Client, Resource, core::Request};
use serde::de::DeserializeOwned;

use crate::cluster::name::EVERYWHERE;
use crate::cluster::pieces::{Bounds, Change, Changes, Page};
use crate::process::timing;

/// What is told of a kind in one place. After an error it goes on, a while later.
pub fn follow<K>(
    client: Client,
    place: &str,
    config: &Config,
    bounds: Bounds,
) -> BoxStream<'static, Result<Event<K>, Error>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let asks = Asks {
        client,
        path: path::<K>(place),
        list: ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            limit: config.page_size,
            ..ListParams::default()
        },
        watch: WatchParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            ..WatchParams::default()
        },
        bounds,
    };
    let follow = Follow::<K> {
        asks,
        state: State::Start,
        kind: PhantomData,
    };
    events(follow).backoff(timing::watch_backoff()).boxed()
}

/// The path of a kind in one place.
pub(super) fn path<K: Resource<DynamicType = ()>>(place: &str) -> String {
    K::url_path(&(), (place != EVERYWHERE).then_some(place))
}

fn events<K>(follow: Follow<K>) -> impl Stream<Item = Result<Event<K>, Error>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    futures::stream::unfold(follow, async |mut follow| {
        let event = follow.next().await;
        Some((event, follow))
    })
}

struct Follow<K> {
    asks: Asks,
    state: State,
    kind: PhantomData<fn() -> K>,
}

/// What is asked for, and whom.
struct Asks {
    client: Client,
    path: String,
    list: ListParams,
    watch: WatchParams,
    bounds: Bounds,
}

/// How far it has come.
enum State {
    Start,
    /// The page of this token is to be asked for, or the first one.
    Before(Option<String>),
    Listing(Page),
    /// Of the list, or of what came last.
    Listed(String),
    Watching(String, Changes),
}

impl<K> Follow<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    async fn next(&mut self) -> Result<Event<K>, Error> {
        loop {
            // Whatever is not said below begins anew.
            match mem::replace(&mut self.state, State::Start) {
                State::Start => {
                    self.state = State::Before(None);
                    return Ok(Event::Init);
                }
                State::Before(token) => {
                    let page = self
                        .asks
                        .page(token)
                        .await
                        .map_err(Error::InitialListFailed)?;
                    self.state = State::Listing(page);
                }
                State::Listing(mut page) => {
                    let object = page.next().await.map_err(Error::InitialListFailed)?;
                    if let Some(object) = object {
                        self.state = State::Listing(page);
                        return Ok(Event::InitApply(object));
                    }
                    if let Some(token) = page.next_page() {
                        self.state = State::Before(Some(token));
                        continue;
                    }
                    let version = page.version().ok_or(Error::NoResourceVersion)?;
                    self.state = State::Listed(version);
                    return Ok(Event::InitDone);
                }
                State::Listed(version) => match self.asks.changes(&version).await {
                    Ok(changes) => self.state = State::Watching(version, changes),
                    Err(error) => {
                        // Unless it is too old.
                        if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                            self.state = State::Listed(version);
                        }
                        return Err(Error::WatchStartFailed(error));
                    }
                },
                State::Watching(version, mut changes) => {
                    let (object, event) = match changes.next::<K>().await {
                        Ok(None) => {
                            self.state = State::Listed(version);
                            continue;
                        }
                        Ok(Some(Change::Until(until))) => {
                            // Without one it would begin at what is there by then.
                            let version = if until.is_empty() { version } else { until };
                            self.state = State::Watching(version, changes);
                            continue;
                        }
                        Ok(Some(Change::Refused(status))) => {
                            if status.code != 410 {
                                self.state = State::Watching(version, changes);
                            }
                            return Err(Error::WatchError(status));
                        }
                        Err(error) => {
                            self.state = match changes.goes_on() {
                                true => State::Watching(version, changes),
                                false => State::Listed(version),
                            };
                            return Err(Error::WatchFailed(error));
                        }
                        Ok(Some(Change::There(object))) => {
                            (object, Event::Apply as fn(K) -> Event<K>)
                        }
                        Ok(Some(Change::Gone(object))) => (object, Event::Delete as _),
                    };
                    let version = object.meta().resource_version.clone();
                    let version = version.filter(|it| !it.is_empty());
                    let version = version.ok_or(Error::NoResourceVersion)?;
                    self.state = State::Watching(version, changes);
                    return Ok(event(object));
                }
            }
        }
    }
}

impl Asks {
    async fn page(&self, token: Option<String>) -> Result<Page, kube::Error> {
        let params = ListParams {
            continue_token: token,
            ..self.list.clone()
        };
        let request = Request::new(&self.path).list(&params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        Page::open(&self.client, request, self.bounds, timing::LIST_PATIENCE).await
    }

    async fn changes(&self, version: &str) -> Result<Changes, kube::Error> {
        let request = Request::new(&self.path).watch(&self.watch, version);
        let request = request.map_err(kube::Error::BuildRequest)?;
        Changes::open(&self.client, request, self.bounds, timing::WATCH_PATIENCE).await
    }
}
