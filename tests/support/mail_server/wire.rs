//! The bytes of one connection, and every way to do them wrong.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use super::script::Act;

/// How much is read at once.
const READ: usize = 64 * 1024;

/// How a connection continues.
pub(super) enum Next {
    On,
    StartTls,
    End,
}

pub(super) struct Wire<S> {
    pub(super) stream: S,
    /// What came and is not read yet.
    pub(super) peek: Vec<u8>,
    /// Waits this long before it reads.
    pub(super) pause: Duration,
}

/// What can be broken rather than closed.
pub(super) trait Breakable: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket; `None`: it is in memory, where closing is all that there is.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Breakable for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Breakable for DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S: Breakable> Breakable for tokio_rustls::server::TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl<S: Breakable> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            peek: Vec::new(),
            pause: Duration::ZERO,
        }
    }

    pub(super) async fn say(&mut self, line: &str) -> bool {
        let said = self
            .stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await;
        said.is_ok() && self.stream.flush().await.is_ok()
    }

    /// From now on reads slowly, with a small buffer.
    pub(super) fn slow_down(&mut self, pause: Duration) {
        if let Some(socket) = self.stream.tcp() {
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(READ);
        }
        self.pause = pause;
    }

    pub(super) async fn read(&mut self) -> bool {
        tokio::time::sleep(self.pause).await;
        self.peek.reserve(READ);
        matches!(self.stream.read_buf(&mut self.peek).await, Ok(count) if count > 0)
    }

    fn break_off(&self) {
        if let Some(socket) = self.stream.tcp() {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Says `line`, or does what the script has instead.
    pub(super) async fn act(&mut self, act: Option<Act>, line: &str) -> Next {
        let said = match act {
            // A held connection continues like all others.
            None | Some(Act::Hold) => self.say(line).await,
            Some(Act::Say(other)) => self.say(other).await && !other.starts_with("421"),
            Some(Act::Close) => false,
            Some(Act::Reset) => {
                self.break_off();
                false
            }
            Some(Act::Silence) => {
                while self.read().await {}
                false
            }
            Some(Act::Half) => {
                let _ = self
                    .stream
                    .write_all(&line.as_bytes()[..line.len().min(6)])
                    .await;
                let _ = self.stream.flush().await;
                false
            }
            Some(Act::Garbage) => self.say("HTTP/1.1 400 Bad Request").await,
            Some(Act::Late(time)) => {
                tokio::time::sleep(time).await;
                self.say(line).await
            }
            Some(Act::Trickle(time)) => {
                for piece in format!("{line}\r\n").as_bytes().chunks(7) {
                    tokio::time::sleep(time).await;
                    if self.stream.write_all(piece).await.is_err() {
                        return Next::End;
                    }
                    let _ = self.stream.flush().await;
                }
                true
            }
            Some(Act::Twice) => self.say(&format!("{line}\r\n{line}")).await,
        };
        if said { Next::On } else { Next::End }
    }
}
