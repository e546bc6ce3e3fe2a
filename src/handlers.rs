//! Ready handlers: each change goes to a program in any language, over HTTP ([`http`]) or as an invocation of
//! an AWS Lambda function whose processes run on this machine ([`function`]).

mod batch;
mod body;
mod call;
mod event;
pub mod function;
pub mod http;
mod key;
mod program;

pub use program::{OnceProgram, Program};
