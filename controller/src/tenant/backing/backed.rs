//! What holds a tenant's data, as a value: outside this folder nobody asks for the driver.

use apiservice::v1alpha1::Driver;

use crate::tenant::backing::beside::Beside;

/// What the workload needs to know about the tenant's data.
#[derive(Clone, Debug, Default)]
pub struct Backing {
    /// Name of the DataStore.
    pub data_store: Option<String>,
    /// What kind of database it is. Outside this folder nobody asks.
    pub driver: Driver,
    /// What the Secret with the tenant's certificate holds.
    pub files: Files,
    /// `host:port` of the database that the pods are given; empty if the DataStore is
    /// not there.
    pub endpoints: Vec<String>,
    /// The fingerprint of these settings.
    pub settings: Option<String>,
    /// Database, bucket or key prefix.
    pub schema: String,
    /// What all keys begin with, without the last slash.
    pub prefix: String,
    /// The tenant's user in the database.
    pub user: String,
    /// Checksums of the two Secrets, if they are there or planned.
    pub config_checksum: Option<String>,
    /// The second of them.
    pub certificate_checksum: Option<String>,
    /// The tenant has its rights in the database, or gets them before the
    /// Deployment is written.
    pub granted: bool,
    /// An empty database is made in this pass in place of one that was lost.
    pub anew: bool,
    /// Which of the places beside the main one it is; `None`: that.
    pub beside: Option<Beside>,
    /// The places beside this one, in the order of the spec.
    pub overrides: Vec<Backing>,
}

impl Backing {
    /// Everything that pods need for it is there or is planned.
    pub fn is_complete(&self) -> bool {
        self.granted
            && !self.endpoints.is_empty()
            && self.certificate_checksum.is_some()
            && self.overrides.iter().all(Backing::is_complete)
    }
}

/// What there is to prove who the database is, and who its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The authority of the database's certificate.
    pub authority: bool,
    /// A client certificate and its key.
    pub client: bool,
}
