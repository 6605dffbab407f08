//! Datastores, as an administrator's program reaches them.

use apiservice::v1alpha1::{ContentRef, DataStore};
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use storage::tenancy::{self, Connection, Tenancy};

use super::old::Api;
use super::told::Error;
use crate::process::timing;

/// A datastore of the other operator.
pub struct Place {
    pub tenancy: Box<dyn Tenancy>,
    /// Signed its tenants' certificates.
    pub authority: String,
}

impl Place {
    /// The datastore of a translated DataStore.
    pub async fn of(api: &Api, store: &Value) -> Result<Self, Error> {
        let name = store["metadata"]["name"].as_str().unwrap_or_default();
        let refuse = |why: String| Error::Refused(format!("DataStore {name}: {why}"));
        let parsed: DataStore =
            serde_json::from_value(store.clone()).map_err(|error| refuse(error.to_string()))?;
        let spec = &parsed.spec;
        if !spec.driver.is_built() || spec.driver.is_through_kine() {
            let driver = spec.driver.as_str();
            let why = format!("tenants in {driver} cannot be imported yet; only in etcd");
            return Err(refuse(why));
        }
        let Some(tls) = &spec.tls_config else {
            return Err(refuse("it has no spec.tlsConfig".to_owned()));
        };
        let Some(client) = &tls.client_certificate else {
            return Err(refuse("it has no client certificate".to_owned()));
        };
        let authority = read(api, &tls.certificate_authority.certificate).await?;
        let connection = Connection {
            driver: spec.driver.as_str().to_owned(),
            endpoints: spec.driver.endpoints(&spec.endpoints).to_vec(),
            ca_pem: Some(authority.clone()),
            client_cert: Some(read(api, &client.certificate).await?),
            client_key: Some(read(api, &client.private_key).await?),
            username: None,
            password: None,
            deadline: timing::STORE_REQUEST,
        };
        let tenancy = tenancy::connect(connection).map_err(|error| refuse(error.to_string()))?;
        tenancy
            .verify()
            .await
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            tenancy,
            authority: String::from_utf8_lossy(&authority).into_owned(),
        })
    }
}

async fn read(api: &Api, content: &ContentRef) -> Result<Vec<u8>, Error> {
    if let Some(inline) = content.inline() {
        return Ok(inline.to_vec());
    }
    let refuse = |why: &str| Error::Refused(why.to_owned());
    let reference = content.secret_reference.as_ref();
    let reference = reference.ok_or_else(|| refuse("neither content nor secretReference"))?;
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let name = reference.name.as_deref().unwrap_or_default();
    let secret = secret(api, namespace, name).await?;
    let data = secret.and_then(|secret| secret.data);
    let value = data.and_then(|mut data| data.remove(&reference.key_path));
    value.map(|value| value.0).ok_or_else(|| {
        let key = &reference.key_path;
        refuse(&format!("Secret {namespace}/{name} has no key {key}"))
    })
}

/// A Secret, if it is there.
pub async fn secret(api: &Api, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let Some(found) = api.find(&path).await? else {
        return Ok(None);
    };
    serde_json::from_value(found)
        .map(Some)
        .map_err(|error| Error::Refused(format!("Secret {namespace}/{name}: {error}")))
}
