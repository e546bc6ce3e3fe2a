//! Flags that several commands share, and what they mean.

pub mod copies;
pub mod fleet;
pub mod identity;
pub mod mail;
pub mod note;
pub mod order;
pub mod password;
pub mod place;
pub mod records;
pub mod sending;
pub mod tables;
