//! Tokens by which NATS knows accounts and users: JWTs with Ed25519 signatures.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::tenancy::TenancyError;

/// What a token says, without its id and issuer.
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
    let id = digest(&SHA256, payload.to_string().as_bytes());
    payload["jti"] = Value::String(hex::encode_upper(id.as_ref()));
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
        };
        let token = sign(&claims, &signer).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(signer.verify(signed.as_bytes(), &signature).is_ok());
        let read = payload(&token).unwrap();
        assert_eq!(read["iss"], signer.public_key());
        assert_eq!((&read["sub"], &read["iat"]), (&json!("AX"), &json!(7)));
        let later = sign(
            &Claims {
                issued: 8,
                ..claims
            },
            &signer,
        )
        .unwrap();
        assert_ne!(payload(&later).unwrap()["jti"], read["jti"]);
        assert_eq!(payload("nonsense"), None);
    }
}
