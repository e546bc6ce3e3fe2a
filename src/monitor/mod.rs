//! How a worker and its fleet are doing: what the rows mean and what to do next, whether the process is
//! well, and what it has counted.
//!
//! [`FleetStatus`] is made from the rows of one look at the lease table. [`Status`] watches the
//! consumers of a process; `http::serve` serves it, and [`emf::Emf`] writes it for CloudWatch. Your own
//! binary can serve the same as `aftercommit run --http` (feature `http`):
//!
#![cfg_attr(feature = "http", doc = "```no_run")]
#![cfg_attr(not(feature = "http"), doc = "```ignore")]
//! # use aftercommit::stores::source::memory::MemoryStream;
//! # use aftercommit::stores::leases::memory::MemoryLeases;
//! # use aftercommit::Consumer;
//! use aftercommit::Clock;
//! use aftercommit::monitor::{Status, Watch, http};
//!
//! # async fn example(consumer: Consumer<MemoryStream, MemoryLeases>) -> anyhow::Result<()> {
//! let status = Status::new(Clock::system(), [Watch::of(&consumer)]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
//! let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! tokio::select! {
//!     ended = consumer.run(shutdown) => ended?,
//!     served = http::serve(listener, status) => served?,
//! }
//! # Ok(())
//! # }
//! ```

mod asked;
#[cfg(feature = "http")]
mod connections;
pub mod emf;
pub mod findings;
pub mod health;
#[cfg(feature = "http")]
pub mod http;
pub mod levels;
pub mod metrics;
pub mod process_report;
pub mod report;
mod rows;
pub mod stream;
mod watched;
mod watcher;

pub use crate::engine::progress::{Beats, Counters, Histogram, Progress, ShardNow};
pub use findings::{Finding, FindingKind, ResolvedBy};
pub use report::FleetStatus;
pub use stream::{ShardState, StatusVerdict, StreamStatus};
pub use watched::Watch;
pub use watcher::Status;
