//! A list of a kind and then a watch of it, for as long as somebody listens: object by
//! object, and of each no more than is read of one (`pieces.rs`).

use std::marker::PhantomData;
use std::mem;

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::api::{ListParams, WatchParams};
use kube::runtime::watcher::{Config, Error};
use kube::{Client, Resource, core::Request};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant};

use crate::cluster::name::{EVERYWHERE, NamespacedName};
use crate::cluster::pieces::{Bounds, Change, Changes, Page, Unread};
use crate::process::timing;

/// Between words about objects that cannot be read.
const SAID: Duration = Duration::from_secs(60);

/// What a list and a watch say.
pub enum Event<K> {
    /// A list begins.
    Init,
    /// Is in the list.
    InitApply(K),
    /// The same of what cannot be read.
    InitUnread(NamespacedName),
    /// The list is over.
    InitDone,
    /// Is new, or has changed.
    Apply(K),
    /// Is gone.
    Delete(K),
}

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
        pace: Pace::default(),
        said: None,
        kind: PhantomData,
    };
    events(follow).boxed()
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
        follow.pace.note(&event);
        Some((event, follow))
    })
}

struct Follow<K> {
    asks: Asks,
    state: State,
    pace: Pace,
    /// When an object was named last that cannot be read.
    said: Option<Instant>,
    kind: PhantomData<fn() -> K>,
}

/// When to ask again.
#[derive(Default)]
struct Pace {
    /// In a row.
    failures: u32,
    pause: Option<Duration>,
}

impl Pace {
    async fn wait(&mut self) {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
    }

    fn note<K>(&mut self, event: &Result<Event<K>, Error>) {
        match event {
            Err(_) => self.failed(),
            // That a list begins, and some of it has come, says nothing of the rest.
            Ok(Event::Init | Event::InitApply(_) | Event::InitUnread(_)) => {}
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => self.went_well(),
        }
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(timing::watch_backoff(self.failures));
    }

    fn went_well(&mut self) {
        self.failures = 0;
    }
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
    Watching(String, Changes, Since),
}

/// Of a watch, when it began, and whether it has said something.
#[derive(Clone, Copy)]
struct Since {
    began: Instant,
    spoke: bool,
}

impl<K> Follow<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    async fn next(&mut self) -> Result<Event<K>, Error> {
        loop {
            self.pace.wait().await;
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
                        return Ok(match object {
                            Ok(object) => Event::InitApply(object),
                            Err(unread) => {
                                self.say(&unread);
                                Event::InitUnread(unread.name)
                            }
                        });
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
                    Ok(changes) => {
                        let since = Since {
                            began: Instant::now(),
                            spoke: false,
                        };
                        self.state = State::Watching(version, changes, since);
                    }
                    Err(error) => {
                        // Unless it is too old.
                        if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                            self.state = State::Listed(version);
                        }
                        return Err(Error::WatchStartFailed(error));
                    }
                },
                State::Watching(version, mut changes, since) => {
                    let next = changes.next::<K>().await;
                    let lasts = since.began.elapsed() >= timing::WATCH_SOON;
                    if lasts {
                        self.pace.went_well();
                    }
                    let spoke = Since {
                        spoke: true,
                        ..since
                    };
                    let (object, event) = match next {
                        Ok(None) => {
                            self.state = State::Listed(version);
                            if !lasts && !since.spoke {
                                self.pace.failed();
                            }
                            continue;
                        }
                        Ok(Some(Change::Until(until))) => {
                            // Without one it would begin at what is there by then.
                            let version = if until.is_empty() { version } else { until };
                            self.state = State::Watching(version, changes, spoke);
                            continue;
                        }
                        Ok(Some(Change::Refused(status))) => {
                            if status.code != 410 {
                                self.state = State::Watching(version, changes, spoke);
                            }
                            return Err(Error::WatchError(status));
                        }
                        Ok(Some(Change::Unread(unread, gone))) => {
                            self.say(&unread);
                            if gone {
                                // A list says what is gone.
                                let error = kube::Error::SerdeError(unread.error);
                                return Err(Error::WatchFailed(error));
                            }
                            // What is held of it stays.
                            let version = unread.version.unwrap_or(version);
                            self.state = State::Watching(version, changes, spoke);
                            continue;
                        }
                        Err(error) => {
                            self.state = match changes.goes_on() {
                                true => State::Watching(version, changes, spoke),
                                false => State::Listed(version),
                            };
                            return Err(Error::WatchFailed(error));
                        }
                        Ok(Some(Change::There(object))) => {
                            (object, Event::Apply as fn(K) -> Event<K>)
                        }
                        Ok(Some(Change::Gone(object))) => (object, Event::Delete as _),
                    };
                    let at = object.meta().resource_version.clone();
                    let Some(at) = at.filter(|it| !it.is_empty()) else {
                        // It is none of what was asked for.
                        self.state = State::Watching(version, changes, spoke);
                        continue;
                    };
                    self.state = State::Watching(at, changes, spoke);
                    return Ok(event(object));
                }
            }
        }
    }

    /// Names what cannot be read, once in a while.
    fn say(&mut self, unread: &Unread) {
        if self.said.is_none_or(|said| said.elapsed() > SAID) {
            self.said = Some(Instant::now());
            let kind = K::kind(&());
            let Unread { name, error, .. } = unread;
            tracing::warn!(%kind, %name, "cannot read an object: {error}");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of so many attempts, each of which says something and fails.
    async fn takes(attempts: u32, says: fn() -> Event<()>) -> Duration {
        let (mut pace, began) = (Pace::default(), Instant::now());
        for _ in 0..attempts {
            pace.wait().await;
            pace.note(&Ok(says()));
            pace.note::<()>(&Err(Error::NoResourceVersion));
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_is_asked_for_more_and_more_rarely() {
        let rare = Duration::from_secs(6 + 34 * 5);
        assert!(takes(40, || Event::Init).await >= rare);
        assert!(takes(40, || Event::InitApply(())).await >= rare);
        let often = Duration::from_millis(39 * 201);
        for went_well in [
            || Event::InitDone,
            || Event::Apply(()),
            || Event::Delete(()),
        ] {
            assert!(takes(40, went_well).await <= often);
        }
    }
}
