//! What an account is allowed, and by whom its users are signed.

use std::collections::BTreeMap;

use nkeys::KeyPair;
use serde_json::{Value, json};

use super::keys;
use super::token;
use crate::tenancy::{Claim, TenancyError};

/// How long the user of a former password is let in after another was set: pods have that
/// password until they are replaced, and a server ends the connections of whoever it does not
/// let in any more.
const FORMER_SECONDS: u64 = 600;

/// How many former passwords let in at most; of more the oldest ends at once.
const FORMERS: usize = 3;

/// In front of the keys of former passwords, in the account's description: a scope that is
/// changed ends the connections of its users, so they cannot be told there.
const FORMER: &str = "former keys, and until when:";

/// A key that signs the user of a former password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    key: String,
    /// Seconds since 1970.
    until: u64,
}

/// Who signs the users of a tenant's account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// The key of the password that counts; without one nobody gets in but the administrator.
    pub current: Option<String>,
    /// Keys of those before, the latest first.
    pub formers: Vec<Former>,
}

impl Signers {
    /// Of an account after its password has become the one of the key `current`.
    pub fn after(found: Option<&Found>, current: &str, now: u64) -> Self {
        let before = found.map(Found::signers).unwrap_or_default();
        let replaced = before.current.map(|key| Former {
            key,
            until: now.saturating_add(FORMER_SECONDS),
        });
        let formers = replaced.into_iter().chain(before.formers);
        Signers {
            current: Some(current.to_owned()),
            formers: formers
                // What a clock that was wrong has written ends in time all the same.
                .filter(|it| it.key != current && it.until > now)
                .filter(|it| it.until <= now.saturating_add(FORMER_SECONDS))
                .take(FORMERS)
                .collect(),
        }
    }

    /// Whether the time of one of the formers is over.
    pub fn is_due(&self, now: u64) -> bool {
        let in_time = now..=now.saturating_add(FORMER_SECONDS);
        self.formers.iter().any(|it| !in_time.contains(&it.until))
    }

    fn description(&self) -> Option<String> {
        let each = self.formers.iter();
        let all: String = each.map(|it| format!(" {} {}", it.key, it.until)).collect();
        (!all.is_empty()).then(|| format!("{FORMER}{all}"))
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        let formers = self.formers.iter().map(|it| &it.key);
        self.current.iter().chain(formers)
    }
}

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
    /// A tenant's.
    pub fn of_tenant(claim: &Claim, operator: &str, signers: &Signers) -> Self {
        let account = keys::account_of(claim);
        let mut all = vec![administrator(operator, &account)];
        all.extend(signers.keys().map(|key| {
            json!({
                "kind": "user_scope",
                "key": key,
                "role": "tenant",
                "template": template(&claim.schema),
            })
        }));
        let mut nats = nats(&all, CONNECTIONS);
        if let Some(text) = signers.description() {
            nats["description"] = json!(text);
        }
        Wanted {
            name: claim.role().to_owned(),
            nats,
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
            id: token::Id::Once,
        };
        token::sign(&claims, operator)
    }

    /// Whether an account is as it should be, and signed by this operator's key.
    pub fn is(&self, found: &Found, operator: &KeyPair) -> bool {
        found.issuer == operator.public_key() && found.name == self.name && found.nats == self.nats
    }

    /// Whether an account gives the tenant exactly what it should, whoever signed it, and
    /// whatever key of the administrator's it lists: both follow from the operator's key.
    pub fn gives_the_same(&self, found: &Found) -> bool {
        let mut nats = found.nats.clone();
        let own = &self.nats["signing_keys"][0];
        match nats["signing_keys"].get_mut(0) {
            Some(former) if former.is_string() => *former = own.clone(),
            _ => return false,
        }
        found.name == self.name && nats == self.nats
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

    /// The keys that sign the tenant's users.
    pub fn signers(&self) -> Signers {
        let keys = self.nats["signing_keys"].as_array().into_iter().flatten();
        let text = self.nats["description"].as_str().unwrap_or_default();
        let words = text.strip_prefix(FORMER).unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        let until: BTreeMap<&str, u64> = words
            .chunks_exact(2)
            .filter_map(|pair| Some((pair[0], pair[1].parse().ok()?)))
            .collect();
        let mut signers = Signers::default();
        for key in keys.filter_map(|key| key["key"].as_str()) {
            match until.get(key) {
                Some(until) => signers.formers.push(Former {
                    key: key.to_owned(),
                    until: *until,
                }),
                None => signers.current = signers.current.or_else(|| Some(key.to_owned())),
            }
        }
        signers
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
        let by = |key: &str| Signers::after(None, key, 5);
        let wanted = Wanted::of_tenant(&a, &seed, &by("AKEY"));
        let found = Found::read(&wanted.token(&operator, 5, None).unwrap()).unwrap();
        assert!(wanted.is(&found, &operator));
        assert_eq!(found.signers(), by("AKEY"));
        let own = keys::administrators_signer(&seed, &wanted.account);
        assert!(found.lets_in(&own));
        for other in [
            Wanted::of_tenant(&a, &seed, &Signers::default()),
            Wanted::of_tenant(&a, &seed, &by("AOTHER")),
            Wanted::of_tenant(&claim("1", "b", "u"), &seed, &by("AKEY")),
        ] {
            assert!(!other.is(&found, &operator));
        }
        assert!(!wanted.is(&found, &KeyPair::new_operator()));
    }

    /// Another key of the operator is another one of the administrator's, too.
    #[test]
    fn another_operators_key_gives_the_same() {
        let (before, after) = (KeyPair::new_operator(), KeyPair::new_operator());
        let a = claim("1", "a", "u");
        let of = |operator: &KeyPair, claim: &Claim, key: &str| {
            let signers = Signers::after(None, key, 5);
            Wanted::of_tenant(claim, &operator.seed().unwrap(), &signers)
        };
        let token = of(&before, &a, "AKEY").token(&before, 5, None).unwrap();
        let found = Found::read(&token).unwrap();
        let wanted = of(&after, &a, "AKEY");
        assert!(!wanted.is(&found, &after));
        assert!(wanted.gives_the_same(&found));
        assert!(!of(&after, &a, "AOTHER").gives_the_same(&found));
        assert!(!of(&after, &claim("1", "b", "u"), "AKEY").gives_the_same(&found));
        // One more key, which is nobody's whom we know.
        let mut more = found.clone();
        let keys = more.nats["signing_keys"].as_array_mut().unwrap();
        keys.push(json!("ASTRANGER"));
        assert!(!wanted.gives_the_same(&more));
        // None of ours, and the tenant's alone.
        let mut none = found;
        none.nats["signing_keys"].as_array_mut().unwrap().remove(0);
        assert!(!wanted.gives_the_same(&none));
    }

    /// The account as a server has it.
    fn there(signers: &Signers) -> Found {
        let operator = KeyPair::new_operator();
        let seed = operator.seed().unwrap();
        let wanted = Wanted::of_tenant(&claim("1", "a", "u"), &seed, signers);
        Found::read(&wanted.token(&operator, 5, None).unwrap()).unwrap()
    }

    #[test]
    fn former_passwords_let_in_for_a_time() {
        let former = |key: &str, until| Former {
            key: key.to_owned(),
            until,
        };
        let one = Signers::after(None, "A1", 1000);
        assert_eq!(one.formers, []);
        let two = Signers::after(Some(&there(&one)), "A2", 2000);
        assert_eq!(two.current.as_deref(), Some("A2"));
        assert_eq!(two.formers, [former("A1", 2600)]);
        assert_eq!(there(&two).signers(), two);
        // The same again changes nothing, and is not a beginning of another ten minutes.
        assert_eq!(Signers::after(Some(&there(&two)), "A2", 2001), two);
        assert!(!two.is_due(2600) && two.is_due(2601));
        assert_eq!(Signers::after(Some(&there(&two)), "A2", 2600).formers, []);
        // Back to the first.
        let back = Signers::after(Some(&there(&two)), "A1", 2100);
        assert_eq!(back.current.as_deref(), Some("A1"));
        assert_eq!(back.formers, [former("A2", 2700)]);
        // Many: the latest stay.
        let mut many = one;
        for number in 2..9 {
            many = Signers::after(Some(&there(&many)), &format!("A{number}"), 3000);
        }
        let keys: Vec<&str> = many.formers.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["A7", "A6", "A5"]);
        // A clock that went back does not make it longer.
        assert!(two.is_due(1000));
        assert_eq!(Signers::after(Some(&there(&two)), "A2", 1000).formers, []);
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
