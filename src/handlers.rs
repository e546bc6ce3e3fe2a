//! Ready handlers: a change goes to a program in any language ([`http`]).

pub mod http;
