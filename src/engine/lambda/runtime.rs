//! The loop of Lambda's runtime: events in, answers out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tokio::time::Instant;

use super::{Answer, Function, Refused, event, table};
use crate::engine::handler::RecordHandler;

/// Answers Lambda's invocations until the process ends. The function of the records' table handles each
/// invocation.
///
/// Reads the environment of Lambda: `AWS_LAMBDA_RUNTIME_API`,
/// `AWS_LAMBDA_FUNCTION_NAME`, `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`, `AWS_LAMBDA_FUNCTION_VERSION`.
///
/// # Errors
///
/// Lambda's runtime API does not answer.
///
/// # Panics
///
/// One of these variables is not set.
pub async fn run<H: RecordHandler>(functions: Vec<Function<H>>) -> anyhow::Result<()> {
    let functions = Arc::new(functions);
    let service = service_fn(move |event: LambdaEvent<Value>| {
        let functions = functions.clone();
        async move { invoked(&functions, &event).await }
    });
    lambda_runtime::run(service)
        .await
        .map_err(anyhow::Error::from_boxed)
}

/// One invocation.
async fn invoked<H: RecordHandler>(
    functions: &[Function<H>],
    event: &LambdaEvent<Value>,
) -> Result<Answer, Diagnostic> {
    let stream = event::stream(&event.payload);
    let its = |function: &&Function<H>| stream.is_none_or(|arn| table(arn) == function.at.table());
    let answer = match functions.iter().find(its) {
        Some(function) => {
            let left = left(event.context.deadline, function.clock.now());
            let ends = Instant::now() + left;
            function.handle(&event.payload, ends).await
        }
        None => Err(Refused::Foreign {
            stream: stream.unwrap_or_default().to_owned(),
        }),
    };
    // The runtime logs it.
    answer.map_err(|refused| Diagnostic {
        error_type: "Refused".to_owned(),
        error_message: refused.to_string(),
    })
}

/// The longest that an invocation may take.
///
/// Source: [quotas](https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
const LONGEST: Duration = Duration::from_mins(15);

/// How long an invocation has left. Lambda passes its end, in milliseconds since 1970; the emulator of
/// cargo-lambda passes a duration instead.
fn left(deadline: u64, now: SystemTime) -> Duration {
    let passed = Duration::from_millis(deadline);
    if passed <= LONGEST {
        return passed;
    }
    let ends = SystemTime::UNIX_EPOCH + passed;
    ends.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_has_until_its_end_or_for_as_long_as_an_emulator_says() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        assert_eq!(left(1_800_000_030_500, now), Duration::from_millis(30_500));
        assert_eq!(left(1_799_999_999_000, now), Duration::ZERO);
        assert_eq!(left(600_000, now), Duration::from_mins(10));
    }
}
