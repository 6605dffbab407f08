//! From a DataStore to a connection: follows its references to Secrets and
//! keeps one connection for each DataStore, made anew when any of it changes.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use apiservice::{
    pki::{self, Pair},
    v1alpha1::{ContentRef, DataStore},
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use storage::tenancy::{Connection, Tenancy, TenancyError};

use crate::cluster::caches::Caches;
use crate::cluster::name::NamespacedName;
use crate::process::timing;
use crate::tenant::backing::facts::{CredentialsFact, StoreCredentials};
use crate::tenant::pki::terms::{Span, Terms};

/// Why the material of a DataStore cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// A Secret has not been looked up yet.
    Unknown,
    /// Something that is referred to is not there.
    Missing {
        /// What, and where it was looked for.
        what: String,
        /// What to do, without a full stop.
        remedy: String,
        /// True if the Secret exists but lacks the key.
        key: bool,
    },
}

/// What is missing of the material, if anything.
pub fn gap(store: &DataStore, caches: &Caches) -> Option<Gap> {
    resolve(store, caches).err()
}

/// What a plan may know of the material.
pub fn fact(store: &DataStore, caches: &Caches) -> CredentialsFact {
    match resolve(store, caches) {
        Ok(connection) => CredentialsFact::Known(Arc::new(StoreCredentials {
            endpoints: connection.endpoints.clone(),
            authority: text(connection.ca_pem.as_deref()),
            authority_key: authority_key(store, caches),
            client: client(store, &connection),
        })),
        Err(Gap::Unknown) => CredentialsFact::Unknown,
        Err(Gap::Missing { what, remedy, .. }) => CredentialsFact::Missing { what, remedy },
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Our own client certificate, where tenants are given a copy.
fn client(store: &DataStore, connection: &Connection) -> Option<Pair> {
    if !store.spec.driver.has_passwords() {
        return None;
    }
    Some(Pair {
        cert: text(connection.client_cert.as_deref()?.into()),
        key: text(connection.client_key.as_deref()?.into()),
    })
}

fn authority_key(store: &DataStore, caches: &Caches) -> Option<String> {
    let content = store
        .spec
        .tls_config
        .as_ref()?
        .certificate_authority
        .private_key
        .as_ref()?;
    let bytes = read(content, caches, "").ok()?;
    Some(text(Some(&bytes)))
}

/// A certificate that a DataStore refers to, and when it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// `authority` or `client`.
    pub part: &'static str,
    /// The field of the DataStore.
    pub field: &'static str,
    pub span: Span,
}

impl Certificate {
    /// From when on its end is told: a fortnight before, or a quarter of a year before
    /// the end of an authority. Later, where whoever renews it has until later: in
    /// the last quarter of its life, in the second half of the window of ours.
    pub fn warns(&self, terms: &Terms) -> Timestamp {
        let Span {
            not_before,
            not_after,
        } = self.span;
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        let most = match self.part {
            AUTHORITY => days(90),
            _ => days(14).min(terms.window() / 2),
        };
        let before = most.min(not_after.duration_since(not_before) / 4);
        not_after.checked_sub(before).unwrap_or(not_after)
    }
}

const AUTHORITY: &str = "authority";

/// The certificates of a DataStore that are there and can be read.
pub fn certificates(store: &DataStore, caches: &Caches) -> Vec<Certificate> {
    let Some(tls) = &store.spec.tls_config else {
        return Vec::new();
    };
    let authority = &tls.certificate_authority.certificate;
    let client = tls.client_certificate.as_ref().map(|it| &it.certificate);
    let all = [
        (
            AUTHORITY,
            "spec.tlsConfig.certificateAuthority.certificate",
            Some(authority),
        ),
        (
            "client",
            "spec.tlsConfig.clientCertificate.certificate",
            client,
        ),
    ];
    all.into_iter()
        .filter_map(|(part, field, content)| {
            let bytes = read(content?, caches, field).ok()?;
            let info = pki::inspect(&text(Some(&bytes))).ok()?;
            let span = Span {
                not_before: info.not_before,
                not_after: info.not_after,
            };
            Some(Certificate { part, field, span })
        })
        .collect()
}

/// Everything that is needed to connect.
pub fn resolve(store: &DataStore, caches: &Caches) -> Result<Connection, Gap> {
    let spec = &store.spec;
    let mut connection = Connection {
        driver: spec.driver.as_str().to_owned(),
        endpoints: spec.driver.endpoints(&spec.endpoints).to_vec(),
        ca_pem: None,
        client_cert: None,
        client_key: None,
        username: None,
        password: None,
        deadline: timing::STORE_REQUEST,
    };
    if let Some(tls) = &spec.tls_config {
        let at = "spec.tlsConfig.certificateAuthority";
        let authority = &tls.certificate_authority;
        connection.ca_pem = Some(read(&authority.certificate, caches, at)?);
        if let Some(key) = &authority.private_key {
            read(key, caches, at)?;
        }
        if let Some(client) = &tls.client_certificate {
            let at = "spec.tlsConfig.clientCertificate";
            connection.client_cert = Some(read(&client.certificate, caches, at)?);
            connection.client_key = Some(read(&client.private_key, caches, at)?);
        }
    }
    if let Some(auth) = &spec.basic_auth {
        let at = "spec.basicAuth";
        connection.username = Some(text(Some(&read(&auth.username, caches, at)?)));
        connection.password = Some(text(Some(&read(&auth.password, caches, at)?)));
    }
    Ok(connection)
}

fn read(content: &ContentRef, caches: &Caches, field: &str) -> Result<Vec<u8>, Gap> {
    if let Some(inline) = content.inline() {
        return Ok(inline.to_vec());
    }
    let missing = |what: String, remedy: String, key: bool| Gap::Missing { what, remedy, key };
    let reference = content.secret_reference.as_ref().ok_or_else(|| {
        missing(
            format!("{field} of the DataStore has neither content nor secretReference"),
            "set one of them".into(),
            false,
        )
    })?;
    let name = NamespacedName::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    );
    let secret = match caches.referenced_secrets.get(&name) {
        None if caches.referenced_secrets.is_refused(&name) => {
            return Err(missing(
                format!("Secret {name} may not be read by steward-controller"),
                "name it in dataStoreSecrets of the chart's values".into(),
                false,
            ));
        }
        None => return Err(Gap::Unknown),
        Some(None) => {
            return Err(missing(
                format!("Secret {name} does not exist"),
                format!("create it with the key {}", reference.key_path),
                false,
            ));
        }
        Some(Some(secret)) => secret,
    };
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(&reference.key_path))
        .filter(|value| !value.0.is_empty());
    value.map(|value| value.0.clone()).ok_or_else(|| {
        missing(
            format!("Secret {name} has no key {}", reference.key_path),
            "add the key, or correct keyPath in the DataStore".into(),
            true,
        )
    })
}

/// One connection for each DataStore, shared by all that speak to it.
#[derive(Default)]
pub struct Connections {
    by_uid: Mutex<HashMap<String, Held>>,
}

struct Held {
    fingerprint: u64,
    tenancy: Arc<dyn Tenancy>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The material is incomplete.
    #[error("{0}")]
    Incomplete(String),
    /// The material is complete but of no use.
    #[error(transparent)]
    Refused(#[from] TenancyError),
}

impl Connections {
    /// The connection of a DataStore as it is now.
    pub fn get(
        &self,
        store: &DataStore,
        caches: &Caches,
    ) -> Result<Arc<dyn Tenancy>, ConnectError> {
        let connection = resolve(store, caches).map_err(|gap| match gap {
            Gap::Unknown => ConnectError::Incomplete("the Secrets are still being read".into()),
            Gap::Missing { what, .. } => ConnectError::Incomplete(what),
        })?;
        let uid = store.metadata.uid.clone().unwrap_or_default();
        let fingerprint = fingerprint(&connection);
        let mut held = self.by_uid.lock();
        if let Some(held) = held.get(&uid)
            && held.fingerprint == fingerprint
        {
            return Ok(held.tenancy.clone());
        }
        let tenancy: Arc<dyn Tenancy> = Arc::from(storage::tenancy::connect(connection)?);
        held.insert(
            uid,
            Held {
                fingerprint,
                tenancy: tenancy.clone(),
            },
        );
        Ok(tenancy)
    }

    /// Uses this as the connection of a DataStore as it is now.
    #[cfg(test)]
    pub fn put(&self, store: &DataStore, caches: &Caches, tenancy: Arc<dyn Tenancy>) {
        let Ok(connection) = resolve(store, caches) else {
            panic!("what the connection is made of is not there")
        };
        let held = Held {
            fingerprint: fingerprint(&connection),
            tenancy,
        };
        let uid = store.metadata.uid.clone().unwrap_or_default();
        self.by_uid.lock().insert(uid, held);
    }

    /// Drops the connection, so that the next use makes a new one.
    pub fn drop(&self, uid: &str) {
        self.by_uid.lock().remove(uid);
    }
}

fn fingerprint(connection: &Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    connection.driver.hash(&mut hasher);
    connection.endpoints.hash(&mut hasher);
    connection.ca_pem.hash(&mut hasher);
    connection.client_cert.hash(&mut hasher);
    connection.client_key.hash(&mut hasher);
    connection.username.hash(&mut hasher);
    connection.password.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::concerned::references;
    use k8s_openapi::{ByteString, api::core::v1::Secret};

    fn store() -> DataStore {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "steward.butlerlabs.dev/v1alpha1",
            "kind": "DataStore",
            "metadata": {"name": "default", "uid": "u"},
            "spec": {
                "driver": "etcd",
                "endpoints": ["etcd:2379"],
                "tlsConfig": {
                    "certificateAuthority": {
                        "certificate": {"secretReference": {"name": "s", "namespace": "n", "keyPath": "ca.crt"}},
                        "privateKey": {"secretReference": {"name": "s", "namespace": "n", "keyPath": "ca.key"}},
                    },
                    "clientCertificate": {
                        "certificate": {"secretReference": {"name": "c", "namespace": "n", "keyPath": "tls.crt"}},
                        "privateKey": {"content": "a2V5"},
                    },
                },
            },
        }))
        .unwrap()
    }

    fn secret(keys: &[&str]) -> Arc<Secret> {
        Arc::new(Secret {
            data: Some(
                keys.iter()
                    .map(|key| ((*key).to_owned(), ByteString(b"x".to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        })
    }

    #[test]
    fn references_are_followed_and_what_is_missing_is_named() {
        let caches = Caches::default();
        let store = store();
        let names: Vec<_> = references(&store).into_iter().collect();
        assert_eq!(
            names,
            [NamespacedName::new("n", "c"), NamespacedName::new("n", "s")]
        );
        assert_eq!(resolve(&store, &caches).unwrap_err(), Gap::Unknown);
        caches.referenced_secrets.set(names[1].clone(), None);
        let Err(Gap::Missing { what, .. }) = resolve(&store, &caches) else {
            panic!("a missing Secret is missing")
        };
        assert_eq!(what, "Secret n/s does not exist");
        caches
            .referenced_secrets
            .set(names[1].clone(), Some(secret(&["ca.crt", "ca.key"])));
        caches
            .referenced_secrets
            .set(names[0].clone(), Some(secret(&["other"])));
        let Err(Gap::Missing { what, key, .. }) = resolve(&store, &caches) else {
            panic!("a missing key is missing")
        };
        assert_eq!(what, "Secret n/c has no key tls.crt");
        assert!(key);
        caches
            .referenced_secrets
            .set(names[0].clone(), Some(secret(&["tls.crt"])));
        let connection = resolve(&store, &caches).unwrap();
        assert_eq!(connection.client_key.as_deref(), Some(b"key".as_slice()));
    }
}
