//! Turning authentication on, once, when a datastore of ours is set up.

use etcd_client::{Client, UserAddOptions};

use super::connection::{Link, absent};
use crate::tenancy::{Connection, TenancyError};

const ROOT: &str = "root";

/// Makes the user and role `root` and turns authentication on. Can be repeated;
/// if it is on already, this only checks that we are root.
///
/// # Flow
/// etcd cannot say beforehand whether it will accept our certificate as root.
/// So root gets a random password for the moment of the switch: if the
/// certificate is not accepted afterwards, authentication is turned off again
/// with it. Then the password is forgotten; nobody ever knew it.
///
/// # Errors
/// [`TenancyError::Unauthenticated`] if etcd does not take our certificate for
/// root's: its common name must be `root`, and etcd must run with
/// `--client-cert-auth`.
pub async fn bootstrap(connection: Connection) -> Result<(), TenancyError> {
    let link = Link::new(connection)?;
    if link.authentication().await? {
        return link.prove_root().await;
    }
    let password = hex::encode(rand::random::<[u8; 32]>());
    make_root(&link, &password).await?;
    let enable = link.ask("enable authentication", |mut client| async move {
        client.auth_enable().await
    });
    enable.await?;
    let Err(refused) = link.prove_root().await else {
        return Ok(());
    };
    let undo = link.ask("disable authentication", |client| {
        disable(client, password.clone())
    });
    match undo.await {
        Ok(()) => Err(TenancyError::Unauthenticated(format!(
            "etcd does not take the client certificate for root's, so authentication stays off \
             (common name root? etcd with --client-cert-auth?): {refused}"
        ))),
        Err(stuck) => Err(TenancyError::Unauthenticated(format!(
            "etcd does not take the client certificate for root's ({refused}), and \
             authentication could not be turned off again ({stuck}); restart etcd with \
             --client-cert-auth and use a certificate with common name root"
        ))),
    }
}

async fn make_root(link: &Link, password: &str) -> Result<(), TenancyError> {
    let role = link.ask("get role", |mut client| async move {
        client.role_get(ROOT).await
    });
    if absent(role.await)?.is_none() {
        let add = link.ask("add role", |mut client| async move {
            client.role_add(ROOT).await
        });
        add.await?;
    }
    let user = link.ask("get user", |mut client| async move {
        client.user_get(ROOT).await
    });
    if absent(user.await)?.is_some() {
        // Left over from an attempt that was interrupted, or made by hand. While
        // authentication is off nobody depends on it, and we need its password.
        let delete = link.ask("delete user", |mut client| async move {
            client.user_delete(ROOT).await
        });
        delete.await?;
    }
    let add = link.ask("add user", |mut client| {
        let (password, options) = (password.to_owned(), UserAddOptions::new());
        async move { client.user_add(ROOT, password, Some(options)).await }
    });
    add.await?;
    let grant = link.ask("grant role", |mut client| async move {
        client.user_grant_role(ROOT, ROOT).await
    });
    grant.await?;
    Ok(())
}

async fn disable(mut client: Client, password: String) -> Result<(), etcd_client::Error> {
    client
        .update_user(Some((ROOT.to_owned(), password)))
        .await?;
    client.auth_disable().await?;
    client.update_user(None).await
}
