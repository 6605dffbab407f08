//! Names that a bucket, a subject and a token can carry.

use crate::tenancy::{Claim, TenancyError};

/// Bytes of a bucket: its name with `KV_` is the name of a stream and of a directory.
const SCHEMA: usize = 128;
/// Bytes of a user.
const USER: usize = 128;

/// Refuses names that nobody may have.
pub fn admit(claim: &Claim) -> Result<(), TenancyError> {
    if claim.uid.is_empty() {
        return Err(TenancyError::Refused(
            "a claim needs the uid of a tenant control plane".to_owned(),
        ));
    }
    let bucket = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let user = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let schema_fault = fault(&claim.schema, SCHEMA, bucket, "'_' and '-'");
    let user_fault = fault(&claim.user, USER, user, "'_', '-' and '.'");
    for (what, name, fault) in [
        ("schema", &claim.schema, schema_fault),
        ("user", &claim.user, user_fault),
    ] {
        if let Some(fault) = fault {
            return Err(TenancyError::Refused(format!(
                "the datastore {what} {name:?} cannot be used: it {fault}"
            )));
        }
    }
    Ok(())
}

fn fault(name: &str, length: usize, allowed: fn(char) -> bool, others: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > length {
        Some(format!("is longer than {length} bytes"))
    } else if !name.chars().all(allowed) {
        Some(format!(
            "contains other characters than a-z, A-Z, 0-9, {others}"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::nats::testing::claim;

    #[test]
    fn names_that_nobody_may_have() {
        for good in ["default_tenant", "a-b", "0", "_", "steward", "S"] {
            assert_eq!(admit(&claim("1", good, good)), Ok(()), "{good}");
        }
        assert_eq!(admit(&claim("1", "s", "a.b")), Ok(()));
        let long = "x".repeat(129);
        for bad in [
            "", "a.b", "a>b", ">", "*", "a*", "a/b", "a?b", "a,b", "a&b", "a b", "a\n", "\0", "é",
            "..", &long,
        ] {
            assert!(admit(&claim("1", bad, "u")).is_err(), "{bad:?} as a schema");
        }
        for bad in ["", ">", "*", "a b", "a\r\n", "é", &long] {
            assert!(admit(&claim("1", "s", bad)).is_err(), "{bad:?} as a user");
        }
        assert!(admit(&claim("", "s", "u")).is_err());
    }
}
