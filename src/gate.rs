//! Where a simulation reaches into the shipped code: it holds a whole worker still, as SIGSTOP
//! does, sees what a worker takes for its own, and leaves out a rule to see that it is needed. Without the feature `simulation` nothing
//! of this is there.

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

/// Whether the simulation leaves this rule out.
#[cfg(feature = "simulation")]
macro_rules! left_out {
    ($rule:ident) => {
        $crate::simulation::flaw::has($crate::simulation::Flaw::$rule)
    };
}

/// No rule is ever left out.
#[cfg(not(feature = "simulation"))]
macro_rules! left_out {
    ($rule:ident) => {
        false
    };
}

pub(crate) use left_out;
