//! The worker of one table, which performs all effects of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{EffectArgs, Followed, Handler, ProcessParts, settings};
use crate::cli::fault::Fault;
use crate::cli::host::lines;
use crate::engine::Budget;
use crate::monitor::Watch;
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::source::dynamodb::DynamoDbStream;
use crate::{Consumer, Effect, EffectName, GroupTable};

/// Follows one table.
pub(super) struct TableWorker {
    pub at: GroupTable,
    consumer: Consumer<DynamoDbStream, DynamoDbLeases>,
    performed: Vec<(EffectName, Arc<Handler>)>,
}

impl TableWorker {
    /// A worker that performs nothing yet.
    pub fn new(
        effect: &EffectArgs,
        shared: &ProcessParts<'_>,
        followed: &Followed,
    ) -> Result<Self, Fault> {
        let (args, at) = (&effect.args, followed.at.clone());
        let client = shared.clients.leases.clone();
        let leases = DynamoDbLeases::new(client, &args.names.lease.lease_table, &at);
        let consumer = Consumer::new(at.clone(), followed.stream.clone(), leases)
            .settings(settings(effect, &shared.here)?);
        let mut consumer = shared.letters.given_to(consumer);
        if let Some(home) = followed.home.clone() {
            consumer = consumer.home_region(home);
        }
        Ok(Self {
            at,
            consumer: args.start.given_to(consumer),
            performed: Vec::new(),
        })
    }

    /// The same, performing this effect as well.
    pub fn performing(
        mut self,
        effect: &EffectArgs,
        shared: &ProcessParts<'_>,
        followed: &Followed,
    ) -> Result<Self, Fault> {
        let EffectArgs { args, source } = effect;
        let identity = source.identity(shared.means, (&followed.mapping, &args.records))?;
        let handler = shared.handler(effect, followed)?;
        let name = args.group.effect.or_default();
        let settings = settings(effect, &shared.here)?;
        let performed = Effect::new(name.clone(), handler.clone())
            .identity(identity.with("ledger", &*args.names.ledger.ledger_table))
            .filters(shared.filters.clone())
            .dependency(shared.dependency.clone())
            .concurrency(settings.concurrency)
            .attempts(settings.attempts);
        self.consumer = self.consumer.effect(performed);
        self.performed.push((name, handler));
        Ok(self)
    }

    pub fn handlers(&self) -> impl Iterator<Item = Arc<Handler>> {
        self.performed.iter().map(|(_, handler)| handler.clone())
    }

    pub fn watch(&self) -> Watch {
        let mut watch = Watch::of(&self.consumer).lines_dropped(lines::dropped);
        for (effect, handler) in &self.performed {
            let handler = handler.clone();
            if handler.mails().is_some() {
                watch = watch.mails(effect, move || handler.mails().unwrap_or_default());
            }
        }
        watch
    }

    /// Follows the table until `stop`, then logs the totals of each effect.
    pub async fn run(self, budget: Budget, stop: CancellationToken) -> anyhow::Result<()> {
        let progress = self.consumer.progress();
        let consumer = self.consumer.budget(budget);
        Box::pin(consumer.run(stop.cancelled_owned())).await?;
        for (of_effect, (effect, handler)) in progress.effects().iter().zip(&self.performed) {
            let (counters, mails) = (of_effect.counters(), handler.mails());
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            info!(
                group = %self.at.group(),
                table = self.at.table(),
                %effect,
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
        }
        Ok(())
    }
}
