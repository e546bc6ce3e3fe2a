//! AWS Lambda.

mod batch;
mod moving;
pub mod process;
mod real_runtime;
