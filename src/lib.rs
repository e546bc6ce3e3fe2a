//! Acts exactly when DynamoDB commits.
//!
//! It follows a table's stream, hands each committed change to a [`RecordHandler`], in order for
//! each item, and remembers how far it got. Any number of workers share the shards of a stream, and
//! nobody is in charge. [`confirmation::Confirmation`] is the handler behind the `aftercommit`
//! command: one email for each order.
//!
//! # What is promised
//!
//! 1. **Nothing is lost.** A record is handled, or it lies ahead of the checkpoint. What the stream
//!    dropped before anybody could read it is a gap that is written down ([`leases::GapRow`]).
//! 2. **At least once, and never silently twice.** A record may come again, after a crash or a
//!    change of owner. The confirmation keeps a [`ledger`], so that an order is mailed once; the one
//!    window that SMTP leaves open is named AMBIGUOUS there, and settled by a policy
//!    ([`decide::claim::OnAmbiguous`]).
//! 3. **Order for each item.** Records of one item are handled one after another, in the order of
//!    their commits, also across shard splits. Different items go in parallel.
//! 4. **The database is the arbiter.** Whatever two workers could race for is one conditional write.
//!    Clocks only choose when to look.
//! 5. **It fails soft.** [`Failure`] tells a bad record from a dependency that is down.
//!
//! # A tour
//!
//! Arrows point one way; each line sees only the ones above it.
//!
//! | | |
//! |---|---|
//! | `core` | pure machines: the pipeline of records in flight |
//! | [`decide`] | pure decisions: shard lineage, who takes what, claims |
//! | [`record`], [`handler`] | what comes, and what you write |
//! | [`source`], [`leases`], [`ledger`] | the stream, the lease table and the ledger: in memory and in DynamoDB |
//! | [`tables`] | making them, and finding a table's stream |
//! | `run_pipeline` | does what a pipeline says: calls the handler, writes dead letters |
//! | [`redrive`], `shard_task` | what feeds a pipeline: dead letters, and a shard, which is read and checkpointed |
//! | [`Consumer`] | one member of the fleet: look, plan, apply |
//! | `lambda` | the same pipeline behind an event source mapping of AWS Lambda (feature `lambda`) |
//! | [`status`] | how it goes: health, metrics, and the whole fleet as a page |
//! | [`confirmation`] | the order's email; sees only handlers and the ledger |
//!
//! # A consumer
//!
//! ```no_run
//! use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
//! use aftercommit::leases::dynamodb::DynamoDbLeases;
//! use aftercommit::source::dynamodb::DynamoDbStream;
//! use aftercommit::tables::dynamodb::TableStream;
//! use aftercommit::{
//!     Clock, Consumer, Context, Failure, Group, GroupTable, Record, RecordHandler,
//! };
//!
//! struct Print;
//!
//! impl RecordHandler for Print {
//!     async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
//!         println!("{:?} {}", record.event, record.key().as_str());
//!         Ok(())
//!     }
//! }
//!
//! # async fn example(
//! #     dynamodb: aws_sdk_dynamodb::Client,
//! #     streams: aws_sdk_dynamodbstreams::Client,
//! # ) -> anyhow::Result<()> {
//! let arn = TableStream::resolve(&dynamodb, "orders").await?.arn;
//! let source = DynamoDbStream::new(streams, &arn, Clock::system());
//! let orders = GroupTable::new(Group::default(), &arn);
//! let leases = DynamoDbLeases::new(dynamodb.clone(), "aftercommit-leases", &orders);
//! // Without dead letters, the first bad record holds its shard's checkpoint.
//! let letters = DynamoDbDeadLetters::new(dynamodb, "aftercommit-dead-letters");
//! let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! let consumer = Consumer::new(orders, source, leases, Print);
//! consumer.dead_letters(letters).run(shutdown).await
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aws_error;
mod budget;
pub mod clock;
#[cfg(feature = "mail")]
pub mod confirmation;
mod consumer;
mod core;
pub mod dead_letter;
pub mod decide;
pub mod dependency;
mod engine;
pub mod filter;
mod gate;
pub mod group;
pub mod handler;
#[cfg(feature = "lambda")]
pub mod lambda;
pub mod leases;
pub mod ledger;
pub mod progress;
pub mod record;
pub mod redrive;
mod rows;
mod run_pipeline;
mod settings;
mod shard_task;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod source;
pub mod status;
pub mod tables;
pub mod trust;

pub use budget::Budget;
pub use clock::Clock;
pub use consumer::{Consumer, IdentityDiffers};
pub use dependency::Dependency;
pub use group::{Effect, Group, GroupTable, Identity};
pub use handler::{Context, Failure, RecordHandler};
pub use progress::{Counters, Progress};
pub use record::{Event, Record, SequenceNumber};
pub use settings::{InvalidSetting, OnGap, Place, Settings, Timing};
