//! For the tests and the benchmarks of this package. This is not part of the public
//! interface and changes without notice.
#![allow(missing_docs)]

pub use crate::core::{backoff, breaker, claim, fleet, group, rate, shard};

pub mod aws_error {
    pub use crate::stores::aws_error::*;
}
pub mod clock {
    pub use crate::stores::clock::*;
}
pub mod dependency {
    pub use crate::engine::dependency::*;
}
pub mod handler {
    pub use crate::engine::handler::*;
}
pub mod progress {
    pub use crate::engine::progress::*;
}
