//! The stream's own row.

use anyhow::{anyhow, bail};
use tracing::warn;

use super::DynamoDbLeases;
use crate::leases::row::{self, ROW, STREAM_ROW};
use crate::leases::{StreamRow, Unfit};
use crate::rows::dynamodb::Write;
use crate::rows::expression::Expression;

impl DynamoDbLeases {
    /// Writes the stream's row if there is none, or one that is malformed; answers with the one that
    /// stands.
    pub(super) async fn bootstrapped(&self, row: StreamRow) -> anyhow::Result<StreamRow> {
        let item = row::item(&self.stream, STREAM_ROW, row::stream_fields(&row));
        let old = match self
            .table
            .put(item.clone(), &Expression::on_none(ROW))
            .await?
        {
            Write::Applied(_) => return Ok(row),
            Write::Refused(old) => old,
        };
        let old = old.ok_or_else(|| anyhow!("the stream's row came and went: try again"))?;
        match row::stream(&old, self.formats.reads()) {
            Ok(standing) => Ok(standing),
            Err(Unfit::Newer { format }) => bail!(
                "the lease table's row for {} has format {format}, this build reads up to \
                 {}: update this worker",
                self.stream,
                self.formats.reads()
            ),
            Err(Unfit::Malformed { what }) => {
                warn!(stream = %self.stream, what, "the stream's row is malformed: it is written anew");
                // Only if nothing has changed since.
                let when = row::unchanged(&old, row::STREAM_ATTRIBUTES);
                match self.table.put(item, &when).await? {
                    Write::Applied(_) => Ok(row),
                    Write::Refused(_) => bail!("the stream's row changes just now: try again"),
                }
            }
        }
    }
}
