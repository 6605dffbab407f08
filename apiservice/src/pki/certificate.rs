//! Making certificates: X.509 version 3 as RFC 5280 has it.

use std::collections::HashSet;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::time::ASN1Time;

use super::read::{certificates, x509};
use super::{Entropy, Error, Leaf, Pair, Subject, Usage, Validity, key};

/// A new authority that has signed itself.
///
/// # Errors
/// When there is no randomness, or a time does not fit.
pub fn authority(common_name: &str, validity: Validity, e: &Entropy) -> Result<Pair, Error> {
    let key = key::generate(e)?;
    let subject = Subject {
        common_name: common_name.to_owned(),
        organizations: Vec::new(),
    };
    let mut params = params(&subject, validity, e)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let certificate = params.self_signed(&key).map_err(|_| Error::Sign)?;
    Ok(Pair {
        cert: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A new key and its certificate, signed by an authority.
///
/// The authority may be one of ours or a user's. Names and addresses are put
/// into the certificate once each, in the given order.
///
/// # Errors
/// When the authority does not parse, its key is another's or its subject is
/// one that cannot be copied ([`Error::AuthoritySubject`]), when there is no
/// randomness, or when a time, a name or the subject does not fit.
pub fn sign(authority: &Pair, leaf: &Leaf, e: &Entropy) -> Result<Pair, Error> {
    let issuer_key = key::from_pem(&authority.key)?;
    let chain = certificates(&authority.cert)?;
    let issuer_der = chain.first().ok_or(Error::NoPem("certificate"))?;
    let issuer = x509(issuer_der)?;
    if !key::belongs(&issuer_key, &issuer) {
        return Err(Error::KeyMismatch);
    }
    let mut params = params(&leaf.subject, leaf.validity, e)?;
    // Written out that it is none, with an identifier of its key.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages(leaf.usage);
    params.subject_alt_names = names(leaf)?;
    // An authority without an identifier has none that could be referred to.
    params.use_authority_key_identifier_extension = issuer.extensions().iter().any(|one| {
        matches!(
            one.parsed_extension(),
            ParsedExtension::SubjectKeyIdentifier(_)
        )
    });
    let key = key::generate(e)?;
    let certificate = params
        .signed_by(&key, &signer(issuer_der, &issuer, issuer_key)?)
        .map_err(|_| Error::Sign)?;
    // Chains are matched by these bytes, and rcgen writes them anew: of
    // attributes that repeat it keeps the last.
    if x509(certificate.der())?.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(Error::AuthoritySubject(issuer.subject().to_string()));
    }
    Ok(Pair {
        cert: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// An authority that can sign.
fn signer(
    der: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    key: KeyPair,
) -> Result<Issuer<'static, KeyPair>, Error> {
    let subject = parsed.subject();
    let unsupported = || Error::AuthoritySubject(subject.to_string());
    // rcgen panics when it writes object identifiers of one byte or with a
    // first arc above 2, which is what x509-parser makes of 2.40 and above.
    let writable = subject
        .iter_attributes()
        .all(|attribute| matches!(attribute.attr_type().as_bytes(), [0..120, _, ..]));
    if !writable {
        return Err(unsupported());
    }
    Issuer::from_ca_cert_der(der, key).map_err(|_| unsupported())
}

/// What all certificates have, with a new serial number.
fn params(subject: &Subject, validity: Validity, e: &Entropy) -> Result<CertificateParams, Error> {
    let mut serial = [0; 16];
    e.fill(&mut serial)?;
    // Never zero, and always of the same length.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = time(validity.not_before)?.to_datetime();
    params.not_after = time(validity.not_after)?.to_datetime();
    params.distinguished_name = name(subject)?;
    Ok(params)
}

/// A time that RFC 5280 has a form for.
fn time(time: Timestamp) -> Result<ASN1Time, Error> {
    ASN1Time::from_timestamp(time.as_second())
        .ok()
        .filter(|form| form.to_datetime().year() >= 1950)
        .ok_or(Error::Time(time))
}

fn name(subject: &Subject) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    match subject.organizations.as_slice() {
        [] => {}
        [organization] => name.push(DnType::OrganizationName, organization),
        several => return Err(Error::Organizations(several.len())),
    }
    name.push(DnType::CommonName, &subject.common_name);
    Ok(name)
}

fn usages(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    match usage {
        Usage::Server => vec![ServerAuth],
        Usage::Client => vec![ClientAuth],
        Usage::Both => vec![ServerAuth, ClientAuth],
    }
}

fn names(leaf: &Leaf) -> Result<Vec<SanType>, Error> {
    let dns = leaf.dns_names.iter().map(|name| {
        let ascii = name.as_str().try_into();
        ascii
            .map(SanType::DnsName)
            .map_err(|_| Error::DnsName(name.clone()))
    });
    let addresses = leaf.ip_addresses.iter().copied().map(SanType::IpAddress);
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for name in dns.chain(addresses.map(Ok)) {
        let name = name?;
        if seen.insert(name.clone()) {
            all.push(name);
        }
    }
    Ok(all)
}
