//! Making certificates: X.509 version 3 as RFC 5280 has it.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::extensions::ParsedExtension;

use super::key::{Key, belongs, pem};
use super::read::{certificates, x509};
use super::{Entropy, Error, Leaf, Pair, Subject, Usage, Validity, der};

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const SUBJECT_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// A new authority that has signed itself.
///
/// # Errors
/// When there is no randomness, or a time does not fit.
pub fn authority(common_name: &str, validity: Validity, e: &Entropy) -> Result<Pair, Error> {
    let (key, private) = Key::generate(e)?;
    let subject = name(&Subject {
        common_name: common_name.to_owned(),
        organizations: Vec::new(),
    });
    let identifier = key_identifier(&key);
    let extensions = [
        extension(BASIC_CONSTRAINTS, true, &der::sequence(&[&der::yes()])),
        // digitalSignature, keyCertSign, cRLSign
        extension(KEY_USAGE, true, &der::bits(&[0x86], 1)),
        extension(SUBJECT_KEY_IDENTIFIER, false, &der::octets(&identifier)),
    ];
    let cert = certificate(
        &Content {
            issuer: &subject,
            subject: &subject,
            validity,
            public: &key.public_info(),
            extensions: &extensions.concat(),
        },
        &key,
        e,
    )?;
    Ok(Pair { cert, key: private })
}

/// A new key and its certificate, signed by an authority.
///
/// The authority may be one of ours or a user's. Names and addresses are put
/// into the certificate once each, in the given order.
///
/// # Errors
/// When the authority does not parse or its key is another's, when there is no
/// randomness, or when a time does not fit.
pub fn sign(authority: &Pair, leaf: &Leaf, e: &Entropy) -> Result<Pair, Error> {
    let issuer_key = Key::from_pem(&authority.key)?;
    let chain = certificates(&authority.cert)?;
    let issuer = x509(chain.first().ok_or(Error::NoPem("certificate"))?)?;
    if !belongs(&issuer_key, &issuer) {
        return Err(Error::KeyMismatch);
    }
    let (key, private) = Key::generate(e)?;

    let mut extensions = vec![
        // digitalSignature
        extension(KEY_USAGE, true, &der::bits(&[0x80], 7)),
        extension(EXTENDED_KEY_USAGE, false, &usages(leaf.usage)),
        extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])),
        extension(
            SUBJECT_KEY_IDENTIFIER,
            false,
            &der::octets(&key_identifier(&key)),
        ),
    ];
    let issuer_identifier =
        issuer
            .extensions()
            .iter()
            .find_map(|one| match one.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
                _ => None,
            });
    if let Some(identifier) = issuer_identifier {
        let value = der::sequence(&[&der::implicit(0, identifier)]);
        extensions.push(extension(AUTHORITY_KEY_IDENTIFIER, false, &value));
    }
    if !leaf.dns_names.is_empty() || !leaf.ip_addresses.is_empty() {
        extensions.push(extension(SUBJECT_ALTERNATIVE_NAME, false, &names(leaf)));
    }
    let cert = certificate(
        &Content {
            // As it stands in the authority, byte for byte: that is how chains
            // are matched.
            issuer: issuer.subject().as_raw(),
            subject: &name(&leaf.subject),
            validity: leaf.validity,
            public: &key.public_info(),
            extensions: &extensions.concat(),
        },
        &issuer_key,
        e,
    )?;
    Ok(Pair { cert, key: private })
}

/// What goes into a certificate, encoded but for the times.
struct Content<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    validity: Validity,
    public: &'a [u8],
    extensions: &'a [u8],
}

fn certificate(content: &Content<'_>, signer: &Key, e: &Entropy) -> Result<String, Error> {
    const VERSION_3: &[u8] = &[2];
    let mut serial = [0; 16];
    e.fill(&mut serial)?;
    // Never zero and never more than 20 octets.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let algorithm = signer.signature_algorithm();
    let to_be_signed = der::sequence(&[
        &der::explicit(0, &der::unsigned(VERSION_3)),
        &der::unsigned(&serial),
        &algorithm,
        content.issuer,
        &der::sequence(&[
            &der::time(content.validity.not_before)?,
            &der::time(content.validity.not_after)?,
        ]),
        content.subject,
        content.public,
        &der::explicit(3, &der::sequence(&[content.extensions])),
    ]);
    let signature = signer.sign(&to_be_signed)?;
    let whole = der::sequence(&[&to_be_signed, &algorithm, &der::bits(&signature, 0)]);
    Ok(pem("CERTIFICATE", &whole))
}

/// Each organization and the common name in a set of its own, so that any
/// number of groups fits.
fn name(subject: &Subject) -> Vec<u8> {
    let attribute = |kind: &[u64], value: &str| {
        der::set(&[&der::sequence(&[&der::oid(kind), &der::utf8(value)])])
    };
    let mut parts: Vec<u8> = Vec::new();
    for organization in &subject.organizations {
        parts.extend(attribute(ORGANIZATION, organization));
    }
    parts.extend(attribute(COMMON_NAME, &subject.common_name));
    der::sequence(&[&parts])
}

fn usages(usage: Usage) -> Vec<u8> {
    let (server, client) = (der::oid(SERVER_AUTH), der::oid(CLIENT_AUTH));
    match usage {
        Usage::Server => der::sequence(&[&server]),
        Usage::Client => der::sequence(&[&client]),
        Usage::Both => der::sequence(&[&server, &client]),
    }
}

fn names(leaf: &Leaf) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let dns = leaf
        .dns_names
        .iter()
        .map(|name| der::implicit(2, name.as_bytes()));
    let addresses = leaf.ip_addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(address) => der::implicit(7, &address.octets()),
        std::net::IpAddr::V6(address) => der::implicit(7, &address.octets()),
    });
    for name in dns.chain(addresses) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    der::sequence(&[&all.concat()])
}

fn extension(kind: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let (kind, value) = (der::oid(kind), der::octets(value));
    if critical {
        der::sequence(&[&kind, &der::yes(), &value])
    } else {
        der::sequence(&[&kind, &value])
    }
}

/// RFC 7093, method 1: the first 20 octets of the hash of the public key.
fn key_identifier(key: &Key) -> Vec<u8> {
    digest(&SHA256, key.public()).as_ref()[..20].to_vec()
}
