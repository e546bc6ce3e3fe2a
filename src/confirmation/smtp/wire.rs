//! The bytes to send: envelope commands and the message.

use lettre::Address;
use lettre::address::Envelope;
use lettre::transport::smtp::commands::{Mail, Rcpt};
use lettre::transport::smtp::extension::MailParameter;

use super::reply::Capabilities;
use super::stage::{Cause, Refusal, SendStage};

/// Longer messages are sent in two parts, so that the right to send is checked again right before the
/// part with the dot.
const LAST_PART: usize = 16 * 1024;

/// MAIL and RCPT commands of one mail, for this server.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) mail: String,
    pub(super) rcpts: Vec<String>,
}

impl Flight {
    /// Writes the envelope: domains in ASCII ([RFC 5891](https://www.rfc-editor.org/rfc/rfc5891)),
    /// SMTPUTF8 only if a local part needs it ([RFC 6531](https://www.rfc-editor.org/rfc/rfc6531)).
    pub(super) fn of(envelope: &Envelope, server: &Capabilities) -> Result<Self, Refusal> {
        let everyone = envelope.from().into_iter().chain(envelope.to());
        let unicode = everyone.clone().any(|address| !address.user().is_ascii());
        if unicode && !server.smtputf8 {
            let what = "an address needs SMTPUTF8, which the mail server does not offer";
            return Err(Refusal::at(SendStage::Rcpt)(Cause::Unsuitable(what)));
        }
        let from = envelope
            .from()
            .map(|address| on_the_wire(address, SendStage::Mail));
        let parameters = if unicode {
            vec![MailParameter::SmtpUtfEight]
        } else {
            Vec::new()
        };
        Ok(Self {
            mail: Mail::new(from.transpose()?, parameters).to_string(),
            rcpts: envelope
                .to()
                .iter()
                .map(|to| Ok(Rcpt::new(on_the_wire(to, SendStage::Rcpt)?, Vec::new()).to_string()))
                .collect::<Result<_, Refusal>>()?,
        })
    }

    /// All commands in one piece.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.mail.clone().into_bytes();
        for rcpt in &self.rcpts {
            bytes.extend_from_slice(rcpt.as_bytes());
        }
        bytes
    }
}

fn on_the_wire(address: &Address, stage: SendStage) -> Result<Address, Refusal> {
    let refuse = |what| Refusal::at(stage)(Cause::Unsuitable(what));
    let text: &str = address.as_ref();
    if text.contains(|c: char| c.is_control() || matches!(c, '<' | '>')) {
        return Err(refuse(
            "an address holds characters that no mail command may hold",
        ));
    }
    ascii_domain(address, stage)
}

/// The address with its domain in ASCII.
pub(in crate::confirmation) fn ascii_domain(
    address: &Address,
    stage: SendStage,
) -> Result<Address, Refusal> {
    let refuse = |what| Refusal::at(stage)(Cause::Unsuitable(what));
    if address.domain().is_ascii() {
        return Ok(address.clone());
    }
    idna::domain_to_ascii(address.domain())
        .ok()
        .and_then(|domain| Address::new(address.user(), domain).ok())
        .ok_or_else(|| refuse("an address's domain has no ASCII form"))
}

/// A message as it is sent: every line end is CRLF, lines that begin with a dot get one more, and the
/// final dot ends it ([RFC 5321 4.5.2](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.2)).
///
/// A lone CR or LF becomes a line end here, so that no server sees the end of the message where another
/// sees text.
pub(super) struct Stuffed {
    bytes: Vec<u8>,
}

impl Stuffed {
    pub(super) fn new(message: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(message.len() + 512);
        let mut rest = message;
        while !rest.is_empty() {
            let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
            let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
            if line.first() == Some(&b'.') {
                bytes.push(b'.');
            }
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
            rest = after
                .strip_prefix(b"\r\n")
                .or_else(|| after.get(1..))
                .unwrap_or_default();
        }
        bytes.extend_from_slice(b".\r\n");
        Self { bytes }
    }

    /// The part that is sent first (nothing, for a mail of ordinary size), and the part with the dot.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, Vec<u8>) {
        let split = self.bytes.len().saturating_sub(LAST_PART);
        let last = self.bytes.split_off(split);
        (self.bytes, last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    fn stuffed(message: &str) -> String {
        String::from_utf8(Stuffed::new(message.as_bytes()).bytes).unwrap()
    }

    #[test]
    fn lines_that_begin_with_a_dot_get_one_more() {
        assert_eq!(stuffed(".\r\n..a\r\nb.\r\n"), "..\r\n...a\r\nb.\r\n.\r\n");
        assert_eq!(stuffed(""), ".\r\n");
        assert_eq!(stuffed("no end"), "no end\r\n.\r\n");
    }

    #[test]
    fn lone_line_ends_cannot_smuggle_an_end_of_message() {
        assert_eq!(stuffed("a\n.\nb\r.\rc"), "a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn the_dot_ends_the_message_once_and_at_its_end(message in "[.\r\na]{0,40}") {
            let wire = format!("\r\n{}", stuffed(&message));
            prop_assert_eq!(wire.find("\r\n.\r\n"), Some(wire.len() - 5));
            prop_assert!(!wire.replace("\r\n", "").contains(['\r', '\n']));
        }
    }

    fn envelope(to: &str) -> Envelope {
        let (user, domain) = to.rsplit_once('@').unwrap();
        Envelope::new(
            Some("shop@example.com".parse().unwrap()),
            vec![Address::new_dangerous(user, domain)],
        )
        .unwrap()
    }

    #[test]
    fn international_domains_travel_in_ascii() {
        let flight = Flight::of(&envelope("ann@bücher.example"), &Capabilities::default()).unwrap();
        assert_eq!(flight.rcpts, ["RCPT TO:<ann@xn--bcher-kva.example>\r\n"]);
        assert_eq!(flight.mail, "MAIL FROM:<shop@example.com>\r\n");
    }

    #[test]
    fn an_international_local_part_needs_smtputf8() {
        let with = Capabilities {
            smtputf8: true,
            ..Capabilities::default()
        };
        let flight = Flight::of(&envelope("jürgen@example.com"), &with).unwrap();
        assert_eq!(flight.mail, "MAIL FROM:<shop@example.com> SMTPUTF8\r\n");
        let refusal = Flight::of(&envelope("jürgen@example.com"), &Capabilities::default());
        let refusal = refusal.unwrap_err();
        assert!(refusal.is_about_the_mail() && refusal.is_permanent());
    }

    #[test]
    fn no_address_can_carry_a_command() {
        for to in [
            "a>\r\nDATA\r\n@example.com",
            "a\n@example.com",
            "a@example.com>\r\nRSET",
        ] {
            assert!(
                Flight::of(&envelope(to), &Capabilities::default()).is_err(),
                "{to:?}"
            );
        }
    }
}
