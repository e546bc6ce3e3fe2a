//! What can happen to an effect, and the row that follows.

use std::time::SystemTime;

use super::entry::{Decision, Entry, Resolution, State};
use super::history::{Step, StepKind};

/// What happened to a claimed effect, or what an operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The server accepted it with this reply, under the claim with this fence.
    Accepted {
        /// The claim's fence.
        fence: u64,
        /// The server's reply.
        reply: String,
    },
    /// The server refused it for good.
    Refused {
        /// The claim's fence.
        fence: u64,
        /// The server's reply.
        reply: String,
    },
    /// It was certainly not accepted this time.
    NotAccepted {
        /// The claim's fence.
        fence: u64,
        /// The server's reply, or the failure.
        reply: String,
    },
    /// No definite reply came.
    NoReply {
        /// The claim's fence.
        fence: u64,
        /// The failure.
        reply: String,
    },
    /// The server refuses its sender or recipient before any claim. Applies only to an effect that
    /// nobody is performing and that is not in doubt.
    TurnedAway {
        /// The server's reply.
        reply: String,
    },
    /// It is deliberately not sent. Applies only to an effect that nobody is performing and that is not
    /// in doubt.
    Suppressed {
        /// The reason.
        reason: String,
    },
    /// An operator decided.
    Resolved(Resolution),
}

impl Happened {
    fn name(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "an acceptance",
            Self::Refused { .. } => "a refusal",
            Self::NotAccepted { .. } => "a deferral",
            Self::NoReply { .. } => "a lost reply",
            Self::TurnedAway { .. } => "a refusal before any claim",
            Self::Suppressed { .. } => "a suppression",
            Self::Resolved(_) => "an operator's decision",
        }
    }
}

/// A step that the table of transitions does not contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{happened} does not apply to an effect that is {}", .state.map_or("unknown", State::word))]
pub struct Illegal {
    state: Option<State>,
    happened: &'static str,
}

/// The entry after this event. Repeating a report changes nothing: the entry comes back with the same
/// revision.
///
/// # Errors
///
/// [`Illegal`] if the event cannot happen in this state. The row stays as it is.
pub fn transition(
    current: Option<&Entry>,
    happened: &Happened,
    now: SystemTime,
) -> Result<Entry, Illegal> {
    let next = match happened {
        Happened::TurnedAway { reply } => unclaimed(current, State::Failed, reply, now),
        Happened::Suppressed { reason } => unclaimed(current, State::Suppressed, reason, now),
        Happened::Resolved(resolution) => resolved(current, resolution, now),
        Happened::Accepted { fence, reply } => {
            current.and_then(|entry| accepted(entry, *fence, reply, now))
        }
        Happened::Refused { fence, reply } => {
            current.and_then(|entry| not_accepted(entry, *fence, State::Failed, reply, now))
        }
        Happened::NotAccepted { fence, reply } => {
            current.and_then(|entry| not_accepted(entry, *fence, State::Retry, reply, now))
        }
        Happened::NoReply { fence, reply } => {
            current.and_then(|entry| no_reply(entry, *fence, reply, now))
        }
    };
    next.map(Entry::forget_what_is_decided).ok_or(Illegal {
        state: current.map(|entry| entry.state),
        happened: happened.name(),
    })
}

/// An acceptance is never discarded, however late it comes and whatever its fence. While another claim
/// is open, the row keeps the acceptance, which decides once that claim has ended.
fn accepted(entry: &Entry, fence: u64, reply: &str, now: SystemTime) -> Option<Entry> {
    if fence == 0 || fence > entry.fence {
        return None;
    }
    if entry.accepted.contains(&fence) {
        return Some(entry.clone());
    }
    let mut next = entry.next(now);
    next.accepted.push(fence);
    next.doubtful.retain(|doubtful| *doubtful != fence);
    if entry.state != State::Sending || fence == entry.fence {
        next.state = State::Sent;
        next.say(reply);
    }
    next.add(StepKind::Accepted, Some(fence), reply);
    next.close_doubts();
    Some(next)
}

/// The claim under `fence` was certainly not accepted. If it is the current claim, the effect becomes
/// `state`.
///
/// Once a claim is AMBIGUOUS, its record may have been finished, and nobody would look at a RETRY. So
/// the effect stays AMBIGUOUS, with one doubt less. A worker that still has the record can claim it; if
/// no worker has, an operator sees it.
fn not_accepted(
    entry: &Entry,
    fence: u64,
    state: State,
    reply: &str,
    now: SystemTime,
) -> Option<Entry> {
    let refused = state == State::Failed;
    let was_doubtful = entry.doubtful.contains(&fence);
    let is_current = fence == entry.fence;
    let state = match (entry.state, state) {
        (State::Ambiguous, State::Retry) => State::Ambiguous,
        _ => state,
    };
    match entry.state {
        _ if entry.accepted.contains(&fence) => return None,
        State::Sending if is_current => {}
        _ if was_doubtful => {}
        // A repeat of it decided.
        _ if !is_current && entry.one_effect.contains(&fence) => return Some(entry.clone()),
        // A repeated report. Also if an earlier claim's doubt or acceptance decided.
        before if is_current && (before == state || before == entry.decided_or(state)) => {
            return Some(entry.clone());
        }
        _ => return None,
    }
    let mut next = entry.next(now);
    next.doubtful.retain(|doubtful| *doubtful != fence);
    let kind = if refused {
        StepKind::Refused
    } else {
        StepKind::Deferred
    };
    next.add(kind, Some(fence), reply);
    match entry.state {
        // Another claim is open, or the outcome is decided: there is only one doubt less.
        State::Sending if !is_current => return Some(next),
        State::Sent | State::Failed | State::Retry | State::Suppressed => return Some(next),
        State::Sending | State::Ambiguous => {}
    }
    next.state = next.decided_or(if is_current { state } else { entry.state });
    next.say(reply);
    Some(next)
}

fn no_reply(entry: &Entry, fence: u64, reply: &str, now: SystemTime) -> Option<Entry> {
    let repeated = fence < entry.fence && entry.one_effect.contains(&fence);
    if repeated || entry.doubtful.contains(&fence) {
        // Others had given up on the claimant already.
        return Some(entry.clone());
    }
    if fence != entry.fence || entry.state != State::Sending {
        return None;
    }
    let mut next = entry.doubted(reply, now);
    next.say(reply);
    Some(next)
}

fn unclaimed(
    current: Option<&Entry>,
    state: State,
    reason: &str,
    now: SystemTime,
) -> Option<Entry> {
    let mut next = match current {
        None => Entry::blank(now).next(now),
        Some(entry) if entry.state == state && entry.reply.as_deref() == Some(reason) => {
            return Some(entry.clone());
        }
        Some(entry)
            if matches!(
                entry.state,
                State::Retry | State::Failed | State::Suppressed
            ) =>
        {
            entry.next(now)
        }
        Some(_) => return None,
    };
    next.state = state;
    next.say(reason);
    let kind = match state {
        State::Suppressed => StepKind::Suppressed,
        _ => StepKind::TurnedAway,
    };
    next.add(kind, None, reason);
    Some(next)
}

/// An operator's decision. If the effect is sent, or can be sent from then on, it ends all doubt.
fn resolved(current: Option<&Entry>, resolution: &Resolution, now: SystemTime) -> Option<Entry> {
    let Some(entry) = current else {
        // Nothing was ever begun.
        let released = resolution.decision == Decision::Send;
        return released.then(|| decided(Entry::blank(now).next(now), State::Retry, resolution));
    };
    let state = match (entry.state, resolution.decision) {
        (State::Retry, Decision::Send) if entry.released => return Some(entry.clone()),
        (State::Ambiguous, Decision::Sent) => State::Sent,
        (State::Retry, Decision::Sent) if entry.released => State::Sent,
        (State::Ambiguous | State::Failed | State::Suppressed | State::Retry, Decision::Send) => {
            State::Retry
        }
        (State::Ambiguous | State::Retry, Decision::Skip) => State::Suppressed,
        _ => return None,
    };
    Some(decided(entry.next(now), state, resolution))
}

fn decided(mut next: Entry, state: State, resolution: &Resolution) -> Entry {
    let Resolution { by, note, .. } = resolution;
    next.state = state;
    next.released = resolution.decision == Decision::Send;
    match resolution.decision {
        Decision::Skip => next.say(&format!("given up by {by}: {note}")),
        Decision::Sent | Decision::Send => next.doubtful.clear(),
    }
    let text = format!("{state}: {note}");
    let step = Step::new(resolution.at, StepKind::Resolved).by(by);
    next.history.add(step.saying(&text));
    next
}
