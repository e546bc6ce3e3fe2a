//! The conditions under which leases are written.

use super::format::Formats;
use super::row;
use super::{Hold, LeaseRow, Take};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::{number, text};
use serde_dynamo::AttributeValue;

impl Formats {
    /// A row that exists and that this build may write.
    pub fn readable(&self) -> RowExpression {
        RowExpression::on_readable(self.reads())
    }

    pub fn readable_or_none(&self) -> RowExpression {
        RowExpression::on_readable_or_none(self.reads())
    }

    /// The fence of a hold: I am still the owner, in this epoch.
    pub fn under(&self, hold: &Hold) -> RowExpression {
        self.readable()
            .when("owner", Some(text(hold.owner.as_str())))
            .when("epoch", Some(number(hold.epoch)))
    }

    /// The lease's part of a take.
    pub fn taking(&self, take: &Take) -> RowExpression {
        let from = take.from.as_ref().map(|(owner, _)| text(owner.as_str()));
        self.readable()
            .when("owner", from)
            .when("epoch", Some(number(take.seen_epoch)))
            .unless("checkpoint", text(row::END))
            .write(vec![
                row::owner(Some(&take.owner)),
                ("epoch", Some(number(take.epoch))),
            ])
    }
}

/// A worker that is not leaving, and that reads rows of this format.
pub(super) fn stays_and_reads(format: u32) -> RowExpression {
    let stays = RowExpression::default().when("draining", Some(AttributeValue::Bool(false)));
    match format {
        // A worker whose row does not say what it reads, reads this format.
        ..=row::FIRST_FORMAT => stays,
        newer => stays.when_at_least("reads", number(newer)),
    }
}

/// Whether a lease shows that this take was applied.
pub(super) fn is_taken(lease: &LeaseRow, take: &Take) -> bool {
    lease.owner.as_ref() == Some(&take.owner) && lease.epoch == take.epoch
}
