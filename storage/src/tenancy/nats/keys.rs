//! Keys of accounts and users, and how NATS writes them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use nkeys::{KeyPair, KeyPairType};

use crate::tenancy::{Claim, Password};

/// In front of everything that is hashed here, so that nothing else gives the same.
const DOMAIN: &str = "steward.butlerlabs.dev/nats";

/// The account of a tenant: another one for each tenant that ever had the schema, so that
/// nothing that opened one of them opens the next one's.
///
/// It is the hash of a name in the form of a public key. Nobody has the private key: users of
/// the account are signed with the keys that [`super::account`] lists.
pub fn account_of(claim: &Claim) -> String {
    account(&["tenant", &claim.uid, &claim.schema])
}

/// The account with the claims.
pub fn account_of_claims() -> String {
    account(&["claims"])
}

fn account(parts: &[&str]) -> String {
    // The prefix that makes an A of the first letter.
    let mut raw = vec![0];
    raw.extend_from_slice(digest(&SHA256, &framed(parts)).as_ref());
    raw.extend_from_slice(&crc16(&raw).to_le_bytes());
    BASE32_NOPAD.encode(&raw)
}

/// CRC-16/XMODEM, which NATS appends to its keys.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

/// Signs the tenant's user.
pub fn tenants_signer(claim: &Claim, password: &Password) -> KeyPair {
    let account = account_of(claim);
    derived(
        KeyPairType::Account,
        password.expose(),
        &["signer", &account],
    )
}

/// Of the tenant's user.
pub fn tenants_user(claim: &Claim, password: &Password) -> KeyPair {
    let account = account_of(claim);
    let parts = ["user", &account, &claim.user];
    derived(KeyPairType::User, password.expose(), &parts)
}

/// Signs the administrator's users in an account. Whoever has the operator's signing key can
/// make himself one anyway.
pub fn administrators_signer(operator: &str, account: &str) -> KeyPair {
    derived(KeyPairType::Account, operator, &["administrator", account])
}

fn derived(kind: KeyPairType, secret: &str, parts: &[&str]) -> KeyPair {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &framed(parts));
    let mut seed = [0; 32];
    seed.copy_from_slice(tag.as_ref());
    // Any 32 bytes are a seed.
    #[allow(clippy::expect_used, reason = "Ed25519 takes every seed")]
    KeyPair::new_from_raw(kind, seed).expect("a seed of 32 bytes")
}

/// Texts, each counted with its length.
fn framed(parts: &[&str]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in [DOMAIN].iter().chain(parts) {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part.as_bytes());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::nats::testing::claim;

    /// nkeys checks prefix and checksum.
    #[test]
    fn accounts_are_written_as_nats_writes_them() {
        for uid in ["1", "2", "3"] {
            let account = account_of(&claim(uid, "s", "u"));
            let (prefix, _) = nkeys::from_public_key(&account).unwrap();
            assert_eq!(prefix, 0);
            assert!(account.starts_with('A'), "{account}");
        }
        assert!(nkeys::from_public_key(&account_of_claims()).is_ok());
    }

    #[test]
    fn everybody_has_an_account_of_his_own() {
        let of = |uid, schema| account_of(&claim(uid, schema, "u"));
        let all = [
            of("1", "a"),
            of("2", "a"),
            of("1", "b"),
            of("1a", ""),
            of("", "1a"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one));
            assert_ne!(*one, account_of_claims());
        }
        assert_eq!(of("1", "a"), account_of(&claim("1", "a", "other")));
    }

    #[test]
    fn keys_hang_on_the_secret_and_what_they_are_for() {
        let (one, other) = (Password::new("one"), Password::new("other"));
        let a = claim("1", "a", "u");
        let keys = [
            tenants_signer(&a, &one).public_key(),
            tenants_signer(&a, &other).public_key(),
            tenants_signer(&claim("2", "a", "u"), &one).public_key(),
            administrators_signer("one", &account_of(&a)).public_key(),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[index + 1..].contains(key));
        }
        assert_eq!(keys[0], tenants_signer(&a, &one).public_key());
        assert!(tenants_user(&a, &one).public_key().starts_with('U'));
    }
}
