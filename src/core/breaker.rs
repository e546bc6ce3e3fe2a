//! The circuit breaker of one dependency, and the limiters beside it: when calls are allowed, how many
//! at a time, and whose fault a failure is.

pub mod blame;
pub mod circuit;
pub mod line;
pub mod throttle;
