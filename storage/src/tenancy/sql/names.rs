//! Names and passwords that a connection string of kine can carry.

use crate::tenancy::{Claim, Password, Stage, TenancyError};

/// The database with the claims.
pub const PLACE: &str = "steward";

/// What a driver says about names.
pub struct Rules<'a> {
    /// Bytes of a schema.
    pub schema_length: usize,
    /// Bytes of a user.
    pub user_length: usize,
    /// Names of the server itself, in small letters.
    pub reserved: &'a [&'a str],
    /// Beginnings of such names.
    pub reserved_prefixes: &'a [&'a str],
    /// The administrator.
    pub administrator: &'a str,
}

/// Refuses names that nobody may have.
pub fn admit(claim: &Claim, rules: &Rules) -> Result<(), TenancyError> {
    if claim.uid.is_empty() {
        return Err(TenancyError::Refused(
            "a claim needs the uid of a tenant control plane".to_owned(),
        ));
    }
    for (what, name, length) in [
        ("schema", &claim.schema, rules.schema_length),
        ("user", &claim.user, rules.user_length),
    ] {
        if let Some(reason) = fault(name, length, rules) {
            return Err(TenancyError::Refused(format!(
                "the datastore {what} {name:?} cannot be used: it {reason}"
            )));
        }
    }
    if claim.schema.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(TenancyError::Refused(format!(
            "the datastore schema {:?} cannot be used: it contains capital letters, which \
             kine or the server may turn into small ones",
            claim.schema
        )));
    }
    Ok(())
}

fn fault(name: &str, length: usize, rules: &Rules) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let small = name.to_ascii_lowercase();
    let begins = |prefix: &&&str| small.starts_with(**prefix);
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > length {
        Some(format!("is longer than {length} bytes"))
    } else if !name.chars().all(allowed) {
        Some("contains other characters than a-z, A-Z, 0-9, '_', '-' and '.'".to_owned())
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        Some("does not begin with a letter, a digit or '_'".to_owned())
    } else if name == rules.administrator {
        Some("is the administrator's".to_owned())
    } else if small == PLACE {
        Some("is reserved for Steward".to_owned())
    } else if rules.reserved.contains(&small.as_str())
        || rules.reserved_prefixes.iter().find(begins).is_some()
    {
        Some("is reserved for the server".to_owned())
    } else {
        None
    }
}

/// The stage in a row of claims.
pub fn stage_of(schema: &str, text: &str) -> Result<Stage, TenancyError> {
    Stage::parse(text).ok_or_else(|| {
        TenancyError::Refused(format!(
            "the claim on schema {schema:?} is at the stage {text:?}, which this version of \
             Steward does not know"
        ))
    })
}

/// Refuses passwords that servers and kine do not all read as the same.
pub fn admit_password(password: &Password) -> Result<(), TenancyError> {
    let text = password.expose();
    let plain = text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if text.is_empty() || text.len() > 128 || !plain {
        return Err(TenancyError::Refused(
            "the password of the tenant's user cannot be used: it must be 1 to 128 printable \
             ASCII characters without blanks"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(schema: &str, user: &str) -> Result<(), TenancyError> {
        let rules = Rules {
            schema_length: 63,
            user_length: 63,
            reserved: &["postgres"],
            reserved_prefixes: &["pg_"],
            administrator: "Boss",
        };
        let claim = Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: schema.to_owned(),
            user: user.to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        };
        admit(&claim, &rules)
    }

    #[test]
    fn names_that_nobody_may_have() {
        for good in ["default_tenant", "a-b.c", "0", "_", "postgresq", "pg"] {
            assert_eq!(with(good, good), Ok(()), "{good}");
        }
        let long = "x".repeat(64);
        for bad in [
            "", "Boss", "postgres", "PG_x", "steward", "Steward", "a/b", "a?b", "a@b", "a:b",
            "a%b", "a#b", "a&b", "a b", "a\"b", "a'b", "a`b", "a\\b", "a\n", "\0", "é", "..", "-a",
            &long,
        ] {
            assert!(with(bad, "u").is_err(), "{bad:?} as a schema");
            assert!(with("s", bad).is_err(), "{bad:?} as a user");
        }
        assert!(with("S", "u").is_err());
        assert_eq!(with("s", "U"), Ok(()));
        let message = with("s", "Boss").unwrap_err().to_string();
        assert_eq!(
            message,
            "the datastore user \"Boss\" cannot be used: it is the administrator's"
        );
    }

    #[test]
    fn passwords() {
        let with = |text: &str| admit_password(&Password::new(text)).is_ok();
        assert!(with("8f9e-'\\\"`$%"));
        for bad in ["", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(!with(bad), "{bad:?}");
        }
    }
}
