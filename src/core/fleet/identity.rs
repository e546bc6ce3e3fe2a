//! Whether this worker's identity is the group's.
//!
//! Only consistent looks decide: after a change of identity an eventual one may still show the old
//! identity.

use super::events::{Command, Note, Outbox};
use super::rules::FleetRules;
use crate::core::group::Identity;

/// What is known about the group's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdentityState {
    /// No consistent look has shown it yet.
    Nothing,
    /// It agrees with this worker's.
    Agrees,
    /// It is about to become this worker's.
    Changing,
    Differs,
}

/// The group's identity differs from this worker's, which has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Differs;

/// This worker's identity beside the group's.
#[derive(Debug, Clone)]
pub(super) struct Agreement {
    /// Whether this worker may still replace the group's identity: once in its life, so that two
    /// workers do not replace each other's in turn.
    accepts: bool,
    mine: Identity,
    known: IdentityState,
}

impl Agreement {
    pub fn new(rules: &FleetRules) -> Self {
        Self {
            accepts: rules.accepts_new_identity,
            mine: rules.identity.clone(),
            known: IdentityState::Nothing,
        }
    }

    /// Whether this worker may act for the group.
    pub fn holds(&self) -> bool {
        self.known == IdentityState::Agrees
    }

    /// A consistent look, or the bootstrap, showed the group's identity: asks to replace it if this
    /// worker may. The first difference that has to stay is reported.
    pub fn compare(&mut self, group: &Identity, out: &mut Outbox) -> Result<(), Differs> {
        if matches!(self.known, IdentityState::Changing | IdentityState::Differs) {
            return Ok(());
        }
        let mine = &self.mine;
        let difference = mine.differs_from(group);
        let unnamed = group.is_empty() && !mine.is_empty();
        if unnamed || difference.is_some() && self.accepts {
            self.known = IdentityState::Changing;
            out.push(Command::ChangeIdentity {
                seen: group.clone(),
                new: mine.clone(),
            });
            return Ok(());
        }
        let Some(difference) = difference else {
            self.agree();
            return Ok(());
        };
        self.known = IdentityState::Differs;
        out.note(Note::IdentityDiffers(difference));
        Err(Differs)
    }

    /// The change was answered. If it was not applied, the next look shows what the identity is now.
    pub fn changed(&mut self, applied: bool) {
        self.known = IdentityState::Nothing;
        if applied {
            self.agree();
        }
    }

    fn agree(&mut self) {
        self.known = IdentityState::Agrees;
        self.accepts = false;
    }
}
