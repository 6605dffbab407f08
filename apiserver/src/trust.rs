//! Which certificates speak for whom: the ConfigMap
//! `kube-system/extension-apiserver-authentication`, parsed (R1.19).
//!
//! Each authority is used by its own authenticator only. An absent key switches off
//! its authenticator and nothing else; a key that cannot be read does the same and is
//! reported, so that a typing error never widens trust.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The front proxy's rules: who it is, and how it names the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub authority: Authority,
    /// Common names that may speak for others; empty means any that the authority signed.
    pub allowed_names: Vec<String>,
    pub username: Vec<HeaderName>,
    pub uid: Vec<HeaderName>,
    pub group: Vec<HeaderName>,
    /// Lower-case prefixes.
    pub extra_prefix: Vec<String>,
}

/// Trusted certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// All that the ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    pub front_proxy: Option<RequestHeader>,
    pub client: Option<Authority>,
}

impl Trust {
    /// Reads the ConfigMap's data. The second value lists what is wrong with it.
    pub fn parse(data: &BTreeMap<String, String>) -> (Trust, Vec<String>) {
        let mut problems = Vec::new();
        let client = authority(data, "client-ca-file", &mut problems);
        let front_proxy =
            authority(data, "requestheader-client-ca-file", &mut problems).and_then(|authority| {
                let mut list = |key: &str| -> Option<Vec<String>> {
                    let text = data.get(key).map(String::as_str).unwrap_or("[]");
                    serde_json::from_str(text)
                        .map_err(|error| problems.push(format!("{key}: {error}")))
                        .ok()
                };
                let headers = |names: Vec<String>| -> Vec<HeaderName> {
                    names.iter().filter_map(|name| name.parse().ok()).collect()
                };
                // An unreadable list of names must not become "any name".
                let rules = RequestHeader {
                    authority,
                    allowed_names: list("requestheader-allowed-names")?,
                    username: headers(list("requestheader-username-headers")?),
                    uid: headers(list("requestheader-uid-headers")?),
                    group: headers(list("requestheader-group-headers")?),
                    extra_prefix: list("requestheader-extra-headers-prefix")?
                        .iter()
                        .map(|prefix| prefix.to_ascii_lowercase())
                        .collect(),
                };
                Some(rules)
            });
        let trust = Trust {
            front_proxy,
            client,
        };
        if trust.anyone_is_front_proxy() {
            problems.push(
                "requestheader-client-ca-file shares a certificate with client-ca-file and \
                 requestheader-allowed-names is empty: every client certificate may act as \
                 any user"
                    .to_owned(),
            );
        }
        (trust, problems)
    }

    /// Whether a mere user's certificate would be taken for the front proxy's.
    fn anyone_is_front_proxy(&self) -> bool {
        match (&self.front_proxy, &self.client) {
            (Some(front), Some(client)) => {
                front.allowed_names.is_empty()
                    && front
                        .authority
                        .certificates
                        .iter()
                        .any(|certificate| client.certificates.contains(certificate))
            }
            _ => false,
        }
    }
}

fn authority(
    data: &BTreeMap<String, String>,
    key: &str,
    problems: &mut Vec<String>,
) -> Option<Authority> {
    let pem = data.get(key).filter(|pem| !pem.trim().is_empty())?;
    Authority::parse(pem)
        .map_err(|error| problems.push(format!("{key}: {error}")))
        .ok()
}

impl Authority {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// As text, when there is no certificate in it or one cannot be read.
    pub fn parse(pem: &str) -> Result<Authority, String> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        let anchors = certificates
            .iter()
            .map(|der| Ok(anchor_from_trusted_cert(der)?.to_owned()))
            .collect::<Result<_, webpki::Error>>()
            .map_err(|error| error.to_string())?;
        Ok(Authority {
            certificates,
            anchors,
        })
    }

    /// Whether the chain, leaf first, is a client certificate of this authority now.
    ///
    /// # Errors
    /// As text: why it is not.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        let (leaf, intermediates) = chain.split_first().ok_or("no certificate")?;
        let since_epoch = u64::try_from(now.as_second()).map_err(|error| error.to_string())?;
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    webpki::ALL_VERIFICATION_ALGS,
                    &self.anchors,
                    intermediates,
                    UnixTime::since_unix_epoch(Duration::from_secs(since_epoch)),
                    KeyUsage::client_auth(),
                    None,
                    None,
                )
                .map(|_| ())
            })
            .map_err(|error| error.to_string())
    }
}
