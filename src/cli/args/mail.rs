//! What an email looks like and how it is sent, from the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::confirmation::Transport;
use crate::confirmation::address::{Mailbox, parse_mailbox};
use crate::confirmation::dkim::Dkim;
use crate::confirmation::mail::Letterhead;
use crate::confirmation::smtp::{Secret, Smtp, SmtpSettings, TlsIdentity};
use crate::confirmation::template::Templates;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use crate::cli::args::order::OrderArgs;
use crate::cli::args::password::{PasswordArgs, secret};
use crate::cli::fault::Fault;
use crate::cli::host::aws;

/// How orders become emails, and how emails are sent.
#[derive(Debug, Args)]
pub struct MailArgs {
    #[command(flatten)]
    pub fields: OrderArgs,
    #[command(flatten)]
    pub letter: LetterArgs,
    #[command(flatten)]
    smtp: SmtpArgs,
}

impl MailArgs {
    /// Whether a sender and a way to send are set.
    pub fn is_set(&self) -> bool {
        self.letter.has_sender() && self.smtp.is_set()
    }

    /// Refused where no mail server can recognise a repeat.
    pub fn must_be_recognisable(&self) -> Result<(), Fault> {
        if self.smtp.mail == Way::Ses {
            return Err(Fault::wrong(
                "--provider-remembers cannot be used with --mail ses: Amazon SES does not recognise a \
                 repeated email",
            ));
        }
        if self.letter.idempotency_header.is_some() {
            return Ok(());
        }
        Err(Fault::wrong(
            "--provider-remembers needs --idempotency-header: name the header by which the mail server \
             recognises a repeated email",
        ))
    }

    /// The sender of these emails. It does not connect to a mail server yet.
    pub async fn transport(&self) -> Result<Transport, Fault> {
        if self.smtp.mail == Way::Ses
            && (self.letter.bounces_to.is_some() || self.fields.sets_bounces())
        {
            return Err(Fault::wrong(
                "--bounces-to and --order-bounces-to cannot be used with --mail ses: Amazon SES receives \
                 the bounces itself. Name where it reports them with --ses-configuration-set",
            ));
        }
        self.smtp.transport(&self.letter).await
    }
}

/// How the shop writes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail")]
pub struct LetterArgs {
    /// Sender, such as "Shop <orders@example.com>"
    #[arg(long, value_name = "MAILBOX", env = "AFTERCOMMIT_MAIL_FROM", value_parser = parse_mailbox)]
    mail_from: Option<Mailbox>,
    /// Reply-To of the emails [default: the sender]
    #[arg(long, value_name = "MAILBOX", env = "AFTERCOMMIT_REPLY_TO", value_parser = parse_mailbox)]
    reply_to: Option<Mailbox>,
    /// Address to which bounces go (the envelope's sender) [default: the sender's]
    #[arg(long, value_name = "ADDRESS", env = "AFTERCOMMIT_BOUNCES_TO", value_parser = parse_mailbox)]
    bounces_to: Option<Mailbox>,
    /// Directory with subject.txt, body.txt or body.html (Jinja) that replace the built-in templates
    #[arg(long, value_name = "DIR", env = "AFTERCOMMIT_TEMPLATE_DIR")]
    template_dir: Option<PathBuf>,
    /// Header that carries the effect key, for relays that drop duplicates, such as Resend-Idempotency-Key
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_IDEMPOTENCY_HEADER")]
    idempotency_header: Option<String>,
    /// File with the private key (PEM: RSA or Ed25519) that signs each email (DKIM). Not with Amazon SES,
    /// which changes emails and signs them itself
    #[arg(
        long,
        value_name = "FILE",
        env = "AFTERCOMMIT_DKIM_KEY",
        requires = "dkim_selector"
    )]
    dkim_key: Option<PathBuf>,
    /// Name under which the public key is published in DNS: <selector>._domainkey.<domain>
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_DKIM_SELECTOR",
        requires = "dkim_key"
    )]
    dkim_selector: Option<String>,
    /// Signing domain [default: that of --mail-from]
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_DKIM_DOMAIN",
        requires = "dkim_key"
    )]
    dkim_domain: Option<String>,
}

impl LetterArgs {
    /// Whether a sender is set.
    fn has_sender(&self) -> bool {
        self.mail_from.is_some()
    }

    /// Loads the templates, and combines them with the other settings.
    pub fn letterhead(&self) -> Result<Letterhead, Fault> {
        let from = self.mail_from.clone().ok_or_else(|| {
            Fault::wrong(
                "--mail-from (or AFTERCOMMIT_MAIL_FROM) is missing: set the sender, such as \
                 \"Shop <orders@example.com>\"",
            )
        })?;
        self.letterhead_of(from)
    }

    /// The same with a made-up sender if none is set, for emails that are not sent.
    pub fn letterhead_to_look_at(&self) -> Result<Letterhead, Fault> {
        let from = match &self.mail_from {
            Some(from) => from.clone(),
            None => parse_mailbox("Shop <orders@example.com>").map_err(Fault::setting)?,
        };
        self.letterhead_of(from)
    }

    fn letterhead_of(&self, from: Mailbox) -> Result<Letterhead, Fault> {
        let templates = match &self.template_dir {
            Some(dir) => Templates::from_dir(dir),
            None => Templates::built_in(),
        };
        let templates = templates.map_err(Fault::setting)?;
        let domain = from.email.domain().to_owned();
        let mut letterhead = Letterhead::new(templates, from);
        if let Some(mailbox) = &self.reply_to {
            letterhead = letterhead.reply_to(mailbox.clone());
        }
        if let Some(mailbox) = &self.bounces_to {
            letterhead = letterhead.bounces_to(mailbox.email.clone());
        }
        if let Some(dkim) = self.dkim(&domain)? {
            letterhead = letterhead.signed(dkim);
        }
        match &self.idempotency_header {
            Some(name) => letterhead.idempotency_header(name).map_err(Fault::Setting),
            None => Ok(letterhead),
        }
    }

    fn dkim(&self, sender: &str) -> Result<Option<Dkim>, Fault> {
        let (Some(path), Some(selector)) = (&self.dkim_key, &self.dkim_selector) else {
            return Ok(None);
        };
        let of_file = || format!("--dkim-key {}", path.display());
        let pem = std::fs::read(path).with_context(of_file);
        let pem = Zeroizing::new(pem.map_err(Fault::Setting)?);
        let domain = self.dkim_domain.as_deref().unwrap_or(sender);
        let dkim = Dkim::new(domain, selector, &pem).with_context(of_file);
        dkim.map(Some).map_err(Fault::Setting)
    }
}

/// How mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Through the mail server of --smtp-url
    Smtp,
    /// Through the API of Amazon SES, in the Region and with the credentials of the environment. SES
    /// replaces Message-ID and Date
    Ses,
}

/// How to reach the mail server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail server")]
struct SmtpArgs {
    /// How to send mail
    #[arg(long, value_enum, env = "AFTERCOMMIT_MAIL", default_value = "smtp")]
    mail: Way,
    /// Configuration set of Amazon SES, which defines where bounces and other events are reported
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_SES_CONFIGURATION_SET")]
    ses_configuration_set: Option<String>,
    /// Mail server: smtps://user@host (TLS), smtp://user@host (STARTTLS, required), or
    /// smtp://localhost:1025 (plain text, on this machine only)
    #[arg(
        long,
        value_name = "URL",
        env = "AFTERCOMMIT_SMTP_URL",
        hide_env_values = true,
        value_parser = secret
    )]
    smtp_url: Option<Secret>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Maximum number of open connections
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_SMTP_CONNECTIONS",
        default_value = "8"
    )]
    smtp_connections: NonZeroUsize,
    /// Name with which this machine greets the mail server [default: its host name if that has a domain,
    /// otherwise its address]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_EHLO_NAME")]
    ehlo_name: Option<String>,
    /// Longest wait for each step up to the final dot, such as 30s [default: 30s to connect, then 2m to 5m,
    /// as RFC 5321 says]. The reply to the final dot always has 10 minutes, because giving up sooner causes
    /// duplicates
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_SMTP_TIMEOUT",
        value_parser = humantime::parse_duration
    )]
    smtp_timeout: Option<Duration>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Certificates for the mail server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail server")]
#[expect(clippy::struct_field_names, reason = "a field is named as its flag")]
struct TlsArgs {
    /// File with certificates (PEM) to trust besides the platform's, such as those of a private authority
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_SMTP_CA_FILE")]
    smtp_ca_file: Option<PathBuf>,
    /// File with the client certificate (PEM) for a mail server that demands one
    #[arg(
        long,
        value_name = "FILE",
        env = "AFTERCOMMIT_SMTP_CLIENT_CERT",
        requires = "smtp_client_key"
    )]
    smtp_client_cert: Option<PathBuf>,
    /// File with the private key (PEM) of the client certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "AFTERCOMMIT_SMTP_CLIENT_KEY",
        requires = "smtp_client_cert"
    )]
    smtp_client_key: Option<PathBuf>,
}

impl TlsArgs {
    fn apply(&self, settings: &mut SmtpSettings) -> Result<(), Fault> {
        let read = |flag: &str, path: &PathBuf| {
            let text = std::fs::read(path).with_context(|| format!("{flag} {}", path.display()));
            text.map_err(Fault::Setting)
        };
        if let Some(path) = &self.smtp_ca_file {
            settings.extra_roots = read("--smtp-ca-file", path)?;
        }
        if let (Some(certificate), Some(key)) = (&self.smtp_client_cert, &self.smtp_client_key) {
            let bytes = Zeroizing::new(read("--smtp-client-key", key)?);
            let text = str::from_utf8(&bytes).map_err(|_| {
                Fault::wrong(format!("--smtp-client-key {} is not PEM", key.display()))
            })?;
            settings.identity = Some(TlsIdentity {
                certificates: read("--smtp-client-cert", certificate)?,
                key: Secret::new(text.to_owned()),
            });
        }
        Ok(())
    }
}

impl SmtpArgs {
    /// Whether these settings say how to send mail.
    fn is_set(&self) -> bool {
        self.mail == Way::Ses || self.smtp_url.is_some()
    }

    async fn transport(&self, letter: &LetterArgs) -> Result<Transport, Fault> {
        match self.mail {
            Way::Smtp => self.smtp().await,
            Way::Ses if letter.dkim_key.is_some() => Err(Fault::wrong(
                "--dkim-key cannot be used with --mail ses: Amazon SES changes each email and \
                 signs it itself. Set up DKIM for the sender's domain there, and remove --dkim-key",
            )),
            Way::Ses => aws::ses(self.ses_configuration_set.clone()).await,
        }
    }

    async fn smtp(&self) -> Result<Transport, Fault> {
        let url = self.smtp_url.as_ref().ok_or_else(|| {
            Fault::wrong(
                "--smtp-url <URL> (or AFTERCOMMIT_SMTP_URL) is missing: name the mail server, \
                 such as smtps://user@mail.example.com, or use --mail ses",
            )
        })?;
        let password = self.password.read().await?;
        let settings = SmtpSettings::from_url(url.reveal(), password);
        let mut settings = settings.context("--smtp-url").map_err(Fault::Setting)?;
        settings.reload = self.password.reload();
        settings.max_connections = self.smtp_connections.get();
        settings.hello.clone_from(&self.ehlo_name);
        if let Some(limit) = self.smtp_timeout {
            settings.timeouts = settings.timeouts.at_most(limit);
        }
        self.tls.apply(&mut settings)?;
        let smtp = Smtp::new(settings).map_err(Fault::setting)?;
        Ok(smtp.into())
    }
}
