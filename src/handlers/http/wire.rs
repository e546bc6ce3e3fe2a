//! Connections to a handler: TCP, TLS and Unix sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_util::either::Either;
use tower_service::Service;

use super::url::{HandlerServer, HandlerUrl};

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Certificates that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTrust {
    /// The extra certificates are not PEM.
    #[error("the certificates to trust cannot be read: {0}")]
    BadRoots(String),
    /// There is no certificate to trust.
    #[error(
        "the platform has no certificates to trust: install them (Debian and Ubuntu: ca-certificates), or \
         name a file with some"
    )]
    NoRoots,
}

/// Connects to one handler.
#[derive(Clone)]
pub(super) struct Connector {
    server: HandlerServer,
    tls: Option<TlsConnector>,
}

impl Connector {
    pub fn new(url: &HandlerUrl, extra_roots: &[u8]) -> Result<Self, NoTrust> {
        let server = url.server().clone();
        let tls = match server {
            HandlerServer::Tcp { tls: true, .. } => Some(tls(extra_roots)?),
            _ => None,
        };
        Ok(Self { server, tls })
    }

    async fn connect(self) -> io::Result<Wire> {
        let stream = match &self.server {
            HandlerServer::Unix(path) => {
                let stream = UnixStream::connect(&**path).await?;
                Either::Right(Either::Right(stream))
            }
            HandlerServer::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                match &self.tls {
                    None => Either::Left(stream),
                    Some(tls) => {
                        let name = ServerName::try_from(host.to_string());
                        let name = name.map_err(io::Error::other)?;
                        Either::Right(Either::Left(tls.connect(name, stream).await?))
                    }
                }
            }
        };
        Ok(Wire(TokioIo::new(stream)))
    }
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "not within 10 s");
            timeout(CONNECT, connector.connect()).await.map_err(late)?
        })
    }
}

/// Trusts the platform's roots and the extra ones.
fn tls(extra_roots: &[u8]) -> Result<TlsConnector, NoTrust> {
    let bad = |error: &dyn std::fmt::Display| NoTrust::BadRoots(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(extra_roots) {
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() && !extra_roots.is_empty() {
        return Err(bad(&"no certificate in PEM"));
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(NoTrust::NoRoots);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection of any kind, as the client needs it.
pub(super) struct Wire(TokioIo<Either<TcpStream, Either<TlsStream<TcpStream>, UnixStream>>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
