//! A send that is dropped at any await: no reply ever reaches another mail, and the ledger knows.

use std::pin::Pin;
use std::task::{Context as Polling, Poll};

use aftercommit::internal::claim::{Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, Failure, RecordHandler};

use crate::confirmation::smtp::{MESSAGE, Outcome, send};
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::orders::{inserted, row, rules, smtp_settings, worker};
use aftercommit::confirmation::smtp::Smtp;

/// Polls a future this many times, then drops it.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F: Future> Future for DropAfter<F> {
    /// `None`: dropped.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.future.as_mut().unwrap().as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                if self.polls == 0 {
                    self.future = None;
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    }
}

fn drop_after<F: Future>(polls: usize, future: F) -> DropAfter<F> {
    DropAfter {
        future: Some(Box::pin(future)),
        polls,
    }
}

#[tokio::test]
async fn a_send_dropped_at_any_await_never_lets_a_reply_reach_another_mail() {
    for (pipelining, fresh) in [(true, true), (true, false), (false, true), (false, false)] {
        let refuse = Fault::always(Step::Dot, Act::Say("554 5.7.1 not this one"));
        let script = Script {
            pipelining,
            ..Script::default()
        };
        let script = script.fault(refuse.for_recipient("refused@example.com"));
        let server = MailServer::start(script).await;
        let mut settings = smtp_settings(&server);
        settings.max_connections = 1;
        let mut smtp = Smtp::new(settings.clone()).unwrap();
        let mut polls = 0;
        loop {
            if fresh {
                smtp = Smtp::new(settings.clone()).unwrap();
            }
            let dropped = drop_after(polls, send(&smtp, "dropped@example.com", MESSAGE)).await;
            let refused = send(&smtp, "refused@example.com", MESSAGE).await;
            assert_eq!(refused, Outcome::Refused, "after {polls} polls");
            let next = send(&smtp, "next@example.com", MESSAGE).await;
            assert_eq!(next, Outcome::Accepted, "after {polls} polls");
            if dropped.is_some() {
                break;
            }
            polls += 1;
        }
        let awaits = if fresh { 6 } else { 3 };
        assert!(polls >= awaits, "{polls} polls are not every await");
        let counts = server.by_recipient();
        assert_eq!(counts.get("next@example.com"), Some(&(polls + 1)));
        assert_eq!(counts.get("refused@example.com"), None);
        assert!(counts["dropped@example.com"] <= polls + 1);
    }
}

#[tokio::test]
async fn a_send_that_rides_behind_a_dropped_one_is_sent_once() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = smtp_settings(&server);
    settings.max_connections = 1;
    let smtp = Smtp::new(settings).unwrap();
    for polls in 0..40 {
        let rider = format!("rider{polls}@example.com");
        let dropped = drop_after(polls, send(&smtp, "dropped@example.com", MESSAGE));
        let (_, rode) = tokio::join!(dropped, send(&smtp, &rider, MESSAGE));
        assert_eq!(rode, Outcome::Accepted, "after {polls} polls");
        assert_eq!(
            server.by_recipient().get(&rider),
            Some(&1),
            "after {polls} polls"
        );
    }
    assert!(server.rides() > 0, "nothing ever rode");
}

#[tokio::test]
async fn a_rider_dropped_at_any_await_does_not_disturb_the_mail_before_it() {
    let server = MailServer::start(Script::default()).await;
    let mut settings = smtp_settings(&server);
    settings.max_connections = 1;
    let smtp = Smtp::new(settings).unwrap();
    for polls in 0..40 {
        let first = send(&smtp, "first@example.com", MESSAGE);
        let dropped = drop_after(polls, send(&smtp, "dropped@example.com", MESSAGE));
        let (first, _) = tokio::join!(first, dropped);
        assert_eq!(first, Outcome::Accepted, "after {polls} polls");
        assert_eq!(
            send(&smtp, "next@example.com", MESSAGE).await,
            Outcome::Accepted
        );
    }
    assert_eq!(server.by_recipient()["first@example.com"], 40);
    assert_eq!(server.by_recipient()["next@example.com"], 40);
}

/// The same worker continues after the drop, or another one takes over.
#[tokio::test]
async fn a_confirmation_dropped_at_any_await_is_sent_once_or_the_ledger_says_why_not() {
    for same_worker in [true, false] {
        let server = MailServer::start(Script::default()).await;
        let ledger = MemoryLedger::new();
        let first = worker(
            ledger.clone(),
            smtp_settings(&server),
            rules(OnAmbiguous::Resend),
        );
        let other = worker(
            ledger.clone(),
            smtp_settings(&server),
            rules(OnAmbiguous::Resend),
        );
        let mine = Context::detached().of_worker("first", Liveness::Dead);
        let theirs = Context::detached().of_worker("other", Liveness::Dead);
        for polls in 0.. {
            let id = format!("o{polls}");
            let record = inserted(&id, &format!("{id}@example.com"));
            let done = drop_after(polls, first.handle(&record, &mine)).await;
            let (next, context) = if same_worker {
                (&first, mine.clone().of_attempt(2))
            } else {
                (&other, theirs.clone())
            };
            // What had begun continues in its own task, and is awaited.
            while let Err(failure) = next.handle(&record, &context).await {
                assert!(matches!(failure, Failure::Busy(_)), "{failure:?}");
                tokio::task::yield_now().await;
            }
            let row = row(&ledger, &id).await.unwrap();
            assert_eq!(row.state, State::Sent, "after {polls} polls");
            assert!(
                !same_worker || row.ambiguities == 0,
                "nobody else was at it"
            );
            let mails = server.by_recipient()[&format!("{id}@example.com")];
            assert!(
                mails <= 1 + row.ambiguities as usize,
                "after {polls} polls: {mails} mails"
            );
            if done.is_some() {
                assert_eq!((mails, row.ambiguities), (1, 0));
                assert!(polls >= 3, "{polls} polls are not every await");
                break;
            }
        }
    }
}
