//! Handlers in other languages.

mod answers;
mod command;
mod function;
mod outage;
mod requests;
