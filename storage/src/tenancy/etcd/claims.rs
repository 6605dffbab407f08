//! Who holds which name: keys that only root can write, outside every tenant's
//! range (rule 17).
//!
//! `/steward.butlerlabs.dev/claims/schema/<schema>` and `.../user/<user>`, both
//! with the [`Claim`] as JSON, written and deleted together in one transaction.

use etcd_client::{Compare, CompareOp, DeleteOptions, KeyValue, Txn, TxnOp};

use super::connection::Link;
use crate::tenancy::{Claim, TenancyError, too_fast};

/// The keys of ours begin with this.
pub const ROOT: &str = "/steward.butlerlabs.dev/";

/// How often a race for a name is run again.
const ATTEMPTS: usize = 5;

/// Refuses names that nobody may have.
pub fn admit(claim: &Claim) -> Result<(), TenancyError> {
    // A schema is a part of a key and the name of a role.
    let reserved = ROOT.trim_matches('/');
    for (what, name) in [("schema", &claim.schema), ("user", &claim.user)] {
        let reason = if name.is_empty() {
            "is empty"
        } else if name.len() > 255 {
            "is longer than 255 bytes"
        } else if name.contains('/') {
            "contains '/'"
        } else if name.chars().any(char::is_control) {
            "contains control characters"
        } else if name == "root" {
            "is the administrator's"
        } else if name == reserved {
            "is reserved for Steward"
        } else {
            continue;
        };
        return Err(TenancyError::Refused(format!(
            "the datastore {what} {name:?} cannot be used: it {reason}"
        )));
    }
    // A role of another name would be another tenant's, or the administrator's.
    let own = Claim::role_of(&claim.schema, &claim.uid);
    if claim.role.as_ref().is_some_and(|role| *role != own) {
        return Err(TenancyError::Refused(format!(
            "the datastore role {:?} cannot be used: it is not that of schema {:?}",
            claim.role(),
            claim.schema
        )));
    }
    if claim.uid.is_empty() {
        return Err(TenancyError::Refused(
            "a claim needs the uid of a tenant control plane".to_owned(),
        ));
    }
    Ok(())
}

/// Whether both names are claimed for this uid.
///
/// # Errors
/// [`TenancyError::SchemaTaken`] if either is claimed for another.
pub async fn held(link: &Link, claim: &Claim) -> Result<bool, TenancyError> {
    Ok(standing(link, claim).await? == Standing::Held)
}

/// How much of a claim is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both names.
    Held,
    /// One of them.
    Partly,
    /// Neither.
    Absent,
}

/// How much of this claim is there.
///
/// # Errors
/// [`TenancyError::SchemaTaken`] if either name is claimed for another.
pub async fn standing(link: &Link, claim: &Claim) -> Result<Standing, TenancyError> {
    let found = read(link, claim).await?;
    Ok(match found.iter().flatten().count() {
        0 => Standing::Absent,
        1 => Standing::Partly,
        _ => Standing::Held,
    })
}

/// A claim as it is stored, and that it is still so as the condition of a transaction.
pub struct Hold {
    pub claim: Claim,
    pub unchanged: Vec<Compare>,
}

/// What is stored. `None`: not both names are claimed for this uid.
///
/// # Errors
/// [`TenancyError::SchemaTaken`] if either is claimed for another.
pub async fn hold(link: &Link, claim: &Claim) -> Result<Option<Hold>, TenancyError> {
    let found = read(link, claim).await?;
    let [Some(schema), Some(_)] = &found else {
        return Ok(None);
    };
    // It was read before.
    let stored = serde_json::from_slice(schema.value())
        .map_err(|e| TenancyError::Refused(format!("the claim cannot be read: {e}")))?;
    Ok(Some(Hold {
        claim: stored,
        unchanged: unchanged(claim, &found),
    }))
}

/// Writes a claim in place of what is held; whether it was still so.
pub async fn rewrite(link: &Link, hold: &Hold, claim: &Claim) -> Result<bool, TenancyError> {
    let value = serde_json::to_vec(claim).map_err(|e| TenancyError::Other(e.to_string()))?;
    let puts: Vec<_> = keys(claim)
        .iter()
        .map(|(_, key)| TxnOp::put(key.as_str(), value.clone(), None))
        .collect();
    let txn = Txn::new().when(hold.unchanged.clone()).and_then(puts);
    run(link, "change the stage", txn).await
}

/// Carries out operations if the claims are still as they were; whether they were.
pub async fn under(
    link: &Link,
    what: &'static str,
    hold: &[Compare],
    operations: Vec<TxnOp>,
) -> Result<bool, TenancyError> {
    run(link, what, Txn::new().when(hold).and_then(operations)).await
}

/// Deletes keys if the claims are still as they were; whether they were. Who
/// asks may be late: the names may be another tenant's by now.
pub async fn delete_under(
    link: &Link,
    hold: &[Compare],
    from: &[u8],
    to: &[u8],
) -> Result<bool, TenancyError> {
    let options = DeleteOptions::new().with_range(to);
    let delete = TxnOp::delete(from, Some(options));
    under(link, "delete keys", hold, vec![delete]).await
}

/// Claims both names, or neither.
pub async fn take(link: &Link, claim: &Claim) -> Result<(), TenancyError> {
    let value = serde_json::to_vec(claim).map_err(|e| TenancyError::Other(e.to_string()))?;
    for _ in 0..ATTEMPTS {
        let found = read(link, claim).await?;
        if found.iter().all(Option::is_some) {
            return Ok(());
        }
        let puts: Vec<_> = keys(claim)
            .iter()
            .map(|(_, key)| TxnOp::put(key.as_str(), value.clone(), None))
            .collect();
        let txn = Txn::new().when(unchanged(claim, &found)).and_then(puts);
        if run(link, "claim", txn).await? {
            return Ok(());
        }
    }
    Err(too_fast())
}

/// Deletes the claim of this uid. Nothing to do if there is none.
pub async fn give_back(link: &Link, claim: &Claim) -> Result<(), TenancyError> {
    for _ in 0..ATTEMPTS {
        let found = read(link, claim).await?;
        let deletes: Vec<_> = keys(claim)
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_some())
            .map(|((_, key), _)| TxnOp::delete(key.as_str(), None))
            .collect();
        if deletes.is_empty() {
            return Ok(());
        }
        let txn = Txn::new().when(unchanged(claim, &found)).and_then(deletes);
        if run(link, "release the claim", txn).await? {
            return Ok(());
        }
    }
    Err(too_fast())
}

/// Where all claims are: the first key and the first after the last, for
/// schemas and for users. `0` follows `/`.
pub fn spans() -> [(Vec<u8>, Vec<u8>); 2] {
    ["schema", "user"].map(|kind| {
        let key = |end: char| format!("{ROOT}claims/{kind}{end}").into_bytes();
        (key('/'), key('0'))
    })
}

/// Creation, key and value.
pub type Pair = (i64, Vec<u8>, Vec<u8>);

/// The claim in a pair. A value under a key that it does not belong under is nobody's.
pub fn in_pair((_, key, value): &Pair) -> Option<Claim> {
    let claim: Claim = serde_json::from_slice(value).ok()?;
    let placed = keys(&claim).iter().any(|(_, own)| own.as_bytes() == key);
    placed.then_some(claim)
}

/// The claims of this uid among pairs, the oldest first.
pub fn of(uid: &str, mut pairs: Vec<Pair>) -> Vec<Claim> {
    pairs.sort();
    let mut found: Vec<Claim> = Vec::new();
    for claim in pairs.iter().filter_map(in_pair) {
        if claim.uid == uid && !found.contains(&claim) {
            found.push(claim);
        }
    }
    found
}

fn keys(claim: &Claim) -> [(String, String); 2] {
    let (schema, user) = (&claim.schema, &claim.user);
    [
        (
            format!("schema {schema:?}"),
            format!("{ROOT}claims/schema/{schema}"),
        ),
        (
            format!("user {user:?}"),
            format!("{ROOT}claims/user/{user}"),
        ),
    ]
}

/// Both keys as they are: ours, or absent.
async fn read(link: &Link, claim: &Claim) -> Result<[Option<KeyValue>; 2], TenancyError> {
    let mut found = [None, None];
    for ((what, key), found) in keys(claim).into_iter().zip(&mut found) {
        let mut answer = link
            .ask("read a claim", |mut client| {
                let key = key.clone();
                async move { client.get(key, None).await }
            })
            .await?;
        let Some(pair) = answer.take_kvs().pop() else {
            continue;
        };
        let holder: Claim = serde_json::from_slice(pair.value()).map_err(|e| {
            TenancyError::Refused(format!("the claim at {key} cannot be read: {e}"))
        })?;
        if holder.uid != claim.uid {
            return Err(TenancyError::SchemaTaken {
                what,
                uid: holder.uid,
                namespace: holder.namespace,
                name: holder.name,
            });
        }
        *found = Some(pair);
    }
    Ok(found)
}

fn unchanged(claim: &Claim, found: &[Option<KeyValue>; 2]) -> Vec<Compare> {
    keys(claim)
        .iter()
        .zip(found)
        .map(|((_, key), found)| {
            // An absent key has revision 0.
            let revision = found.as_ref().map_or(0, KeyValue::mod_revision);
            Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)
        })
        .collect()
}

async fn run(link: &Link, what: &'static str, txn: Txn) -> Result<bool, TenancyError> {
    let done = link.ask(what, |mut client| {
        let txn = txn.clone();
        async move { client.txn(txn).await }
    });
    Ok(done.await?.succeeded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::Stage;

    #[test]
    fn claims_are_found_by_uid_oldest_first() {
        let claim = |uid: &str, name: &str| Claim {
            uid: uid.to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: name.to_owned(),
            user: name.to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        };
        let (old, new) = (claim("1", "z"), claim("1", "a"));
        let other = claim("2", "b");
        let mut pairs = Vec::new();
        for (revision, claim) in [(9, &new), (5, &other), (3, &old)] {
            let value = serde_json::to_vec(claim).unwrap();
            for (_, key) in keys(claim) {
                let key = key.into_bytes();
                assert!(spans().iter().any(|(from, to)| *from <= key && key < *to));
                pairs.push((revision, key, value.clone()));
            }
        }
        // Neither what cannot be read nor what stands elsewhere is a claim.
        let key = |name: &str| format!("{ROOT}claims/schema/{name}").into_bytes();
        pairs.push((1, key("c"), b"{".to_vec()));
        let stray = serde_json::to_vec(&claim("1", "d")).unwrap();
        pairs.push((2, key("e"), stray));
        assert_eq!(of("1", pairs.clone()), [old, new]);
        assert_eq!(of("2", pairs.clone()), [other]);
        assert_eq!(of("3", pairs), []);
    }

    #[test]
    fn names_that_nobody_may_have() {
        let with = |schema: &str, user: &str| {
            admit(&Claim {
                uid: "1".to_owned(),
                namespace: "n".to_owned(),
                name: "t".to_owned(),
                schema: schema.to_owned(),
                user: user.to_owned(),
                role: None,
                stage: Stage::Serving,
                prefix: None,
                replicas: None,
            })
        };
        assert_eq!(with("default_tenant", "default_tenant"), Ok(()));
        for bad in [
            "",
            "root",
            "a/b",
            "/",
            "a\n",
            "\0",
            "steward.butlerlabs.dev",
        ] {
            assert!(with(bad, "u").is_err(), "{bad:?} as a schema");
            assert!(with("s", bad).is_err(), "{bad:?} as a user");
        }
        assert!(with(&"x".repeat(256), "u").is_err());
        let message = with("s", "root").unwrap_err().to_string();
        assert_eq!(
            message,
            "the datastore user \"root\" cannot be used: it is the administrator's"
        );
    }
}
