//! A handler that is called once for each effect key: what each fault costs.

use std::future::pending;
use std::time::Duration;

use aftercommit::handlers::http::HttpHandler;
use aftercommit::handlers::{OnceProgram, Program};
use aftercommit::internal::claim::Liveness;
use aftercommit::once::{Counted, OnAmbiguous, OnceSettings};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Entry, EntryPage, Ledger, State, Swap};
use aftercommit::{Context, Failure, RecordHandler as _};
use tokio::net::TcpListener;

use super::answers::handler;
use crate::cli::ledger::does;
use crate::cli::start::{complaint, on_shop, text};
use crate::fleet::process::Process;
use crate::support::embedded::Embedded;
use crate::support::fault_cases::Ended::{Busy, Done, Overloaded, Reject, Retry, Unavailable};
use crate::support::fault_cases::{Ended, reported};
use crate::support::handler_server::{HandlerServer, Reaction, answer};
use crate::support::orders::inserted;
use crate::support::shop::{Shop, id};

#[allow(dead_code)]
#[path = "../../../examples/charge.rs"]
mod charge;

const POLICIES: [OnAmbiguous; 2] = [OnAmbiguous::Resend, OnAmbiguous::Park];

fn program<L: Ledger>(handler: HttpHandler, ledger: L, policy: OnAmbiguous) -> OnceProgram<L> {
    let mut settings = OnceSettings::default();
    settings.on_ambiguous = policy;
    settings.longest_effect = Duration::from_millis(300);
    let handler = handler.keyed_by(|_| Ok("1042".to_owned()));
    let program = Program::Http(Box::new(handler));
    program.once(ledger, settings, fastrand::Rng::new())
}

async fn handle<L: Ledger>(program: &OnceProgram<L>, attempt: u32) -> Result<(), Failure> {
    let worker = format!("worker/{attempt}");
    let context = Context::detached().of_worker(&worker, Liveness::Dead);
    let record = inserted("1042", "ada@example.com");
    program.handle(&record, &context.of_attempt(attempt)).await
}

async fn row(ledger: &MemoryLedger) -> Option<Entry> {
    let key = EffectKey::from_row("placed#1042");
    ledger.read(&key).await.unwrap()
}

/// An answer, what the ledger says then, what the engine gets under `resend` and `park`, and how many
/// calls were made in the end, when a second attempt finds the handler well.
struct OnceCase(Reaction, State, [Ended; 2], [usize; 2]);

fn cases() -> Vec<OnceCase> {
    use State::{Ambiguous, Retry as Again};
    let broken = |bytes: &str| Reaction::SendAndClose(bytes.to_owned());
    let again = "{\"batchItemFailures\": [{\"itemIdentifier\": \"1\"}]}";
    let failed = "{\"errorType\": \"KeyError\"}";
    let in_doubt = |reaction| OnceCase(reaction, Ambiguous, [Retry, Done], [2, 1]);
    let put_off = |reaction, reported| OnceCase(reaction, Again, [reported; 2], [2; 2]);
    vec![
        OnceCase(answer(200, "", "{}"), State::Sent, [Done; 2], [1; 2]),
        OnceCase(answer(422, "", "no"), State::Failed, [Reject; 2], [1; 2]),
        put_off(answer(200, "", again), Retry),
        put_off(answer(404, "", ""), Retry),
        put_off(answer(308, "Location: /new\r\n", ""), Retry),
        put_off(answer(409, "", ""), Busy),
        put_off(answer(429, "", ""), Overloaded),
        put_off(answer(503, "Retry-After: 1\r\n", ""), Unavailable),
        in_doubt(answer(503, "", "")),
        in_doubt(answer(500, "", "")),
        in_doubt(answer(504, "", "")),
        in_doubt(answer(200, "", failed)),
        in_doubt(broken("")),
        in_doubt(broken(
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"bat",
        )),
        in_doubt(Reaction::SendAndHang(String::new())),
        in_doubt(Reaction::SendAndHang("HTTP/1.1 200 O".to_owned())),
    ]
}

#[tokio::test]
async fn each_answer_leaves_the_effect_done_or_refused_or_put_off_or_in_doubt() {
    for OnceCase(reaction, state, reports, calls) in cases() {
        for (n, policy) in POLICIES.into_iter().enumerate() {
            let first = reaction.clone();
            let server =
                HandlerServer::start(move |posted| match posted.header("aftercommit-attempt") {
                    Some("1") => first.clone(),
                    _ => answer(200, "", "{}"),
                })
                .await;
            let ledger = MemoryLedger::new();
            let program = program(handler(&server.url("/")), ledger.clone(), policy);
            let of = format!("{reaction:?} under {policy:?}");
            let result = handle(&program, 1).await;
            assert_eq!(reported(&result), reports[n], "{of}");
            assert_eq!(row(&ledger).await.unwrap().state, state, "{of}");
            if reports[n] != Reject {
                assert_eq!(reported(&handle(&program, 2).await), Done, "{of}");
            }
            let seen = server.seen();
            assert_eq!(seen.len(), calls[n], "{of}");
            let same = |one: &crate::support::handler_server::Posted| {
                one.raw == seen[0].raw && one.header("idempotency-key") == Some("placed#1042")
            };
            assert!(seen.iter().all(same), "{of}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_nobody_reaches_certainly_did_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ledger = MemoryLedger::new();
    let handler = handler(&format!("http://{address}/"));
    let program = program(handler, ledger.clone(), OnAmbiguous::Park);
    let result = handle(&program, 1).await;
    assert_eq!(reported(&result), Unavailable);
    let row = row(&ledger).await.unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Retry, 0));
    assert_eq!(program.tally().of(Counted::Ambiguous), 0);
}

#[tokio::test]
async fn the_ledger_keeps_the_receipt_and_never_an_address() {
    let server = HandlerServer::start(|_| {
        answer(
            201,
            "Aftercommit-Receipt: ch_4711 for ada@example.com\r\n",
            "",
        )
    })
    .await;
    let ledger = MemoryLedger::new();
    let program = program(
        handler(&server.url("/")),
        ledger.clone(),
        OnAmbiguous::Resend,
    );
    handle(&program, 1).await.unwrap();
    let reply = row(&ledger).await.unwrap().reply;
    assert_eq!(reply.as_deref(), Some("ch_4711 for <address>"));
}

#[tokio::test]
async fn a_second_item_with_the_key_is_rejected_and_never_posted() {
    let server = HandlerServer::start(|_| answer(200, "", "")).await;
    let program = program(
        handler(&server.url("/")),
        MemoryLedger::new(),
        OnAmbiguous::Resend,
    );
    handle(&program, 1).await.unwrap();
    let other = inserted("7", "bob@example.com");
    let failed = program.handle(&other, &Context::detached()).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, Failure::Reject(_)), "{failed}");
    assert!(
        failed.to_string().contains("the id is not unique"),
        "{failed}"
    );
    assert_eq!(server.seen().len(), 1);
}

/// A ledger whose process dies at one of its writes.
#[derive(Clone)]
struct Deathbed {
    ledger: MemoryLedger,
    /// The claim, or the outcome.
    at_claim: bool,
    /// After the write has arrived.
    arrived: bool,
}

impl Ledger for Deathbed {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        self.ledger.read(key).await
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let dies = self.at_claim == (entry.state == State::Sending);
        if dies && !self.arrived {
            return pending().await;
        }
        let swap = self.ledger.swap(key, expected, entry).await;
        if dies {
            return pending().await;
        }
        swap
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        self.ledger.list(state, from).await
    }
}

/// What a process that dies leaves behind, and the calls in the end under `resend` and `park`.
#[tokio::test]
async fn a_process_that_dies_after_its_claim_leaves_a_doubt_and_before_it_nothing() {
    for (at_claim, arrived, left, calls) in [
        (true, false, None, [1, 1]),
        // Nobody else can tell this from the next one.
        (true, true, Some(State::Sending), [1, 0]),
        (false, false, Some(State::Sending), [2, 1]),
        (false, true, Some(State::Sent), [1, 1]),
    ] {
        for (n, policy) in POLICIES.into_iter().enumerate() {
            let server = HandlerServer::start(|_| answer(200, "", "{}")).await;
            let ledger = MemoryLedger::new();
            let deathbed = Deathbed {
                ledger: ledger.clone(),
                at_claim,
                arrived,
            };
            let dying = program(handler(&server.url("/")), deathbed, policy);
            let alive = Duration::from_millis(200);
            let died = tokio::time::timeout(alive, handle(&dying, 1)).await;
            assert!(died.is_err(), "it did not die");
            drop(dying);
            let state = row(&ledger).await.map(|row| row.state);
            assert_eq!(state, left);
            let next = program(handler(&server.url("/")), ledger.clone(), policy);
            assert_eq!(reported(&handle(&next, 2).await), Done);
            let of = format!("at the claim: {at_claim}, arrived: {arrived}, {policy:?}");
            assert_eq!(server.seen().len(), calls[n], "{of}");
        }
    }
}

#[tokio::test]
async fn a_call_outlives_the_attempt_that_made_it_and_its_answer_is_recorded() {
    let server = HandlerServer::start(|_| Reaction::SendAndHang(String::new())).await;
    let ledger = MemoryLedger::new();
    let program = program(
        handler(&server.url("/")),
        ledger.clone(),
        OnAmbiguous::Resend,
    );
    tokio::select! {
        biased;
        () = server.wait(1) => {}
        result = handle(&program, 1) => panic!("{result:?}"),
    }
    assert_eq!(row(&ledger).await.unwrap().state, State::Sending);
    assert_eq!(program.finish(Duration::from_secs(10)).await, 0);
    assert_eq!(row(&ledger).await.unwrap().state, State::Ambiguous);
}

#[tokio::test]
async fn the_example_charges_every_order_once_though_answers_get_lost() {
    let (calls, charged) = charge::deliver(20).await.unwrap();
    // The first order costs nothing, and is declined.
    assert_eq!(charged, 19);
    assert!(calls > 25, "no call was repeated: {calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_claims_each_id_and_shows_what_is_in_doubt_without_a_word_about_mail() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let in_doubt = format!("placed#{}", id(1));
    let posts = HandlerServer::start(move |posted| {
        if posted.header("idempotency-key") == Some(&in_doubt) {
            Reaction::SendAndClose(String::new())
        } else {
            answer(200, "", "{\"receipt\": \"ticket 7\"}")
        }
    })
    .await;
    shop.place(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = on_shop(&shop);
    command
        .args(["run", "--effect", "placed", "--start", "trim-horizon"])
        .args(["--handler", &posts.url("/"), "--once", "--id", "id"])
        .args(["--on-ambiguous", "park"]);
    let mut worker = Process::start(command, folder.path(), "worker");
    posts.wait(3).await;
    worker.stop().await;
    assert_eq!(posts.seen().len(), 3);
    let doubts = does(&shop, &["ledger", "list", "--state", "ambiguous"]).await;
    let expected = format!("{}\tAMBIGUOUS\tplaced\t1\t", id(1));
    assert!(doubts.starts_with(&expected), "{doubts}");
    let all = does(&shop, &["ledger", "list"]).await;
    assert_eq!(all.matches("\tticket 7\n").count(), 2, "{all}");
    let page = does(&shop, &["ledger", "show", &id(1)]).await;
    for part in [
        "effect key          placed#",
        "attempts            1",
        "no answer from",
    ] {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    let printed = does(&shop, &["ledger", "show", &id(0), "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["receipt"], "ticket 7");
    assert_eq!(json["attempts"], 1);
    assert_eq!(json["message_id_local"], serde_json::Value::Null);
    let explained = does(&shop, &["explain", &id(1), "--table", &shop.orders]).await;
    // The item has an address.
    let (events, _) = explained.split_once("Its item in table").unwrap();
    for text in [&*page, events] {
        assert!(
            !text.contains("mail") && !text.contains("Message-ID"),
            "{text}"
        );
    }
    let doubtful = id(1);
    let resolve = [
        "ledger",
        "resolve",
        &doubtful,
        "--sent",
        "--note",
        "in the log",
    ];
    let resolved = does(&shop, &resolve).await;
    assert!(resolved.contains("is now SENT"), "{resolved}");
}

#[tokio::test]
async fn flags_that_need_each_other_say_so() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mail = [
        "--mail-from",
        "a@example.com",
        "--smtp-url",
        "smtp://localhost:1",
    ];
    let ses = ["--mail", "ses", "--mail-from", "a@example.com"];
    let url = ["--handler", "http://127.0.0.1:1/"];
    let remembers = ["--provider-remembers", "24h"];
    let too_short = ["--once", "--provider-remembers", "59m"];
    for (arguments, reported) in [
        ([&mail[..], &["--once"]].concat(), "--once is for a handler"),
        (
            [&mail[..], &remembers].concat(),
            "needs --idempotency-header",
        ),
        ([&url[..], &remembers].concat(), "needs --once"),
        ([&url[..], &too_short].concat(), "shorter than 1h"),
        (
            [&ses[..], &remembers].concat(),
            "cannot be used with --mail ses",
        ),
    ] {
        let mut command = on_shop(&shop);
        command.arg("run").args(&arguments);
        let output = command.output().await.unwrap();
        let complained = complaint(&output);
        assert!(complained.contains(reported), "{complained}");
        assert!(text(&output.stdout).is_empty());
    }
}

/// A provider that recognises the key answers a repeat as it answered at first.
#[tokio::test]
async fn a_provider_that_remembers_is_called_again_under_either_policy_and_closes_the_doubt() {
    for policy in POLICIES {
        let server = HandlerServer::start(|posted| match posted.header("aftercommit-attempt") {
            Some("1" | "2" | "3") => Reaction::SendAndClose(String::new()),
            _ => answer(200, "", "{\"receipt\": \"charge 1\"}"),
        })
        .await;
        let ledger = MemoryLedger::new();
        let mut settings = OnceSettings::default();
        settings.on_ambiguous = policy;
        settings.provider_remembers = Some(Duration::from_hours(24));
        // A program of its own for each attempt: after two doubts in a row, one lets no call pass for ten
        // seconds.
        for attempt in 1..=5 {
            let handler = handler(&server.url("/")).keyed_by(|_| Ok("1042".to_owned()));
            let program = Program::Http(Box::new(handler));
            let program = program.once(ledger.clone(), settings.clone(), fastrand::Rng::new());
            let expected = if attempt < 4 { Retry } else { Done };
            assert_eq!(reported(&handle(&program, attempt).await), expected);
            let closed = program.tally().of(Counted::Closed);
            assert_eq!(closed, u64::from(attempt == 4));
        }
        let seen = server.seen();
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|one| one.raw == seen[0].raw));
        let row = row(&ledger).await.unwrap();
        assert_eq!((row.state, row.second_acceptances()), (State::Sent, 0));
        assert_eq!((row.ambiguities, row.doubtful.len()), (3, 0));
    }
}
