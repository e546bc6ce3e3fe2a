//! One connection to the mail server.
//!
//! A connection is a value with one owner. Every step borrows it mutably and runs to its end or fails.
//! Dropping a step half-way drops the connection with it, so no reply can ever reach another mail.

use std::io;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::reply::{Capabilities, Class, Reply};
use super::secrets::Secret;
use super::settings::{Login, Mechanism, Security, SmtpSettings};
use super::stage::{Cause, Refusal, SendStage, within};
use super::stream::{Stream, connect, handshake};
use super::wire::Flight;

/// Fields are dropped in this order: the socket closes before its slot is free again.
pub(super) struct Connection {
    stream: Stream,
    inbox: Vec<u8>,
    pub(super) server: Capabilities,
    /// The server may have an open mail transaction: RSET comes before the next MAIL.
    pub(super) open_transaction: bool,
    pub(super) born: Instant,
    pub(super) used: Instant,
    pub(super) mails: u32,
    _slot: OwnedSemaphorePermit,
}

/// How a write that contains the final dot failed.
pub(super) enum WriteFailed {
    /// The dot was certainly not passed to the network.
    BeforeDot(Cause),
    /// The dot may have been passed to the network.
    Unknown(Cause),
}

impl Connection {
    /// Opens a connection and prepares it for its first command: greeted, protected, and authenticated
    /// with `secret` if there is a login.
    pub(super) async fn open(
        settings: &SmtpSettings,
        tls: Option<&TlsConnector>,
        secret: Option<&Secret>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, Refusal> {
        let limits = settings.timeouts;
        let tcp = connect(settings).await;
        let mut stream = tcp.map_err(Refusal::at(SendStage::Connect))?;
        if let (Security::Implicit, Some(tls)) = (settings.security, tls) {
            stream = within(limits.tls, handshake(stream, tls, &settings.host))
                .await
                .map_err(Refusal::at(SendStage::Tls))?;
        }
        let now = Instant::now();
        let mut connection = Self {
            stream,
            inbox: Vec::new(),
            server: Capabilities::default(),
            open_transaction: false,
            born: now,
            used: now,
            mails: 0,
            _slot: slot,
        };
        let greeting = connection.reply(limits.greeting).await;
        greeting
            .and_then(done)
            .map_err(Refusal::at(SendStage::Greeting))?;
        connection.hello(settings).await?;
        if let (Security::StartTls, Some(tls)) = (settings.security, tls) {
            connection = connection
                .starttls(settings, tls)
                .await
                .map_err(Refusal::at(SendStage::Tls))?;
            connection.hello(settings).await?;
        }
        if let (Some(login), Some(secret)) = (&settings.login, secret) {
            let authenticated = connection.authenticate(login, secret, limits.auth).await;
            authenticated.map_err(Refusal::at(SendStage::Auth))?;
        }
        Ok(connection)
    }

    async fn hello(&mut self, settings: &SmtpSettings) -> Result<(), Refusal> {
        let limit = settings.timeouts.hello;
        let name = match &settings.hello {
            Some(name) => name.clone(),
            None => self.stream.own_name(),
        };
        let ehlo = format!("EHLO {name}\r\n");
        let reply = self.command(ehlo.as_bytes(), limit).await;
        let reply = reply.map_err(Refusal::at(SendStage::Hello))?;
        if !matches!(reply.code(), 500 | 502) {
            let reply = done(reply).map_err(Refusal::at(SendStage::Hello))?;
            self.server = Capabilities::of(&reply);
            self.server.pipelining &= settings.pipelining;
            return Ok(());
        }
        // It knows no extensions, and TLS and login both are extensions.
        if settings.security == Security::StartTls || settings.login.is_some() {
            return Err(Refusal::at(SendStage::Hello)(Cause::Unsuitable(
                "the mail server does not know EHLO, so it offers neither STARTTLS nor a login; \
                 use another server, or tls=none and no user in the SMTP URL",
            )));
        }
        let helo = format!("HELO {name}\r\n");
        let reply = self.command(helo.as_bytes(), limit).await;
        reply
            .and_then(done)
            .map_err(Refusal::at(SendStage::Hello))?;
        self.server = Capabilities::default();
        Ok(())
    }

    async fn starttls(
        mut self,
        settings: &SmtpSettings,
        tls: &TlsConnector,
    ) -> Result<Self, Cause> {
        if !self.server.starttls {
            return Err(Cause::Unsuitable(
                "TLS is required, but the mail server does not offer STARTTLS; \
                 use smtps://, or tls=none if plain SMTP is meant",
            ));
        }
        let reply = self
            .command(b"STARTTLS\r\n", settings.timeouts.hello)
            .await?;
        done(reply)?;
        // Unencrypted bytes must not count as received under TLS (CVE-2011-0411).
        if !self.inbox.is_empty() {
            return Err(Cause::Protocol("it spoke between STARTTLS and TLS".into()));
        }
        let limit = settings.timeouts.tls;
        self.stream = within(limit, handshake(self.stream, tls, &settings.host)).await?;
        Ok(self)
    }

    async fn authenticate(
        &mut self,
        login: &Login,
        secret: &Secret,
        limit: Duration,
    ) -> Result<(), Cause> {
        let offers = |mechanism: Mechanism| self.server.auth.iter().any(|a| a == mechanism.name());
        let wanted = match login.mechanism {
            Some(mechanism) => Some(mechanism),
            None => [Mechanism::Plain, Mechanism::Login]
                .into_iter()
                .find(|m| offers(*m)),
        };
        let mechanism = wanted.filter(|m| offers(*m)).ok_or(Cause::Unsuitable(
            "the mail server does not offer the configured login mechanism; \
             check the port, and auth= in the SMTP URL",
        ))?;
        let secret = secret.reveal();
        let reply = match mechanism {
            Mechanism::Plain => {
                let response = Zeroizing::new(format!("\0{}\0{secret}", login.user));
                self.command(&auth_line("AUTH PLAIN ", &response), limit)
                    .await?
            }
            Mechanism::Xoauth2 => {
                let response = Zeroizing::new(format!(
                    "user={}\x01auth=Bearer {secret}\x01\x01",
                    login.user
                ));
                let reply = self
                    .command(&auth_line("AUTH XOAUTH2 ", &response), limit)
                    .await?;
                match reply.class() {
                    // Details of the error come as a challenge. After an empty answer the server sends
                    // its final reply.
                    Class::GoOn => self.command(b"\r\n", limit).await?,
                    _ => reply,
                }
            }
            Mechanism::Login => {
                let challenge = self.command(b"AUTH LOGIN\r\n", limit).await?;
                expect(challenge, 334)?;
                let challenge = self.command(&auth_line("", &login.user), limit).await?;
                expect(challenge, 334)?;
                self.command(&auth_line("", secret), limit).await?
            }
        };
        done(reply).map(drop)
    }

    /// Whether the connection is ready for the next command: open, with no unexpected input. Costs no
    /// round trip.
    pub(super) fn is_in_step(&mut self) -> bool {
        let mut byte = [0; 1];
        // A task that has used up its budget would have to wait, whatever the server sent.
        let read = tokio::task::unconstrained(self.stream.read(&mut byte));
        self.inbox.is_empty() && read.now_or_never().is_none()
    }

    /// The connection if it is in step. Closes it otherwise.
    pub(super) fn if_in_step(mut self) -> Option<Self> {
        self.is_in_step().then_some(self)
    }

    /// Checks whether the server is still there.
    pub(super) async fn noop(&mut self, limit: Duration) -> Result<(), Cause> {
        self.command(b"NOOP\r\n", limit)
            .await
            .and_then(done)
            .map(drop)
    }

    /// Ends the session with QUIT.
    pub(super) async fn quit(mut self, limit: Duration) {
        let _ = self.command(b"QUIT\r\n", limit).await;
    }

    /// RSET if needed, MAIL, RCPT: in one write if the server pipelines.
    pub(super) async fn envelope(
        &mut self,
        flight: &Flight,
        settings: &SmtpSettings,
    ) -> Result<(), Refusal> {
        let limits = &settings.timeouts;
        let reset = std::mem::replace(&mut self.open_transaction, true);
        if self.server.pipelining {
            let mut bytes = if reset {
                b"RSET\r\n".to_vec()
            } else {
                Vec::new()
            };
            bytes.extend(flight.bytes());
            let sent = self.send(&bytes, limits.mail).await;
            sent.map_err(Refusal::at(SendStage::Mail))?;
            if reset {
                let reply = self.reply(limits.hello).await;
                reply
                    .and_then(was_reset)
                    .map_err(Refusal::at(SendStage::Mail))?;
            }
            return self.envelope_replies(flight, settings).await;
        }
        if reset {
            let reply = self.command(b"RSET\r\n", limits.hello).await;
            reply
                .and_then(was_reset)
                .map_err(Refusal::at(SendStage::Mail))?;
        }
        let reply = self.command(flight.mail.as_bytes(), limits.mail).await;
        reply.and_then(done).map_err(Refusal::at(SendStage::Mail))?;
        for rcpt in &flight.rcpts {
            let reply = self.command(rcpt.as_bytes(), limits.rcpt).await;
            reply.and_then(done).map_err(Refusal::at(SendStage::Rcpt))?;
        }
        Ok(())
    }

    /// Reads every reply to commands that were sent; the first refusal counts. A read failure takes
    /// precedence over a refusal, because the connection is then out of step.
    pub(super) async fn envelope_replies(
        &mut self,
        flight: &Flight,
        settings: &SmtpSettings,
    ) -> Result<(), Refusal> {
        let limits = &settings.timeouts;
        self.open_transaction = true;
        let reply = self.reply(limits.mail).await;
        let reply = reply.map_err(Refusal::at(SendStage::Mail))?;
        let mut refused = done(reply).map_err(Refusal::at(SendStage::Mail)).err();
        for _ in &flight.rcpts {
            let reply = match self.reply(limits.rcpt).await {
                Ok(reply) => reply,
                // It replied 421 and hung up: that reply says more than the missing ones.
                Err(_) if refused.as_ref().is_some_and(|r| r.cause.is_disconnect()) => break,
                Err(cause) => return Err(Refusal::at(SendStage::Rcpt)(cause)),
            };
            let next = done(reply).map_err(Refusal::at(SendStage::Rcpt)).err();
            refused = refused.or(next);
        }
        refused.map_or(Ok(()), Err)
    }

    /// DATA. `Ok` only for 354.
    pub(super) async fn data(&mut self, limit: Duration) -> Result<(), Cause> {
        let reply = self.command(b"DATA\r\n", limit).await?;
        expect(reply, 354)
    }

    /// One command, one reply.
    async fn command(&mut self, bytes: &[u8], limit: Duration) -> Result<Reply, Cause> {
        self.send(bytes, limit).await?;
        self.reply(limit).await
    }

    /// Passes bytes to the network.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Cause> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within(limit, write).await
    }

    /// Passes the last part of a message, `dot_end` bytes up to and including the dot's line end, and
    /// the commands that follow it, in one write.
    pub(super) async fn send_dot(
        &mut self,
        bytes: &[u8],
        dot_end: usize,
        limit: Duration,
    ) -> Result<(), WriteFailed> {
        let mut written = 0;
        let write = async {
            while written < bytes.len() {
                match self.stream.write(&bytes[written..]).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => written += count,
                }
            }
            self.stream.flush().await
        };
        let result = within(limit, write).await;
        result.map_err(|cause| match &self.stream {
            Stream::Tls(_) => WriteFailed::Unknown(cause),
            // A failed write call on a socket passes nothing on, so the count is exact.
            _ if written < dot_end => WriteFailed::BeforeDot(cause),
            _ => WriteFailed::Unknown(cause),
        })
    }

    /// The next complete reply, within `limit`.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, Cause> {
        let read = async {
            loop {
                match Reply::take(&mut self.inbox) {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => {}
                    Err(_) => {
                        return Err(Cause::Protocol(
                            "it sent something that is not an SMTP reply".into(),
                        ));
                    }
                }
                if self.stream.read_buf(&mut self.inbox).await? == 0 {
                    return Err(Cause::Closed);
                }
            }
        };
        let reply = timeout(limit, read)
            .await
            .unwrap_or(Err(Cause::Timeout(limit)))?;
        self.used = Instant::now();
        Ok(reply)
    }
}

/// Requires 2xx.
fn done(reply: Reply) -> Result<Reply, Cause> {
    match reply.class() {
        Class::Done => Ok(reply),
        _ => Err(Cause::unexpected(reply)),
    }
}

/// A server that refuses to reset the last transaction says nothing about this mail: the connection
/// cannot be used any more.
fn was_reset(reply: Reply) -> Result<Reply, Cause> {
    match reply.class() {
        Class::Done => Ok(reply),
        _ => Err(io::Error::other(format!("the server answered {reply} to RSET")).into()),
    }
}

fn expect(reply: Reply, code: u16) -> Result<(), Cause> {
    if reply.code() == code {
        Ok(())
    } else {
        Err(Cause::unexpected(reply))
    }
}

fn auth_line(verb: &str, response: &str) -> Zeroizing<Vec<u8>> {
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(response));
    Zeroizing::new([verb.as_bytes(), encoded.as_bytes(), b"\r\n"].concat())
}
