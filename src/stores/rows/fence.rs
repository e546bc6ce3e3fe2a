//! The condition that a lease is still held, on a write to another table.
//!
//! The condition and the write are one transaction, and two transactions with a condition on the same
//! row refuse each other. So writes under one fence wait in line. One waiting caller writes for all of
//! them, as many as fit into one transaction, while the next ones gather.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;

use super::dynamodb::Table;
use super::expression::RowExpression;
use super::fields::Fields;
use super::transaction::{MOST_BYTES, MOST_PARTS, Part, Transaction};

/// A lease that must still be held, under the same epoch, when something else is written. The write and
/// the condition are one transaction, so both tables must be in one account and Region.
#[derive(Clone)]
pub struct Fence {
    demand: Demand,
    line: Arc<WriteQueue>,
}

/// How a store checks whether the lease is still held.
#[derive(Clone)]
pub(crate) enum Demand {
    /// This row of this table must meet a condition.
    Row {
        table: Arc<str>,
        key: Fields,
        when: RowExpression,
    },
    /// This process knows.
    Asked(Arc<dyn Fn() -> bool + Send + Sync>),
}

/// How a write under a fence ended. An error means that it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fenced {
    /// It was applied.
    Applied,
    /// Nothing was applied: the condition of one of its parts failed.
    Refused,
    /// Nothing was applied: another worker holds the lease.
    LeaseLost,
}

/// The waiting writes.
struct WriteQueue {
    waiting: Mutex<VecDeque<WaitingWrite>>,
    /// The caller that holds this lock writes.
    turn: tokio::sync::Mutex<()>,
    /// How many writes go into one transaction. One after an error, as one of them may be the cause;
    /// twice as many after each success.
    at_once: AtomicUsize,
}

/// A write that waits for its transaction.
struct WaitingWrite {
    table: Table,
    parts: Vec<Part>,
    /// The most bytes that it takes.
    size: usize,
    answer: oneshot::Sender<anyhow::Result<Fenced>>,
}

impl Fence {
    /// A fence around leases that are kept in this process.
    pub fn asked(is_held: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self::new(Demand::Asked(Arc::new(is_held)))
    }

    pub(crate) fn new(demand: Demand) -> Self {
        let line = Arc::new(WriteQueue {
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            at_once: AtomicUsize::new(MOST_PARTS),
        });
        Self { demand, line }
    }

    pub(crate) fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Applies all of these parts or none, if the lease is still held. `size` is the most bytes that
    /// they write. Dropping the future leaves nothing behind, but can interrupt a transaction of other
    /// writes, which then end with an error.
    pub(crate) async fn write(
        &self,
        table: &Table,
        parts: Vec<Part>,
        size: usize,
    ) -> anyhow::Result<Fenced> {
        let demand = match &self.demand {
            Demand::Asked(is_held) if is_held() => {
                return Ok(match table.transact(parts).await? {
                    Transaction::Applied => Fenced::Applied,
                    Transaction::Refused(_) => Fenced::Refused,
                });
            }
            Demand::Asked(_) => return Ok(Fenced::LeaseLost),
            Demand::Row { table, key, when } => {
                Part::DemandOf(table.clone(), key.clone(), when.clone())
            }
        };
        let (answer, mut answered) = oneshot::channel();
        self.line.waiting().push_back(WaitingWrite {
            table: table.clone(),
            parts,
            size,
            answer,
        });
        // Other callers that are about to write can join.
        tokio::task::yield_now().await;
        let _turn = tokio::select! {
            biased;
            answer = &mut answered => return answer.context(INTERRUPTED)?,
            turn = self.line.turn.lock() => turn,
        };
        loop {
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Closed) => return Err(anyhow!(INTERRUPTED)),
                Err(oneshot::error::TryRecvError::Empty) => self.line.write_some(&demand).await,
            }
        }
    }
}

const INTERRUPTED: &str = "the transaction was interrupted in which this was written";

impl WriteQueue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<WaitingWrite>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many as fit into one transaction, but at least the first. They are all for one table, and no
    /// row is written twice.
    fn next_batch(&self) -> Vec<WaitingWrite> {
        let mut waiting = self.waiting();
        let at_once = self.at_once.load(Ordering::Relaxed);
        let mut batch: Vec<WaitingWrite> = Vec::new();
        // One part is the lease's condition.
        let (mut parts, mut size) = (1, 0);
        while let Some(next) = waiting.pop_front() {
            if next.answer.is_closed() {
                continue;
            }
            let mut others = batch.iter();
            let fits = batch.len() < at_once
                && parts + next.parts.len() <= MOST_PARTS
                && size + next.size <= MOST_BYTES
                && others.all(|other| other.goes_with(&next));
            if !batch.is_empty() && !fits {
                waiting.push_front(next);
                break;
            }
            parts += next.parts.len();
            size += next.size;
            batch.push(next);
        }
        batch
    }

    /// Writes some of the waiting writes, and reports the result to them.
    async fn write_some(&self, demand: &Part) {
        let mut batch = self.next_batch();
        while let Some(first) = batch.first() {
            let all = batch.iter().flat_map(|one| one.parts.iter());
            let parts = [demand].into_iter().chain(all).cloned().collect();
            let refused = match first.table.transact(parts).await {
                Ok(Transaction::Applied) => {
                    let doubled = batch.len() * 2;
                    self.at_once.fetch_max(doubled, Ordering::Relaxed);
                    answer(batch, Fenced::Applied);
                    return;
                }
                Ok(Transaction::Refused(refused)) => refused,
                Err(error) => {
                    self.at_once.store(1, Ordering::Relaxed);
                    for one in batch {
                        // A dropped caller no longer waits.
                        let _ = one.answer.send(Err(anyhow!("{error:#}")));
                    }
                    return;
                }
            };
            if refused.first() == Some(&true) {
                answer(batch, Fenced::LeaseLost);
                return;
            }
            let (others, failed) = without(batch, &refused);
            if failed.is_empty() {
                // No condition failed, so this is not the expected answer.
                answer(others, Fenced::Refused);
                return;
            }
            answer(failed, Fenced::Refused);
            batch = others;
        }
    }
}

impl WaitingWrite {
    /// Whether both fit into one transaction.
    fn goes_with(&self, other: &Self) -> bool {
        let taken = |part: &Part| self.parts.iter().any(|mine| mine.key() == part.key());
        self.table.name() == other.table.name() && !other.parts.iter().any(taken)
    }
}

/// The writes whose conditions held, and those with a failed one.
fn without(batch: Vec<WaitingWrite>, refused: &[bool]) -> (Vec<WaitingWrite>, Vec<WaitingWrite>) {
    let mut at = 1;
    batch.into_iter().partition(|one| {
        let mine = refused.iter().skip(at).take(one.parts.len());
        at += one.parts.len();
        !mine.copied().any(|failed| failed)
    })
}

fn answer(batch: Vec<WaitingWrite>, how: Fenced) {
    for one in batch {
        // A dropped caller no longer waits.
        let _ = one.answer.send(Ok(how));
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}
