//! `aftercommit run`: checks every setting, then follows the table.

use std::time::Duration;

use aftercommit::Clock;
use aftercommit::confirmation::order::OrderFields;
use aftercommit::leases::InitialPosition;
use aftercommit::leases::dynamodb::DynamoDbLeases;
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::source::StreamSource as _;
use aftercommit::source::dynamodb::DynamoDbStream;
use aftercommit::tables::dynamodb::TableStream;
use anyhow::Context as _;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use clap::{Args, ValueEnum};

use crate::aws::{self, Clients};
use crate::cli::{LetterArgs, OrderArgs, SmtpArgs, TableNames};
use crate::fault::Fault;
use crate::signals;

pub const EXAMPLES: &str = "\
Examples:
  # Follow the stream of the table `orders`
  export AFTERCOMMIT_SMTP_PASSWORD=...
  aftercommit run --table orders --mail-from \"Shop <orders@example.com>\" \\
      --smtp-url smtps://user@mail.example.com

  # The order's id and address stand under other names
  aftercommit run --table shop --order-id-attribute orderId --email-attribute contact ...

  # Begin with everything that the stream still holds (24 hours), not with what comes now;
  # only the very first start of a fleet is asked
  aftercommit run --table orders --start trim-horizon ...

  # All of it by the environment, as in a container
  AFTERCOMMIT_TABLE=orders AFTERCOMMIT_MAIL_FROM=orders@example.com \\
  AFTERCOMMIT_SMTP_URL=smtp://localhost:1025 aftercommit run

SIGTERM and SIGINT stop it: what is in flight is finished, the place is kept, exit code 0. A second
signal ends it at once.";

/// What `run` is told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The table whose orders are confirmed: a name or an ARN
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        required_unless_present = "stream_arn"
    )]
    table: Option<String>,
    /// The stream itself, in place of the table's present one
    #[arg(
        long,
        value_name = "ARN",
        env = "AFTERCOMMIT_STREAM_ARN",
        conflicts_with = "table"
    )]
    stream_arn: Option<String>,
    #[command(flatten)]
    names: TableNames,
    /// Where a new fleet begins; a fleet that has begun goes on where it stopped
    #[arg(long, value_enum, env = "AFTERCOMMIT_START", default_value = "latest")]
    start: Start,
    /// The name of this worker, for people; without it: host name and process id
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_WORKER_ID")]
    worker_id: Option<String>,
    /// Where DynamoDB Streams is, if not where the SDK finds it: inside a VPC it has a name of its own
    #[arg(long, value_name = "URL", env = "AFTERCOMMIT_STREAMS_ENDPOINT_URL")]
    streams_endpoint_url: Option<String>,
    #[command(flatten)]
    fields: OrderArgs,
    #[command(flatten)]
    letter: LetterArgs,
    #[command(flatten)]
    smtp: SmtpArgs,
}

/// Where a new fleet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Start {
    /// With what is committed from now on
    Latest,
    /// With everything that the stream still holds
    TrimHorizon,
}

impl From<Start> for InitialPosition {
    fn from(start: Start) -> Self {
        match start {
            Start::Latest => Self::Latest,
            Start::TrimHorizon => Self::TrimHorizon,
        }
    }
}

/// How long the ledger remembers: far longer than the stream's 24 hours, so that no replay mails
/// anybody twice.
const RETENTION: Duration = Duration::from_hours(400 * 24);

/// Follows the table until a signal comes.
pub async fn run(args: &RunArgs) -> Result<(), Fault> {
    let letterhead = args.letter.letterhead()?;
    let smtp = args.smtp.transport()?;
    let endpoint = args.streams_endpoint_url.as_deref();
    let clients = aws::clients(endpoint).await.map_err(Fault::Setting)?;
    let (source, fields) = source(&clients, args).await?;
    let names = &args.names;
    for table in [&names.lease_table, &names.ledger_table] {
        must_exist(&clients, table).await?;
    }
    let leases = DynamoDbLeases::new(clients.dynamodb.clone(), &names.lease_table, source.arn());
    let ledger = DynamoDbLedger::new(clients.dynamodb.clone(), &names.ledger_table, RETENTION);
    let worker = args.worker_id.clone().unwrap_or_else(own_name);
    let initial = InitialPosition::from(args.start);
    let shutdown = signals::shutdown().context("signals cannot be heard")?;
    drop((
        source, fields, leases, ledger, letterhead, smtp, worker, initial, shutdown,
    ));
    Err(anyhow::anyhow!("every setting is right, but this build has no engine").into())
}

/// The stream that is to be followed, checked, and where its orders keep what.
async fn source(clients: &Clients, args: &RunArgs) -> Result<(DynamoDbStream, OrderFields), Fault> {
    let stream = |arn: &str| DynamoDbStream::new(clients.streams.clone(), arn, Clock::system());
    let Some(arn) = &args.stream_arn else {
        let table = args.table.as_deref().unwrap_or_default();
        let found = TableStream::resolve(&clients.dynamodb, table).await;
        let found = found.and_then(TableStream::with_new_images);
        let found = found.map_err(Fault::setting)?;
        return Ok((
            stream(&found.arn),
            args.fields.with_default_id(&found.partition_key),
        ));
    };
    let table = table_of(arn).ok_or_else(|| {
        Fault::wrong(format!(
            "--stream-arn {arn} is no stream's ARN: it looks like \
             arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
        ))
    })?;
    let stream = stream(arn);
    let described = stream.describe().await;
    let described = described
        .with_context(|| format!("stream {arn}"))
        .map_err(Fault::Setting)?;
    if !described.view.has_new_image() {
        return Err(Fault::wrong(format!(
            "stream {arn} carries {}, not the new image: NEW_AND_OLD_IMAGES is needed",
            described.view
        )));
    }
    if let Some(fields) = args.fields.named() {
        return Ok((stream, fields));
    }
    let found = TableStream::resolve(&clients.dynamodb, table).await;
    let found = found
        .context("--order-id-attribute is not set, and the table does not tell its key")
        .map_err(Fault::Setting)?;
    Ok((stream, args.fields.with_default_id(&found.partition_key)))
}

/// The table's name in the ARN of a stream.
fn table_of(arn: &str) -> Option<&str> {
    let (_, rest) = arn.strip_prefix("arn:")?.split_once(":table/")?;
    let (table, label) = rest.split_once("/stream/")?;
    (!table.is_empty() && !label.is_empty()).then_some(table)
}

/// A table that is not there is told before anything is read from the stream.
async fn must_exist(clients: &Clients, table: &str) -> Result<(), Fault> {
    let answer = clients.dynamodb.describe_table().table_name(table).send();
    match answer.await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceNotFoundException") => {
            Err(Fault::wrong(format!(
                "table {table} does not exist: make it with `aftercommit tables create`, or name another"
            )))
        }
        Err(error) => Err(Fault::setting(
            anyhow::Error::new(error).context(format!("table {table} cannot be described")),
        )),
    }
}

/// Unique on this machine and, with a host name of its own for each machine or container, beyond.
fn own_name() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("{}-{}", host.to_string_lossy(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::table_of;

    #[test]
    fn the_table_is_read_from_a_streams_arn() {
        let stream = "arn:aws:dynamodb:us-east-1:0:table/my.orders/stream/2026-01-01T00:00:00.000";
        assert_eq!(table_of(stream), Some("my.orders"));
        for wrong in [
            "orders",
            "arn:aws:dynamodb:us-east-1:0:table/orders",
            "arn::table//stream/x",
        ] {
            assert_eq!(table_of(wrong), None, "{wrong}");
        }
    }
}
