//! The group's own row, and the rows of the table's streams.

use anyhow::{anyhow, bail};
use tracing::warn;

use super::DynamoDbLeases;
use crate::core::effects::GroupEffects;
use crate::stores::leases::row::{self, GROUP_ROW, ROW};
use crate::stores::leases::{GroupRow, StreamRow, Unfit};
use crate::stores::rows::dynamodb::Write;
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::typed::to_map;

impl DynamoDbLeases {
    /// Writes the group's row if it is missing or malformed. Returns the row in the table.
    pub(super) async fn bootstrapped(&self, row: GroupRow) -> anyhow::Result<GroupRow> {
        let attributes = row::attributes(&row, row::FIRST_FORMAT)?;
        let item = row::item(&self.group_table, GROUP_ROW, attributes.clone());
        let old = match self
            .table
            .put(item.clone(), &RowExpression::on_none(ROW))
            .await?
        {
            Write::Applied(_) => return Ok(row),
            Write::Refused(old) => old,
        };
        let old =
            old.ok_or_else(|| anyhow!("the group's row appeared and disappeared: try again"))?;
        match row::group(old.clone(), self.formats.reads()) {
            Ok(standing) => Ok(standing),
            Err(Unfit::Newer { format }) => bail!(
                "the lease table's row for {} has format {format}, this build reads up to \
                 {}: update this worker",
                self.group_table,
                self.formats.reads()
            ),
            Err(Unfit::Malformed { what }) => {
                warn!(group_table = %self.group_table, what, "the group's row is malformed and is rewritten");
                // Only if nothing has changed since.
                let when = row::unchanged(&old, &attributes);
                match self.table.put(item, &when).await? {
                    Write::Applied(_) => Ok(row),
                    Write::Refused(_) => {
                        bail!("another process is changing the group's row: try again")
                    }
                }
            }
        }
    }

    /// Replaces the group's effects if they are still those that were seen. A repeat recognises its own
    /// write.
    pub(super) async fn effects_changed(
        &self,
        seen: &GroupEffects,
        new: &GroupEffects,
    ) -> anyhow::Result<Option<()>> {
        let of = |effects: &GroupEffects| to_map(effects).map(Some);
        let unchanged = self.formats.readable().when("effects", of(seen)?);
        let change = unchanged.write([("effects", of(new)?)]);
        let old = match self.table.update(self.key(GROUP_ROW), &change).await? {
            Write::Applied(_) => return Ok(Some(())),
            Write::Refused(old) => old,
        };
        let row = old.and_then(|old| row::group(old, self.formats.reads()).ok());
        Ok(row.filter(|row| row.effects == *new).map(|_| ()))
    }

    /// Writes a stream's row. Its stage is two attributes that are only ever added, so that it never
    /// falls.
    pub(super) async fn stream_noted(&self, row: &StreamRow) -> anyhow::Result<()> {
        let mut attributes = row::attributes(row, row::FIRST_FORMAT)?;
        attributes.retain(|_, value| value.is_some());
        let how = self.formats.readable_or_none().write(attributes);
        let key = self.key(&row::stream_key(&row.label));
        self.table.update(key, &how).await?;
        Ok(())
    }
}
