//! Workers that share a stream: real processes, and streams that split and end.

mod no_stream;
pub mod process;
mod stopping;
pub mod storm;
mod stuck;
mod wire_faults;
pub mod wire_fleet;
pub mod wire_streams;
mod wire_table;
