//! Pure decisions: no async, no I/O, no clock, no global randomness. What they need is handed in,
//! what they decide is handed back.

pub mod blame;
pub mod claim;
pub mod gate;
pub mod hash;
pub mod line;
pub mod overload;
pub mod rate;
pub mod retry;
pub mod shard;
pub mod throttle;
