//! Benchmarks as commands: each prints one JSON line last. `drain` and `mail` compare with something
//! that is known to be fast, in turn on the same machine.
//!
//! ```text
//! cargo run --release --example bench -- drain
//! cargo run --release --example bench -- mail
//! cargo run --release --example bench -- memory
//! cargo run --release --example bench -- plan
//! cargo run --release --example bench -- shard
//! ```

mod drain;
mod mail;
mod memory;
mod plan;
mod shard;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A stream with a handler that does nothing, and a bare loop of `GetRecords`.
    Drain(drain::Options),
    /// Our sender and Postfix's smtp-source, both against smtp-sink.
    Mail(mail::Options),
    /// The memory of the process while records wait, against the budget.
    Memory(memory::Options),
    /// Sharing 10,000 shards among 100 workers.
    Plan(plan::Options),
    /// What one shard passes with a handler that takes 5 ms.
    Shard(shard::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Drain(options) => drain::run(&options).await,
        What::Mail(options) => mail::run(&options).await,
        What::Memory(options) => memory::run(&options).await,
        What::Shard(options) => shard::run(&options).await,
        What::Plan(options) => plan::run(&options),
    }
}
