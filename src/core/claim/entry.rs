//! What the ledger knows about one effect.

use std::fmt;
use std::time::SystemTime;

use super::history::{History, Step, StepKind, cut};

/// The longest reply that a row keeps, in bytes.
const REPLY_BYTES: usize = 1_000;

/// What is known about one effect. There is at most one row per effect key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The state of the effect.
    pub state: State,
    /// Raised by every claim. The fence of the claimant's later writes.
    pub fence: u64,
    /// Raised by every write to the row. A conditional write names the revision that it replaces.
    pub revision: u64,
    /// Who claimed it last.
    pub claimant: Option<Claimant>,
    /// When it was first claimed. Every later attempt keeps this as the mail's `Date`.
    pub first_claimed: Option<SystemTime>,
    /// SHA-256 (hex) of the mail as first claimed, to recognise a resend with other bytes.
    pub digest: Option<String>,
    /// The item that the effect is about, if known.
    pub item: Option<ItemRef>,
    /// The mail of the last claim, while it is unknown whether it was accepted. `None` if it was too
    /// large to keep.
    pub kept: Option<Kept>,
    /// The mail server's last reply, or why the effect was not sent.
    pub reply: Option<String>,
    /// How many times the effect has been in doubt.
    pub ambiguities: u32,
    /// The fences of the claims that are in doubt.
    pub doubtful: Vec<u64>,
    /// The fences of the claims that the mail server accepted. More than one means more than one mail.
    pub accepted: Vec<u64>,
    /// The fences of the claims that the provider takes for one effect: it recognises their repeats.
    pub one_effect: Vec<u64>,
    /// If the last claim ends in doubt, the worker that has the record sends once more by itself.
    pub resends: bool,
    /// An operator released it (again), and it is not sent yet. Perhaps no worker has its record, so
    /// until then it waits for a person.
    pub released: bool,
    /// What happened, oldest first.
    pub history: History,
    /// When the row was last written.
    pub changed: SystemTime,
}

impl Entry {
    /// An effect that was never claimed. This entry is never written as it is: its revision is 0.
    pub(super) fn blank(now: SystemTime) -> Self {
        Self {
            state: State::Retry,
            fence: 0,
            revision: 0,
            claimant: None,
            first_claimed: None,
            digest: None,
            item: None,
            kept: None,
            reply: None,
            ambiguities: 0,
            doubtful: Vec::new(),
            accepted: Vec::new(),
            one_effect: Vec::new(),
            resends: false,
            released: false,
            history: History::default(),
            changed: now,
        }
    }

    /// How many acceptances followed the first: how often the effect took place in excess.
    pub fn second_acceptances(&self) -> usize {
        self.effects(&self.accepted).saturating_sub(1)
    }

    /// How often the effect may have taken place in the claims in doubt.
    pub fn effects_in_doubt(&self) -> usize {
        self.effects(&self.doubtful)
    }

    /// How many effects these claims are to the provider.
    fn effects(&self, fences: &[u64]) -> usize {
        let is_one = |fence: &&u64| self.one_effect.contains(fence);
        let one = fences.iter().filter(is_one).count();
        fences.len() - one + one.min(1)
    }

    /// When the earliest claim in doubt was made. The provider got its effect later, if at all.
    pub(super) fn in_doubt_since(&self) -> Option<SystemTime> {
        let first = *self.doubtful.iter().min()?;
        let is_claim = |step: &&Step| step.kind == StepKind::Claimed && step.fence == Some(first);
        let claim = self.history.steps().iter().find(is_claim);
        claim.map(|step| step.at).or(self.first_claimed)
    }

    /// Whether the outcome of the claim with this fence closed doubts, because the provider takes them
    /// for the same effect.
    pub fn closed_doubts(&self, fence: u64) -> bool {
        let is_closing = |step: &Step| step.kind == StepKind::Closed && step.fence == Some(fence);
        self.history.steps().iter().any(is_closing)
    }

    /// The current claim repeats those in doubt, and the provider recognises that.
    pub(super) fn is_one_effect_with_its_doubts(&mut self) {
        let repeated = self.doubtful.iter().chain([&self.fence]);
        let new: Vec<_> = repeated
            .filter(|fence| !self.one_effect.contains(fence))
            .copied()
            .collect();
        self.one_effect.extend(new);
    }

    /// If one of the claims that are one effect to the provider was accepted, the others are no longer
    /// in doubt.
    pub(super) fn close_doubts(&mut self) {
        let one_effect = &self.one_effect;
        let accepted = self.accepted.iter().rev();
        let Some(fence) = accepted.copied().find(|fence| one_effect.contains(fence)) else {
            return;
        };
        let before = self.doubtful.len();
        self.doubtful.retain(|doubt| !one_effect.contains(doubt));
        if self.doubtful.len() < before {
            let why = "the provider recognised the repeat: what was in doubt took place once";
            self.add(StepKind::Closed, Some(fence), why);
        }
    }

    /// No worker performs it again by itself.
    pub(super) fn left_to_a_person(&self, now: SystemTime) -> Self {
        let resends = false;
        Self {
            resends,
            ..self.next(now)
        }
    }

    /// The next version of the row, to be changed further.
    pub(super) fn next(&self, now: SystemTime) -> Self {
        Self {
            revision: self.revision + 1,
            changed: now,
            ..self.clone()
        }
    }

    /// Adds to the history.
    pub(super) fn add(&mut self, kind: StepKind, fence: Option<u64>, text: &str) {
        let step = Step::new(self.changed, kind).saying(text);
        self.history.add(Step { fence, ..step });
    }

    /// Sets the mail server's last reply.
    pub(super) fn say(&mut self, reply: &str) {
        self.reply = Some(cut(reply, REPLY_BYTES));
    }

    /// Why a person should look at it, if needed.
    pub fn attention(&self) -> Option<Attention> {
        match self.state {
            State::Ambiguous if self.resends && self.effects_in_doubt() < 2 => {
                Some(Attention::Resending)
            }
            State::Ambiguous => Some(Attention::Ambiguous),
            _ => self.released.then_some(Attention::Released),
        }
    }

    /// The mail is kept only while it may have to be repeated, and a release holds only until it has
    /// had an outcome.
    pub(super) fn forget_what_is_decided(mut self) -> Self {
        self.released &= matches!(self.state, State::Retry | State::Sending);
        let open = self.state == State::Sending || !self.doubtful.is_empty();
        if !open || self.state == State::Sent {
            self.kept = None;
        }
        self
    }

    /// The same row, for this item.
    pub(crate) fn standing_for(mut self, item: Option<&ItemRef>) -> Self {
        let Some(item) = item else {
            return self;
        };
        if let Some(before) = self.item.take()
            && !before.is(item)
        {
            let text = format!("from {before} to {item}");
            self.add(StepKind::Moved, None, &text);
        }
        self.item = Some(item.clone());
        self
    }

    /// The claimant is gone, and the outcome under this fence is unknown: SENT if an acceptance is
    /// known anyway, else AMBIGUOUS.
    pub(super) fn doubted(&self, why: &str, now: SystemTime) -> Self {
        let mut next = self.next(now);
        next.doubtful.push(self.fence);
        next.ambiguities += 1;
        next.state = next.decided_or(State::Ambiguous);
        next.add(StepKind::Doubted, Some(self.fence), why);
        next.close_doubts();
        next.forget_what_is_decided()
    }

    /// The state after the current claim ended as `otherwise`. An acceptance or doubt of an earlier
    /// claim takes precedence.
    pub(super) fn decided_or(&self, otherwise: State) -> State {
        match (self.accepted.is_empty(), self.doubtful.is_empty()) {
            (false, _) => State::Sent,
            (true, false) => State::Ambiguous,
            (true, _) => otherwise,
        }
    }
}

/// The item that an effect is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRef {
    /// The table's ARN, or empty if unknown.
    pub table: String,
    /// The item's key attributes as DynamoDB JSON: `{"id":{"S":"1042"}}`.
    pub key: String,
    /// A hash of the recipient. An item that was moved to another table keeps its key and its
    /// recipient. A different item that happens to have the same key has another recipient.
    pub recipient: Option<String>,
}

impl ItemRef {
    /// Whether both are the same item of the same table.
    pub fn is(&self, other: &Self) -> bool {
        (&self.table, &self.key) == (&other.table, &other.key)
    }

    /// Whether the other may be this item in another table, to which it was moved or copied.
    pub(super) fn may_have_moved_to(&self, other: &Self) -> bool {
        let recipient = self.recipient.is_some() && self.recipient == other.recipient;
        recipient && self.key == other.key && self.table != other.table
    }
}

/// Shows the key, never another attribute.
impl fmt::Display for ItemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if self.table.is_empty() {
            return Ok(());
        }
        write!(f, " of {}", self.table)
    }
}

/// A packed mail, kept as long as it may have to be sent again byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept(pub Vec<u8>);

/// Never shows an address or a body.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.0.len())
    }
}

/// The state of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Claimed: its claimant may be past the point of no return.
    Sending,
    /// Accepted by the mail server.
    Sent,
    /// Refused for good by the mail server.
    Failed,
    /// Certainly not accepted: it can be claimed again.
    Retry,
    /// It is unknown whether it was accepted.
    Ambiguous,
    /// Deliberately not sent.
    Suppressed,
}

impl State {
    /// The word in the table.
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

    /// Parses the word, in any case.
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// After this moment the claimant cannot be acting any more. Longer than the longest SMTP
    /// transaction.
    pub deadline: SystemTime,
}

/// Why a person should look at an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attention {
    /// It is unknown whether it was accepted.
    Ambiguous,
    /// The same, but the worker that has its record sends it once more by itself.
    Resending,
    /// An operator released it, and it is not sent yet.
    Released,
}

impl Attention {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ambiguous => "AMBIGUOUS",
            Self::Resending => "RESENDING",
            Self::Released => "RELEASED",
        }
    }
}

/// An operator's decision, which goes into the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The operator.
    pub by: String,
    /// When.
    pub at: SystemTime,
    /// Why, in the operator's words.
    pub note: String,
    /// What was decided.
    pub decision: Decision,
}

/// The decisions that an operator can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It was accepted after all.
    Sent,
    /// It may be sent (again).
    Send,
    /// It must not be sent.
    Skip,
}
