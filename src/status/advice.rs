//! What to do next, in words.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ledger::Needed;

use super::report::{ShardState, ShardStatus, StreamStatus, Verdict, WorkerStatus};

/// A record that waits for so long is worth a look: thirty takeovers could have happened meanwhile.
const LAG: f64 = 5.0 * 60.0;

/// So near to leaving the stream a record is urgent. By default its rescue into the dead letters
/// comes two hours later ([`crate::Timing::rescue_before_trim`]).
const TRIM: f64 = 6.0 * 60.0 * 60.0;

/// What to do about a stream, the most urgent first.
pub(super) fn on(stream: &StreamStatus) -> Vec<String> {
    if stream.verdict == Verdict::Unknown {
        let troubled = troubled(stream);
        if !troubled.is_empty() {
            return troubled;
        }
        let mut workers = stream.workers.iter();
        if let Some(worker) = workers.find(|worker| worker.alive != Some(false)) {
            return vec![format!(
                "Worker {} has joined and has not listed the stream yet: look again in a minute, then \
                 at its log.",
                worker.worker
            )];
        }
        return vec![
            "No worker has ever read this stream with this lease table: start one with \
             `aftercommit run`, or name the right table with --lease-table."
                .to_owned(),
        ];
    }
    let parts = [
        nobody(stream),
        stuck(stream),
        late(stream),
        gaps(stream),
        parked(stream),
        unreadable(stream),
    ];
    let first = troubled(stream).into_iter();
    first.chain(parts.into_iter().flatten()).collect()
}

/// Workers that live and cannot do their work, once for each reason.
fn troubled(stream: &StreamStatus) -> Vec<String> {
    let alive = stream
        .workers
        .iter()
        .filter(|worker| worker.alive != Some(false));
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for worker in alive {
        if let Some(trouble) = &worker.trouble {
            by_reason.entry(trouble).or_default().push(&worker.worker);
        }
    }
    let told = |(trouble, workers): (&str, Vec<&str>)| match &workers[..] {
        [worker] => format!("Worker {worker} waits: {trouble}."),
        [worker, others @ ..] => {
            format!("Worker {worker} and {} more wait: {trouble}.", others.len())
        }
        [] => String::new(),
    };
    by_reason.into_iter().map(told).collect()
}

/// What to do about orders that need a person.
pub(super) fn on_orders(needed: &Needed) -> Vec<String> {
    let orders = |count| match count {
        0 => None,
        1 => Some("one order".to_owned()),
        many => Some(format!("{many} orders")),
    };
    let ambiguous = orders(needed.ambiguous).map(|orders| {
        format!(
            "Nobody can tell for {orders} whether the mail was accepted: list them with `aftercommit \
             ledger list --state ambiguous`, and look for their Message-IDs in the mail server's log. \
             Then say `aftercommit ledger resolve ORDER --sent --note TEXT`, or `--send` in place of \
             `--sent`."
        )
    });
    let released = orders(needed.released).map(|orders| {
        format!(
            "An operator released {orders}, and no mail is out yet: list them with `aftercommit ledger \
             list --state released`, and send each with `aftercommit send ORDER`."
        )
    });
    ambiguous.into_iter().chain(released).collect()
}

/// What to do about what was asked for and not answered.
pub(super) fn on_silence(why: &str) -> String {
    format!("The status is incomplete: {why}.")
}

fn open(stream: &StreamStatus) -> impl Iterator<Item = &ShardStatus> {
    let shards = stream.shards.iter();
    shards.filter(|shard| shard.state != ShardState::Ended)
}

fn nobody(stream: &StreamStatus) -> Option<String> {
    let mut workers = stream.workers.iter();
    let lives = workers.any(|worker| worker.alive != Some(false));
    (!lives && open(stream).next().is_some()).then(|| {
        "No worker is alive, and the stream forgets after 24 hours: start one with `aftercommit \
         run`, and look at the logs of the last one."
            .to_owned()
    })
}

fn stuck(stream: &StreamStatus) -> Option<String> {
    let workers = stream.workers.iter();
    let mut alive = workers.filter(|worker| worker.alive != Some(false));
    let stuck =
        |worker: &'_ WorkerStatus| Some((worker.worker.clone(), worker.stuck_shard.clone()?));
    let (worker, shard) = alive.find_map(stuck)?;
    Some(format!(
        "Worker {worker} lives, and its task of shard {shard} does not turn, as where a handler blocks \
         its thread: restart it, and look at its log."
    ))
}

fn late(stream: &StreamStatus) -> Option<String> {
    let lagging = open(stream).filter_map(|shard| Some((shard.lag_seconds?, shard)));
    let (lag, shard) = lagging.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let left = shard.until_trim_seconds.unwrap_or_default();
    let error = shard.last_error.as_deref();
    let error = error.map_or_else(String::new, |error| format!(" Its last error: {error}"));
    let shard = &shard.shard;
    if left < TRIM {
        let left = told(left);
        return Some(format!(
            "The next record of shard {shard} leaves the stream in {left}: bring back what its \
             handler depends on, or add workers.{error}"
        ));
    }
    (lag > LAG).then(|| {
        let lag = told(lag);
        format!(
            "Shard {shard} is {lag} behind: see whether what its handler depends on answers, and \
             whether more workers would help.{error}"
        )
    })
}

fn parked(stream: &StreamStatus) -> Option<String> {
    let wait = match stream.parked_keys? {
        0 => return None,
        1 => "One item waits".to_owned(),
        many => format!("{many} items wait"),
    };
    Some(format!(
        "{wait} behind a dead letter: list them with `aftercommit dead-letters list`, fix the cause, then run \
         `aftercommit dead-letters redrive`."
    ))
}

fn gaps(stream: &StreamStatus) -> Option<String> {
    let mut gaps = stream.gaps.iter().filter(|gap| gap.resolved.is_none());
    let shard = &gaps.next()?.shard;
    let others = match gaps.count() {
        0 => String::new(),
        many => format!(" (and {many} more)"),
    };
    Some(format!(
        "Records of shard {shard}{others} left the stream before anybody could read them: find the \
         orders of that time in the table, see what became of each with `aftercommit explain ORDER`, \
         mail those that were not mailed with `aftercommit \
         send ORDER`, then run `aftercommit gaps resolve --shard {shard} --note TEXT`."
    ))
}

fn unreadable(stream: &StreamStatus) -> Option<String> {
    let row = stream.unreadable.first()?;
    Some(format!("Row {} cannot be read: {}.", row.row, row.why))
}

fn told(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(seconds.as_secs())).to_string()
}
