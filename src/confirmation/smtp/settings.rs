//! Where the mail server is and how to talk to it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::secrets::Reload;

/// A secret: wiped from memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte ([RFC 8314](https://www.rfc-editor.org/rfc/rfc8314)).
    Implicit,
    /// STARTTLS, demanded: a server that does not offer it gets no mail.
    StartTls,
    /// No TLS: for a loopback host, or where it was allowed in so many words.
    Plain,
}

/// How to prove who is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// [RFC 4616](https://www.rfc-editor.org/rfc/rfc4616).
    Plain,
    /// Two questions, two answers; old, but some servers know nothing else.
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
pub struct Timeouts {
    /// The name look-up, and then the TCP connection to each of the addresses found; 30 s.
    pub connect: Duration,
    /// The TLS handshake; 30 s.
    pub tls: Duration,
    /// The greeting; 5 minutes.
    pub greeting: Duration,
    /// EHLO, STARTTLS and RSET; 5 minutes.
    pub hello: Duration,
    /// NOOP, which asks a connection that rested whether it is still there; 5 s.
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
    /// The reply to the final dot; 10 minutes. Shorter makes duplicates.
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
    /// The same, with at most this long for each step before the final dot. The wait for the reply to
    /// the final dot stays: a shorter one makes duplicates.
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

    /// The longest time from the claim, right before DATA, to the last moment at which a reply is
    /// still awaited.
    pub fn longest_delivery(&self) -> Duration {
        self.data + self.body + self.after_dot
    }
}

/// A client certificate and its private key.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The certificate (PEM), followed by those that it is signed with.
    pub certificates: Vec<u8>,
    /// The private key (PEM).
    pub key: Secret,
}

/// Everything about the way to one mail server.
#[derive(Debug, Clone)]
pub struct SmtpSettings {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Who is sending, if the server wants to know.
    pub login: Option<Login>,
    /// Reads the login's secret again once the server has refused it; `None`: it never changes.
    pub reload: Option<Reload>,
    /// The name that EHLO gives. `None`: the machine's host name if it has a domain, otherwise the
    /// connection's own address, such as `[192.0.2.7]`. Many servers refuse a name without a dot.
    pub hello: Option<String>,
    /// Certificates (PEM) to trust besides the platform's.
    pub extra_roots: Vec<u8>,
    /// How this machine identifies itself in TLS; `None`: it does not.
    pub identity: Option<TlsIdentity>,
    /// Open connections at most; 8.
    pub max_connections: usize,
    /// A connection is not used longer than this; 10 minutes.
    pub max_age: Duration,
    /// A connection carries at most this many mails; 1000.
    pub max_mails: u32,
    /// A connection that rested longer is asked (NOOP) before use; 10 s.
    pub noop_after: Duration,
    /// Whether to use PIPELINING where the server offers it.
    pub pipelining: bool,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Where the server is when it is simulated.
    #[cfg(feature = "simulation")]
    pub(super) dial: Option<super::stream::Dial>,
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
    /// The EHLO name is no name.
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
    /// Nothing to check the server's certificate against.
    #[error("no root certificates were found on this machine; install ca-certificates")]
    NoRoots,
}

impl SmtpSettings {
    /// Reads `smtps://user@host:465` (TLS from the start), `smtp://user@host:587` (STARTTLS,
    /// demanded) or `smtp://127.0.0.1:2525` (plain, because it is the loopback).
    ///
    /// After a question mark: `tls=none` allows plain SMTP to another host, `tls=required` demands
    /// STARTTLS of a loopback host, `auth=plain|login|xoauth2` fixes the mechanism. A password is
    /// better given apart than in the URL; one given apart wins.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] says what is wrong. It never repeats a password.
    pub fn from_url(url: &str, password: Option<Secret>) -> Result<Self, BadSettings> {
        let bad = |what: &str| BadSettings::Url(what.to_owned());
        let url = Url::parse(url).map_err(|e| bad(&format!("the SMTP URL is malformed ({e})")))?;
        let implicit = match url.scheme() {
            "smtps" => true,
            "smtp" => false,
            _ => return Err(bad("the SMTP URL begins with neither smtps:// nor smtp://")),
        };
        let host = url.host_str().filter(|h| !h.is_empty());
        let host = host.ok_or_else(|| bad("the SMTP URL names no host"))?;
        let host = ascii_host(host.trim_matches(['[', ']']))
            .ok_or_else(|| bad("the SMTP URL's host is neither a host name nor an address"))?;
        let options = Options::of(&url)?;
        let loopback = is_loopback(&host);
        let security = match (implicit, options.tls) {
            (true, Tls::Unsaid | Tls::Required) => Security::Implicit,
            (true, Tls::None) => return Err(bad("smtps:// and tls=none contradict each other")),
            (false, Tls::Required) => Security::StartTls,
            (false, Tls::Unsaid) if !loopback => Security::StartTls,
            (false, Tls::Unsaid | Tls::None) => Security::Plain,
        };
        let login = login_of(&url, password, options.mechanism)?;
        if login.is_some() && security == Security::Plain && !loopback {
            return Err(BadSettings::ClearPassword(host));
        }
        let default_port = if implicit { 465 } else { 587 };
        Ok(Self {
            port: url.port().unwrap_or(default_port),
            host,
            security,
            login,
            reload: None,
            hello: None,
            extra_roots: Vec::new(),
            identity: None,
            max_connections: 8,
            max_age: Duration::from_mins(10),
            max_mails: 1000,
            noop_after: Duration::from_secs(10),
            pipelining: true,
            timeouts: Timeouts::default(),
            #[cfg(feature = "simulation")]
            dial: None,
        })
    }

    /// Connects to a simulated mail server, such as a test has in memory, instead of over the network.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn dialled_by(
        self,
        dial: impl Fn() -> std::io::Result<tokio::io::DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Some(super::stream::Dial(std::sync::Arc::new(dial))),
            ..self
        }
    }
}

#[derive(Clone, Copy)]
enum Tls {
    Unsaid,
    Required,
    None,
}

struct Options {
    tls: Tls,
    mechanism: Option<Mechanism>,
}

impl Options {
    fn of(url: &Url) -> Result<Self, BadSettings> {
        let mut options = Self {
            tls: Tls::Unsaid,
            mechanism: None,
        };
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("tls", "required") => options.tls = Tls::Required,
                ("tls", "none") => options.tls = Tls::None,
                ("auth", "plain") => options.mechanism = Some(Mechanism::Plain),
                ("auth", "login") => options.mechanism = Some(Mechanism::Login),
                ("auth", "xoauth2") => options.mechanism = Some(Mechanism::Xoauth2),
                _ => {
                    return Err(BadSettings::Url(format!(
                        "the SMTP URL's {name}= is not tls=required|none or auth=plain|login|xoauth2"
                    )));
                }
            }
        }
        Ok(options)
    }
}

fn login_of(
    url: &Url,
    password: Option<Secret>,
    mechanism: Option<Mechanism>,
) -> Result<Option<Login>, BadSettings> {
    if url.username().is_empty() {
        return Ok(None);
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let inline = url.password().map(|password| Secret::new(decode(password)));
    let secret = password.or(inline).ok_or(BadSettings::NoPassword)?;
    Ok(Some(Login {
        user: decode(url.username()),
        secret,
        mechanism,
    }))
}

/// The host as name servers and certificates know it: an international name as A-labels
/// ([RFC 5891](https://www.rfc-editor.org/rfc/rfc5891)).
fn ascii_host(host: &str) -> Option<String> {
    let host = percent_decode_str(host).decode_utf8().ok()?;
    if host.is_ascii() {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '%';
        return (!host.contains(odd)).then(|| host.into_owned());
    }
    idna::domain_to_ascii(&host).ok()
}

/// Only what never leaves the machine, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || literal_loopback(&name)
        }
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => literal_loopback(host),
    }
}

fn literal_loopback(host: &str) -> bool {
    host.parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn parse(url: &str) -> Result<SmtpSettings, BadSettings> {
        SmtpSettings::from_url(url, None)
    }

    #[test]
    fn tls_is_required_unless_the_host_is_loopback_or_plain_is_allowed() {
        for (url, port, security) in [
            ("smtps://mx.example.com", 465, Security::Implicit),
            ("smtp://mx.example.com", 587, Security::StartTls),
            ("smtp://mx.example.com:25?tls=none", 25, Security::Plain),
            ("smtp://127.0.0.1:2525", 2525, Security::Plain),
            ("smtp://[::1]:2525", 2525, Security::Plain),
            ("smtp://localhost:1025", 1025, Security::Plain),
            ("smtp://localhost?tls=required", 587, Security::StartTls),
            ("smtp://127.0.0.1.example.com", 587, Security::StartTls),
            ("smtp://localhost.example.com", 587, Security::StartTls),
        ] {
            let settings = parse(url).unwrap();
            assert_eq!(
                (settings.port, settings.security),
                (port, security),
                "{url}"
            );
        }
    }

    #[test]
    fn an_international_host_name_is_looked_up_in_its_ascii_form() {
        for (url, host) in [
            ("smtp://bücher.localhost:25", "xn--bcher-kva.localhost"),
            (
                "smtps://ann:pw@mail.BÜCHER.example",
                "mail.xn--bcher-kva.example",
            ),
            ("smtps://mail_server:465", "mail_server"),
            ("smtp://[::1]:25", "::1"),
        ] {
            assert_eq!(parse(url).unwrap().host, host, "{url}");
        }
        assert!(matches!(parse("smtp://a%20b:25"), Err(BadSettings::Url(_))));
    }

    #[test]
    fn a_limit_for_each_step_leaves_the_wait_after_the_final_dot_alone() {
        let limits = Timeouts::default().at_most(Duration::from_secs(20));
        assert_eq!(limits.greeting, Duration::from_secs(20));
        assert_eq!(limits.noop, Duration::from_secs(5));
        assert_eq!(limits.after_dot, Duration::from_mins(10));
    }

    #[test]
    fn a_password_never_travels_unprotected() {
        assert!(matches!(
            parse("smtp://ann:pw@mx.example.com?tls=none"),
            Err(BadSettings::ClearPassword(_))
        ));
        assert!(parse("smtp://ann:pw@127.0.0.1").is_ok());
    }

    #[test]
    fn a_password_given_apart_wins_over_the_one_in_the_url() {
        let apart = Secret::new("apart".into());
        let settings =
            SmtpSettings::from_url("smtps://ann%40x:in%20url@mx.example.com", Some(apart));
        let login = settings.unwrap().login.unwrap();
        assert_eq!(
            (login.user.as_str(), login.secret.reveal()),
            ("ann@x", "apart")
        );
        let login = parse("smtps://ann:in%20url@mx.example.com")
            .unwrap()
            .login
            .unwrap();
        assert_eq!(login.secret.reveal(), "in url");
        assert_eq!(
            parse("smtps://ann@mx.example.com").unwrap_err(),
            BadSettings::NoPassword
        );
    }

    #[test]
    fn secrets_do_not_show_in_debug_output_or_errors() {
        let settings = parse("smtps://ann:hunter2@mx.example.com").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let error = parse("smtps://ann:hunter2@mx.example.com:99999").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong() {
        for url in [
            "mx.example.com",
            "http://mx",
            "smtps://mx?tls=none",
            "smtp://mx?tls=maybe",
            "smtp:///",
        ] {
            assert!(matches!(parse(url), Err(BadSettings::Url(_))), "{url}");
        }
    }
}
