//! `aftercommit gaps`: lists and resolves gaps, the records that left the stream before they were read.

use crate::Clock;
use crate::monitor::stream::Gap;
use crate::stores::leases::{Consistency, GapResolution, GapRow, LeaseStore as _};
use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::cli::args::group_rows::GroupRowsArgs;
use crate::cli::args::note::{ByArgs, note};
use crate::cli::fault::Fault;
use crate::cli::render;
use crate::cli::render::out::{json_line, plain, print_all};

pub const EXAMPLES: &str = "\
Examples:
  # List what was lost, and when
  aftercommit gaps list --table orders

  # Find out about an order of that time, and send its email if it was not sent
  aftercommit explain 1042 --table orders
  aftercommit send 1042 --table orders --mail-from ... --smtp-url ...

  # Every order of that time is accounted for: resolve the gap
  aftercommit gaps resolve --table orders --shard shardId-0001 \\
      --note \"12 orders of 09:00 to 09:40, mailed by hand\"

A resolved gap opens again if more records of its shard are lost.

Exit codes: 0 done, 1 no such gap, 2 a setting is wrong.";

/// The commands for gaps.
#[derive(Debug, Subcommand)]
pub enum GapsCommand {
    /// List the gaps that are not resolved
    List(GapsListArgs),
    /// Record what happened to the lost orders, so that `status` stops reporting the gap
    Resolve(GapsResolveArgs),
}

/// Arguments of `gaps list`.
#[derive(Debug, Args)]
pub struct GapsListArgs {
    #[command(flatten)]
    of: GroupRowsArgs,
    /// Also list resolved gaps
    #[arg(long)]
    all: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Arguments of `gaps resolve`.
#[derive(Debug, Args)]
pub struct GapsResolveArgs {
    #[command(flatten)]
    of: GroupRowsArgs,
    /// Shard that lost records, with or without its stream's label; can be given several times
    #[arg(long, value_name = "SHARD", required_unless_present = "all")]
    shard: Vec<String>,
    /// All gaps
    #[arg(long, conflicts_with = "shard")]
    all: bool,
    /// What happened to the lost records; kept on the gap's row
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: String,
    #[command(flatten)]
    by: ByArgs,
}

impl GapsResolveArgs {
    fn wants(&self, gap: &GapRow) -> bool {
        let (whole, short) = (gap.shard.as_str(), gap.shard.id());
        self.all || self.shard.iter().any(|one| one == whole || one == short)
    }
}

/// Runs the command.
pub async fn gaps(command: &GapsCommand) -> Result<(), Fault> {
    match command {
        GapsCommand::List(args) => list(args).await,
        GapsCommand::Resolve(args) => resolve(args).await,
    }
}

async fn list(args: &GapsListArgs) -> Result<(), Fault> {
    let mut lines = String::new();
    for (_, rows) in args.of.open().await? {
        let mut gaps = rows.look(Consistency::Strong).await?.gaps;
        gaps.retain(|gap| args.all || gap.resolved.is_none());
        gaps.sort_by_key(|gap| gap.detected);
        for gap in gaps.iter().map(Gap::from) {
            lines += &if args.json {
                json_line(&gap)?
            } else {
                render::gap::line(&gap) + "\n"
            };
        }
    }
    print_all(&lines)?;
    Ok(())
}

async fn resolve(args: &GapsResolveArgs) -> Result<(), Fault> {
    let resolution = GapResolution {
        by: args.by.name(),
        at: Clock::system().now(),
        note: args.note.clone(),
    };
    let mut resolved = 0;
    for (_, rows) in args.of.open().await? {
        let mut gaps = rows.look(Consistency::Strong).await?.gaps;
        gaps.retain(|gap| gap.resolved.is_none() && args.wants(gap));
        for gap in &gaps {
            rows.resolve_gap(gap, &resolution).await?.ok_or_else(|| {
                let shard = &gap.shard;
                anyhow!(
                    "the gap of shard {shard} has just been recorded again: list the gaps, \
                 then resolve it again"
                )
            })?;
            print_all(&format!("{}: resolved\n", plain(gap.shard.as_str())))?;
            resolved += 1;
        }
    }
    if resolved == 0 {
        return Err(Fault::Work(anyhow!(
            "no open gap matches: see `aftercommit gaps list --all`"
        )));
    }
    Ok(())
}
