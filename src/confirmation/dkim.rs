//! The DKIM signature of each mail ([RFC 6376](https://www.rfc-editor.org/rfc/rfc6376)).
//!
//! It is made here and not by lettre, which signs with the present time. A mail that is sent again must
//! be the same byte for byte, so the signature has the mail's frozen date; RSA (with PKCS #1 v1.5) and
//! Ed25519 then give the same signature each time.
//!
//! If the last server rewrites headers, only that server's signature counts: Amazon SES replaces
//! `Message-ID` and `Date` in each mail, and signs it itself.

use std::fmt;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// The headers that are signed if a mail has them.
///
/// Source: [RFC 6376, 5.4](https://www.rfc-editor.org/rfc/rfc6376#section-5.4).
const SIGNED: [&str; 11] = [
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
];

/// The headers that a reader sees or that decide what it shows. Each is named once more than the email has
/// it, so that adding another one breaks the signature.
///
/// Source: [RFC 6376, 8.15](https://www.rfc-editor.org/rfc/rfc6376#section-8.15).
const SEALED: [&str; 7] = [
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "content-type",
];

/// How many characters of the signature are on a line.
const LINE: usize = 70;
/// So many header names on a line.
const NAMES: usize = 6;

/// Why mails cannot be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadDkim {
    /// Domain or selector is not a DNS name.
    #[error("{0:?} is not a DNS name: use letters, digits, hyphens and dots")]
    Name(String),
    /// The file holds no key.
    #[error("it holds no private key in PEM format: create one with openssl genpkey")]
    NoKey,
    /// Not a key that DKIM knows.
    #[error(
        "its key is neither RSA of 2048 to 4096 bits nor Ed25519: create one with openssl \
         genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
    )]
    Key,
}

/// Signs for a domain.
pub struct Dkim {
    domain: String,
    selector: String,
    key: SigningKey,
}

enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// Never shows the key.
impl fmt::Debug for Dkim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dkim")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

impl Dkim {
    /// Signs for `domain` with the private key in `pem` (PKCS #8, or PKCS #1 for RSA). DNS has its
    /// public key at `<selector>._domainkey.<domain>`.
    ///
    /// # Errors
    ///
    /// [`BadDkim`] says what is wrong, without the key.
    pub fn new(domain: &str, selector: &str, pem: &[u8]) -> Result<Self, BadDkim> {
        let ascii = idna::domain_to_ascii(domain);
        let domain = ascii.map_err(|_| BadDkim::Name(domain.to_owned()))?;
        for name in [&*domain, selector] {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(BadDkim::Name(name.to_owned()));
            }
        }
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| BadDkim::NoKey)?;
        Ok(Self {
            domain,
            selector: selector.to_owned(),
            key: SigningKey::read(&key)?,
        })
    }

    /// The header that signs `mail`, with its line end. It must precede all other headers.
    pub(super) fn header(&self, mail: &[u8], date: SystemTime) -> anyhow::Result<String> {
        let text = String::from_utf8_lossy(mail);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let headers = headers(head);
        let mut names = Vec::new();
        let mut signed = String::new();
        for name in SIGNED {
            for (_, value) in headers.iter().filter(|(header, _)| header == name) {
                signed.extend([name, ":", value, "\r\n"]);
                names.push(name);
            }
            if SEALED.contains(&name) {
                names.push(name);
            }
        }
        let lines: Vec<_> = names.chunks(NAMES).map(|names| names.join(":")).collect();
        let names = lines.join(":\r\n ");
        let since = date.duration_since(SystemTime::UNIX_EPOCH)?;
        let hash = BASE64_STANDARD.encode(Sha256::digest(relaxed_body(body)));
        let unsigned = format!(
            "v=1; a={}-sha256; c=relaxed/relaxed; d={}; s={};\r\n t={}; h={};\r\n bh={hash};\r\n b=",
            self.key.name(),
            self.domain,
            self.selector,
            since.as_secs(),
            names,
        );
        signed.extend(["dkim-signature:", &relaxed_value(&unsigned)]);
        let signature = BASE64_STANDARD.encode(self.key.sign(signed.as_bytes())?);
        let lines: Vec<_> = signature
            .as_bytes()
            .chunks(LINE)
            .map(String::from_utf8_lossy)
            .collect();
        Ok(format!(
            "DKIM-Signature: {unsigned}{}\r\n",
            lines.join("\r\n ")
        ))
    }
}

impl SigningKey {
    fn read(der: &PrivateKeyDer<'_>) -> Result<Self, BadDkim> {
        let der = match der {
            PrivateKeyDer::Pkcs1(der) => {
                let key = RsaKeyPair::from_der(der.secret_pkcs1_der());
                return key.map_or(Err(BadDkim::Key), |key| Ok(Self::Rsa(Box::new(key))));
            }
            PrivateKeyDer::Pkcs8(der) => der.secret_pkcs8_der(),
            _ => return Err(BadDkim::Key),
        };
        if let Ok(key) = RsaKeyPair::from_pkcs8(der) {
            return Ok(Self::Rsa(Box::new(key)));
        }
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
        key.map_or(Err(BadDkim::Key), |key| Ok(Self::Ed25519(key)))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa",
            Self::Ed25519(_) => "ed25519",
        }
    }

    /// Ed25519 signs the hash ([RFC 8463](https://www.rfc-editor.org/rfc/rfc8463#section-3)).
    fn sign(&self, text: &[u8]) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = SystemRandom::new();
                let signed = key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature);
                signed.map_err(|_| anyhow::anyhow!("signing with the DKIM key failed"))?;
                Ok(signature)
            }
            Self::Ed25519(key) => Ok(key.sign(&Sha256::digest(text)).as_ref().to_vec()),
        }
    }
}

/// Names in lower case and values on one line, in order
/// ([RFC 6376, 3.4.2](https://www.rfc-editor.org/rfc/rfc6376#section-3.4.2)).
fn headers(head: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), headers.last_mut()) {
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            headers.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        }
    }
    for (_, value) in &mut headers {
        *value = relaxed_value(value);
    }
    headers
}

fn relaxed_value(value: &str) -> String {
    let words = value.split([' ', '\t', '\r', '\n']);
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Runs of spaces become one space; spaces at line ends and empty lines at the end are removed ([RFC
/// 6376, 3.4.4](https://www.rfc-editor.org/rfc/rfc6376#section-3.4.4)).
fn relaxed_body(body: &str) -> String {
    let mut relaxed = String::with_capacity(body.len());
    for line in body.split("\r\n") {
        let mut gap = false;
        for letter in line.trim_end_matches([' ', '\t']).chars() {
            if matches!(letter, ' ' | '\t') {
                gap = true;
                continue;
            }
            if std::mem::take(&mut gap) {
                relaxed.push(' ');
            }
            relaxed.push(letter);
        }
        relaxed.push_str("\r\n");
    }
    let end = relaxed.trim_end_matches("\r\n").len();
    relaxed.truncate(end);
    if !relaxed.is_empty() {
        relaxed.push_str("\r\n");
    }
    relaxed
}
