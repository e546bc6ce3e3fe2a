//! What the commands need from the machine: AWS clients, HTTP, signals, the log.

pub mod aws;
pub mod ecs;
pub mod http;
pub mod lines;
pub mod log;
pub mod signals;
pub mod web;
