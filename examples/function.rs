//! An AWS Lambda function in Rust, as it is on Lambda. Without Lambda and without a container:
//!
//! `aftercommit run --handler-command target/release/examples/function ...`

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let mut failed = Vec::new();
    for record in event.payload["Records"].as_array().into_iter().flatten() {
        let change = &record["dynamodb"];
        let order = &change["NewImage"];
        if order["email"].is_null() {
            failed.push(json!({"itemIdentifier": change["SequenceNumber"]}));
        } else {
            println!("handled {}", order["id"]["S"]);
        }
    }
    Ok(json!({"batchItemFailures": failed}))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
