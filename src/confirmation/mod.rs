//! The order-confirmation handler.

pub mod smtp;
