//! `components.schemas`.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::schema::of_type;
use crate::v1alpha1::{
    JoinTokenRequestSpec, JoinTokenRequestStatus, KubeconfigRequestSpec, KubeconfigRequestStatus,
    MigrationRequestSpec, MigrationStatus,
};
use crate::{GROUP, RESOURCES, VERSION};

/// The name of the schema of a Scale.
pub const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// What the status of a request for a credential is.
const GRANTED: &str = "What is granted.";
const PREFIX: &str = "dev.butlerlabs.steward.v1alpha1";

/// The name of a kind of ours among the schemas.
pub(super) fn own(kind: &str) -> String {
    format!("{PREFIX}.{kind}")
}

/// The name of a meta type among the schemas.
pub(super) fn meta(kind: &str) -> String {
    format!("{META}.{kind}")
}

/// The name of `Scale`.
pub(super) fn scale() -> String {
    SCALE.to_owned()
}

/// A reference to a schema.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Every schema, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    add::<ObjectMeta>(&mut all);
    add::<ListMeta>(&mut all);
    add::<Status>(&mut all);
    add::<DeleteOptions>(&mut all);
    add::<Scale>(&mut all);
    merge_types(&mut all);
    kinds_of(&mut all, &meta("Status"), "", "v1", "Status");
    kinds_of(
        &mut all,
        &meta("DeleteOptions"),
        GROUP,
        VERSION,
        "DeleteOptions",
    );
    kinds_of(&mut all, &scale(), "autoscaling", "v1", "Scale");
    all.insert(
        meta("Patch"),
        json!({
            "description": "A change of an object, in the form that the Content-Type names.",
            "type": "object",
        }),
    );
    for resource in RESOURCES {
        all.insert(own(resource.kind), kind(resource));
        all.insert(own(resource.list_kind), list(resource));
    }
    let text = "KubeconfigRequest asks for a kubeconfig with a short-lived certificate.";
    let parts = (
        of_type::<KubeconfigRequestSpec>(),
        of_type::<KubeconfigRequestStatus>(),
    );
    all.insert(
        own("KubeconfigRequest"),
        request("KubeconfigRequest", text, GRANTED, parts),
    );
    let text = "JoinTokenRequest asks for a token with which nodes join the tenant, or lists those that it has.";
    let parts = (
        of_type::<JoinTokenRequestSpec>(),
        of_type::<JoinTokenRequestStatus>(),
    );
    all.insert(
        own("JoinTokenRequest"),
        request("JoinTokenRequest", text, GRANTED, parts),
    );
    let text = "MigrationRequest asks to move the tenant's data to another DataStore, or says how far the last move is.";
    let parts = (
        of_type::<MigrationRequestSpec>(),
        of_type::<MigrationStatus>(),
    );
    all.insert(
        own("MigrationRequest"),
        request("MigrationRequest", text, "How far it is.", parts),
    );
    all
}

/// How the metadata of an object is merged (R5.4), as Kubernetes says it; the types that
/// the schemas are made of do not.
fn merge_types(all: &mut Map<String, Value>) {
    for (kind, field, keyword, value) in [
        (
            "ObjectMeta",
            "finalizers",
            "x-kubernetes-list-type",
            json!("set"),
        ),
        (
            "ObjectMeta",
            "managedFields",
            "x-kubernetes-list-type",
            json!("atomic"),
        ),
        (
            "ObjectMeta",
            "ownerReferences",
            "x-kubernetes-list-type",
            json!("map"),
        ),
        (
            "ObjectMeta",
            "ownerReferences",
            "x-kubernetes-list-map-keys",
            json!(["uid"]),
        ),
        (
            "OwnerReference",
            "",
            "x-kubernetes-map-type",
            json!("atomic"),
        ),
    ] {
        let Some(schema) = all.get_mut(&meta(kind)) else {
            continue;
        };
        match field {
            "" => schema[keyword] = value,
            field => schema["properties"][field][keyword] = value,
        }
    }
}

fn kind(resource: &Resource) -> Value {
    let mut schema = resource.schema().open_api().clone();
    schema["properties"]["metadata"] = object_meta();
    schema["x-kubernetes-group-version-kind"] = gvk(resource.kind);
    schema
}

fn list(resource: &Resource) -> Value {
    let standard = &of_type::<ConfigMap>()["properties"];
    json!({
        "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": standard["apiVersion"],
            "kind": standard["kind"],
            "metadata": json!({"allOf": [reference(&meta("ListMeta"))], "description": "Metadata of the list."}),
            "items": {
                "type": "array",
                "description": format!("The objects of kind {}.", resource.kind),
                "items": reference(&own(resource.kind)),
            },
        },
        "x-kubernetes-group-version-kind": gvk(resource.list_kind),
    })
}

/// A kind that is asked with and not stored: its spec and its status.
fn request(kind: &str, description: &str, answer: &str, (spec, status): (Value, Value)) -> Value {
    let standard = &of_type::<ConfigMap>()["properties"];
    let described = |mut schema: Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    json!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": standard["apiVersion"],
            "kind": standard["kind"],
            "metadata": object_meta(),
            "spec": described(spec, "What is asked for."),
            "status": described(status, answer),
        },
        "x-kubernetes-group-version-kind": gvk(kind),
    })
}

/// The metadata of objects, with the description that it has everywhere.
fn object_meta() -> Value {
    let standard = &of_type::<ConfigMap>()["properties"]["metadata"];
    json!({"allOf": [reference(&meta("ObjectMeta"))], "description": standard["description"]})
}

fn gvk(kind: &str) -> Value {
    json!([{"group": GROUP, "version": VERSION, "kind": kind}])
}

fn kinds_of(all: &mut Map<String, Value>, name: &str, group: &str, version: &str, kind: &str) {
    if let Some(schema) = all.get_mut(name) {
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": group, "version": version, "kind": kind}]);
    }
}

/// A type of Kubernetes and all that it refers to, under Kubernetes' names.
fn add<T: JsonSchema>(all: &mut Map<String, Value>) {
    let root = SchemaSettings::openapi3()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    let Value::Object(mut root) = root else {
        return;
    };
    let definitions = root
        .remove("components")
        .and_then(|mut components| components.get_mut("schemas").map(Value::take));
    root.remove("$schema");
    root.remove("title");
    all.insert(T::schema_name().into_owned(), wrapped(Value::Object(root)));
    if let Some(Value::Object(definitions)) = definitions {
        for (name, schema) in definitions {
            all.insert(name, wrapped(schema));
        }
    }
}

/// OpenAPI 3.0 ignores what stands beside a reference, so a described reference
/// is wrapped, as Kubernetes does.
fn wrapped(schema: Value) -> Value {
    match schema {
        Value::Object(mut fields) => {
            if fields.len() > 1
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
                return Value::Object(fields);
            }
            fields
                .into_iter()
                .map(|(name, value)| (name, wrapped(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(list) => list.into_iter().map(wrapped).collect(),
        other => other,
    }
}
