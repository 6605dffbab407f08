//! A claim on what is there without one: the keys of a tenant that another operator kept, with
//! its user and role. Names alone prove nothing; only what such an operator makes is taken, and
//! only because an administrator says whose it is.

use etcd_client::{GetOptions, PermissionType};

use super::claims::{self, Standing};
use super::database::Etcd;
use super::range::{prefix, span};
use crate::tenancy::{Claim, Stage, TenancyError};

impl Etcd {
    /// Whether there is still something to be adopted; `false` if the claim stands.
    pub(super) async fn look_to_adopt(&self, claim: &Claim) -> Result<bool, TenancyError> {
        claims::admit(claim)?;
        let refuse = |why: String| Err(TenancyError::Refused(why));
        if claim.stage != Stage::Serving || claim.role.is_some() || claim.prefix.is_some() {
            return refuse("only what serves under its schema's name can be adopted".to_owned());
        }
        if !self.link.authentication().await? {
            return refuse("authentication of the datastore is off".to_owned());
        }
        match claims::standing(&self.link, claim).await? {
            Standing::Held => return Ok(false),
            Standing::Absent | Standing::Partly => {}
        }
        let held = self.claims_of(&claim.uid).await?;
        if let Some(other) = held.iter().find(|held| !held.is_same_hold(claim)) {
            return refuse(format!(
                "this tenant has claimed schema {:?} and user {:?}",
                other.schema, other.user
            ));
        }
        let (schema, user) = (&claim.schema, &claim.user);
        // Each API server of a tenant has made it before anything else.
        let first = format!("{}namespaces/kube-system", prefix(claim));
        let found = self
            .link
            .ask("look for the tenant's data", |mut client| {
                let (first, options) = (first.clone(), GetOptions::new().with_count_only());
                async move { client.get(first, Some(options)).await }
            })
            .await?;
        if found.count() != 1 {
            return refuse(format!(
                "{first} is not there: it is no place of a kube-apiserver's data"
            ));
        }
        if self.roles_of(user).await?.as_deref() != Some(std::slice::from_ref(schema)) {
            return refuse(format!(
                "user {user:?} does not hold exactly the role {schema:?}"
            ));
        }
        let (from, to) = span(claim);
        let exact = self.permissions_of(schema).await?.is_some_and(|found| {
            found.len() == 1
                && found[0].get_type() == i32::from(PermissionType::Readwrite)
                && found[0].key() == from
                && found[0].range_end() == to
        });
        if !exact {
            return refuse(format!(
                "role {schema:?} does not have exactly the keys under {}",
                prefix(claim)
            ));
        }
        Ok(true)
    }

    async fn claims_of(&self, uid: &str) -> Result<Vec<Claim>, TenancyError> {
        Ok(claims::of(uid, self.claim_pairs().await?))
    }
}
