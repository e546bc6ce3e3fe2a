//! `aftercommit status`: how the fleet is doing, and what to do next.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::GroupTable;
use crate::engine::Timing;
use crate::engine::progress::Beats;
use crate::monitor::{FleetStatus, StatusVerdict, StreamStatus};
use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::dead_letter::{DeadLetters as _, Reason};
use crate::stores::dead_letter::{EffectTable, ParkedPage};
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::leases::{Consistency, LeaseStore as _, View};
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use clap::Args;
use tokio::time::{Instant, interval_at, sleep};

use crate::cli::args::tables::{GroupArg, StreamArgs, TableNames};
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::render;
use crate::cli::render::out::{json_line, json_page, print, report};

pub const EXAMPLES: &str = "\
Examples:
  # Show who reads what, how far behind, and how long until a record is lost
  aftercommit status --table orders

  # Repeat every two seconds
  aftercommit status --table orders --watch

  # For a script: what to do next
  aftercommit status --table orders --json | jq -r '.advice[]'

A worker is alive if its heartbeat moves, which is watched for up to half of --lease-duration. Times are
DynamoDB's: this machine's clock does not matter. Each look queries the lease table, the parked keys in the
dead letters' table, and the ledger's index of orders that need attention.

What the workers resolve by themselves is listed apart from what waits for a person.

Exit codes: 0 all is well, 1 something is wrong (\"verdict\" is \"attention\", or \"recovering\" where no person
has to act), 2 unknown, because something could not be read.";

/// The time between two looks at heartbeats that have not moved yet.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The time between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(2);

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    group: GroupArg,
    #[command(flatten)]
    names: TableNames,
    /// Print one JSON object; with --watch, one per line
    #[arg(long)]
    json: bool,
    /// Repeat every two seconds until interrupted
    #[arg(long)]
    watch: bool,
}

/// Prints how the fleet is doing.
pub async fn status(args: &StatusArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let exists = must_exist(&clients, &args.names.lease.lease_table).await;
    exists.map_err(Fault::unanswered)?;
    let places = args.streams.places(&clients, &args.group.group).await;
    let places = places.map_err(Fault::unanswered)?;
    let mut beats = vec![Beats::default(); places.len()];
    let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
    loop {
        let status = match look(&clients, args, &places, &mut beats).await {
            Ok(status) => status,
            Err(error) if args.watch => {
                let error = format!("{error:#}");
                tracing::warn!(error, "cannot read the status; retrying in {AGAIN:?}");
                again.tick().await;
                continue;
            }
            Err(error) => return Err(Fault::Unanswered(error)),
        };
        if print(&shown(&status, args)?)?.is_break() {
            return Ok(());
        }
        if !args.watch {
            return match status.verdict {
                StatusVerdict::Well => Ok(()),
                StatusVerdict::Attention | StatusVerdict::Recovering => Err(Fault::No),
                StatusVerdict::Unknown => Err(Fault::Unknown),
            };
        }
        again.tick().await;
    }
}

async fn look(
    clients: &Clients,
    args: &StatusArgs,
    places: &[GroupTable],
    beats: &mut [Beats],
) -> anyhow::Result<FleetStatus> {
    let (client, names) = (&clients.dynamodb, &args.names);
    let retention = Timing::default().retention;
    let letters = DynamoDbDeadLetters::new(client.clone(), &names.letters.dead_letter_table);
    let (mut streams, mut unknown) = (Vec::new(), Vec::new());
    for (at, beats) in places.iter().zip(beats) {
        let leases = DynamoDbLeases::new(client.clone(), &names.lease.lease_table, at);
        let view = watched(&leases, beats, args.watch).await?;
        let now = clients.clock().now();
        let status = StreamStatus::new(at, &view, beats, now, retention);
        streams.push(match parked_of(&letters, at, &view).await {
            Ok(parked) => {
                unknown.extend(parked.unreadable);
                let reasons = parked.keys.iter().map(|key| key.reason.map(Reason::word));
                status.with_parked(reasons)
            }
            Err(error) => {
                let table = ("--dead-letter-table", &*names.letters.dead_letter_table);
                unknown.push(unread(table, &error));
                status
            }
        });
    }
    // This command writes no row, so the retention does not matter.
    let ledger = DynamoDbLedger::new(client.clone(), &names.ledger.ledger_table, Duration::MAX);
    let needed = ledger.attention().await;
    if let Err(error) = &needed {
        let table = ("--ledger-table", &*names.ledger.ledger_table);
        unknown.push(unread(table, error));
    }
    let now = clients.clock().now();
    Ok(FleetStatus::new(now, streams, needed.ok()).without(unknown))
}

/// The rows, once each heartbeat has moved or was watched for long enough. `once` returns them as they
/// are, since another look follows soon.
async fn watched(leases: &DynamoDbLeases, beats: &mut Beats, once: bool) -> anyhow::Result<View> {
    let mut announced = false;
    loop {
        let view = leases.look(Consistency::Strong).await?;
        let now = Instant::now();
        beats.see(&view, now);
        let left = match beats.undecided(&view, now) {
            Some(left) if !once => left,
            _ => return Ok(view),
        };
        if left > BETWEEN_LOOKS && !announced && std::io::stderr().is_terminal() {
            report(&format!(
                "Watching the heartbeats for up to {} s ...",
                left.as_secs() + 1
            ));
            announced = true;
        }
        sleep(left.min(BETWEEN_LOOKS) + Duration::from_millis(1)).await;
    }
}

/// The tables besides the lease table may be missing, or the caller may not be allowed to read them.
fn unread((flag, table): (&str, &str), error: &anyhow::Error) -> String {
    format!(
        "table {table} cannot be read ({error:#}); name the right one with {flag}, see that it is there \
         (`aftercommit tables create` makes it) and that you are allowed to query it"
    )
}

fn shown(status: &FleetStatus, args: &StatusArgs) -> anyhow::Result<String> {
    match (args.json, args.watch) {
        (true, true) => json_line(status),
        (true, false) => json_page(status),
        // From the top of an empty screen.
        (false, true) => Ok(format!("\x1b[2J\x1b[H{}", render::status::text(status))),
        (false, false) => Ok(render::status::text(status)),
    }
}

/// The parked keys of all effects of a group on a table.
async fn parked_of(
    letters: &DynamoDbDeadLetters,
    at: &GroupTable,
    view: &View,
) -> anyhow::Result<ParkedPage> {
    let mut all = ParkedPage::default();
    for effect in view.group.iter().flat_map(|group| group.effects.names()) {
        let of = EffectTable::new(at.clone(), effect.clone());
        let parked = letters.parked(&of).await?;
        all.keys.extend(parked.keys);
        all.unreadable.extend(parked.unreadable);
    }
    Ok(all)
}
