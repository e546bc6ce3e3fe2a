//! Output: results as text and as JSON, and progress.

pub mod dead_letter;
pub mod explain;
pub mod gap;
pub mod ledger;
pub mod out;
pub mod progress;
pub mod status;
