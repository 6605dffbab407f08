//! Watchers stay in step: a client-go informer, kube-rs watchers and a bare
//! watch follow one collection through churn, kill -9 of our server, a restart
//! of kube-apiserver, and changes whose history was forgotten meanwhile.
#![allow(clippy::disallowed_methods, reason = "tests")]

mod churn;
mod heard;
mod watchers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use churn::{Acknowledged, Churn};
use heard::{Heard, State};
use storage::{Expect, Revision};
use tests::lab::control_plane;
use tests::served::{GROUP_VERSION, Served, contains};
use watchers::Informer;

const NAMESPACE: &str = "churn";

/// Everybody who watches.
struct Everybody {
    informer: Informer,
    /// Lists first.
    lister: Heard,
    /// Has the list sent by the watch.
    streamer: Heard,
    /// Watches, and goes on from the last revision it saw, whatever happens.
    bare: Heard,
}

impl Everybody {
    async fn start(served: &Served) -> Self {
        let client = served.lab.client();
        let everybody = Self {
            informer: Informer::start(served),
            lister: watchers::kube(client.clone(), false),
            streamer: watchers::kube(client.clone(), true),
            bare: watchers::bare(client).await,
        };
        everybody.informer.wait_for_sync().await;
        for heard in [&everybody.lister, &everybody.streamer, &everybody.bare] {
            heard.wait_for_list().await;
        }
        everybody
    }

    fn all(&self) -> [(&'static str, &Heard); 4] {
        [
            ("informer", &self.informer.heard),
            ("lister", &self.lister),
            ("streamer", &self.streamer),
            ("bare watch", &self.bare),
        ]
    }

    /// How often each was told 410 and listed anew; client-go's informer, which lists
    /// after broken connections too, is left out.
    fn relists(&self) -> Vec<(&'static str, usize)> {
        let all = self.all().into_iter();
        let others = all.filter(|(name, _)| *name != "informer");
        others
            .map(|(name, heard)| (name, heard.relists()))
            .collect()
    }

    /// Waits until everybody holds what a list says.
    async fn in_step(&self, served: &Served, when: &str) {
        // client-go waits up to 30 s between attempts.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let wanted = list(served).await;
            let mut stores = vec![("informer's store", self.informer.store().await)];
            stores.extend(self.all().map(|(name, heard)| (name, heard.store())));
            let other = stores.into_iter().find(|(_, store)| *store != wanted);
            let Some((name, store)) = other else { return };
            assert!(
                Instant::now() < deadline,
                "{when}: the {name} holds {store:#?} instead of {wanted:#?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn list(served: &Served) -> BTreeMap<String, State> {
    let url = format!("{GROUP_VERSION}/namespaces/{NAMESPACE}/tenantcontrolplanes");
    let list = served.get(&url).await.unwrap();
    let items = list["items"].as_array().unwrap();
    let states = items.iter().map(State::of);
    states.map(|state| (state.key.clone(), state)).collect()
}

/// R3.26, R3.33, R8.32, R8.37.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_miss_nothing_and_see_each_change_once() {
    let mut served = Served::process().await;
    served.kubectl(&["create", "namespace", NAMESPACE]);
    let everybody = Everybody::start(&served).await;
    let churn = Churn::start(served.lab.client());

    // Nothing disturbs.
    let undisturbed = churn.pause_after(Duration::from_secs(3)).await;
    assert!(undisturbed.len() > 30, "{} writes", undisturbed.len());
    everybody.in_step(&served, "after churn").await;
    for (name, heard) in everybody.all() {
        heard.is_complete(name, &undisturbed);
        heard.is_ordered(name);
    }

    // Our server dies and comes back, more than once. Each time everybody lists anew:
    // what ended so may have lost revisions (rule 4).
    churn.go_on();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        served.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        served.start_process().await;
        served.wait_until_served().await;
    }
    let killed = churn.pause_after(Duration::from_secs(1)).await;
    everybody
        .in_step(&served, "after kill -9 of our server")
        .await;
    let relists = everybody.relists();
    for (name, relists) in &relists {
        assert!(
            (1..=3).contains(relists),
            "the {name} listed {relists} times"
        );
    }

    // kube-apiserver dies and comes back.
    churn.go_on();
    tokio::time::sleep(Duration::from_millis(500)).await;
    restart_kube_apiserver(&served).await;
    served.wait_until_served().await;
    let restarted = churn.pause_after(Duration::from_secs(1)).await;
    everybody
        .in_step(&served, "after a restart of kube-apiserver")
        .await;

    for (name, heard) in everybody.all() {
        heard.is_ordered(name);
        // client-go lists again after a broken connection, and then sees only
        // what has come of the changes.
        if name != "informer" {
            heard.is_complete(name, &restarted);
        }
    }
    assert_eq!(everybody.relists(), relists, "somebody had to list again");

    // Changes while nobody could watch, and their history is compacted away.
    served.kill();
    let (changed, deleted) = change_and_forget(&served).await;
    served.start_process().await;
    served.wait_until_served().await;
    everybody.in_step(&served, "after compaction").await;
    for (name, heard) in everybody.all() {
        assert_eq!(heard.store()[&changed].step, "tampered", "{name}");
        assert!(!heard.store().contains_key(&deleted), "{name}");
    }
    for ((name, now), (_, before)) in everybody.relists().into_iter().zip(relists) {
        assert_eq!(now, before + 1, "the {name} was told 410 once");
    }
    churn.go_on();
    let after = churn.pause_after(Duration::from_secs(1)).await;
    everybody.in_step(&served, "at the end").await;
    for (name, heard) in everybody.all() {
        heard.is_complete(name, &after);
        heard.is_ordered(name);
    }
    churn.stop().await;
    asks_for_streams(&served, &[undisturbed, killed, restarted, after]);
}

/// The informer has used what client-go does by default, and every writer's
/// work took part.
fn asks_for_streams(served: &Served, phases: &[Vec<Acknowledged>]) {
    let audit = std::fs::read_to_string(served.lab.directory().audit_log()).unwrap();
    let informer = |line: &&str| line.contains(r#""userAgent":"informer"#);
    let asked: Vec<&str> = audit.lines().filter(informer).collect();
    contains(asked[0], "sendInitialEvents=true");
    // It asks for a list only when a watch was answered with an error.
    let undisturbed: Vec<_> = asked
        .iter()
        .take_while(|line| !line.contains(r#""code":503"#))
        .collect();
    assert!(
        !undisturbed
            .iter()
            .any(|line| line.contains(r#""verb":"list""#)),
        "client-go has fallen back to lists: {asked:#?}"
    );
    for (number, phase) in phases.iter().enumerate() {
        println!("phase {number}: {} acknowledged writes", phase.len());
    }
}

async fn restart_kube_apiserver(served: &Served) {
    let lab = &served.lab;
    lab.process("kube-apiserver").unwrap().id.kill();
    let program =
        control_plane::api_server(lab.directories(), lab.directory(), lab.addresses()).unwrap();
    let process = lab.spawn(program).unwrap();
    control_plane::wait_for_ready(&process, &lab.client(), Duration::from_secs(60))
        .await
        .unwrap();
}

/// Changes one object and deletes another in the store of the server that is
/// not running, and forgets how it came to that.
async fn change_and_forget(served: &Served) -> (String, String) {
    let store = storage::sqlite::open(served.data()).await.unwrap();
    let prefix = format!("/tenantcontrolplanes/{NAMESPACE}/");
    let page = store.range(&prefix, None, None, None).await.unwrap();
    let [first, .., last] = &page.entries[..] else {
        panic!("the churn leaves objects behind");
    };
    let mut object: serde_json::Value = serde_json::from_slice(&first.value).unwrap();
    object["metadata"]["annotations"]["step"] = "tampered".into();
    let value = object.to_string().into();
    store
        .put(&first.key, value, Expect::At(first.modified))
        .await
        .unwrap();
    let Revision(newest) = store.delete(&last.key, last.modified).await.unwrap();
    // The watchers' revisions are below what is kept.
    store.compact(Revision(newest)).await.unwrap();
    store.close().await;
    let key = |key: &str| {
        key.strip_prefix("/tenantcontrolplanes/")
            .unwrap()
            .to_owned()
    };
    (key(&first.key), key(&last.key))
}
