//! Handlers in other languages.

mod answers;
mod command;
mod outage;
mod requests;
