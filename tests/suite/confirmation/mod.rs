//! From an order to one email.

mod cancel;
mod confirm;
mod dkim;
mod effects;
pub mod end_to_end;
mod fault_table;
mod faults;
mod large;
mod login;
mod lookup;
mod mail;
mod malformed;
mod one_key;
pub mod order;
mod order_errors;
mod real_servers;
mod real_tables;
pub mod secrets;
mod seen_through;
#[cfg(feature = "ses")]
mod ses;
pub mod smtp;
mod soak;
mod standing_claim;
mod template;
mod traps;
mod veto;
