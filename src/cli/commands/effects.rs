//! `aftercommit effects`: lists the effects of a group, and retires one.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::EffectName;
use crate::cli::args::group_rows::GroupRowsArgs;
use crate::cli::fault::Fault;
use crate::cli::render::out::{json_line, moment, plain, print_all};
use crate::stores::leases::{Consistency, LeaseStore as _, View};

pub const EXAMPLES: &str = "\
Examples:
  # List what the group does with each change, and how many workers do it
  aftercommit effects list --table orders

  # No worker has the effect any more, and nothing of it is left to do
  aftercommit effects retire search-index --table orders

An effect joins its group when the first worker that performs it starts. From then on its changes are kept
for it, even while no worker performs it.

Exit codes: 0 done, 1 no such effect or a worker performs it, 2 a setting is wrong.";

/// The commands for effects.
#[derive(Debug, Subcommand)]
pub enum EffectsCommand {
    /// List the effects of a group
    List(EffectsListArgs),
    /// Remove an effect from its group, so that nothing is kept for it any more
    Retire(RetireArgs),
}

/// Arguments of `effects list`.
#[derive(Debug, Args)]
pub struct EffectsListArgs {
    #[command(flatten)]
    of: GroupRowsArgs,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Arguments of `effects retire`.
#[derive(Debug, Args)]
pub struct RetireArgs {
    /// Name of the effect
    effect: EffectName,
    #[command(flatten)]
    of: GroupRowsArgs,
}

/// An effect, for the output.
#[derive(Serialize)]
struct ShownEffect {
    effect: String,
    table: String,
    /// When it joined its group; absent if it began with the group.
    since: Option<String>,
    /// The workers with a row that perform it.
    workers: Vec<String>,
}

/// Runs the command.
pub async fn effects(command: &EffectsCommand) -> Result<(), Fault> {
    match command {
        EffectsCommand::List(args) => list(args).await,
        EffectsCommand::Retire(args) => retire(args).await,
    }
}

/// The workers that perform an effect.
fn workers(view: &View, effect: &EffectName) -> Vec<String> {
    let workers = view.workers.values();
    let performing = workers.filter(|worker| worker.effects.contains(effect));
    performing
        .map(|worker| worker.incarnation.to_string())
        .collect()
}

async fn list(args: &EffectsListArgs) -> Result<(), Fault> {
    let mut lines = String::new();
    for (at, rows) in args.of.open().await? {
        let view = rows.look(Consistency::Strong).await?;
        for (effect, of_group) in view.group.iter().flat_map(|group| group.effects.iter()) {
            let row = ShownEffect {
                effect: effect.to_string(),
                table: at.table_name().to_owned(),
                since: of_group.since.map(moment),
                workers: workers(&view, effect),
            };
            lines += &if args.json {
                json_line(&row)?
            } else {
                line(&row)
            };
        }
    }
    print_all(&lines)?;
    Ok(())
}

fn line(row: &ShownEffect) -> String {
    let since = row.since.as_deref();
    let since = since.map_or_else(
        || "since its group began".to_owned(),
        |since| format!("since {since}"),
    );
    let workers = match row.workers.len() {
        0 => "no worker performs it".to_owned(),
        1 => "1 worker".to_owned(),
        several => format!("{several} workers"),
    };
    let (effect, table) = (plain(&row.effect), plain(&row.table));
    format!("{effect}  table {table}, {since}, {workers}\n")
}

async fn retire(args: &RetireArgs) -> Result<(), Fault> {
    let (effect, mut retired) = (&args.effect, false);
    for (at, rows) in args.of.open().await? {
        let view = rows.look(Consistency::Strong).await?;
        let Some(group) = &view.group else { continue };
        let Some(rest) = group.effects.without(effect) else {
            continue;
        };
        if let Some(worker) = workers(&view, effect).first() {
            return Err(Fault::Work(anyhow!(
                "worker {worker} performs effect {effect}: stop it first; a worker that died is \
                 forgotten a few minutes later"
            )));
        }
        let changed = rows.change_effects(&group.effects, &rest).await?;
        changed.ok_or_else(|| anyhow!("the group's effects are changing: try again"))?;
        print_all(&format!(
            "{effect}: retired from group {} on table {}; its dead letters, if any, stay: list them \
             with `aftercommit dead-letters list --effect {effect}`\n",
            at.group(),
            plain(at.table_name())
        ))?;
        retired = true;
    }
    if retired {
        return Ok(());
    }
    Err(Fault::Work(anyhow!(
        "the group has no effect {effect}: see `aftercommit effects list`"
    )))
}
