//! What opens a NATS: the administrator's credentials, and those that tenants get.

use nkeys::{KeyPair, KeyPairType};
use serde_json::json;

use super::keys;
use super::token;
use crate::tenancy::{Claim, Connection, Password, TenancyError};

/// What a `DataStore` has.
pub struct Administrator {
    /// A user of the system account, as nsc writes it (`basicAuth.username`).
    pub system: String,
    /// A signing key of the operator (`basicAuth.password`).
    pub operator: KeyPair,
    /// The same as it is written.
    pub seed: String,
}

impl Administrator {
    /// # Errors
    /// [`TenancyError::Refused`] for what is neither.
    pub fn of(connection: &Connection) -> Result<Self, TenancyError> {
        let refused = |what: &str| Err(TenancyError::Refused(what.to_owned()));
        let system = connection.username.clone().unwrap_or_default();
        let begins = "-----BEGIN NATS USER JWT-----";
        if !system.contains(begins) || !system.contains("-----BEGIN USER NKEY SEED-----") {
            return refused(
                "basicAuth.username of a DataStore of driver \"NATS\" has to be the credentials \
                 of a user of the system account, as \"nsc generate creds\" writes them",
            );
        }
        let seed = connection.password.as_deref().unwrap_or_default().trim();
        match KeyPair::from_seed(seed) {
            Ok(operator) if operator.key_pair_type() == KeyPairType::Operator => {
                Ok(Administrator {
                    system,
                    operator,
                    seed: seed.to_owned(),
                })
            }
            _ => refused(
                "basicAuth.password of a DataStore of driver \"NATS\" has to be the seed of a \
                 signing key of the operator, which begins with \"SO\"",
            ),
        }
    }

    /// A user of ours in an account, with all rights there.
    pub fn in_account(&self, account: &str) -> Result<String, TenancyError> {
        let signer = keys::administrators_signer(&self.seed, account);
        let user = KeyPair::new_user();
        let nats = json!({
            "data": -1,
            "issuer_account": account,
            "payload": -1,
            "subs": -1,
            "type": "user",
            "version": 2,
        });
        file("steward", nats, &user, &signer)
    }
}

/// The file with which a tenant's kine enters its account (`credsFile` of kine). It says
/// nothing that whoever has the password does not know, and is always the same.
///
/// # Errors
/// [`TenancyError::Other`] if it cannot be signed.
pub fn of_tenant(claim: &Claim, password: &Password) -> Result<String, TenancyError> {
    let user = keys::tenants_user(claim, password);
    let signer = keys::tenants_signer(claim, password);
    // Its rights are those that the account lists with the key of the signer.
    let nats = json!({
        "issuer_account": keys::account_of(claim),
        "type": "user",
        "version": 2,
    });
    file(&claim.user, nats, &user, &signer)
}

fn file(
    name: &str,
    nats: serde_json::Value,
    user: &KeyPair,
    signer: &KeyPair,
) -> Result<String, TenancyError> {
    let subject = user.public_key();
    let claims = token::Claims {
        subject: &subject,
        name,
        issued: 1,
        nats,
        id: token::Id::Content,
    };
    let token = token::sign(&claims, signer)?;
    let seed = user
        .seed()
        .map_err(|e| TenancyError::Other(format!("write a key: {e}")))?;
    Ok(format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::nats::testing::claim;

    fn with(username: &str, password: &str) -> Result<Administrator, TenancyError> {
        Administrator::of(&Connection {
            driver: "NATS".to_owned(),
            endpoints: vec!["127.0.0.1:4222".to_owned()],
            ca_pem: None,
            client_cert: None,
            client_key: None,
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            deadline: Connection::DEADLINE,
        })
    }

    #[test]
    fn an_administrator_has_both() {
        let (user, account) = (KeyPair::new_user(), KeyPair::new_account());
        let system = file("sys", json!({}), &user, &account).unwrap();
        let seed = KeyPair::new_operator().seed().unwrap();
        let good = with(&system, &format!("{seed}\n")).unwrap();
        assert_eq!(good.seed, seed);
        let account = account.seed().unwrap();
        for (username, password) in [
            ("root", seed.as_str()),
            (&system, "secret"),
            (&system, account.as_str()),
            (&system, ""),
        ] {
            let refused = with(username, password).err().unwrap().to_string();
            assert!(refused.contains("DataStore"), "{refused}");
            assert!(password.is_empty() || !refused.contains(password));
        }
    }

    /// A Secret that holds it must not change without a reason.
    #[test]
    fn a_tenants_file_is_always_the_same() {
        let (a, password) = (claim("1", "a", "u"), Password::new("p"));
        let file = of_tenant(&a, &password).unwrap();
        assert_eq!(of_tenant(&a, &password).unwrap(), file);
        assert_ne!(of_tenant(&a, &Password::new("q")).unwrap(), file);
        assert_ne!(of_tenant(&claim("2", "a", "u"), &password).unwrap(), file);
    }
}
