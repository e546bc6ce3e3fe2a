//! The sender against mail servers that others wrote: Postfix's smtp-sink and Python's aiosmtpd.
//!
//! Run by `tests/mail_servers/run.sh`, which gets them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use aftercommit::confirmation::smtp::SmtpSettings;
use aftercommit::internal::claim::{Entry, Liveness, OnAmbiguous, State};
use aftercommit::stores::dead_letter::{DeadLetters as _, Selection};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, RecordHandler as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::fleet::process::{Process, command_to};
use crate::support::embedded::Embedded;
use crate::support::orders::{inserted, row, rules, worker};
use crate::support::shop::{Shop, address};

/// A mail server's process. Killed when dropped.
struct Server {
    _process: Child,
    port: u16,
}

/// smtp-sink; it drops the connection after the final dot, without a word.
async fn sink() -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut command = Command::new("smtp-sink");
    if let Ok(libraries) = std::env::var("AFTERCOMMIT_POSTFIX_LIBRARIES") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    // As root it wants to be somebody else.
    let me = Command::new("id").arg("-u").output().await.unwrap();
    if me.stdout == b"0\n" {
        command.args(["-u", "nobody"]);
    }
    command.args(["-q", ".", &format!("127.0.0.1:{port}"), "100"]);
    let mut process = command
        .kill_on_drop(true)
        .spawn()
        .expect("smtp-sink on the PATH: run tests/mail_servers/run.sh");
    while tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_err()
    {
        let ended = process.try_wait().unwrap();
        assert_eq!(ended, None, "smtp-sink ended at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Server {
        _process: process,
        port,
    }
}

/// aiosmtpd, as one of the scripts beside `run.sh` sets it up.
async fn aiosmtpd(script: &str, arguments: &[&str]) -> (Server, ChildStdin) {
    let python = std::env::var("AFTERCOMMIT_AIOSMTPD_PYTHON");
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mail_servers/");
    let mut process = Command::new(python.as_deref().unwrap_or("python3"))
        .arg(format!("{scripts}{script}"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python: run tests/mail_servers/run.sh");
    let mut reported = String::new();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    out.read_line(&mut reported).await.unwrap();
    let port = reported.trim().parse();
    let port = port.expect("aiosmtpd: run tests/mail_servers/run.sh");
    let stdin = process.stdin.take().unwrap();
    let server = Server {
        _process: process,
        port,
    };
    (server, stdin)
}

/// A worker that dies after its attempt, this many times; what the ledger says then.
async fn tried(server: &Server, policy: OnAmbiguous, tries: u32) -> Entry {
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    for attempt in 1..=tries {
        let url = format!("smtp://127.0.0.1:{}", server.port);
        let settings = SmtpSettings::from_url(&url, None).unwrap();
        let worker = worker(ledger.clone(), settings, rules(policy));
        let context = Context::detached()
            .of_worker(&format!("worker-{attempt}"), Liveness::Dead)
            .of_attempt(attempt);
        // The ledger shows the result.
        let _ = worker.handle(&record, &context).await;
    }
    row(&ledger, "o1").await.unwrap()
}

#[tokio::test]
#[ignore = "needs smtp-sink and aiosmtpd: run tests/mail_servers/run.sh"]
async fn smtp_sink_that_drops_after_the_dot_leaves_a_doubt_and_after_the_second_none_is_sent() {
    let server = sink().await;
    for (policy, tries, doubts) in [
        (OnAmbiguous::Resend, 1, 1),
        (OnAmbiguous::Resend, 2, 2),
        (OnAmbiguous::Resend, 4, 2),
        (OnAmbiguous::Park, 1, 1),
        (OnAmbiguous::Park, 4, 1),
    ] {
        let row = tried(&server, policy, tries).await;
        assert_eq!(row.state, State::Ambiguous, "{policy:?} {tries}: {row:?}");
        assert_eq!(row.ambiguities, doubts, "{policy:?} {tries}: {row:?}");
        assert_eq!(row.fence, u64::from(doubts), "claims: {row:?}");
    }
}

#[tokio::test]
#[ignore = "needs smtp-sink and aiosmtpd: run tests/mail_servers/run.sh"]
async fn aiosmtpd_that_accepts_and_aborts_gets_the_same_bytes_once_more_or_never_again() {
    for (policy, state, mails) in [
        (OnAmbiguous::Resend, State::Sent, 2),
        (OnAmbiguous::Park, State::Ambiguous, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let kept_in = folder.path().to_str().unwrap();
        let (server, _runs) = aiosmtpd("abort_server.py", &[kept_in, "1"]).await;
        let row = tried(&server, policy, 4).await;
        assert_eq!((row.state, row.ambiguities), (state, 1), "{row:?}");
        let kept = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(kept, mails, "{policy:?}");
        let mail = |n: usize| std::fs::read(folder.path().join(n.to_string())).unwrap();
        assert!(mail(1).ends_with(b"\r\n"));
        assert_eq!(mail(1), mail(mails), "byte for byte the same");
    }
}

/// The faults of ten minutes, and how long each is followed by a server that is well. One that broke off
/// after the final dot is tried again within two minutes.
const FAULTS: [(&str, u64); 10] = [
    ("451 at MAIL", 15),
    ("away", 15),
    ("550 at RCPT", 15),
    ("hangs up after the dot", 130),
    ("452 at RCPT", 15),
    ("454 at the dot", 15),
    ("keeps the mail and hangs up", 130),
    ("550 at the dot", 15),
    ("hangs up at RCPT", 15),
    ("451 at MAIL", 15),
];

/// How long each fault lasts.
const LASTS: Duration = Duration::from_secs(22);

/// Between two orders.
const PAUSE: Duration = Duration::from_millis(500);

#[tokio::test]
#[ignore = "needs aiosmtpd and ten minutes: run tests/mail_servers/run.sh ten_minutes"]
async fn ten_minutes_of_faults_cost_no_order_its_mail() {
    let database = Embedded::start();
    let shop = Shop::open(database.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let (server, mut faults) = aiosmtpd("faulty_server.py", &[kept.to_str().unwrap()]).await;
    let url = format!("smtp://127.0.0.1:{}", server.port);
    let mut process = Process::start(command_to(&shop, &url, None, "one"), folder.path(), "one");
    let mut placed = 0;
    for (fault, rest) in FAULTS {
        for (now, lasts) in [(fault, LASTS), ("well", Duration::from_secs(rest))] {
            faults
                .write_all(format!("{now}\n").as_bytes())
                .await
                .unwrap();
            let end = Instant::now() + lasts;
            while Instant::now() < end {
                shop.place([placed]).await;
                placed += 1;
                sleep(PAUSE).await;
            }
        }
    }
    let finished = shop.finished(placed, OnAmbiguous::Resend);
    let rows = timeout(Duration::from_mins(5), finished).await.unwrap();
    process.stop().await;
    assert!(placed > 500, "{placed} orders");
    let all = Selection::default();
    let letters = shop.dead_letters().list(&all, None).await.unwrap().letters;
    assert!(letters.is_empty(), "{letters:?}");
    // Two of the faults leave orders in doubt.
    let doubts = rows.values().filter(|row| row.ambiguities > 0).count();
    assert!((2..=10).contains(&doubts), "{doubts} orders in doubt");
    let mut mails = BTreeMap::<String, usize>::new();
    for recipient in std::fs::read_to_string(kept).unwrap().lines() {
        *mails.entry(recipient.to_owned()).or_default() += 1;
    }
    for (order, row) in rows {
        let mails = mails.get(&address(order)).copied().unwrap_or_default();
        assert!(
            (1..=2).contains(&mails),
            "{mails} mails of {order}: {row:?}"
        );
        assert!(mails == 1 || row.ambiguities > 0, "{order}: {row:?}");
    }
}
