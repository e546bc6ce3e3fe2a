//! `aftercommit tables`: creates the tables that the worker needs.

use crate::stores::tables::dynamodb::{
    Created, create_dead_letter_table, create_lease_table, create_ledger_table,
    create_orders_table, create_suppression_table,
};
use clap::{Args, Subcommand};

use crate::cli::args::tables::TableNames;
use crate::cli::fault::Fault;
use crate::cli::host::aws;
use crate::cli::render::out::print_all;

/// The commands for tables.
#[derive(Debug, Subcommand)]
pub enum TablesCommand {
    /// Create the lease table, the ledger and the dead letters' table, with on-demand capacity and
    /// point-in-time recovery; existing tables are kept
    Create(CreateArgs),
}

/// Arguments of `tables create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    names: TableNames,
    /// Also create the table of addresses that must not be mailed, under this name
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_SUPPRESSION_TABLE")]
    suppression_table: Option<String>,
    /// Also create a sample table of orders with a stream, for development
    #[arg(long, env = "AFTERCOMMIT_WITH_ORDERS")]
    with_orders: bool,
    /// Name of the sample table
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_TABLE",
        default_value = "orders"
    )]
    table: String,
}

/// Creates the tables and prints which are new.
pub async fn create(args: &CreateArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let client = &clients.dynamodb;
    let names = &args.names;
    report(
        &names.lease.lease_table,
        create_lease_table(client, &names.lease.lease_table).await?,
    )?;
    report(
        &names.ledger.ledger_table,
        create_ledger_table(client, &names.ledger.ledger_table).await?,
    )?;
    let letters = &names.letters.dead_letter_table;
    report(letters, create_dead_letter_table(client, letters).await?)?;
    if let Some(table) = &args.suppression_table {
        report(table, create_suppression_table(client, table).await?)?;
    }
    if args.with_orders {
        report(&args.table, create_orders_table(client, &args.table).await?)?;
    }
    Ok(())
}

fn report(table: &str, outcome: Created) -> anyhow::Result<()> {
    let outcome = match outcome {
        Created::Created => "created",
        Created::Existed => "exists",
    };
    print_all(&format!("{table}: {outcome}\n"))
}
