//! Verifiers of passwords (RFC 5802, RFC 7677), made here so that the server, and what it
//! logs, never sees the password.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::tenancy::Password;

/// PostgreSQL's own number. The passwords are random, so that guessing them is no matter.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// What PostgreSQL stores for this password, with a salt of its own.
pub fn verifier(password: &Password) -> String {
    with_salt(password, &rand::random::<[u8; 16]>())
}

fn with_salt(password: &Password, salt: &[u8]) -> String {
    let mut salted = [0; 32];
    let text = password.expose().as_bytes();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ITERATIONS,
        salt,
        text,
        &mut salted,
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client = hmac::sign(&key, b"Client Key");
    let stored = digest::digest(&digest::SHA256, client.as_ref());
    let server = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677: its proof and signature follow from these two keys.
    #[test]
    fn as_the_standard_has_it() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = with_salt(&Password::new("pencil"), &salt);
        assert_eq!(
            made,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
             $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_ne!(verifier(&Password::new("x")), verifier(&Password::new("x")));
    }
}
