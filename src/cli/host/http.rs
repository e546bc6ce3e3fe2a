//! The HTTP client of the AWS clients: the SDK's own connector, and what its default client lacks.
//!
//! - Proxies come from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Addresses of this machine and
//!   link-local ones (where credentials are handed out) are never proxied.
//! - `AWS_CA_BUNDLE` replaces the platform's root certificates, as for the AWS CLI.
//! - A call without an answer discards every pooled connection. When a NAT gateway or a firewall
//!   forgets its connections, they are all dead without a sign, and the SDK would try one after another:
//!   with 17 of them the next heartbeat took 39 s.
//! - An error names the endpoint.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stores::aws_error::AtEndpoint;
use anyhow::{Context as _, ensure};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// Certificates to trust in place of the platform's.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// A call that gives up after this time without an answer treats its connection as dead.
const SILENT: Duration = Duration::from_secs(1);

/// A connection that was idle for longer is closed. Gateways forget connections after minutes.
const IDLE: Duration = Duration::from_secs(20);

/// The client that all AWS clients of this process share.
///
/// # Errors
///
/// `AWS_CA_BUNDLE` names a file that cannot be read or holds no certificate.
pub fn client() -> anyhow::Result<SharedHttpClient> {
    Ok(client_with(trust()?, &ProxyConfig::from_env()))
}

fn client_with(trust: TrustStore, proxies: &ProxyConfig) -> SharedHttpClient {
    let tls = TlsContext::builder().with_trust_store(trust).build();
    SharedHttpClient::new(Http(Arc::new(SharedHttp {
        tls: tls.unwrap_or_default(),
        proxies: proxies.clone(),
        pool: Mutex::default(),
    })))
}

fn trust() -> anyhow::Result<TrustStore> {
    let Some(path) = std::env::var_os(CA_BUNDLE).filter(|path| !path.is_empty()) else {
        return Ok(TrustStore::default());
    };
    let path = PathBuf::from(path);
    let pem = std::fs::read(&path)
        .map_err(anyhow::Error::from)
        .and_then(|pem| checked(&pem).map(|()| pem))
        .with_context(|| format!("{CA_BUNDLE}={}", path.display()))?;
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// The connector panics on an invalid certificate.
fn checked(pem: &[u8]) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.context("the file is not PEM")?;
        let added = roots.add(certificate);
        added.context("the file holds an invalid certificate")?;
    }
    ensure!(!roots.is_empty(), "the file holds no certificate");
    Ok(())
}

#[derive(Debug)]
struct Http(Arc<SharedHttp>);

#[derive(Debug)]
struct SharedHttp {
    tls: TlsContext,
    proxies: ProxyConfig,
    pool: Mutex<Arc<ConnectorPool>>,
}

/// Connectors, each with its own connections.
#[derive(Debug, Default)]
struct ConnectorPool(Mutex<HashMap<Use, SharedHttpConnector>>);

/// Connections are shared only between calls with the same settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Use {
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    proxied: bool,
}

impl HttpClient for Http {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Calls {
            shared: self.0.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

impl SharedHttp {
    fn pool(&self) -> Arc<ConnectorPool> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.clone()
    }

    /// Later calls use new connections. Calls in progress keep theirs.
    fn discard(&self, dead: &Arc<ConnectorPool>) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&pool, dead) {
            *pool = Arc::default();
            tracing::info!("an AWS endpoint did not answer: later calls use new connections");
        }
    }
}

/// Makes the calls of one client.
struct Calls {
    shared: Arc<SharedHttp>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    fn connector(&self, pool: &ConnectorPool, proxied: bool) -> SharedHttpConnector {
        let key = Use {
            connect_timeout: self.settings.connect_timeout(),
            read_timeout: self.settings.read_timeout(),
            proxied,
        };
        let mut pool = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connector = pool.entry(key).or_insert_with(|| {
            let mut builder = Connector::builder()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(self.shared.tls.clone())
                .connector_settings(self.settings.clone())
                .pool_idle_timeout(IDLE);
            if proxied {
                builder = builder.proxy_config(self.shared.proxies.clone());
            }
            builder.set_sleep_impl(self.components.sleep_impl());
            SharedHttpConnector::new(builder.build())
        });
        connector.clone()
    }
}

impl HttpConnector for Calls {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let endpoint = Endpoint::of(request.uri());
        let pool = self.shared.pool();
        let connector = self.connector(&pool, !endpoint.is_here());
        let waiting = Waiting {
            shared: self.shared.clone(),
            pool,
            since: Instant::now(),
            answered: false,
        };
        let answer = connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            let silent = matches!(&answer, Err(error) if error.is_timeout());
            waiting.end(!silent);
            answer.map_err(|error| endpoint.on(error))
        })
    }
}

/// A call without an answer yet.
struct Waiting {
    shared: Arc<SharedHttp>,
    pool: Arc<ConnectorPool>,
    since: Instant,
    answered: bool,
}

impl Waiting {
    fn end(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= SILENT {
            self.shared.discard(&self.pool);
        }
    }
}

/// Scheme, host and port.
struct Endpoint {
    origin: String,
    host: String,
}

impl Endpoint {
    fn of(uri: &str) -> Self {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("http", uri));
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        Self {
            origin: format!("{scheme}://{authority}"),
            host: host.to_ascii_lowercase(),
        }
    }

    /// Whether a proxy could not reach the address: this machine, or its link.
    fn is_here(&self) -> bool {
        match self.host.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unicast_link_local() || is_metadata(&self.host)
            }
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// Adds the endpoint to the error.
    fn on(&self, error: ConnectorError) -> ConnectorError {
        let (timeout, user, io) = (error.is_timeout(), error.is_user(), error.is_io());
        let kind = error.as_other();
        let at = AtEndpoint {
            endpoint: self.origin.clone(),
            source: error.into_source(),
        };
        match () {
            () if timeout => ConnectorError::timeout(at.into()),
            () if user => ConnectorError::user(at.into()),
            () if io => ConnectorError::io(at.into()),
            () => ConnectorError::other(at.into(), kind),
        }
    }
}

/// EC2 and EKS hand out credentials at these addresses.
///
/// Source: [instance metadata](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
fn is_metadata(host: &str) -> bool {
    host.starts_with("fd00:ec2:")
}

#[cfg(test)]
mod tests;
