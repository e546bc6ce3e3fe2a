//! Whether this worker's identity is the group's.
//!
//! Only consistent looks decide: after a change of identity an eventual one may still show the old
//! identity.

use tracing::{info, warn};

use super::complain;
use super::fleet::Fleet;
use crate::group::Identity;
use crate::handler::RecordHandler;
use crate::leases::{GroupRow, LeaseStore};
use crate::source::StreamSource;

/// This worker's settings would perform the group's effects under other keys, so it does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this worker's settings are not those of group {group} ({difference}): use the group's settings, \
     or another group; to change them for the whole group, start one worker with \
     --accept-new-identity"
)]
pub struct IdentityDiffers {
    /// The group.
    pub group: String,
    /// What differs, in words.
    pub difference: String,
}

/// What is known of the group's identity.
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

/// This worker's identity beside the group's.
pub(super) struct Agreement {
    mine: Identity,
    /// Whether this worker may still replace the group's identity: once in its life, so that two
    /// workers cannot replace each other's in turn.
    accepts: bool,
    known: Known,
}

impl Agreement {
    pub fn new(mine: Identity, accepts: bool) -> Self {
        Self {
            mine,
            accepts,
            known: Known::Nothing,
        }
    }

    /// Whether this worker may act for the group.
    pub fn holds(&self) -> bool {
        self.known == Known::Agrees
    }
}

impl<S: StreamSource, L: LeaseStore, H: RecordHandler> Fleet<S, L, H> {
    /// A consistent look, or the bootstrap, showed the group's row.
    pub(super) fn compare(&mut self, group: &GroupRow) {
        let agreement = &mut self.agreement;
        if matches!(agreement.known, Known::Changing | Known::Differs) {
            return;
        }
        let mine = &agreement.mine;
        let difference = mine.differs_from(&group.identity);
        let unnamed = group.identity.is_empty() && !mine.is_empty();
        if unnamed || difference.is_some() && agreement.accepts {
            agreement.known = Known::Changing;
            let change = self
                .engine
                .change_identity(group.identity.clone(), mine.clone());
            self.calls.push(change);
            return;
        }
        let Some(difference) = difference else {
            agreement.known = Known::Agrees;
            agreement.accepts = false;
            return;
        };
        agreement.known = Known::Differs;
        let differs = IdentityDiffers {
            group: self.engine.at.group().to_string(),
            difference,
        };
        warn!(reason = %differs, "leaving the group");
        self.refused = Some(differs);
        if self.leaving.is_none() {
            self.leave();
        }
    }

    pub(super) fn identity_changed(&mut self, result: anyhow::Result<Option<()>>) {
        // The next look tells what the group's identity is now.
        self.agreement.known = Known::Nothing;
        match result {
            Ok(Some(())) => {
                info!(group = %self.engine.at.group(), "the group has this worker's identity now");
                self.agreement.known = Known::Agrees;
                self.agreement.accepts = false;
            }
            Ok(None) => {}
            Err(error) => complain("changing the group's identity", &error),
        }
        self.look_now();
    }
}
