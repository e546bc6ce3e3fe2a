//! The rows of workers: their heartbeats.

use anyhow::bail;

use super::DynamoDbLeases;
use crate::stores::leases::row::{self, ROW, worker_key};
use crate::stores::leases::{Incarnation, WorkerRow};
use crate::stores::rows::dynamodb::Write;
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::number;

impl DynamoDbLeases {
    pub(super) async fn registered(&self, row: &WorkerRow) -> anyhow::Result<()> {
        let key = worker_key(&row.incarnation);
        let attributes = row::attributes(row, row::FIRST_FORMAT)?;
        let item = row::item(&self.group_table, &key, attributes);
        if let Write::Applied(_) = self.table.put(item, &RowExpression::on_none(ROW)).await? {
            return Ok(());
        }
        // Only an earlier attempt of mine can have written this incarnation's row. It counts only if
        // its beat is this one or a later one.
        match self.raised(row).await? {
            Some(()) => Ok(()),
            None => bail!(
                "the row of worker {} cannot be read or was removed",
                row.incarnation
            ),
        }
    }

    pub(super) async fn raised(&self, row: &WorkerRow) -> anyhow::Result<Option<()>> {
        let key = self.key(&worker_key(&row.incarnation));
        let raise = self
            .formats
            .readable()
            .when_below("beat", number(row.beat))
            .write(row::attributes(row, row::FIRST_FORMAT)?);
        let old = match self.table.update(key, &raise).await? {
            Write::Applied(_) => return Ok(Some(())),
            Write::Refused(old) => old,
        };
        // A row that cannot be read was changed by others: it counts as gone.
        let beat = old.and_then(|item| row::beat(&item));
        Ok(beat.filter(|beat| *beat >= row.beat).map(|_| ()))
    }

    pub(super) async fn removed(
        &self,
        incarnation: &Incarnation,
        still_at: Option<u64>,
    ) -> anyhow::Result<()> {
        let mut when = RowExpression::unless_newer(self.formats.reads());
        if let Some(beat) = still_at {
            when = when.when("beat", Some(number(beat)));
        }
        let key = self.key(&worker_key(incarnation));
        self.table.delete(key, &when).await?;
        Ok(())
    }
}
