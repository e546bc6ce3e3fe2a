//! What a worker says of itself: page, metrics, log.

pub mod health;
mod log;
pub mod page;
mod report;
pub mod watching;
