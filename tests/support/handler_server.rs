//! A handler over HTTP that does what a test says, to the byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Posted {
    pub line: String,
    head: Vec<(String, String)>,
    pub raw: Vec<u8>,
    /// Which connection it came by, from 0.
    pub connection: usize,
}

impl Posted {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.head.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| &**value)
    }

    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap()
    }
}

/// What the handler does about a request.
#[derive(Debug, Clone)]
pub enum Reaction {
    /// Sends these bytes and keeps the connection.
    Send(String),
    /// Sends these bytes and closes the connection.
    SendAndClose(String),
    /// Sends these bytes and then nothing.
    SendAndHang(String),
}

/// An answer with a body.
pub fn answer(status: u16, headers: &str, body: &str) -> Reaction {
    let length = body.len();
    Reaction::Send(format!(
        "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    ))
}

type React = Arc<dyn Fn(&Posted) -> Reaction + Send + Sync>;

/// A running handler.
#[derive(Clone)]
pub struct HandlerServer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Posted>>>,
    count: Arc<watch::Sender<usize>>,
    react: React,
}

impl HandlerServer {
    pub async fn start(react: impl Fn(&Posted) -> Reaction + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self::new(listener.local_addr().unwrap(), react);
        let this = server.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(this.clone().serve(stream, connection));
            }
        });
        server
    }

    /// On a Unix socket.
    pub fn on_socket(
        path: &Path,
        react: impl Fn(&Posted) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let server = Self::new(([127, 0, 0, 1], 0).into(), react);
        let this = server.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(this.clone().serve(stream, connection));
            }
        });
        server
    }

    fn new(
        address: SocketAddr,
        react: impl Fn(&Posted) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self {
            address,
            seen: Arc::default(),
            count: Arc::new(watch::channel(0).0),
            react: Arc::new(react),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Posted> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for this many requests.
    pub async fn wait(&self, count: usize) {
        let mut counted = self.count.subscribe();
        counted.wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// Serves a connection, whatever it is.
    pub async fn serve(
        self,
        mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        connection: usize,
    ) {
        let mut buffer = Vec::new();
        while let Some(posted) = next(&mut stream, &mut buffer, connection).await {
            let reaction = (self.react)(&posted);
            self.seen.lock().unwrap().push(posted);
            self.count.send_modify(|count| *count += 1);
            let (Reaction::Send(bytes)
            | Reaction::SendAndClose(bytes)
            | Reaction::SendAndHang(bytes)) = &reaction;
            // The caller may be gone.
            let _ = stream.write_all(bytes.as_bytes()).await;
            match reaction {
                Reaction::Send(_) => {}
                Reaction::SendAndClose(_) => return,
                Reaction::SendAndHang(_) => std::future::pending().await,
            }
        }
    }
}

async fn next(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Posted> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap().to_owned();
            let pairs = lines.map(|line| line.split_once(": ").unwrap());
            let head: Vec<_> = pairs
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = head.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let raw = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some(Posted {
                    line,
                    head,
                    raw,
                    connection,
                });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
