//! The stream and the tables: contracts that each store keeps, and what DynamoDB does.

mod aws_errors;
mod contract_dead_letters;
pub mod contract_leases;
mod contract_ledger;
pub mod copies;
mod dead_letters;
mod fencing;
mod kept_records;
mod lease_formats;
pub mod leases;
mod ledger;
mod listed_dead_letters;
mod requests;
mod service_time;
mod stream;
mod throttle;
