//! The other end of a connection, and what its certificate proves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::Identity;
use crate::trust::{Authority, Trust};

/// Subject attribute that carries a user's uid.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// A signature on a connection's certificate is checked again after this long.
pub(super) const VERDICT_LIFETIME: Duration = Duration::from_secs(60);

/// Certificates of a chain, leaf first, and bytes of them that are looked at. Which of
/// them signed which is found by trying, before it is known whether anybody whom we trust
/// signed any: with many of one name that takes seconds.
const MAX_CHAIN: usize = 5;
pub(crate) const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// The other end of a connection: its certificates, leaf first.
#[derive(Debug, Default)]
pub struct Peer {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// It presented more than is looked at, of which nothing is kept.
    excessive: bool,
    verdict: Mutex<Option<Arc<Verdict>>>,
    /// Where it connects from.
    source: Option<IpAddr>,
}

/// What is known of a peer's certificate. Checked once for all requests of a
/// connection, as long as trust is the same; its end is compared at each request.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) trust: Arc<Trust>,
    at: tokio::time::Instant,
    /// Until when it holds: the end of what is valid. What is not stays so.
    until: Timestamp,
    pub(super) common_name: String,
    /// The outcome with each authority; `None` where there is no such authority.
    pub(super) front_proxy: Option<Result<(), String>>,
    pub(super) client: Option<Result<Identity, String>>,
}

impl Peer {
    /// With what it presented in the handshake. What is too much proves nothing: it is
    /// answered as what nobody signed, and no alert, which would look like a broken line.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        let excessive = chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES;
        let chain = chain.iter().filter(|_| !excessive);
        Peer {
            chain: chain.map(|c| c.clone().into_owned()).collect(),
            excessive,
            ..Peer::default()
        }
    }

    /// Whether it presented more than is looked at.
    pub fn is_excessive(&self) -> bool {
        self.excessive
    }

    /// Where it connects from.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The same peer, at this address.
    pub fn at(self, source: IpAddr) -> Self {
        Peer {
            source: Some(source),
            ..self
        }
    }

    /// What is known of its certificate, if it has one.
    pub(super) fn verdict(&self, trust: Arc<Trust>, now: Timestamp) -> Option<Arc<Verdict>> {
        let leaf = self.chain.first();
        if leaf.is_none() && !self.excessive {
            return None;
        }
        let mut known = self.verdict.lock();
        if let Some(verdict) = &*known
            && Arc::ptr_eq(&verdict.trust, &trust)
            && verdict.at.elapsed() < VERDICT_LIFETIME
            && now <= verdict.until
        {
            return Some(verdict.clone());
        }
        let described = leaf.ok_or_else(|| "the chain is too long".to_owned());
        let verdict = Arc::new(self.judge(trust, described.and_then(describe), now));
        *known = Some(verdict.clone());
        Some(verdict)
    }

    /// Whom the certificate names is no more than a claim until an authority has signed it.
    fn judge(
        &self,
        trust: Arc<Trust>,
        described: Result<(Identity, Timestamp), String>,
        now: Timestamp,
    ) -> Verdict {
        let verify = |authority: &Authority| {
            let (identity, _) = described.as_ref().map_err(String::clone)?;
            authority.verify(&self.chain, now)?;
            Ok(identity)
        };
        let client = |authority: &Authority| {
            let identity: &Identity = verify(authority)?;
            if identity.user.is_empty() {
                return Err("the subject has no common name".to_owned());
            }
            Ok(identity.clone())
        };
        let front_proxy = trust.front_proxy.as_ref();
        let front_proxy = front_proxy.map(|front| verify(&front.authority).map(|_| ()));
        let client = trust.client.as_ref().map(client);
        let (common_name, until) = match described {
            Ok((identity, not_after)) if now <= not_after => (identity.user, not_after),
            Ok((identity, _)) => (identity.user, Timestamp::MAX),
            Err(_) => (String::new(), Timestamp::MAX),
        };
        Verdict {
            trust,
            at: tokio::time::Instant::now(),
            until,
            common_name,
            front_proxy,
            client,
        }
    }
}

/// Whom a certificate names, and until when. Says nothing about who signed it.
fn describe(leaf: &CertificateDer<'_>) -> Result<(Identity, Timestamp), String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let subject = certificate.subject();
    let strings = |oid: &str| -> Vec<String> {
        subject
            .iter_attributes()
            .filter(|attribute| attribute.attr_type().to_id_string() == oid)
            .filter_map(|attribute| attribute.as_str().ok().map(str::to_owned))
            .collect()
    };
    // RFC 5280 writes 9999-12-31T23:59:59Z for what does not end, which is beyond the
    // last timestamp.
    let not_after = certificate.validity().not_after.timestamp();
    let last = Timestamp::MAX.as_second();
    let not_after =
        Timestamp::from_second(not_after.min(last)).map_err(|error| error.to_string())?;
    let digest = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    let identity = Identity {
        // As Go: the last common name counts.
        user: strings("2.5.4.3").pop().unwrap_or_default(),
        uid: strings(UID_ATTRIBUTE).into_iter().next(),
        groups: strings("2.5.4.10"),
        extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![digest])]),
    };
    Ok((identity, not_after))
}
