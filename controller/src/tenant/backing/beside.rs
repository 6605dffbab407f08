//! A tenant's places beside the one with most of its data: API resources that its spec keeps in
//! other DataStores. What each is called, and what is known of it.
//!
//! One DataStore is one place, however many resources are kept there. It is claimed under a uid
//! of its own, which is made of the tenant's and of the DataStore's name: where the tenant is
//! served from, what moves, and what is deleted is found by uid, and none of these are to be
//! taken for each other (rule 17).

use std::collections::BTreeSet;
use std::sync::Arc;

use apiservice::names;
use apiservice::v1alpha1::{
    DataStore, DataStoreOverride, METRICS_OF_OVERRIDES, MOST_OVERRIDING, PORT_OF_OVERRIDES,
};

use crate::cluster::overrides::claimant;
use crate::tenant::backing::facts::StoreFacts;

/// One of these places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Name of the DataStore.
    pub data_store: String,
    /// By what its parts are told apart from those of other places.
    pub mark: String,
    /// What is kept there, in the order of the spec.
    pub resources: Vec<String>,
    /// Which of the places it is, in the order of the spec.
    pub ordinal: u8,
    /// What all keys begin with: as in the tenant's main place, for its API server knows one
    /// prefix. Empty where that is not known.
    pub prefix: String,
}

/// What is known of one of these places.
#[derive(Clone, Debug)]
pub struct Override {
    pub beside: Beside,
    /// The spec asks for it. One that it does not ask for any more is to be cleaned up.
    pub wanted: bool,
    /// The DataStore, if it exists.
    pub data_store: Option<Arc<DataStore>>,
    /// Why the DataStore, which is not seen, cannot be taken for one that was deleted.
    pub unseen: Option<String>,
    /// What observers know about it.
    pub store: StoreFacts,
    /// The DataStore has recorded that it is to be cleaned up.
    pub deferred: bool,
}

impl Beside {
    /// The one in this DataStore.
    pub fn in_store(data_store: &str, ordinal: usize) -> Self {
        Self {
            data_store: data_store.to_owned(),
            mark: names::override_mark(data_store),
            resources: Vec::new(),
            ordinal: u8::try_from(ordinal).unwrap_or(u8::MAX),
            prefix: String::new(),
        }
    }

    /// The uid by which it is claimed.
    pub fn claimant(&self, uid: &str) -> String {
        claimant(uid, &self.data_store)
    }

    /// Whether nobody would miss what is kept there.
    pub fn is_of_events(&self) -> bool {
        let events = |it: &String| it == DataStoreOverride::EVENTS;
        self.resources.iter().all(events)
    }

    /// Where the API server finds what leads there, in its pod.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", PORT_OF_OVERRIDES + i32::from(self.ordinal))
    }

    /// The port at which the kubelet finds that.
    pub fn metrics(&self) -> i32 {
        METRICS_OF_OVERRIDES + i32::from(self.ordinal)
    }

    /// The name of a container or a volume for this place.
    pub fn named(&self, name: &str) -> String {
        format!("{name}-{}", self.mark)
    }
}

/// Name of the Secret with the credentials for a place; the main one if it is none of these.
pub fn config_secret(tenant: &str, beside: Option<&Beside>) -> String {
    match beside {
        None => names::datastore_config(tenant),
        Some(beside) => names::override_config(tenant, &beside.mark),
    }
}

/// Name of the Secret with the certificate for a place; the main one if it is none of these.
pub fn certificate_secret(tenant: &str, beside: Option<&Beside>) -> String {
    match beside {
        None => names::datastore_certificate(tenant),
        Some(beside) => names::override_certificate(tenant, &beside.mark),
    }
}

/// The annotation of the Deployment with the fingerprint of the settings of a place.
pub fn settings_annotation(of: Option<&Beside>) -> String {
    match of {
        None => names::ANNOTATION_DATA_STORE.to_owned(),
        Some(of) => of.named(names::ANNOTATION_DATA_STORE),
    }
}

/// The places that a spec asks for, each with what is kept there.
pub fn wanted(overrides: &[DataStoreOverride]) -> Vec<Beside> {
    let mut all: Vec<Beside> = Vec::new();
    let mut seen = BTreeSet::new();
    for one in overrides {
        let Some(data_store) = one.data_store.as_deref().filter(|it| !it.is_empty()) else {
            continue;
        };
        // None has a longer name, and that is told of it.
        let data_store = &data_store[..data_store.floor_char_boundary(253)];
        let resource = one.kept_as();
        // What an older release has stored was not looked at as it is now.
        if !resource.contains('/') || resource.contains(['#', ';', ',']) || !seen.insert(resource) {
            continue;
        }
        let known = all.iter().position(|it| it.data_store == data_store);
        let at = match known {
            Some(at) => at,
            None if all.len() == MOST_OVERRIDING => continue,
            None => {
                all.push(Beside::in_store(data_store, all.len()));
                all.len() - 1
            }
        };
        all[at].resources.push(resource.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rows: &[(&str, &str)]) -> Vec<DataStoreOverride> {
        let one = |(resource, store): &(&str, &str)| DataStoreOverride {
            resource: Some((*resource).to_owned()),
            data_store: Some((*store).to_owned()),
        };
        rows.iter().map(one).collect()
    }

    #[test]
    fn one_datastore_is_one_place() {
        let places = wanted(&all(&[
            ("events.k8s.io/events", "a"),
            ("/configmaps", "b"),
            ("apps/replicasets", "a"),
            ("/events", "c"),
            ("/x#http://elsewhere", "d"),
        ]));
        let told: Vec<_> = places
            .iter()
            .map(|it| (it.data_store.as_str(), it.resources.join(" "), it.ordinal))
            .collect();
        assert_eq!(
            told,
            [
                ("a", "/events apps/replicasets".to_owned(), 0),
                ("b", "/configmaps".to_owned(), 1),
            ],
            "the second of events is none, and what the flag would misread neither"
        );
        assert!(!places[0].is_of_events());
        assert!(wanted(&all(&[("/events", "a")]))[0].is_of_events());
    }

    #[test]
    fn names_of_secrets_are_known_again() {
        let place = Beside::in_store("events", 0);
        for name in [
            config_secret("t", Some(&place)),
            certificate_secret("t", Some(&place)),
        ] {
            assert!(names::is_of_override("t", &name), "{name}");
            assert!(!names::is_of_override("u", &name), "{name}");
        }
        for other in ["t-datastore-config", "t-ca", "t-datastore-config-x2345678"] {
            assert!(!names::is_of_override("t", other), "{other}");
        }
    }
}
