//! Everything beside the code: layout, documents, infrastructure.

pub mod arrows;
mod circles;
mod documents;
mod iam;
mod infra;
mod names;
mod runbook;
mod sizes;
