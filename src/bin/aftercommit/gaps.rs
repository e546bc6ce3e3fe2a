//! `aftercommit gaps`: what left the stream before it was read, for operators.

use aftercommit::leases::dynamodb::DynamoDbLeases;
use aftercommit::leases::{Consistency, GapRow, GapSettlement, LeaseStore as _};
use aftercommit::status::report::Gap;
use aftercommit::{Clock, GroupTable};
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use crate::args::{GroupArg, LeaseName, StreamArgs};
use crate::aws::{self, must_exist};
use crate::fault::Fault;
use crate::ledger::user;
use crate::out::print_all;
use crate::status_told::gap_line;
use crate::told::plain;

pub const EXAMPLES: &str = "\
Examples:
  # What was lost, and when; nobody has dealt with it yet
  aftercommit gaps list --table orders

  # What became of an order of that time
  aftercommit explain 1042 --table orders

  # All of them are dealt with: `status` is well again, and the row says who found what
  aftercommit gaps settle --table orders --shard shardId-0001 \\
      --reason \"12 orders of 09:00 to 09:40, mailed by hand\"

A gap that is noticed again, as more was lost, is open again.

Exit codes: 0 done, 1 no such gap, 2 a setting is wrong.";

/// What can be done about gaps.
#[derive(Debug, Subcommand)]
pub enum GapsCommand {
    /// List those that nobody has dealt with
    List(ListArgs),
    /// Say that they are dealt with
    Settle(SettleArgs),
}

/// Whose gaps.
#[derive(Debug, Args)]
struct Where {
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    group: GroupArg,
    #[command(flatten)]
    name: LeaseName,
}

/// What `gaps list` is told.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    of: Where,
    /// Also those that are dealt with
    #[arg(long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What `gaps settle` is told.
#[derive(Debug, Args)]
pub struct SettleArgs {
    #[command(flatten)]
    of: Where,
    /// The shard that lost records; may be given several times
    #[arg(long, value_name = "SHARD", required_unless_present = "all")]
    shard: Vec<String>,
    /// All gaps
    #[arg(long, conflicts_with = "shard")]
    all: bool,
    /// What became of what was lost; it stands on the gap's row for good
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who says so; without it the user who is logged in
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_BY")]
    by: Option<String>,
}

/// Does what was asked.
pub async fn gaps(command: &GapsCommand) -> Result<(), Fault> {
    match command {
        GapsCommand::List(args) => list(args).await,
        GapsCommand::Settle(args) => settle(args).await,
    }
}

/// The rows of the group on each table.
async fn open(of: &Where) -> Result<Vec<DynamoDbLeases>, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let table = &of.name.lease_table;
    must_exist(&clients, table).await?;
    let places = of.streams.places(&clients, &of.group.group).await?;
    let rows = |at: &GroupTable| DynamoDbLeases::new(clients.dynamodb.clone(), table, at);
    Ok(places.iter().map(rows).collect())
}

async fn list(args: &ListArgs) -> Result<(), Fault> {
    let mut lines = String::new();
    for rows in open(&args.of).await? {
        let mut gaps = rows.look(Consistency::Strong).await?.gaps;
        gaps.retain(|gap| args.all || gap.settled.is_none());
        gaps.sort_by_key(|gap| gap.detected);
        for gap in gaps.iter().map(Gap::from) {
            lines += &if args.json {
                serde_json::to_string(&gap).context("a gap cannot be written as JSON")? + "\n"
            } else {
                gap_line(&gap) + "\n"
            };
        }
    }
    print_all(&lines)?;
    Ok(())
}

async fn settle(args: &SettleArgs) -> Result<(), Fault> {
    let reason = args.reason.trim();
    if reason.is_empty() {
        return Err(Fault::wrong(
            "--reason is empty: say what became of what was lost",
        ));
    }
    let settlement = GapSettlement {
        by: args.by.clone().unwrap_or_else(user),
        at: Clock::system().now(),
        reason: reason.to_owned(),
    };
    let wanted = |gap: &GapRow| args.all || args.shard.iter().any(|one| one == gap.shard.as_str());
    let mut settled = 0;
    for rows in open(&args.of).await? {
        let mut gaps = rows.look(Consistency::Strong).await?.gaps;
        gaps.retain(|gap| gap.settled.is_none() && wanted(gap));
        for gap in &gaps {
            rows.settle_gap(gap, &settlement).await?.ok_or_else(|| {
                let shard = &gap.shard;
                anyhow!("the gap of shard {shard} was noticed again just now: list it once more")
            })?;
            print_all(&format!("{}: settled\n", plain(gap.shard.as_str())))?;
            settled += 1;
        }
    }
    if settled == 0 {
        return Err(Fault::Work(anyhow!(
            "there is no such gap: see `aftercommit gaps list --all`"
        )));
    }
    Ok(())
}
