//! Events on tenants and DataStores, each said once in a while.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::caches::Namespaces;

/// The same words about the same object are not repeated for so long.
const SILENCE: Duration = Duration::from_secs(10 * 60);
/// And for so long if something else was said of it since: what is over is told as well.
const TURN: Duration = Duration::from_secs(60);
/// Events are explanations: none is worth waiting long for.
const DEADLINE: Duration = Duration::from_secs(3);

/// Writes events.
pub struct Events {
    client: Client,
    reporter: Reporter,
    namespaces: Namespaces,
    said: Mutex<Said>,
}

/// What was said when, by uid, reason and message.
#[derive(Debug, Default)]
struct Said(HashMap<(String, String, String), Instant>);

impl Said {
    /// True if it is news; it is noted as said then.
    fn news(&mut self, uid: &str, reason: &str, message: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < SILENCE);
        let key = (uid.to_owned(), reason.to_owned(), message.to_owned());
        if let Some(at) = self.0.get(&key) {
            let of_it = self.0.iter().filter(|((of, ..), _)| of == uid);
            let last = of_it.map(|(_, at)| at).max() == Some(at);
            if last || now.duration_since(*at) < TURN {
                return false;
            }
        }
        self.0.insert(key, now);
        true
    }
}

impl Events {
    /// Writes as `steward-controller`, replica `identity`, about what stands in these
    /// namespaces or in none.
    pub fn new(client: Client, identity: &str, namespaces: Namespaces) -> Self {
        let reporter = Reporter {
            controller: "steward-controller".into(),
            instance: Some(identity.into()),
        };
        Self {
            client,
            reporter,
            namespaces,
            said: Mutex::default(),
        }
    }

    /// Tells it once; a failure to do so is only logged. Returns whether it is news: not
    /// told a short while ago in the same words.
    pub async fn tell<K>(&self, about: &K, warning: bool, reason: &str, message: &str) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = about.meta().uid.clone().unwrap_or_default();
        if !self.said.lock().news(&uid, reason, message, Instant::now()) {
            return false;
        }
        let namespace = about.meta().namespace.as_deref();
        if !namespace.is_none_or(|namespace| self.namespaces.has(namespace)) {
            return true;
        }
        let reference: ObjectReference = about.object_ref(&());
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: cut(reason, 128),
            // An event's note may have 1024 bytes.
            note: Some(cut(message, 1000)),
            action: "Reconcile".into(),
            secondary: None,
        };
        // A recorder counts an Event of the same reason up, whatever its words: each of ours
        // is news, and has its own.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let publish = recorder.publish(&event, &reference);
        match tokio::time::timeout(DEADLINE, publish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(reason, "cannot write an event: {error}"),
            Err(_) => tracing::debug!(reason, "cannot write an event: no answer"),
        }
        true
    }
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once_in_a_while() {
        let mut said = Said::default();
        let now = Instant::now();
        assert!(said.news("u", "Ready", "m", now));
        assert!(!said.news("u", "Ready", "m", now + SILENCE / 2));
        assert!(said.news("u", "Ready", "other", now));
        assert!(said.news("v", "Ready", "m", now));
        assert!(said.news("u", "Ready", "m", now + SILENCE));
    }

    #[test]
    fn what_is_over_is_told_although_it_was_said_before() {
        let mut said = Said::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(said.news("u", "Ready", "well", at(0)));
        assert!(said.news("u", "Unreachable", "typo", at(100)));
        assert!(said.news("u", "Ready", "well", at(120)));
        assert!(
            !said.news("u", "Ready", "well", at(200)),
            "it is the last word"
        );
        // A fight is told once a minute.
        assert!(!said.news("u", "Unreachable", "typo", at(130)));
        assert!(said.news("u", "Unreachable", "typo", at(170)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("aöb", 2), "a");
        assert_eq!(cut("ab", 5), "ab");
    }
}
