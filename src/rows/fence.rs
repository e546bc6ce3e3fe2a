//! That a lease is still held, demanded of a write to another table.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::expression::Expression;
use super::fields::Fields;

/// A lease that must still be held, under the same epoch, when something else is written. The
/// write and the demand are one transaction, so both tables must lie in one account and Region.
#[derive(Clone)]
pub struct Fence {
    demand: Demand,
    /// Two transactions on one row refuse each other: those under one fence go one after another.
    turn: Arc<Mutex<()>>,
}

/// How a store finds out whether the lease is still held.
#[derive(Clone)]
pub(crate) enum Demand {
    /// This row of this table must meet a condition.
    Row {
        table: Arc<str>,
        key: Fields,
        when: Expression,
    },
    /// This process knows.
    Asked(Arc<dyn Fn() -> bool + Send + Sync>),
}

impl Fence {
    /// A fence around leases that are kept in this process.
    pub fn asked(is_held: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self::new(Demand::Asked(Arc::new(is_held)))
    }

    pub(crate) fn new(demand: Demand) -> Self {
        let turn = Arc::default();
        Self { demand, turn }
    }

    pub(crate) fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Waits for those who write under the same fence.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}
