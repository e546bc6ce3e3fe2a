//! The URL of a mail server.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::secrets::Secret;
use super::settings::{BadSettings, Login, Mechanism, Security, SmtpSettings, Timeouts};

impl SmtpSettings {
    /// Parses `smtps://user@host:465` (TLS from the start), `smtp://user@host:587` (STARTTLS, required)
    /// or `smtp://127.0.0.1:2525` (plain, because it is the loopback).
    ///
    /// Parameters: `tls=none` allows plain SMTP to another host, `tls=required` requires STARTTLS of a
    /// loopback host, `auth=plain|login|xoauth2` sets the mechanism. Set the password outside of the
    /// URL; it overrides a password in the URL.
    ///
    /// # Errors
    ///
    /// [`BadSettings`] says what is wrong, and never contains a password.
    pub fn from_url(url: &str, password: Option<Secret>) -> Result<Self, BadSettings> {
        settings(url, password)
    }
}

fn settings(url: &str, password: Option<Secret>) -> Result<SmtpSettings, BadSettings> {
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
    Ok(SmtpSettings {
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

/// The host as name servers and certificates use it: an international name as A-labels
/// ([RFC 5891](https://www.rfc-editor.org/rfc/rfc5891)).
fn ascii_host(host: &str) -> Option<String> {
    let host = percent_decode_str(host).decode_utf8().ok()?;
    if host.is_ascii() {
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '%';
        return (!host.contains(odd)).then(|| host.into_owned());
    }
    idna::domain_to_ascii(&host).ok()
}

/// Only hosts that never leave the machine, whatever a name server says.
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
