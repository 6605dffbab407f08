//! TLS of a connection: the authorities of the datastore and no others.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::tenancy::{Connection, TenancyError};

/// What a connection trusts, and with what it says who it is.
///
/// # Errors
/// [`TenancyError::Refused`] for certificates and keys that cannot be used.
pub fn config(connection: &Connection, ca: &[u8]) -> Result<ClientConfig, TenancyError> {
    let refused = |what: &str, e: &dyn std::fmt::Display| {
        TenancyError::Refused(format!("the {what} of the datastore cannot be used: {e}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|e| refused("certificate authority", &e))?;
        roots
            .add(certificate)
            .map_err(|e| refused("certificate authority", &e))?;
    }
    if roots.is_empty() {
        return Err(refused("certificate authority", &"it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TenancyError::Other(e.to_string()))?
        .with_root_certificates(roots);
    match (&connection.client_cert, &connection.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| refused("client certificate", &e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| refused("client key", &e))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| refused("client certificate", &e))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(refused(
            "client certificate",
            &"certificate and key go together",
        )),
    }
}
