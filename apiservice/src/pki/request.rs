//! Reading certificate signing requests.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::read::{address, pem_blocks, subject};
use super::{Error, Subject};

/// What a certificate signing request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whom the certificate is to be about.
    pub subject: Subject,
    /// Names that it is to serve.
    pub dns_names: Vec<String>,
    /// Addresses that it is to serve.
    pub ip_addresses: Vec<IpAddr>,
    /// It asks for names of further kinds, such as e-mail addresses and URIs, or for
    /// attributes of the subject besides common name and organizations.
    pub asks_for_more: bool,
}

/// What the first request of a PEM text asks for.
///
/// # Errors
/// When there is none, or it does not parse.
pub fn request(pem: &str) -> Result<RequestInfo, Error> {
    let block = pem_blocks(pem)
        .find(|block| block.label == "CERTIFICATE REQUEST")
        .ok_or(Error::NoPem("certificate request"))?;
    let invalid = |error: String| Error::Request(error);
    let (rest, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| invalid(error.to_string()))?;
    if !rest.is_empty() {
        return Err(invalid("bytes follow the request".to_owned()));
    }
    let name = &request.certification_request_info.subject;
    let subject = subject(name);
    let told = subject.organizations.len() + usize::from(!subject.common_name.is_empty());
    let mut info = RequestInfo {
        asks_for_more: name.iter_attributes().count() != told,
        subject,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
    };
    // All there are: a signer may take another one than the first.
    let attributes = request.certification_request_info.iter_attributes();
    let requested = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
        _ => None,
    });
    for extension in requested.flatten() {
        let names = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => &names.general_names,
            ParsedExtension::ParseError { .. } | ParsedExtension::Unparsed => {
                info.asks_for_more = true;
                continue;
            }
            _ => continue,
        };
        for name in names {
            match name {
                GeneralName::DNSName(name) => info.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => info.ip_addresses.push(address),
                    None => info.asks_for_more = true,
                },
                _ => info.asks_for_more = true,
            }
        }
    }
    Ok(info)
}
