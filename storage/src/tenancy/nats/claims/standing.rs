//! How a claim stands, by what is found with its names.

use super::record::{Record, Stored};
use crate::tenancy::{Claim, TenancyError};

/// How a claim stands.
pub enum Standing {
    /// Nobody has either of the names.
    Absent,
    /// The tenant has the names, or one of them: it was interrupted. What stands with the
    /// schema, and with the user.
    Held {
        schema: Option<Box<Stored>>,
        user: Option<Box<Stored>>,
    },
    /// The tenant has one of the names together with another one.
    Otherwise(Claim),
}

impl Standing {
    /// Whether it has both.
    pub fn is_whole(&self) -> bool {
        let Standing::Held { schema, user } = self else {
            return false;
        };
        schema.is_some() && user.is_some()
    }

    /// What is stored, if it is the tenant's.
    pub fn record(&self) -> Option<&Record> {
        let Standing::Held { schema, user } = self else {
            return None;
        };
        schema.as_ref().or(user.as_ref()).map(|it| &it.record)
    }

    /// The number of the older of its messages, by which claims are in the order in which they
    /// were made.
    pub(super) fn since(&self) -> Option<u64> {
        let Standing::Held { schema, user } = self else {
            return None;
        };
        let numbers = [schema, user].into_iter().flatten();
        numbers.map(|it| it.sequence).min()
    }
}

/// What stands with the two names of a claim, of whomever.
pub struct Names {
    pub(super) schema: Option<Stored>,
    pub(super) user: Option<Stored>,
}

impl Names {
    /// How the claim stands.
    ///
    /// # Errors
    /// [`TenancyError::SchemaTaken`] if another uid holds a name.
    pub fn standing(&self, claim: &Claim) -> Result<Standing, TenancyError> {
        for (what, name, found) in [
            ("schema", &claim.schema, &self.schema),
            ("user", &claim.user, &self.user),
        ] {
            let Some(found) = found.as_ref().map(|it| &it.record.claim) else {
                continue;
            };
            if found.uid != claim.uid {
                return Err(TenancyError::SchemaTaken {
                    what: format!("{what} {name:?}"),
                    uid: found.uid.clone(),
                    namespace: found.namespace.clone(),
                    name: found.name.clone(),
                });
            }
            if !found.is_same_hold(claim) {
                return Ok(Standing::Otherwise(found.clone()));
            }
        }
        Ok(self.own(claim).unwrap_or(Standing::Absent))
    }

    /// What the tenant has of them, whoever has the other one: it was interrupted, and that
    /// one given away.
    pub fn own(&self, claim: &Claim) -> Option<Standing> {
        let own = |it: &&Stored| it.record.claim.is_same_hold(claim);
        let [schema, user] = [&self.schema, &self.user]
            .map(|it| it.as_ref().filter(own).map(|it| Box::new(it.clone())));
        (schema.is_some() || user.is_some()).then_some(Standing::Held { schema, user })
    }
}

/// What is said of a tenant that has claimed something else.
pub fn otherwise(found: &Claim) -> String {
    format!(
        "this tenant control plane has claimed schema {:?} with user {:?}, not as it asks now",
        found.schema, found.user
    )
}
