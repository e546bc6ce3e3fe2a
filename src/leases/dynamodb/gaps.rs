//! What operators do about gaps.

use super::DynamoDbLeases;
use crate::leases::row::{self, gap_key};
use crate::leases::{GapRow, GapSettlement};
use crate::rows::dynamodb::Write;

impl DynamoDbLeases {
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
