//! `aftercommit run`: checks every setting, then follows the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::confirmation::mapping::Mapping;
use crate::engine::{Budget, IdentityDiffers};
use crate::filter::Filters;
use crate::monitor::{Status, Watch};
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::source::dynamodb::DynamoDbStream;
use crate::{Clock, Consumer, Dependency, EffectName, GroupTable, Settings};
use anyhow::Context as _;
use clap::Args;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::args::copies::{CopyArgs, Letters};
use crate::cli::args::fleet::{FleetArgs, Here};
use crate::cli::args::identity::{GroupArgs, StartArgs};
use crate::cli::args::means::{Handler, Means};
use crate::cli::args::records::RecordArgs;
use crate::cli::args::source::WithHandler;
use crate::cli::args::tables::{StreamArgs, TableNames};
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::host::ecs;
use crate::cli::host::lines;
use crate::cli::host::signals;

use self::start::once_reached;
use self::watch::WatchArgs;

mod followed;
#[cfg(feature = "lambda")]
pub mod lambda;
mod start;
mod watch;

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

/// Follows the tables until a signal.
pub async fn run(effect: &EffectArgs) -> Result<(), Fault> {
    let stop = CancellationToken::new();
    let shutdown = signals::shutdown().context("cannot install signal handlers")?;
    let told = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        told.cancel();
    });
    let listening = effect.args.watch.listen().await?;
    let status_address = listening.status_address();
    // While the start waits for AWS, the status shows the reason.
    let status = Status::starting(Clock::system());
    let telling = effect.args.watch.begin(listening, &status);
    let here = Here {
        task: ecs::task().await,
        status_address,
    };
    let settings = settings(effect, &here)?;
    let filters = effect.args.records.filters()?;
    let starting = async {
        let means = once_reached(&status, || effect.source.open()).await?;
        let ready = || workers(effect, &means, &filters, here.clone());
        let ready = once_reached(&status, ready).await?;
        Ok::<_, Fault>((means, ready))
    };
    let (means, ready) = tokio::select! {
        biased;
        // Nothing has started, so there is nothing to finish.
        () = stop.cancelled() => return Ok(()),
        ready = starting => ready?,
    };
    // All workers write to the same ledger.
    let ledger = ready.iter().find_map(|worker| worker.handler.ledger());
    if let Some(ledger) = ledger.cloned() {
        status.attention(move || {
            let ledger = ledger.clone();
            async move { ledger.attention().await }
        });
    }
    status.started(ready.iter().map(Worker::watch));
    let budget = Budget::new(settings.memory_budget);
    let handlers: Vec<_> = ready.iter().map(|worker| worker.handler.clone()).collect();
    let mut running = JoinSet::new();
    for worker in ready {
        running.spawn(worker.run(budget.clone(), stop.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a worker failed")?.map_err(fault)?;
    }
    join_all(handlers.iter().map(|handler| last_replies(handler))).await;
    means.close().await;
    telling.end().await;
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

/// A worker for each stream.
async fn workers(
    effect: &EffectArgs,
    means: &Means,
    filters: &Filters,
    here: Here,
) -> Result<Vec<Worker>, Fault> {
    let of_fleet = (Some(&effect.args.names.lease.lease_table), here);
    let (shared, followed) = prepared(effect, means, filters, of_fleet).await?;
    let worker = |one| Worker::new(effect, &shared, one);
    followed.into_iter().map(worker).collect()
}

/// Checks all settings and tables, and finds every stream. A fleet has a lease table.
async fn prepared<'a>(
    effect: &EffectArgs,
    means: &'a Means,
    filters: &'a Filters,
    (leases, here): (Option<&String>, Here),
) -> Result<(Shared<'a>, Vec<Followed>), Fault> {
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
        let identity = source.identity(means, (&one.mapping, &args.records))?;
        let of_table = (one.at.table(), identity);
        args.start.register(&ledger, &args.group, of_table).await?;
    }
    let shared = Shared {
        letters: args.copies.letters(&clients, letters).await?,
        dependency: source.dependency(means),
        clients,
        means,
        filters,
        here,
    };
    Ok((shared, followed))
}

/// What the workers of this process share.
struct Shared<'a> {
    clients: Clients,
    means: &'a Means,
    dependency: Dependency,
    letters: Letters,
    filters: &'a Filters,
    here: Here,
}

impl Shared<'_> {
    /// The handler for the records of a table.
    fn handler(
        &self,
        effect: &EffectArgs,
        orders: &str,
        mapping: Mapping,
    ) -> Result<Arc<Handler>, Fault> {
        let EffectArgs { args, source } = effect;
        let keyed = source.fields().named()?.is_some();
        let handler = source.handler(
            (&self.clients, &args.names.ledger),
            (orders, mapping, keyed),
            self.means,
            (args.group.effect.or_default(), args.records.wanted()?),
        )?;
        Ok(Arc::new(handler))
    }
}

/// Follows one table.
struct Worker {
    at: GroupTable,
    consumer: Consumer<DynamoDbStream, DynamoDbLeases, Arc<Handler>>,
    handler: Arc<Handler>,
    effect: EffectName,
}

impl Worker {
    fn new(effect: &EffectArgs, shared: &Shared<'_>, followed: Followed) -> Result<Self, Fault> {
        let EffectArgs { args, source } = effect;
        let Followed {
            stream,
            at,
            orders,
            mapping,
            home,
            all_streams: _,
        } = followed;
        let identity = source.identity(shared.means, (&mapping, &args.records))?;
        let handler = shared.handler(effect, &orders, mapping)?;
        let client = shared.clients.leases.clone();
        let leases = DynamoDbLeases::new(client, &args.names.lease.lease_table, &at);
        let consumer = Consumer::new(at.clone(), stream, leases, handler.clone())
            .settings(settings(effect, &shared.here)?)
            .filters(shared.filters.clone())
            .dependency(shared.dependency.clone());
        let mut consumer = shared.letters.given_to(consumer);
        if let Some(home) = home {
            consumer = consumer.home_region(home);
        }
        let identity = identity
            .with("effect", args.group.effect.or_default().as_str())
            .with("ledger", &*args.names.ledger.ledger_table);
        let consumer = args.start.given_to(consumer.identity(identity));
        Ok(Self {
            at,
            consumer,
            handler,
            effect: args.group.effect.or_default(),
        })
    }

    fn watch(&self) -> Watch {
        let watch = Watch::of(&self.consumer)
            .effect(self.effect.clone())
            .lines_dropped(lines::dropped);
        let handler = self.handler.clone();
        if handler.mails().is_none() {
            return watch;
        }
        watch.mails(move || handler.mails().unwrap_or_default())
    }

    /// Follows the table until `stop`, then logs the totals.
    async fn run(self, budget: Budget, stop: CancellationToken) -> anyhow::Result<()> {
        let counters = self.consumer.counters();
        let consumer = self.consumer.budget(budget);
        Box::pin(consumer.run(stop.cancelled_owned())).await?;
        let mails = self.handler.mails();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        info!(
            group = %self.at.group(),
            table = self.at.table(),
            handled = of(&counters.handled),
            skipped = of(&counters.skipped),
            filtered = of(&counters.filtered),
            dead_letters = of(&counters.dead_letters),
            followed = of(&counters.followed),
            rescued = of(&counters.rescued),
            deferred_records = of(&counters.deferred),
            redriven = of(&counters.redriven),
            failed_attempts = of(&counters.failed_attempts),
            gaps = of(&counters.gaps),
            lapses = of(&counters.lapses),
            accepted = mails.map(|mails| mails.accepted),
            refused = mails.map(|mails| mails.failed),
            deferred = mails.map(|mails| mails.deferred),
            ambiguous = mails.map(|mails| mails.ambiguous),
            parked = mails.map(|mails| mails.parked),
            "stopped"
        );
        Ok(())
    }
}

/// The settings of one consumer.
fn settings(effect: &EffectArgs, here: &Here) -> Result<Settings, Fault> {
    let EffectArgs { args, source } = effect;
    let longest = source.longest_attempt();
    args.records.applied_to(args.fleet.settings(here)?, longest)
}
