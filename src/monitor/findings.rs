//! What is wrong with a fleet, who has to act, and how: the only definition of *well*.
//!
//! A fleet is well if there are no findings. `aftercommit status`, its exit code, the page and
//! `status.json` show the findings. `/readyz` is false for each reason of a
//! [`FindingKind::WorkerWaits`] ([`Progress::ready`](crate::engine::progress::Progress::ready)). Each
//! kind that a person has to resolve names its alarm ([`FindingKind::alarm`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::stores::dead_letter::Reason;
use crate::stores::ledger::Needed;

use super::stream::{ShardState, ShardStatus, StatusVerdict, StreamStatus, WorkerStatus};

/// A record that waits for this long deserves a look: thirty takeovers could have happened meanwhile.
const LAG: f64 = 5.0 * 60.0;

/// A record this close to leaving the stream is urgent. By default its rescue into the dead letters
/// follows two hours later ([`crate::engine::settings::Timing::rescue_before_trim`]).
const TRIM: f64 = 6.0 * 60.0 * 60.0;

/// Something that is wrong with a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Who resolves it.
    pub by: ResolvedBy,
    /// What is wrong and what to do.
    pub text: String,
}

/// Who resolves a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedBy {
    /// A person has to act.
    Person,
    /// The workers resolve it automatically.
    Workers,
}

/// The kinds of findings, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Records left the stream unread.
    Gap,
    /// A record leaves the stream soon.
    Trim,
    /// No worker has ever read the table, or none has listed its stream yet.
    NeverRead,
    /// No worker is alive.
    NoWorker,
    /// No live worker performs an effect of the group.
    NotPerformed,
    /// A live worker cannot do its work, for example because the circuit breaker is open.
    WorkerWaits,
    /// The task of a shard makes no progress.
    WorkerStuck,
    /// A shard is behind.
    Lag,
    /// Orders wait for an operator, because it is unknown whether their email was accepted.
    Ambiguous,
    /// An operator released orders, and they are not sent yet.
    Released,
    /// Items wait behind a dead letter.
    Parked,
    /// A row cannot be read.
    Unreadable,
    /// Something could not be read: other findings may be missing.
    Incomplete,
    /// A worker's heartbeat does not move.
    WorkerSilent,
    /// Dead letters that the workers will redrive.
    Rescued,
    /// Orders in doubt that the workers will send once more.
    Resending,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Gap,
        Self::Trim,
        Self::NeverRead,
        Self::NoWorker,
        Self::NotPerformed,
        Self::WorkerWaits,
        Self::WorkerStuck,
        Self::Lag,
        Self::Ambiguous,
        Self::Released,
        Self::Parked,
        Self::Unreadable,
        Self::Incomplete,
        Self::WorkerSilent,
        Self::Rescued,
        Self::Resending,
    ];

    /// The alarm of the Terraform module `alarms` for it, in a fleet. `None`: nothing waits for a
    /// person, or only a caller of the status sees it.
    pub fn alarm(self) -> Option<&'static str> {
        Some(match self {
            Self::Gap => "gaps",
            Self::Trim => "trim",
            Self::NoWorker => "no-heartbeat",
            Self::WorkerWaits => "mail-server",
            Self::WorkerStuck | Self::Lag => "lag",
            Self::Ambiguous => "ambiguous",
            Self::Released => "released",
            Self::Resending => "resending",
            Self::Parked => "dead-letters",
            Self::Rescued => "rescued",
            _ => return None,
        })
    }
}

/// What is wrong with a stream, the most urgent first.
pub(super) fn on(stream: &StreamStatus) -> Vec<Finding> {
    let known = stream.verdict != StatusVerdict::Unknown;
    let parts = [
        gaps(stream),
        known.then(|| trim(stream)).flatten(),
        never_read(stream),
        known.then(|| nobody(stream)).flatten(),
        not_performed(stream),
        stuck(stream),
        known.then(|| late(stream)).flatten(),
        parked(stream),
        unreadable(stream),
        silent(stream),
        redriven(stream),
    ];
    let mut all: Vec<_> = parts.into_iter().flatten().chain(waiting(stream)).collect();
    all.sort_by_key(|finding| finding.kind);
    all
}

fn by_person(kind: FindingKind, text: String) -> Finding {
    let by = ResolvedBy::Person;
    Finding { kind, by, text }
}

fn by_workers(kind: FindingKind, text: String) -> Finding {
    let by = ResolvedBy::Workers;
    Finding { kind, by, text }
}

fn alive(stream: &StreamStatus) -> impl Iterator<Item = &WorkerStatus> {
    let workers = stream.workers.iter();
    workers.filter(|worker| worker.alive != Some(false))
}

fn never_read(stream: &StreamStatus) -> Option<Finding> {
    if stream.verdict != StatusVerdict::Unknown {
        return None;
    }
    let text = match alive(stream).next() {
        // Its own text says more.
        Some(worker) if worker.trouble.is_some() => return None,
        Some(worker) => format!(
            "Worker {} has joined and has not listed the stream yet: look again in a minute, then \
             at its log.",
            worker.worker
        ),
        None => "No worker has ever read this stream with this lease table: start one with \
                 `aftercommit run`, or name the right table with --lease-table."
            .to_owned(),
    };
    Some(by_person(FindingKind::NeverRead, text))
}

/// Live workers that cannot do their work, once for each reason.
fn waiting(stream: &StreamStatus) -> Vec<Finding> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for worker in alive(stream) {
        if let Some(trouble) = &worker.trouble {
            by_reason.entry(trouble).or_default().push(&worker.worker);
        }
    }
    let finding = |(trouble, workers): (&str, Vec<&str>)| {
        let [worker, others @ ..] = &workers[..] else {
            return None;
        };
        let text = match others.len() {
            0 => format!("Worker {worker} waits: {trouble}."),
            more => format!("Worker {worker} and {more} more wait: {trouble}."),
        };
        Some(by_person(FindingKind::WorkerWaits, text))
    };
    by_reason.into_iter().filter_map(finding).collect()
}

/// Silent workers: the others take their shards, if there are others.
fn silent(stream: &StreamStatus) -> Option<Finding> {
    let workers = stream.workers.iter();
    let mut silent = workers.filter(|worker| worker.alive == Some(false));
    let worker = &silent.next()?.worker;
    let more = match silent.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if alive(stream).next().is_some() {
        let text = format!("Worker {worker}{more} fell silent: the others take its shards.");
        return Some(by_workers(FindingKind::WorkerSilent, text));
    }
    // For an open shard, another finding already says that nobody reads it.
    let text =
        format!("Worker {worker}{more} fell silent, and no other is alive: look at its log.");
    let nobody_needed = open(stream).next().is_none();
    nobody_needed.then(|| by_person(FindingKind::WorkerSilent, text))
}

/// What is wrong with orders.
pub(super) fn on_orders(needed: &Needed) -> Vec<Finding> {
    let orders = |count| match count {
        0 => None,
        1 => Some("one order".to_owned()),
        many => Some(format!("{many} orders")),
    };
    let ambiguous = orders(needed.ambiguous).map(|orders| {
        let text = format!(
            "It is unknown for {orders} whether the email was accepted or the handler acted: list them \
             with `aftercommit ledger list --state ambiguous`, and look for their Message-IDs in the mail \
             server's log, or ask the receiver about their keys. Then run `aftercommit ledger resolve ORDER --sent --note TEXT`, or with `--send` in place of \
             `--sent`."
        );
        by_person(FindingKind::Ambiguous, text)
    });
    let released = orders(needed.released).map(|orders| {
        let text = format!(
            "An operator released {orders}, and nothing has happened yet: list them with `aftercommit ledger \
             list --state released`, and send each email with `aftercommit send ORDER`."
        );
        by_person(FindingKind::Released, text)
    });
    let resending = orders(needed.resending).map(|orders| {
        let text = format!(
            "The workers perform the effect of {orders} once more, because it is unknown whether it took \
             place. If that lasts for more than an hour, treat them as the orders of `aftercommit \
             ledger list --state ambiguous`."
        );
        by_workers(FindingKind::Resending, text)
    });
    let all = [ambiguous, released, resending];
    all.into_iter().flatten().collect()
}

/// What could not be read.
pub(super) fn on_silence(why: &str) -> Finding {
    let text = format!("The status is incomplete: {why}.");
    by_person(FindingKind::Incomplete, text)
}

fn open(stream: &StreamStatus) -> impl Iterator<Item = &ShardStatus> {
    let shards = stream.shards.iter();
    shards.filter(|shard| shard.state != ShardState::Ended)
}

fn nobody(stream: &StreamStatus) -> Option<Finding> {
    let unread = alive(stream).next().is_none() && open(stream).next().is_some();
    let text = "No worker is alive, and the stream forgets after 24 hours: start one with `aftercommit \
                run`, and look at the logs of the last one.";
    unread.then(|| by_person(FindingKind::NoWorker, text.to_owned()))
}

fn not_performed(stream: &StreamStatus) -> Option<Finding> {
    alive(stream).next()?;
    let effect = stream.effects.iter().find(|effect| effect.workers == 0)?;
    let name = &effect.name;
    let text = format!(
        "No live worker performs effect {name}: its changes wait. Start a worker with it, or, if it is \
         not needed any more, run `aftercommit effects retire {name}`."
    );
    Some(by_person(FindingKind::NotPerformed, text))
}

fn stuck(stream: &StreamStatus) -> Option<Finding> {
    let stuck =
        |worker: &'_ WorkerStatus| Some((worker.worker.clone(), worker.stuck_shard.clone()?));
    let (worker, shard) = alive(stream).find_map(stuck)?;
    let text = format!(
        "Worker {worker} is alive, but its task of shard {shard} makes no progress, perhaps because a \
         handler blocks its thread: restart it, and look at its log."
    );
    Some(by_person(FindingKind::WorkerStuck, text))
}

/// The shard that is furthest behind, by how much, and its last error.
fn furthest_behind(stream: &StreamStatus) -> Option<(&ShardStatus, f64, String)> {
    let lagging = open(stream).filter_map(|shard| Some((shard.lag_seconds?, shard)));
    let (lag, shard) = lagging.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let error = shard.last_error.as_deref();
    let error = error.map_or_else(String::new, |error| format!(" Its last error: {error}"));
    Some((shard, lag, error))
}

fn until_trim(shard: &ShardStatus) -> f64 {
    shard.until_trim_seconds.unwrap_or_default()
}

fn trim(stream: &StreamStatus) -> Option<Finding> {
    let (shard, _, error) = furthest_behind(stream)?;
    let left = until_trim(shard);
    let text = || {
        format!(
            "The next record of shard {} leaves the stream in {}: restore its handler's \
             dependency, or add workers.{error}",
            shard.shard,
            duration(left)
        )
    };
    (left < TRIM).then(|| by_person(FindingKind::Trim, text()))
}

fn late(stream: &StreamStatus) -> Option<Finding> {
    let (shard, lag, error) = furthest_behind(stream)?;
    let text = || {
        format!(
            "Shard {} is {} behind: check whether its handler's dependency answers, and \
             whether more workers would help.{error}",
            shard.shard,
            duration(lag)
        )
    };
    let is_late = lag > LAG && until_trim(shard) >= TRIM;
    is_late.then(|| by_person(FindingKind::Lag, text()))
}

/// How many parked keys the workers resolve themselves, and how many need a person.
fn parked_by(stream: &StreamStatus) -> (u64, u64) {
    let by_reason = stream.dead_letters.iter().flatten();
    let by_workers = by_reason.filter(|(word, _)| {
        let reason = Reason::from_word(word);
        reason.is_some_and(Reason::is_redriven_by_itself) && alive(stream).next().is_some()
    });
    let by_workers = by_workers.map(|(_, keys)| keys).sum();
    let all = stream.parked_keys.unwrap_or_default();
    (by_workers, all.saturating_sub(by_workers))
}

fn wait(items: u64) -> Option<String> {
    match items {
        0 => None,
        1 => Some("One item waits".to_owned()),
        many => Some(format!("{many} items wait")),
    }
}

fn parked(stream: &StreamStatus) -> Option<Finding> {
    let text = format!(
        "{} behind a dead letter: list them with `aftercommit dead-letters list`, fix the cause, then run \
         `aftercommit dead-letters redrive`.",
        wait(parked_by(stream).1)?
    );
    Some(by_person(FindingKind::Parked, text))
}

fn redriven(stream: &StreamStatus) -> Option<Finding> {
    let text = format!(
        "{} behind a rescued or deferred dead letter: the workers redrive it once the \
         handler's dependency is back.",
        wait(parked_by(stream).0)?
    );
    Some(by_workers(FindingKind::Rescued, text))
}

fn gaps(stream: &StreamStatus) -> Option<Finding> {
    let mut gaps = stream.gaps.iter().filter(|gap| gap.resolved.is_none());
    let shard = &gaps.next()?.shard;
    let others = match gaps.count() {
        0 => String::new(),
        many => format!(" (and {many} more)"),
    };
    let text = format!(
        "Records of shard {shard}{others} left the stream before they could be read: find the \
         orders of that time in the table, check each with `aftercommit explain ORDER`, \
         mail those that were not mailed with `aftercommit \
         send ORDER`, then run `aftercommit gaps resolve --shard {shard} --note TEXT`."
    );
    Some(by_person(FindingKind::Gap, text))
}

fn unreadable(stream: &StreamStatus) -> Option<Finding> {
    let row = stream.unreadable.first()?;
    let text = format!("Row {} cannot be read: {}.", row.row, row.why);
    Some(by_person(FindingKind::Unreadable, text))
}

fn duration(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(seconds.as_secs())).to_string()
}
