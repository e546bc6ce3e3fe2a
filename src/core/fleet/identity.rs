//! Whether this worker's effects are among the group's, with the same identities.
//!
//! Only consistent looks decide: after a change an eventual one may still show the old effects.

use std::time::{Duration, SystemTime};

use super::events::{Command, Note, Outbox};
use super::repair::to_the_millisecond;
use super::rules::FleetRules;
use crate::core::effects::GroupEffects;

/// What is known about the group's effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdentityState {
    /// No consistent look has shown them yet.
    Nothing,
    /// They include this worker's.
    Agrees,
    /// This worker's are about to be added, or to replace the identities.
    Changing,
    Differs,
}

/// An identity of the group differs from this worker's, which has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Differs;

/// An effect that joins a running group begins after so many lease durations: by then every live worker
/// has looked at the group's row, and keeps a position for it.
const JOINS_AFTER: u32 = 6;

/// This worker's effects beside the group's.
#[derive(Debug, Clone)]
pub(super) struct Agreement {
    /// Whether this worker may still replace identities: once in its life, so that two workers do not
    /// replace each other's in turn.
    accepts: bool,
    mine: GroupEffects,
    joins_after: Duration,
    known: IdentityState,
    /// The group's effects, as the shards' tasks know them.
    shared: GroupEffects,
}

impl Agreement {
    pub fn new(rules: &FleetRules) -> Self {
        Self {
            accepts: rules.accepts_new_identity,
            mine: rules.effects.clone(),
            joins_after: rules.lease_duration * JOINS_AFTER,
            known: IdentityState::Nothing,
            shared: GroupEffects::default(),
        }
    }

    /// Whether this worker may act for the group.
    pub fn holds(&self) -> bool {
        self.known == IdentityState::Agrees
    }

    /// A consistent look, or the bootstrap, showed the group's effects at this time by the service's
    /// clock: asks to add this worker's, and to replace identities if this worker may. The first
    /// difference that has to stay is reported.
    pub fn compare(
        &mut self,
        group: &GroupEffects,
        now: SystemTime,
        out: &mut Outbox,
    ) -> Result<(), Differs> {
        if self.shared != *group {
            self.shared.clone_from(group);
            out.push(Command::ShareEffects(group.clone()));
        }
        if matches!(self.known, IdentityState::Changing | IdentityState::Differs) {
            return Ok(());
        }
        let mine = &self.mine;
        let difference = mine.differs_from(group);
        let joins = difference.is_none() && !mine.are_in(group);
        let accepts = self.accepts && mine.may_replace(group);
        if joins || difference.is_some() && accepts {
            self.known = IdentityState::Changing;
            let since = to_the_millisecond(now + self.joins_after);
            out.push(Command::ChangeEffects {
                seen: group.clone(),
                new: mine.joined_to(group, since),
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

    /// The change was answered. If it was not applied, the next look shows what they are now.
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
