//! The tables: making the engine's own, and finding the stream of the one that it follows.

pub mod dynamodb;
mod index {
    pub(super) mod dynamodb;
}
