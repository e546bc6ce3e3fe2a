//! Where the mail server is, and how to talk to it.

use std::time::Duration;

use super::secrets::{Reload, Secret};

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte ([RFC 8314](https://www.rfc-editor.org/rfc/rfc8314)).
    Implicit,
    /// STARTTLS, required: a server that does not offer it gets no mail.
    StartTls,
    /// No TLS: for a loopback host, or if explicitly allowed.
    Plain,
}

/// How to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// [RFC 4616](https://www.rfc-editor.org/rfc/rfc4616).
    Plain,
    /// Two questions, two answers; old, but some servers offer nothing else.
    Login,
    /// The secret is an OAuth 2 access token
    /// ([XOAUTH2](https://developers.google.com/workspace/gmail/imap/xoauth2-protocol)).
    Xoauth2,
}

impl Mechanism {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }
}

/// A user name and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password, or the access token for XOAUTH2.
    pub secret: Secret,
    /// The mechanism; `None`: PLAIN if the server offers it, else LOGIN.
    pub mechanism: Option<Mechanism>,
}

/// How long each step may take. The defaults are the minimums of
/// [RFC 5321 4.5.3.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2) where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// The name look-up, and then the TCP connection to each of the addresses found; 30 s.
    pub connect: Duration,
    /// The TLS handshake; 30 s.
    pub tls: Duration,
    /// The greeting; 5 minutes.
    pub greeting: Duration,
    /// EHLO, STARTTLS and RSET; 5 minutes.
    pub hello: Duration,
    /// NOOP, which checks an idle connection; 5 s.
    pub noop: Duration,
    /// Each step of AUTH; 2 minutes.
    pub auth: Duration,
    /// MAIL; 5 minutes.
    pub mail: Duration,
    /// RCPT; 5 minutes.
    pub rcpt: Duration,
    /// DATA; 2 minutes.
    pub data: Duration,
    /// Handing the whole message to the network; 3 minutes.
    pub body: Duration,
    /// The reply to the final dot; 10 minutes. A shorter timeout causes duplicates.
    pub after_dot: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            tls: Duration::from_secs(30),
            greeting: Duration::from_mins(5),
            hello: Duration::from_mins(5),
            noop: Duration::from_secs(5),
            auth: Duration::from_mins(2),
            mail: Duration::from_mins(5),
            rcpt: Duration::from_mins(5),
            data: Duration::from_mins(2),
            body: Duration::from_mins(3),
            after_dot: Duration::from_mins(10),
        }
    }
}

impl Timeouts {
    /// The same, with at most this long for each step before the final dot. The timeout of the reply to
    /// the final dot is unchanged, because a shorter one causes duplicates.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self {
            connect: self.connect.min(limit),
            tls: self.tls.min(limit),
            greeting: self.greeting.min(limit),
            hello: self.hello.min(limit),
            noop: self.noop.min(limit),
            auth: self.auth.min(limit),
            mail: self.mail.min(limit),
            rcpt: self.rcpt.min(limit),
            data: self.data.min(limit),
            body: self.body.min(limit),
            after_dot: self.after_dot,
        }
    }

    /// The longest time from the claim, right before DATA, to the last moment at which a reply is still
    /// accepted.
    pub fn longest_delivery(&self) -> Duration {
        self.data + self.body + self.after_dot
    }
}

/// A client certificate and its private key.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The certificate (PEM), followed by its issuers' certificates.
    pub certificates: Vec<u8>,
    /// The private key (PEM).
    pub key: Secret,
}

/// Everything about the connection to one mail server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SmtpSettings {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// The login, if the server requires one.
    pub login: Option<Login>,
    /// Reads the login's secret again after the server has refused it; `None`: it never changes.
    pub reload: Option<Reload>,
    /// The name in EHLO. `None`: the machine's host name if it has a domain, otherwise the connection's
    /// own address, such as `[192.0.2.7]`. Many servers refuse a name without a dot.
    pub hello: Option<String>,
    /// Certificates (PEM) to trust besides the platform's.
    pub extra_roots: Vec<u8>,
    /// The client certificate for TLS, if any.
    pub identity: Option<TlsIdentity>,
    /// The most open connections; 8.
    pub max_connections: usize,
    /// The longest time that a connection is used; 10 minutes.
    pub max_age: Duration,
    /// The most mails that a connection carries; 1000.
    pub max_mails: u32,
    /// A connection that was idle for longer is checked (NOOP) before use; 10 s.
    pub noop_after: Duration,
    /// Whether to use PIPELINING if the server offers it.
    pub pipelining: bool,
    /// The timeouts of the steps.
    pub timeouts: Timeouts,
    /// The simulated server, in a simulation.
    #[cfg(feature = "simulation")]
    pub(super) dial: Option<super::dial::Dial>,
}

/// An SMTP URL or a combination of settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSettings {
    /// Not a URL of the right form.
    #[error("{0}; write smtps://user@host:465, smtp://user@host:587 or smtp://127.0.0.1:2525")]
    Url(String),
    /// A password would travel unprotected.
    #[error("tls=none would send the password to {0} in the clear; use smtps:// or drop tls=none")]
    ClearPassword(String),
    /// The EHLO name is not a name.
    #[error(
        "the EHLO name {0:?} is not one word; give the machine's full name, such as mail.example.com"
    )]
    Hello(String),
    /// There is a user but no password.
    #[error("the mail server's user needs a password: set it beside the URL, not in it")]
    NoPassword,
    /// A certificate that cannot be read.
    #[error("the extra certificates cannot be read: {0}")]
    BadRoots(String),
    /// A client certificate or its key that cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    BadIdentity(String),
    /// There are no root certificates to check the server's certificate.
    #[error("no root certificates were found on this machine; install ca-certificates")]
    NoRoots,
}

impl SmtpSettings {
    /// Connects to a simulated mail server, such as a test's in memory, instead of over the network.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn dialled_by(
        self,
        dial: impl Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Some(super::dial::Dial(std::sync::Arc::new(dial))),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_for_each_step_leaves_the_wait_after_the_final_dot_alone() {
        let limits = Timeouts::default().at_most(Duration::from_secs(20));
        assert_eq!(limits.greeting, Duration::from_secs(20));
        assert_eq!(limits.noop, Duration::from_secs(5));
        assert_eq!(limits.after_dot, Duration::from_mins(10));
    }
}
