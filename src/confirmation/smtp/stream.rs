//! The byte stream: TCP, with or without TLS.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::dial;
use super::settings::SmtpSettings;
use super::stage::Cause;
use super::stage::within;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "simulation")]
    Simulated(tokio::io::DuplexStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Resolves the name and connects.
pub(super) async fn connect(settings: &SmtpSettings) -> Result<Stream, Cause> {
    #[cfg(feature = "simulation")]
    if let Some(dial::Dial(dial)) = &settings.dial {
        return Ok(Stream::Simulated(dial()?));
    }
    let limit = settings.timeouts.connect;
    let found = lookup_host((settings.host.as_str(), settings.port));
    let found = within(limit, found).await?.collect();
    let stream = dial::first_to_answer(found, limit).await?;
    dial::tune(&stream)?;
    Ok(Stream::Plain(stream))
}

impl Stream {
    /// The name for EHLO if none is set: the machine's name if it has a domain, otherwise the address
    /// literal of this end of the connection ([RFC 5321
    /// 4.1.4](https://www.rfc-editor.org/rfc/rfc5321#section-4.1.4)).
    pub(super) fn own_name(&self) -> String {
        let machine = ClientId::default().to_string();
        if machine.contains('.') && !machine.starts_with('[') {
            return machine;
        }
        let address = match self {
            Self::Plain(stream) => stream.local_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.local_addr().ok(),
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => None,
        };
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
            Some(IpAddr::V4(address)) => format!("[{address}]"),
            None => "[127.0.0.1]".to_owned(),
        }
    }
}

/// Starts TLS, and checks the server's certificate against `host`.
pub(super) async fn handshake(
    stream: Stream,
    tls: &TlsConnector,
    host: &str,
) -> io::Result<Stream> {
    let Stream::Plain(stream) = stream else {
        return Err(io::Error::other("TLS inside TLS"));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = tls.connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}
