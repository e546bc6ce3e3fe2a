//! What performs an effect once: its claims, its outcomes, and what it remembers of both.

pub(crate) mod attempt;
pub(crate) mod book;
pub(crate) mod late;
pub(crate) mod window;
