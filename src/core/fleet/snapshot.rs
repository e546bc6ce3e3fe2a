//! The result of one look at the lease table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::rows::{
    ARCHIVE, FORMAT, GROUP_ROW, GapRow, GroupRow, LeaseRow, SHARD, StreamRow, WORKER, WorkerRow,
};
use super::terms::Incarnation;
use crate::core::shard::ShardId;

/// All rows of a group on a table, as one query saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The group's own row, once written.
    pub group: Option<GroupRow>,
    /// The table's streams, by label.
    pub streams: BTreeMap<Arc<str>, StreamRow>,
    /// The workers' heartbeats.
    pub workers: BTreeMap<Incarnation, WorkerRow>,
    /// The leases.
    pub leases: BTreeMap<ShardId, LeaseRow>,
    /// The archived leases.
    pub archived: BTreeSet<ShardId>,
    /// The gaps.
    pub gaps: Vec<GapRow>,
    /// Rows that this build cannot read, with the reason.
    pub unreadable: Vec<Unreadable>,
}

impl View {
    /// The rows within this reach.
    #[must_use]
    pub fn within(&self, reach: Reach) -> Self {
        let unreadable = |is_there: fn(&Unreadable) -> bool| {
            let rows = self.unreadable.iter().filter(|row| is_there(row));
            rows.cloned().collect()
        };
        match reach {
            Reach::All => self.clone(),
            Reach::Current => {
                let leases = self.leases.iter();
                let current = leases.filter(|(shard, _)| !self.archived.contains(*shard));
                Self {
                    group: self.group.clone(),
                    streams: self.streams.clone(),
                    workers: self.workers.clone(),
                    leases: current.map(|(id, row)| (id.clone(), row.clone())).collect(),
                    archived: BTreeSet::new(),
                    gaps: self.gaps.clone(),
                    unreadable: unreadable(|row| !row.is_archived()),
                }
            }
            Reach::Workers => Self {
                workers: self.workers.clone(),
                unreadable: unreadable(|row| row.worker().is_some()),
                ..Self::default()
            },
        }
    }

    /// Replaces the heartbeats by those of a later look at the heartbeats alone.
    pub fn update_workers(&mut self, later: &Self) {
        self.workers.clone_from(&later.workers);
        self.unreadable.retain(|row| row.worker().is_none());
        self.unreadable.extend_from_slice(&later.unreadable);
    }

    /// How many rows a look at the current rows reads; only kinds whose number grows.
    pub fn rows(&self) -> usize {
        let leases = self.leases.keys();
        let current = leases.filter(|shard| !self.archived.contains(*shard));
        current.count() + self.workers.len() + self.newer_workers().count()
    }

    /// Whether the shard has a lease, readable or not.
    pub fn has_lease(&self, shard: &ShardId) -> bool {
        let is_it = |row: &Unreadable| row.shard().is_some_and(|id| id == *shard);
        self.leases.contains_key(shard) || self.unreadable.iter().any(is_it)
    }

    /// Whether there is no lease, and no row that might be one.
    pub fn has_no_leases(&self) -> bool {
        self.leases.is_empty() && self.unreadable.is_empty()
    }

    /// Whether something was ever read, and nothing is left to read.
    pub fn is_idle(&self) -> bool {
        let has_begun = !self.leases.is_empty() || !self.streams.is_empty();
        has_begun && self.leases.values().all(LeaseRow::ended)
    }

    /// Workers whose rows were written by a newer version. This build cannot tell whether they are
    /// alive, so it leaves their leases alone and gives them none.
    pub fn newer_workers(&self) -> impl Iterator<Item = Incarnation> {
        let newer = self.unreadable.iter().filter(|row| row.is_newer());
        newer.filter_map(Unreadable::worker)
    }

    /// The newest format of any row, readable or not. 0 without a row.
    pub fn newest_format(&self) -> u32 {
        let newer = self.unreadable.iter().filter_map(|row| match row.why {
            Unfit::Newer { format } => Some(format),
            Unfit::Malformed { .. } => None,
        });
        let formats = self.leases.values().map(|row| row.format).chain(newer);
        formats.max().unwrap_or(0)
    }

    /// The newest format that every worker with a readable row can read. A worker whose row cannot be
    /// read is newer.
    pub fn read_by_all(&self) -> u32 {
        let reads = self.workers.values().map(|worker| worker.reads);
        reads.min().unwrap_or(FORMAT)
    }
}

/// A view, and what it proves.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The rows.
    pub view: Arc<View>,
    /// When the look began, on the worker's own clock. It says nothing about what happened later.
    pub began: Duration,
    /// The look was consistent: it saw every write that was answered before it began.
    pub consistent: bool,
}

/// A row that this build cannot read. The others are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The row's key, such as `shard#shardId-0001`.
    pub row: String,
    /// The reason.
    pub why: Unfit,
}

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// A newer build wrote it: it is left alone.
    Newer {
        /// The format that the row carries.
        format: u32,
    },
    /// It is damaged. The full listing repairs it.
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

/// Which rows a look reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The heartbeats alone.
    Workers,
    /// All but the archived leases.
    Current,
    /// All of them.
    All,
}

/// How fresh a look has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It may lag, and costs half.
    Eventual,
    /// It sees every write that was answered before the look began.
    Strong,
}

impl Unreadable {
    /// The shard, if the row is a lease.
    pub fn shard(&self) -> Option<ShardId> {
        self.lease().map(ShardId::new)
    }

    /// The label of the shard's stream, if the row is a lease and has one.
    pub fn label(&self) -> Option<&str> {
        self.lease()?.split_once('#').map(|(label, _)| label)
    }

    fn lease(&self) -> Option<&str> {
        let row = &self.row;
        row.strip_prefix(SHARD)
            .or_else(|| row.strip_prefix(ARCHIVE))
    }

    /// The worker, if the row is a heartbeat.
    pub fn worker(&self) -> Option<Incarnation> {
        self.row.strip_prefix(WORKER).map(Incarnation::from_row)
    }

    /// Whether it is an archived lease.
    pub fn is_archived(&self) -> bool {
        self.row.starts_with(ARCHIVE)
    }

    /// Whether it is the group's own row.
    pub fn is_group(&self) -> bool {
        self.row == GROUP_ROW
    }

    /// Whether a newer version wrote it.
    pub fn is_newer(&self) -> bool {
        matches!(self.why, Unfit::Newer { .. })
    }
}
