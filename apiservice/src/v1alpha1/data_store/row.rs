//! The row of the kind DataStore.

use std::sync::LazyLock;

use super::rules;
use crate::field::Errors;
use crate::forms::NameRule;
use crate::resource::{Behaviour, Column, Part, Resource, Scope, Subresource, decodes};
use crate::rule::kind_schema;
use crate::schema::{Schema, of_type};
use crate::v1alpha1::{DataStore, DataStoreSpec, DataStoreStatus};

/// The row of this kind.
pub static RESOURCE: Resource = Resource {
    plural: "datastores",
    singular: "datastore",
    kind: "DataStore",
    list_kind: "DataStoreList",
    scope: Scope::Cluster,
    short_names: &[],
    categories: &[],
    name_rule: NameRule::Subdomain,
    columns: &[
        Column {
            name: "Driver",
            json_path: ".spec.driver",
            kind: "string",
            format: "",
            description: "Kind of database",
            priority: 0,
        },
        Column {
            name: "Ready",
            json_path: ".status.ready",
            kind: "boolean",
            format: "",
            description: "Whether tenants can be placed here",
            priority: 0,
        },
        Column {
            name: "Tenants",
            json_path: ".status.tenants",
            kind: "integer",
            format: "int64",
            description: "How many tenants are kept here",
            priority: 0,
        },
        Column {
            name: "Version",
            json_path: ".status.version",
            kind: "string",
            format: "",
            description: "Version of the database",
            priority: 1,
        },
        Column {
            name: "Size",
            json_path: ".status.size",
            kind: "integer",
            format: "int64",
            description: "Bytes of the database, about",
            priority: 1,
        },
        Column {
            name: "Age",
            json_path: ".metadata.creationTimestamp",
            kind: "date",
            format: "",
            description: "Time since the object was created",
            priority: 0,
        },
    ],
    subresources: &[Subresource {
        part: Part::Status,
        kind: "DataStore",
        group: "",
        version: "",
        verbs: &["get", "patch", "update"],
    }],
    behaviour: Behaviour {
        schema: || &SCHEMA,
        decode: decodes::<DataStore>,
        sizes: |_, _| Vec::new(),
        rules: rules::RULES,
        normalize: |_| {},
        check: rules::check,
        check_parts: |_, _| Errors::new(),
        warnings: rules::warnings,
        borrowed: rules::borrowed,
    },
};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    kind_schema(
        "DataStore is a database for tenants.",
        of_type::<DataStoreSpec>(),
        of_type::<DataStoreStatus>(),
        rules::RULES,
    )
    // The schema is the same in every run; a test compiles it.
    .unwrap_or_else(|error| panic!("schema of DataStore: {error}"))
});
