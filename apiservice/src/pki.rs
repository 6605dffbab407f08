//! Certificates, keys and kubeconfigs (rule 25).
//!
//! Pure: times are passed in, and randomness comes from [`Entropy`]. Keys that
//! are made here are ECDSA on P-256; an authority that a user brings may be
//! ECDSA, RSA or Ed25519, in PKCS#8, PKCS#1 or SEC 1.

mod certificate;
mod key;
mod kubeconfig;
mod read;
mod request;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use jiff::Timestamp;

pub use certificate::{authority, sign};
pub use key::{key_matches, signing_keys, signing_keys_match};
pub use kubeconfig::{KubeconfigInput, discovery_yaml, kubeconfig, kubeconfig_yaml};
pub use read::{CertInfo, inspect, public_key_hashes, verify};
pub use request::{RequestInfo, request};

/// Why a certificate or key could not be made, read or believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text holds no PEM block of the wanted kind.
    #[error("no {0} in PEM form found")]
    NoPem(&'static str),
    /// A certificate does not parse.
    #[error("the certificate does not parse: {0}")]
    Certificate(String),
    /// A certificate signing request does not parse.
    #[error("the certificate request does not parse: {0}")]
    Request(String),
    /// A private key does not parse, or is of a kind that is not supported.
    #[error("the private key is not an ECDSA, RSA or Ed25519 key in PKCS#8, PKCS#1 or SEC 1 form")]
    Key,
    /// The key of an authority is not the one of its certificate.
    #[error("the authority's private key does not belong to its certificate")]
    KeyMismatch,
    /// The subject of an authority is one that the certificates it signs cannot
    /// name as their issuer byte for byte, so that no chain would hold.
    #[error(
        "the authority's subject {0:?} is not supported: attributes that repeat, several \
         attributes in one part and rare kinds of strings cannot be copied into the \
         certificates that it signs; use an authority with a simpler subject, such as \
         CN=etcd-ca"
    )]
    AuthoritySubject(String),
    /// A subject has more than one organization.
    #[error("a certificate can name one organization, not {0}")]
    Organizations(usize),
    /// A DNS name is not ASCII.
    #[error("the DNS name {0:?} cannot be written into a certificate: it is not ASCII")]
    DnsName(String),
    /// A time cannot be written into a certificate.
    #[error("the time {0} cannot be written into a certificate")]
    Time(Timestamp),
    /// The operating system gave no randomness, or a key could not be made.
    #[error("no randomness is available")]
    Entropy,
    /// A signature could not be made.
    #[error("the signature could not be made")]
    Sign,
    /// A chain does not hold.
    #[error("the certificate is not valid: {0}")]
    NotValid(String),
}

/// The one source of randomness: of keys and of serial numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy;

impl Entropy {
    /// Fills `bytes` from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        SystemRandom::new().fill(bytes).map_err(|_| Error::Entropy)
    }
}

/// A certificate and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// One or more certificates, PEM; the first is the one meant.
    pub cert: String,
    /// The private key, PEM; PKCS#8 when made here.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys must not reach a log.
        f.debug_struct("Pair")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// From when until when a certificate is valid; whole seconds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

/// Whom a certificate is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The user name; any length (rule 12).
    pub common_name: String,
    /// The groups. A certificate that is read may have any number; one that is
    /// made has at most one.
    pub organizations: Vec<String>,
}

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To serve.
    Server,
    /// To authenticate towards a server.
    Client,
    /// Both.
    Both,
}

/// A certificate to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Whom it is about.
    pub subject: Subject,
    /// What it may be used for.
    pub usage: Usage,
    /// Names that it serves.
    pub dns_names: Vec<String>,
    /// Addresses that it serves.
    pub ip_addresses: Vec<IpAddr>,
    /// How long it is valid.
    pub validity: Validity,
}
