//! The rows of a group in the lease table, for commands that read and change them.

use clap::Args;

use crate::GroupTable;
use crate::cli::args::tables::{GroupArg, LeaseName, StreamArgs};
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, must_exist};
use crate::stores::leases::dynamodb::DynamoDbLeases;

/// The group whose rows are meant, and its tables.
#[derive(Debug, Args)]
pub struct GroupRowsArgs {
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    group: GroupArg,
    #[command(flatten)]
    name: LeaseName,
}

impl GroupRowsArgs {
    /// The group's rows on each of its tables.
    pub async fn open(&self) -> Result<Vec<(GroupTable, DynamoDbLeases)>, Fault> {
        let clients = aws::clients(None).await.map_err(Fault::Setting)?;
        let table = &self.name.lease_table;
        must_exist(&clients, table).await?;
        let places = self.streams.places(&clients, &self.group.group).await?;
        let rows = |at: GroupTable| {
            let leases = DynamoDbLeases::new(clients.dynamodb.clone(), table, &at);
            (at, leases)
        };
        Ok(places.into_iter().map(rows).collect())
    }
}
