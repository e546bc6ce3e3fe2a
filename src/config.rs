//! How a [`Consumer`](crate::Consumer) works: the parts of [`Settings`](crate::Settings), and what
//! several consumers share.

pub use crate::budget::Budget;
pub use crate::consumer::IdentityDiffers;
pub use crate::decide::retry::{AttemptLimits, Backoff};
pub use crate::dependency::Limits;
pub use crate::group::{Identity, InvalidName};
pub use crate::settings::{InvalidSetting, OnGap, Place, Timing};
