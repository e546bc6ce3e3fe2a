//! All integration tests in one binary: each binary would link the AWS SDK anew.

mod mail;
mod order;
mod template;
