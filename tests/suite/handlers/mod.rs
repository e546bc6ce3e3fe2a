//! Handlers in other languages.

mod answers;
mod batch;
mod command;
mod effects;
mod function;
#[cfg(feature = "lambda")]
mod languages;
mod once;
mod outage;
mod requests;
