//! Where a simulation holds a whole worker still, as SIGSTOP does. Without the feature
//! `simulation` there is nothing here.

#[cfg(feature = "simulation")]
pub(crate) use crate::simulation::gate::gated;

/// The future itself.
#[cfg(not(feature = "simulation"))]
pub(crate) fn gated<F: Future>(future: F) -> F {
    future
}
