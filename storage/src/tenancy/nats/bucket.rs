//! A tenant's bucket: the stream in which kine keeps its keys. It is made here, and just as
//! kine would make it: kine takes no other. When it starts, kine 0.16 creates the bucket with
//! its own settings and number of copies (`CreateKeyValue`), which NATS takes for done only if
//! the bucket that is there has the same; but for `discard` and `allow_direct`, which it mends.
//! So the number of copies that kine is told has to be that of the bucket: the claim has it.
//!
//! Two settings follow the stage of the claim. Both are the stream's leader's to carry out,
//! whatever connection a message comes from:
//! * *Frozen*: no message may have more bytes than a marker ([`kine::MARKER`]), and all that
//!   kine writes has. It is told so in the answer to each write, and reads as before.
//! * *Incoming*: messages are taken at a place that nobody else knows, under the subjects that
//!   they will have. Who has the place of before writes to nothing.

use serde_json::{Value, json};

use uuid::Uuid;

use super::jetstream::{COPIES, JetStream};
use super::kine;
use crate::tenancy::{Claim, Stage, TenancyError};

/// What places of writers begin with.
const PLACE: &str = "_steward.";
/// Where a place is moved to the bucket's own subjects.
const TRANSFORM: &str = "subject_transform";
/// The key of our markers, outside of every prefix.
const OURS: &str = "steward.butlerlabs.dev";

/// The stream.
pub fn name(claim: &Claim) -> String {
    format!("KV_{}", claim.schema)
}

/// The subjects of its keys, without what comes after a dot.
fn subjects(claim: &Claim) -> String {
    format!("$KV.{}", claim.schema)
}

/// As kine 0.16 asks for it, but for what the stage of the claim makes different. `place`: of
/// the writer while it is incoming.
fn config(claim: &Claim, replicas: usize, place: &str) -> Value {
    let mut config = usual(claim, replicas);
    match claim.stage {
        Stage::Frozen => config["max_msg_size"] = json!(kine::MARKER),
        Stage::Incoming => {
            let taken = format!("{place}.>");
            config["subjects"] = json!([taken]);
            config[TRANSFORM] = json!({ "src": taken, "dest": format!("{}.>", subjects(claim)) });
        }
        Stage::Serving | Stage::Left => {}
    }
    config
}

fn usual(claim: &Claim, replicas: usize) -> Value {
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
        "subjects": [format!("{}.>", subjects(claim))],
    })
}

/// A bucket that is there.
pub struct Bucket {
    /// When it was made, as the server says it.
    pub made: String,
    config: Value,
}

impl Bucket {
    /// How many copies it has.
    pub fn copies(&self) -> usize {
        let copies = self.config[COPIES].as_u64().unwrap_or(1);
        usize::try_from(copies).unwrap_or(1)
    }

    /// Where messages are taken while it is incoming.
    pub fn place(&self) -> Option<&str> {
        place_in(&self.config)
    }

    /// Whether this is the stream that `before` was, and has no place for writers, as little as
    /// that: what has been made anew since, or readied for somebody, is another one's.
    pub fn is_left_as(&self, before: &Bucket) -> bool {
        self.made == before.made && self.place().is_none() && before.place().is_none()
    }

    fn read(stream: &Value) -> Self {
        Bucket {
            made: stream["created"].as_str().unwrap_or_default().to_owned(),
            config: stream["config"].clone(),
        }
    }

    /// How it is not as it should be at the stage of the claim. The number of copies is not
    /// among that: kine is told the one that there is. A list of endpoints, for which another
    /// one would be right, is shortened while a server is replaced.
    pub fn differs(&self, claim: &Claim) -> Option<String> {
        let place = self.place().map(str::to_owned).unwrap_or_else(new_place);
        let repaired = self.repaired(claim, &place);
        let keys = repaired.as_object()?.keys();
        let others = self.config.get(TRANSFORM).map(|_| TRANSFORM);
        let mut keys = keys.map(String::as_str).chain(others);
        let key = keys.find(|key| self.config.get(*key) != repaired.get(*key))?;
        Some(match repaired.get(key) {
            Some(value) => format!(
                "stream {} has not {key} {value}, with which kine would make it",
                name(claim)
            ),
            None => format!("stream {} has {key}, and should not", name(claim)),
        })
    }

    /// As it should be, with as many copies as there are.
    fn repaired(&self, claim: &Claim, place: &str) -> Value {
        let mut config = self.config.clone();
        if let (Some(all), Value::Object(mut wanted)) =
            (config.as_object_mut(), self::config(claim, 1, place))
        {
            wanted.remove(COPIES);
            all.remove(TRANSFORM);
            all.extend(wanted);
        }
        config
    }
}

/// Where a stream of this configuration takes messages of a writer, if it is to be filled.
pub fn place_in(config: &Value) -> Option<&str> {
    let taken = config["subjects"][0].as_str()?;
    taken.strip_suffix(".>").filter(|it| it.starts_with(PLACE))
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
        let config = config(claim, replicas, &new_place());
        let made = jetstream.create(&config).await?;
        return Ok(Bucket::read(&made));
    };
    if found.differs(claim).is_some() {
        found = repair(jetstream, claim, &found).await?;
    }
    if let Some(raised) = jetstream.raise(&found.config, replicas).await? {
        found = Bucket::read(&raised);
    }
    Ok(found)
}

/// The bucket as it should be, with a place for writers that is new, where there is one.
pub async fn repair(
    jetstream: &JetStream<'_>,
    claim: &Claim,
    found: &Bucket,
) -> Result<Bucket, TenancyError> {
    let repaired = found.repaired(claim, &new_place());
    let changed = jetstream.update(&repaired).await?;
    Ok(Bucket::read(&changed))
}

fn new_place() -> String {
    format!("{PLACE}{}", Uuid::new_v4().simple())
}

/// Appends a message of which kine sees that a key is gone that nobody has, and gives its
/// number. When this returns, whatever was taken before has a smaller one. kine, which does not
/// come up before it has read the message with the stream's last number, finds one.
pub async fn mark(jetstream: &JetStream<'_>, claim: &Claim) -> Result<u64, TenancyError> {
    let subject = kine::apart(&subjects(claim), OURS);
    let marked = jetstream.publish(&subject, Vec::new(), kine::marker());
    marked.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::nats::testing::claim;

    fn found(config: Value) -> Bucket {
        Bucket {
            made: String::new(),
            config,
        }
    }

    #[test]
    fn each_stage_is_known_again_and_leads_to_each() {
        let all = [Stage::Serving, Stage::Frozen, Stage::Incoming];
        for from in all {
            let before = found(config(&claim("1", "a", "u").at(from), 3, &new_place()));
            assert_eq!(before.place().is_some(), from == Stage::Incoming);
            for to in all {
                let to = claim("1", "a", "u").at(to);
                assert_eq!(before.differs(&to).is_none(), from == to.stage);
                let after = found(before.repaired(&to, &new_place()));
                assert_eq!(after.differs(&to), None, "{from:?}");
                assert_eq!(after.copies(), 3);
                assert_ne!(after.place(), before.place().or(Some("")), "a new one");
            }
        }
        let serving = claim("1", "a", "u");
        assert_eq!(config(&serving, 3, "x"), usual(&serving, 3));
    }

    /// Who is late deletes no bucket that has come to be since it looked.
    #[test]
    fn a_bucket_that_was_left_is_known_again() {
        let at = |stage: Stage, made: &str| Bucket {
            made: made.to_owned(),
            ..found(config(&claim("1", "a", "u").at(stage), 1, &new_place()))
        };
        let left = at(Stage::Left, "1");
        assert!(at(Stage::Left, "1").is_left_as(&left));
        assert!(!at(Stage::Serving, "2").is_left_as(&left), "made anew");
        assert!(!at(Stage::Incoming, "1").is_left_as(&left), "being filled");
        let filled = at(Stage::Incoming, "1");
        assert!(!at(Stage::Serving, "1").is_left_as(&filled), "was filled");
    }
}
