//! Where a simulation reaches into the shipped code: it freezes a whole worker, as SIGSTOP does, and sees
//! what a worker considers its own. Without the feature `simulation` these functions do nothing.

#[cfg(feature = "simulation")]
pub(crate) use crate::simulation::gate::{gated, owned};

/// The future itself.
#[cfg(not(feature = "simulation"))]
pub(crate) fn gated<F: Future>(future: F) -> F {
    future
}

/// Nothing watches the owners.
#[cfg(not(feature = "simulation"))]
pub(crate) fn owned<H, T>(_: &H, _: &T) {}
