//! What an account is allowed, and by whom its users are signed.

use nkeys::KeyPair;
use serde_json::{Value, json};

use super::keys;
use super::token;
use crate::tenancy::{Claim, TenancyError};

/// Connections that a tenant's account has at most: one for each kine, and ours.
const CONNECTIONS: u32 = 64;

/// An account as it should be.
pub struct Wanted {
    /// Its public key.
    pub account: String,
    name: String,
    nats: Value,
}

impl Wanted {
    /// A tenant's, whose users the key `signer` signs; without one nobody gets in but the
    /// administrator.
    pub fn of_tenant(claim: &Claim, operator: &str, signer: Option<&str>) -> Self {
        let account = keys::account_of(claim);
        let mut signers = vec![administrator(operator, &account)];
        if let Some(key) = signer {
            signers.push(json!({
                "kind": "user_scope",
                "key": key,
                "role": "tenant",
                "template": template(&claim.schema),
            }));
        }
        Wanted {
            name: claim.role().to_owned(),
            nats: nats(&signers, CONNECTIONS),
            account,
        }
    }

    /// The one with the claims.
    pub fn of_claims(operator: &str) -> Self {
        let account = keys::account_of_claims();
        Wanted {
            name: "steward".to_owned(),
            nats: nats(&[administrator(operator, &account)], CONNECTIONS),
            account,
        }
    }

    /// The token that makes it so, newer than what is there.
    pub fn token(
        &self,
        operator: &KeyPair,
        now: u64,
        there: Option<&Found>,
    ) -> Result<String, TenancyError> {
        let newer = there.map_or(0, |there| there.issued.saturating_add(1));
        let claims = token::Claims {
            subject: &self.account,
            name: &self.name,
            issued: now.max(newer),
            nats: self.nats.clone(),
        };
        token::sign(&claims, operator)
    }

    /// Whether an account is as it should be, and signed by this operator's key.
    pub fn is(&self, found: &Found, operator: &KeyPair) -> bool {
        found.issuer == operator.public_key() && found.name == self.name && found.nats == self.nats
    }
}

/// Streams of one account: its bucket, or the claims.
const STREAMS: u32 = 1;

/// Nothing is imported from other accounts, nothing exported, and there are no leaf nodes: an
/// absent limit is zero.
fn nats(signers: &[Value], connections: u32) -> Value {
    json!({
        "limits": {
            "conn": connections,
            "consumer": -1,
            "data": -1,
            "disallow_bearer": true,
            "disk_storage": -1,
            "payload": -1,
            "streams": STREAMS,
            "subs": -1,
        },
        "signing_keys": signers,
        "type": "account",
        "version": 2,
    })
}

fn administrator(operator: &str, account: &str) -> Value {
    json!(keys::administrators_signer(operator, account).public_key())
}

/// What kine does with a bucket. Deleting, purging and restoring it is not among that.
fn template(schema: &str) -> Value {
    let stream = format!("KV_{schema}");
    let publish = [
        format!("$KV.{schema}.>"),
        "$JS.API.INFO".to_owned(),
        format!("$JS.API.STREAM.CREATE.{stream}"),
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.>"),
        format!("$JS.API.CONSUMER.INFO.{stream}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.>"),
        format!("$JS.ACK.{stream}.>"),
        format!("$JS.FC.{stream}.>"),
    ];
    json!({
        "allowed_connection_types": ["STANDARD"],
        "data": -1,
        "payload": -1,
        "pub": { "allow": publish },
        "sub": { "allow": ["_INBOX.>"] },
        "subs": -1,
    })
}

/// An account as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    issuer: String,
    issued: u64,
    name: String,
    nats: Value,
}

impl Found {
    /// From its token.
    pub fn read(token: &str) -> Option<Self> {
        let payload = token::payload(token)?;
        let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
        Some(Found {
            issuer: text("iss"),
            issued: payload["iat"].as_u64().unwrap_or(0),
            name: text("name"),
            nats: payload["nats"].clone(),
        })
    }

    /// Whether another token of the account came later.
    pub fn is_older_than(&self, other: &Found) -> bool {
        self.issued < other.issued
    }

    /// The key that signs the tenant's user.
    pub fn tenants_signer(&self) -> Option<&str> {
        let keys = self.nats["signing_keys"].as_array()?;
        keys.iter().find_map(|key| key["key"].as_str())
    }

    /// Whether our users get in.
    pub fn lets_in(&self, signer: &KeyPair) -> bool {
        let own = signer.public_key();
        let keys = self.nats["signing_keys"].as_array();
        keys.is_some_and(|keys| keys.iter().any(|key| key.as_str() == Some(&own)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::nats::testing::claim;

    #[test]
    fn what_is_wanted_is_known_again() {
        let operator = KeyPair::new_operator();
        let seed = operator.seed().unwrap();
        let a = claim("1", "a", "u");
        let wanted = Wanted::of_tenant(&a, &seed, Some("AKEY"));
        let found = Found::read(&wanted.token(&operator, 5, None).unwrap()).unwrap();
        assert!(wanted.is(&found, &operator));
        assert_eq!(found.tenants_signer(), Some("AKEY"));
        let own = keys::administrators_signer(&seed, &wanted.account);
        assert!(found.lets_in(&own));
        for other in [
            Wanted::of_tenant(&a, &seed, None),
            Wanted::of_tenant(&a, &seed, Some("AOTHER")),
            Wanted::of_tenant(&claim("1", "b", "u"), &seed, Some("AKEY")),
        ] {
            assert!(!other.is(&found, &operator));
        }
        assert!(!wanted.is(&found, &KeyPair::new_operator()));
    }

    #[test]
    fn what_comes_later_is_newer() {
        let operator = KeyPair::new_operator();
        let wanted = Wanted::of_claims(&operator.seed().unwrap());
        let read = |token: String| Found::read(&token).unwrap();
        let first = read(wanted.token(&operator, 5, None).unwrap());
        let second = read(wanted.token(&operator, 5, Some(&first)).unwrap());
        assert_eq!((first.issued, second.issued), (5, 6));
        let third = read(wanted.token(&operator, 9, Some(&second)).unwrap());
        assert_eq!(third.issued, 9);
    }
}
