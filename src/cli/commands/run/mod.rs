//! `aftercommit run`: checks every setting, then follows the table.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Identity;
use crate::engine::{Budget, IdentityDiffers};
use crate::filter::Filters;
use crate::monitor::Status;
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::leases::{Consistency, GroupEffects, LeaseStore as _};
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::{Clock, Dependency, GroupTable, Settings};
use anyhow::Context as _;
use clap::Args;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cli::args::copies::{CopyArgs, Letters};
use crate::cli::args::fleet::{FleetArgs, Here};
use crate::cli::args::identity::{GroupArgs, StartArgs};
use crate::cli::args::means::{Handler, Items, Means};
use crate::cli::args::records::RecordArgs;
use crate::cli::args::source::WithHandler;
use crate::cli::args::tables::{StreamArgs, TableNames};
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::host::ecs;
use crate::cli::host::signals;

use self::start::once_reached;
use self::watch::WatchArgs;
use self::worker::TableWorker;

mod followed;
#[cfg(feature = "lambda")]
pub mod lambda;
mod start;
mod watch;
mod worker;

use followed::{Followed, followed};

/// How long replies to final dots are awaited after the last shard is handed over: other workers
/// consider this one dead only after `--lease-duration`.
const LAST_REPLIES: Duration = Duration::from_secs(5);

pub const EXAMPLES: &str = "\
Examples:
  # Follow the stream of the table `orders`
  export AFTERCOMMIT_SMTP_PASSWORD=...
  aftercommit run --table orders --mail-from \"Shop <orders@example.com>\" \\
      --smtp-url smtps://user@mail.example.com

  # Your own items: look first at what ten of them become
  aftercommit preview --table shop --sample 10 \\
      --id orderId --email customer.email --total 'amount|decimal' --currency \"'EUR'\"
  aftercommit run --table shop \\
      --id orderId --email customer.email --total 'amount|decimal' --currency \"'EUR'\" ...

  # Orders in a table of many things: PK=CUST#7, SK=ORDER#1042, entityType=ORDER
  aftercommit run --table shop --only \"entityType == 'ORDER'\" --id 'SK|replace(\"ORDER#\", \"\")' ...

  # Start with everything that the stream still holds (24 hours), not with what is committed from now on;
  # this counts only at the very first start of a group
  aftercommit run --table orders --start trim-horizon ...

  # Read each order from its table first; no email for cancelled orders or suppressed addresses
  aftercommit run --table orders --refetch --suppress-when \"status == 'CANCELLED'\" \\
      --suppression-table aftercommit-suppression ...

  # A handler of your own in any language, in place of the emails: each change is a POST
  aftercommit run --table orders --group search --effect search-index \
      --handler http://127.0.0.1:8080/changes

  # A Lambda function in its container, unchanged
  aftercommit run --table orders --group search --effect search-index \
      --handler http://127.0.0.1:9000/2015-03-31/functions/function/invocations

  # The same function without a container: four processes of its runtime client
  aftercommit run --table orders --group search --effect search-index \\
      --handler-command \"python -m awslambdaric app.handler\" --processes 4

  # Through Amazon SES, without a mail server
  aftercommit run --table orders --mail ses --mail-from \"Shop <orders@example.com>\"

  # Orders when they become paid: those that were not paid before, and those that are new and paid.
  # Without the old image, any later change of a paid order would send an email
  aftercommit run --table orders --mail-rate 14 --filter '{
      \"dynamodb\": {\"NewImage\": {\"status\": {\"S\": [\"PAID\"]}}},
      \"$or\": [{\"eventName\": [\"INSERT\"]}, {\"eventName\": [\"MODIFY\"],
          \"dynamodb\": {\"OldImage\": {\"status\": {\"S\": [{\"anything-but\": [\"PAID\"]},
              {\"exists\": false}]}}}}]}' ...

  # No email for orders that were placed before the first start, whatever changes now
  aftercommit run --table orders --not-before 2026-11-01 --created-at createdAt ...

  # Health, metrics and a page on this machine, and the metrics for CloudWatch too
  aftercommit run --table orders --http 127.0.0.1:9464 --metrics emf ...

  # Two tables in one process
  aftercommit run --table orders --table orders-archive ...

  # All settings from the environment, as in a container
  AFTERCOMMIT_TABLE=orders AFTERCOMMIT_MAIL_FROM=orders@example.com \\
  AFTERCOMMIT_SMTP_URL=smtp://localhost:1025 aftercommit run

SIGTERM and SIGINT drain: records in flight are finished, the position is saved, exit code 0. A second
signal stops at once.";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    names: TableNames,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    start: StartArgs,
    /// Endpoint of DynamoDB Streams, such as a VPC endpoint [default: the one that the SDK finds]
    #[arg(
        long,
        value_name = "URL",
        env = "AFTERCOMMIT_STREAMS_ENDPOINT_URL",
        help_heading = "Fleet"
    )]
    streams_endpoint_url: Option<String>,
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    copies: CopyArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

/// An effect: the settings of `run`, and where its handler comes from.
pub type EffectArgs = WithHandler<RunArgs>;

/// Performs the effects for each change of the tables until a signal. All effects have the settings of
/// the process and of the fleet in common.
pub async fn run(effects: &[EffectArgs]) -> Result<(), Fault> {
    let Some(first) = effects.first() else {
        return Ok(());
    };
    let stop = CancellationToken::new();
    let shutdown = signals::shutdown().context("cannot install signal handlers")?;
    let stop_running = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        stop_running.cancel();
    });
    let listening = first.args.watch.listen().await?;
    let status_address = listening.status_address();
    // While the start waits for AWS, the status shows the reason.
    let status = Status::starting(Clock::system());
    let reporting = first.args.watch.begin(listening, &status);
    let here = Here {
        task: ecs::task().await,
        status_address,
    };
    let settings = settings(first, &here)?;
    let starting = async {
        let mut opened = Vec::new();
        for effect in effects {
            let filters = effect.args.records.filters()?;
            let means = once_reached(&status, || effect.source.open()).await?;
            opened.push((effect, means, filters));
        }
        let ready = || workers(&opened, here.clone());
        let ready = once_reached(&status, ready).await?;
        let means: Vec<_> = opened.into_iter().map(|(_, means, _)| means).collect();
        Ok::<_, Fault>((means, ready))
    };
    let (means, ready) = tokio::select! {
        biased;
        // Nothing has started, so there is nothing to finish.
        () = stop.cancelled() => return Ok(()),
        ready = starting => ready?,
    };
    let handlers: Vec<_> = ready.iter().flat_map(TableWorker::handlers).collect();
    // All effects write to the same ledger.
    let ledger = handlers.iter().find_map(|handler| handler.ledger());
    if let Some(ledger) = ledger.cloned() {
        status.attention(move || {
            let ledger = ledger.clone();
            async move { ledger.attention().await }
        });
    }
    status.started(ready.iter().map(TableWorker::watch));
    let budget = Budget::new(settings.memory_budget);
    let mut running = JoinSet::new();
    for worker in ready {
        running.spawn(worker.run(budget.clone(), stop.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a worker failed")?.map_err(fault)?;
    }
    join_all(handlers.iter().map(|handler| last_replies(handler))).await;
    for means in &means {
        means.close().await;
    }
    reporting.end().await;
    Ok(())
}

/// A difference from the group's settings is a wrong setting; every other error is a failure.
fn fault(error: anyhow::Error) -> Fault {
    if error.is::<IdentityDiffers>() {
        return Fault::Setting(error);
    }
    Fault::Work(error)
}

/// Waits for replies that did not arrive while the shards were handed over.
async fn last_replies(handler: &Handler) {
    let left = handler.finish(LAST_REPLIES).await;
    if left > 0 {
        warn!(
            mails = left,
            "the mail server has not answered for these emails; the ledger will mark the orders \
             AMBIGUOUS"
        );
    }
}

/// A worker for each table, which performs all effects.
async fn workers(
    opened: &[(&EffectArgs, Means, Filters)],
    here: Here,
) -> Result<Vec<TableWorker>, Fault> {
    let mut workers: Vec<TableWorker> = Vec::new();
    let names = opened.iter().map(|(effect, ..)| {
        let name = effect.args.group.effect.or_default();
        (name, Identity::default())
    });
    let mine = GroupEffects::of(names);
    for (effect, means, filters) in opened {
        let fleet = OfFleet {
            leases: &effect.args.names.lease.lease_table,
            effects: &mine,
        };
        let (shared, followed) = prepared(effect, (means, filters), Some(fleet), &here).await?;
        for one in followed {
            let known = workers.iter().position(|worker| worker.at == one.at);
            let worker = match known {
                Some(known) => workers.swap_remove(known),
                None => TableWorker::new(effect, &shared, &one)?,
            };
            workers.push(worker.performing(effect, &shared, &one)?);
        }
    }
    Ok(workers)
}

/// Checks all settings and tables, and finds every stream. A fleet has a lease table.
async fn prepared<'a>(
    effect: &EffectArgs,
    (means, filters): (&'a Means, &'a Filters),
    fleet: Option<OfFleet<'_>>,
    here: &Here,
) -> Result<(ProcessParts<'a>, Vec<Followed>), Fault> {
    let leases = fleet.as_ref().map(|fleet| fleet.leases);
    let EffectArgs { args, source } = effect;
    let endpoint = args.streams_endpoint_url.as_deref();
    let mut clients = aws::clients(endpoint).await.map_err(Fault::Setting)?;
    if leases.is_none() {
        clients = clients.by_own_clock();
    }
    let followed = followed(&clients, effect, leases).await?;
    let names = &args.names;
    let list = source.suppression_table();
    let letters = &names.letters.dead_letter_table;
    let own = leases
        .into_iter()
        .chain([&names.ledger.ledger_table, letters]);
    for table in own.chain(list) {
        must_exist(&clients, table).await?;
    }
    let retention = source.retention();
    let ledger = DynamoDbLedger::new(
        clients.dynamodb.clone(),
        &names.ledger.ledger_table,
        retention,
    );
    for one in &followed {
        if let Some(fleet) = &fleet {
            fleet.must_take_part(&clients, &one.at).await?;
        }
        let identity = source.identity(means, (&one.mapping, &args.records))?;
        let of_table = (one.at.table(), identity);
        args.start.register(&ledger, &args.group, of_table).await?;
    }
    let shared = ProcessParts {
        letters: args.copies.letters(&clients, letters).await?,
        dependency: source.dependency(means),
        clients,
        means,
        filters,
        here: here.clone(),
    };
    Ok((shared, followed))
}

/// What only a fleet has.
struct OfFleet<'a> {
    leases: &'a String,
    /// The names of the effects that this process performs.
    effects: &'a GroupEffects,
}

impl OfFleet<'_> {
    /// Fails if the group performs effects that this process does not, and the other way round, before
    /// anything is registered.
    async fn must_take_part(&self, clients: &Clients, at: &GroupTable) -> Result<(), Fault> {
        let leases = DynamoDbLeases::new(clients.leases.clone(), self.leases, at);
        let group = leases.look(Consistency::Strong).await?.group;
        let difference = group.and_then(|group| self.effects.differs_from(&group.effects));
        difference.map_or(Ok(()), |difference| {
            Err(Fault::wrong(format!(
                "group {}: {difference}; or use another group (--group)",
                at.group()
            )))
        })
    }
}

/// What the workers of this process share.
struct ProcessParts<'a> {
    clients: Clients,
    means: &'a Means,
    dependency: Dependency,
    letters: Letters,
    filters: &'a Filters,
    here: Here,
}

impl ProcessParts<'_> {
    /// The handler for the records of a table.
    fn handler(&self, effect: &EffectArgs, followed: &Followed) -> Result<Arc<Handler>, Fault> {
        let EffectArgs { args, source } = effect;
        let items = Items {
            table: &followed.orders,
            mapping: followed.mapping.clone(),
            keyed: source.fields().named()?.is_some(),
            partition_key: followed.partition_key.clone(),
        };
        let handler = source.handler(
            (&self.clients, &args.names.ledger),
            items,
            self.means,
            (args.group.effect.or_default(), args.records.wanted()?),
        )?;
        Ok(Arc::new(handler))
    }
}

/// The settings of one consumer.
fn settings(effect: &EffectArgs, here: &Here) -> Result<Settings, Fault> {
    let EffectArgs { args, source } = effect;
    let longest = source.longest_attempt();
    args.records.applied_to(args.fleet.settings(here)?, longest)
}
