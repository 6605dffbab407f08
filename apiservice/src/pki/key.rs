//! Private keys: made, read, and put to use.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::read::{certificates, pem_blocks, x509};
use super::{Entropy, Error, Pair, der};

/// A private key that can sign.
pub(super) enum Key {
    Ecdsa(EcdsaKeyPair, &'static Curve),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A curve with the hash that signatures on it use.
pub(super) struct Curve {
    algorithm: &'static EcdsaSigningAlgorithm,
    curve: &'static [u64],
    signature: &'static [u64],
}

const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
const RSA_WITH_SHA256: &[u64] = &[1, 2, 840, 113_549, 1, 1, 11];
const ED25519: &[u64] = &[1, 3, 101, 112];

static P256: Curve = Curve {
    algorithm: &ECDSA_P256_SHA256_ASN1_SIGNING,
    curve: &[1, 2, 840, 10045, 3, 1, 7],
    signature: &[1, 2, 840, 10045, 4, 3, 2],
};
static P384: Curve = Curve {
    algorithm: &ECDSA_P384_SHA384_ASN1_SIGNING,
    curve: &[1, 3, 132, 0, 34],
    signature: &[1, 2, 840, 10045, 4, 3, 3],
};
static P521: Curve = Curve {
    algorithm: &ECDSA_P521_SHA512_ASN1_SIGNING,
    curve: &[1, 3, 132, 0, 35],
    signature: &[1, 2, 840, 10045, 4, 3, 4],
};
static CURVES: [&Curve; 3] = [&P256, &P384, &P521];

impl Key {
    /// A new key on P-256, with its PKCS#8 form in PEM.
    pub(super) fn generate(_: &Entropy) -> Result<(Self, String), Error> {
        // The library draws from the generator that `Entropy` reads; taking it
        // as an argument keeps the places that need randomness visible.
        let pair = EcdsaKeyPair::generate(P256.algorithm).map_err(|_| Error::Entropy)?;
        let private = pair.to_pkcs8v1().map_err(|_| Error::Entropy)?;
        let pem = pem("PRIVATE KEY", private.as_ref());
        Ok((Self::Ecdsa(pair, &P256), pem))
    }

    pub(super) fn from_pem(text: &str) -> Result<Self, Error> {
        let block = pem_blocks(text)
            .find(|block| block.label.ends_with("PRIVATE KEY"))
            .ok_or(Error::NoPem("private key"))?;
        let bytes = block.contents.as_slice();
        let key = match block.label.as_str() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(bytes).ok().map(Self::Rsa),
            "EC PRIVATE KEY" => CURVES.into_iter().find_map(|curve| {
                let pair = EcdsaKeyPair::from_private_key_der(curve.algorithm, bytes).ok()?;
                Some(Self::Ecdsa(pair, curve))
            }),
            "PRIVATE KEY" => CURVES
                .into_iter()
                .find_map(|curve| {
                    let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes).ok()?;
                    Some(Self::Ecdsa(pair, curve))
                })
                .or_else(|| RsaKeyPair::from_pkcs8(bytes).ok().map(Self::Rsa))
                .or_else(|| {
                    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok()?;
                    Some(Self::Ed25519(pair))
                }),
            _ => None,
        };
        key.ok_or(Error::Key)
    }

    /// The bits of the public key, as they stand in its certificate.
    pub(super) fn public(&self) -> &[u8] {
        match self {
            Self::Ecdsa(pair, _) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// SubjectPublicKeyInfo.
    pub(super) fn public_info(&self) -> Vec<u8> {
        let algorithm = match self {
            Self::Ecdsa(_, curve) => {
                der::sequence(&[&der::oid(EC_PUBLIC_KEY), &der::oid(curve.curve)])
            }
            Self::Rsa(_) => {
                der::sequence(&[&der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), &der::null()])
            }
            Self::Ed25519(_) => der::sequence(&[&der::oid(ED25519)]),
        };
        der::sequence(&[&algorithm, &der::bits(self.public(), 0)])
    }

    /// AlgorithmIdentifier of the signatures that this key makes.
    pub(super) fn signature_algorithm(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(_, curve) => der::sequence(&[&der::oid(curve.signature)]),
            Self::Rsa(_) => der::sequence(&[&der::oid(RSA_WITH_SHA256), &der::null()]),
            Self::Ed25519(_) => der::sequence(&[&der::oid(ED25519)]),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(pair, _) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Error::Sign),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| Error::Sign)?;
                Ok(signature)
            }
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// A key pair for service-account tokens: the public key in PEM
/// (`PUBLIC KEY`), the private key in PEM (`PRIVATE KEY`, PKCS#8).
///
/// # Errors
/// When the operating system gives no randomness.
pub fn signing_keys(entropy: &Entropy) -> Result<(String, String), Error> {
    let (key, private) = Key::generate(entropy)?;
    Ok((pem("PUBLIC KEY", &key.public_info()), private))
}

/// Whether a public key in PEM is the one of a private key in PEM.
pub fn signing_keys_match(public: &str, private: &str) -> bool {
    let Ok(key) = Key::from_pem(private) else {
        return false;
    };
    pem_blocks(public)
        .find(|block| block.label == "PUBLIC KEY")
        .is_some_and(|block| {
            SubjectPublicKeyInfo::from_der(&block.contents)
                .is_ok_and(|(_, info)| *info.subject_public_key.data == *key.public())
        })
}

/// Whether the key of a pair is the one of its certificate.
pub fn key_matches(pair: &Pair) -> bool {
    let (Ok(key), Ok(certificates)) = (Key::from_pem(&pair.key), certificates(&pair.cert)) else {
        return false;
    };
    certificates.first().is_some_and(|certificate| {
        x509(certificate).is_ok_and(|certificate| belongs(&key, &certificate))
    })
}

pub(super) fn belongs(
    key: &Key,
    certificate: &x509_parser::certificate::X509Certificate<'_>,
) -> bool {
    *certificate.public_key().subject_public_key.data == *key.public()
}

/// A block of PEM.
pub(super) fn pem(label: &str, content: &[u8]) -> String {
    let text = STANDARD.encode(content);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII, so a chunk of it is text.
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
