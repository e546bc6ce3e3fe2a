//! How many records of one shard are handled a second, where each takes its handler some time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler, Settings,
};
use serde_dynamo::{AttributeValue, Item};
use tokio::sync::Notify;

#[derive(clap::Args)]
pub struct Options {
    /// How many records are handled in each round.
    #[arg(long, default_value_t = 20_000)]
    records: u32,
    /// How long the handler takes for one, in milliseconds.
    #[arg(long, default_value_t = 5)]
    handler: u64,
    /// Rounds for each number of lanes; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// The numbers of lanes to measure. The JSON line reports the last one.
const LANES: [u32; 4] = [1, 8, 16, 32];

/// Takes its time on a thread of its own: timers of tokio are as coarse as a millisecond.
struct Slow(Arc<Tally>);

struct Tally {
    takes: Duration,
    wanted: u32,
    began: Mutex<Option<Instant>>,
    ended: Mutex<Option<Instant>>,
    handled: AtomicU32,
    done: Notify,
}

impl RecordHandler for Slow {
    async fn handle(&self, _: &Record, _: &Context) -> Result<(), Failure> {
        let (tally, takes) = (&self.0, self.0.takes);
        if let Ok(mut began) = tally.began.lock() {
            began.get_or_insert_with(Instant::now);
        }
        let slept = tokio::task::spawn_blocking(move || std::thread::sleep(takes));
        slept.await.map_err(|error| Failure::Retry(error.into()))?;
        if tally.handled.fetch_add(1, Ordering::Relaxed) + 1 == tally.wanted {
            if let Ok(mut ended) = tally.ended.lock() {
                *ended = Some(Instant::now());
            }
            tally.done.notify_one();
        }
        Ok(())
    }
}

/// Prints what each number of lanes passes, beside what there would be if nothing else took time.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let takes = Duration::from_millis(options.handler);
    println!(
        "one shard, {} ms for each of {} records:",
        options.handler, options.records
    );
    println!("{:>8} {:>12} {:>12}", "lanes", "records/s", "at best");
    let mut last = (0, 0.0);
    for lanes in LANES {
        let mut rates = Vec::new();
        for _ in 0..options.rounds.max(1) {
            // Fewer records for fewer lanes: a round takes as long.
            let records = (options.records * lanes / 32).max(1);
            rates.push(round(lanes, records, takes).await?);
        }
        rates.sort_by(f64::total_cmp);
        let rate = rates[rates.len() / 2];
        let best = f64::from(lanes) / takes.as_secs_f64();
        println!("{lanes:>8} {rate:>12.0} {best:>12.0}");
        last = (lanes, rate);
    }
    let (lanes, rate) = last;
    let handler = options.handler;
    println!(
        "\n{{\"bench\":\"shard\",\"lanes\":{lanes},\"handler_milliseconds\":{handler},\"records_per_second\":{rate:.0}}}"
    );
    Ok(())
}

async fn round(lanes: u32, records: u32, takes: Duration) -> anyhow::Result<f64> {
    let stream = MemoryStream::new(1, 1000);
    for n in 0..records {
        stream.commit(order(n));
    }
    let tally = Arc::new(Tally {
        takes,
        wanted: records,
        began: Mutex::default(),
        ended: Mutex::default(),
        handled: AtomicU32::new(0),
        done: Notify::new(),
    });
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    settings.concurrency = lanes as usize;
    let handler = Slow(tally.clone());
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "bench"),
        stream,
        MemoryLeases::new(),
    )
    .handler(handler)
    .settings(settings);
    consumer.run(tally.done.notified()).await?;
    let at = |time: &Mutex<Option<Instant>>| time.lock().ok().and_then(|time| *time);
    let (Some(began), Some(ended)) = (at(&tally.began), at(&tally.ended)) else {
        anyhow::bail!("nothing was handled");
    };
    Ok(f64::from(records) / (ended - began).as_secs_f64())
}

fn order(n: u32) -> Commit {
    let id = AttributeValue::S(format!("order-{n}"));
    let keys = Item::from(HashMap::from([("id".to_owned(), id)]));
    Commit {
        event: Event::Insert,
        keys: keys.clone(),
        old_image: None,
        new_image: Some(keys),
        created: SystemTime::now(),
    }
}
