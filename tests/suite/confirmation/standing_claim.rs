//! A claim of another worker is in the ledger.

use std::time::{Duration, SystemTime};

use aftercommit::confirmation::Counted;
use aftercommit::internal::claim::{
    Ask, Claimant, Entry, Liveness, OnAmbiguous, State, Verdict, claim,
};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{Ledger as _, Swap};
use aftercommit::{Context, Failure, RecordHandler};

use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, key, quick, row, rules, worker};

/// A claim of `other/1`, for an hour.
fn claimed() -> Entry {
    let now = SystemTime::now();
    let claimant = Claimant {
        incarnation: "other/1".to_owned(),
        nonce: 7,
        deadline: now + Duration::from_hours(1),
    };
    let ask = Ask::new(claimant, OnAmbiguous::Resend, now);
    match claim(None, &ask, Liveness::Unknown) {
        Verdict::Claim(entry) => entry,
        verdict => panic!("{verdict:?}"),
    }
}

async fn standing() -> MemoryLedger {
    let ledger = MemoryLedger::new();
    let swap = ledger.swap(&key("o1"), None, &claimed()).await;
    assert_eq!(swap.unwrap(), Swap::Written);
    ledger
}

fn me(others: Liveness) -> Context {
    Context::detached().of_worker("me/1", others)
}

/// The mail server's present opinion of the address says nothing about a mail that may have been sent.
#[tokio::test]
async fn a_dead_claimants_mail_is_in_doubt_whatever_the_server_says_to_the_next_envelope() {
    for policy in [OnAmbiguous::Resend, OnAmbiguous::Park] {
        for reply in ["550 5.1.1 nobody", "450 4.2.1 later"] {
            let refuse = Fault::always(Step::Rcpt, Act::Say(reply));
            let server = MailServer::start(Script::default().fault(refuse)).await;
            let ledger = standing().await;
            let worker = worker(ledger.clone(), quick(&server), rules(policy));
            let record = inserted("o1", "ann@example.com");
            let failure = worker.handle(&record, &me(Liveness::Dead)).await;
            let burns = matches!(failure, Err(Failure::Reject(_) | Failure::Retry(_)));
            assert!(burns, "{reply}: {failure:?}");
            let row = row(&ledger, "o1").await.unwrap();
            assert_eq!((row.state, row.ambiguities), (State::Ambiguous, 1));
            assert_eq!(worker.tally().of(Counted::Ambiguous), 1);
        }
    }
}

#[tokio::test]
async fn while_its_claimant_lives_a_refused_envelope_changes_nothing() {
    let refuse = Fault::always(Step::Rcpt, Act::Say("550 5.1.1 nobody"));
    let server = MailServer::start(Script::default().fault(refuse)).await;
    let ledger = standing().await;
    let worker = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let record = inserted("o1", "ann@example.com");
    let busy = worker.handle(&record, &me(Liveness::Alive)).await;
    assert!(matches!(busy, Err(Failure::Busy(_))), "{busy:?}");
    assert_eq!(row(&ledger, "o1").await.unwrap().state, State::Sending);
}

/// `Busy` does not count as an attempt, so the next attempt is a first one, too.
#[tokio::test]
async fn who_waits_for_somebody_else_asks_the_ledger_and_not_the_mail_server() {
    let server = MailServer::start(Script::default()).await;
    let ledger = standing().await;
    let worker = worker(ledger.clone(), quick(&server), rules(OnAmbiguous::Resend));
    let record = inserted("o1", "ann@example.com");
    for _ in 0..5 {
        let busy = worker.handle(&record, &me(Liveness::Alive)).await;
        assert!(matches!(busy, Err(Failure::Busy(_))), "{busy:?}");
    }
    let heard = server.heard();
    let asked = heard.iter().filter(|(_, line)| line.starts_with("RCPT"));
    assert_eq!(asked.count(), 1, "{heard:?}");
    worker.handle(&record, &me(Liveness::Dead)).await.unwrap();
    let row = row(&ledger, "o1").await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 1));
    assert_eq!(server.count(), 1);
}
