//! What a tenant's user may do: how it is found, how it should be, and the statements
//! between the two.

use std::collections::BTreeSet;

use super::connection::Session;
use super::names::{account, identifier, pattern};
use crate::tenancy::{Claim, Stage, TenancyError};

/// Connections that a tenant's user may have at a time, of all its pods together. A
/// server has 151 unless its administrator says otherwise; kine keeps 20 idle ones at
/// most, and opens more when it needs them.
pub const CONNECTIONS: u32 = 50;

/// What kine needs in the tenant's database.
const PRIVILEGES: [&str; 7] = [
    "ALTER", "CREATE", "DELETE", "INDEX", "INSERT", "SELECT", "UPDATE",
];

/// Those of them that the user has at a stage. Without any it does not exist.
fn privileges(stage: Stage) -> &'static [&'static str] {
    match stage {
        Stage::Serving => &PRIVILEGES,
        Stage::Frozen => &["SELECT"],
        Stage::Incoming | Stage::Left => &[],
    }
}

/// What mends a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    Statement(String),
    /// Drop what has the name of the user, and make it again: takes everything away that
    /// was ever given to it.
    Anew,
}

/// One thing that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Repair {
    /// A sentence without full stop.
    pub why: String,
    pub mend: Mend,
}

/// What the server says of a tenant's user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// From which hosts it may come; a role has none.
    pub hosts: Vec<String>,
    /// `SHOW CREATE USER`.
    pub account: String,
    /// `SHOW GRANTS`.
    pub grants: Vec<String>,
}

/// Asks the server.
pub async fn find(session: &mut Session, claim: &Claim) -> Result<Found, TenancyError> {
    let sql = "select cast(Host as char) from mysql.user where User = ? order by Host";
    let hosts: Vec<(String,)> = session
        .rows("look at the user", sql, &[&claim.user])
        .await?;
    let mut found = Found {
        hosts: hosts.into_iter().map(|row| row.0).collect(),
        ..Found::default()
    };
    if found.hosts.iter().any(|host| host == "%") {
        let user = account(&claim.user);
        let sql = format!("show create user {user}");
        found.account = session.show("look at the user", sql).await?.join(" ");
        let sql = format!("show grants for {user}");
        found.grants = session.show("look at rights", sql).await?;
    }
    Ok(found)
}

/// What differs, in the order in which it is to be mended.
pub fn repairs(found: &Found, claim: &Claim) -> Vec<Repair> {
    let name = &claim.user;
    let mut repairs = Vec::new();
    let mut anew = |why: String| {
        repairs.push(Repair {
            why,
            mend: Mend::Anew,
        });
    };
    if found.hosts.is_empty() {
        anew(format!("user {name:?} does not exist"));
        return repairs;
    }
    if found.hosts != ["%"] {
        anew(format!(
            "there are other users {name:?} than the one from everywhere"
        ));
        return repairs;
    }
    let mut whole = false;
    let mut excesses = Vec::new();
    for grant in &found.grants {
        match kind(grant, claim) {
            Grant::Nothing => {}
            Grant::Exact => whole = true,
            Grant::Excess(excess) => {
                // First, and without a moment in which it has none.
                whole = privileges(claim.stage)
                    .iter()
                    .all(|own| excess.had.contains(own));
                excesses.push(excess.too_many);
            }
            Grant::Other(what) => anew(format!(
                "user {name:?} has other rights than its own: {what}"
            )),
        }
    }
    for excess in excesses {
        repairs.push(Repair {
            why: format!(
                "user {name:?} may do more than it should: {}",
                excess.join(", ")
            ),
            mend: Mend::Statement(format!(
                "revoke {} on {}.* from {}",
                excess.join(", "),
                identifier(&pattern(&claim.schema)),
                account(name)
            )),
        });
    }
    if !whole {
        repairs.push(Repair {
            why: format!(
                "user {name:?} does not have its rights on database {:?}",
                claim.schema
            ),
            mend: Mend::Statement(grant(claim)),
        });
    }
    if !is_as_made(&found.account) {
        repairs.push(Repair {
            why: format!(
                "user {name:?} has other limits than {CONNECTIONS} connections, or is locked, \
                 or must do more than show its password"
            ),
            mend: Mend::Statement(format!("alter user {} {}", account(name), attributes())),
        });
    }
    repairs
}

/// Gives the rights that a tenant has.
fn grant(claim: &Claim) -> String {
    format!(
        "grant {} on {}.* to {}",
        privileges(claim.stage).join(", "),
        identifier(&pattern(&claim.schema)),
        account(&claim.user)
    )
}

/// Everything about a user but name, password and rights.
pub fn attributes() -> String {
    format!(
        "require none with max_queries_per_hour 0 max_updates_per_hour 0 \
         max_connections_per_hour 0 max_user_connections {CONNECTIONS} \
         password expire never account unlock"
    )
}

/// Whether `SHOW CREATE USER` says what [`attributes`] made. What is not said is as it is
/// without; hashes of passwords have neither blanks nor small letters in a row that
/// could be taken for these words.
fn is_as_made(account: &str) -> bool {
    let words: Vec<&str> = account.split_whitespace().collect();
    let has = |phrase: &[&str]| {
        words.windows(phrase.len()).any(|window| {
            window
                .iter()
                .zip(phrase)
                .all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    };
    let connections = CONNECTIONS.to_string();
    let limited = [
        "MAX_QUERIES_PER_HOUR",
        "MAX_UPDATES_PER_HOUR",
        "MAX_CONNECTIONS_PER_HOUR",
    ];
    let free = |limit: &&str| !has(&[limit]) || has(&[limit, "0"]);
    has(&["MAX_USER_CONNECTIONS", &connections])
        && limited.iter().all(free)
        && (!has(&["REQUIRE"]) || has(&["REQUIRE", "NONE"]))
        && has(&["PASSWORD", "EXPIRE", "NEVER"])
        && !has(&["ACCOUNT", "LOCK"])
}

/// What a line of `SHOW GRANTS` gives.
#[derive(Debug, PartialEq, Eq)]
enum Grant {
    Nothing,
    Exact,
    /// Its own rights of another stage.
    Excess(Excess),
    /// In words without hashes.
    Other(String),
}

/// Rights on the own database, some of which are too many at this stage.
#[derive(Debug, PartialEq, Eq)]
struct Excess {
    had: Vec<&'static str>,
    too_many: Vec<&'static str>,
}

fn kind(line: &str, claim: &Claim) -> Grant {
    let other = || Grant::Other(line.split(" TO ").next().unwrap_or(line).to_owned());
    let parts = line
        .strip_prefix("GRANT ")
        .and_then(|rest| rest.split_once(" TO "))
        .and_then(|(given, to)| Some((given.split_once(" ON ")?, to)));
    let Some(((rights, object), to)) = parts else {
        return other();
    };
    if to.contains("GRANT OPTION") {
        return other();
    }
    if rights == "USAGE" {
        return Grant::Nothing;
    }
    let given: BTreeSet<&str> = rights.split(", ").collect();
    let own = format!("{}.*", identifier(&pattern(&claim.schema)));
    if object != own || !given.is_subset(&BTreeSet::from(PRIVILEGES)) {
        return other();
    }
    let wanted = privileges(claim.stage);
    let had: Vec<_> = PRIVILEGES
        .into_iter()
        .filter(|it| given.contains(it))
        .collect();
    let too_many: Vec<_> = had
        .iter()
        .copied()
        .filter(|it| !wanted.contains(it))
        .collect();
    match (too_many.is_empty(), had.len() == wanted.len()) {
        (true, true) => Grant::Exact,
        // Fewer of its own are made more by giving them again.
        (true, false) => Grant::Nothing,
        (false, _) => Grant::Excess(Excess { had, too_many }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: "a_b".to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        }
    }

    const OWN: &str = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX, ALTER ON `a\\_b`.* \
                       TO `u`@`%`";

    #[test]
    fn grants_are_told_apart() {
        let kind = |line: &str| kind(line, &claim());
        assert_eq!(kind(OWN), Grant::Exact);
        let usage = "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*X' WITH \
                     MAX_USER_CONNECTIONS 50";
        assert_eq!(kind(usage), Grant::Nothing);
        assert_eq!(kind("GRANT SELECT ON `a\\_b`.* TO `u`@`%`"), Grant::Nothing);
        for other in [
            "GRANT USAGE ON *.* TO `u`@`%` WITH GRANT OPTION",
            "GRANT SELECT ON *.* TO `u`@`%`",
            "GRANT ALL PRIVILEGES ON `a\\_b`.* TO `u`@`%`",
            "GRANT SELECT ON `a_b`.* TO `u`@`%`",
            "GRANT SELECT ON `axb`.* TO `u`@`%`",
            "GRANT SELECT ON `a_b`.`kine` TO `u`@`%`",
            "GRANT `more` TO `u`@`%`",
            "GRANT PROXY ON 'x'@'%' TO 'u'@'%'",
            "SET DEFAULT ROLE `more` FOR `u`@`%`",
            &OWN.replace(" TO `u`@`%`", " TO `u`@`%` WITH GRANT OPTION"),
        ] {
            assert!(matches!(kind(other), Grant::Other(_)), "{other}");
        }
    }

    #[test]
    fn a_frozen_user_reads() {
        let claim = claim().at(Stage::Frozen);
        let found = |grants: &[&str]| Found {
            hosts: vec!["%".to_owned()],
            account: format!(
                "CREATE USER `u`@`%` WITH MAX_USER_CONNECTIONS {CONNECTIONS} \
                              PASSWORD EXPIRE NEVER"
            ),
            grants: grants.iter().map(|&grant| grant.to_owned()).collect(),
        };
        let sql = |grants: &[&str]| {
            let repairs = repairs(&found(grants), &claim).into_iter();
            repairs.map(|it| it.mend).collect::<Vec<_>>()
        };
        let statement = |sql: &str| Mend::Statement(sql.to_owned());
        assert_eq!(sql(&["GRANT SELECT ON `a\\_b`.* TO `u`@`%`"]), []);
        let grant = "grant SELECT on `a\\_b`.* to 'u'@'%'";
        assert_eq!(sql(&[]), [statement(grant)]);
        let revoke = "revoke ALTER, CREATE, DELETE, INDEX, INSERT, UPDATE on `a\\_b`.* from \
                      'u'@'%'";
        assert_eq!(sql(&[OWN]), [statement(revoke)]);
        let write = "GRANT INSERT ON `a\\_b`.* TO `u`@`%`";
        let revoke = "revoke INSERT on `a\\_b`.* from 'u'@'%'";
        assert_eq!(sql(&[write]), [statement(revoke), statement(grant)]);
    }

    #[test]
    fn attributes_are_read_back() {
        let mariadb = "CREATE USER `u`@`%` IDENTIFIED BY PASSWORD '*X' WITH \
                       MAX_USER_CONNECTIONS 50 PASSWORD EXPIRE NEVER";
        let mysql = "CREATE USER `u`@`%` IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$' \
                     REQUIRE NONE WITH MAX_USER_CONNECTIONS 50 PASSWORD EXPIRE NEVER ACCOUNT \
                     UNLOCK PASSWORD HISTORY DEFAULT";
        for account in [mariadb, mysql] {
            assert!(is_as_made(account), "{account}");
            for (from, to) in [
                ("50", "500"),
                ("NEVER", "INTERVAL 1 DAY"),
                (" PASSWORD EXPIRE NEVER", ""),
                ("PASSWORD EXPIRE", "ACCOUNT LOCK PASSWORD EXPIRE"),
                (" WITH MAX", " REQUIRE SSL WITH MAX"),
                (" WITH MAX", " WITH MAX_QUERIES_PER_HOUR 1 MAX"),
            ] {
                let account = account.replace("REQUIRE NONE ", "").replace(from, to);
                assert!(!is_as_made(&account), "{account}");
            }
        }
    }
}
