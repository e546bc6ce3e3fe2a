//! The order-confirmation handler: an order committed to the table becomes one email.

pub mod address;
pub mod mail;
pub mod money;
pub mod order;
pub mod smtp;
pub mod template;
mod text;
mod values;
