//! For the command, the tests and the benchmarks of this package. This is not part of the public
//! interface and changes without notice.
#![allow(missing_docs)]

pub mod aws_error {
    pub use crate::aws_error::*;
}
pub mod clock {
    pub use crate::clock::*;
}
pub mod decide {
    pub use crate::decide::*;
}
pub mod dependency {
    pub use crate::dependency::*;
}
pub mod fleet {
    pub use crate::core::fleet::*;
}
pub mod group {
    pub use crate::group::*;
}
pub mod handler {
    pub use crate::handler::*;
}
pub mod progress {
    pub use crate::progress::*;
}
