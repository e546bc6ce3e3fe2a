//! How much memory the process takes while a dependency is down and records wait, against the budget.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aftercommit::engine::Budget;
use aftercommit::filter::{Filter, Filters};
use aftercommit::internal::shard::{Shard, ShardId};
use aftercommit::record::SequenceNumber;
use aftercommit::record::{Position, StreamView};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::{
    Batch, Description, ListedStream, ShardIterator, SourceError, StreamSource,
};
use aftercommit::{
    Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use aftercommit::{Effect, EffectName};
use anyhow::{Context as _, ensure};
use serde_dynamo::{AttributeValue, Item};

/// Filtered records never fill the budget: the benchmark ends after so many.
const MOST_RECORDS: u64 = 4_000_000;

#[derive(clap::Args)]
pub struct Options {
    /// How many shards are read.
    #[arg(long, default_value_t = 10)]
    shards: u64,
    /// The budget, in MiB.
    #[arg(long, default_value_t = 64)]
    budget: usize,
    /// Bytes of text in each record, beside its key.
    #[arg(long, default_value_t = 60)]
    text: usize,
    /// Let the filters hold back all but the first record of each shard.
    #[arg(long)]
    filtered: bool,
    /// The largest share of the budget that the process may take.
    #[arg(long, default_value_t = 1.3)]
    at_most: f64,
}

/// A stream that never ends, made as it is read.
#[derive(Clone)]
struct Endless {
    shards: u64,
    text: Arc<str>,
    filtered: bool,
    made: Arc<AtomicU64>,
}

impl Endless {
    fn record(&self, number: u64) -> Record {
        let text = |text: String| AttributeValue::S(text);
        let id = || ("id".to_owned(), text(format!("order-{number}")));
        let image = HashMap::from([id(), ("text".to_owned(), text(self.text.to_string()))]);
        let event = if self.filtered && number > 0 {
            Event::Modify
        } else {
            Event::Insert
        };
        Record {
            event_id: number.to_string(),
            event,
            keys: Item::from(HashMap::from([id()])),
            new_image: Some(Item::from(image)),
            old_image: None,
            sequence_number: SequenceNumber::parse(format!("{number:021}"))
                .unwrap_or_else(|error| panic!("{error}")),
            created: SystemTime::now(),
            view: StreamView::NewAndOldImages,
            size_bytes: 20 + self.text.len() as u64,
            by_ttl: false,
        }
    }
}

impl StreamSource for Endless {
    async fn describe(&self, _: Option<&str>) -> Result<Description, SourceError> {
        let shard = |number| Shard {
            id: ShardId::new(format!("shard-{number}")),
            parent: None,
        };
        Ok(Description {
            streams: vec![ListedStream {
                label: "".into(),
                created: None,
                view: Some(StreamView::NewAndOldImages),
            }],
            shards: (0..self.shards).map(shard).collect(),
            trouble: None,
        })
    }

    async fn children(&self, _: &ShardId) -> Result<Vec<Shard>, SourceError> {
        Ok(Vec::new())
    }

    async fn iterator(
        &self,
        _: &ShardId,
        position: &Position,
    ) -> Result<ShardIterator, SourceError> {
        let next = match position {
            Position::Horizon => 0,
            Position::After(last) => last.as_str().parse().unwrap_or(0) + 1,
        };
        Ok(ShardIterator(next.to_string()))
    }

    async fn read(&self, iterator: &ShardIterator) -> Result<Batch, SourceError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let first: u64 = iterator.0.parse().unwrap_or(0);
        let records: Vec<_> = (first..first + 1000).map(|n| self.record(n)).collect();
        self.made.fetch_add(1000, Ordering::Relaxed);
        Ok(Batch {
            records,
            next: Some(ShardIterator((first + 1000).to_string())),
        })
    }
}

/// A dependency that never answers.
struct Down;

impl RecordHandler for Down {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        std::future::pending().await
    }
}

/// Reads until the budget is full, or for as many records where the filters hold all back, and
/// compares the growth of the process with the budget. Fails above `--at-most`.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let budget = Budget::new(options.budget << 20);
    let source = Endless {
        shards: options.shards,
        text: "x".repeat(options.text).into(),
        filtered: options.filtered,
        made: Arc::default(),
    };
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    let before = resident()?;
    let filters = Filters::new(vec![Filter::parse(r#"{"eventName":["INSERT"]}"#)?]);
    let table = GroupTable::new(Group::default(), "arn:aws:dynamodb:::table/bench");
    let consumer = Consumer::new(table, source.clone(), MemoryLeases::new())
        .effect(Effect::new(EffectName::default(), Down).filters(filters))
        .settings(settings)
        .budget(budget.clone());
    let wanted = (200_000 * options.shards).min(MOST_RECORDS);
    let enough = async {
        while budget.waiting() < usize::try_from(options.shards).unwrap_or(usize::MAX)
            && source.made.load(Ordering::Relaxed) < wanted
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ended = consumer.run(std::future::pending()) => ended?,
        () = enough => {}
    }
    let grown = resident()?.saturating_sub(before);
    let mib = |bytes: usize| u32::try_from(bytes >> 20).map(f64::from);
    let ratio = mib(grown)? / mib(budget.limit())?;
    let (read, taken) = (source.made.load(Ordering::Relaxed), budget.taken());
    println!("{read} records read; {} MiB counted", taken >> 20);
    println!(
        "{{\"bench\":\"memory\",\"shards\":{},\"budget_mib\":{},\"resident_mib\":{},\"ratio\":{ratio:.2}}}",
        options.shards,
        options.budget,
        grown >> 20
    );
    ensure!(
        ratio <= options.at_most,
        "the process takes {ratio:.2} of its budget, {} at most is allowed",
        options.at_most
    );
    Ok(())
}

/// The resident memory of this process, in bytes.
fn resident() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status").context("needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: usize = kib.context("no VmRSS in /proc/self/status")?.parse()?;
    Ok(kib << 10)
}
