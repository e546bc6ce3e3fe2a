//! The mail itself: the same order and the same frozen facts always give the same bytes.

use std::fmt;
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};

use super::address;
use super::dkim::Dkim;
use super::order::{Order, OrderError};
use super::template::{Content, Shop, Templates};
use crate::once::payload::digest;
use crate::stores::ledger::EffectKey;

/// The first second whose year has five digits: a `Date` header cannot show it.
const YEAR_10000: u64 = 253_402_300_800;
/// The longest effect key that a header contains as it is. A longer one is replaced by its hash.
const PLAIN_KEY_BYTES: usize = 200;
/// The headers that this program writes itself, or that are unsafe to set.
const OWN_HEADERS: [&str; 15] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
    "Received",
    "Return-Path",
];

/// What a mail takes from its first claim, so that it is the same whenever it is rendered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// When the effect was first claimed: the `Date` header, to the second.
    pub date: SystemTime,
    /// The effect: `Message-ID` and MIME boundary are derived from it.
    pub key: EffectKey,
}

/// A mail, ready to send.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// The effect key.
    pub key: EffectKey,
    /// The recipient, and the sender that gets bounces.
    pub envelope: Envelope,
    /// The `Message-ID`, with its angle brackets.
    pub message_id: String,
    /// Headers and body, lines ending in CRLF; not dot-stuffed.
    pub bytes: Vec<u8>,
    /// SHA-256 of `bytes` in hexadecimal digits.
    pub digest: String,
}

impl Mail {
    /// The mail of an effect with this envelope and these bytes.
    fn new(key: &EffectKey, envelope: Envelope, bytes: Vec<u8>) -> Self {
        let domain = envelope.from().map_or("", |from| from.domain());
        Self {
            message_id: message_id(key, domain),
            key: key.clone(),
            digest: digest(&bytes),
            envelope,
            bytes,
        }
    }

    /// Envelope and message as the ledger stores them: sender and recipient on a line each, an empty
    /// line, the message.
    pub(super) fn to_payload(&self) -> Vec<u8> {
        let mut head = String::new();
        let to = self.envelope.to().iter();
        for address in self.envelope.from().into_iter().chain(to) {
            head.push_str(address.as_ref());
            head.push('\n');
        }
        head.push('\n');
        [head.as_bytes(), &self.bytes].concat()
    }

    /// The mail from the ledger.
    pub(super) fn of_payload(key: &EffectKey, payload: &[u8]) -> anyhow::Result<Self> {
        let end = payload.windows(2).position(|two| two == b"\n\n");
        let end = end.context("the email kept in the ledger has no envelope")?;
        let (envelope, bytes) = payload.split_at(end);
        let addresses: Result<Vec<Address>, _> = std::str::from_utf8(envelope)?
            .lines()
            .map(str::parse)
            .collect();
        let mut addresses = addresses?.into_iter();
        let (Some(from), Some(to)) = (addresses.next(), addresses.next()) else {
            bail!("the email kept in the ledger has no recipient");
        };
        let bytes = bytes.get(2..).unwrap_or_default().to_vec();
        let envelope = Envelope::new(Some(from), vec![to])?;
        Ok(Self::new(key, envelope, bytes))
    }
}

/// Never shows an address or a body.
impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail")
            .field("message_id", &self.message_id)
            .field("digest", &self.digest)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// How a shop writes: its templates, its sender, its reply address.
pub struct Letterhead {
    templates: Templates,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    bounces_to: Address,
    idempotency_header: Option<HeaderName>,
    dkim: Option<Dkim>,
    shop: Shop,
}

impl fmt::Debug for Letterhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letterhead")
            .field("shop", &self.shop.name)
            .field("templates", &self.templates)
            .finish_non_exhaustive()
    }
}

impl Letterhead {
    /// Writes as `from`. Bounces go there too.
    pub fn new(templates: Templates, from: Mailbox) -> Self {
        let from = address::mailbox(from.name.as_deref(), from.email);
        Self {
            shop: Shop::new(&from, None),
            templates,
            bounces_to: from.email.clone(),
            from,
            reply_to: None,
            idempotency_header: None,
            dkim: None,
        }
    }

    /// Replies go to this address instead of the sender.
    #[must_use]
    pub fn reply_to(mut self, mailbox: Mailbox) -> Self {
        let mailbox = address::mailbox(mailbox.name.as_deref(), mailbox.email);
        self.shop = Shop::new(&self.from, Some(&mailbox));
        self.reply_to = Some(mailbox);
        self
    }

    /// Bounces go there instead of to the sender: it is the envelope's sender, and the domain of the
    /// `Message-ID` is its own.
    #[must_use]
    pub fn bounces_to(mut self, address: Address) -> Self {
        self.bounces_to = address;
        self
    }

    /// Adds a header with the effect key, for a relay that drops duplicates, such as
    /// [Resend](https://resend.com/docs/dashboard/emails/idempotency-keys). A key that is not short,
    /// visible ASCII is replaced by its SHA-256.
    ///
    /// # Errors
    ///
    /// `name` is not a header name ([RFC 5322](https://www.rfc-editor.org/rfc/rfc5322#section-2.2)), or
    /// is a header that the mail has anyway.
    pub fn idempotency_header(mut self, name: &str) -> anyhow::Result<Self> {
        ensure!(
            name.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
            "{name:?} is not a header name: use letters, digits and hyphens"
        );
        ensure!(
            !OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)),
            "the header {name} has a meaning of its own: choose another name"
        );
        let parsed = HeaderName::new_from_ascii(name.to_owned())
            .with_context(|| format!("{name:?} is not a header name of 1 to 76 characters"))?;
        self.idempotency_header = Some(parsed);
        Ok(self)
    }

    /// Signs each mail.
    #[must_use]
    pub fn signed(mut self, dkim: Dkim) -> Self {
        self.dkim = Some(dkim);
        self
    }

    /// Only the text of the mail.
    ///
    /// # Errors
    ///
    /// A template does not fit the order, or shows a value that could not be read.
    pub fn content(&self, order: &Order) -> anyhow::Result<Content> {
        let used = |error: &&OrderError| self.templates.use_of(error.setting);
        if let Some(unreadable) = order.unreadable.iter().find(used) {
            return Err(unreadable.clone().into());
        }
        self.templates
            .render(order, &self.shop)
            .with_context(|| format!("order {}", order.id))
    }

    /// The mail for `order`. Equal arguments give equal bytes, on any machine and at any time.
    ///
    /// # Errors
    ///
    /// A template does not fit the order, or the date has no four-digit year from 1970 on.
    pub fn render(&self, order: &Order, frozen: &Frozen) -> anyhow::Result<Mail> {
        let age = frozen.date.duration_since(SystemTime::UNIX_EPOCH);
        ensure!(
            age.is_ok_and(|age| age.as_secs() < YEAR_10000),
            "order {}: a mail cannot be dated before 1970 or after 9999",
            order.id
        );
        let content = self.content(order)?;
        let hash = message_id_local(&frozen.key);
        let bounces_to = order.bounces_to.as_ref().unwrap_or(&self.bounces_to);
        let message_id = message_id(&frozen.key, bounces_to.domain());
        let envelope = Envelope::new(Some(bounces_to.clone()), vec![order.email.clone()])?;
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(address::mailbox(order.name.as_deref(), order.email.clone()))
            .date(frozen.date)
            .message_id(Some(message_id))
            .subject(content.subject)
            .raw_header(auto_submitted())
            .envelope(envelope);
        if let Some(reply_to) = order.reply_to.as_ref().or(self.reply_to.as_ref()) {
            message = message.reply_to(reply_to.clone());
        }
        if let Some(name) = &self.idempotency_header {
            let value = header_key(frozen.key.as_str(), &hash);
            message = message.raw_header(HeaderValue::new(name.clone(), value));
        }
        let message = message
            .multipart(alternative(content.text, content.html, &hash))
            .with_context(|| format!("order {}", order.id))?;
        let mut bytes = message.formatted();
        if let Some(dkim) = &self.dkim {
            let header = dkim.header(&bytes, frozen.date);
            let header = header.with_context(|| format!("order {}", order.id))?;
            bytes.splice(..0, header.into_bytes());
        }
        let envelope = message.envelope().clone();
        Ok(Mail::new(&frozen.key, envelope, bytes))
    }
}

/// Marks the mail as sent by a machine ([RFC 3834](https://www.rfc-editor.org/rfc/rfc3834#section-5)),
/// so that nobody's absence notice answers it.
fn auto_submitted() -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    HeaderValue::new(name, "auto-generated".to_owned())
}

/// Text first, HTML last: a mail reader shows the last part that it can ([RFC
/// 2046](https://www.rfc-editor.org/rfc/rfc2046#section-5.1.4)).
///
/// The boundary can be predicted from the order id, so a body must not be able to contain it: both
/// parts are quoted-printable, in which `=_` never occurs ([RFC
/// 2045](https://www.rfc-editor.org/rfc/rfc2045#section-6.7)).
fn alternative(text: String, html: String, hash: &str) -> MultiPart {
    let part = |kind: ContentType, body: String| {
        SinglePart::builder()
            .header(kind)
            .header(ContentTransferEncoding::QuotedPrintable)
            .body(body)
    };
    let boundary = format!("=_{}", hash.get(..32).unwrap_or(hash));
    MultiPart::alternative()
        .boundary(boundary)
        .singlepart(part(ContentType::TEXT_PLAIN, text))
        .singlepart(part(ContentType::TEXT_HTML, html))
}

fn header_key(key: &str, hash: &str) -> String {
    let plain = key.len() <= PLAIN_KEY_BYTES && key.bytes().all(|b| b.is_ascii_graphic());
    if plain { key } else { hash }.to_owned()
}

fn message_id(key: &EffectKey, domain: &str) -> String {
    format!("<{}@{domain}>", message_id_local(key))
}

/// The part before the `@` in the `Message-ID` of an effect's mail. It is the same in every attempt:
/// search a mail server's log for it.
pub fn message_id_local(key: &EffectKey) -> String {
    digest(key.as_str().as_bytes())
}
