//! The table of metrics.

use std::time::Duration;

use super::{FleetNow, Joined, Measured, Metric, MetricUnit, Read};
use crate::engine::progress::{Counters, ShardNow};
use crate::monitor::levels::Levels;
use std::sync::atomic::AtomicU64;

/// A counter that exists only in a fleet.
const fn counter(
    name: &'static str,
    help: &'static str,
    of: fn(&Counters) -> &AtomicU64,
) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Count,
        source: Measured::Worker,
        read: Read::Counter(of),
    }
}

const fn mails(name: &'static str, help: &'static str, of: fn(&super::Mails) -> u64) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Count,
        source: Measured::Process,
        read: Read::Mails(of),
    }
}

const fn shards(
    name: &'static str,
    help: &'static str,
    of: fn(&ShardNow) -> Option<Duration>,
    joined: Joined,
) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Seconds,
        source: Measured::Process,
        read: Read::Shards(of, joined),
    }
}

const fn table(name: &'static str, help: &'static str, of: fn(&[ShardNow]) -> u64) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Count,
        source: Measured::Worker,
        read: Read::Table(of),
    }
}

/// How many wait, counted in the tables.
const fn level(name: &'static str, help: &'static str, of: fn(&Levels) -> Option<u64>) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Count,
        source: Measured::Group,
        read: Read::Level(of),
    }
}

const fn process(
    name: &'static str,
    help: &'static str,
    unit: MetricUnit,
    of: fn(&FleetNow<'_>) -> f64,
) -> Metric {
    Metric {
        name,
        help,
        unit,
        source: Measured::Worker,
        read: Read::Process(of),
    }
}

const fn times(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        help,
        unit: MetricUnit::Seconds,
        source: match read {
            Read::Handling => Measured::Process,
            _ => Measured::Worker,
        },
        read,
    }
}

impl Metric {
    /// The same, on Lambda too.
    const fn everywhere(self) -> Self {
        Self {
            source: Measured::Process,
            ..self
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

fn bytes(count: Option<usize>) -> f64 {
    number(count.unwrap_or_default() as u64)
}

/// Every metric. Shards and orders are not dimensions in CloudWatch, where each one costs.
pub const METRICS: &[Metric] = &[
    counter(
        "aftercommit_records_handled_total",
        "Records that the handler finished.",
        |c| &c.handled,
    )
    .everywhere(),
    counter(
        "aftercommit_records_skipped_total",
        "Records older than the start of the fleet.",
        |c| &c.skipped,
    ),
    counter(
        "aftercommit_records_filtered_total",
        "Records that the filters excluded.",
        |c| &c.filtered,
    )
    .everywhere(),
    counter(
        "aftercommit_records_followed_total",
        "Records that followed a dead letter of their key.",
        |c| &c.followed,
    )
    .everywhere(),
    counter(
        "aftercommit_records_rescued_total",
        "Records that became dead letters because they were about to leave the stream.",
        |c| &c.rescued,
    )
    .everywhere(),
    counter(
        "aftercommit_records_deferred_total",
        "Records that became dead letters because their shard ended while they were failing.",
        |c| &c.deferred,
    ),
    counter(
        "aftercommit_events_of_earlier_streams_total",
        "Lambda events of a stream that is not the table's latest.",
        |c| &c.of_earlier_streams,
    )
    .everywhere(),
    counter(
        "aftercommit_dead_letters_total",
        "Records that became dead letters because they failed.",
        |c| &c.dead_letters,
    )
    .everywhere(),
    counter(
        "aftercommit_dead_letters_uncopied_total",
        "Dead letters whose copy could not be sent.",
        |c| &c.uncopied,
    )
    .everywhere(),
    counter(
        "aftercommit_dead_letters_redriven_total",
        "Rescued and deferred dead letters that were redriven automatically.",
        |c| &c.redriven,
    ),
    counter(
        "aftercommit_attempts_failed_total",
        "Failed attempts, without those that a dependency deferred.",
        |c| &c.failed_attempts,
    )
    .everywhere(),
    counter(
        "aftercommit_reads_failed_total",
        "Reads and listings of the stream that failed.",
        |c| &c.reads_failed,
    ),
    counter(
        "aftercommit_reads_throttled_total",
        "Reads of the stream that were throttled, for example because a shard has more than two readers.",
        |c| &c.reads_throttled,
    ),
    counter(
        "aftercommit_gaps_total",
        "Gaps: stretches of records that left the stream before they could be read.",
        |c| &c.gaps,
    )
    .everywhere(),
    counter(
        "aftercommit_lease_takes_total",
        "Leases taken that were free or belonged to dead workers.",
        |c| &c.takes,
    ),
    counter(
        "aftercommit_lease_hand_overs_total",
        "Leases handed over to other workers.",
        |c| &c.hand_overs,
    ),
    counter(
        "aftercommit_lease_lapses_total",
        "How many times trust ran out before a heartbeat was accepted.",
        |c| &c.lapses,
    ),
    counter(
        "aftercommit_checkpoints_total",
        "Checkpoints written.",
        |c| &c.checkpoints,
    ),
    counter(
        "aftercommit_writes_refused_total",
        "Writes refused because the lease is another worker's.",
        |c| &c.refused,
    ),
    counter(
        "aftercommit_heartbeats_total",
        "Heartbeats accepted.",
        |c| &c.heartbeats,
    ),
    mails(
        "aftercommit_effects_accepted_total",
        "Effects that took place: emails that the mail server accepted, and calls that a handler with --once accepted.",
        |m| m.accepted,
    ),
    mails(
        "aftercommit_effects_failed_total",
        "Effects that were refused for good.",
        |m| m.failed,
    ),
    mails(
        "aftercommit_effects_ambiguous_total",
        "Effects for which it is unknown whether they took place.",
        |m| m.ambiguous,
    ),
    mails(
        "aftercommit_effects_accepted_twice_total",
        "Effects that took place although they had taken place before.",
        |m| m.second_acceptances,
    ),
    mails(
        "aftercommit_effects_closed_total",
        "Doubts that ended because the other side recognised a repeat (--provider-remembers).",
        |m| m.closed,
    ),
    mails(
        "aftercommit_effects_parked_total",
        "Records finished while their effect waits for an operator.",
        |m| m.parked,
    ),
    mails(
        "aftercommit_effects_collided_total",
        "Records rejected because another item has the same effect key.",
        |m| m.collisions,
    ),
    mails(
        "aftercommit_effects_suppressed_total",
        "Effects that were deliberately not performed.",
        |m| m.suppressed,
    ),
    mails(
        "aftercommit_effects_deferred_total",
        "Attempts that the other side deferred, or that certainly did not reach it.",
        |m| m.deferred,
    ),
    shards(
        "aftercommit_lag_seconds",
        "Age of the oldest unfinished record; 0 when the shard is read to its end.",
        |shard| shard.lag,
        Joined::Most,
    ),
    shards(
        "aftercommit_until_trim_seconds",
        "Time until the next unfinished record leaves the stream; 86400 when the shard is read to its end.",
        |shard| shard.until_trim,
        Joined::Least,
    ),
    table(
        "aftercommit_shards_owned",
        "Shards that this worker reads.",
        |shards| shards.len() as u64,
    ),
    table(
        "aftercommit_records_waiting",
        "Records that were read and are waiting.",
        |shards| shards.iter().map(|shard| shard.waiting).sum(),
    ),
    table(
        "aftercommit_records_in_hand",
        "Records that are being handled.",
        |shards| shards.iter().map(|shard| shard.in_hand).sum(),
    ),
    process(
        "aftercommit_buffered_bytes",
        "Bytes of records in memory, and of reads in progress.",
        MetricUnit::Bytes,
        |fleet| bytes(fleet.budget.map(crate::engine::budget::Budget::taken)),
    ),
    process(
        "aftercommit_buffer_limit_bytes",
        "The memory budget.",
        MetricUnit::Bytes,
        |fleet| bytes(fleet.budget.map(crate::engine::budget::Budget::limit)),
    ),
    process(
        "aftercommit_log_lines_dropped",
        "Lines of the log and of metrics that were dropped since the start, because their reader stalled.",
        MetricUnit::Count,
        |fleet| number(fleet.lines_dropped),
    ),
    Metric {
        name: "aftercommit_dependency_down_seconds",
        help: "How long the handler's dependency has been down; 0: it is up, and the circuit breaker is closed.",
        unit: MetricUnit::Seconds,
        source: Measured::Process,
        read: Read::Down,
    },
    Metric {
        name: "aftercommit_parked_keys",
        help: "Keys that wait behind a dead letter, by its reason.",
        unit: MetricUnit::Count,
        source: Measured::Group,
        read: Read::ByReason,
    },
    level(
        "aftercommit_parked_keys_failed",
        "Keys that wait behind a dead letter until a person acts.",
        Levels::failed_keys,
    ),
    level(
        "aftercommit_parked_keys_rescued",
        "Keys that wait behind a rescued or deferred dead letter; a fleet redrives them automatically.",
        Levels::rescued_keys,
    ),
    level(
        "aftercommit_orders_ambiguous",
        "Orders that wait for a person, because it is unknown whether their effect took place.",
        |levels| Some(levels.orders?.ambiguous),
    ),
    level(
        "aftercommit_orders_resending",
        "Orders for which it is unknown whether their effect took place, and whose effect is performed once more.",
        |levels| Some(levels.orders?.resending),
    ),
    level(
        "aftercommit_orders_released",
        "Orders that an operator released and that are not sent yet.",
        |levels| Some(levels.orders?.released),
    ),
    Metric {
        source: Measured::Lister,
        ..level(
            "aftercommit_gaps_open",
            "Gaps that are not resolved.",
            |levels| levels.open_gaps,
        )
    },
    times(
        "aftercommit_handle_seconds",
        "How long one attempt took.",
        Read::Handling,
    ),
    times(
        "aftercommit_commit_to_finished_seconds",
        "Time from a record's commit until it was finished.",
        Read::Finishing,
    ),
    Metric {
        name: "aftercommit_build_info",
        help: "The running build; always 1.",
        unit: MetricUnit::Count,
        source: Measured::Worker,
        read: Read::Build,
    },
];
