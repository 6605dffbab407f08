//! The name of every object, key, label, annotation and finalizer of a tenant.
//!
//! Clients of earlier versions read these objects by name; a name is changed
//! only together with a migration.

use sha2::{Digest, Sha256};

/// Label on every managed object; the value is [`PROJECT`].
pub const LABEL_PROJECT: &str = "steward.butlerlabs.dev/project";
/// Label on every managed object: the name of its TenantControlPlane.
pub const LABEL_NAME: &str = "steward.butlerlabs.dev/name";
/// Label on every managed object: which part of a tenant it is, see [`component`].
pub const LABEL_COMPONENT: &str = "steward.butlerlabs.dev/component";
/// Label on Secrets with certificates: [`LIFECYCLE_X509`] or [`LIFECYCLE_KUBECONFIG`].
pub const LABEL_CERTIFICATE_LIFECYCLE: &str =
    "steward.butlerlabs.dev/certificate_lifecycle_controller";
/// Label on the Secrets that a KubeconfigGenerator writes: what wrote it.
pub const LABEL_MANAGED_BY: &str = "steward.butlerlabs.dev/managed-by";
/// Pod label: the DataStore in use.
pub const LABEL_POD_DATASTORE: &str = "component.steward.butlerlabs.dev/datastore";
/// Prefix of the pod labels with the hash of a Secret, see [`pod_hash_label`].
pub const POD_LABEL_PREFIX: &str = "component.steward.butlerlabs.dev/";

/// The names of all Secrets that a tenant consists of.
pub fn secrets(tenant: &str) -> [String; 14] {
    [
        ca(tenant),
        client_ca(tenant),
        front_proxy_ca(tenant),
        front_proxy_client(tenant),
        service_account(tenant),
        api_server(tenant),
        api_server_kubelet_client(tenant),
        admin_kubeconfig(tenant),
        controller_manager_kubeconfig(tenant),
        scheduler_kubeconfig(tenant),
        datastore_config(tenant),
        datastore_certificate(tenant),
        konnectivity_certificate(tenant),
        konnectivity_kubeconfig(tenant),
    ]
}

/// The names of all ConfigMaps that a tenant consists of.
pub fn config_maps(tenant: &str) -> [String; 2] {
    [
        kubeadm_config(tenant),
        konnectivity_egress_selector_configuration(tenant),
    ]
}

/// Value of [`LABEL_PROJECT`].
pub const PROJECT: &str = "steward";
/// Value of [`LABEL_CERTIFICATE_LIFECYCLE`] for key pairs.
pub const LIFECYCLE_X509: &str = "x509";
/// Value of [`LABEL_CERTIFICATE_LIFECYCLE`] for kubeconfigs.
pub const LIFECYCLE_KUBECONFIG: &str = "kubeconfig";

/// Annotation on each Secret and ConfigMap: a checksum of its values in key order.
pub const ANNOTATION_CHECKSUM: &str = "steward.butlerlabs.dev/checksum";
/// Annotation on the Secrets with a tenant's authorities and signing keys: the version of
/// Kubernetes that last ran with them, empty as long as none has.
pub const ANNOTATION_RAN: &str = "steward.butlerlabs.dev/ran";
/// Annotation on managed objects: a hash of what was last applied.
pub const ANNOTATION_APPLIED: &str = "steward.butlerlabs.dev/applied";
/// Annotation of the Deployment: a hash of the pod template that was last applied.
pub const ANNOTATION_TEMPLATE: &str = "steward.butlerlabs.dev/template";
/// Annotation of the Deployment: the tenant's generation for which its template was
/// last changed.
pub const ANNOTATION_GENERATION: &str = "steward.butlerlabs.dev/generation";
/// Annotation of the Deployment: a fingerprint of the DataStore's settings that its
/// pods run with.
pub const ANNOTATION_DATA_STORE: &str = "steward.butlerlabs.dev/datastore";
/// Annotation of the Deployment: the DataStore in use, where its name is too long for
/// [`LABEL_POD_DATASTORE`]. Of a Secret with credentials for an override: its DataStore.
pub const ANNOTATION_DATA_STORE_NAME: &str = "steward.butlerlabs.dev/datastore-name";
/// Annotation of the Deployment: when its pods were last rolled for a reason other than
/// the tenant's spec, and whether it was ready, not ready or down then.
pub const ANNOTATION_ROLL: &str = "steward.butlerlabs.dev/roll";
/// Annotation of a Deployment: when the first of the certificates ends that its pods
/// have been made with.
pub const ANNOTATION_CERTIFICATES_END: &str = "steward.butlerlabs.dev/certificates-end";
/// Annotation of a tenant: its uid, if it may begin with an empty database although it
/// was Ready before (rule 17).
pub const ANNOTATION_START_EMPTY: &str = "steward.butlerlabs.dev/start-empty";
/// Annotation of a tenant: names of Secrets, with commas, whose lost keys may
/// be made anew (rule 19).
pub const ANNOTATION_REPLACE_LOST_KEYS: &str = "steward.butlerlabs.dev/replace-lost-keys";
/// On a new object: the uid that it is to have, from who brings objects of another operator and
/// may `import` the kind. It is not stored.
pub const ANNOTATION_IMPORT_UID: &str = "steward.butlerlabs.dev/import-uid";
/// Annotation that, present with any value, stops the reconciliation of its object.
pub const ANNOTATION_PAUSED: &str = "steward.butlerlabs.dev/paused";
/// Annotation of a tenant: the key of the admin Secret that reaches the tenant.
pub const ANNOTATION_KUBECONFIG_SECRET_KEY: &str = "steward.butlerlabs.dev/kubeconfig-secret-key";
/// Annotation of a tenant: drop what the target of a migration holds.
pub const ANNOTATION_CLEANUP_PRIOR_MIGRATION: &str =
    "steward.butlerlabs.dev/cleanup-prior-migration";
/// Annotation of a tenant: how long a migration may take.
pub const ANNOTATION_MIGRATION_TIMEOUT: &str = "steward.butlerlabs.dev/migration-timeout";
/// Annotation of a tenant: how long a DataStore keeps its copy of what was moved
/// elsewhere (a Go duration, [`MIGRATION_SOURCE_RETENTION`] without it).
pub const ANNOTATION_MIGRATION_SOURCE_RETENTION: &str =
    "steward.butlerlabs.dev/migration-source-retention";
/// See [`ANNOTATION_MIGRATION_SOURCE_RETENTION`].
pub const MIGRATION_SOURCE_RETENTION: std::time::Duration =
    std::time::Duration::from_secs(24 * 60 * 60);
/// Annotation of a Secret: empty asks for rotation, then the time it was done.
pub const ANNOTATION_ROTATE: &str = "certs.steward.butlerlabs.dev/rotate";
/// Annotation of a Secret with certificates: the checksum of its values, if they were made
/// anew for a reason of this tenant alone. Pods do not wait for their turn to be given them.
pub const ANNOTATION_OWN_CAUSE: &str = "certs.steward.butlerlabs.dev/own-cause";
/// Annotation of the Deployment: a hash of the API server's extra arguments.
pub const ANNOTATION_API_SERVER_ARGS: &str = "kube-apiserver.steward.butlerlabs.dev/args";
/// Pod annotation: the checksum of the datastore credentials, so that pods roll.
pub const ANNOTATION_STORAGE_CONFIG: &str = "storage.steward.butlerlabs.dev/config";
/// Pod annotation: the checksum of the datastore certificate, so that pods roll.
pub const ANNOTATION_STORAGE_CERTIFICATE: &str = "storage.steward.butlerlabs.dev/certificate";

/// Pod annotation: when an empty database was made in place of one that was lost, so that
/// nobody goes on with what was in it.
pub const ANNOTATION_STORAGE_BEGUN: &str = "storage.steward.butlerlabs.dev/begun";

/// Finalizer of a tenant: its data and user in the datastore.
pub const FINALIZER: &str = "finalizer.steward.butlerlabs.dev";
/// Finalizer of a DataStore that a tenant uses.
pub const FINALIZER_DATA_STORE: &str = "steward.butlerlabs.dev/TenantControlPlane";

/// Group of minted certificates with all rights in the tenant (rule 12).
pub const GROUP_ADMIN: &str = "steward:admin";
/// Group of minted certificates that may only read (rule 12).
pub const GROUP_VIEW: &str = "steward:view";
/// Group of the certificates with which our API server makes and removes tokens for
/// joining nodes; it may do nothing else in the tenant.
pub const GROUP_JOIN_TOKENS: &str = "steward:join-tokens";
/// The user in those certificates.
pub const USER_JOIN_TOKENS: &str = "steward:apiserver";
/// Group of the certificates with which our controller approves nodes' requests for
/// serving certificates; it may do nothing else in the tenant.
pub const GROUP_SERVING_CERTIFICATES: &str = "steward:serving-certificates";
/// The user as whom our controller probes, and approves those requests.
pub const USER_CONTROLLER: &str = "steward:controller";
/// The user as whom our controller writes in tenants.
pub const USER_BOOTSTRAP: &str = "steward:bootstrap";
/// Users of Steward's own in tenants: nobody is given a certificate of one.
pub const OWN_USERS: [&str; 3] = [USER_JOIN_TOKENS, USER_CONTROLLER, USER_BOOTSTRAP];
/// On a token for joining nodes: the user of the management cluster that asked for it.
pub const ANNOTATION_REQUESTED_BY: &str = "steward.butlerlabs.dev/requested-by";
/// Namespace in a tenant of its tokens for joining nodes.
pub const TOKEN_NAMESPACE: &str = "kube-system";
/// Group of the `admin.conf` user; bound in the tenant at bootstrap (rule 16).
pub const GROUP_KUBEADM_CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";
/// Prefix of the common name in minted certificates; the caller's name follows.
pub const MINTED_USER_PREFIX: &str = "steward:";

/// On an object that the probe writes inside the tenant: when.
pub const ANNOTATION_PROBED: &str = "steward.butlerlabs.dev/probed";
/// Namespace inside the tenant in which the probe of Ready works (rule 15).
pub const PROBE_NAMESPACE: &str = "steward-probe";

/// The container port, Service port and probe name of the API server.
pub const PORT_API_SERVER: &str = "kube-apiserver";
/// The Service port at which clients of before still come while the port changes.
pub const PORT_API_SERVER_FORMER: &str = "kube-apiserver-former";
/// The port name of the konnectivity server.
pub const PORT_KONNECTIVITY: &str = "konnectivity-server";

/// User of a konnectivity server in its tenant, and the audience of the tokens that
/// agents show it.
pub const KONNECTIVITY_SERVER: &str = "system:konnectivity-server";
/// The agents in a tenant, and their ServiceAccount; in `kube-system`.
pub const KONNECTIVITY_AGENT: &str = "konnectivity-agent";

/// Names of the containers that we put into a tenant's pods.
pub mod container {
    /// The API server.
    pub const API_SERVER: &str = "kube-apiserver";
    /// The controller manager.
    pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
    /// The scheduler.
    pub const SCHEDULER: &str = "kube-scheduler";
    /// The etcd shim over SQL and NATS.
    pub const KINE: &str = "kine";
    /// What brings the API server's connections to the etcd of an override.
    pub const RELAY: &str = "etcd-relay";
    /// The konnectivity server.
    pub const KONNECTIVITY: &str = "konnectivity-server";
    /// The trustd sidecar.
    pub const TRUSTD: &str = "steward-trustd";
    /// The init container that hands keys to kine.
    pub const CHMOD: &str = "chmod";
    /// All of them; a user's containers may not have these names.
    pub const ALL: &[&str] = &[
        API_SERVER,
        CONTROLLER_MANAGER,
        SCHEDULER,
        KINE,
        RELAY,
        KONNECTIVITY,
        TRUSTD,
        CHMOD,
    ];
}

/// Names of the volumes that we put into a tenant's pods.
pub mod volume {
    /// Certificates and keys.
    pub const PKI: &str = "etc-kubernetes-pki";
    /// Keys that only the controller manager needs, to sign with.
    pub const SIGNING_PKI: &str = "etc-kubernetes-signing-pki";
    /// The scheduler's kubeconfig.
    pub const SCHEDULER_KUBECONFIG: &str = "scheduler-kubeconfig";
    /// The controller manager's kubeconfig.
    pub const CONTROLLER_MANAGER_KUBECONFIG: &str = "controller-manager-kubeconfig";
    /// The socket between API server and konnectivity server.
    pub const KONNECTIVITY_SOCKET: &str = "konnectivity-uds";
    /// What sends the API server's connections into the tunnel.
    pub const EGRESS_SELECTOR: &str = "egress-selector-configuration";
    /// The konnectivity server's kubeconfig.
    pub const KONNECTIVITY_KUBECONFIG: &str = "konnectivity-server-kubeconfig";
    /// What the konnectivity server shows to agents.
    pub const KONNECTIVITY_CERTIFICATE: &str = "konnectivity-server-certificate";
    /// The socket between API server and kine.
    pub const KINE_SOCKET: &str = "kine-uds";
    /// Authority and client certificate with which kine reaches the database.
    pub const KINE_CERTIFICATES: &str = "kine-certs";
    /// The file with which kine enters the tenant's account in NATS.
    pub const KINE_CREDENTIALS: &str = "kine-credentials";
    /// Authority and client certificate with which the etcd of an override is reached.
    pub const RELAY_CERTIFICATES: &str = "etcd-relay-certs";
    /// All names in use, those of parts that are not built yet included.
    pub const ALL: &[&str] = &[
        PKI,
        SIGNING_PKI,
        SCHEDULER_KUBECONFIG,
        CONTROLLER_MANAGER_KUBECONFIG,
        KONNECTIVITY_SOCKET,
        EGRESS_SELECTOR,
        KONNECTIVITY_KUBECONFIG,
        KONNECTIVITY_CERTIFICATE,
        "etc-ca-certificates",
        "usr-share-ca-certificates",
        "usr-local-share-ca-certificates",
        KINE_SOCKET,
        "kine-config",
        KINE_CERTIFICATES,
        KINE_CREDENTIALS,
        RELAY_CERTIFICATES,
        "trustd-creds",
    ];
}

/// Values of [`LABEL_COMPONENT`]: the part of a tenant that an object is.
pub mod component {
    /// The Service.
    pub const SERVICE: &str = "service";
    /// The cluster authority.
    pub const CA: &str = "ca";
    /// The authority of minted user certificates.
    pub const CLIENT_CA: &str = "client-ca";
    /// The front-proxy authority.
    pub const FRONT_PROXY_CA: &str = "front-proxy-ca-certificate";
    /// The front-proxy client.
    pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client-certificate";
    /// The service-account keys.
    pub const SERVICE_ACCOUNT: &str = "sa-certificate";
    /// The API server's serving certificate.
    pub const API_SERVER: &str = "api-server-certificate";
    /// The API server's client certificate towards kubelets.
    pub const API_SERVER_KUBELET_CLIENT: &str = "api-server-kubelet-client-certificate";
    /// The admin kubeconfigs.
    pub const ADMIN_KUBECONFIG: &str = "admin-kubeconfig";
    /// The controller manager's kubeconfig.
    pub const CONTROLLER_MANAGER_KUBECONFIG: &str = "controller-manager-kubeconfig";
    /// The scheduler's kubeconfig.
    pub const SCHEDULER_KUBECONFIG: &str = "scheduler-kubeconfig";
    /// The kubeadm configuration.
    pub const KUBEADM_CONFIG: &str = "kubeadmconfig";
    /// The datastore credentials.
    pub const DATASTORE_CONFIG: &str = "datastore-config";
    /// The datastore certificate.
    pub const DATASTORE_CERTIFICATE: &str = "datastore-certificate";
    /// The konnectivity server's client certificate.
    pub const KONNECTIVITY_CERTIFICATE: &str = "konnectivity-certificate";
    /// The konnectivity server's kubeconfig.
    pub const KONNECTIVITY_KUBECONFIG: &str = "konnectivity-kubeconfig";
    /// What sends the API server's connections into the tunnel.
    pub const EGRESS_SELECTOR: &str = "konnectivity-egress-selector-configuration";
    /// The workload.
    pub const DEPLOYMENT: &str = "deployment";
    /// The Ingress.
    pub const INGRESS: &str = "ingress";
    /// The route of Traefik that stands in for an Ingress.
    pub const TRAEFIK_ROUTE: &str = "traefik-ingressroutetcp";
    /// The route of the Gateway API for clients.
    pub const GATEWAY_ROUTES: &str = "gateway_routes";
    /// The one for the tunnel's agents.
    pub const KONNECTIVITY_GATEWAY_ROUTES: &str = "konnectivity_gateway_routes";
}

/// Keys of the Secrets and ConfigMaps.
pub mod key {
    /// `<tcp>-ca`, `<tcp>-client-ca`, `<tcp>-datastore-certificate`: the authority.
    pub const CA_CRT: &str = "ca.crt";
    /// `<tcp>-ca`, `<tcp>-client-ca`: the authority's key.
    pub const CA_KEY: &str = "ca.key";
    /// `<tcp>-client-ca`: the cluster authority, for minted kubeconfigs.
    pub const SERVER_CA_CRT: &str = "server-ca.crt";
    /// `<tcp>-client-ca`: cluster and user authority, the API server's
    /// `--client-ca-file`.
    pub const CLIENT_CA_BUNDLE_CRT: &str = "bundle.crt";
    /// `<tcp>-ca`: a copy of [`CA_CRT`], which Cluster API reads;
    /// `<tcp>-konnectivity-certificate`.
    pub const TLS_CRT: &str = "tls.crt";
    /// `<tcp>-ca`: a copy of [`CA_KEY`], which Cluster API reads;
    /// `<tcp>-konnectivity-certificate`.
    pub const TLS_KEY: &str = "tls.key";
    /// `<tcp>-front-proxy-ca-certificate`.
    pub const FRONT_PROXY_CA_CRT: &str = "front-proxy-ca.crt";
    /// `<tcp>-front-proxy-ca-certificate`.
    pub const FRONT_PROXY_CA_KEY: &str = "front-proxy-ca.key";
    /// `<tcp>-front-proxy-client-certificate`.
    pub const FRONT_PROXY_CLIENT_CRT: &str = "front-proxy-client.crt";
    /// `<tcp>-front-proxy-client-certificate`.
    pub const FRONT_PROXY_CLIENT_KEY: &str = "front-proxy-client.key";
    /// `<tcp>-sa-certificate`: the public key.
    pub const SA_PUB: &str = "sa.pub";
    /// `<tcp>-sa-certificate`: the private key.
    pub const SA_KEY: &str = "sa.key";
    /// `<tcp>-api-server-certificate`.
    pub const API_SERVER_CRT: &str = "apiserver.crt";
    /// `<tcp>-api-server-certificate`.
    pub const API_SERVER_KEY: &str = "apiserver.key";
    /// `<tcp>-api-server-kubelet-client-certificate`.
    pub const API_SERVER_KUBELET_CLIENT_CRT: &str = "apiserver-kubelet-client.crt";
    /// `<tcp>-api-server-kubelet-client-certificate`.
    pub const API_SERVER_KUBELET_CLIENT_KEY: &str = "apiserver-kubelet-client.key";
    /// `<tcp>-admin-kubeconfig`: for use from outside, bound by RBAC.
    pub const ADMIN_CONF: &str = "admin.conf";
    /// `<tcp>-admin-kubeconfig`: for use inside the management cluster.
    pub const ADMIN_SVC: &str = "admin.svc";
    /// `<tcp>-admin-kubeconfig`: for use from outside, beyond RBAC.
    pub const SUPER_ADMIN_CONF: &str = "super-admin.conf";
    /// `<tcp>-admin-kubeconfig`: beyond RBAC, inside the management cluster.
    pub const SUPER_ADMIN_SVC: &str = "super-admin.svc";
    /// `<tcp>-controller-manager-kubeconfig`.
    pub const CONTROLLER_MANAGER_CONF: &str = "controller-manager.conf";
    /// `<tcp>-scheduler-kubeconfig`.
    pub const SCHEDULER_CONF: &str = "scheduler.conf";
    /// `<tcp>-datastore-config`: where the store is; empty for etcd.
    pub const DB_CONNECTION_STRING: &str = "DB_CONNECTION_STRING";
    /// `<tcp>-datastore-config`: database or etcd prefix.
    pub const DB_SCHEMA: &str = "DB_SCHEMA";
    /// `<tcp>-datastore-config`: the tenant's user.
    pub const DB_USER: &str = "DB_USER";
    /// `<tcp>-datastore-config`: the user's password.
    pub const DB_PASSWORD: &str = "DB_PASSWORD";
    /// `<tcp>-datastore-config`, with NATS only: the file with which kine enters the tenant's
    /// account.
    pub const NATS_CREDENTIALS: &str = "nats.creds";
    /// `<tcp>-konnectivity-kubeconfig`.
    pub const KONNECTIVITY_SERVER_CONF: &str = "konnectivity-server.conf";
    /// `<tcp>-konnectivity-egress-selector-configuration`.
    pub const EGRESS_SELECTOR: &str = "egress-selector-configuration.yaml";
    /// `<tcp>-kubeadmconfig`.
    pub const INIT_CONFIGURATION: &str = "InitConfiguration";
    /// `<tcp>-kubeadmconfig`.
    pub const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";
    /// `<tcp>-datastore-certificate`.
    pub const DATASTORE_CRT: &str = "server.crt";
    /// `<tcp>-datastore-certificate`.
    pub const DATASTORE_KEY: &str = "server.key";

    /// All of them.
    pub const ALL: [&str; 33] = [
        INIT_CONFIGURATION,
        CLUSTER_CONFIGURATION,
        CA_CRT,
        CA_KEY,
        SERVER_CA_CRT,
        CLIENT_CA_BUNDLE_CRT,
        TLS_CRT,
        TLS_KEY,
        FRONT_PROXY_CA_CRT,
        FRONT_PROXY_CA_KEY,
        FRONT_PROXY_CLIENT_CRT,
        FRONT_PROXY_CLIENT_KEY,
        SA_PUB,
        SA_KEY,
        API_SERVER_CRT,
        API_SERVER_KEY,
        API_SERVER_KUBELET_CLIENT_CRT,
        API_SERVER_KUBELET_CLIENT_KEY,
        ADMIN_CONF,
        ADMIN_SVC,
        SUPER_ADMIN_CONF,
        SUPER_ADMIN_SVC,
        CONTROLLER_MANAGER_CONF,
        SCHEDULER_CONF,
        DB_CONNECTION_STRING,
        DB_SCHEMA,
        DB_USER,
        DB_PASSWORD,
        NATS_CREDENTIALS,
        KONNECTIVITY_SERVER_CONF,
        EGRESS_SELECTOR,
        DATASTORE_CRT,
        DATASTORE_KEY,
    ];
}

/// The Service, Deployment and Ingress of a tenant.
pub fn workload(tenant: &str) -> String {
    tenant.to_owned()
}

/// Secret with the cluster authority.
pub fn ca(tenant: &str) -> String {
    format!("{tenant}-ca")
}

/// Secret with the authority that signs minted user certificates (rule 13).
pub fn client_ca(tenant: &str) -> String {
    format!("{tenant}-client-ca")
}

/// Secret with the front-proxy authority.
pub fn front_proxy_ca(tenant: &str) -> String {
    format!("{tenant}-front-proxy-ca-certificate")
}

/// Secret with the front-proxy client certificate.
pub fn front_proxy_client(tenant: &str) -> String {
    format!("{tenant}-front-proxy-client-certificate")
}

/// Secret with the service-account keys.
pub fn service_account(tenant: &str) -> String {
    format!("{tenant}-sa-certificate")
}

/// Secret with the API server's serving certificate.
pub fn api_server(tenant: &str) -> String {
    format!("{tenant}-api-server-certificate")
}

/// Secret with the API server's client certificate towards kubelets.
pub fn api_server_kubelet_client(tenant: &str) -> String {
    format!("{tenant}-api-server-kubelet-client-certificate")
}

/// Secret with the admin kubeconfigs.
pub fn admin_kubeconfig(tenant: &str) -> String {
    format!("{tenant}-admin-kubeconfig")
}

/// Secret with the controller manager's kubeconfig.
pub fn controller_manager_kubeconfig(tenant: &str) -> String {
    format!("{tenant}-controller-manager-kubeconfig")
}

/// Secret with the scheduler's kubeconfig.
pub fn scheduler_kubeconfig(tenant: &str) -> String {
    format!("{tenant}-scheduler-kubeconfig")
}

/// ConfigMap with the kubeadm configuration.
pub fn kubeadm_config(tenant: &str) -> String {
    format!("{tenant}-kubeadmconfig")
}

/// Secret with the tenant's datastore credentials.
pub fn datastore_config(tenant: &str) -> String {
    format!("{tenant}-datastore-config")
}

/// Secret with the tenant's datastore certificate.
pub fn datastore_certificate(tenant: &str) -> String {
    format!("{tenant}-datastore-certificate")
}

/// What names of a tenant's parts for an override end with: eight digits that stand for the
/// DataStore, whose name may be longer than they can be.
pub fn override_mark(data_store: &str) -> String {
    let digest = Sha256::digest(data_store);
    digest
        .iter()
        .take(4)
        .map(|it| format!("{it:02x}"))
        .collect()
}

/// Secret with the tenant's credentials for the DataStore of an override.
pub fn override_config(tenant: &str, mark: &str) -> String {
    format!("{}-{mark}", datastore_config(tenant))
}

/// Secret with the tenant's certificate for the DataStore of an override.
pub fn override_certificate(tenant: &str, mark: &str) -> String {
    format!("{}-{mark}", datastore_certificate(tenant))
}

/// Whether a Secret of this name is of an override of this tenant.
pub fn is_of_override(tenant: &str, secret: &str) -> bool {
    let Some((of, mark)) = secret.rsplit_once('-') else {
        return false;
    };
    let digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
    mark.len() == 8
        && mark.bytes().all(digit)
        && (of == datastore_config(tenant) || of == datastore_certificate(tenant))
}

/// Secret with the konnectivity server's client certificate.
pub fn konnectivity_certificate(tenant: &str) -> String {
    format!("{tenant}-konnectivity-certificate")
}

/// Secret with the konnectivity server's kubeconfig.
pub fn konnectivity_kubeconfig(tenant: &str) -> String {
    format!("{tenant}-konnectivity-kubeconfig")
}

/// ConfigMap that sends the API server's connections into the tunnel.
pub fn konnectivity_egress_selector_configuration(tenant: &str) -> String {
    format!("{tenant}-konnectivity-egress-selector-configuration")
}

/// The type of the Secret with this [part](component) of a tenant.
pub fn secret_type(component: &str) -> &'static str {
    match component {
        component::KONNECTIVITY_CERTIFICATE => "kubernetes.io/tls",
        _ => "Opaque",
    }
}

/// Role and RoleBinding with which our API server may read the one signing
/// Secret of a tenant (rule 13).
pub fn kubeconfig_signer(tenant: &str) -> String {
    format!("{tenant}-kubeconfig-signer")
}

/// The route by which the tunnel's agents find its servers.
pub fn konnectivity_route(tenant: &str) -> String {
    format!("{tenant}-konnectivity")
}

/// Pod label that carries the hash of a Secret, so that pods roll with it.
/// `part` is the Secret's name without the tenant's, as features 1.7 lists it.
pub fn pod_hash_label(part: &str) -> String {
    format!("{POD_LABEL_PREFIX}{part}")
}

/// DNS name of a tenant's Service inside the management cluster.
pub fn service_host(tenant: &str, namespace: &str) -> String {
    format!("{tenant}.{namespace}.svc")
}

/// The schema (database, bucket, etcd prefix) of a tenant that names none:
/// `<namespace>_<name>` with `-` turned into `_`.
///
/// Two tenants can have the same default (`a-b/c` and `a/b-c`); the claim in
/// the datastore decides (rule 17).
pub fn default_schema(namespace: &str, tenant: &str) -> String {
    format!("{namespace}_{tenant}").replace('-', "_")
}

/// How long the names may be that a database knows a tenant by, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    /// Of a database, bucket or key prefix.
    pub schema: usize,
    /// Of a user; 32 at least, which is what a uid takes.
    pub user: usize,
}

/// [`default_schema`], shortened where a database does not take as many bytes: its
/// beginning, for people, and a hash of the whole.
pub fn schema_within(namespace: &str, tenant: &str, limits: NameLimits) -> String {
    let whole = default_schema(namespace, tenant);
    if whole.len() <= limits.schema {
        return whole;
    }
    let digest = Sha256::digest(format!("{namespace}/{tenant}"));
    let hash: String = digest
        .iter()
        .take(8)
        .map(|it| format!("{it:02x}"))
        .collect();
    let room = limits.schema.saturating_sub(hash.len() + 1);
    format!("{}_{hash}", &whole[..whole.floor_char_boundary(room)])
}

/// The datastore user of the tenant with this uid: the beginning of `given`, for
/// people, and the uid.
///
/// Nobody chooses a uid, so nobody can have had this user before: what was signed for
/// another tenant opens nothing of this one, neither for one that was deleted under its
/// name nor for one of another namespace that was given the same name beforehand.
pub fn user(given: &str, uid: &str, limits: NameLimits) -> String {
    let uid = uid.replace('-', "");
    let room = limits.user.saturating_sub(uid.len() + 1);
    let given = &given[..given.floor_char_boundary(room)];
    match given.is_empty() {
        true => uid,
        false => format!("{given}_{uid}"),
    }
}

/// The datastore user of a tenant that names none: as if it were given its schema.
pub fn default_user(namespace: &str, tenant: &str, uid: &str, limits: NameLimits) -> String {
    user(&default_schema(namespace, tenant), uid, limits)
}

/// Whether the key of a label or an annotation is Steward's: its prefix is our domain or
/// one below it. What such keys say is believed, so nobody else's are put on our objects.
pub fn is_ours(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let part = domain.strip_suffix(crate::GROUP);
    part.is_some_and(|part| part.is_empty() || part.ends_with('.'))
}

/// The three labels of every managed object.
pub fn labels(tenant: &str, component: &str) -> std::collections::BTreeMap<String, String> {
    [
        (LABEL_PROJECT, PROJECT),
        (LABEL_NAME, tenant),
        (LABEL_COMPONENT, component),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_collide_where_the_datastore_must_decide() {
        assert_eq!(default_schema("a-b", "c"), default_schema("a", "b-c"));
        assert_eq!(default_schema("tenants", "tenant-1"), "tenants_tenant_1");
    }

    const ETCD: NameLimits = NameLimits {
        schema: 255,
        user: 63,
    };
    const MYSQL: NameLimits = NameLimits {
        schema: 63,
        user: 32,
    };

    #[test]
    fn a_user_is_never_that_of_the_tenant_before() {
        let uid = "3d0c0a5e-0000-4000-8000-000000000001";
        let user = default_user("tenants", "tenant-1", uid, ETCD);
        assert_eq!(user, "tenants_tenant_1_3d0c0a5e000040008000000000000001");
        let (long, next) = ("n".repeat(63), uid.replace('1', "2"));
        for uid in [uid, &next] {
            let user = default_user(&long, &long, uid, ETCD);
            assert_eq!(user.len(), ETCD.user);
            assert!(user.ends_with(&uid.replace('-', "")), "{user}");
            let user = default_user(&long, &long, uid, MYSQL);
            assert_eq!(user, uid.replace('-', ""), "MySQL has room for no more");
        }
    }

    #[test]
    fn a_schema_that_is_too_long_is_told_apart_by_a_hash() {
        assert_eq!(
            schema_within("tenants", "tenant-1", MYSQL),
            "tenants_tenant_1"
        );
        let long = "n".repeat(63);
        assert_eq!(schema_within(&long, "a-b", ETCD), format!("{long}_a_b"));
        let schemas = ["a-b", "a-c"].map(|name| schema_within(&long, name, MYSQL));
        assert_ne!(schemas[0], schemas[1]);
        for schema in schemas {
            assert_eq!(schema.len(), MYSQL.schema, "{schema}");
            assert!(schema.starts_with("nnn"), "{schema}");
        }
    }

    /// A name that anybody may give beforehand, also one that looks like a user.
    #[test]
    fn two_uids_never_share_a_user() {
        let uids = ["1", "2"].map(|end| format!("3d0c0a5e-0000-4000-8000-00000000000{end}"));
        let [one, other] = uids.each_ref().map(String::as_str);
        assert_eq!(
            user("b_shop", one, ETCD),
            "b_shop_3d0c0a5e000040008000000000000001"
        );
        for limits in [ETCD, MYSQL] {
            let like_other = user("b_shop", other, limits);
            for given in ["b_shop", "", "é", &like_other, &"é".repeat(127)] {
                let [mine, theirs] = [user(given, one, limits), user(given, other, limits)];
                assert_ne!(mine, theirs);
                assert_ne!(mine, like_other, "given {given}");
                assert!(mine.len() <= limits.user, "{mine}");
            }
        }
    }
}
