//! Claims as they are stored.

use serde::{Deserialize, Serialize};

use crate::tenancy::nats::jetstream::Message;
use crate::tenancy::{Claim, TenancyError};

/// A claim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The claim.
    #[serde(flatten)]
    pub claim: Claim,
    /// When the tenant's bucket was made, as the server says it: another one is not the one
    /// with the data. Stands with the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// A record and where it stands.
#[derive(Debug, Clone)]
pub struct Stored {
    pub record: Record,
    pub(super) sequence: u64,
}

pub(super) fn subject_of_schema(claim: &Claim) -> String {
    format!("claims.schema.{}", hex::encode(&claim.schema))
}

pub(super) fn subject_of_user(claim: &Claim) -> String {
    format!("claims.user.{}", hex::encode(&claim.user))
}

pub(super) fn read(message: &Message) -> Result<Stored, TenancyError> {
    let record = serde_json::from_slice(&message.payload).map_err(|e| {
        let subject = &message.subject;
        TenancyError::Other(format!("the claim at {subject} cannot be read: {e}"))
    })?;
    Ok(Stored {
        record,
        sequence: message.sequence,
    })
}
