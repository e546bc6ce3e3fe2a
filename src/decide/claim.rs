//! The ledger's states and the one function that moves between them.
//!
//! ```text
//! (none) -> SENDING -> SENT | FAILED | RETRY | AMBIGUOUS
//! (none) -> SUPPRESSED
//! RETRY -> SENDING
//! SENDING -> SENDING     taken back by its own claimant, who knows that nothing went out
//! AMBIGUOUS -> SENDING   policy `resend`, once
//! AMBIGUOUS -> SENT | RETRY   settled by an operator; SENT also by a late reply under its fence
//! ```
//!
//! Whatever is not listed is an error ([`Illegal`]). No clock is read here: `now` is given, and
//! only decides where the deadline of a claimant without a fleet has passed.

use std::time::{Duration, SystemTime};

/// What is known of one effect: at most one row per effect key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the effect stands.
    pub state: State,
    /// Raised by every claim: the fence of the claimant's later writes.
    pub fence: u64,
    /// Raised by every write to the row: what a conditional write expects to replace.
    pub revision: u64,
    /// Who claimed it last.
    pub claimant: Option<Claimant>,
    /// When it was first claimed: the mail's `Date`, frozen for every later attempt.
    pub first_claimed: Option<SystemTime>,
    /// SHA-256 (hex) of the mail as first claimed, so that a resend that is not byte-identical can
    /// be told.
    pub digest: Option<String>,
    /// What the mail server said last, or why the effect was not sent.
    pub reply: Option<String>,
    /// How many windows of doubt the effect has been through.
    pub ambiguities: u32,
    /// Acceptances that were reported after somebody else's claim: each may be a second mail.
    pub second_acceptances: u32,
    /// What operators decided, oldest first.
    pub settlements: Vec<Settlement>,
    /// When the row was last written.
    pub changed: SystemTime,
}

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed: whoever claimed it may be past the point of no return.
    Sending,
    /// Accepted by the mail server.
    Sent,
    /// Refused for good by the mail server.
    Failed,
    /// Certainly not accepted: may be claimed again.
    Retry,
    /// Accepted or not: nobody can tell.
    Ambiguous,
    /// Deliberately not sent.
    Suppressed,
}

impl State {
    /// The word that stands in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sending => "SENDING",
            Self::Sent => "SENT",
            Self::Failed => "FAILED",
            Self::Retry => "RETRY",
            Self::Ambiguous => "AMBIGUOUS",
            Self::Suppressed => "SUPPRESSED",
        }
    }

    /// Reads the word back, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Sending,
            Self::Sent,
            Self::Failed,
            Self::Retry,
            Self::Ambiguous,
            Self::Suppressed,
        ]
        .into_iter()
        .find(|state| state.word().eq_ignore_ascii_case(word))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Who claimed an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The incarnation of the worker.
    pub incarnation: String,
    /// Unique per claim, so that a claim whose answer was lost can be recognised.
    pub nonce: u64,
    /// After this moment the claimant cannot be acting any more: longer than the longest SMTP
    /// transaction.
    pub deadline: SystemTime,
}

/// An operator's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Who decided.
    pub by: String,
    /// When.
    pub at: SystemTime,
    /// Why, in the operator's words.
    pub reason: String,
    /// What was decided.
    pub verdict: SettledAs,
}

/// What an operator may decide of an ambiguous effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledAs {
    /// It was accepted after all.
    Sent,
    /// It may be sent again.
    Resend,
}

/// What to do about an effect that may or may not have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAmbiguous {
    /// Send the same bytes once more; after a second doubt wait for an operator.
    #[default]
    Resend,
    /// Never twice: wait for an operator at once.
    Park,
}

/// What is known of a claimant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It may still be acting.
    Alive,
    /// It cannot start anything any more.
    Dead,
    /// There is no fleet to ask: its deadline decides.
    Unknown,
}

/// Who wants to claim, and under which rules.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The claim to write.
    pub claimant: Claimant,
    /// SHA-256 (hex) of the mail to be sent.
    pub digest: Option<String>,
    /// A claim of my own whose effect I know was never begun.
    pub abandoned_nonce: Option<u64>,
    /// The user's policy.
    pub policy: OnAmbiguous,
    /// The time, for the record and for deadlines.
    pub now: SystemTime,
}

/// What a claim comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Write this entry; if that succeeds, the effect is mine to begin.
    Claim(Entry),
    /// Write this entry (the claimant died), then ask again.
    Doubt(Entry),
    /// My own claim stands already: its answer was lost. The effect is mine to begin.
    Mine(Entry),
    /// Somebody alive is at it: wait, at most this long.
    Busy(Duration),
    /// Nothing is to be done any more: SENT, FAILED or SUPPRESSED.
    Done(State),
    /// In doubt, and the policy says to wait for an operator.
    Parked,
}

/// Decides what a claim of `current` comes to.
pub fn claim(current: Option<&Entry>, ask: &Ask, claimant: Liveness) -> Verdict {
    let Some(entry) = current else {
        return Verdict::Claim(claimed(None, ask));
    };
    match entry.state {
        State::Sent | State::Failed | State::Suppressed => Verdict::Done(entry.state),
        State::Retry => Verdict::Claim(claimed(Some(entry), ask)),
        State::Ambiguous if ask.policy == OnAmbiguous::Resend && entry.ambiguities < 2 => {
            Verdict::Claim(claimed(Some(entry), ask))
        }
        State::Ambiguous => Verdict::Parked,
        State::Sending => sending(entry, ask, claimant),
    }
}

fn sending(entry: &Entry, ask: &Ask, liveness: Liveness) -> Verdict {
    let nonce = entry.claimant.as_ref().map(|c| c.nonce);
    if nonce == Some(ask.claimant.nonce) {
        return Verdict::Mine(entry.clone());
    }
    if nonce.is_some() && nonce == ask.abandoned_nonce {
        return Verdict::Claim(claimed(Some(entry), ask));
    }
    let left = entry
        .claimant
        .as_ref()
        .and_then(|c| c.deadline.duration_since(ask.now).ok());
    match (liveness, left) {
        (Liveness::Alive | Liveness::Unknown, Some(left)) if !left.is_zero() => Verdict::Busy(left),
        _ => Verdict::Doubt(Entry {
            state: State::Ambiguous,
            revision: entry.revision + 1,
            ambiguities: entry.ambiguities + 1,
            changed: ask.now,
            ..entry.clone()
        }),
    }
}

fn claimed(before: Option<&Entry>, ask: &Ask) -> Entry {
    let base = before.cloned().unwrap_or(Entry {
        state: State::Sending,
        fence: 0,
        revision: 0,
        claimant: None,
        first_claimed: None,
        digest: None,
        reply: None,
        ambiguities: 0,
        second_acceptances: 0,
        settlements: Vec::new(),
        changed: ask.now,
    });
    Entry {
        state: State::Sending,
        fence: base.fence + 1,
        revision: base.revision + 1,
        claimant: Some(ask.claimant.clone()),
        first_claimed: base.first_claimed.or(Some(ask.now)),
        digest: base.digest.clone().or_else(|| ask.digest.clone()),
        changed: ask.now,
        ..base
    }
}

/// What happened to an effect after it was claimed, or what an operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The server accepted it, in these words, under the claim with this fence.
    Accepted {
        /// The claim's fence.
        fence: u64,
        /// The server's words.
        reply: String,
    },
    /// The server refused it for good.
    Refused {
        /// The claim's fence.
        fence: u64,
        /// The server's words.
        reply: String,
    },
    /// It was certainly not accepted this time.
    NotAccepted {
        /// The claim's fence.
        fence: u64,
        /// The server's words, or what failed.
        reply: String,
    },
    /// No definite reply came.
    NoReply {
        /// The claim's fence.
        fence: u64,
        /// What failed.
        reply: String,
    },
    /// It is deliberately not sent. Only an effect that nobody is at can be suppressed.
    Suppressed {
        /// Why.
        reason: String,
    },
    /// An operator settled it.
    Settled(Settlement),
}

/// A step that the table of transitions does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{happened} does not apply to an effect that is {}", .state.map_or("unknown", State::word))]
pub struct Illegal {
    state: Option<State>,
    happened: &'static str,
}

/// The entry that follows from `current` and what happened.
///
/// # Errors
///
/// [`Illegal`] when that cannot happen to an effect in this state. The row stays as it is.
pub fn transition(
    current: Option<&Entry>,
    happened: &Happened,
    now: SystemTime,
) -> Result<Entry, Illegal> {
    let illegal = |what| Illegal {
        state: current.map(|e| e.state),
        happened: what,
    };
    match happened {
        Happened::Accepted { fence, reply } => {
            let entry = current.ok_or_else(|| illegal("an acceptance"))?;
            accepted(entry, *fence, reply, now).ok_or_else(|| illegal("an acceptance"))
        }
        Happened::Refused { fence, reply } => current
            .and_then(|entry| reported(entry, *fence, State::Failed, reply, now))
            .ok_or_else(|| illegal("a refusal")),
        Happened::NotAccepted { fence, reply } => current
            .and_then(|entry| reported(entry, *fence, State::Retry, reply, now))
            .ok_or_else(|| illegal("a deferral")),
        Happened::NoReply { fence, reply } => current
            .and_then(|entry| reported(entry, *fence, State::Ambiguous, reply, now))
            .ok_or_else(|| illegal("a lost reply")),
        Happened::Suppressed { reason } => {
            suppressed(current, reason, now).ok_or_else(|| illegal("a suppression"))
        }
        Happened::Settled(settlement) => current
            .and_then(|entry| settled(entry, settlement, now))
            .ok_or_else(|| illegal("a settlement")),
    }
}

/// An acceptance is never thrown away. Under the current fence it makes the effect SENT, also out
/// of AMBIGUOUS; after somebody else's claim it is counted as a second acceptance.
fn accepted(entry: &Entry, fence: u64, reply: &str, now: SystemTime) -> Option<Entry> {
    if fence > entry.fence {
        return None;
    }
    let mut next = moved(entry, entry.state, now);
    let current = fence == entry.fence;
    match entry.state {
        State::Sending | State::Ambiguous if current => {
            next.state = State::Sent;
            next.reply = Some(reply.to_owned());
        }
        // The same report again: nothing new.
        State::Sent if current => return Some(entry.clone()),
        _ => next.second_acceptances += 1,
    }
    Some(next)
}

/// What the claimant reports of its own claim, under its own fence.
fn reported(
    entry: &Entry,
    fence: u64,
    state: State,
    reply: &str,
    now: SystemTime,
) -> Option<Entry> {
    if fence != entry.fence {
        return None;
    }
    match (entry.state, state) {
        // The same report again.
        (before, after) if before == after => Some(entry.clone()),
        // A definite word after others had given the claimant up: it settles the doubt.
        (State::Sending, _) | (State::Ambiguous, State::Failed | State::Retry) => {
            let mut next = moved(entry, state, now);
            next.reply = Some(reply.to_owned());
            next.ambiguities += u32::from(state == State::Ambiguous);
            Some(next)
        }
        _ => None,
    }
}

fn suppressed(current: Option<&Entry>, reason: &str, now: SystemTime) -> Option<Entry> {
    let mut next = match current {
        None => Entry {
            state: State::Suppressed,
            fence: 0,
            revision: 1,
            claimant: None,
            first_claimed: None,
            digest: None,
            reply: None,
            ambiguities: 0,
            second_acceptances: 0,
            settlements: Vec::new(),
            changed: now,
        },
        Some(entry) if entry.state == State::Suppressed => return Some(entry.clone()),
        Some(entry) if entry.state == State::Retry => moved(entry, State::Suppressed, now),
        Some(_) => return None,
    };
    next.reply = Some(reason.to_owned());
    Some(next)
}

fn settled(entry: &Entry, settlement: &Settlement, now: SystemTime) -> Option<Entry> {
    if entry.state != State::Ambiguous {
        return None;
    }
    let state = match settlement.verdict {
        SettledAs::Sent => State::Sent,
        SettledAs::Resend => State::Retry,
    };
    let mut next = moved(entry, state, now);
    next.settlements.push(settlement.clone());
    Some(next)
}

fn moved(entry: &Entry, state: State, now: SystemTime) -> Entry {
    Entry {
        state,
        revision: entry.revision + 1,
        changed: now,
        ..entry.clone()
    }
}
