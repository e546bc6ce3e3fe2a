//! The ledger's states and the one function that moves between them.
//!
//! ```text
//! (none) -> SENDING | SUPPRESSED | FAILED      claimed; not to be sent; turned away at RCPT
//! SENDING -> SENT | FAILED | RETRY | AMBIGUOUS what became of the claim
//! SENDING -> SENDING                           taken back: its claimant knows that nothing began
//! RETRY | SUPPRESSED -> SENDING | SUPPRESSED | FAILED   a later record decides again
//! AMBIGUOUS -> SENDING                         policy `resend`, the same bytes
//! AMBIGUOUS -> SENT | FAILED | RETRY           a late definite reply, or an operator
//! (none) | FAILED | SUPPRESSED -> RETRY        an operator releases it
//! AMBIGUOUS | RETRY -> SUPPRESSED              an operator gives it up
//! RETRY -> SENT                                an operator found it, after a release
//! RETRY | FAILED | SUPPRESSED -> SENT          a late acceptance
//! ```
//!
//! Whatever is not listed is an error ([`Illegal`]). Every claim has a fence, and the row keeps
//! the fences that were accepted and those that are in doubt. So a claim that ends definitely does
//! not hide an earlier one that did not: such an effect is SENT or AMBIGUOUS, whatever became of
//! the later claim.
//!
//! No clock is read here: `now` is given, and only decides where the deadline of a claimant
//! without a fleet has passed.

use std::time::{Duration, SystemTime};

use crate::gate::left_out;

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
    /// The item that the mail is about; `None`: whatever the row says.
    pub item: Option<ItemRef>,
    /// The mail itself, packed, if it is small enough to be kept.
    pub kept: Option<Kept>,
    /// Nonces of claims of my own whose effect I know was never begun, and never will be. The
    /// write of such a claim may have been applied after I had given up on it.
    pub abandoned: Vec<u64>,
    /// The user's policy.
    pub policy: OnAmbiguous,
    /// Whether the record comes again to a worker until it is settled, and is not handled once only
    /// because a person asked for it.
    pub comes_again: bool,
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
    /// Nothing is left to do: SENT, or SUPPRESSED by an operator while in doubt.
    Done(State),
    /// In doubt, and to wait for an operator.
    Parked,
    /// The row stands for another item: two items have one effect key, and only one of them can be
    /// performed under it.
    Collision(ItemRef),
}

/// Decides what a claim of `current` comes to.
///
/// Unless an operator has a hand in it, at most two mails of one effect are ever accepted under
/// `resend`, and at most one under `park`.
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
        // Nothing of it was accepted, and whoever comes again means it: the engine, which does not know
        // yet whose fault the refusal was, an operator, or a later record.
        State::Retry | State::Failed | State::Suppressed => Verdict::Claim(claimed(entry, ask)),
        State::Ambiguous => ambiguous(entry, ask),
        State::Sending => sending(entry, ask, claimant),
    }
}

/// The item that the row stands for, if it is another than `item`: two items with one effect key.
///
/// A later image of one item is no other item, and neither is one that was moved to another table:
/// it keeps its key and its recipient. A row that is SUPPRESSED stands for whoever comes next, as
/// no mail was ever begun under it.
pub fn other_item<'a>(entry: &'a Entry, item: Option<&ItemRef>) -> Option<&'a ItemRef> {
    let (before, now) = (entry.item.as_ref()?, item?);
    let free = entry.state == State::Suppressed;
    (!before.is(now) && !before.may_have_moved_to(now) && !free).then_some(before)
}

/// A doubt about a claim of mine that never began is none: others gave it up before it was told.
fn ambiguous(entry: &Entry, ask: &Ask) -> Verdict {
    let mut entry = entry.clone();
    let nonce = entry.claimant.as_ref().map(|c| c.nonce);
    if nonce.is_some_and(|n| n == ask.claimant.nonce || ask.abandoned.contains(&n)) {
        entry.doubtful.retain(|fence| *fence != entry.fence);
    }
    if entry.doubtful.is_empty() || may_resend(&entry, ask) {
        Verdict::Claim(claimed(&entry, ask))
    } else {
        Verdict::Parked
    }
}

/// Once more: the same bytes where they are kept, so that whoever keeps mails apart by their content
/// sees one mail, and in any case the same Message-ID.
fn may_resend(entry: &Entry, ask: &Ask) -> bool {
    (ask.policy == OnAmbiguous::Resend || left_out!(ParkIgnored))
        && (entry.doubtful.len() < 2 || left_out!(EndlessResend))
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
        _ if left_out!(DeadClaimIsFree) => Verdict::Claim(claimed(entry, ask)),
        _ => Verdict::Doubt(entry.doubted("its claimant is gone and left no word", ask.now)),
    }
}

/// The date stays that of the first claim. The mail stays while an earlier claim is in doubt: only
/// then must it be the same.
fn claimed(before: &Entry, ask: &Ask) -> Entry {
    let mut next = before.next(ask.now).standing_for(ask.item.as_ref());
    let in_doubt = !before.doubtful.is_empty();
    let differs = match (&before.digest, &ask.digest) {
        (Some(before), Some(now)) => before != now,
        _ => false,
    };
    let repeatable = before.digest.is_some() && (before.kept.is_some() || !differs);
    let stays = in_doubt && repeatable && !left_out!(FreshDate);
    if !stays {
        next.digest.clone_from(&ask.digest);
        next.kept.clone_from(&ask.kept);
    }
    next.state = State::Sending;
    next.fence += 1;
    next.claimant = Some(ask.claimant.clone());
    next.resends = ask.comes_again && ask.policy == OnAmbiguous::Resend;
    next.first_claimed = before.first_claimed.or(Some(ask.now));
    if in_doubt && differs && !stays {
        let why = "the first mail was not kept: this one has the same Message-ID and other bytes";
        next.add(StepKind::Rewritten, Some(next.fence), why);
    }
    let claim = Step::new(ask.now, StepKind::Claimed).under(next.fence);
    next.history.add(claim.by(&ask.claimant.incarnation));
    next
}
