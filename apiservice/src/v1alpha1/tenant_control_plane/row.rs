//! The row of the kind TenantControlPlane.

use std::sync::LazyLock;

use super::{AsSent, access, rules, sizes, warnings};
use crate::forms::NameRule;
use crate::resource::{Behaviour, Column, Part, Resource, ScalePaths, Scope, Subresource, decodes};
use crate::rule::kind_schema;
use crate::schema::{Schema, of_type};
use crate::v1alpha1::{TenantControlPlaneSpec, TenantControlPlaneStatus};

/// The row of this kind.
pub static RESOURCE: Resource = Resource {
    plural: "tenantcontrolplanes",
    singular: "tenantcontrolplane",
    kind: "TenantControlPlane",
    list_kind: "TenantControlPlaneList",
    scope: Scope::Namespaced,
    short_names: &["tcp"],
    categories: &["steward"],
    name_rule: NameRule::ServiceLabel,
    columns: COLUMNS,
    subresources: SUBRESOURCES,
    behaviour: Behaviour {
        schema: || &SCHEMA,
        decode: decodes::<AsSent>,
        sizes: sizes::check,
        rules: rules::RULES,
        normalize: rules::normalize,
        check: rules::check,
        check_parts: rules::check_parts,
        warnings: warnings::warnings,
        borrowed: access::borrowed,
    },
};

const COLUMNS: &[Column] = &[
    column(
        "Version",
        ".spec.kubernetes.version",
        "string",
        "Wanted version of Kubernetes",
    ),
    column(
        "Installed Version",
        ".status.kubernetesResources.version.version",
        "string",
        "Version of Kubernetes that was last ready",
    ),
    column(
        "Status",
        ".status.kubernetesResources.version.status",
        "string",
        "State of the control plane",
    ),
    column(
        "Control-Plane endpoint",
        ".status.controlPlaneEndpoint",
        "string",
        "Where clients reach the API server",
    ),
    column(
        "Kubeconfig",
        ".status.kubeconfig.admin.secretName",
        "string",
        "Secret with the kubeconfig of the administrator",
    ),
    column(
        "Datastore",
        ".status.storage.dataStoreName",
        "string",
        "DataStore in use",
    ),
    column(
        "Reason",
        ".status.conditions[?(@.type==\"Ready\")].reason",
        "string",
        "Why it is Ready, or is not; the condition has the message",
    ),
    column(
        "Age",
        ".metadata.creationTimestamp",
        "date",
        "Time since the object was created",
    ),
];

const SUBRESOURCES: &[Subresource] = &[
    Subresource {
        part: Part::JoinToken,
        kind: "JoinTokenRequest",
        group: "",
        version: "",
        verbs: &["create", "delete", "get"],
    },
    Subresource {
        part: Part::Kubeconfig,
        kind: "KubeconfigRequest",
        group: "",
        version: "",
        verbs: &["create", "get"],
    },
    Subresource {
        part: Part::Migrate,
        kind: "MigrationRequest",
        group: "",
        version: "",
        verbs: &["create", "delete", "get"],
    },
    Subresource {
        part: Part::Scale(ScalePaths {
            spec_replicas: &["spec", "controlPlane", "deployment", "replicas"],
            status_replicas: &["status", "kubernetesResources", "deployment", "replicas"],
            label_selector: &["status", "kubernetesResources", "deployment", "selector"],
        }),
        kind: "Scale",
        group: "autoscaling",
        version: "v1",
        verbs: &["get", "patch", "update"],
    },
    Subresource {
        part: Part::Status,
        kind: "TenantControlPlane",
        group: "",
        version: "",
        verbs: &["get", "patch", "update"],
    },
];

const fn column(
    name: &'static str,
    json_path: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        json_path,
        kind,
        format: "",
        description,
        priority: 0,
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    kind_schema(
        "TenantControlPlane is the control plane of one tenant cluster.",
        of_type::<TenantControlPlaneSpec>(),
        of_type::<TenantControlPlaneStatus>(),
        rules::RULES,
    )
    // The schema is the same in every run; a test compiles it.
    .unwrap_or_else(|error| panic!("schema of TenantControlPlane: {error}"))
});
