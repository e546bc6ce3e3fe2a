//! The same as an AWS Lambda function: Lambda reads the streams, and nobody shares leases.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aftercommit::lambda::{Function, Invoked};
use aftercommit::status::emf::Emf;
use aftercommit::status::metrics::{Behind, Facts, Labels, Sample};
use aftercommit::stores::tables::dynamodb::FollowedTable;

use super::{Followed, Handler, RunArgs, Shared, prepared, settings};
use crate::args::fleet::Here;
use crate::commands::run::watch;
use crate::fault::Fault;

/// What Lambda tells a function of itself.
///
/// Source: [environment variables](https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime).
const TOLD: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
];

/// Checks every setting once, then answers invocations until the process is ended.
pub async fn serve(args: &RunArgs) -> Result<(), Fault> {
    for name in TOLD {
        if std::env::var_os(name).is_none() {
            return Err(Fault::wrong(format!(
                "{name} is not set: AWS Lambda sets it"
            )));
        }
    }
    let filters = args.records.filters()?;
    let smtp = args.mail.transport().await?;
    let (shared, followed) = prepared(args, &smtp, &filters, (None, Here::default())).await?;
    let function = |one| function(args, &shared, one);
    let functions = followed.into_iter().map(function);
    let functions = functions.collect::<Result<Vec<_>, _>>()?;
    Ok(aftercommit::lambda::run(functions).await?)
}

/// What handles one table's batches.
fn function(
    args: &RunArgs,
    shared: &Shared<'_>,
    followed: Followed,
) -> Result<Function<Handler>, Fault> {
    let handler = shared.handler(args, &followed.orders, followed.mapping)?;
    let function = Function::new(followed.at.clone(), handler.clone())
        .settings(settings(args, &shared.here)?)
        .filters(shared.filters.clone())
        .dependency(shared.mail_server.clone())
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
    if !args.watch.writes_emf() {
        return Ok(function);
    }
    let retention = settings(args, &shared.here)?.timing.retention;
    let labels = Labels {
        group: followed.at.group().clone(),
        effect: args.group.effect.or_default(),
        table: followed.at.table_name().to_owned(),
    };
    Ok(telling(function, labels, handler, retention))
}

/// The ARN of the stream that the table has now.
async fn latest_stream(client: aws_sdk_dynamodb::Client, table: String) -> Option<Arc<str>> {
    let found = FollowedTable::describe(&client, &table).await;
    Some(found.ok()?.stream().ok()?.arn.into())
}

/// The same, with a line of metrics after each event.
fn telling(
    function: Function<Handler>,
    labels: Labels,
    handler: Handler,
    retention: Duration,
) -> Function<Handler> {
    let (counters, handling) = (function.counters(), function.handling());
    let emf = Mutex::new(Emf::default());
    function.told(move |invoked| {
        let age = |since| SystemTime::now().duration_since(since).unwrap_or_default();
        let lag = match invoked {
            Invoked::Settled => Some(Duration::ZERO),
            // What is not known is not told.
            Invoked::Waiting(since) => since.map(age),
        };
        let behind = lag.map(|lag| Behind {
            shard: "lambda".to_owned(),
            lag,
            until_trim: retention.saturating_sub(lag),
        });
        let sample = Sample::of(&Facts {
            labels: &labels,
            counters: &counters,
            handling: &handling,
            mails: Some(watch::mails(handler.counts())),
            behind: behind.into_iter().collect(),
            fleet: None,
        });
        let mut emf = emf.lock().unwrap_or_else(PoisonError::into_inner);
        watch::write(&mut emf, &[sample]);
    })
}
