//! The sender against mail servers that others wrote: Postfix's smtp-sink and Python's aiosmtpd.
//!
//! Run by `tests/mail_servers/run.sh`, which gets them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aftercommit::confirmation::smtp::SmtpSettings;
use aftercommit::internal::claim::{Entry, Liveness, OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, RecordHandler as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::orders::{inserted, row, rules, worker};

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

/// aiosmtpd; it keeps each mail in the folder, and aborts after the first ones.
async fn aiosmtpd(folder: &Path, aborts: u32) -> Server {
    let python = std::env::var("AFTERCOMMIT_AIOSMTPD_PYTHON");
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/mail_servers/abort_server.py"
    );
    let mut process = Command::new(python.as_deref().unwrap_or("python3"))
        .arg(script)
        .arg(folder)
        .arg(aborts.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python: run tests/mail_servers/run.sh");
    let mut told = String::new();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    out.read_line(&mut told).await.unwrap();
    let port = told.trim().parse();
    Server {
        _process: process,
        port: port.expect("aiosmtpd: run tests/mail_servers/run.sh"),
    }
}

/// A worker that is gone after its try, as often as told; what stands in the ledger then.
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
        // What it comes to stands in the ledger.
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
        let server = aiosmtpd(folder.path(), 1).await;
        let row = tried(&server, policy, 4).await;
        assert_eq!((row.state, row.ambiguities), (state, 1), "{row:?}");
        let kept = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(kept, mails, "{policy:?}");
        let mail = |n: usize| std::fs::read(folder.path().join(n.to_string())).unwrap();
        assert!(mail(1).ends_with(b"\r\n"));
        assert_eq!(mail(1), mail(mails), "byte for byte the same");
    }
}
