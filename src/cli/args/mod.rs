//! Flags that several commands share, and what they mean.

pub mod copies;
pub mod entries;
pub mod fleet;
pub mod group_rows;
pub mod handler;
pub mod http;
pub mod identity;
pub mod item;
pub mod letters;
pub mod mail;
pub mod means;
pub mod note;
pub mod order;
pub mod password;
pub mod place;
pub mod records;
pub mod sending;
pub mod source;
pub mod tables;
