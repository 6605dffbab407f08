//! The objects of another operator.

use serde_json::Value;

use super::old::{Api, Old};
use super::told::Error;
use crate::args::ImportArgs;

/// What the other operator has.
pub struct Found {
    pub data_stores: Vec<Value>,
    pub tenants: Vec<Value>,
}

impl Found {
    pub async fn read(api: &Api, old: &Old, args: &ImportArgs) -> Result<Self, Error> {
        let Some(file) = &args.file else {
            if old.is_our_group() {
                return Err(Error::Refused(
                    "its objects have our group, and are hidden by our server: they are read \
                     from a file, with --file"
                        .to_owned(),
                ));
            }
            return Ok(Self {
                data_stores: api.list(&old.path("datastores")).await?,
                tenants: api.list(&old.path("tenantcontrolplanes")).await?,
            });
        };
        let unread = |why: String| Error::Refused(format!("{}: {why}", file.display()));
        let text = std::fs::read(file).map_err(|error| unread(error.to_string()))?;
        let list: Value =
            serde_json::from_slice(&text).map_err(|error| unread(error.to_string()))?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let of = |kind: &str| -> Vec<Value> {
            let items = items.iter();
            let items = items.filter(|it| it["kind"] == kind && it["apiVersion"] == old.version());
            items.cloned().collect()
        };
        Ok(Self {
            data_stores: of("DataStore"),
            tenants: of("TenantControlPlane"),
        })
    }
}
