//! A tenant's bucket: the stream in which kine keeps its keys. It is made here, and just as
//! kine would make it: kine takes no other. When it starts, kine 0.16 creates the bucket with
//! its own settings and number of copies (`CreateKeyValue`), which NATS takes for done only if
//! the bucket that is there has the same; but for `discard` and `allow_direct`, which it mends.
//! So the number of copies that kine is told has to be that of the bucket: the claim has it.

use serde_json::{Value, json};

use super::jetstream::{COPIES, JetStream};
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
    /// How many copies it has.
    pub fn copies(&self) -> usize {
        let copies = self.config[COPIES].as_u64().unwrap_or(1);
        usize::try_from(copies).unwrap_or(1)
    }
}

impl Bucket {
    fn read(stream: &Value) -> Self {
        Bucket {
            made: stream["created"].as_str().unwrap_or_default().to_owned(),
            bytes: stream["state"]["bytes"].as_u64().unwrap_or(0),
            config: stream["config"].clone(),
        }
    }

    /// How it is not as kine would make it. The number of copies is not among that: kine is
    /// told the one that there is. A list of endpoints, for which another one would be right,
    /// is shortened while a server is replaced.
    pub fn differs(&self, claim: &Claim) -> Option<String> {
        let repaired = self.repaired(claim);
        let (key, value) = repaired
            .as_object()?
            .iter()
            .find(|(key, value)| self.config.get(key.as_str()) != Some(value))?;
        Some(format!(
            "stream {} has not {key} {value}, with which kine would make it",
            name(claim)
        ))
    }

    /// As kine would make it, with as many copies as there are.
    fn repaired(&self, claim: &Claim) -> Value {
        let mut config = self.config.clone();
        if let (Some(all), Value::Object(mut wanted)) =
            (config.as_object_mut(), self::config(claim, 1))
        {
            wanted.remove(COPIES);
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

/// The bucket as it should be; it is made if need be. One with fewer copies gets as many as
/// this, if there are servers for them, and never fewer.
pub async fn make(
    jetstream: &JetStream<'_>,
    claim: &Claim,
    replicas: usize,
    found: Option<Bucket>,
) -> Result<Bucket, TenancyError> {
    let Some(mut found) = found else {
        let made = jetstream.create(&config(claim, replicas)).await?;
        return Ok(Bucket::read(&made));
    };
    if found.differs(claim).is_some() {
        let changed = jetstream.update(&found.repaired(claim)).await?;
        found = Bucket::read(&changed);
    }
    if let Some(raised) = jetstream.raise(&found.config, replicas).await? {
        found = Bucket::read(&raised);
    }
    Ok(found)
}
