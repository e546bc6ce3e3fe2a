//! How this worker shares the shards with others, and how much memory it uses.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::Settings;
use crate::engine::OnGap;
use crate::stores::leases::InitialPosition;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::cli::fault::Fault;
use crate::cli::host::ecs::EcsTask;

/// Heartbeats per lease duration, so that losing one does no harm.
const BEATS: u32 = 5;

/// How this worker shares the shards with others.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fleet")]
pub struct FleetArgs {
    /// Where a new group starts; an existing group resumes where it stopped
    #[arg(long, value_enum, env = "AFTERCOMMIT_START", default_value = "latest")]
    start: InitialPosition,
    /// Name of this worker, for people [default: id of the ECS task, or host name and process id]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_WORKER_ID")]
    worker_id: Option<String>,
    /// Availability zone of this worker, for people [default: that of the ECS task]
    #[arg(long, value_name = "ZONE", env = "AFTERCOMMIT_ZONE")]
    zone: Option<String>,
    /// How long a worker may be silent before the others take its shards
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_LEASE_DURATION",
        default_value = "10s",
        value_parser = lease_duration
    )]
    lease_duration: Duration,
    /// How long records in flight may take to finish when a shard is handed over, and on stop
    #[arg(
        long,
        value_name = "TIME",
        env = "AFTERCOMMIT_HANDOVER_TIMEOUT",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    handover_timeout: Duration,
    /// Maximum number of changes of one shard in flight
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_CONCURRENCY",
        default_value = "16"
    )]
    concurrency: NonZeroUsize,
    /// Maximum memory for waiting records, over all shards and tables
    #[arg(
        long,
        value_name = "SIZE",
        env = "AFTERCOMMIT_MEMORY_BUDGET",
        default_value = "64MiB",
        value_parser = size
    )]
    memory_budget: usize,
    /// What to do when records were trimmed before they could be read
    #[arg(
        long,
        value_enum,
        env = "AFTERCOMMIT_ON_GAP",
        default_value = "continue"
    )]
    on_gap: OnGap,
}

impl ValueEnum for InitialPosition {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Latest, Self::TrimHorizon]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Latest => ("latest", "With records that are committed from now on"),
            Self::TrimHorizon => (
                "trim-horizon",
                "With everything that the stream still holds",
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

impl ValueEnum for OnGap {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Continue, Self::Halt]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Continue => ("continue", "Record the gap and continue"),
            Self::Halt => (
                "halt",
                "Record the gap, finish what was read before it, and stop reading the shard until a \
                 worker with `continue` takes it",
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// The process that this worker runs in.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// The ECS task that it belongs to.
    pub task: Option<EcsTask>,
    /// The address of its status.
    pub status_address: Option<String>,
}

impl FleetArgs {
    /// The settings of one consumer. Each has its own seed, and so its own incarnation.
    pub fn settings(&self, here: &Here) -> Result<Settings, Fault> {
        let task = here.task.as_ref();
        let of_task = || task.map(|task| task.id.clone());
        let zone_of_task = || task.and_then(|task| task.zone.clone());
        let worker_id = self.worker_id.clone().or_else(of_task);
        let mut settings = Settings {
            worker_id: worker_id.unwrap_or_else(own_name),
            start: self.start,
            concurrency: self.concurrency.get(),
            memory_budget: self.memory_budget,
            on_gap: self.on_gap,
            ..Settings::default()
        };
        settings.timing.lease_duration = self.lease_duration;
        settings.timing.heartbeat_interval = self.lease_duration / BEATS;
        settings.timing.handover_timeout = self.handover_timeout;
        settings.place.zone = self.zone.clone().or_else(zone_of_task);
        settings
            .place
            .status_address
            .clone_from(&here.status_address);
        settings.validate().map_err(Fault::setting)?;
        Ok(settings)
    }
}

/// A name that is unique on this machine, and in the fleet if host names are unique.
fn own_name() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("{}-{}", host.to_string_lossy(), std::process::id())
}

/// A lease's duration, long enough for several heartbeats and reads over a network.
fn lease_duration(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(10);
    let duration = humantime::parse_duration(text);
    let duration = duration.map_err(|_| "write a time with its unit, such as 10s".to_owned())?;
    if (SHORTEST..=LONGEST).contains(&duration) {
        return Ok(duration);
    }
    Err(
        "a lease lasts between 1s and 10m: shorter ones end before a heartbeat is written"
            .to_owned(),
    )
}

/// A number of bytes, with a unit or without.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.parse().ok().and_then(|n: usize| n.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a size such as 64MiB or 1GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{lease_duration, size};

    #[test]
    fn a_lease_lasts_long_enough_for_a_heartbeat() {
        assert_eq!(lease_duration("2s").map(|lease| lease.as_secs()), Ok(2));
        for wrong in ["10ms", "0s", "10", "1d"] {
            assert!(lease_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("1048576"), Ok(1 << 20));
        for wrong in ["", "MiB", "-1MiB", "64 MB", "99999999999999999999", "0"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
