//! A tenant's user and role: how they should be at each stage of its claim, and what makes
//! them so.

use etcd_client::{Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions};

use super::claims;
use super::connection::absent;
use super::database::Etcd;
use super::range::{prefix, span};
use crate::tenancy::{Claim, Stage, TenancyError, too_fast};

/// A claim that changes all the time is somebody else's work.
const ROUNDS: usize = 5;

impl Etcd {
    /// Makes user and role what the stored stage wants. Nobody else of this process changes
    /// them meanwhile; another one may be late, so that the claim is read again after.
    pub(super) async fn settle_rights(&self, claim: &Claim) -> Result<(), TenancyError> {
        for _ in 0..ROUNDS {
            let Some(hold) = claims::hold(&self.link, claim).await? else {
                return Err(TenancyError::Refused(format!(
                    "schema {:?} is not claimed any more",
                    claim.schema
                )));
            };
            match hold.claim.stage.lets_in() {
                true => {
                    self.prepare_role(&hold.claim).await?;
                    self.prepare_user(&hold.claim).await?;
                }
                false => self.delete_rights(&hold.claim).await?,
            }
            let now = claims::hold(&self.link, claim).await?;
            if now.is_some_and(|now| now.claim.stage == hold.claim.stage) {
                return Ok(());
            }
        }
        Err(too_fast())
    }

    /// How user and role differ from what the stage wants.
    pub(super) async fn rights_differ(
        &self,
        claim: &Claim,
    ) -> Result<Option<String>, TenancyError> {
        let (user, role) = (&claim.user, claim.role());
        let roles = self.roles_of(user).await?;
        let permissions = self.permissions_of(role).await?;
        if !claim.stage.lets_in() {
            return Ok(match (roles, permissions) {
                (Some(_), _) => Some(format!("user {user:?} exists")),
                (None, Some(_)) => Some(format!("role {role:?} exists")),
                (None, None) => None,
            });
        }
        match permissions {
            None => return Ok(Some(format!("role {role:?} does not exist"))),
            Some(found) if found.len() == 1 && is_grant(&found[0], claim) => {}
            Some(_) => {
                return Ok(Some(format!(
                    "role {role:?} does not have exactly the keys under {}",
                    prefix(claim)
                )));
            }
        }
        Ok(match roles {
            None => Some(format!("user {user:?} does not exist")),
            Some(roles) if roles == [role] => None,
            Some(_) => Some(format!("user {user:?} does not hold exactly role {role:?}")),
        })
    }

    /// Deletes user and role.
    pub(super) async fn delete_rights(&self, claim: &Claim) -> Result<(), TenancyError> {
        let user = self.link.ask("delete user", |mut client| {
            let user = claim.user.clone();
            async move { client.user_delete(user).await }
        });
        absent(user.await)?;
        let role = self.link.ask("delete role", |mut client| {
            let role = claim.role().to_owned();
            async move { client.role_delete(role).await }
        });
        absent(role.await)?;
        Ok(())
    }

    /// The roles of a user, `None` if there is no such user.
    pub(super) async fn roles_of(&self, user: &str) -> Result<Option<Vec<String>>, TenancyError> {
        let found = self.link.ask("get user", |mut client| {
            let user = user.to_owned();
            async move { client.user_get(user).await }
        });
        Ok(absent(found.await)?.map(|user| user.roles().to_vec()))
    }

    /// The permissions of a role, `None` if there is no such role.
    pub(super) async fn permissions_of(
        &self,
        role: &str,
    ) -> Result<Option<Vec<Permission>>, TenancyError> {
        let found = self.link.ask("get role", |mut client| {
            let role = role.to_owned();
            async move { client.role_get(role).await }
        });
        Ok(absent(found.await)?.map(|role| role.permissions()))
    }

    /// A role with the tenant's range and nothing else.
    async fn prepare_role(&self, claim: &Claim) -> Result<(), TenancyError> {
        let role = claim.role().to_owned();
        let found = match self.permissions_of(&role).await? {
            Some(found) => found,
            None => {
                let add = self.link.ask("add role", |mut client| {
                    let role = role.clone();
                    async move { client.role_add(role).await }
                });
                add.await?;
                Vec::new()
            }
        };
        let Some(wanted) = grant(claim) else {
            return Ok(());
        };
        if !found.iter().any(|found| is_grant(found, claim)) {
            // In place of another right on the same keys, if there is one.
            self.link
                .ask("grant permission", |mut client| {
                    let (role, wanted) = (role.clone(), wanted.clone());
                    async move { client.role_grant_permission(role, wanted).await }
                })
                .await?;
        }
        let (from, to) = span(claim);
        let is_other = |it: &&Permission| it.key() != from || it.range_end() != to;
        for other in found.iter().filter(is_other) {
            self.link
                .ask("revoke permission", |mut client| {
                    let (role, key) = (role.clone(), other.key().to_vec());
                    let options =
                        RoleRevokePermissionOptions::new().with_range_end(other.range_end());
                    async move {
                        client
                            .role_revoke_permission(role, key, Some(options))
                            .await
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// A user without password that holds the role and no other.
    async fn prepare_user(&self, claim: &Claim) -> Result<(), TenancyError> {
        let (user, role) = (&claim.user, &claim.role().to_owned());
        let found = match self.roles_of(user).await? {
            Some(found) => found,
            None => {
                let add = self.link.ask("add user", |mut client| {
                    let options = UserAddOptions::new().with_no_pwd();
                    let user = user.clone();
                    async move { client.user_add(user, "", Some(options)).await }
                });
                add.await?;
                Vec::new()
            }
        };
        for other in found.iter().filter(|found| *found != role) {
            self.link
                .ask("revoke role", |mut client| {
                    let (user, other) = (user.clone(), other.clone());
                    async move { client.user_revoke_role(user, other).await }
                })
                .await?;
        }
        if !found.contains(role) {
            self.link
                .ask("grant role", |mut client| {
                    let (user, role) = (user.clone(), role.clone());
                    async move { client.user_grant_role(user, role).await }
                })
                .await?;
        }
        Ok(())
    }
}

/// What the role gives at a stage.
fn grant(claim: &Claim) -> Option<Permission> {
    let (from, to) = span(claim);
    let permission = match claim.stage {
        Stage::Serving => Permission::read_write(from),
        Stage::Frozen => Permission::read(from),
        Stage::Incoming | Stage::Left => return None,
    };
    Some(permission.with_range_end(to))
}

fn is_grant(permission: &Permission, claim: &Claim) -> bool {
    let (from, to) = span(claim);
    let wanted = match claim.stage {
        Stage::Serving => PermissionType::Readwrite,
        Stage::Frozen => PermissionType::Read,
        Stage::Incoming | Stage::Left => return false,
    };
    permission.get_type() == i32::from(wanted)
        && permission.key() == from
        && permission.range_end() == to
}
