//! Acts exactly when DynamoDB commits.

pub mod clock;
pub mod confirmation;
pub mod decide;
pub mod handler;
pub mod leases;
pub mod ledger;
pub mod record;
mod rows;
pub mod source;
pub mod tables;
pub mod trust;

pub use clock::Clock;
pub use handler::{Context, Failure, RecordHandler};
pub use record::{Event, Record, SequenceNumber};
