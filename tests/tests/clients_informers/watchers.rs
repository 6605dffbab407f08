//! The watchers: client-go's informer, kube-rs's watcher, and a bare watch.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use serde::Deserialize;
use tests::lab::programs::INFORMER;
use tests::served::Served;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;

use crate::NAMESPACE;
use crate::heard::{Event, Heard, State};

pub fn api(client: kube::Client) -> Api<DynamicObject> {
    let row = apiservice::find("tenantcontrolplanes").unwrap();
    let resource = ApiResource {
        group: apiservice::GROUP.to_owned(),
        version: apiservice::VERSION.to_owned(),
        api_version: apiservice::api_version(),
        kind: row.kind.to_owned(),
        plural: row.plural.to_owned(),
    };
    Api::namespaced_with(client, NAMESPACE, &resource)
}

fn state(object: &DynamicObject) -> State {
    State::of(&serde_json::to_value(object).unwrap())
}

/// kube-rs's watcher with its usual back-off.
pub fn kube(client: kube::Client, streaming: bool) -> Heard {
    let heard = Heard::default();
    let config = if streaming {
        watcher::Config::default().streaming_lists()
    } else {
        watcher::Config::default()
    };
    let events = watcher(api(client), config).default_backoff();
    let log = heard.clone();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            // Errors are followed by what the watcher makes of them.
            let Ok(event) = event else { continue };
            log.push(match event {
                watcher::Event::Apply(object) => Event::Put(state(&object)),
                watcher::Event::Delete(object) => Event::Delete(state(&object)),
                watcher::Event::Init => Event::Relist,
                watcher::Event::InitApply(object) => Event::Listed(state(&object)),
                watcher::Event::InitDone => Event::ListEnd,
            });
        }
    });
    heard
}

/// A watch that is taken up again from the last revision seen.
pub async fn bare(client: kube::Client) -> Heard {
    let heard = Heard::default();
    let api = api(client);
    let mut revision = relist(&api, &heard).await;
    let log = heard.clone();
    tokio::spawn(async move {
        loop {
            let end = follow(&api, &log, &mut revision).await;
            match end {
                // Gone: nothing but a list tells what has happened.
                Some(410) => revision = relist(&api, &log).await,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    heard
}

/// Returns the code of the error that ended the watch.
async fn follow(api: &Api<DynamicObject>, heard: &Heard, revision: &mut String) -> Option<u16> {
    let parameters = WatchParams::default().timeout(60);
    let events = match api.watch(&parameters, revision).await {
        Ok(events) => events,
        Err(kube::Error::Api(status)) => return Some(status.code),
        Err(_) => return None,
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let event = match event.ok()? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Put(state(&object)),
            WatchEvent::Deleted(object) => Event::Delete(state(&object)),
            WatchEvent::Bookmark(bookmark) => {
                *revision = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => return Some(status.code),
        };
        if let Event::Put(state) | Event::Delete(state) = &event {
            *revision = state.resource_version.clone();
        }
        heard.push(event);
    }
    None
}

async fn relist(api: &Api<DynamicObject>, heard: &Heard) -> String {
    loop {
        let Ok(list) = api.list(&ListParams::default()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        heard.push(Event::Relist);
        for object in &list.items {
            heard.push(Event::Listed(state(object)));
        }
        heard.push(Event::ListEnd);
        return list.metadata.resource_version.unwrap();
    }
}

/// A line of the Go program.
#[derive(Deserialize)]
struct Line {
    event: String,
    object: Option<State>,
    #[serde(default)]
    store: Vec<State>,
}

/// The Go program `informer`.
pub struct Informer {
    pub heard: Heard,
    input: tokio::sync::Mutex<ChildStdin>,
    /// The last store it has printed.
    printed: watch::Sender<Vec<State>>,
    synced: watch::Sender<bool>,
}

impl Informer {
    pub fn start(served: &Served) -> Self {
        let directories = served.lab.directories();
        {
            let _lock = directories.lock_cache(&mut |_| {}).unwrap();
            INFORMER
                .build(directories, &mut |line| println!("{line}"))
                .unwrap();
        }
        let mut child = Command::new(INFORMER.path(directories, "informer"))
            .arg(format!(
                "--kubeconfig={}",
                served.lab.kubeconfig().display()
            ))
            .arg(format!("--group={}", apiservice::GROUP))
            .arg(format!("--version={}", apiservice::VERSION))
            .arg("--resource=tenantcontrolplanes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let informer = Self {
            heard: Heard::default(),
            input: tokio::sync::Mutex::new(child.stdin.take().unwrap()),
            printed: watch::Sender::default(),
            synced: watch::Sender::default(),
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (heard, printed) = (informer.heard.clone(), informer.printed.clone());
        let synced = informer.synced.clone();
        tokio::spawn(async move {
            // Killed with this task.
            let _child = child;
            while let Ok(Some(line)) = lines.next_line().await {
                let line: Line = serde_json::from_str(&line).unwrap();
                match (line.event.as_str(), line.object) {
                    ("add" | "update", Some(state)) => heard.push(Event::Put(state)),
                    ("delete" | "missing", Some(state)) => heard.push(Event::Delete(state)),
                    ("synced", _) => drop(synced.send_replace(true)),
                    ("store", _) => drop(printed.send_replace(line.store)),
                    (other, _) => panic!("the informer says {other}"),
                }
            }
        });
        informer
    }

    /// Waits until it has its first list.
    pub async fn wait_for_sync(&self) {
        let mut synced = self.synced.subscribe();
        tokio::time::timeout(Duration::from_secs(60), synced.wait_for(|synced| *synced))
            .await
            .expect("the informer is in sync within 60 s")
            .unwrap();
    }

    /// What its store holds now.
    pub async fn store(&self) -> BTreeMap<String, State> {
        let mut printed = self.printed.subscribe();
        printed.mark_unchanged();
        self.input.lock().await.write_all(b"\n").await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), printed.changed())
            .await
            .expect("the informer prints its store within 10 s")
            .unwrap();
        let states = printed.borrow().clone();
        states
            .into_iter()
            .map(|state| (state.key.clone(), state))
            .collect()
    }
}
