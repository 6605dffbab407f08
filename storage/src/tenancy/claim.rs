//! Claims: which names of a datastore are whose, and at which stage a tenant's data there is.

use serde::{Deserialize, Serialize};

use super::error::TenancyError;

/// What a tenant's data in a datastore is good for. The stored stage decides about rights.
///
/// ```text
/// Incoming -> Serving <-> Frozen -> Left -> Incoming
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The tenant works with it.
    #[default]
    Serving,
    /// It is being filled. Nobody but the administrator gets at it.
    Incoming,
    /// The tenant's user reads it and cannot write.
    Frozen,
    /// It is what a move left behind: no rights, no login; the data stays.
    Left,
}

impl Stage {
    /// Whether the tenant's user gets at the data at all.
    pub fn lets_in(self) -> bool {
        matches!(self, Stage::Serving | Stage::Frozen)
    }

    /// Whether a claim may go from this stage to that one.
    pub fn may_become(self, to: Stage) -> bool {
        use Stage::{Frozen, Incoming, Left, Serving};
        matches!(
            (self, to),
            (Serving, Frozen) | (Frozen, Serving | Left) | (Left, Incoming) | (Incoming, Serving)
        )
    }

    /// As it is stored, and said to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Serving => "serving",
            Stage::Incoming => "incoming",
            Stage::Frozen => "frozen",
            Stage::Left => "left",
        }
    }

    /// What [`Stage::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Stage::Serving, Stage::Incoming, Stage::Frozen, Stage::Left];
        all.into_iter().find(|stage| stage.as_str() == text)
    }

    fn is_serving(&self) -> bool {
        *self == Stage::Serving
    }
}

/// A tenant's hold on two names of a datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Of the tenant control plane. Decides whose claim it is.
    pub uid: String,
    /// Of the tenant control plane; for messages.
    pub namespace: String,
    /// Of the tenant control plane; for messages.
    pub name: String,
    /// Where the data lives: a key prefix, database or bucket.
    pub schema: String,
    /// Who may use it.
    pub user: String,
    /// The role through which the user has its rights, where the datastore has
    /// roles. `None` in claims of earlier versions: it has the name of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What the data is good for.
    #[serde(default, skip_serializing_if = "Stage::is_serving")]
    pub stage: Stage,
    /// What the tenant's API server has as `--etcd-prefix`, without a slash at the end.
    /// `None`: the driver's own, see [`Claim::prefix`]. A move keeps it: values that are
    /// encrypted with AES-GCM or by a KMS can be decrypted under their whole key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Copies of its bucket in NATS, as they were found there last: kine takes a bucket with
    /// this number and no other. `None`: they are not known; and in other drivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
}

impl Claim {
    /// The role of a new claim: another one for each tenant that ever had the
    /// schema, so that nothing that was given to one of them is the next one's. A
    /// schema holds no `/`, so that no role named after a schema is the same.
    pub fn role_of(schema: &str, uid: &str) -> String {
        format!("{schema}/{uid}")
    }

    /// Name of the role.
    pub fn role(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.schema)
    }

    /// What all keys of the tenant begin with, followed by a slash: `/registry` behind kine
    /// and `/<schema>` in etcd, unless the claim says otherwise.
    pub fn prefix(&self, through_kine: bool) -> String {
        match (&self.prefix, through_kine) {
            (Some(prefix), _) => prefix.clone(),
            (None, true) => "/registry".to_owned(),
            (None, false) => format!("/{}", self.schema),
        }
    }

    /// The same claim at another stage.
    #[must_use]
    pub fn at(&self, stage: Stage) -> Self {
        Claim {
            stage,
            ..self.clone()
        }
    }

    /// Whether two claims are on the same names for the same tenant, at whatever stage.
    pub fn is_same_hold(&self, other: &Claim) -> bool {
        (&self.uid, &self.schema, &self.user) == (&other.uid, &other.schema, &other.user)
    }

    /// Refuses to begin with what only something before leads to.
    pub(crate) fn admit_new(&self) -> Result<(), TenancyError> {
        match self.stage {
            Stage::Serving | Stage::Incoming => Ok(()),
            Stage::Frozen | Stage::Left => Err(TenancyError::Refused(format!(
                "schema {:?} is not claimed, so that it cannot be {}",
                self.schema,
                self.stage.as_str()
            ))),
        }
    }

    /// What [`crate::tenancy::Tenancy::check`] says of a caller who takes the data for
    /// something else than it is.
    pub(crate) fn stage_differs(&self, stored: &Claim) -> Option<String> {
        (self.stage != stored.stage).then(|| {
            format!(
                "schema {:?} is {}, not {}",
                self.schema,
                stored.stage.as_str(),
                self.stage.as_str()
            )
        })
    }
}

/// Why a claim does not go to another stage.
pub(crate) fn not_to_be_turned(claim: &Claim, stored: &Claim, to: Stage) -> TenancyError {
    TenancyError::Refused(match claim.stage_differs(stored) {
        Some(why) => format!("{why}, and cannot become {}", to.as_str()),
        None => format!(
            "schema {:?} is {} and cannot become {}",
            claim.schema,
            stored.stage.as_str(),
            to.as_str()
        ),
    })
}

/// Nothing can be done under a claim that nobody holds.
pub(crate) fn unclaimed(claim: &Claim) -> TenancyError {
    TenancyError::Refused(format!("schema {:?} is not claimed", claim.schema))
}

/// Others write the claim again and again.
pub(crate) fn too_fast() -> TenancyError {
    TenancyError::Unreachable("the claim changes faster than it can be read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other() {
        use Stage::{Frozen, Incoming, Left, Serving};
        let all = [Serving, Incoming, Frozen, Left];
        let allowed = [
            (Serving, Frozen),
            (Frozen, Serving),
            (Frozen, Left),
            (Left, Incoming),
            (Incoming, Serving),
        ];
        for from in all {
            assert_eq!(Stage::parse(from.as_str()), Some(from));
            for to in all {
                let expected = allowed.contains(&(from, to));
                assert_eq!(from.may_become(to), expected, "{from:?} to {to:?}");
            }
        }
        assert_eq!(Stage::parse("Serving"), None);
    }

    /// Claims are read by versions before and after.
    #[test]
    fn what_is_usual_is_not_written() {
        let old = r#"{"uid":"1","namespace":"n","name":"t","schema":"s","user":"u"}"#;
        let claim: Claim = serde_json::from_str(old).unwrap();
        assert_eq!(claim.stage, Stage::Serving);
        assert_eq!(serde_json::to_string(&claim).unwrap(), old);
        assert_eq!(claim.prefix(false), "/s");
        assert_eq!(claim.prefix(true), "/registry");
        let frozen = Claim {
            prefix: Some("/x".to_owned()),
            ..claim.at(Stage::Frozen)
        };
        let text = serde_json::to_string(&frozen).unwrap();
        assert!(text.contains(r#""stage":"frozen","prefix":"/x""#), "{text}");
        assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), frozen);
        assert_eq!(frozen.prefix(true), "/x");
        assert!(frozen.is_same_hold(&claim));
    }
}
