//! What a worker says of itself: page, metrics, log.

mod log;
pub mod page;
mod report;
pub mod watching;
