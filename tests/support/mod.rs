//! What several tests need.

pub mod flaky_ledger;
pub mod mail_server;
pub mod orders;
