//! What the answering process reports about itself, with its history of half an hour.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::metrics::Mails;
use super::stream::rfc3339;

/// The answering process: a part of `status.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Process {
    /// The build.
    pub version: &'static str,
    /// The worker's name and incarnation, once it runs.
    pub worker: Option<String>,
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Whether `/readyz` succeeds.
    pub ready: bool,
    /// Why it does not.
    pub not_ready_because: Option<String>,
    /// Bytes of records in memory, and of reads in progress.
    pub buffered_bytes: usize,
    /// The memory budget in bytes.
    pub buffer_limit_bytes: usize,
    /// The outcomes of mails; `None`: the handler sends none.
    pub mails: Option<Mails>,
    /// How long the handler's dependency has been down, in seconds; 0: it is up.
    pub dependency_down_seconds: f64,
    /// One moment every five seconds, for half an hour.
    pub history: Vec<ProcessMoment>,
}

/// The state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessMoment {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The lag of the shard that is furthest behind, in seconds; `None`: no shard is read.
    pub lag_seconds: Option<f64>,
    /// How long until the next unfinished record leaves the stream, in seconds.
    pub until_trim_seconds: Option<f64>,
    /// Records finished since the start.
    pub finished_total: u64,
    /// Mails accepted since the start.
    pub accepted_total: u64,
}

/// The time between two moments.
const APART: Duration = Duration::from_secs(5);

/// How many moments are kept: half an hour.
const KEPT: usize = 360;

/// The last half hour.
#[derive(Debug, Default)]
pub(super) struct ProcessHistory {
    moments: VecDeque<ProcessMoment>,
    due: Duration,
}

impl ProcessHistory {
    /// Adds the moment, if one is due.
    pub fn add(&mut self, now: Duration, moment: ProcessMoment) {
        if now < self.due {
            return;
        }
        self.due = now + APART;
        if self.moments.len() == KEPT {
            self.moments.pop_front();
        }
        self.moments.push_back(moment);
    }

    /// Oldest first.
    pub fn moments(&self) -> impl Iterator<Item = &ProcessMoment> {
        self.moments.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_half_an_hour_in_steps_of_five_seconds() {
        let mut history = ProcessHistory::default();
        for second in 0..3_600 {
            let moment = ProcessMoment {
                at: SystemTime::UNIX_EPOCH,
                lag_seconds: None,
                until_trim_seconds: None,
                finished_total: second,
                accepted_total: 0,
            };
            history.add(Duration::from_secs(second), moment);
        }
        let seconds: Vec<_> = history.moments().map(|one| one.finished_total).collect();
        assert_eq!(seconds.len(), 360);
        assert_eq!((seconds[0], seconds[359]), (1_800, 3_595));
    }
}
