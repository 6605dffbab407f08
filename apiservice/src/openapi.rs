//! The OpenAPI v3 document of our group and version (contract 2.5): what
//! `kubectl explain` prints, and how clients learn what the server can do.

mod operations;
mod schemas;

use serde_json::{Value, json};

use crate::{GROUP, VERSION};

/// `/openapi/v3/apis/GROUP/VERSION`. The same bytes in every process.
pub fn v3_group_version() -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": format!("{GROUP}/{VERSION}"), "version": VERSION},
        "paths": operations::paths(),
        "components": {"schemas": schemas::schemas()},
    })
}
