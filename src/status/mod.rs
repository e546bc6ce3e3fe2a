//! How a fleet is doing: what its rows mean to people, and what to do next.

mod advice;
pub mod report;
mod rows;

pub use report::{FleetStatus, ShardState, StreamStatus, Verdict};
