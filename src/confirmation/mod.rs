//! The order-confirmation handler.
