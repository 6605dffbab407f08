//! The range of keys that is a tenant's.

use crate::tenancy::Claim;

/// With what its keys begin.
pub(super) fn prefix(claim: &Claim) -> String {
    format!("/{}/", claim.schema)
}

/// The first key of the tenant and the first after its last. `0` follows `/`.
pub(super) fn span(claim: &Claim) -> (Vec<u8>, Vec<u8>) {
    let schema = &claim.schema;
    (format!("/{schema}/").into(), format!("/{schema}0").into())
}

/// The key right after this one.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    let mut after = key.to_vec();
    after.push(0);
    after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::claims;
    use super::*;
    use crate::tenancy::Stage;

    fn named(schema: &str) -> Claim {
        Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: schema.to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        }
    }

    proptest! {
        /// Ranges of different schemas have no key in common, and no range
        /// reaches the claims.
        #[test]
        fn ranges_do_not_meet(a in "[^/\\p{Cc}]{1,8}", b in "[^/\\p{Cc}]{1,8}", key in ".{0,8}") {
            let claims = (named(&a), named(&b));
            prop_assume!(a != b && claims::admit(&claims.0).is_ok() && claims::admit(&claims.1).is_ok());
            let (a, b) = (span(&claims.0), span(&claims.1));
            prop_assert!(a.1 <= b.0 || b.1 <= a.0);
            prop_assert!(!(a.0.as_slice()..a.1.as_slice()).contains(&claims::ROOT.as_bytes()));
            let inside = [a.0.clone(), key.into_bytes()].concat();
            prop_assert!(a.0 <= inside && inside < a.1);
        }
    }
}
