//! A tenant's bucket: the stream in which kine keeps its keys. It is made here, and just as
//! kine would make it: kine takes no other.

use serde_json::{Value, json};

use super::jetstream::JetStream;
use crate::tenancy::{Claim, TenancyError};

/// The stream.
pub fn name(claim: &Claim) -> String {
    format!("KV_{}", claim.schema)
}

/// As kine 0.16 asks for it.
fn config(claim: &Claim, replicas: usize) -> Value {
    json!({
        "allow_direct": true,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "description": "Holds kine key/values",
        "discard": "new",
        // Two minutes, in nanoseconds.
        "duplicate_window": 120_000_000_000_u64,
        "max_age": 0,
        "max_bytes": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": 10,
        "name": name(claim),
        "num_replicas": replicas,
        "retention": "limits",
        "storage": "file",
        "subjects": [format!("$KV.{}.>", claim.schema)],
    })
}

/// A bucket that is there.
pub struct Bucket {
    /// When it was made, as the server says it.
    pub made: String,
    /// Bytes of it.
    pub bytes: u64,
    config: Value,
}

impl Bucket {
    fn read(stream: &Value) -> Self {
        Bucket {
            made: stream["created"].as_str().unwrap_or_default().to_owned(),
            bytes: stream["state"]["bytes"].as_u64().unwrap_or(0),
            config: stream["config"].clone(),
        }
    }

    /// How it is not as kine wants it.
    pub fn differs(&self, claim: &Claim, replicas: usize) -> Option<String> {
        let wanted = config(claim, replicas);
        let (key, value) = wanted
            .as_object()?
            .iter()
            .find(|(key, value)| self.config.get(key.as_str()) != Some(value))?;
        Some(format!(
            "stream {} has not {key} {value}, with which kine looks for it",
            name(claim)
        ))
    }

    fn repaired(&self, claim: &Claim, replicas: usize) -> Value {
        let mut config = self.config.clone();
        if let (Some(all), Value::Object(wanted)) =
            (config.as_object_mut(), self::config(claim, replicas))
        {
            all.extend(wanted);
        }
        config
    }
}

/// The bucket, if it is there.
pub async fn find(
    jetstream: &JetStream<'_>,
    claim: &Claim,
) -> Result<Option<Bucket>, TenancyError> {
    let stream = jetstream.stream(&name(claim)).await?;
    Ok(stream.as_ref().map(Bucket::read))
}

/// The bucket as it should be; it is made if need be.
pub async fn make(
    jetstream: &JetStream<'_>,
    claim: &Claim,
    replicas: usize,
    found: Option<Bucket>,
) -> Result<Bucket, TenancyError> {
    match found {
        None => {
            let made = jetstream.create(&config(claim, replicas)).await?;
            Ok(Bucket::read(&made))
        }
        Some(found) if found.differs(claim, replicas).is_some() => {
            let changed = jetstream.update(&found.repaired(claim, replicas)).await?;
            Ok(Bucket::read(&changed))
        }
        Some(found) => Ok(found),
    }
}
