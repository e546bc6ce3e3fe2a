//! The SMTP transport: offers a mail, and reports exactly how it ended.
//!
//! A mail takes two steps, with the caller's claim between them:
//!
//! 1. [`Smtp::offer`] continues until the server accepts the recipient. If anything fails here, the
//!    mail is certainly not sent.
//! 2. [`SmtpOffer::deliver`] sends the message and waits for the reply to the final dot. Its
//!    [`Delivery`] says accepted, refused, deferred, certainly not sent, or unknown.
//!
//! If the server offers PIPELINING ([RFC 2920](https://www.rfc-editor.org/rfc/rfc2920)), MAIL and RCPT
//! are sent together, and the envelope of a send that waits for a connection is sent directly after the
//! dot of the mail before it: a mail then costs two round trips. Nothing follows a dot that must not be
//! sent yet.
//!
//! Every future can be dropped at any await. Before the final dot that means not sent. A connection
//! with an unread reply is closed, never reused.

mod connection;
mod dial;
mod pool;
mod reply;
mod secrets;
mod settings;
mod stage;
mod stream;
mod tls;
mod url;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use connection::{Connection, WriteFailed};
use pool::{ConnectionPool, Got, Waiter};
pub use reply::{Class, Reply};
pub use secrets::Reload;
pub use secrets::Secret;
use secrets::Secrets;
pub use settings::{BadSettings, Login, Mechanism, Security, SmtpSettings, Timeouts, TlsIdentity};
pub use stage::{Cause, Delivery, Refusal, SendStage};
#[cfg(feature = "ses")]
pub(super) use wire::ascii_domain;
use wire::{Flight, Stuffed};

/// How long a send that follows another mail's dot waits for the reply to that dot before it looks for
/// another connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long QUIT may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A mail server and the connections to it. Clones share them.
#[derive(Clone)]
pub struct Smtp(Arc<Relay>);

struct Relay {
    settings: SmtpSettings,
    tls: Option<TlsConnector>,
    secrets: Option<Secrets>,
    pool: ConnectionPool,
}

/// An envelope that the server has accepted. Nothing is sent yet, and nothing will be if this is
/// dropped.
pub struct SmtpOffer {
    connection: Option<Connection>,
    smtp: Smtp,
}

impl Smtp {
    /// Prepares for a server, without connecting yet.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] if root certificates cannot be read or there are none, or if the EHLO name is
    /// not a name.
    pub fn new(settings: SmtpSettings) -> Result<Self, BadSettings> {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if let Some(name) = &settings.hello
            && (name.is_empty() || name.contains(odd))
        {
            return Err(BadSettings::Hello(name.clone()));
        }
        let tls = match settings.security {
            Security::Plain => None,
            Security::Implicit | Security::StartTls => Some(tls::connector(&settings)?),
        };
        let login = settings.login.as_ref();
        Ok(Self(Arc::new(Relay {
            pool: ConnectionPool::new(&settings),
            secrets: login.map(|login| Secrets::new(login.secret.clone(), settings.reload.clone())),
            settings,
            tls,
        })))
    }

    /// The settings.
    pub fn settings(&self) -> &SmtpSettings {
        &self.0.settings
    }

    /// Waits for a connection, then continues until the server accepts the sender and every recipient.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the mail is certainly not sent. It says at which step it ended, and whether the
    /// cause is this mail or the server.
    pub async fn offer(&self, envelope: &Envelope) -> Result<SmtpOffer, Refusal> {
        let settings = &self.0.settings;
        // An idle connection may be dead without a sign; then a new one is opened.
        for _ in 0..=settings.max_connections {
            let attempt = match self.0.pool.get(envelope).await {
                Got::Slot(slot) => match self.open(slot).await? {
                    Some(connection) => return self.accepted(connection, envelope).await,
                    // Once more, with a changed secret.
                    None => continue,
                },
                Got::Used(connection) => self.reuse(connection, envelope).await,
                Got::Riding(connection) => self.ride(connection, envelope).await,
            };
            match attempt {
                Err(refusal) if refusal.cause.is_disconnect() => {}
                ended => return ended,
            }
        }
        Err(Refusal::at(SendStage::Connect)(Cause::Closed))
    }

    /// Opens a connection. `None`: the server refused the secret, and there is another one by now.
    async fn open(&self, slot: OwnedSemaphorePermit) -> Result<Option<Connection>, Refusal> {
        let Relay {
            settings,
            tls,
            secrets,
            ..
        } = &*self.0;
        let secret = match secrets {
            Some(secrets) => Some(secrets.next().await),
            None => None,
        };
        let opened = Connection::open(settings, tls.as_ref(), secret.as_ref(), slot).await;
        match (opened, secrets, secret) {
            (Err(refusal), Some(secrets), Some(tried))
                if refusal.is_of_the_login() && secrets.refused(&tried).await =>
            {
                Ok(None)
            }
            (opened, ..) => opened.map(Some),
        }
    }

    async fn reuse(
        &self,
        mut connection: Connection,
        envelope: &Envelope,
    ) -> Result<SmtpOffer, Refusal> {
        let gone = Refusal::at(SendStage::Mail);
        if !connection.is_in_step() || !self.0.pool.is_fit(&connection) {
            return Err(gone(Cause::Closed));
        }
        if connection.used.elapsed() >= self.0.settings.noop_after {
            let rested_since = connection.used;
            if connection
                .noop(self.0.settings.timeouts.noop)
                .await
                .is_err()
            {
                self.0.pool.discard_rested(rested_since);
                return Err(gone(Cause::Closed));
            }
        }
        self.accepted(connection, envelope).await
    }

    async fn accepted(
        &self,
        mut connection: Connection,
        envelope: &Envelope,
    ) -> Result<SmtpOffer, Refusal> {
        let flight = match Flight::of(envelope, &connection.server) {
            Ok(flight) => flight,
            Err(refusal) => {
                self.0.pool.put_back(connection);
                return Err(refusal);
            }
        };
        let answer = connection.envelope(&flight, &self.0.settings).await;
        self.offered(connection, answer)
    }

    async fn ride(
        &self,
        mut connection: Connection,
        envelope: &Envelope,
    ) -> Result<SmtpOffer, Refusal> {
        let flight = Flight::of(envelope, &connection.server)?;
        let answer = connection.envelope_replies(&flight, &self.0.settings).await;
        self.offered(connection, answer)
    }

    fn offered(
        &self,
        connection: Connection,
        answer: Result<(), Refusal>,
    ) -> Result<SmtpOffer, Refusal> {
        match answer {
            Ok(()) => Ok(SmtpOffer {
                connection: Some(connection),
                smtp: self.clone(),
            }),
            Err(refusal) => {
                // After a definite reply to each command the connection is still in step.
                if let Cause::Reply(reply) = &refusal.cause {
                    self.keep(connection, reply);
                }
                Err(refusal)
            }
        }
    }

    /// Keeps a connection for the next mail, unless the server deferred this one: a session may have a
    /// limit, and one of several nodes may be sick. The next attempt uses another connection.
    fn keep(&self, connection: Connection, reply: &Reply) {
        if reply.class() != Class::NotNow {
            self.0.pool.put_back(connection);
        }
    }

    /// Says QUIT on every idle connection.
    pub async fn close(&self) {
        for connection in self.0.pool.drain() {
            connection.quit(FAREWELL).await;
        }
    }
}

impl SmtpOffer {
    /// The largest message that the server accepts in bytes, if it says so
    /// ([RFC 1870](https://www.rfc-editor.org/rfc/rfc1870)).
    pub(super) fn most_bytes(&self) -> Option<u64> {
        self.connection.as_ref()?.server.size
    }

    /// Sends the message and waits for the reply to its final dot, up to 10 minutes.
    ///
    /// `may_pass` is asked right before DATA ([`SendStage::Data`]) and again right before the final dot
    /// is sent ([`SendStage::AfterDot`]). Once it says no, the mail is certainly not sent. `mail` is
    /// 7-bit text with headers and body.
    ///
    /// Dropping this future closes the connection; whether the mail was accepted is then unknown.
    pub async fn deliver(
        mut self,
        mail: &[u8],
        may_pass: &(dyn Fn(SendStage) -> bool + Sync),
    ) -> Delivery {
        let (smtp, limits) = (self.smtp.clone(), self.smtp.0.settings.timeouts);
        let not_sent = |stage, why| Delivery::NotSent { stage, why };
        if !may_pass(SendStage::Data) {
            return not_sent(SendStage::Data, Cause::NotAllowed);
        }
        let connection = self.connection.take();
        let Some(mut connection) = connection.and_then(Connection::if_in_step) else {
            return not_sent(SendStage::Data, Cause::Closed);
        };
        connection.mails += 1;
        match connection.data(limits.data).await {
            Ok(()) => {}
            Err(Cause::Reply(reply)) => return smtp.turned_down(connection, reply),
            Err(why) => return not_sent(SendStage::Data, why),
        }
        let (first, mut last) = Stuffed::new(mail).into_parts();
        if !first.is_empty()
            && let Err(why) = connection.send(&first, limits.body).await
        {
            return not_sent(SendStage::Body, why);
        }
        if !connection.is_in_step() {
            return not_sent(
                SendStage::Body,
                Cause::Protocol("it spoke during the message".into()),
            );
        }
        if !may_pass(SendStage::AfterDot) {
            return not_sent(SendStage::Body, Cause::NotAllowed);
        }
        let dot_end = last.len();
        let rider = smtp.rider(&connection);
        let rider = rider.map(|(waiter, flight)| {
            last.extend(flight.bytes());
            waiter
        });
        match connection.send_dot(&last, dot_end, limits.body).await {
            Ok(()) => {}
            Err(WriteFailed::BeforeDot(why)) => return not_sent(SendStage::Body, why),
            Err(WriteFailed::Unknown(why)) => {
                return Delivery::NoReply {
                    stage: SendStage::Body,
                    why,
                };
            }
        }
        smtp.verdict(connection, rider).await
    }
}

impl Smtp {
    fn rider(&self, connection: &Connection) -> Option<(Waiter, Flight)> {
        let fit = connection.server.pipelining && self.0.pool.is_fit(connection);
        fit.then(|| self.0.pool.rider(&connection.server)).flatten()
    }

    /// 4xx or 5xx to DATA.
    fn turned_down(&self, connection: Connection, reply: Reply) -> Delivery {
        self.keep(connection, &reply);
        let stage = SendStage::Data;
        Delivery::refused(reply).unwrap_or_else(|reply| Delivery::NotSent {
            stage,
            why: Cause::unexpected(reply),
        })
    }

    /// Waits for the reply to the final dot, and passes the connection on.
    async fn verdict(&self, mut connection: Connection, rider: Option<Waiter>) -> Delivery {
        let stage = SendStage::AfterDot;
        let limit = self.0.settings.timeouts.after_dot;
        let carries = rider.is_some();
        let (reply, rider) = {
            let mut reply = std::pin::pin!(connection.reply(limit));
            if let Ok(reply) = timeout(PATIENCE, &mut reply).await {
                (reply, rider)
            } else {
                drop(rider);
                (reply.await, None)
            }
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(why) => return Delivery::NoReply { stage, why },
        };
        let delivery = match reply.class() {
            Class::Done => Delivery::Accepted(reply.clone()),
            _ => match Delivery::refused(reply.clone()) {
                Ok(delivery) => delivery,
                Err(reply) => {
                    let why = Cause::unexpected(reply);
                    return Delivery::NoReply { stage, why };
                }
            },
        };
        connection.open_transaction = false;
        match rider {
            _ if reply.closes() => {}
            Some(waiter) => waiter.hand_over(connection),
            // Replies to an envelope that nobody waits for any more may still arrive.
            None if carries => {}
            None => self.keep(connection, &reply),
        }
        delivery
    }
}

/// All replies are read, so the connection can carry another mail, after RSET.
impl Drop for SmtpOffer {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.smtp.0.pool.put_back(connection);
        }
    }
}
