//! Whether this worker's identity is the group's.
//!
//! Only consistent looks decide: after a change of identity an eventual one may still show the old
//! identity.

use crate::core::group::Identity;

/// What is known about the group's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// No consistent look has shown it yet.
    Nothing,
    /// It agrees with this worker's.
    Agrees,
    /// It is about to become this worker's.
    Changing,
    Differs,
}

/// What to do about the group's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compared {
    /// Nothing.
    Known,
    /// Replace it by this worker's.
    Change,
    /// It differs in this way: the worker leaves.
    Differs(String),
}

/// This worker's identity beside the group's.
#[derive(Debug, Clone)]
pub(super) struct Agreement {
    /// Whether this worker may still replace the group's identity: once in its life, so that two
    /// workers do not replace each other's in turn.
    accepts: bool,
    known: Known,
}

impl Agreement {
    pub fn new(accepts: bool) -> Self {
        Self {
            accepts,
            known: Known::Nothing,
        }
    }

    /// Whether this worker may act for the group.
    pub fn holds(&self) -> bool {
        self.known == Known::Agrees
    }

    /// A consistent look, or the bootstrap, showed the group's identity.
    pub fn compare(&mut self, mine: &Identity, group: &Identity) -> Compared {
        if matches!(self.known, Known::Changing | Known::Differs) {
            return Compared::Known;
        }
        let difference = mine.differs_from(group);
        let unnamed = group.is_empty() && !mine.is_empty();
        if unnamed || difference.is_some() && self.accepts {
            self.known = Known::Changing;
            return Compared::Change;
        }
        let Some(difference) = difference else {
            self.agree();
            return Compared::Known;
        };
        self.known = Known::Differs;
        Compared::Differs(difference)
    }

    /// The change was answered. If it was not applied, the next look shows what the identity is now.
    pub fn changed(&mut self, applied: bool) {
        self.known = Known::Nothing;
        if applied {
            self.agree();
        }
    }

    fn agree(&mut self) {
        self.known = Known::Agrees;
        self.accepts = false;
    }
}
