//! Where a simulation reaches into the shipped code: it holds a whole worker still, as SIGSTOP does, and
//! sees what a worker takes for its own. Without the feature `simulation` nothing of this is there.

#[cfg(feature = "simulation")]
pub(crate) use crate::simulation::gate::{gated, owned};

/// The future itself.
#[cfg(not(feature = "simulation"))]
pub(crate) fn gated<F: Future>(future: F) -> F {
    future
}

/// Nobody watches who owns what.
#[cfg(not(feature = "simulation"))]
pub(crate) fn owned<H, T>(_: &H, _: &T) {}
