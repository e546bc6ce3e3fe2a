//! Draining a stream with a handler that does nothing, against a bare loop of `GetRecords` with the
//! same SDK. The server and each client are processes of their own.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::dynamodb::DynamoDbStream;
use aftercommit::{
    Clock, Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use anyhow::{Context as _, ensure};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

mod server;

#[derive(clap::Args)]
pub struct Options {
    /// Orders of about 1 KB in the stream.
    #[arg(long, default_value_t = 50_000)]
    records: usize,
    /// Rounds for each number of shards; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The part of this process, which the benchmark starts itself.
    #[arg(long, hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true, default_value_t = 1)]
    shards: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Server,
    Bare,
    Consumer,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Bare => "bare",
            Self::Consumer => "consumer",
        }
    }
}

/// What one client took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
    /// The most that was resident, in MB.
    megabytes: f64,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    match options.role {
        None => compare(options).await,
        Some(Role::Server) => server::serve(options.records, options.shards).await,
        Some(role) => {
            let began = Instant::now();
            let client = client(options.port);
            match role {
                Role::Bare => bare(client, options).await?,
                _ => consumer(client, options.records).await?,
            }
            let took = Took {
                seconds: began.elapsed().as_secs_f64(),
                cpu_seconds: cpu_seconds()?,
                megabytes: most_resident()?,
            };
            println!("{}", serde_json::to_string(&took)?);
            Ok(())
        }
    }
}

async fn compare(options: &Options) -> anyhow::Result<()> {
    println!(
        "{} orders of 1 KB, median of {} rounds\n",
        options.records, options.rounds
    );
    println!(
        "{:>6} {:>12} {:>12} {:>6} {:>9} {:>10} {:>9} {:>8}",
        "shards", "bare", "consumer", "ratio", "CPU bare", "consumer", "MB bare", "consumer"
    );
    let mut ratios = Vec::new();
    for shards in [1, 4, 16] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds.max(1) {
            bare.push(round(Role::Bare, options.records, shards).await?);
            ours.push(round(Role::Consumer, options.records, shards).await?);
        }
        let of = |all: &[Took], what: fn(&Took) -> f64| median(all.iter().map(what).collect());
        let rate = |all: &[Took]| to_f64(options.records) / of(all, |took| took.seconds);
        let ratio = rate(&ours) / rate(&bare);
        println!(
            "{shards:>6} {:>10.0}/s {:>10.0}/s {ratio:>6.2} {:>8.2}s {:>9.2}s {:>9.0} {:>8.0}",
            rate(&bare),
            rate(&ours),
            of(&bare, |took| took.cpu_seconds),
            of(&ours, |took| took.cpu_seconds),
            of(&bare, |took| took.megabytes),
            of(&ours, |took| took.megabytes),
        );
        ratios.push(format!("\"ratio_{shards}\":{ratio:.2}"));
    }
    println!("\n{{\"bench\":\"drain\",{}}}", ratios.join(","));
    Ok(())
}

/// One client, with a server of its own.
async fn round(role: Role, records: usize, shards: usize) -> anyhow::Result<Took> {
    let (_server, port) = start(Role::Server, records, shards, "0").await?;
    let (_client, took) = start(role, records, shards, port.trim()).await?;
    serde_json::from_str(&took).context("the client printed no figures")
}

/// Starts a process, and waits for its first line.
async fn start(
    role: Role,
    records: usize,
    shards: usize,
    port: &str,
) -> anyhow::Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["drain", "--role", role.name(), "--port", port]);
    command.args([
        "--records",
        &records.to_string(),
        "--shards",
        &shards.to_string(),
    ]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().context("a process without output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    ensure!(!line.is_empty(), "the {} ended without a line", role.name());
    Ok((child, line))
}

fn client(port: u16) -> Client {
    let config = aws_sdk_dynamodbstreams::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .build();
    Client::from_conf(config)
}

/// Reads every shard to its last record, one task a shard.
async fn bare(client: Client, options: &Options) -> anyhow::Result<()> {
    let (records, shards) = (options.records, options.shards);
    let of_shard = |shard: usize| {
        let (client, wanted) = (client.clone(), (records - shard).div_ceil(shards));
        tokio::spawn(async move { read(&client, shard, wanted).await })
    };
    let shards: Vec<_> = (0..shards).map(of_shard).collect();
    for shard in shards {
        shard.await??;
    }
    Ok(())
}

async fn read(client: &Client, shard: usize, wanted: usize) -> anyhow::Result<()> {
    let iterator = client
        .get_shard_iterator()
        .stream_arn(server::ARN)
        .shard_id(server::shard_id(shard))
        .shard_iterator_type(ShardIteratorType::TrimHorizon);
    let mut iterator = iterator.send().await?.shard_iterator;
    let mut seen = 0;
    while seen < wanted {
        let page = client
            .get_records()
            .set_shard_iterator(iterator)
            .send()
            .await?;
        seen += page.records().len();
        iterator = page.next_shard_iterator;
    }
    Ok(())
}

/// Counts, and says when all have come.
struct Count {
    left: AtomicUsize,
    done: Notify,
}

struct Nothing(Arc<Count>);

impl RecordHandler for Nothing {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        if self.0.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.done.notify_one();
        }
        Ok(())
    }
}

async fn consumer(client: Client, records: usize) -> anyhow::Result<()> {
    let count = Arc::new(Count {
        left: AtomicUsize::new(records),
        done: Notify::new(),
    });
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), server::ARN),
        DynamoDbStream::new(client, server::ARN, Clock::system()),
        MemoryLeases::new(),
    )
    .handler(Nothing(count.clone()));
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let stop = async { count.done.notified().await };
    consumer.settings(settings).run(stop).await
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[allow(clippy::cast_precision_loss)] // Counts far below 2^52.
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// What this process used of its processors.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().context("/proc/self/stat")?;
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
    let ticks: f64 = ticks?.iter().sum();
    // A hundred ticks a second, on every Linux.
    Ok(ticks / 100.0)
}

/// The most that was resident, in MB.
fn most_resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.context("/proc/self/status has no VmHWM: this needs Linux")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1000.0)
}
