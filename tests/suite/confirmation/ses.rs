//! Mails through the API of Amazon SES: every outcome of the one call, by the real SDK.

use std::time::Duration;

use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::ses::Ses;
use aftercommit::confirmation::template::Templates;
use aftercommit::internal::claim::{Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, Record, RecordHandler as _};
use aws_sdk_sesv2::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::Builder;

use crate::support::fault_cases::{Ended, reported};
use crate::support::orders::{inserted, row, rules};
use crate::support::ses_server::{Act, SesServer};

use Ended::{Done, Overloaded, Refused, Reject, Retry, Unavailable};

/// A client that would retry, if it were let.
fn client(url: &str, credentials: bool) -> aws_sdk_sesv2::Client {
    let config = aws_sdk_sesv2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-central-1"))
        .http_client(Builder::new().build_http())
        .endpoint_url(url);
    let config = if credentials {
        config.credentials_provider(Credentials::new("test", "test", None, None, "test"))
    } else {
        config
    };
    aws_sdk_sesv2::Client::from_conf(config.build())
}

fn worker(ledger: &MemoryLedger, ses: Ses, policy: OnAmbiguous) -> Confirmation<MemoryLedger> {
    let from = "Shop <shop@example.com>".parse().unwrap();
    let letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
    let rng = fastrand::Rng::new();
    Confirmation::new(ledger.clone(), ses, letterhead, rules(policy), rng)
}

fn ses(url: &str) -> Ses {
    Ses::new(client(url, true))
}

/// Only silence must be noticed soon; a busy machine is not a fault.
fn ses_against(server: &SesServer, act: Act) -> Ses {
    match act {
        Act::Silence => ses(&server.url()).within(Duration::from_secs(1)),
        _ => ses(&server.url()),
    }
}

async fn send(
    ledger: &MemoryLedger,
    record: &Record,
    ses: Ses,
    (who, policy): (&str, OnAmbiguous),
) -> Result<(), Failure> {
    let worker = worker(ledger, ses, policy);
    let context = Context::detached().of_worker(who, Liveness::Dead);
    worker.handle(record, &context).await
}

/// What the first worker tells, what the ledger says then, what the next worker tells, and how many
/// calls there were then: under `resend` and under `park`.
async fn check(act: Act, first: Ended, state: State, next: Ended, calls: [usize; 2]) {
    for (policy, calls) in [OnAmbiguous::Resend, OnAmbiguous::Park]
        .into_iter()
        .zip(calls)
    {
        let what = format!("{act:?} {policy:?}");
        let server = SesServer::start([act]).await;
        let ledger = MemoryLedger::new();
        let record = inserted("o1", "ann@example.com");
        let first_ses = ses_against(&server, act);
        let result = send(&ledger, &record, first_ses, ("first", policy)).await;
        let parked = state == State::Ambiguous && policy == OnAmbiguous::Park;
        let expected = if parked { Done } else { first };
        assert_eq!(reported(&result), expected, "{what}: {result:?}");
        assert_eq!(server.calls().len(), 1, "{what}: the SDK called again");
        let stands = row(&ledger, "o1").await.unwrap();
        assert_eq!(stands.state, state, "{what}: {stands:?}");
        assert!(!format!("{result:?} {stands:?}").contains("ann@"), "{what}");
        let result = send(&ledger, &record, ses(&server.url()), ("next", policy)).await;
        assert_eq!(
            reported(&result),
            next,
            "{what}: the next worker: {result:?}"
        );
        let mails = server.mails();
        assert_eq!(mails.len(), calls, "{what}");
        assert!(mails.iter().all(|mail| *mail == mails[0]), "{what}");
    }
}

#[tokio::test]
async fn a_mail_that_is_taken_is_sent_once() {
    check(Act::Take, Done, State::Sent, Done, [1, 1]).await;
}

#[tokio::test]
async fn a_definite_refusal_is_recorded_and_can_be_tried_again() {
    let rejected = Act::Say(
        400,
        "MessageRejected",
        "Email address is not verified: ann@example.com",
    );
    check(rejected, Refused, State::Failed, Done, [2, 2]).await;
    let bad = Act::Say(400, "BadRequestException", "Missing final '@domain'");
    check(bad, Refused, State::Failed, Done, [2, 2]).await;
}

#[tokio::test]
async fn a_no_about_the_account_or_its_rate_is_tried_again() {
    for (status, kind) in [
        (429, "TooManyRequestsException"),
        (400, "LimitExceededException"),
        (400, "ThrottlingException"),
        (503, "Throttling"),
    ] {
        let act = Act::Say(status, kind, "Maximum sending rate exceeded.");
        check(act, Overloaded, State::Retry, Done, [2, 2]).await;
    }
    let day = "Daily message quota exceeded.";
    let act = Act::Say(400, "ThrottlingException", day);
    check(act, Unavailable, State::Retry, Done, [2, 2]).await;
    for (status, kind) in [
        (400, "SendingPausedException"),
        (400, "AccountSuspendedException"),
        (404, "NotFoundException"),
        (403, "AccessDeniedException"),
        (403, "ExpiredTokenException"),
    ] {
        let act = Act::Say(status, kind, "not now");
        check(act, Unavailable, State::Retry, Done, [2, 2]).await;
    }
}

#[tokio::test]
async fn whatever_leaves_it_open_is_ambiguous() {
    for act in [
        Act::Silence,
        Act::Close,
        Act::Reset,
        Act::Garbage,
        Act::Body("what?"),
        Act::Body("{}"),
        Act::Say(500, "InternalServiceError", "oh"),
        Act::Say(503, "ServiceUnavailable", "oh"),
    ] {
        check(act, Retry, State::Ambiguous, Done, [2, 1]).await;
    }
}

#[tokio::test]
async fn without_a_connection_or_credentials_it_is_certainly_not_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = SesServer::start([]).await;
    let record = inserted("o1", "ann@example.com");
    for ses in [
        ses(&nobody),
        ses("http://nowhere.invalid"),
        Ses::new(client(&server.url(), false)),
    ] {
        let ledger = MemoryLedger::new();
        let result = send(&ledger, &record, ses, ("me", OnAmbiguous::Park)).await;
        assert_eq!(reported(&result), Unavailable, "{result:?}");
        let row = row(&ledger, "o1").await.unwrap();
        assert_eq!((row.state, row.ambiguities), (State::Retry, 0), "{row:?}");
    }
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn the_call_carries_the_raw_mail_and_the_effect() {
    let server = SesServer::start([]).await;
    let ledger = MemoryLedger::new();
    let set = Some("shop".to_owned());
    for id in ["o-1", "Nr. 7"] {
        let record = inserted(id, "ann@bücher.example");
        let ses = ses(&server.url()).configuration_set(set.clone());
        send(&ledger, &record, ses, ("me", OnAmbiguous::Resend))
            .await
            .unwrap();
    }
    let calls = server.calls();
    assert_eq!(calls[0]["FromEmailAddress"], "shop@example.com");
    let to = &calls[0]["Destination"]["ToAddresses"];
    assert_eq!(*to, serde_json::json!(["ann@xn--bcher-kva.example"]));
    assert_eq!(calls[0]["ConfigurationSetName"], "shop");
    let tag = |n: usize| calls[n]["EmailTags"][0].clone();
    assert_eq!(
        tag(0),
        serde_json::json!({ "Name": "confirmation", "Value": "o-1" })
    );
    let hash = tag(1)["Value"].as_str().unwrap().to_owned();
    let mail = String::from_utf8(server.mails().remove(1)).unwrap();
    assert!(
        mail.contains(&format!("Message-ID: <{hash}@example.com>")),
        "{mail}"
    );
}

#[tokio::test]
async fn a_local_part_beyond_ascii_is_refused_before_the_claim() {
    let server = SesServer::start([]).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "jürgen@example.com");
    let result = send(
        &ledger,
        &record,
        ses(&server.url()),
        ("me", OnAmbiguous::Park),
    )
    .await;
    assert_eq!(reported(&result), Reject, "{result:?}");
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Failed);
    assert!(server.calls().is_empty());
}
