//! Tokens by which NATS knows accounts and users: JWTs with Ed25519 signatures.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tenancy::TenancyError;

/// What a token says, without its id and issuer.
#[derive(Clone)]
pub struct Claims<'a> {
    /// Public key of whom it is about.
    pub subject: &'a str,
    /// For people.
    pub name: &'a str,
    /// Seconds since 1970. Of two tokens about one account, servers of a cluster keep the
    /// one with the greater number.
    pub issued: u64,
    /// What is particular to NATS.
    pub nats: Value,
    pub id: Id,
}

/// What a token is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// What is in it, so that the same is always the same token.
    Content,
    /// Another one each time. A server that has deleted an account does not take it in again
    /// with a token that it had before (`updateAccountWithClaimJWT`: "same claims detected"),
    /// and of two that are issued within a second only this one differs.
    Once,
}

/// Signs a token.
///
/// # Errors
/// [`TenancyError::Other`] if the key cannot sign.
pub fn sign(claims: &Claims, signer: &KeyPair) -> Result<String, TenancyError> {
    let mut payload = json!({
        "iat": claims.issued,
        "iss": signer.public_key(),
        "name": claims.name,
        "nats": claims.nats,
        "sub": claims.subject,
    });
    // Servers take two tokens with the same id for the same.
    payload["jti"] = Value::String(match claims.id {
        Id::Content => {
            let id = digest(&SHA256, payload.to_string().as_bytes());
            hex::encode_upper(id.as_ref())
        }
        Id::Once => Uuid::new_v4().simple().to_string(),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "ed25519-nkey", "typ": "JWT" });
    let signed = format!("{}.{}", part(&header), part(&payload));
    let signature = signer
        .sign(signed.as_bytes())
        .map_err(|e| TenancyError::Other(format!("sign a token: {e}")))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The payload of a token that the server gave, which checks signatures before it keeps one.
pub fn payload(token: &str) -> Option<Value> {
    let mut parts = token.trim().split('.');
    let payload = parts.nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_read_and_verified() {
        let signer = KeyPair::new_operator();
        let claims = Claims {
            subject: "AX",
            name: "a",
            issued: 7,
            nats: json!({ "type": "account" }),
            id: Id::Content,
        };
        let token = sign(&claims, &signer).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(signer.verify(signed.as_bytes(), &signature).is_ok());
        let read = payload(&token).unwrap();
        assert_eq!(read["iss"], signer.public_key());
        assert_eq!((&read["sub"], &read["iat"]), (&json!("AX"), &json!(7)));
        assert_eq!(sign(&claims, &signer).unwrap(), token);
        let later = Claims {
            issued: 8,
            ..claims.clone()
        };
        let later = sign(&later, &signer).unwrap();
        assert_ne!(payload(&later).unwrap()["jti"], read["jti"]);
        let once = Claims {
            id: Id::Once,
            ..claims
        };
        let [first, second] = [(); 2].map(|()| sign(&once, &signer).unwrap());
        assert_ne!(payload(&first), payload(&second));
        assert_eq!(payload("nonsense"), None);
    }
}
