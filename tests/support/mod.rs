//! What several tests need.

pub mod mail_server;
pub mod orders;
