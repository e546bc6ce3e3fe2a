//! Errors of the AWS SDK as failures of a handler.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::Failure;
use crate::stores::aws_error::AwsError;

/// Classified like an [`AwsError`]: `client.put_item().send().await?` does the right thing.
impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        AwsError::new(&error).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;

    use aws_sdk_dynamodb::error::{ConnectorError, ErrorMetadata};
    use aws_sdk_dynamodb::operation::put_item::PutItemError;

    use super::*;

    fn answered(status: u16, code: &str) -> Failure {
        let error = PutItemError::generic(ErrorMetadata::builder().code(code).build());
        let answer = HttpResponse::new(status.try_into().unwrap(), "".into());
        SdkError::service_error(error, answer).into()
    }

    #[test]
    fn an_answer_of_aws_is_sorted_by_its_code() {
        let throttle = answered(400, "ProvisionedThroughputExceededException");
        assert!(matches!(throttle, Failure::Overloaded(_)), "{throttle}");
        for code in ["InternalServerError", "ServiceUnavailable"] {
            let down = answered(500, code);
            assert!(matches!(down, Failure::Unavailable(_)), "{down}");
        }
        for code in [
            "AccessDeniedException",
            "ExpiredTokenException",
            "ResourceNotFoundException",
        ] {
            let ours = answered(400, code);
            assert!(matches!(ours, Failure::Unavailable(_)), "{ours}");
        }
        for code in [
            "ConditionalCheckFailedException",
            "TransactionConflictException",
        ] {
            let race = answered(400, code);
            assert!(matches!(race, Failure::Retry(_)), "{race}");
        }
        let invalid = answered(400, "ValidationException");
        assert!(matches!(invalid, Failure::Reject(_)), "{invalid}");
        assert!(invalid.to_string().contains("PutItem"), "{invalid}");
    }

    #[test]
    fn a_connection_that_never_was_is_a_dependency_that_is_down() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ConnectorError::other(refused().into(), None);
        let sdk: SdkError<PutItemError, HttpResponse> = SdkError::dispatch_failure(error);
        assert!(matches!(Failure::from(sdk), Failure::Unavailable(_)));
        assert!(matches!(refused().into(), Failure::Unavailable(_)));
        let other: Failure = io::Error::other("a full disk").into();
        assert!(matches!(other, Failure::Retry(_)));
    }
}
