//! A whole fleet under a deterministic simulation.

pub(crate) mod gate;
