//! Handlers in other languages.

mod answers;
mod outage;
mod requests;
