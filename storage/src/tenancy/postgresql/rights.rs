//! What a tenant's user may do: how it is found, how it should be, and the statements
//! between the two.

mod found;
mod inside;
mod keeper;

use super::connection::Session;
use super::names::identifier;
use crate::tenancy::{Claim, TenancyError};
use found::names;
pub use found::{Found, find};
pub use inside::repairs_inside;
pub use keeper::{provide_keeper, reader};

/// Connections that a tenant's user may have at a time, of all its pods together. A
/// server has 100 unless its administrator says otherwise; kine keeps 20 idle ones at
/// most, and opens more when it needs them.
pub const CONNECTIONS: i32 = 50;

/// One thing that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Repair {
    /// A sentence without full stop.
    pub why: String,
    /// What mends it. `None`: only a person can.
    pub sql: Option<String>,
}

impl Repair {
    pub(super) fn new(why: impl Into<String>, sql: impl Into<String>) -> Self {
        Repair {
            why: why.into(),
            sql: Some(sql.into()),
        }
    }
}

/// What differs, in the order in which it is to be mended.
pub fn repairs(found: &Found, claim: &Claim) -> Vec<Repair> {
    let user = identifier(&claim.user);
    let mut repairs = of_role(found, claim);
    let on = |name: &str| format!("on database {}", identifier(name));
    for name in &found.databases {
        repairs.push(Repair::new(
            format!("user {:?} has rights on database {name:?}", claim.user),
            format!("revoke all {} from {user} cascade", on(name)),
        ));
    }
    let database = on(&claim.schema);
    if let Some(owner) = &found.owner {
        repairs.push(Repair::new(
            format!("database {:?} is owned by {owner:?}", claim.schema),
            format!(
                "alter database {} owner to current_user",
                identifier(&claim.schema)
            ),
        ));
    }
    let enters = claim.stage.lets_in();
    let mut connect = !enters;
    for (grantee, right, passes_on) in &found.grants {
        if enters && *grantee == claim.user && right == "CONNECT" && !passes_on {
            connect = true;
            continue;
        }
        let from = match grantee.as_str() {
            "" => "public".to_owned(),
            name => identifier(name),
        };
        repairs.push(Repair::new(
            format!(
                "{} has the right {right} on database {:?}",
                match grantee.as_str() {
                    "" => "everybody".to_owned(),
                    name => format!("{name:?}"),
                },
                claim.schema
            ),
            format!("revoke all {database} from {from} cascade"),
        ));
        // The right one goes with the others of the same user.
        connect &= !enters || *grantee != claim.user;
    }
    if !connect {
        repairs.push(Repair::new(
            format!(
                "user {:?} may not connect to database {:?}",
                claim.user, claim.schema
            ),
            format!("grant connect {database} to {user}"),
        ));
    }
    // Last, so that nobody enters before the rights are right.
    if !found.open {
        repairs.push(Repair::new(
            format!("database {:?} cannot be entered", claim.schema),
            format!(
                "alter database {} allow_connections true",
                identifier(&claim.schema)
            ),
        ));
    }
    repairs
}

/// A reset of settings that takes away those of PL/pgSQL, too. A tenant's sessions know them,
/// and a server leaves those that a session does not know to superusers.
fn reset(statement: String) -> String {
    format!("do $$begin end$$; {statement}")
}

fn of_role(found: &Found, claim: &Claim) -> Vec<Repair> {
    let (name, user) = (&claim.user, identifier(&claim.user));
    let mut repairs = Vec::new();
    let alter = |what: &str| format!("alter role {user} {what}");
    for attribute in &found.attributes {
        let why = format!("user {name:?} is not {attribute}");
        repairs.push(Repair::new(why, alter(attribute)));
    }
    let (login, connections) = match claim.stage.lets_in() {
        true => ("login", CONNECTIONS),
        false => ("nologin", 0),
    };
    if found.login != claim.stage.lets_in() {
        let why = format!("user {name:?} is not {login}");
        repairs.push(Repair::new(why, alter(login)));
    }
    if found.connections != connections {
        repairs.push(Repair::new(
            format!("user {name:?} does not have exactly {connections} connections"),
            alter(&format!("connection limit {connections}")),
        ));
    }
    if found.expires {
        let why = format!("the password of user {name:?} expires");
        repairs.push(Repair::new(why, alter("valid until 'infinity'")));
    }
    for database in &found.settings {
        repairs.push(match database {
            None => Repair::new(
                format!("user {name:?} has settings of its own"),
                reset(alter("reset all")),
            ),
            Some(database) => Repair::new(
                format!("user {name:?} has settings of its own in database {database:?}"),
                reset(alter(&format!(
                    "in database {} reset all",
                    identifier(database)
                ))),
            ),
        });
    }
    for role in &found.member_of {
        repairs.push(Repair::new(
            format!("user {name:?} is a member of role {role:?}"),
            format!("revoke {} from {user}", identifier(role)),
        ));
    }
    for member in &found.members {
        repairs.push(Repair::new(
            format!("role {member:?} has the rights of user {name:?}"),
            format!("revoke {user} from {}", identifier(member)),
        ));
    }
    for database in &found.elsewhere {
        repairs.push(Repair {
            why: format!(
                "user {name:?} owns something or was given a right in database {database:?}, \
                 which is not its own: take it away there"
            ),
            sql: None,
        });
    }
    repairs
}

/// What the server stores of the user's password, where the administrator may see it.
pub async fn verifier(
    session: &mut Session,
    claim: &Claim,
) -> Result<Option<String>, TenancyError> {
    if !session.superuser {
        return Ok(None);
    }
    let sql = "select coalesce(rolpassword, '') from pg_catalog.pg_authid where rolname = $1";
    let rows = session
        .rows("look at the user", sql, &[&claim.user])
        .await?;
    Ok(names(rows).pop())
}

/// Whether kine's table is there.
pub async fn has_table(session: &mut Session) -> Result<bool, TenancyError> {
    let sql = "select true from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public' and c.relname = 'kine' and c.relkind in ('r', 'p')";
    Ok(session.holds("look for the table", sql, &[]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::Stage;

    fn exact() -> Found {
        Found {
            login: true,
            connections: CONNECTIONS,
            open: true,
            grants: vec![("u".to_owned(), "CONNECT".to_owned(), false)],
            ..Found::default()
        }
    }

    fn sql(change: impl FnOnce(&mut Found)) -> Vec<String> {
        let claim = Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: "s".to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        };
        let mut found = exact();
        change(&mut found);
        let repairs = repairs(&found, &claim);
        let sql = repairs.into_iter().filter_map(|repair| repair.sql);
        sql.collect()
    }

    #[test]
    fn what_is_exact_stays() {
        assert_eq!(sql(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_database_is_opened_last() {
        let repairs = sql(|found| {
            found.open = false;
            found.grants = vec![
                (String::new(), "CONNECT".to_owned(), false),
                ("x".to_owned(), "CREATE".to_owned(), false),
            ];
        });
        assert_eq!(
            repairs,
            [
                "revoke all on database \"s\" from public cascade",
                "revoke all on database \"s\" from \"x\" cascade",
                "grant connect on database \"s\" to \"u\"",
                "alter database \"s\" allow_connections true",
            ]
        );
    }

    /// Who is not to get in does not, and is not given the right to.
    #[test]
    fn nobody_enters_what_is_not_to_be_entered() {
        let claim = Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: "s".to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Left,
            prefix: None,
            replicas: None,
        };
        let sql = |found: &Found, stage| {
            let repairs = repairs(found, &claim.at(stage));
            let sql = repairs.into_iter().filter_map(|repair| repair.sql);
            sql.collect::<Vec<_>>()
        };
        let out = [
            "alter role \"u\" nologin",
            "alter role \"u\" connection limit 0",
            "revoke all on database \"s\" from \"u\" cascade",
        ];
        for stage in [Stage::Incoming, Stage::Left] {
            assert_eq!(sql(&exact(), stage), out);
        }
        assert_eq!(sql(&exact(), Stage::Frozen), Vec::<String>::new());
        let shut = Found {
            open: true,
            ..Found::default()
        };
        assert_eq!(sql(&shut, Stage::Incoming), Vec::<String>::new());
    }

    #[test]
    fn a_right_too_many_is_taken_with_the_others_and_the_right_one_given_again() {
        let repairs = sql(|found| {
            found
                .grants
                .push(("u".to_owned(), "CREATE".to_owned(), false));
        });
        assert_eq!(
            repairs,
            [
                "revoke all on database \"s\" from \"u\" cascade",
                "grant connect on database \"s\" to \"u\"",
            ]
        );
    }
}
