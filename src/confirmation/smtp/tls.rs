//! TLS with rustls, checked against the platform's root certificates.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::settings::{BadSettings, SmtpSettings};

/// A connector that trusts the platform's roots and the extra ones, and presents its own certificate to
/// a server that asks for one.
pub(super) fn connector(settings: &SmtpSettings) -> Result<TlsConnector, BadSettings> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&settings.extra_roots) {
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
        .with_root_certificates(roots);
    let config = match &settings.identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let bad = |what: String| BadSettings::BadIdentity(what);
            let certificates: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&identity.certificates).collect();
            let certificates = certificates.map_err(|e| bad(e.to_string()))?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes());
            let key = key.map_err(|e| bad(format!("its key: {e}")))?;
            let config = config.with_client_auth_cert(certificates, key);
            config.map_err(|e| bad(e.to_string()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;

    use super::super::secrets::Secret;
    use super::super::settings::TlsIdentity;

    fn own_certificate() -> (CertificateDer<'static>, TlsIdentity) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let identity = TlsIdentity {
            certificates: made.cert.pem().into_bytes(),
            key: Secret::new(made.signing_key.serialize_pem()),
        };
        (made.cert.der().clone(), identity)
    }

    /// Whether a server that demands the certificate `known` accepts the client.
    async fn is_let_in(known: &CertificateDer<'static>, client: Option<TlsIdentity>) -> bool {
        let (der, server) = own_certificate();
        let mut clients = RootCertStore::empty();
        clients.add(known.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
        let key = PrivateKeyDer::from_pem_slice(server.key.reveal().as_bytes());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![der], key.unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let mut settings = SmtpSettings::from_url("smtps://localhost", None).unwrap();
        settings.extra_roots = server.certificates;
        settings.identity = client;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = connector(&settings).unwrap().connect(name, near);
        let (accepted, connected) = tokio::join!(
            async {
                // If refused, the connection is dropped, so that the client notices.
                acceptor.accept(far).await.map(drop)
            },
            async {
                let mut stream = connecting.await?;
                stream.read_to_end(&mut Vec::new()).await
            },
        );
        drop(connected);
        accepted.is_ok()
    }

    #[tokio::test]
    async fn a_server_that_asks_who_connects_is_shown_the_client_certificate() {
        let (known, identity) = own_certificate();
        assert!(is_let_in(&known, Some(identity)).await);
        assert!(!is_let_in(&known, None).await);
        let (_, stranger) = own_certificate();
        assert!(!is_let_in(&known, Some(stranger)).await);
    }

    #[test]
    fn a_client_certificate_with_the_key_of_another_is_refused_at_the_start() {
        let ((_, mut mixed), (_, other)) = (own_certificate(), own_certificate());
        mixed.key = other.key;
        let mut settings = SmtpSettings::from_url("smtps://localhost", None).unwrap();
        settings.identity = Some(mixed);
        let error = connector(&settings).err().unwrap();
        assert!(matches!(error, BadSettings::BadIdentity(_)), "{error}");
    }
}
