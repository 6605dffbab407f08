//! Reading certificate signing requests.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::read::{address, subject};
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

/// What the request in a PEM text asks for. The text is one block exactly as programs
/// write it: readers of PEM differ in what they make of anything else, and whoever signs
/// may read another request than was judged.
///
/// # Errors
/// When it is anything else, or does not parse.
pub fn request(pem: &str) -> Result<RequestInfo, Error> {
    let invalid = |error: String| Error::Request(error);
    let der = only_block(pem).ok_or_else(|| {
        invalid("it is not one PEM block of 64 characters a line, without headers".to_owned())
    })?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| invalid(error.to_string()))?;
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

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----\n";
/// Characters of a line of PEM.
const LINE: usize = 64;

/// What is in the one block of a text that is written as OpenSSL and Go do.
fn only_block(pem: &str) -> Option<Vec<u8>> {
    // Some tools write lines for Windows, others no end of the last line.
    let mut text = pem.replace("\r\n", "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let base64: String = text
        .strip_prefix(BEGIN)?
        .strip_suffix(END)?
        .lines()
        .collect();
    let der = STANDARD.decode(&base64).ok()?;
    (encoded(&der) == text).then_some(der)
}

fn encoded(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = BEGIN.to_owned();
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(END);
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn asked(name: &str) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a");
        let key = KeyPair::generate().unwrap();
        params
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
            .replace("\r\n", "\n")
    }

    #[test]
    fn a_request_is_read() {
        let pem = asked("one.example");
        let names = |pem: &str| request(pem).unwrap().dns_names;
        assert_eq!(names(&pem), ["one.example"]);
        assert_eq!(names(pem.trim_end()), ["one.example"]);
        assert_eq!(names(&pem.replace('\n', "\r\n")), ["one.example"]);
    }

    /// Go takes the first block, with headers, blanks and all; other readers take others.
    #[test]
    fn what_may_be_read_in_two_ways_is_refused() {
        let (bad, good) = (asked("kubernetes"), asked("one.example"));
        let header = bad.replacen('\n', "\na: b\n\n", 1);
        let blank = bad.replacen('\n', "\n ", 1);
        let line = bad.lines().nth(1).unwrap();
        let joined = bad.replacen(&format!("{line}\n"), line, 1);
        let unended = bad.replace("-----END CERTIFICATE REQUEST-----\n", "");
        let other_end = bad.replace("-----END CERTIFICATE REQUEST", "-----END CERTIFICATE");
        let new = bad.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
        let padding = {
            let end = bad.find("\n-----END").unwrap();
            let mut text = bad.clone();
            text.insert(end, '=');
            text
        };
        for first in [
            &header, &blank, &joined, &unended, &other_end, &new, &padding, &bad,
        ] {
            assert!(request(&format!("{first}{good}")).is_err(), "{first}");
        }
        for alone in [header, blank, joined, unended, other_end, new, padding] {
            assert!(request(&alone).is_err(), "{alone}");
        }
        assert!(request(&format!("\n{good}")).is_err());
        assert!(request(&format!("{good}\n")).is_err());
        assert!(request("").is_err());
    }
}
