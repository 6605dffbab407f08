//! Whether the server asks everybody for a password, and what it gives to everybody.

use super::connection::{Link, Login, Session};
use crate::tenancy::TenancyError;
use crate::tenancy::sql::endpoint::{Endpoint, random_text};
use crate::tenancy::sql::entrance::Entrance;

/// Tries with what is not right.
pub async fn try_doors(link: &Link) -> Result<Entrance, TenancyError> {
    let session = link.open().await?;
    let endpoint = &session.endpoint.clone();
    session.close().await;
    let wrong = random_text();
    let user = format!("steward-{}", &random_text()[..16]);
    let mut entrance = Entrance {
        guarded: true,
        by_certificate: false,
    };
    // Users without a name have no password as a rule.
    for password in ["", &wrong] {
        let nobody = Login {
            user: &user,
            password,
            database: None,
            certificate: true,
        };
        entrance.guarded &= !lets_in(link, endpoint, &nobody).await?;
    }
    if link.servers.certificate().is_some() {
        let login = link.as_administrator(&wrong, true);
        entrance.by_certificate = lets_in(link, endpoint, &login).await?;
    }
    Ok(entrance)
}

/// Whether somebody is let in with a password that is not his own.
async fn lets_in(
    link: &Link,
    endpoint: &Endpoint,
    login: &Login<'_>,
) -> Result<bool, TenancyError> {
    match link.login(endpoint, login).await {
        Ok(connection) => {
            connection.close().await;
            Ok(true)
        }
        Err(failure) if failure.after_authentication() => Ok(true),
        Err(failure) => match failure.error {
            TenancyError::Unauthenticated(_) => Ok(false),
            error => Err(error),
        },
    }
}

/// Names of databases on which everybody has rights, among which this one is.
pub async fn open_to_all(session: &mut Session, schema: &str) -> Result<Vec<String>, TenancyError> {
    let sql = "select distinct cast(Db as char) from mysql.db
        where User in ('', 'PUBLIC') and ? like Db";
    let found: Vec<(String,)> = session.rows("look at rights", sql, &[schema]).await?;
    Ok(found.into_iter().map(|row| row.0).collect())
}

/// What the server gives to everybody, a sentence each.
pub async fn gaps(session: &mut Session) -> Result<Vec<String>, TenancyError> {
    let mut gaps = Vec::new();
    let anonymous = "select cast(Host as char) from mysql.user where User = '' order by Host";
    let hosts: Vec<(String,)> = session.rows("look for users", anonymous, &[]).await?;
    for (host,) in hosts {
        gaps.push(format!(
            "Everybody is let in from hosts {host:?} without a name; run: drop user ''@'{host}'."
        ));
    }
    let shared = "select distinct cast(Db as char) from mysql.db where User in ('', 'PUBLIC')
        order by 1";
    let databases: Vec<(String,)> = session.rows("look at rights", shared, &[]).await?;
    for (database,) in databases {
        gaps.push(format!(
            "Everybody has rights on databases {database:?}, tenants too; take them away \
             (mysql_secure_installation does)."
        ));
    }
    if session.mariadb {
        gaps.extend(given_to_public(session).await?);
    } else {
        let sql = "select cast(@@global.mandatory_roles as char)";
        let roles = session.rows::<(String,)>("look at roles", sql, &[]).await;
        // Versions before 8.0 have no roles.
        if let Ok(roles) = roles
            && roles.first().is_some_and(|row| !row.0.is_empty())
        {
            gaps.push(format!(
                "Everybody has the roles {}, tenants too (mandatory_roles).",
                roles[0].0
            ));
        }
    }
    Ok(gaps)
}

/// MariaDB has a role that everybody is a member of. It is not there unless somebody gave
/// it something.
async fn given_to_public(session: &mut Session) -> Result<Vec<String>, TenancyError> {
    let sql = "select 1 from mysql.user where User = 'PUBLIC'";
    let there: Vec<(i64,)> = session.rows("look for users", sql, &[]).await?;
    if there.is_empty() {
        return Ok(Vec::new());
    }
    let lines = session
        .show("look at rights", "show grants for public".to_owned())
        .await?;
    let given = lines
        .iter()
        .filter_map(|line| line.strip_prefix("GRANT ")?.split(" TO ").next())
        .filter(|given| !given.starts_with("USAGE ON "));
    Ok(given
        .map(|given| {
            format!("Everybody has {given}, tenants too; run: revoke {given} from public.")
        })
        .collect())
}
