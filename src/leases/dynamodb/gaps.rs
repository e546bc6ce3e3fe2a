//! Gaps, and what operators do about them.

use super::DynamoDbLeases;
use crate::leases::row::{self, gap_key, lease_key};
use crate::leases::{GapRow, GapSettlement, Hold};
use crate::rows::dynamodb::{Part, Transaction, Write};

impl DynamoDbLeases {
    pub(super) async fn write_gap(
        &self,
        gap: &GapRow,
        hold: Option<&Hold>,
    ) -> anyhow::Result<Option<()>> {
        let how = self
            .formats
            .readable_or_none()
            .fill_in(row::gap_fields(gap, self.formats.writes()))
            .write(vec![row::gap_end(gap)])
            .write(row::gap_settlement(None));
        let key = self.key(&gap_key(gap));
        let Some(hold) = hold else {
            self.table.update(key, &how).await?;
            return Ok(Some(()));
        };
        let lease = self.key(&lease_key(&hold.shard));
        let parts = vec![
            Part::Demand(lease, self.formats.under(hold)),
            Part::Update(key, how),
        ];
        match self.transact(parts).await? {
            Transaction::Refused(refused) if refused.first() == Some(&true) => Ok(None),
            // A gap row of a newer format is left alone.
            Transaction::Applied | Transaction::Refused(_) => Ok(Some(())),
        }
    }

    /// Writes down that somebody dealt with a gap, as it was seen. `None`: it is not there, or it was
    /// noticed again meanwhile and its end has moved. May be repeated; the last one stands.
    pub async fn settle_gap(
        &self,
        gap: &GapRow,
        settlement: &GapSettlement,
    ) -> anyhow::Result<Option<()>> {
        let (end, seen) = row::gap_end(gap);
        let as_seen = self.formats.readable().when(end, seen);
        let how = as_seen.write(row::gap_settlement(Some(settlement)));
        let settled = self.table.update(self.key(&gap_key(gap)), &how).await?;
        Ok(matches!(settled, Write::Applied(_)).then_some(()))
    }
}
