//! Pure decisions: events in, commands out. The caller passes in time and randomness. There is no
//! async, no I/O and no clock here, so a test can play any history in a few lines.

mod attempts;
pub mod backoff;
pub mod breaker;
pub mod claim;
pub mod effects;
pub mod filter;
pub mod fleet;
#[cfg(test)]
mod golden;
pub mod group;
pub mod hash;
pub mod millis;
mod now;
pub mod overload;
// Parts of it are used only on Lambda.
#[cfg_attr(not(feature = "lambda"), allow(dead_code))]
pub(crate) mod pipeline;
mod position;
pub mod rate;
mod reason;
pub mod record;
pub mod shard;

pub use attempts::{Attempt, Attempts};
pub use now::Now;
pub use position::{InvalidSequenceNumber, Position, SequenceNumber};
pub use reason::Reason;
