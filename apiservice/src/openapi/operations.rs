//! `paths`: every URL with what can be done there.

use serde_json::{Map, Value, json};

use super::schemas::{meta, own, reference, scale};
use crate::resource::{Resource, Scope, Subresource};
use crate::{GROUP, RESOURCES, VERSION};

/// Every path, by URL.
pub(super) fn paths() -> Map<String, Value> {
    let mut all = Map::new();
    for resource in RESOURCES {
        let root = format!("/apis/{GROUP}/{VERSION}");
        let collection = match resource.scope {
            Scope::Cluster => format!("{root}/{}", resource.plural),
            Scope::Namespaced => {
                let everywhere = format!("{root}/{}", resource.plural);
                all.insert(everywhere, all_namespaces(resource));
                format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
            }
        };
        let object = format!("{collection}/{{name}}");
        for subresource in resource.subresources {
            let path = format!("{object}/{}", subresource.name());
            all.insert(path, part(resource, subresource));
        }
        all.insert(object, one(resource));
        all.insert(collection, many(resource));
    }
    all
}

/// What is said of one operation.
struct Operation<'a> {
    resource: &'a Resource,
    verb: &'a str,
    id: String,
    description: String,
    kind: Value,
    parameters: Vec<Value>,
    /// The schemas of the request's body by media type.
    body: Option<(Vec<&'a str>, String)>,
    /// The schema of the answer.
    answer: String,
    codes: &'a [(&'a str, &'a str)],
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const REPLACED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The subresource of which one of several is taken back, and gone at once.
const JOIN_TOKEN: &str = "jointoken";

/// The media types that objects are read in.
const OBJECTS: &[&str] = &["application/json", "application/yaml"];
/// The patches that are built. A strategic merge patch must not stand here:
/// `kubectl apply` would send it (R2.28).
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

impl Operation<'_> {
    fn value(self) -> Value {
        let content = |types: &[&str], schema: &str| -> Map<String, Value> {
            let types = types.iter();
            types
                .map(|media| ((*media).to_owned(), json!({"schema": reference(schema)})))
                .collect()
        };
        let mut responses = Map::new();
        for (code, description) in self.codes {
            let answer = json!({
                "description": description,
                "content": content(OBJECTS, &self.answer),
            });
            responses.insert((*code).to_owned(), answer);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        let mut value = json!({
            "tags": [tag()],
            "operationId": self.id,
            "description": self.description,
            "parameters": self.parameters,
            "responses": responses,
            "x-kubernetes-action": self.verb,
            "x-kubernetes-group-version-kind": self.kind,
        });
        if let Some((types, schema)) = self.body {
            value["requestBody"] = json!({
                "required": self.verb != "delete" && self.verb != "deletecollection",
                "content": content(&types, &schema),
            });
        }
        debug_assert!(
            RESOURCES
                .iter()
                .any(|one| one.plural == self.resource.plural)
        );
        value
    }
}

fn tag() -> String {
    // stewardButlerlabsDev_v1alpha1, as generated clients name their classes.
    let mut words = GROUP.split('.');
    let mut tag = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        tag.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        tag.push_str(letters.as_str());
    }
    format!("{tag}_{VERSION}")
}

fn gvk(kind: &str) -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": kind})
}

/// `NamespacedTenantControlPlane`, `DataStore`: the kind in operation ids.
fn subject(resource: &Resource) -> String {
    match resource.scope {
        Scope::Cluster => resource.kind.to_owned(),
        Scope::Namespaced => format!("Namespaced{}", resource.kind),
    }
}

fn all_namespaces(resource: &Resource) -> Value {
    let id = format!("list{}ForAllNamespaces", resource.kind);
    let mut path = json!({"get": list(resource, id)});
    path["parameters"] = json!([pretty()]);
    path
}

fn list(resource: &Resource, id: String) -> Value {
    Operation {
        resource,
        verb: "list",
        id,
        description: format!("list or watch objects of kind {}", resource.kind),
        kind: gvk(resource.kind),
        parameters: list_parameters(),
        body: None,
        answer: own(resource.list_kind),
        codes: OK,
    }
    .value()
}

fn many(resource: &Resource) -> Value {
    let subject = subject(resource);
    let mut deletion = list_parameters();
    deletion.retain(|parameter| {
        !["watch", "allowWatchBookmarks"]
            .iter()
            .any(|name| parameter["name"] == *name)
    });
    deletion.extend(delete_parameters());
    json!({
        "parameters": path_parameters(resource, false),
        "get": list(resource, format!("list{subject}")),
        "post": Operation {
            resource,
            verb: "post",
            id: format!("create{subject}"),
            description: format!("create an object of kind {}", resource.kind),
            kind: gvk(resource.kind),
            parameters: write_parameters(),
            body: Some((OBJECTS.to_vec(), own(resource.kind))),
            answer: own(resource.kind),
            codes: CREATED,
        }
        .value(),
        "delete": Operation {
            resource,
            verb: "deletecollection",
            id: format!("deleteCollection{subject}"),
            description: format!("delete a collection of objects of kind {}", resource.kind),
            kind: gvk(resource.kind),
            parameters: deletion,
            body: Some((OBJECTS.to_vec(), meta("DeleteOptions"))),
            answer: meta("Status"),
            codes: OK,
        }
        .value(),
    })
}

fn one(resource: &Resource) -> Value {
    let subject = subject(resource);
    let kind = own(resource.kind);
    let mut path = verbs(
        resource,
        "",
        &["get", "patch", "update"],
        gvk(resource.kind),
        &kind,
    );
    path["delete"] = Operation {
        resource,
        verb: "delete",
        id: format!("delete{subject}"),
        description: format!("delete an object of kind {}", resource.kind),
        kind: gvk(resource.kind),
        parameters: delete_parameters(),
        body: Some((OBJECTS.to_vec(), meta("DeleteOptions"))),
        answer: meta("Status"),
        codes: DELETED,
    }
    .value();
    path
}

fn part(resource: &Resource, subresource: &Subresource) -> Value {
    let (kind, schema) = match subresource.group {
        "" => (gvk(subresource.kind), own(subresource.kind)),
        group => (
            json!({"group": group, "version": subresource.version, "kind": subresource.kind}),
            scale(),
        ),
    };
    verbs(
        resource,
        subresource.name(),
        subresource.verbs,
        kind,
        &schema,
    )
}

/// The operations on one object or on a part of it.
fn verbs(resource: &Resource, part: &str, verbs: &[&str], kind: Value, schema: &str) -> Value {
    let mut suffix = part.to_owned();
    if let Some(first) = suffix.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let subject = format!("{}{suffix}", subject(resource));
    let of = match part {
        "" => format!("an object of kind {}", resource.kind),
        part => format!("{part} of an object of kind {}", resource.kind),
    };
    let mut path = json!({"parameters": path_parameters(resource, true)});
    for verb in verbs {
        let (method, operation) = match *verb {
            "get" => (
                "get",
                Operation {
                    resource,
                    verb: "get",
                    id: format!("read{subject}"),
                    description: format!("read {of}"),
                    kind: kind.clone(),
                    parameters: match part {
                        "" => vec![query(
                            "resourceVersion",
                            "string",
                            "Not older than this version; 0 is any.",
                        )],
                        _ => Vec::new(),
                    },
                    body: None,
                    answer: schema.to_owned(),
                    codes: OK,
                },
            ),
            "update" => (
                "put",
                Operation {
                    resource,
                    verb: "put",
                    id: format!("replace{subject}"),
                    description: format!("replace {of}"),
                    kind: kind.clone(),
                    parameters: write_parameters(),
                    body: Some((OBJECTS.to_vec(), schema.to_owned())),
                    answer: schema.to_owned(),
                    codes: REPLACED,
                },
            ),
            "patch" => (
                "patch",
                Operation {
                    resource,
                    verb: "patch",
                    id: format!("patch{subject}"),
                    description: format!("change {of}"),
                    kind: kind.clone(),
                    parameters: write_parameters()
                        .into_iter()
                        .chain([query(
                            "force",
                            "boolean",
                            "Take fields over from other managers; only with an apply patch.",
                        )])
                        .collect(),
                    body: Some((PATCHES.to_vec(), meta("Patch"))),
                    answer: schema.to_owned(),
                    codes: REPLACED,
                },
            ),
            "create" => (
                "post",
                Operation {
                    resource,
                    verb: "post",
                    id: format!("create{subject}"),
                    description: format!("ask for {of}"),
                    kind: kind.clone(),
                    parameters: write_parameters(),
                    body: Some((OBJECTS.to_vec(), schema.to_owned())),
                    answer: schema.to_owned(),
                    codes: CREATED,
                },
            ),
            "delete" => (
                "delete",
                Operation {
                    resource,
                    verb: "delete",
                    id: format!("delete{subject}"),
                    description: format!("take back {of}"),
                    kind: kind.clone(),
                    parameters: match part {
                        JOIN_TOKEN => vec![
                            dry_run(),
                            query("token", "string", "The id of what is taken back."),
                        ],
                        _ => vec![dry_run()],
                    },
                    body: Some((OBJECTS.to_vec(), meta("DeleteOptions"))),
                    answer: match part {
                        JOIN_TOKEN => meta("Status"),
                        _ => schema.to_owned(),
                    },
                    codes: OK,
                },
            ),
            _ => continue,
        };
        path[method] = operation.value();
    }
    path
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "query", "description": description,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

fn dry_run() -> Value {
    query(
        "dryRun",
        "string",
        "With All, everything is done but stored.",
    )
}

fn pretty() -> Value {
    query("pretty", "string", "If true, the answer is indented.")
}

fn path_parameters(resource: &Resource, named: bool) -> Vec<Value> {
    let parameter = |name: &str, description: &str| {
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let mut all = Vec::new();
    if named {
        all.push(parameter("name", "Name of the object."));
    }
    if resource.scope == Scope::Namespaced {
        all.push(parameter("namespace", "Namespace of the object."));
    }
    all.push(pretty());
    all
}

fn list_parameters() -> Vec<Value> {
    vec![
        query(
            "allowWatchBookmarks",
            "boolean",
            "Send bookmarks in a watch.",
        ),
        query("continue", "string", "Where the page before ended."),
        query(
            "fieldSelector",
            "string",
            "Only objects with these values in fields.",
        ),
        query("labelSelector", "string", "Only objects with these labels."),
        query("limit", "integer", "At most so many objects in a page."),
        query(
            "resourceVersion",
            "string",
            "The version to start from; what it means depends on resourceVersionMatch.",
        ),
        query("resourceVersionMatch", "string", "Exact or NotOlderThan."),
        query(
            "sendInitialEvents",
            "boolean",
            "Begin a watch with the objects that exist, then a bookmark.",
        ),
        query(
            "timeoutSeconds",
            "integer",
            "End the watch after so many seconds.",
        ),
        query(
            "watch",
            "boolean",
            "Send changes as they happen instead of a list.",
        ),
    ]
}

fn write_parameters() -> Vec<Value> {
    vec![
        dry_run(),
        query(
            "fieldManager",
            "string",
            "Who makes the change; at most 128 printable characters.",
        ),
        query(
            "fieldValidation",
            "string",
            "What becomes of unknown and duplicate fields: Ignore, Warn or Strict.",
        ),
    ]
}

fn delete_parameters() -> Vec<Value> {
    vec![
        dry_run(),
        query(
            "gracePeriodSeconds",
            "integer",
            "Seconds until the object goes.",
        ),
        query(
            "orphanDependents",
            "boolean",
            "Deprecated: use propagationPolicy.",
        ),
        query(
            "propagationPolicy",
            "string",
            "What becomes of dependents: Orphan, Background or Foreground.",
        ),
    ]
}
