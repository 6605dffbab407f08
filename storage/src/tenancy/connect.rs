//! The driver of a datastore: the only match on its name.

use super::connection::Connection;
use super::driver::Tenancy;
use super::error::TenancyError;
use super::{etcd, mysql, nats, postgresql};

/// Administration of the datastore behind `connection`. Does not connect yet.
///
/// # Errors
/// [`TenancyError::Refused`] for a driver that is not built, and for
/// certificates and keys that cannot be used.
pub fn connect(connection: Connection) -> Result<Box<dyn Tenancy>, TenancyError> {
    match connection.driver.as_str() {
        "etcd" => Ok(Box::new(etcd::Etcd::new(connection)?)),
        "MySQL" => Ok(Box::new(mysql::connect(connection)?)),
        "PostgreSQL" => Ok(Box::new(postgresql::connect(connection)?)),
        "NATS" => Ok(Box::new(nats::Nats::new(&connection)?)),
        other => Err(TenancyError::Refused(format!(
            "datastores of driver {other:?} are not supported; use driver \"etcd\", \
             \"MySQL\", \"NATS\" or \"PostgreSQL\""
        ))),
    }
}
