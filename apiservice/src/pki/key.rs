//! Private keys: made, read and compared.

use rcgen::KeyPair;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::read::{certificates, pem_blocks, x509};
use super::{Entropy, Error, Pair};

/// A new key on P-256.
pub(super) fn generate(_: &Entropy) -> Result<KeyPair, Error> {
    // The library draws from the generator that `Entropy` reads; taking it as
    // an argument keeps the places that need randomness visible.
    KeyPair::generate().map_err(|_| Error::Entropy)
}

/// The first private key of a PEM text.
pub(super) fn from_pem(text: &str) -> Result<KeyPair, Error> {
    // Not rcgen's own reading of PEM: that takes the first block, which for
    // keys on elliptic curves is often `EC PARAMETERS`.
    let block = pem_blocks(text)
        .find(|block| block.label.ends_with("PRIVATE KEY"))
        .ok_or(Error::NoPem("private key"))?;
    KeyPair::try_from(block.contents).map_err(|_| Error::Key)
}

/// A key pair for service-account tokens: the public key in PEM
/// (`PUBLIC KEY`), the private key in PEM (`PRIVATE KEY`, PKCS#8).
///
/// # Errors
/// When the operating system gives no randomness.
pub fn signing_keys(entropy: &Entropy) -> Result<(String, String), Error> {
    let key = generate(entropy)?;
    Ok((key.public_key_pem(), key.serialize_pem()))
}

/// Whether a public key in PEM is the one of a private key in PEM.
pub fn signing_keys_match(public: &str, private: &str) -> bool {
    let Ok(key) = from_pem(private) else {
        return false;
    };
    pem_blocks(public)
        .find(|block| block.label == "PUBLIC KEY")
        .is_some_and(|block| {
            SubjectPublicKeyInfo::from_der(&block.contents)
                .is_ok_and(|(_, info)| *info.subject_public_key.data == *key.public_key_raw())
        })
}

/// Whether the key of a pair is the one of its certificate.
pub fn key_matches(pair: &Pair) -> bool {
    let (Ok(key), Ok(certificates)) = (from_pem(&pair.key), certificates(&pair.cert)) else {
        return false;
    };
    certificates.first().is_some_and(|certificate| {
        x509(certificate).is_ok_and(|certificate| belongs(&key, &certificate))
    })
}

/// Whether a certificate is about this key.
pub(super) fn belongs(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    *certificate.public_key().subject_public_key.data == *key.public_key_raw()
}
