//! Reading certificates, and judging whether they hold.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::{Error, Subject, Usage};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    /// Whom it is about.
    pub subject: Subject,
    /// The first second in which it is valid.
    pub not_before: Timestamp,
    /// The last second in which it is valid.
    pub not_after: Timestamp,
    /// Names that it serves.
    pub dns_names: Vec<String>,
    /// Addresses that it serves.
    pub ip_addresses: Vec<IpAddr>,
    /// The serial number in lower-case hexadecimal, without a leading zero byte.
    pub serial_hex: String,
    /// Whether it may sign others.
    pub is_ca: bool,
}

/// What the first certificate of a PEM text says.
///
/// # Errors
/// When there is none, or it does not parse.
pub fn inspect(cert_pem: &str) -> Result<CertInfo, Error> {
    let all = certificates(cert_pem)?;
    let first = all.first().ok_or(Error::NoPem("certificate"))?;
    let certificate = x509(first)?;
    let mut dns_names = Vec::new();
    let mut ip_addresses = Vec::new();
    let names = certificate.subject_alternative_name().map_err(parse)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip_addresses.extend(address(bytes)),
            _ => {}
        }
    }
    let serial = certificate.raw_serial();
    let serial = serial.strip_prefix(&[0]).unwrap_or(serial);
    Ok(CertInfo {
        subject: subject(certificate.subject()),
        not_before: moment(certificate.validity().not_before.timestamp())?,
        not_after: moment(certificate.validity().not_after.timestamp())?,
        dns_names,
        ip_addresses,
        serial_hex: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        is_ca: certificate.is_ca(),
    })
}

/// Whether the first certificate of `leaf_pem` holds at `now`: signed by one of
/// the certificates of `ca_pem`, perhaps through the rest of `leaf_pem`, within
/// its time, and for this use.
///
/// # Errors
/// Says what does not hold.
pub fn verify(leaf_pem: &str, ca_pem: &str, usage: Usage, now: Timestamp) -> Result<(), Error> {
    let chain = certificates(leaf_pem)?;
    let (leaf, intermediates) = chain.split_first().ok_or(Error::NoPem("certificate"))?;
    let authorities = certificates(ca_pem)?;
    if authorities.is_empty() {
        return Err(Error::NoPem("certificate"));
    }
    let anchors = authorities
        .iter()
        .map(|authority| anchor_from_trusted_cert(authority).map_err(parse))
        .collect::<Result<Vec<_>, _>>()?;
    let leaf = EndEntityCert::try_from(leaf).map_err(parse)?;
    let seconds = u64::try_from(now.as_second()).map_err(|_| Error::Time(now))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let usages = match usage {
        Usage::Server => vec![KeyUsage::server_auth()],
        Usage::Client => vec![KeyUsage::client_auth()],
        Usage::Both => vec![KeyUsage::server_auth(), KeyUsage::client_auth()],
    };
    for usage in usages {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(|error| Error::NotValid(error.to_string()))?;
    }
    Ok(())
}

/// The hash of the public key of each certificate of a PEM text, as `kubeadm join` takes
/// it: `sha256:` and the SHA-256 of the SubjectPublicKeyInfo in hexadecimal.
///
/// # Errors
/// When there is none, or one does not parse.
pub fn public_key_hashes(cert_pem: &str) -> Result<Vec<String>, Error> {
    let all = certificates(cert_pem)?;
    if all.is_empty() {
        return Err(Error::NoPem("certificate"));
    }
    let hash = |certificate: &CertificateDer<'_>| {
        let hash = Sha256::digest(x509(certificate)?.public_key().raw);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    };
    all.iter().map(hash).collect()
}

/// Every block of a PEM text that is well formed.
pub(super) fn pem_blocks(text: &str) -> impl Iterator<Item = Pem> + '_ {
    Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok)
}

/// Every certificate of a PEM text.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    Ok(pem_blocks(text)
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| CertificateDer::from(block.contents))
        .collect())
}

pub(super) fn x509<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(parse(error)),
    }
}

pub(super) fn subject(name: &X509Name<'_>) -> Subject {
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().map(str::to_owned).unwrap_or_default()
    };
    Subject {
        common_name: name.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: name.iter_organization().map(text).collect(),
    }
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn moment(seconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(seconds).map_err(parse)
}

fn parse(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}
