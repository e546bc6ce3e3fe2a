//! What an answer over HTTP means, row by row.

use std::time::Duration;

use aftercommit::handlers::http::{HandlerUrl, HttpHandler, HttpSettings};
use aftercommit::{Context, EffectName, Failure, RecordHandler as _};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::support::handler_server::{HandlerServer, Reaction, answer};
use crate::support::orders::inserted;

pub fn settings(url: &str) -> HttpSettings {
    let url: HandlerUrl = url.parse().unwrap();
    HttpSettings::new(url)
}

pub fn handler(url: &str) -> HttpHandler {
    let handler = HttpHandler::new(settings(url)).unwrap();
    handler.effect(EffectName::new("placed").unwrap())
}

pub async fn handle(handler: &HttpHandler) -> Result<(), Failure> {
    let order = inserted("1042", "ada@example.com");
    handler.handle(&order, &Context::detached()).await
}

async fn outcome(reaction: Reaction) -> Result<(), Failure> {
    let server = HandlerServer::start(move |_| reaction.clone()).await;
    handle(&handler(&server.url("/changes"))).await
}

async fn failure(reaction: Reaction) -> Failure {
    outcome(reaction).await.unwrap_err()
}

#[tokio::test]
async fn an_answer_of_2xx_finishes_the_record() {
    for status in [200, 201, 202, 204] {
        outcome(answer(status, "", "")).await.unwrap();
    }
    let empty = "{\"batchItemFailures\": []}";
    outcome(answer(200, "", empty)).await.unwrap();
}

#[tokio::test]
async fn a_record_in_batch_item_failures_is_retried() {
    let failed = failure(answer(
        200,
        "",
        "{\"batchItemFailures\": [{\"itemIdentifier\": \"1\"}]}",
    ));
    assert!(matches!(failed.await, Failure::Retry(_)));
}

#[tokio::test]
async fn a_function_that_failed_behind_its_emulator_is_retried() {
    let error = "{\"errorMessage\": \"'total'\", \"errorType\": \"KeyError\"}";
    let failed = failure(answer(200, "", error)).await;
    assert!(matches!(failed, Failure::Retry(_)));
    assert_eq!(failed.to_string(), "the function failed: KeyError: 'total'");
    let failed = failure(answer(200, "X-Amz-Function-Error: Unhandled\r\n", "\"no\"")).await;
    assert!(matches!(failed, Failure::Retry(_)));
}

#[tokio::test]
async fn a_bad_request_rejects_the_record_with_the_body_as_the_reason() {
    for status in [400, 410, 422] {
        let failed = failure(answer(status, "", "no total for\nada@example.com")).await;
        assert!(matches!(failed, Failure::Reject(_)), "{status}");
        let reported = format!("the handler answered {status}: no total for <address>");
        assert_eq!(failed.to_string(), reported);
    }
}

#[tokio::test]
async fn a_handler_that_is_busy_says_when_to_come_again() {
    for status in [409, 425] {
        let failed = failure(answer(status, "Retry-After: 7\r\n", "")).await;
        assert!(matches!(failed, Failure::Busy(wait) if wait == Duration::from_secs(7)));
        let failed = failure(answer(status, "Retry-After: 86400\r\n", "")).await;
        assert!(matches!(failed, Failure::Busy(wait) if wait == Duration::from_mins(1)));
        let failed = failure(answer(status, "", "")).await;
        assert!(matches!(failed, Failure::Busy(wait) if wait == Duration::from_secs(1)));
    }
}

#[tokio::test]
async fn an_overloaded_handler_is_not_called_before_its_retry_after() {
    let server = HandlerServer::start(|_| answer(429, "Retry-After: 1\r\n", "")).await;
    let handler = handler(&server.url("/"));
    for _ in 0..2 {
        let failed = handle(&handler).await.unwrap_err();
        assert!(matches!(failed, Failure::Overloaded(_)), "{failed}");
    }
    assert_eq!(server.seen().len(), 1);
    sleep(Duration::from_secs(1)).await;
    handle(&handler).await.unwrap_err();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_gateway_that_reaches_nobody_is_an_outage() {
    for status in [502, 503, 504] {
        let failed = failure(answer(status, "", "")).await;
        assert!(matches!(failed, Failure::Unavailable(_)), "{status}");
    }
}

#[tokio::test]
async fn any_other_answer_is_retried_and_a_redirect_is_not_followed() {
    for status in [401, 403, 404, 418, 500] {
        let failed = failure(answer(status, "", "no")).await;
        assert!(matches!(failed, Failure::Retry(_)), "{status}");
    }
    let failed = failure(answer(307, "Location: http://127.0.0.1:1/\r\n", "")).await;
    assert!(matches!(failed, Failure::Retry(_)));
    assert!(failed.to_string().contains("redirects are not followed"));
}

#[tokio::test]
async fn no_connection_is_an_outage_that_names_the_url_and_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/changes", listener.local_addr().unwrap());
    drop(listener);
    let failed = handle(&handler(&format!("{url}?token=hunter2")))
        .await
        .unwrap_err();
    assert!(matches!(failed, Failure::Unavailable(_)));
    let reported = failed.to_string();
    assert!(
        reported.starts_with(&format!("cannot connect to {url}: ")),
        "{reported}"
    );
    assert!(
        reported.contains("refused") && !reported.contains("hunter2"),
        "{reported}"
    );
    let failed = handle(&handler("unix:/nonexistent/app.sock"))
        .await
        .unwrap_err();
    assert!(matches!(failed, Failure::Unavailable(_)), "{failed}");
}

#[tokio::test]
async fn a_connection_that_closes_before_or_within_the_answer_is_an_outage() {
    for cut in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"bat",
    ] {
        let failed = failure(Reaction::SendAndClose(cut.to_owned())).await;
        assert!(matches!(failed, Failure::Unavailable(_)), "{cut}: {failed}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_not_a_success() {
    let failed = failure(Reaction::SendAndClose(
        "220 mail.example.com ESMTP\r\n".to_owned(),
    ));
    assert!(matches!(failed.await, Failure::Unavailable(_)));
}

#[tokio::test]
async fn a_success_longer_than_a_mebibyte_is_not_a_success() {
    let long = "x".repeat((1 << 20) + 1);
    let failed = failure(answer(200, "", &long)).await;
    assert!(matches!(failed, Failure::Retry(_)));
    assert!(failed.to_string().contains("longer than 1 MiB"), "{failed}");
    let failed = failure(answer(422, "", &long)).await;
    assert!(matches!(failed, Failure::Reject(_)));
    assert!(failed.to_string().len() < 1000);
}

#[tokio::test]
async fn a_busy_emulator_rejects_nothing_and_a_function_out_of_time_is_retried() {
    let path = "/2015-03-31/functions/function/invocations";
    let of = async |reaction: Reaction| {
        let server = HandlerServer::start(move |_| reaction.clone()).await;
        handle(&handler(&server.url(path))).await
    };
    let busy = of(answer(400, "", "")).await.unwrap_err();
    assert!(matches!(busy, Failure::Busy(_)), "{busy}");
    let late = of(answer(200, "", "Task timed out after 3.00 seconds")).await;
    assert!(matches!(late, Err(Failure::Retry(_))));
    of(answer(200, "", "null")).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_its_connection() {
    for so_far in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ] {
        let hang = Reaction::SendAndHang(so_far.to_owned());
        let server = HandlerServer::start(move |posted| match posted.connection {
            0 => hang.clone(),
            _ => answer(204, "", ""),
        })
        .await;
        let handler = handler(&server.url("/"));
        let dropped = timeout(Duration::from_millis(200), handle(&handler)).await;
        assert!(dropped.is_err(), "{so_far}");
        handle(&handler).await.unwrap();
        assert_eq!(server.seen()[1].connection, 1);
    }
}
