//! What happened to an effect, in order. It explains later why the effect took place, or did not.

use std::time::SystemTime;

/// The longest text of a step, in bytes.
const TEXT_BYTES: usize = 300;
/// The longest name of a claimant or an operator, in bytes.
const BY_BYTES: usize = 100;
/// How many of the first steps are always kept.
const FIRST: usize = 10;
/// How many steps are kept: the first and the last ones. A step takes less than 500 bytes, so a row
/// stays far below the 400 KB limit of an item.
const MOST: usize = 50;

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// A worker claimed the effect.
    Claimed,
    /// It was accepted.
    Accepted,
    /// It was refused for good.
    Refused,
    /// It was certainly not accepted, and may be tried again.
    Deferred,
    /// It is unknown whether it was accepted.
    Doubted,
    /// It was refused before any claim.
    TurnedAway,
    /// The effect was deliberately not performed.
    Suppressed,
    /// An operator decided.
    Resolved,
    /// What is in doubt could not be repeated byte for byte. Another effect with the same key took its
    /// place.
    Rewritten,
    /// From here on the row is about another item.
    Moved,
    /// The provider recognised a repeat, so that nothing is in doubt any more.
    Closed,
}

impl StepKind {
    const ALL: [Self; 11] = [
        Self::Claimed,
        Self::Accepted,
        Self::Refused,
        Self::Deferred,
        Self::Doubted,
        Self::TurnedAway,
        Self::Suppressed,
        Self::Resolved,
        Self::Rewritten,
        Self::Moved,
        Self::Closed,
    ];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claimed => "CLAIMED",
            Self::Accepted => "ACCEPTED",
            Self::Refused => "REFUSED",
            Self::Deferred => "DEFERRED",
            Self::Doubted => "DOUBTED",
            Self::TurnedAway => "TURNED_AWAY",
            Self::Suppressed => "SUPPRESSED",
            Self::Resolved => "RESOLVED",
            Self::Rewritten => "REWRITTEN",
            Self::Moved => "MOVED",
            Self::Closed => "CLOSED",
        }
    }

    /// Parses the word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A step in the history of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, by the clock of the process that recorded it.
    pub at: SystemTime,
    /// What happened.
    pub kind: StepKind,
    /// The claim's fence, if it is about a claim.
    pub fence: Option<u64>,
    /// The claimant's incarnation, or the operator.
    pub by: Option<String>,
    /// The other side's reply, or the reason.
    pub text: Option<String>,
}

impl Step {
    /// A step without details.
    pub fn new(at: SystemTime, kind: StepKind) -> Self {
        Self {
            at,
            kind,
            fence: None,
            by: None,
            text: None,
        }
    }

    /// The same, of the claim with this fence.
    #[must_use]
    pub fn under(self, fence: u64) -> Self {
        let fence = Some(fence);
        Self { fence, ..self }
    }

    /// The same, by this worker or operator.
    #[must_use]
    pub fn by(self, who: &str) -> Self {
        let by = Some(cut(who, BY_BYTES));
        Self { by, ..self }
    }

    /// The same, with this text, which is cut if it is long.
    #[must_use]
    pub fn saying(self, text: &str) -> Self {
        let text = Some(cut(text, TEXT_BYTES));
        Self { text, ..self }
    }
}

/// The steps of one effect, oldest first. If there were many, only the first and the last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    steps: Vec<Step>,
    left_out: u64,
}

impl History {
    /// The history that a row holds.
    pub fn from_row(steps: Vec<Step>, left_out: u64) -> Self {
        Self { steps, left_out }
    }

    /// The kept steps, oldest first.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many steps in the middle were not kept.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The index in [`History::steps`] at which steps are missing, or `None` if all are kept.
    pub fn missing_after(&self) -> Option<usize> {
        (self.left_out > 0).then_some(FIRST)
    }

    /// Adds the newest step.
    pub fn add(&mut self, step: Step) {
        self.steps.push(step);
        if self.steps.len() > MOST {
            self.steps.remove(FIRST);
            self.left_out += 1;
        }
    }
}

/// The first bytes of a text, cut at a character boundary.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let end = text.floor_char_boundary(bytes);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_long_history_keeps_its_first_and_its_last_steps() {
        let mut history = History::default();
        for fence in 0..200 {
            history.add(Step::new(SystemTime::UNIX_EPOCH, StepKind::Claimed).under(fence));
        }
        let fences: Vec<_> = history
            .steps()
            .iter()
            .filter_map(|step| step.fence)
            .collect();
        assert_eq!((fences.len(), history.left_out()), (MOST, 150));
        assert_eq!(fences[..FIRST], (0..10).collect::<Vec<_>>());
        assert_eq!(fences[FIRST..], (160..200).collect::<Vec<_>>());
        assert_eq!(history.missing_after(), Some(FIRST));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = "ü".repeat(200_000);
        let step = Step::new(SystemTime::UNIX_EPOCH, StepKind::Refused).saying(&format!("x{long}"));
        let text = step.text.unwrap();
        assert!(text.len() < TEXT_BYTES && text.ends_with('ü'));
    }

    #[test]
    fn every_word_is_read_back() {
        for kind in StepKind::ALL {
            assert_eq!(StepKind::from_word(kind.word()), Some(kind));
        }
    }
}
