//! Records before they reach a handler, filters, and redriving.

pub mod filter;
mod filter_mistakes;
mod filter_random;
mod lambda_event;
mod poison;
mod record;
mod redrive;
mod which_changes;
