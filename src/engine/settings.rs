//! The settings of a consumer, with their defaults.

use std::time::Duration;

use crate::core::backoff::{AttemptLimits, Backoff};
use crate::core::effects::GroupEffects;
use crate::core::fleet::rules as fleet;
use crate::core::pipeline::{DeadLetterRules, Rule, Rules};
use crate::engine::budget::Budget;
use crate::engine::simulated::Simulated;
use crate::stores::leases::InitialPosition;

/// This many rows of the lease table are read every `look_interval` in any case. They are about 400
/// bytes each, so reading them costs about as much as heartbeats do (a write costs as much as five
/// reads).
const FEW_ROWS: usize = 100;

/// How a consumer works. Begin with the defaults, because more fields will be added:
///
/// ```
/// use std::time::Duration;
///
/// let mut settings = aftercommit::Settings::default();
/// settings.concurrency = 64;
/// settings.timing.lease_duration = Duration::from_secs(20);
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Name of this worker in the lease table and in logs. It need not be unique: every start gets
    /// an incarnation of its own.
    pub worker_id: String,
    /// Where a group starts that has never read the table.
    pub start: InitialPosition,
    /// How many records of one shard are handled at once, each of another item.
    pub concurrency: usize,
    /// How much memory the records of the process may take, in bytes, over all its shards
    /// ([`Budget`]). At least [`Budget::LEAST`].
    pub memory_budget: usize,
    /// What to do after records were trimmed before they could be read.
    pub on_gap: OnGap,
    /// The waits between the attempts of a record that fails.
    pub backoff: Backoff,
    /// How long a failing record is retried before it becomes a dead letter. Without dead letters it is
    /// retried forever and holds the checkpoint of its shard.
    pub attempts: AttemptLimits,
    /// Intervals and timeouts.
    pub timing: Timing,
    /// Where the worker runs, and where its status is served.
    pub place: Place,
    /// Seeds every random choice, so that a run can be replayed. Random unless set; two starts of
    /// a worker must not share one.
    pub seed: u64,
}

/// What to do after records were trimmed before they could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnGap {
    /// Record the gap and continue with the oldest record that is left.
    #[default]
    Continue,
    /// Record the gap, finish what was read before it, and stop reading the shard. After a restart a
    /// worker continues behind the gap with [`OnGap::Continue`], and halts again with this.
    Halt,
}

/// Where a worker runs.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Place {
    /// The availability zone.
    pub zone: Option<String>,
    /// The address of its status page.
    pub status_address: Option<String>,
}

/// Intervals and timeouts. Begin with the defaults, because more fields will be added.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timing {
    /// How long a heartbeat must not move before other workers take the leases. The worker itself stops
    /// trusting them a fifth of it earlier.
    pub lease_duration: Duration,
    /// How often a worker writes its heartbeat.
    pub heartbeat_interval: Duration,
    /// How often a worker reads the lease table while it is small.
    pub look_interval: Duration,
    /// How often one worker of the fleet compares the stream's listing with the lease table.
    pub listing_interval: Duration,
    /// How often the checkpoint of a shard is written, if it moved.
    pub checkpoint_interval: Duration,
    /// How long records in flight may take to finish when their shard is handed over, and on stop.
    pub handover_timeout: Duration,
    /// How long a handler may take for one record. Longer than the wait for a mail server's reply
    /// to the final dot, which is 10 minutes.
    ///
    /// Source: [RFC 5321, 4.5.3.2.6](https://www.rfc-editor.org/rfc/rfc5321#section-4.5.3.2.6).
    pub handler_timeout: Duration,
    /// How long the stream keeps a record: 24 hours on AWS. What is older may be gone unread.
    ///
    /// Source: [DynamoDB Streams](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html).
    pub retention: Duration,
    /// How long before it leaves the stream a waiting record becomes a dead letter, which is redriven
    /// automatically. Zero: never.
    pub rescue_before_trim: Duration,
    /// The pause after the first empty read; it doubles up to `idle_max`.
    pub idle_min: Duration,
    /// The longest pause between two reads of an idle shard.
    pub idle_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            worker_id: "worker".to_owned(),
            start: InitialPosition::Latest,
            concurrency: 16,
            memory_budget: 64 << 20,
            on_gap: OnGap::default(),
            backoff: Backoff::default(),
            attempts: AttemptLimits::default(),
            timing: Timing::default(),
            place: Place::default(),
            seed: fastrand::u64(..),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(2),
            look_interval: Duration::from_secs(1),
            listing_interval: Duration::from_mins(1),
            checkpoint_interval: Duration::from_secs(1),
            handover_timeout: Duration::from_secs(30),
            handler_timeout: Duration::from_mins(15),
            retention: Duration::from_hours(24),
            rescue_before_trim: Duration::from_hours(4),
            idle_min: Duration::from_millis(100),
            idle_max: Duration::from_secs(1),
        }
    }
}

impl Timing {
    /// How long a worker trusts its leases after it began its last successful heartbeat: a fifth less
    /// than `lease_duration`, so that clocks can run 20 % apart.
    pub fn trust(&self) -> Duration {
        self.lease_duration.mul_f64(0.8)
    }

    /// The age at which a waiting record is rescued; `None`: never.
    pub(crate) fn rescue_age(&self) -> Option<Duration> {
        let before = self.rescue_before_trim;
        (!before.is_zero()).then(|| self.retention.saturating_sub(before))
    }

    /// The timeout of a call to the lease table, which is then repeated.
    pub fn call_timeout(&self) -> Duration {
        self.lease_duration / 3
    }
}

impl Settings {
    /// The settings of a shard's pipeline.
    pub(crate) fn rules(&self, has_letters: bool, left_out: Option<Rule>) -> Rules {
        let dead_letters = DeadLetterRules {
            limits: self.attempts,
            rescue_age: self.timing.rescue_age(),
        };
        Rules {
            concurrency: self.concurrency,
            backoff: self.backoff,
            dead_letters: has_letters.then_some(dead_letters),
            comes_again: false,
            left_out,
        }
    }

    /// The settings of a member of the fleet.
    pub(crate) fn fleet_rules(&self, simulated: &Simulated) -> fleet::FleetRules {
        let timing = &self.timing;
        let trust = if simulated.leaves_out(fleet::FleetRule::TrustMargin) {
            timing.lease_duration.mul_f64(0.95)
        } else {
            timing.trust()
        };
        fleet::FleetRules {
            worker_id: self.worker_id.clone(),
            start: self.start,
            effects: GroupEffects::default(),
            accepts_new_identity: false,
            lease_duration: timing.lease_duration,
            trust,
            heartbeat_interval: timing.heartbeat_interval,
            look_interval: timing.look_interval,
            few_rows: simulated.few_rows.unwrap_or(FEW_ROWS),
            listing_interval: timing.listing_interval,
            handover_timeout: timing.handover_timeout,
            call_timeout: timing.call_timeout(),
            shortest_wait: timing.idle_min,
            retention: timing.retention,
            left_out: simulated.fleet,
        }
    }

    /// Checks that the settings are consistent.
    ///
    /// # Errors
    ///
    /// The wrong setting, and the allowed values.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let wrong = |what| Err(InvalidSetting(what));
        if self.worker_id.is_empty() {
            return wrong("the worker id is empty");
        }
        if self.concurrency == 0 {
            return wrong("the concurrency is 0; it must be at least 1");
        }
        if self.memory_budget < Budget::LEAST || self.memory_budget > 1 << 31 {
            return wrong(
                "the memory budget must be at least 2.5 MiB, which one read may take, and at most 2 GiB",
            );
        }
        if self.attempts.attempts == 0 {
            return wrong("the number of attempts is 0; it must be at least 1");
        }
        if self.timing.rescue_before_trim >= self.timing.retention {
            return wrong("rescue_before_trim must be shorter than the stream's retention");
        }
        if self.timing.heartbeat_interval * 3 > self.timing.lease_duration {
            return wrong("the lease duration must be at least three heartbeat intervals");
        }
        Ok(())
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(&'static str);
