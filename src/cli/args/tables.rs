//! Settings that several commands share: groups and tables.

use crate::stores::tables::dynamodb::table_arn;
use crate::{Group, GroupTable};
use clap::Args;

use crate::cli::fault::Fault;
use crate::cli::host::aws::Clients;

/// The group.
#[derive(Debug, Args)]
pub struct GroupArg {
    /// Name of this application on a table's stream; groups on one table share nothing
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_GROUP", default_value_t)]
    pub group: Group,
}

/// The tables that are followed.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Table to follow: a name or an ARN. Can be given several times; order ids must then be unique across
    /// all of them, because there is one effect per id
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        value_delimiter = ',',
        required_unless_present = "stream_arn"
    )]
    pub table: Vec<String>,
    /// One stream of a table, without its later streams, in place of --table; can be given several
    /// times
    #[arg(
        long,
        value_name = "ARN",
        env = "AFTERCOMMIT_STREAM_ARN",
        value_delimiter = ',',
        conflicts_with = "table"
    )]
    pub stream_arn: Vec<String>,
}

impl StreamArgs {
    /// The group on each of the tables.
    pub async fn places(&self, clients: &Clients, group: &Group) -> Result<Vec<GroupTable>, Fault> {
        let of = |arn: &str| GroupTable::new(group.clone(), arn);
        for named in self.stream_arn.iter().chain(&self.table) {
            clients.must_reach(named)?;
        }
        let mut places: Vec<_> = self.stream_arn.iter().map(|arn| of(arn)).collect();
        for table in &self.table {
            let arn = table_arn(&clients.dynamodb, table).await;
            places.push(of(&arn.map_err(Fault::setting)?));
        }
        Ok(places)
    }
}

/// The name of the lease table, which the workers share.
#[derive(Debug, Args)]
pub struct LeaseName {
    /// Table that holds shard leases and checkpoints
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_LEASE_TABLE",
        default_value = "aftercommit-leases"
    )]
    pub lease_table: String,
}

/// The names of the worker's tables.
#[derive(Debug, Args)]
pub struct TableNames {
    #[command(flatten)]
    pub lease: LeaseName,
    #[command(flatten)]
    pub ledger: LedgerName,
    #[command(flatten)]
    pub letters: LetterTable,
}

/// The name of the dead letters' table.
#[derive(Debug, Args)]
pub struct LetterTable {
    /// Table for records that failed (dead letters)
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_DEAD_LETTER_TABLE",
        default_value = "aftercommit-dead-letters"
    )]
    pub dead_letter_table: String,
}

/// The name of the ledger's table.
#[derive(Debug, Args)]
pub struct LedgerName {
    /// Table that records which effects took place, and the settings of each group
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_LEDGER_TABLE",
        default_value = "aftercommit-ledger"
    )]
    pub ledger_table: String,
}
