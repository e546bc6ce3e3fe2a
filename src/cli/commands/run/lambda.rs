//! `run` as an AWS Lambda function: Lambda reads the streams, and there are no leases.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::Dependency;
use crate::engine::lambda::{Function, Invoked};
use crate::monitor::emf::Emf;
use crate::monitor::levels::Levels;
use crate::monitor::metrics::{Facts, MetricLabels, Sample};
use crate::monitor::{Counters, Histogram, ShardNow};
use crate::stores::dead_letter::DeadLetters;
use crate::stores::dead_letter::EffectTable;
use crate::stores::leases::LeaseStore as _;
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::tables::dynamodb::FollowedTable;

use super::{EffectArgs, Followed, Handler, ProcessParts, prepared, settings};
use crate::cli::args::fleet::Here;
use crate::cli::commands::run::watch;
use crate::cli::fault::Fault;

/// The environment variables that Lambda sets.
///
/// Source: [environment variables](https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime).
const LAMBDA_VARIABLES: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
];

/// Checks every setting once, then answers invocations until the process ends.
pub async fn serve(effect: &EffectArgs) -> Result<(), Fault> {
    for name in LAMBDA_VARIABLES {
        if std::env::var_os(name).is_none() {
            return Err(Fault::wrong(format!(
                "{name} is not set: AWS Lambda sets it"
            )));
        }
    }
    let filters = effect.args.records.filters()?;
    effect.source.must_not_be_command()?;
    let means = effect.source.open().await?;
    let (shared, followed) = prepared(effect, (&means, &filters), None, &Here::default()).await?;
    let function = |one| function(effect, &shared, one);
    let functions = followed.into_iter().map(function);
    let functions = functions.collect::<Result<Vec<_>, _>>()?;
    Ok(crate::engine::lambda::run(functions).await?)
}

/// The handler of one table's batches.
fn function(
    effect: &EffectArgs,
    shared: &ProcessParts<'_>,
    followed: Followed,
) -> Result<Function<Arc<Handler>>, Fault> {
    let handler = shared.handler(effect, &followed)?;
    let function = Function::new(followed.at.clone(), handler.clone())
        .effect(effect.args.group.effect.or_default())
        .settings(settings(effect, &shared.here)?)
        .filters(shared.filters.clone())
        .dependency(shared.dependency.clone())
        .dead_letters(shared.letters.open());
    let function = match followed.home {
        Some(home) => function.home_region(home),
        None => function,
    };
    let function = if followed.all_streams {
        let (client, table) = (shared.clients.dynamodb.clone(), followed.orders);
        function.latest_stream(move || latest_stream(client.clone(), table.clone()))
    } else {
        function
    };
    let dynamodb = shared.clients.dynamodb.clone();
    let leases = DynamoDbLeases::new(dynamodb, &effect.args.names.lease.lease_table, &followed.at);
    let function = function.gaps(move |gap| {
        let leases = leases.clone();
        async move { leases.record_gap(&gap, None).await.map(drop) }
    });
    if !effect.args.watch.writes_emf() {
        return Ok(function);
    }
    let lines = Arc::new(LambdaLog {
        labels: MetricLabels {
            group: followed.at.group().clone(),
            effect: effect.args.group.effect.or_default(),
            table: followed.at.table_name().to_owned(),
        },
        at: EffectTable::new(followed.at, effect.args.group.effect.or_default()),
        counters: function.counters(),
        handling: function.handling(),
        handler,
        letters: shared.letters.open(),
        dependency: shared.dependency.clone(),
        retention: settings(effect, &shared.here)?.timing.retention,
        emf: Mutex::default(),
        asked: Mutex::default(),
    });
    Ok(function.on_invoked(move |invoked| {
        let lines = lines.clone();
        async move { lines.write(invoked).await }
    }))
}

/// The ARN of the table's present stream.
async fn latest_stream(client: aws_sdk_dynamodb::Client, table: String) -> Option<Arc<str>> {
    let found = FollowedTable::describe(&client, &table).await;
    Some(found.ok()?.stream().ok()?.arn.into())
}

/// Writes a line of metrics after each event.
struct LambdaLog {
    labels: MetricLabels,
    at: EffectTable,
    counters: Arc<Counters>,
    handling: Arc<Histogram>,
    handler: Arc<Handler>,
    letters: Arc<dyn DeadLetters>,
    dependency: Dependency,
    retention: Duration,
    emf: Mutex<Emf>,
    asked: Mutex<Option<LastCount>>,
}

/// When the waiting rows were last counted, and the number of troubles by then.
#[derive(Clone, Copy)]
struct LastCount {
    at: SystemTime,
    troubles: u64,
}

/// The time between two counts of waiting rows. An event that added one is followed by a count at once.
const ASK_AGAIN: Duration = Duration::from_mins(1);

impl LambdaLog {
    async fn write(&self, invoked: Invoked) {
        let age = |since| SystemTime::now().duration_since(since).unwrap_or_default();
        let lag = match invoked {
            Invoked::Finished => Some(Duration::ZERO),
            // An unknown number is not reported.
            Invoked::Waiting(since) => since.map(age),
        };
        let shard = lag.map(|lag| ShardNow::of_event(lag, self.retention));
        let levels = self.levels().await;
        let sample = Sample::of(&Facts {
            labels: &self.labels,
            counters: &self.counters,
            handling: &self.handling,
            mails: self.handler.mails(),
            shards: shard.as_slice(),
            down_for: self.dependency.down_for().unwrap_or_default(),
            levels: levels.as_ref(),
            fleet: None,
        });
        let mut emf = self.emf.lock().unwrap_or_else(PoisonError::into_inner);
        watch::write(&mut emf, &[sample]);
    }

    /// Counts the waiting rows, if it is time.
    async fn levels(&self) -> Option<Levels> {
        let now = LastCount {
            at: SystemTime::now(),
            troubles: self.troubles(),
        };
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |asked: LastCount| {
            let age = now.at.duration_since(asked.at).unwrap_or(ASK_AGAIN);
            age < ASK_AGAIN && asked.troubles == now.troubles
        };
        if asked.is_some_and(fresh) {
            return None;
        }
        let orders = async {
            match self.handler.ledger() {
                Some(ledger) => ledger.attention().await.map(Some),
                None => Ok(None),
            }
        };
        let parked = Levels::parked(&*self.letters, &self.at);
        let (parked, orders) = tokio::join!(parked, orders);
        for error in [parked.as_ref().err(), orders.as_ref().err()]
            .into_iter()
            .flatten()
        {
            let error = format!("{error:#}");
            tracing::warn!(error, "cannot count the orders and dead letters that wait");
        }
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Some(Levels {
            orders: orders.ok().flatten(),
            ..parked.unwrap_or_default()
        })
    }

    /// How many times something was added to the tables that waits there.
    fn troubles(&self) -> u64 {
        let counters = &self.counters;
        let letters = [
            &counters.dead_letters,
            &counters.followed,
            &counters.rescued,
        ];
        let letters = letters.map(|counter| counter.load(Ordering::Relaxed));
        letters.iter().sum::<u64>() + self.handler.ambiguous()
    }
}
