//! The states of the ledger, and the one function that moves between them.
//!
//! ```text
//! (none) -> SENDING | SUPPRESSED | FAILED      claimed; not to be sent; turned away at RCPT
//! SENDING -> SENT | FAILED | RETRY | AMBIGUOUS what became of the claim
//! SENDING -> SENDING                           taken back: its claimant knows that nothing began
//! RETRY | SUPPRESSED -> SENDING | SUPPRESSED | FAILED   a later record decides again
//! AMBIGUOUS -> SENDING                         policy `resend`, or the provider recognises a repeat
//! AMBIGUOUS -> SENT | FAILED | RETRY           a late definite reply, or an operator
//! (none) | FAILED | SUPPRESSED -> RETRY        an operator releases it
//! AMBIGUOUS | RETRY -> SUPPRESSED              an operator gives it up
//! RETRY -> SENT                                an operator found it, after a release
//! RETRY | FAILED | SUPPRESSED -> SENT          a late acceptance
//! ```
//!
//! Every other move is an error ([`Illegal`]). Every claim has a fence. The row keeps the fences that
//! were accepted and those that are in doubt, so that a definite end of a later claim does not hide an
//! earlier doubt: such an effect is SENT or AMBIGUOUS, whatever happened to the later claim.
//!
//! This code reads no clock. The caller passes `now`, which only decides whether the deadline of a
//! claimant without a fleet has passed.

use std::time::{Duration, SystemTime};

mod entry;
mod history;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod transition;

pub use entry::{Attention, Claimant, Decision, Entry, ItemRef, Kept, Resolution, State};
pub use history::{History, Step, StepKind};
pub use transition::{Happened, Illegal, transition};

/// What to do about an effect that may have been accepted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAmbiguous {
    /// Send the same bytes once more. After a second doubt, wait for an operator.
    #[default]
    Resend,
    /// Never send it twice: wait for an operator at once.
    Park,
}

/// A rule of the once-only protocol. The simulation leaves out one at a time, to show that each is
/// needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimRule {
    /// An effect begins only if its own claim is in the ledger.
    OwnClaim,
    /// The claim of a dead worker is in doubt.
    DeadClaimIsDoubt,
    /// An effect without a definite answer may have taken place.
    NoAnswerIsNotNo,
    /// An effect without a definite answer may not have taken place.
    NoAnswerIsNotYes,
    /// An effect that has begun is completed, whatever happens to its caller.
    SeenThrough,
    /// An effect that was in doubt twice waits for an operator.
    OneResend,
    /// [`OnAmbiguous::Park`] is respected.
    Park,
    /// A later claim that ends definitely does not hide an earlier doubt.
    DoubtRemains,
    /// An effect that is performed again is the same, byte for byte.
    SameBytes,
    /// A record is not finished while another worker performs its effect.
    BusyIsNotDone,
}

/// What is known about a claimant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It may still be acting.
    Alive,
    /// It cannot start anything any more.
    Dead,
    /// There is no fleet to ask, so the claim's deadline decides.
    Unknown,
}

/// A request to claim, and the rules for it.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The claim to write.
    pub claimant: Claimant,
    /// SHA-256 (hex) of the mail to be sent.
    pub digest: Option<String>,
    /// The item that the mail is about, or `None` for the item of the row.
    pub item: Option<ItemRef>,
    /// The mail itself, packed, if it is small enough to keep.
    pub kept: Option<Kept>,
    /// Nonces of my own claims whose effect certainly never began and never will. The write of such a
    /// claim may have been applied after I gave up on it.
    pub abandoned: Vec<u64>,
    /// The user's policy.
    pub policy: OnAmbiguous,
    /// For how long the provider recognises a repeat by its key, if it does.
    pub provider_remembers: Option<Duration>,
    /// Whether the record is delivered until it is finished. If not, a person asked for one attempt.
    pub comes_again: bool,
    /// When the attempt began: the date of an effect that was never claimed before.
    pub began: SystemTime,
    /// The time, for the record and for deadlines.
    pub now: SystemTime,
    /// The rule that a simulation leaves out.
    pub left_out: Option<ClaimRule>,
}

impl Ask {
    /// A claim by an attempt that begins now, for a record that comes once and an effect without
    /// content.
    pub fn new(claimant: Claimant, policy: OnAmbiguous, now: SystemTime) -> Self {
        Self {
            claimant,
            digest: None,
            item: None,
            kept: None,
            abandoned: Vec::new(),
            policy,
            provider_remembers: None,
            comes_again: false,
            began: now,
            now,
            left_out: None,
        }
    }

    fn keeps(&self, rule: ClaimRule) -> bool {
        self.left_out != Some(rule)
    }

    /// Whether the provider takes this claim's effect for a repeat of those in doubt, even if it arrives
    /// at the last moment of the claim.
    fn is_remembered(&self, entry: &Entry) -> bool {
        let until = self.provider_remembers.and_then(|remembers| {
            let since = entry.in_doubt_since()?;
            since.checked_add(remembers)
        });
        until.is_some_and(|until| self.claimant.deadline < until) && self.repeats_bytes_of(entry)
    }

    /// Whether the effect can be what it was when it came into doubt, byte for byte.
    fn repeats_bytes_of(&self, entry: &Entry) -> bool {
        entry.kept.is_some() || !self.differs_from(entry)
    }

    fn differs_from(&self, entry: &Entry) -> bool {
        matches!((&entry.digest, &self.digest), (Some(before), Some(now)) if before != now)
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Write this entry. If the write succeeds, I may begin the effect.
    Claim(Entry),
    /// Write this entry (the claimant died, or nobody performs the effect again by itself), then ask
    /// again.
    Doubt(Entry),
    /// The row already holds this claim: the answer to its write was lost. The effect may begin.
    Mine(Entry),
    /// A live worker is processing it: wait, at most this long.
    Busy(Duration),
    /// Nothing is left to do: the effect is SENT, or an operator suppressed it while it was in doubt.
    Done(State),
    /// The effect is in doubt and waits for an operator.
    Parked,
    /// The row is about another item. Two items have the same effect key, and only one of them gets the
    /// effect.
    Collision(ItemRef),
}

/// Decides about a claim of `current`.
///
/// Without an operator's decision, an effect takes place at most twice under `resend`, and at most once
/// under `park`. Repeats that the provider recognises do not count.
pub fn claim(current: Option<&Entry>, ask: &Ask, claimant: Liveness) -> Verdict {
    let Some(entry) = current else {
        return Verdict::Claim(claimed(&Entry::blank(ask.now), ask));
    };
    if let Some(other) = other_item(entry, ask.item.as_ref()) {
        return Verdict::Collision(other.clone());
    }
    match entry.state {
        State::Sent => Verdict::Done(entry.state),
        // An operator gave it up without knowing whether it was accepted.
        State::Suppressed if !entry.doubtful.is_empty() => Verdict::Done(entry.state),
        // Nothing was accepted, and the caller claims it deliberately: the engine, which does not know
        // yet whose fault the refusal was, an operator, or a later record.
        State::Retry | State::Failed | State::Suppressed => Verdict::Claim(claimed(entry, ask)),
        State::Ambiguous => ambiguous(entry, ask),
        State::Sending => sending(entry, ask, claimant),
    }
}

/// The item of the row, if it is another one than `item`: two items have the same effect key.
///
/// A later image is the same item. So is an item that was moved to another table: it keeps its key and
/// its recipient. A SUPPRESSED row is free for any item, because no effect ever began under it.
pub fn other_item<'a>(entry: &'a Entry, item: Option<&ItemRef>) -> Option<&'a ItemRef> {
    let (before, now) = (entry.item.as_ref()?, item?);
    let free = entry.state == State::Suppressed;
    (!before.is(now) && !before.may_have_moved_to(now) && !free).then_some(before)
}

/// A claim of mine that never began is not in doubt, even if another worker recorded that it is.
fn ambiguous(entry: &Entry, ask: &Ask) -> Verdict {
    let mut entry = entry.clone();
    let nonce = entry.claimant.as_ref().map(|c| c.nonce);
    if nonce.is_some_and(|n| n == ask.claimant.nonce || ask.abandoned.contains(&n)) {
        entry.doubtful.retain(|fence| *fence != entry.fence);
    }
    if entry.doubtful.is_empty() || repeats(&entry, ask) {
        Verdict::Claim(claimed(&entry, ask))
    } else if ask.comes_again && entry.attention() == Some(Attention::Resending) {
        Verdict::Doubt(entry.left_to_a_person(ask.now))
    } else {
        Verdict::Parked
    }
}

/// Whether an effect in doubt is performed once more: the provider recognises the repeat, or the policy
/// allows it.
pub fn repeats(entry: &Entry, ask: &Ask) -> bool {
    ask.is_remembered(entry) || may_resend(entry, ask)
}

/// Sends once more: the same bytes if they were kept, so that a provider that recognises duplicates by
/// content sees one mail. The Message-ID is the same in any case.
fn may_resend(entry: &Entry, ask: &Ask) -> bool {
    (ask.policy == OnAmbiguous::Resend || !ask.keeps(ClaimRule::Park))
        && (entry.effects_in_doubt() < 2 || !ask.keeps(ClaimRule::OneResend))
}

fn sending(entry: &Entry, ask: &Ask, liveness: Liveness) -> Verdict {
    let nonce = entry.claimant.as_ref().map(|c| c.nonce);
    if nonce == Some(ask.claimant.nonce) {
        return Verdict::Mine(entry.clone());
    }
    if nonce.is_some_and(|nonce| ask.abandoned.contains(&nonce)) {
        return Verdict::Claim(claimed(entry, ask));
    }
    let deadline = entry.claimant.as_ref().map(|c| c.deadline);
    let left = deadline.and_then(|deadline| deadline.duration_since(ask.now).ok());
    match (liveness, left) {
        (Liveness::Alive | Liveness::Unknown, Some(left)) if !left.is_zero() => Verdict::Busy(left),
        _ if !ask.keeps(ClaimRule::DeadClaimIsDoubt) => Verdict::Claim(claimed(entry, ask)),
        _ => Verdict::Doubt(entry.doubted("its claimant is gone and left no word", ask.now)),
    }
}

/// The date remains that of the first claim. The mail is kept while an earlier claim is in doubt: only
/// then must the next one be identical.
fn claimed(before: &Entry, ask: &Ask) -> Entry {
    let mut next = before.next(ask.now).standing_for(ask.item.as_ref());
    let in_doubt = !before.doubtful.is_empty();
    let differs = ask.differs_from(before);
    let repeatable = before.digest.is_some() && ask.repeats_bytes_of(before);
    let stays = in_doubt && repeatable && ask.keeps(ClaimRule::SameBytes);
    if !stays {
        next.digest.clone_from(&ask.digest);
        next.kept.clone_from(&ask.kept);
    }
    next.state = State::Sending;
    next.fence += 1;
    next.claimant = Some(ask.claimant.clone());
    let repeats = ask.policy == OnAmbiguous::Resend || ask.provider_remembers.is_some();
    next.resends = ask.comes_again && repeats;
    if in_doubt && ask.is_remembered(before) {
        next.is_one_effect_with_its_doubts();
    }
    next.first_claimed = before.first_claimed.or(Some(ask.began));
    if in_doubt && differs && !stays {
        let why = "what is in doubt was not kept: this has the same key and other bytes";
        next.add(StepKind::Rewritten, Some(next.fence), why);
    }
    let claim = Step::new(ask.now, StepKind::Claimed).under(next.fence);
    next.history.add(claim.by(&ask.claimant.incarnation));
    next
}
