//! Every condition type and reason, and the rule by which conditions merge.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types of a TenantControlPlane.
pub mod tenant {
    /// A probe through the published endpoint reads, writes and watches (rule 15).
    pub const READY: &str = "Ready";
    /// What serves is not yet what this generation of the spec asks for.
    pub const PROGRESSING: &str = "Progressing";
    /// The same under the name that kstatus reads.
    pub const RECONCILING: &str = "Reconciling";
    /// The published endpoint answers from where the controller stands.
    pub const ENDPOINT_REACHABLE: &str = "EndpointReachable";
    /// The datastore is there, is ours to use, and holds our claim (rule 17).
    pub const DATA_STORE_READY: &str = "DataStoreReady";
    /// The tenant's data is on its way to another DataStore. Absent unless it ever was.
    pub const MIGRATING: &str = "Migrating";
    /// The tenant has less in its DataStore than each tenant may have there; False leaves
    /// Ready alone. Absent without such a limit.
    pub const STORAGE_WITHIN_LIMITS: &str = "StorageWithinLimits";
    /// All authorities, certificates, keys and kubeconfigs are there and valid.
    pub const CERTIFICATES_READY: &str = "CertificatesReady";
    /// The tenant's own webhooks, policies and quotas let the probe write; False
    /// leaves Ready alone (rule 15).
    pub const WRITES_ADMITTED: &str = "WritesAdmitted";
    /// What nodes need to join, and the add-ons, are in the tenant's API; False leaves
    /// Ready alone.
    pub const CLUSTER_CONFIGURED: &str = "ClusterConfigured";
    /// The Service has an address to publish.
    pub const ADDRESS_ASSIGNED: &str = "AddressAssigned";
    /// What leads clients to the tenant by its name, an Ingress or a route of the Gateway
    /// API, is there and was taken by whom it asks. Absent unless one of them is asked for.
    pub const EXPOSED: &str = "Exposed";
    /// At least one replica serves.
    pub const WORKLOAD_AVAILABLE: &str = "WorkloadAvailable";
    /// Every wanted replica serves; False leaves Ready alone (rule 15).
    pub const REPLICAS_AVAILABLE: &str = "ReplicasAvailable";
    /// All that the spec asks for is acted upon (rule 9).
    pub const SPEC_SUPPORTED: &str = "SpecSupported";
    /// Nobody else owns or fights over our objects (rule 20).
    pub const OBJECTS_OWNED: &str = "ObjectsOwned";
    /// Reconciliation is stopped by the pause annotation.
    pub const PAUSED: &str = "Paused";
    /// The deletion waits for something.
    pub const DELETION_BLOCKED: &str = "DeletionBlocked";
}

/// Condition types of a DataStore.
pub mod data_store {
    /// Tenants can be placed here: all of the conditions below hold.
    pub const READY: &str = "Ready";
    /// The referenced Secrets exist and their content parses.
    pub const VALID: &str = "DataStoreValidation";
    /// An endpoint answers.
    pub const REACHABLE: &str = "Reachable";
    /// Our credentials are accepted, and authentication is on.
    pub const AUTHENTICATED: &str = "Authenticated";
    /// The version keeps tenants apart (rule 21).
    pub const VERSION_SUPPORTED: &str = "VersionSupported";
    /// There is room: no alarm is raised.
    pub const SPACE_AVAILABLE: &str = "SpaceAvailable";
    /// Somebody compacts (rule 21).
    pub const COMPACTED: &str = "Compacted";
    /// No tenant uses it, so it may be deleted.
    pub const ALLOWED_DELETION: &str = "DataStoreAllowedDeletion";
    /// Data of deleted tenants is still to be removed (rule 18).
    pub const CLEANUP_PENDING: &str = "CleanupPending";
    /// No tenant is left of those that a taint with effect NoExecute sends away. It is there
    /// as long as the DataStore has such a taint.
    pub const DRAINED: &str = "Drained";
}

/// Reasons. One word each, for machines; the message is for people.
pub mod reason {
    macro_rules! reasons {
        ($($(#[$doc:meta])+ $name:ident = $text:literal;)+) => {
            $($(#[$doc])+ pub const $name: &str = $text;)+
            /// Every reason.
            pub const ALL: &[&str] = &[$($text),+];
        };
    }

    reasons! {
        /// All is well.
        READY = "Ready";
        /// The thing asked about holds, and there is nothing to add.
        AS_EXPECTED = "AsExpected";
        /// Being set up for the first time.
        PROVISIONING = "Provisioning";
        /// Something that belongs into the tenant's API could not be made there.
        CONFIGURATION_INCOMPLETE = "ConfigurationIncomplete";
        /// Another version is being rolled out.
        UPGRADING = "Upgrading";
        /// A change of the spec is being rolled out.
        ROLLING_OUT = "RollingOut";
        /// Zero replicas, as asked.
        SLEEPING = "Sleeping";
        /// Being deleted.
        DELETING = "Deleting";
        /// Stopped by the pause annotation.
        PAUSED = "Paused";
        /// The tenant's namespace is not one of those in which this installation may
        /// have tenants.
        NAMESPACE_NOT_SERVED = "NamespaceNotServed";
        /// The spec, or a part of it, is larger than it may be; an older release took it.
        SPEC_TOO_LARGE = "SpecTooLarge";
        /// Not looked at yet.
        UNKNOWN = "Unknown";
        /// No DataStore is named, and none can take the tenant.
        DATA_STORE_NOT_ASSIGNED = "DataStoreNotAssigned";
        /// A DataStore was assigned to a tenant that names none.
        DATA_STORE_ASSIGNED = "DataStoreAssigned";
        /// A database password that cannot be used was replaced.
        PASSWORD_REPLACED = "PasswordReplaced";
        /// Tenants are sent away from a DataStore.
        DRAINING = "Draining";
        /// None is left of the tenants that are to leave.
        DRAINED = "Drained";
        /// What is in the way of tenants that are to leave does not end by itself.
        DRAIN_HELD_UP = "DrainHeldUp";
        /// The tenant's data is moved to another DataStore.
        MIGRATING = "Migrating";
        /// The tenant's data was moved to another DataStore.
        MIGRATED = "Migrated";
        /// A move to another DataStore failed; it is tried again.
        MIGRATION_FAILED = "MigrationFailed";
        /// A move to another DataStore was called off.
        MIGRATION_ABORTED = "MigrationAborted";
        /// The named DataStore does not exist.
        DATA_STORE_NOT_FOUND = "DataStoreNotFound";
        /// The DataStore exists and is not ready.
        DATA_STORE_NOT_READY = "DataStoreNotReady";
        /// The database does not answer.
        DATA_STORE_UNREACHABLE = "DataStoreUnreachable";
        /// The database refuses our credentials.
        DATA_STORE_UNAUTHORIZED = "DataStoreUnauthorized";
        /// The tenant's rights in the database are gone.
        DATA_STORE_ACCESS_REVOKED = "DataStoreAccessRevoked";
        /// The database takes no writes for lack of space.
        DATA_STORE_FULL = "DataStoreFull";
        /// The tenant nears a limit of its DataStore.
        NEAR_LIMIT = "NearLimit";
        /// The tenant has as much in its DataStore as it may, and cannot create more.
        LIMIT_EXCEEDED = "LimitExceeded";
        /// Another tenant holds the claim of the schema or user (rule 17).
        SCHEMA_TAKEN = "SchemaTaken";
        /// The schema or user is one that must not be used, such as `root`.
        NAME_REFUSED = "NameRefused";
        /// The DataStore was changed, and its new settings have not been found to work;
        /// pods keep the previous ones.
        DATA_STORE_CHANGE_NOT_VERIFIED = "DataStoreChangeNotVerified";
        /// Pods are to be rolled for a reason other than the tenant's spec, and other
        /// tenants' are being rolled.
        ROLL_WAITING = "RollWaiting";
        /// The same, and a tenant whose turn it was has not become Ready again.
        ROLLS_HALTED = "RollsHalted";
        /// The driver is accepted and not built yet.
        DRIVER_NOT_SUPPORTED = "DriverNotSupported";
        /// A Secret that a DataStore references does not exist.
        SECRET_NOT_FOUND = "SecretNotFound";
        /// A referenced Secret lacks the named key.
        SECRET_KEY_NOT_FOUND = "SecretKeyNotFound";
        /// The DataStore has no key of its authority, with which to sign.
        TLS_CONFIGURATION_INVALID = "TLSConfigurationValidationFailed";
        /// The DataStore's own content is in order.
        DATA_STORE_VALID = "DataStoreIsValid";
        /// Tenants still use it.
        DATA_STORE_STILL_USED = "DataStoreStillUsed";
        /// No tenant uses it.
        DATA_STORE_UNUSED = "DataStoreUnused";
        /// Authentication is switched off in the store.
        AUTHENTICATION_DISABLED = "AuthenticationDisabled";
        /// The store's version cannot keep tenants apart.
        VERSION_TOO_OLD = "VersionTooOld";
        /// Something in the store lets a tenant do more than it must.
        TENANTS_NOT_SEPARATED = "TenantsNotSeparated";
        /// Nobody compacts, so we do.
        COMPACTED_BY_STEWARD = "CompactedBySteward";
        /// Work of deleted tenants is recorded and will be done.
        CLEANUP_PENDING = "CleanupPending";
        /// A Secret with an authority or signing key of a tenant that ran is gone
        /// or broken; only a person can restore it (rule 19).
        KEY_MATERIAL_LOST = "KeyMaterialLost";
        /// A certificate is past its end.
        CERTIFICATE_EXPIRED = "CertificateExpired";
        /// A certificate or an authority is close to its end and is not being replaced.
        CERTIFICATE_EXPIRING = "CertificateExpiring";
        /// A certificate does not hold.
        CERTIFICATES_INVALID = "CertificatesInvalid";
        /// The endpoint presents another certificate than ours.
        SERVING_CERTIFICATE_MISMATCH = "ServingCertificateMismatch";
        /// The load balancer has assigned nothing yet.
        ADDRESS_PENDING = "AddressPending";
        /// The load balancer stays silent for so long that something is wrong.
        NO_ADDRESS = "NoAddress";
        /// The management cluster does not have a kind that the spec needs.
        KIND_NOT_SERVED = "KindNotServed";
        /// An Ingress is asked for without a name that clients can dial, or a route without
        /// a Gateway.
        ROUTE_INCOMPLETE = "RouteIncomplete";
        /// The management cluster's API refuses our Ingress or route.
        ROUTE_REFUSED = "RouteRefused";
        /// No Gateway has said anything of the route yet.
        ROUTE_PENDING = "RoutePending";
        /// A Gateway does not take the route.
        ROUTE_NOT_ACCEPTED = "RouteNotAccepted";
        /// The image does not exist.
        IMAGE_NOT_FOUND = "ImageNotFound";
        /// The image cannot be pulled.
        IMAGE_PULL_FAILED = "ImagePullFailed";
        /// No node has room or fits.
        UNSCHEDULABLE = "Unschedulable";
        /// A container ends soon after its start.
        CRASH_LOOP = "CrashLoopBackOff";
        /// The API server or an admission plug-in refuses our Deployment or pods.
        POD_REJECTED = "PodRejected";
        /// The sandbox of a pod cannot be made, or its containers do not start.
        POD_NOT_STARTED = "PodNotStarted";
        /// A quota leaves no room for the pods.
        QUOTA_EXCEEDED = "QuotaExceeded";
        /// No replica serves.
        NO_REPLICA_AVAILABLE = "NoReplicaAvailable";
        /// Some replicas serve, others do not.
        REPLICAS_MISSING = "ReplicasMissing";
        /// Somebody changed the selector of the Service.
        SERVICE_SELECTOR_CHANGED = "ServiceSelectorChanged";
        /// The API server refuses our Service.
        SERVICE_REFUSED = "ServiceRefused";
        /// A container cannot be made of its configuration.
        CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid";
        /// A volume cannot be mounted.
        VOLUME_NOT_MOUNTED = "VolumeNotMounted";
        /// The published endpoint does not answer.
        ENDPOINT_UNREACHABLE = "EndpointUnreachable";
        /// The endpoint answered the controller before and no longer does, while
        /// the Service does: the way to it is cut (rule 15).
        ENDPOINT_ROUTE_LOST = "EndpointRouteLost";
        /// The endpoint was never reached from where the controller stands, while
        /// the Service can be (rule 15).
        ENDPOINT_NOT_PROBED = "EndpointNotReachableFromController";
        /// The tenant's API answers and refuses what the probe does.
        PROBE_REFUSED = "ProbeRefused";
        /// The tenant's API answers, and reading, writing or watching fails.
        PROBE_FAILED = "ProbeFailed";
        /// The tenant's own admission refuses what the probe writes, and the API
        /// server writes what it is not asked about.
        ADMISSION_REFUSES = "AdmissionRefuses";
        /// The probe has said nothing for long.
        PROBE_OVERDUE = "ProbeOverdue";
        /// The bindings inside the tenant are not there yet (rule 16).
        BOOTSTRAP_INCOMPLETE = "BootstrapIncomplete";
        /// The DataStore knows nothing of a tenant that was Ready (rule 17).
        DATA_NOT_FOUND = "DataNotFound";
        /// An object of our name belongs to somebody else (rule 20).
        NAME_TAKEN = "NameTaken";
        /// Somebody keeps changing a field of ours back (rule 20).
        CONTESTED = "Contested";
        /// Parts of the spec are accepted and not acted upon yet (rule 9).
        FIELDS_NOT_SUPPORTED = "FieldsNotSupported";
        /// Requested admission plug-ins do not exist in this version (rule 22).
        ADMISSION_PLUGINS_DROPPED = "AdmissionPluginsDropped";
        /// The management cluster's API refuses one of our writes.
        REQUEST_REFUSED = "RequestRefused";
        /// What a deleted tenant leaves behind is recorded, to be removed later.
        CLEANUP_DEFERRED = "CleanupDeferred";
        /// We lack a right in the management cluster.
        FORBIDDEN = "Forbidden";
    }
}

/// Puts `new` among `conditions`, in place of the one of the same type.
///
/// The transition time of the old one is kept when the status is the same,
/// so that it says since when the status holds. Order is kept; a condition of
/// a new type is appended. Returns whether anything but the time changed.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// The condition of a type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of a type is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

/// The three values of a condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell at the moment.
    Unknown,
}

impl Status {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as of `now`, about generation `observed`.
pub fn new(
    type_: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    observed: Option<i64>,
    now: Time,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: observed,
        last_transition_time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64, status: Status, message: &str) -> Condition {
        let now = Time(Timestamp::from_second(second).unwrap());
        new(tenant::READY, status, reason::READY, message, Some(1), now)
    }

    #[test]
    fn reasons_are_single_words_and_unique() {
        let mut all = reason::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), reason::ALL.len());
        assert!(
            all.iter()
                .all(|one| one.chars().all(|c| c.is_ascii_alphabetic()))
        );
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut all = vec![];
        assert!(set(&mut all, at(1, Status::True, "a")));
        assert!(!set(&mut all, at(2, Status::True, "a")));
        assert!(set(&mut all, at(3, Status::True, "b")));
        assert_eq!(all[0].last_transition_time.0.as_second(), 1);
        assert!(set(&mut all, at(4, Status::False, "b")));
        assert_eq!(all[0].last_transition_time.0.as_second(), 4);
        assert_eq!(all.len(), 1);
        assert!(!is_true(&all, tenant::READY));
    }
}
