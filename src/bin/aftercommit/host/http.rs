//! The HTTP client of the AWS clients: the SDK's own connector, with what the SDK's default client
//! lacks.
//!
//! - Proxies come from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Addresses of this machine and
//!   link-local ones (where credentials are handed out) are never proxied.
//! - `AWS_CA_BUNDLE` replaces the platform's root certificates, as for the AWS CLI.
//! - A call that got no answer discards every pooled connection. When a NAT gateway or a firewall
//!   forgets its connections, each of them is dead without a sign, and the SDK would try one after
//!   another: with 17 of them the next heartbeat took 39 s.
//! - An error names the endpoint.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aftercommit::internal::aws_error::AtEndpoint;
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

/// A call that is given up after so long without an answer says that its connection is dead.
const SILENT: Duration = Duration::from_secs(1);

/// A connection that rested longer is closed. Gateways forget after minutes.
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
    SharedHttpClient::new(Http(Arc::new(Shared {
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

/// The connector panics on what is no certificate.
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
struct Http(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tls: TlsContext,
    proxies: ProxyConfig,
    pool: Mutex<Arc<Pool>>,
}

/// Connectors, each with its connections.
#[derive(Debug, Default)]
struct Pool(Mutex<HashMap<Use, SharedHttpConnector>>);

/// What connections are kept apart for.
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

impl Shared {
    fn pool(&self) -> Arc<Pool> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.clone()
    }

    /// Later calls use new connections. Calls that are under way keep theirs.
    fn discard(&self, dead: &Arc<Pool>) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&pool, dead) {
            *pool = Arc::default();
            tracing::info!("an AWS endpoint did not answer: later calls use new connections");
        }
    }
}

/// Makes the calls of one client.
struct Calls {
    shared: Arc<Shared>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    fn connector(&self, pool: &Pool, proxied: bool) -> SharedHttpConnector {
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

/// A call that has no answer yet.
struct Waiting {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
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

    /// Whether a proxy could not reach it: this machine, and what is only on its link.
    fn is_here(&self) -> bool {
        match self.host.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unicast_link_local() || is_metadata(&self.host)
            }
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// The error, with the endpoint.
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

/// EC2 and EKS hand out credentials there.
///
/// Source: [instance metadata](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
fn is_metadata(host: &str) -> bool {
    host.starts_with("fd00:ec2:")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use std::sync::atomic::{AtomicBool, Ordering};

    use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
    use aws_sdk_dynamodb::{Client, Config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Barrier;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
                          content-length: 2\r\n\r\n{}";

    fn dynamodb(endpoint: &str, proxies: &ProxyConfig) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .http_client(client_with(TrustStore::default(), proxies));
        Client::from_conf(config.build())
    }

    /// Reads a request and returns its first line.
    async fn asked(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"{}") {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
        }
        let text = String::from_utf8(text).unwrap();
        text.lines().next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_what_is_elsewhere_and_never_for_what_is_here() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = format!("http://{}", here.local_addr().unwrap());
        let proxies = format!("http://{}", proxy.local_addr().unwrap());
        let proxies = ProxyConfig::all(proxies.as_str()).unwrap();
        for (endpoint, server, line) in [
            (
                "http://dynamodb.example.com:8000",
                &proxy,
                "POST http://dynamodb.example.com:8000/ HTTP/1.1",
            ),
            (local.as_str(), &here, "POST / HTTP/1.1"),
        ] {
            let client = dynamodb(endpoint, &proxies);
            let call = tokio::spawn(client.list_tables().send());
            let (mut stream, _) = server.accept().await.unwrap();
            assert_eq!(asked(&mut stream).await, line);
            stream.write_all(ANSWER.as_bytes()).await.unwrap();
            call.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn after_a_call_without_an_answer_no_old_connection_is_used() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", server.local_addr().unwrap());
        let client = dynamodb(&endpoint, &ProxyConfig::disabled());
        // Two connections that rest.
        let calls =
            [client.list_tables(), client.list_tables()].map(|call| tokio::spawn(call.send()));
        let mut silent = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = server.accept().await.unwrap();
            asked(&mut stream).await;
            silent.push(stream);
        }
        for stream in &mut silent {
            stream.write_all(ANSWER.as_bytes()).await.unwrap();
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        // The network forgets both.
        let lost = tokio::time::timeout(SILENT * 3, client.list_tables().send());
        assert!(lost.await.is_err());
        let call = tokio::spawn(client.list_tables().send());
        let (mut fresh, _) = server.accept().await.unwrap();
        asked(&mut fresh).await;
        fresh.write_all(ANSWER.as_bytes()).await.unwrap();
        call.await.unwrap().unwrap();
    }

    /// As the worker has it with `--concurrency 128`: a NAT gateway forgets 135 connections at once.
    #[tokio::test]
    async fn a_heartbeat_gets_through_within_a_lease_after_135_connections_died() {
        const POOLED: usize = 135;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (all, dead) = (
            Arc::new(Barrier::new(POOLED)),
            Arc::new(AtomicBool::new(false)),
        );
        let forgets = dead.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (all, forgets) = (all.clone(), forgets.clone());
                let is_new = forgets.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    asked(&mut stream).await;
                    if !is_new {
                        all.wait().await;
                    }
                    stream.write_all(ANSWER.as_bytes()).await.unwrap();
                    // Later requests get no answer, and no reset either.
                    while stream.read_buf(&mut Vec::with_capacity(1024)).await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                });
            }
        });
        let client = dynamodb(&endpoint, &ProxyConfig::disabled());
        let calls = (0..POOLED).map(|_| tokio::spawn(client.list_tables().send()));
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
        dead.store(true, Ordering::SeqCst);
        let timing = aftercommit::engine::Timing::default();
        // So many calls that time out fit into a lease.
        let calls = timing
            .lease_duration
            .div_duration_f64(timing.call_timeout());
        let mut beats = 0.0;
        loop {
            let beat = tokio::time::timeout(timing.call_timeout(), client.list_tables().send());
            if beat.await.is_ok_and(|answer| answer.is_ok()) {
                break;
            }
            beats += 1.0;
            assert!(beats < calls.floor());
        }
    }

    #[test]
    fn a_certificate_bundle_holds_certificates() {
        for (pem, why) in [
            ("", "the file holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "the file holds an invalid certificate",
            ),
        ] {
            assert_eq!(checked(pem.as_bytes()).unwrap_err().to_string(), why);
        }
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        checked(own.cert.pem().as_bytes()).unwrap();
    }

    #[test]
    fn this_machine_and_its_link_are_here() {
        for (uri, here) in [
            ("http://127.0.0.1:8000/", true),
            ("http://localhost:4566", true),
            ("http://[::1]:8000/?x", true),
            ("http://169.254.170.2/creds", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("https://dynamodb.eu-central-1.amazonaws.com/", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Endpoint::of(uri).is_here(), here, "{uri}");
        }
    }
}
