//! The OpenAPI v3 document of our group and version (contract 2.5): what
//! `kubectl explain` prints, and how clients learn what the server can do. The v2 document
//! (contract 2.4) says the same to older ones.

mod operations;
mod schemas;
mod v2;

use serde_json::{Value, json};

use crate::resource::Resource;
use crate::{GROUP, VERSION};

pub use schemas::SCALE;

/// The name of the schema of a resource's kind.
pub fn schema_name(resource: &Resource) -> String {
    schemas::own(resource.kind)
}

/// `/openapi/v3/apis/GROUP/VERSION`. The same bytes in every process.
pub fn v3_group_version() -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": format!("{GROUP}/{VERSION}"), "version": VERSION},
        "paths": operations::paths(),
        "components": {"schemas": schemas::schemas()},
    })
}

/// `/openapi/v2`. The same bytes in every process.
pub fn v2() -> Value {
    v2::document(&v3_group_version())
}
