//! Acts exactly when DynamoDB commits.

pub mod clock;
pub mod confirmation;
mod consumer;
pub mod dead_letter;
pub mod decide;
mod engine;
pub mod filter;
mod gate;
pub mod handler;
pub mod leases;
pub mod ledger;
pub mod record;
pub mod redrive;
mod rows;
mod settings;
mod shard_task;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod source;
pub mod tables;
pub mod trust;

pub use clock::Clock;
pub use consumer::Consumer;
pub use engine::{Budget, Counters};
pub use handler::{Context, Failure, RecordHandler};
pub use record::{Event, Record, SequenceNumber};
pub use settings::{InvalidSetting, OnGap, Place, Settings, Timing};
