//! Gaps, and what operators do about them.

use serde_dynamo::AttributeValue;

use super::DynamoDbLeases;
use crate::core::record::SequenceNumber;
use crate::stores::leases::row::{self, gap_key, lease_key};
use crate::stores::leases::{GapResolution, GapRow, Hold};
use crate::stores::rows::dynamodb::Write;
use crate::stores::rows::transaction::{Part, Transaction};

/// The result of recording a gap.
enum GapWrite {
    Written,
    /// The lease belongs to another worker.
    LeaseLost,
    /// The gap's row differs from the one that was seen, or has a newer format.
    RowRefused,
}

impl DynamoDbLeases {
    pub(super) async fn write_gap(
        &self,
        gap: &GapRow,
        hold: Option<&Hold>,
    ) -> anyhow::Result<Option<()>> {
        let mut before = None;
        loop {
            let (ended, seen) = self.end_of(gap).await?;
            // A gap row of a newer format is left alone.
            if before.as_ref() == Some(&seen) {
                return Ok(Some(()));
            }
            match self.try_gap(&ended, seen.clone(), hold).await? {
                GapWrite::Written => return Ok(Some(())),
                GapWrite::LeaseLost => return Ok(None),
                GapWrite::RowRefused => before = Some(seen),
            }
        }
    }

    /// Records a gap if its present end is still the one that was seen. A gap without an end is
    /// recorded in any case.
    async fn try_gap(
        &self,
        gap: &GapRow,
        seen: Option<AttributeValue>,
        hold: Option<&Hold>,
    ) -> anyhow::Result<GapWrite> {
        let mut first = row::attributes(gap, self.formats.writes())?;
        first.retain(|name, _| name != "first_after" && name != "resolved");
        let mut how = self.formats.readable_or_none();
        if gap.first_after.is_some() {
            how = how.when("first_after", seen);
        }
        let how = how
            .fill_in(first)
            .write([row::gap_end(gap), row::gap_resolution(None)?]);
        let key = self.key(&gap_key(gap));
        let Some(hold) = hold else {
            return Ok(match self.table.update(key, &how).await? {
                Write::Applied(_) => GapWrite::Written,
                Write::Refused(_) => GapWrite::RowRefused,
            });
        };
        let lease = self.key(&lease_key(&hold.shard));
        let fence = Part::Demand(lease, self.formats.under(hold));
        let tried = self
            .table
            .transact(vec![fence, Part::Update(key, how)])
            .await?;
        Ok(match tried {
            Transaction::Applied => GapWrite::Written,
            Transaction::Refused(refused) if refused.first() == Some(&true) => GapWrite::LeaseLost,
            Transaction::Refused(_) => GapWrite::RowRefused,
        })
    }

    /// The gap with its new end, and its present end. A late write must not move back an end that was
    /// found after it.
    async fn end_of(&self, gap: &GapRow) -> anyhow::Result<(GapRow, Option<AttributeValue>)> {
        let mut gap = gap.clone();
        if gap.first_after.is_none() {
            return Ok((gap, None));
        }
        let standing = self.table.get(self.key(&gap_key(&gap))).await?;
        let seen = standing.and_then(|item| item.get("first_after").cloned());
        if let Some(AttributeValue::S(digits)) = &seen {
            gap.first_after = gap
                .first_after
                .max(SequenceNumber::parse(digits.as_str()).ok());
        }
        Ok((gap, seen))
    }

    /// Records that somebody dealt with a gap, as it was seen. `None`: the gap is gone, or it was found
    /// again meanwhile and its end has moved. Can be repeated; the last one counts.
    pub async fn resolve_gap(
        &self,
        gap: &GapRow,
        resolution: &GapResolution,
    ) -> anyhow::Result<Option<()>> {
        let (end, seen) = row::gap_end(gap);
        let as_seen = self.formats.readable().when(end, seen);
        let how = as_seen.write([row::gap_resolution(Some(resolution))?]);
        let written = self.table.update(self.key(&gap_key(gap)), &how).await?;
        Ok(matches!(written, Write::Applied(_)).then_some(()))
    }
}
