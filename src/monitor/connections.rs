//! Connections to the status page: few at a time, and none that only waits. A client that opens
//! hundreds and sends nothing would otherwise use up the process's file descriptors, and emails could
//! not be sent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// The most connections at a time.
const MOST: usize = 128;

/// How long a client has to send a complete request, however slowly it sends.
const IDLE: Duration = Duration::from_secs(10);

/// A listener that accepts a limited number of connections at a time.
pub(super) struct Few {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Few {
    pub fn new(listener: TcpListener) -> Self {
        let places = Arc::new(Semaphore::new(MOST));
        Self { listener, places }
    }
}

impl Listener for Few {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        (Brief::new(stream, place), from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is closed if no complete request arrives.
pub(super) struct Brief {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Brief {
    fn new(stream: TcpStream, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            stream,
            idle: Box::pin(sleep(IDLE)),
            _place: place,
        }
    }
}

#[cfg(test)]
impl Brief {
    async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => this
                .idle
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A request was answered: the next one has the same time.
        this.idle.as_mut().reset(Instant::now() + IDLE);
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_connection_on_which_no_whole_request_comes_is_closed() {
        let mut listener = Few::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut served, _) = listener.accept().await;
        client.write_all(b"GET").await.unwrap();
        let mut text = [0; 8];
        assert_eq!(served.read(&mut text).await.unwrap(), 3);
        tokio::time::pause();
        tokio::time::advance(IDLE / 2).await;
        // One more byte does not extend the time.
        client.write_all(b" ").await.unwrap();
        served.readable().await.unwrap();
        assert_eq!(served.read(&mut text).await.unwrap(), 1);
        tokio::time::advance(IDLE / 2).await;
        let error = served.read(&mut text).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(listener.places.available_permits(), MOST - 1);
        drop(served);
        assert_eq!(listener.places.available_permits(), MOST);
    }
}
