//! TLS by rustls, checked against the platform's roots.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::settings::BadSettings;

/// A connector that trusts the platform's roots and those in `extra` (PEM).
pub(super) fn connector(extra: &[u8]) -> Result<TlsConnector, BadSettings> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(extra) {
        let certificate = certificate.map_err(|e| BadSettings::BadRoots(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| BadSettings::BadRoots(e.to_string()))?;
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(BadSettings::NoRoots);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| BadSettings::BadRoots(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
