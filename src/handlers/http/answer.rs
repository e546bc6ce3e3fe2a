//! What an answer means for the record.

use std::time::Duration;

use crate::engine::handler::Failure;
use crate::handlers::event::{self, BatchItemFailures, FunctionResponse};
use crate::once::Outcome;

/// The wait after an answer that names none.
const BUSY: Duration = Duration::from_secs(1);

/// An answer to the POST of a change.
#[derive(Debug)]
pub(super) struct HandlerAnswer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// The header `Aftercommit-Receipt`.
    pub receipt: Option<String>,
    /// A header says that the function failed.
    pub function_failed: bool,
    pub body: Vec<u8>,
    /// Whether this is the whole body.
    pub whole: bool,
}

impl HandlerAnswer {
    /// `emulator`: the answer is that of a Lambda container's runtime emulator.
    pub fn outcome(&self, emulator: bool) -> Result<(), Failure> {
        match self.status {
            200..=299 => self.success(emulator),
            // The emulator serves one call at a time.
            400 if emulator && self.body.is_empty() => Err(self.busy()),
            400 | 410 | 422 => Err(Failure::reject(self.summary())),
            409 | 425 => Err(self.busy()),
            429 => Err(Failure::overloaded(self.summary())),
            502..=504 => Err(Failure::unavailable(self.summary())),
            300..=399 => Err(Failure::retry(format!(
                "{}; redirects are not followed: name the URL that the handler has now",
                self.summary()
            ))),
            _ => Err(Failure::retry(self.summary())),
        }
    }

    /// Which records of a batch the handler wants again; the others are done. An error concerns all of
    /// them. `emulator`: as in [`HandlerAnswer::outcome`].
    pub fn of_batch(&self, emulator: bool) -> Result<BatchItemFailures, Failure> {
        let Err(failure) = self.outcome(emulator) else {
            return Ok(BatchItemFailures::Of(Vec::new()));
        };
        let readable = (200..=299).contains(&self.status) && self.whole && !self.function_failed;
        match FunctionResponse::of(&self.body) {
            FunctionResponse::WantedAgain(failures) if readable => Ok(failures),
            _ => Err(failure),
        }
    }

    /// What it means for an effect that takes place once: whether the handler certainly did not perform
    /// it. `emulator`: as in [`HandlerAnswer::outcome`].
    pub fn effect(&self, emulator: bool) -> Outcome {
        let failure = match self.outcome(emulator) {
            Ok(()) => match &self.receipt {
                Some(receipt) => return Outcome::Done(event::words(receipt)),
                None => return FunctionResponse::of(&self.body).effect(&self.summary()),
            },
            Err(failure) => failure,
        };
        let why = match &failure {
            Failure::Busy(_) => self.summary(),
            failure => failure.to_string(),
        };
        match (self.status, failure) {
            (_, failure @ Failure::Reject(_)) => Outcome::Refused(why, failure),
            // It never came to the handler, or the handler declined it.
            (301 | 307 | 308 | 400..=499, failure) => Outcome::Deferred(why, failure),
            (503, failure) if self.retry_after.is_some() => Outcome::Deferred(why, failure),
            (200..=299, failure) if self.whole && !self.function_failed => {
                match FunctionResponse::of(&self.body) {
                    FunctionResponse::WantedAgain(_) => Outcome::Deferred(why, failure),
                    _ => Outcome::Unknown(why),
                }
            }
            // A gateway that lost the handler's answer says this too.
            _ => Outcome::Unknown(why),
        }
    }

    fn success(&self, emulator: bool) -> Result<(), Failure> {
        if self.function_failed {
            return Err(Failure::retry(format!(
                "the function failed: {}",
                self.reason()
            )));
        }
        if !self.whole {
            return Err(Failure::retry(
                "the handler's answer is longer than 1 MiB, so it is unknown whether it reports a failure",
            ));
        }
        // The emulator says so with status 200.
        if emulator && self.body.starts_with(b"Task timed out") {
            return Err(Failure::retry(format!(
                "the function failed: {}",
                self.reason()
            )));
        }
        FunctionResponse::of(&self.body).outcome()
    }

    fn busy(&self) -> Failure {
        Failure::Busy(self.retry_after.unwrap_or(BUSY))
    }

    /// The status, and what the handler said.
    fn summary(&self) -> String {
        let status = self.status;
        match self.reason() {
            reason if reason.is_empty() => format!("the handler answered {status}"),
            reason => format!("the handler answered {status}: {reason}"),
        }
    }

    fn reason(&self) -> String {
        event::words(&String::from_utf8_lossy(&self.body))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn answer(status: u16, body: &str) -> HandlerAnswer {
        HandlerAnswer {
            status,
            retry_after: None,
            receipt: None,
            function_failed: false,
            body: body.as_bytes().to_vec(),
            whole: true,
        }
    }

    fn failure(status: u16, body: &str) -> Failure {
        answer(status, body).outcome(false).unwrap_err()
    }

    #[test]
    fn a_success_stays_one_whatever_its_body_unless_it_reports_the_record() {
        for body in [
            "",
            "ok",
            "null",
            "true",
            "[]",
            "{}",
            "{\"batchItemFailures\": []}",
            "{\"batchItemFailures\": null, \"errorMessage\": null}",
            "Task timed out",
        ] {
            assert!(answer(200, body).outcome(false).is_ok(), "{body}");
            assert!(answer(204, body).outcome(false).is_ok(), "{body}");
        }
        for body in [
            "{\"batchItemFailures\": [{\"itemIdentifier\": \"200\"}]}",
            "{\"batchItemFailures\": [{}]}",
            "{\"batchItemFailures\": \"200\"}",
            "{\"errorType\": \"KeyError\"}",
            "{\"errorMessage\": \"no such key\", \"errorType\": \"KeyError\"}",
        ] {
            assert!(matches!(failure(200, body), Failure::Retry(_)), "{body}");
        }
        let cut = HandlerAnswer {
            whole: false,
            ..answer(200, "{")
        };
        assert!(matches!(cut.outcome(false), Err(Failure::Retry(_))));
        let failed = HandlerAnswer {
            function_failed: true,
            ..answer(200, "\"no\"")
        };
        assert!(matches!(failed.outcome(false), Err(Failure::Retry(_))));
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [400, 410, 422] {
            assert!(
                matches!(failure(status, "bad"), Failure::Reject(_)),
                "{status}"
            );
        }
        for status in [409, 425] {
            assert!(
                matches!(failure(status, ""), Failure::Busy(BUSY)),
                "{status}"
            );
        }
        assert!(matches!(failure(429, ""), Failure::Overloaded(_)));
        for status in [502, 503, 504] {
            assert!(
                matches!(failure(status, ""), Failure::Unavailable(_)),
                "{status}"
            );
        }
        for status in [301, 401, 403, 404, 500, 501, 599] {
            assert!(matches!(failure(status, ""), Failure::Retry(_)), "{status}");
        }
    }

    #[test]
    fn an_emulator_that_is_busy_or_out_of_time_rejects_nothing() {
        let of = |status, body| answer(status, body).outcome(true).unwrap_err();
        assert!(matches!(of(400, ""), Failure::Busy(_)));
        assert!(matches!(of(400, "no"), Failure::Reject(_)));
        assert!(matches!(
            of(200, "Task timed out after 3.00 seconds"),
            Failure::Retry(_)
        ));
    }

    #[test]
    fn a_reason_is_one_short_line_that_names_nobody() {
        let reported = failure(422, "no\u{1b}[31m item\r\nfor <ada@example.com>").to_string();
        assert_eq!(
            reported,
            "the handler answered 422: no [31m item for <address>"
        );
        let long = failure(422, &"ä".repeat(5000)).to_string();
        assert!(long.chars().count() < 340, "{long}");
        assert_eq!(failure(500, "").to_string(), "the handler answered 500");
        let error =
            "{\"errorType\": \"KeyError\", \"errorMessage\": \"'total'\", \"stackTrace\": []}";
        let reported = failure(200, error).to_string();
        assert_eq!(reported, "the function failed: KeyError: 'total'");
    }

    /// The letter of each outcome: done, refused, put off, in doubt.
    fn effect(answer: &HandlerAnswer) -> char {
        match answer.effect(false) {
            Outcome::Done(_) => 'd',
            Outcome::Refused(..) => 'r',
            Outcome::Deferred(..) => 'p',
            Outcome::NotBegun(..) => '-',
            Outcome::Unknown(_) => '?',
        }
    }

    #[test]
    fn only_a_definite_answer_decides_whether_an_effect_took_place() {
        for (letter, statuses) in [
            ('d', &[200, 201, 204, 299][..]),
            ('r', &[400, 410, 422]),
            (
                'p',
                &[301, 307, 308, 401, 403, 404, 408, 409, 425, 429, 499],
            ),
            ('?', &[300, 302, 303, 304, 500, 501, 502, 503, 504, 599]),
        ] {
            for status in statuses {
                assert_eq!(effect(&answer(*status, "")), letter, "{status}");
            }
        }
        let declined = HandlerAnswer {
            retry_after: Some(BUSY),
            ..answer(503, "")
        };
        assert_eq!(effect(&declined), 'p');
        let again = "{\"batchItemFailures\": [{\"itemIdentifier\": \"200\"}]}";
        assert_eq!(effect(&answer(200, again)), 'p');
        assert_eq!(effect(&answer(200, "{\"errorType\": \"KeyError\"}")), '?');
        let cut = HandlerAnswer {
            whole: false,
            ..answer(200, "{")
        };
        assert_eq!(effect(&cut), '?');
        let late = answer(200, "Task timed out after 3.00 seconds").effect(true);
        assert!(matches!(late, Outcome::Unknown(_)), "{late:?}");
    }

    #[test]
    fn the_receipt_is_a_header_or_else_a_member_of_the_body_or_else_the_status() {
        let receipt = |answer: &HandlerAnswer| match answer.effect(false) {
            Outcome::Done(receipt) => receipt,
            other => panic!("{other:?}"),
        };
        let body = "{\"receipt\": \"charge 4711\"}";
        assert_eq!(receipt(&answer(200, body)), "charge 4711");
        let header = HandlerAnswer {
            receipt: Some("ch_1 for ada@example.com".to_owned()),
            ..answer(200, body)
        };
        assert_eq!(receipt(&header), "ch_1 for <address>");
        assert_eq!(receipt(&answer(204, "")), "the handler answered 204");
        let long = answer(200, &format!("{{\"receipt\": \"{}\"}}", "r".repeat(5000)));
        assert!(receipt(&long).chars().count() <= 301);
    }
}
