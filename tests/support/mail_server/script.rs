//! What the mail server is to do wrong, and when.

use std::path::PathBuf;
use std::time::Duration;

/// Where in the conversation a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nobody listens.
    Connect,
    /// Before the TLS handshake, where there is one at the start.
    Tls,
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// After 354 was said, before the message is read.
    Body,
    /// After the final dot was read.
    Dot,
    Noop,
    Rset,
}

/// What the server does instead of what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Answers this (without the line end) instead. At [`Step::Dot`] a 2xx still keeps the mail.
    Say(&'static str),
    /// Closes the connection without an answer (FIN).
    Close,
    /// Breaks the connection without an answer (RST).
    Reset,
    /// Answers never, and holds the connection.
    Silence,
    /// Answers the first half of what it should, then closes.
    Half,
    /// Answers with something that is not SMTP.
    Garbage,
    /// Answers as it should, after this time.
    Late(Duration),
    /// Answers as it should, a few bytes at a time with this time between. At [`Step::Body`]: reads
    /// the message so.
    Trickle(Duration),
    /// Answers as it should, once the test releases it; until then it does not even read.
    Hold,
    /// Answers as it should, twice.
    Twice,
}

/// Which attempts a fault affects that affects one in so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Connections, as if one of several nodes were sick.
    Connection,
    /// Recipients whose address begins with a number; from [`Step::Rcpt`] on.
    Recipient,
}

/// One line of the script.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) step: Step,
    pub(super) act: Act,
    pub(super) left: u32,
    pub(super) skip: u32,
    connection: Option<usize>,
    recipient: Option<String>,
    one_in: Option<(Whose, usize)>,
    keeps: bool,
}

impl Fault {
    /// Strikes once, the next time the step comes.
    pub fn once(step: Step, act: Act) -> Self {
        Self {
            step,
            act,
            left: 1,
            skip: 0,
            connection: None,
            recipient: None,
            one_in: None,
            keeps: false,
        }
    }

    /// Strikes every time.
    pub fn always(step: Step, act: Act) -> Self {
        Self {
            left: u32::MAX,
            ..Self::once(step, act)
        }
    }

    /// Strikes this many times.
    pub fn times(self, times: u32) -> Self {
        Self {
            left: times,
            ..self
        }
    }

    /// Lets the step pass this many times first.
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Only on this connection, counted from 0.
    pub fn on_connection(self, connection: usize) -> Self {
        Self {
            connection: Some(connection),
            ..self
        }
    }

    /// Only for a mail to this address; from [`Step::Rcpt`] on.
    pub fn for_recipient(self, address: &str) -> Self {
        Self {
            recipient: Some(address.to_owned()),
            ..self
        }
    }

    /// Only for one in this many of them.
    pub fn for_one_in(self, of: usize, whose: Whose) -> Self {
        let one_in = Some((whose, of));
        Self { one_in, ..self }
    }

    /// Whether it meets this connection, or a mail to these addresses.
    pub(super) fn meets(&self, connection: usize, to: &[String]) -> bool {
        let is_to = |address: &String| to.contains(address);
        let one_in = match self.one_in {
            None => true,
            Some((Whose::Connection, of)) => connection.is_multiple_of(of),
            Some((Whose::Recipient, of)) => to.iter().any(|address| {
                let digits = address.split('@').next().unwrap_or_default();
                digits
                    .parse()
                    .is_ok_and(|number: usize| number.is_multiple_of(of))
            }),
        };
        one_in
            && self.connection.is_none_or(|number| number == connection)
            && self.recipient.as_ref().is_none_or(is_to)
    }

    /// Whether the mail is accepted all the same.
    pub(super) fn keeps(&self) -> bool {
        match self.act {
            Act::Say(line) => line.starts_with('2') || self.keeps,
            Act::Late(_) | Act::Trickle(_) | Act::Hold | Act::Twice => true,
            _ => self.keeps,
        }
    }

    /// At [`Step::Dot`]: the mail was accepted, only the answer goes wrong.
    pub fn keeping(self) -> Self {
        Self {
            keeps: true,
            ..self
        }
    }
}

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Script {
    pub pipelining: bool,
    pub smtputf8: bool,
    /// What it says of the largest message that it takes.
    pub size: Option<usize>,
    /// The mechanisms that it names, such as `PLAIN LOGIN`; none: it does not ask who you are.
    pub auth: &'static str,
    pub tls: ServerTls,
    pub faults: Vec<Fault>,
    /// The header by which it recognises a mail that it has: it accepts it again and keeps one.
    pub recognises: Option<&'static str>,
    /// Every accepted mail is also kept here as `<number>.eml`.
    pub keep_in: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTls {
    None,
    StartTls,
    Implicit,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            pipelining: true,
            smtputf8: true,
            size: None,
            auth: "",
            tls: ServerTls::None,
            faults: Vec::new(),
            recognises: None,
            keep_in: None,
        }
    }
}

impl Script {
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}
