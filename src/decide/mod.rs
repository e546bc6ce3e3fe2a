//! Pure decisions: no async, no I/O, no clock, no global randomness. What they need is handed in,
//! what they decide is handed back.

pub mod claim;
pub mod shard;
