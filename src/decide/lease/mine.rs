//! What one worker knows of one shard.

use std::time::Duration;

use super::{Epoch, Incarnation, Row, Sight};
use crate::gate::left_out;

/// What I know of a shard that concerns me.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mine {
    pub highest: Epoch,
    pub given_up: Option<Epoch>,
    /// What I began to give up last, and when I had gained it.
    pub given: Option<(Epoch, Duration)>,
    pub owns: Option<(Epoch, Duration)>,
    pub giving: bool,
    /// When its row was last there.
    pub seen: Duration,
}

impl Mine {
    /// Whether a look proves that what I hold, or am giving up, is not mine any more. A look that began before I
    /// gained it proves nothing, and only a consistent one proves that a row is gone.
    pub fn lost(
        held: Option<(Epoch, Duration)>,
        me: &Incarnation,
        row: Option<&Row>,
        sight: &Sight,
    ) -> bool {
        let Some((epoch, since)) = held else {
            return false;
        };
        if sight.began < since {
            return false;
        }
        match row {
            None => sight.consistent,
            Some(row) if row.owner.as_ref() == Some(me) && row.epoch == epoch => row.ended,
            Some(row) => sight.consistent || row.epoch > epoch,
        }
    }

    /// Whether a row that names me makes the shard mine.
    pub fn adoptable(&self, me: &Incarnation, row: Option<&Row>, consistent: bool) -> bool {
        if left_out!(StaleAdopt) {
            return row.is_some_and(|row| row.owner.as_ref() == Some(me) && !row.ended);
        }
        row.is_some_and(|row| {
            row.owner.as_ref() == Some(me)
                && !row.ended
                && !self.giving
                && self.given_up.is_none_or(|given| row.epoch > given)
                && (row.epoch > self.highest || consistent && row.epoch == self.highest)
        })
    }
}
