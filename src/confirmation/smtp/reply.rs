//! Strict, bounded parsing of a mail server's replies.
//!
//! This is our own, because the parser of `smtp-proto` 0.2 accepts `250-a`, `354 b` as a 250, and 000
//! and 999 as replies: an unreadable reply to the final dot must be a doubt, never an acceptance.

use std::fmt;

/// Longer than any honest reply: [RFC 5321
/// 4.5.3.1.5](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.1.5)
/// bounds a line at 512 octets.
const MAX_BYTES: usize = 64 * 1024;

/// A complete reply of the server: one code, one or more lines.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// The meaning of a reply's first digit
/// ([RFC 5321 4.2.1](https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 2xx: done.
    Done,
    /// 3xx: continue. Never a success.
    GoOn,
    /// 4xx: not now.
    NotNow,
    /// 5xx: never.
    Never,
}

/// The bytes are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

impl Reply {
    /// The answer of a server other than SMTP, with the SMTP code for it.
    #[cfg(feature = "ses")]
    pub(in crate::confirmation) fn new(code: u16, words: &str) -> Self {
        let lines = vec![words.to_owned()];
        Self { code, lines }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The meaning of the first digit.
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Done,
            3 => Class::GoOn,
            4 => Class::NotNow,
            _ => Class::Never,
        }
    }

    /// Whether the server hangs up after this reply.
    pub fn closes(&self) -> bool {
        self.code == 421
    }

    /// Whether the server asks for fewer or slower mails: 421; 454 which Amazon SES answers to a
    /// sender above its rate
    /// ([SES](https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html)); and 432
    /// which Exchange Online answers to a mailbox with more than three submissions at a time
    /// ([Exchange](https://learn.microsoft.com/en-us/exchange/mail-flow-best-practices/how-to-set-up-a-multifunction-device-or-application-to-send-email-using-microsoft-365-or-office-365)).
    pub fn throttles(&self) -> bool {
        matches!(self.code, 421 | 432 | 454)
    }

    /// The enhanced status code at the beginning of the server's text, such as 5.1.1
    /// ([RFC 3463](https://www.rfc-editor.org/rfc/rfc3463)).
    fn enhanced(&self) -> Option<[u16; 3]> {
        let word = self.lines.first()?.split_whitespace().next()?;
        let mut parts = word.split('.').map(str::parse);
        let status = [
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        ];
        parts.next().is_none().then_some(status)
    }

    /// Whether a refusal of a recipient is about the recipient: the mailbox does not exist, is
    /// disabled, or is not a mailbox. Any other code, such as 5.7.1, may be about the sender, the login
    /// or the server's settings: many servers report those problems only at RCPT.
    pub(super) fn is_about_the_recipient(&self) -> bool {
        match self.enhanced() {
            Some([5, 1, detail]) => matches!(detail, 0..=3 | 6 | 10),
            Some([5, 2, 1]) => true,
            Some(_) => false,
            None => matches!(self.code, 550 | 551 | 553),
        }
    }

    /// Whether no mail at all is accepted for a long time, because the day's quota is used up. Amazon
    /// SES uses the same 454 for it, and only the text shows it.
    pub fn exhausts_quota(&self) -> bool {
        let says = |line: &str| line.to_ascii_lowercase().contains("quota");
        self.code == 454 && self.lines().any(says)
    }

    /// The code and the server's text on one line. Anything that looks like an address is masked, so
    /// that the line can be logged and stored.
    pub fn words(&self) -> String {
        let mut words = self.code.to_string();
        for word in self.lines.iter().flat_map(|line| line.split_whitespace()) {
            words.push(' ');
            words.push_str(if word.contains('@') {
                "<address>"
            } else {
                word
            });
        }
        words.truncate(words.floor_char_boundary(1000));
        words
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Takes the first complete reply from the front of `inbox`; `None` if it is incomplete.
    pub(super) fn take(inbox: &mut Vec<u8>) -> Result<Option<Self>, Garbage> {
        let mut lines = Vec::new();
        let mut code = None;
        let mut at = 0;
        while let Some(length) = inbox[at..].iter().position(|b| *b == b'\n') {
            let line = inbox[at..at + length].trim_ascii_end();
            at += length + 1;
            let (this, last) = head_of(line).ok_or(Garbage)?;
            if code.is_some_and(|code| code != this) {
                return Err(Garbage);
            }
            code = Some(this);
            lines.push(text_of(line));
            if last {
                inbox.drain(..at);
                return Ok(Some(Self { code: this, lines }));
            }
        }
        match inbox.len() {
            length if length > MAX_BYTES => Err(Garbage),
            _ if begins_like_a_reply(&inbox[at..]) => Ok(None),
            _ => Err(Garbage),
        }
    }
}

/// The code of a line, and whether the line is the reply's last. The text can be missing.
fn head_of(line: &[u8]) -> Option<(u16, bool)> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !begins_like_a_reply(digits) {
        return None;
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.first() {
        None | Some(b' ') => Some((code, true)),
        Some(b'-') => Some((code, false)),
        Some(_) => None,
    }
}

fn begins_like_a_reply(bytes: &[u8]) -> bool {
    let first = bytes.first().is_none_or(|b| (b'2'..=b'5').contains(b));
    first && bytes.iter().take(3).all(u8::is_ascii_digit)
}

fn text_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(4..).unwrap_or_default());
    text.chars().filter(|c| !c.is_control()).collect()
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({self})")
    }
}

/// The server's extensions, from its answer to EHLO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) pipelining: bool,
    pub(super) starttls: bool,
    pub(super) smtputf8: bool,
    /// The largest message that it accepts, in bytes.
    pub(super) size: Option<u64>,
    pub(super) auth: Vec<String>,
}

impl Capabilities {
    /// Parses the answer to EHLO. Its first line is the server's name.
    pub(super) fn of(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("PIPELINING") => offers.pipelining = true,
                Some("STARTTLS") => offers.starttls = true,
                Some("SMTPUTF8") => offers.smtputf8 = true,
                // 0: there is no limit.
                Some("SIZE") => {
                    let size = words.next().and_then(|size| size.parse().ok());
                    offers.size = size.filter(|size| *size > 0);
                }
                Some("AUTH") => offers.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        offers
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn take(bytes: &str) -> (Result<Option<Reply>, Garbage>, String) {
        let mut inbox = bytes.as_bytes().to_vec();
        let reply = Reply::take(&mut inbox);
        (reply, String::from_utf8(inbox).unwrap())
    }

    #[test]
    fn replies_come_off_the_front_one_by_one() {
        let (reply, rest) = take("250-first\r\n250 second\r\n550 next\r\n");
        assert_eq!(reply.unwrap().unwrap().words(), "250 first second");
        assert_eq!(rest, "550 next\r\n");
    }

    #[test]
    fn a_reply_without_text_is_a_reply() {
        assert_eq!(take("250\r\n").0.unwrap().unwrap().code(), 250);
        assert_eq!(take("250 \r\n").0.unwrap().unwrap().code(), 250);
    }

    #[test]
    fn half_a_reply_waits_for_the_rest() {
        for half in [
            "",
            "2",
            "25",
            "250",
            "250 ok",
            "250 ok\r",
            "250-a\r\n",
            "250-a\r\n25",
        ] {
            assert_eq!(take(half), (Ok(None), half.to_owned()), "{half:?}");
        }
    }

    #[test]
    fn garbage_is_not_a_reply() {
        for bytes in [
            "hello\r\n",
            "2x0 ok\r\n",
            "250_ok\r\n",
            "25\r\n",
            "650 ok\r\n",
            "150 ok\r\n",
            "\r\n",
            "250-ok\r\n550 no\r\n",
            "HTTP",
        ] {
            assert!(take(bytes).0.is_err(), "{bytes:?}");
        }
        assert!(take(&format!("250 {}", "x".repeat(MAX_BYTES))).0.is_err());
    }

    #[test]
    fn words_hold_no_address_and_no_control_characters() {
        let (reply, _) = take("550 5.1.1 <ann@example.com>: no\u{7} such user\r\n");
        assert_eq!(
            reply.unwrap().unwrap().words(),
            "550 5.1.1 <address> no such user"
        );
    }

    #[test]
    fn capabilities_are_read_in_any_case() {
        let (reply, _) =
            take("250-mx PIPELINING\r\n250-starttls\r\n250-AUTH=plain LOGIN\r\n250 SIZE 1\r\n");
        let offers = Capabilities::of(&reply.unwrap().unwrap());
        assert!(offers.starttls && !offers.pipelining && !offers.smtputf8);
        assert_eq!(offers.auth, ["PLAIN", "LOGIN"]);
        assert_eq!(offers.size, Some(1));
        for (line, size) in [
            ("SIZE", None),
            ("SIZE 0", None),
            ("SIZE 52428800", Some(52_428_800)),
        ] {
            let (reply, _) = take(&format!("250-mx\r\n250 {line}\r\n"));
            assert_eq!(
                Capabilities::of(&reply.unwrap().unwrap()).size,
                size,
                "{line}"
            );
        }
    }
}
