//! Acts exactly when DynamoDB commits.
//!
//! aftercommit follows a table's stream, passes each committed change to a [`RecordHandler`], in order
//! per item, and remembers how far it got. Any number of workers share the shards of a stream, without
//! a coordinator. `confirmation::Confirmation` is the handler behind the `aftercommit` command: one
//! email per order.
//!
//! # What is promised
//!
//! 1. **Nothing is lost.** A record is handled, filtered, or a dead letter; otherwise it is still ahead
//!    of the checkpoint. Records that the stream trimmed unread are recorded as a gap
//!    ([`stores::leases::GapRow`]).
//! 2. **At least once, and never silently twice.** A record may be delivered again after a crash or a
//!    change of owner. The confirmation keeps a ledger ([`stores::ledger`]), so that an order is mailed
//!    once; the one window that SMTP leaves open is named AMBIGUOUS there, and resolved by a policy.
//! 3. **Order per item.** Records of one item are handled one after another, in commit order, also
//!    across shard splits. Different items run in parallel.
//! 4. **The database is the arbiter.** Every decision that two workers could race for is one
//!    conditional write. Clocks decide only when to look.
//! 5. **It fails soft.** [`Failure`] distinguishes a bad record from a dependency that is down.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`RecordHandler`], [`Record`], [`Context`], [`Failure`] | what you write |
//! | [`Consumer`], [`Settings`] | one member of the fleet, and how it works |
//! | [`engine`] | settings in detail; redriving dead letters; `engine::lambda` (feature `lambda`): the same handler behind an event source mapping |
//! | [`stores`] | the stream and the tables, in memory and in DynamoDB; creating them |
//! | [`record`], [`filter`] | records in detail, and which of them are handled |
//! | [`monitor`] | health, metrics, and the whole fleet as a page |
//! | [`once`] | effects that take place once: a claim before, the outcome after |
//! | `handlers` | a handler in any language, over HTTP (feature `http`) |
//! | `confirmation` | the handler of the `aftercommit` command (feature `mail`) |
//! | `simulation` | a whole fleet with your handler under seeded faults (feature `simulation`) |
//!
//! # A consumer
//!
//! ```no_run
//! use aftercommit::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
//! use aftercommit::stores::leases::dynamodb::DynamoDbLeases;
//! use aftercommit::stores::source::dynamodb::DynamoDbStream;
//! use aftercommit::stores::tables::dynamodb::TableStream;
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
//! let consumer = Consumer::new(orders, source, leases).handler(Print);
//! consumer.dead_letters(letters).run(shutdown).await
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "cli")]
#[cfg_attr(docsrs, doc(cfg(feature = "cli")))]
pub mod cli;
#[cfg(feature = "mail")]
#[cfg_attr(docsrs, doc(cfg(feature = "mail")))]
pub mod confirmation;
mod core;
pub mod engine;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod handlers;
mod hooks;
#[doc(hidden)]
pub mod internal;
pub mod monitor;
pub mod once;
#[cfg(feature = "simulation")]
#[cfg_attr(docsrs, doc(cfg(feature = "simulation")))]
pub mod simulation;
pub mod stores;

pub use core::group::{EffectName, Group, GroupTable};
pub use core::record::{Event, Record};
pub use core::{filter, record};
pub use engine::consumer::Consumer;
pub use engine::dependency::Dependency;
pub use engine::effect::Effect;
pub use engine::handler::{Context, Failure, RecordHandler};
pub use engine::settings::Settings;
pub use stores::clock::Clock;
