//! Pure decisions: events in, commands out. Time and randomness are handed in; there is no async, no
//! I/O and no clock here, so that a test can play any history in a few lines.

mod attempts;
pub mod backoff;
pub mod breaker;
pub mod claim;
pub mod filter;
pub mod fleet;
#[cfg(test)]
mod golden;
pub mod group;
pub mod hash;
pub mod millis;
mod now;
pub mod overload;
// Some of it serves Lambda only.
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
