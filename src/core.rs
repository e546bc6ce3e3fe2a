//! Pure machines: events in, commands out. Time and randomness are handed in; there is no async, no
//! I/O and no clock here, so that a test can play any history in a few lines.

mod attempts;
pub mod fleet;
#[cfg(test)]
mod golden;
mod now;
// Some of it serves Lambda only.
#[cfg_attr(not(feature = "lambda"), allow(dead_code))]
pub(crate) mod pipeline;
mod position;
mod reason;

pub use attempts::{Attempt, Attempts};
pub use now::Now;
pub use position::{InvalidSequenceNumber, Position, SequenceNumber};
pub use reason::Reason;
