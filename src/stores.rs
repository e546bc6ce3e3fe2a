//! The stream, and the tables in which a fleet keeps its state. Each has a trait, an implementation in
//! memory for tests, and one in DynamoDB.

/// The stream: shards, iterators and records.
pub mod source {
    pub use crate::source::*;
}

/// The lease table: which worker reads which shard, how far it is, and gaps.
pub mod leases {
    pub use crate::leases::*;
}

/// Records that failed, with their images.
pub mod dead_letter {
    pub use crate::dead_letter::*;
}

/// Handling dead letters again, key by key, oldest first.
pub mod redrive {
    pub use crate::redrive::*;
}

/// What was sent: one row per effect key.
pub mod ledger {
    pub use crate::ledger::*;
}

/// Creating the tables, and finding a table's stream.
pub mod tables {
    pub use crate::tables::*;
}
