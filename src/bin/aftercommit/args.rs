//! Settings that several commands share.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use aftercommit::confirmation::Transport;
use aftercommit::confirmation::address::{Domains, Mailbox, parse_mailbox};
use aftercommit::confirmation::dkim::Dkim;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::mapping::{Mapping, Setting};
use aftercommit::confirmation::smtp::{Secret, Smtp, SmtpSettings};
use aftercommit::confirmation::template::Templates;
use aftercommit::tables::dynamodb::{TableStream, table_arn};
use aftercommit::tables::key::TableKey;
use aftercommit::{Group, GroupTable};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use crate::aws::{self, Clients};
use crate::fault::Fault;
use crate::password::{PasswordArgs, secret};

/// How an item becomes an order: Jinja expressions over the item.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Orders")]
pub struct OrderArgs {
    /// JSON file with the expressions below by name, such as {"email": "customer.email"}; flags override it
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_MAP")]
    map: Option<PathBuf>,
    /// Order id: one email is sent per id. As all of these, a Jinja expression over the item's attributes,
    /// such as SK|replace("ORDER#", "") [default: the table's key, such as cust-7/ORDER-1]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ID")]
    id: Option<String>,
    /// Customer's address, such as customer.email [default: email]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_EMAIL")]
    email: Option<String>,
    /// Customer's name [default: name or customer_name]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_NAME")]
    name: Option<String>,
    /// Total with its unit: total|decimal for 19.99, total|minor for 1999 [default: total|minor]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_TOTAL")]
    total: Option<String>,
    /// Currency: an attribute, or a constant in quotes: "'EUR'" [default: currency]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_CURRENCY")]
    currency: Option<String>,
    /// List of order lines [default: lines or items]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINES")]
    lines: Option<String>,
    /// Article of a line, over the line's attributes [default: name or title, or the line itself if it is a
    /// string]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_NAME")]
    line_name: Option<String>,
    /// Quantity of a line [default: quantity]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_QUANTITY")]
    line_quantity: Option<String>,
    /// Unit price of a line, with its unit [default: unit_price|minor]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_PRICE")]
    line_price: Option<String>,
    /// Customer's language: for de, body.de.txt replaces body.txt if it exists [default: language]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LANGUAGE")]
    language: Option<String>,
    /// Reply-To of this order's email, such as seller.email [default: --reply-to]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ORDER_REPLY_TO")]
    order_reply_to: Option<String>,
    /// Allow domains without a dot, such as localhost
    #[arg(long, env = "AFTERCOMMIT_ALLOW_DOTLESS_DOMAINS")]
    allow_dotless_domains: bool,
}

impl OrderArgs {
    fn flag(&self, setting: Setting) -> Option<&String> {
        match setting {
            Setting::Id => self.id.as_ref(),
            Setting::Email => self.email.as_ref(),
            Setting::Name => self.name.as_ref(),
            Setting::Total => self.total.as_ref(),
            Setting::Currency => self.currency.as_ref(),
            Setting::Lines => self.lines.as_ref(),
            Setting::LineName => self.line_name.as_ref(),
            Setting::LineQuantity => self.line_quantity.as_ref(),
            Setting::LinePrice => self.line_price.as_ref(),
            Setting::Language => self.language.as_ref(),
            Setting::ReplyTo => self.order_reply_to.as_ref(),
        }
    }

    /// The expressions of --map.
    fn of_file(&self) -> Result<BTreeMap<String, String>, Fault> {
        let Some(path) = &self.map else {
            return Ok(BTreeMap::new());
        };
        let of_file = || format!("--map {}", path.display());
        let text = std::fs::read_to_string(path).with_context(of_file);
        let text = text.map_err(Fault::Setting)?;
        let map: BTreeMap<String, String> = serde_json::from_str(&text)
            .context("expected a JSON object of expressions by name")
            .with_context(of_file)
            .map_err(Fault::Setting)?;
        let names = Setting::ALL.map(Setting::name);
        match map.keys().find(|name| !names.contains(&name.as_str())) {
            Some(unknown) => Err(Fault::wrong(format!(
                "{}: unknown setting {unknown:?}; expected one of {}",
                of_file(),
                names.join(", ")
            ))),
            None => Ok(map),
        }
    }

    /// The mapping, with this expression for the id where none is set.
    pub fn with_default_id(&self, id: &str) -> Result<Mapping, Fault> {
        let file = self.of_file()?;
        let mut mapping = Mapping::new(id).map_err(Fault::setting)?;
        for setting in Setting::ALL {
            let (origin, expression) = match (self.flag(setting), file.get(setting.name())) {
                (Some(expression), _) => ("--".to_owned(), expression),
                (None, Some(expression)) => {
                    let path = self.map.as_deref().unwrap_or(Path::new(""));
                    (format!("--map {}: ", path.display()), expression)
                }
                (None, None) => continue,
            };
            mapping = mapping
                .with(setting, expression)
                .map_err(|error| Fault::wrong(format!("{origin}{error}")))?;
        }
        if self.allow_dotless_domains {
            mapping.domains = Domains::Any;
        }
        Ok(mapping)
    }

    /// The mapping for a table: the id is its key where none is set.
    pub fn of_table(&self, key: &TableKey) -> Result<Mapping, Fault> {
        let sort = key.sort.as_ref().map(|sort| &*sort.name);
        self.with_default_id(&Mapping::key_expression(&key.partition.name, sort))
    }

    /// The same, for a table that has a stream.
    pub fn of_stream(&self, table: &TableStream) -> Result<Mapping, Fault> {
        let (partition, sort) = (&table.partition_key, table.sort_key.as_deref());
        self.with_default_id(&Mapping::key_expression(partition, sort))
    }

    /// The mapping, if it says what the id is.
    pub fn named(&self) -> Result<Option<Mapping>, Fault> {
        if self.id.is_none() && !self.of_file()?.contains_key(Setting::Id.name()) {
            return Ok(None);
        }
        self.with_default_id("id").map(Some)
    }
}

/// How the shop writes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail")]
pub struct LetterArgs {
    /// Sender, such as "Shop <orders@example.com>"; bounces go there too
    #[arg(long, value_name = "MAILBOX", env = "AFTERCOMMIT_MAIL_FROM", value_parser = parse_mailbox)]
    mail_from: Option<Mailbox>,
    /// Reply-To of the emails [default: the sender]
    #[arg(long, value_name = "MAILBOX", env = "AFTERCOMMIT_REPLY_TO", value_parser = parse_mailbox)]
    reply_to: Option<Mailbox>,
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
    /// Whether it says who writes.
    pub fn has_sender(&self) -> bool {
        self.mail_from.is_some()
    }

    /// Loads the templates and puts the rest beside them.
    pub fn letterhead(&self) -> Result<Letterhead, Fault> {
        let from = self.mail_from.clone().ok_or_else(|| {
            Fault::wrong(
                "--mail-from (or AFTERCOMMIT_MAIL_FROM) is missing: say who writes, such as \
                 \"Shop <orders@example.com>\"",
            )
        })?;
        self.letterhead_of(from)
    }

    /// The same, with a made-up sender where none was named: for mails that nobody gets.
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
        if let Some(dkim) = self.dkim(&domain)? {
            letterhead = letterhead.signed(dkim);
        }
        match &self.idempotency_header {
            Some(name) => letterhead.idempotency_header(name).map_err(Fault::Setting),
            None => Ok(letterhead),
        }
    }
}

impl LetterArgs {
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

/// The way to the mail server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Mail server")]
pub struct SmtpArgs {
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
    /// Name with which this machine greets the mail server [default: its host name]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_EHLO_NAME")]
    ehlo_name: Option<String>,
}

impl SmtpArgs {
    /// Whether it says by which way mails leave.
    pub fn is_set(&self) -> bool {
        self.mail == Way::Ses || self.smtp_url.is_some()
    }

    /// The way out for these letters; connects to no mail server yet.
    pub async fn transport(&self, letter: &LetterArgs) -> Result<Transport, Fault> {
        match self.mail {
            Way::Smtp => self.smtp().await,
            Way::Ses if letter.dkim_key.is_some() => Err(Fault::wrong(
                "--dkim-key does not go with --mail ses: Amazon SES changes each mail and signs it \
                 itself; set DKIM up for the sender's domain there and leave --dkim-key out",
            )),
            Way::Ses => aws::ses(self.ses_configuration_set.clone()).await,
        }
    }

    async fn smtp(&self) -> Result<Transport, Fault> {
        let url = self.smtp_url.as_ref().ok_or_else(|| {
            Fault::wrong(
                "--smtp-url <URL> (or AFTERCOMMIT_SMTP_URL) is missing: name the mail server, such \
                 as smtps://user@mail.example.com, or say --mail ses",
            )
        })?;
        let password = self.password.read().await?;
        let settings = SmtpSettings::from_url(url.reveal(), password);
        let mut settings = settings.context("--smtp-url").map_err(Fault::Setting)?;
        settings.reload = self.password.reload();
        settings.max_connections = self.smtp_connections.get();
        if let Some(name) = &self.ehlo_name {
            settings.hello.clone_from(name);
        }
        let smtp = Smtp::new(settings).map_err(Fault::setting)?;
        Ok(smtp.into())
    }
}

/// Which application.
#[derive(Debug, Args)]
pub struct GroupArg {
    /// Name of this application on a table's stream; groups on one table share nothing
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_GROUP", default_value_t)]
    pub group: Group,
}

/// Which tables.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Table whose orders are confirmed: a name or an ARN. May be given several times; order ids must then
    /// be unique across all of them, because one email is sent per id
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        value_delimiter = ',',
        required_unless_present = "stream_arn"
    )]
    pub table: Vec<String>,
    /// One stream of a table, and none of its later streams, in place of --table; may be given several
    /// times
    #[arg(
        long,
        value_name = "ARN",
        env = "AFTERCOMMIT_STREAM_ARN",
        value_delimiter = ',',
        conflicts_with = "table"
    )]
    pub stream_arn: Vec<String>,
}

impl StreamArgs {
    /// The group on each of the tables.
    pub async fn places(&self, clients: &Clients, group: &Group) -> Result<Vec<GroupTable>, Fault> {
        let of = |arn: &str| GroupTable::new(group.clone(), arn);
        for named in self.stream_arn.iter().chain(&self.table) {
            clients.must_reach(named)?;
        }
        let mut places: Vec<_> = self.stream_arn.iter().map(|arn| of(arn)).collect();
        for table in &self.table {
            let arn = table_arn(&clients.dynamodb, table).await;
            places.push(of(&arn.map_err(Fault::setting)?));
        }
        Ok(places)
    }
}

/// The name of the table that the workers share.
#[derive(Debug, Args)]
pub struct LeaseName {
    /// Table that holds shard leases and checkpoints
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_LEASE_TABLE",
        default_value = "aftercommit-leases"
    )]
    pub lease_table: String,
}

/// The names of the tables that the worker keeps.
#[derive(Debug, Args)]
pub struct TableNames {
    #[command(flatten)]
    pub lease: LeaseName,
    #[command(flatten)]
    pub ledger: LedgerName,
    #[command(flatten)]
    pub letters: LetterTable,
}

/// The name of the dead letters' table.
#[derive(Debug, Args)]
pub struct LetterTable {
    /// Table for records that failed (dead letters)
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_DEAD_LETTER_TABLE",
        default_value = "aftercommit-dead-letters"
    )]
    pub dead_letter_table: String,
}

/// The name of the ledger's table.
#[derive(Debug, Args)]
pub struct LedgerName {
    /// Table that records which emails were sent
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_LEDGER_TABLE",
        default_value = "aftercommit-ledger"
    )]
    pub ledger_table: String,
}
