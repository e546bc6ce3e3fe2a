//! Secrets: addresses, mails and credentials must not appear in logs, errors and debug output.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::smtp::{Secret, Smtp, SmtpSettings};
use aftercommit::confirmation::template::Templates;
use aftercommit::internal::claim::{Liveness, OnAmbiguous};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::{Context, RecordHandler as _};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::mail_server::{Act, Fault, MailServer, PASSWORD, Script, Step, USER};
use crate::support::orders::{inserted, quick, row, rules};

/// Keeps every line that is logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Words of the mail, of its customer, and of the login.
const SECRETS: [&str; 6] = ["ann", "Ann", "19.99", "multipart", PASSWORD, "Y29ycmVj"];

fn assert_silent(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret:?} in {what}:\n{text}");
    }
}

/// Sends one order twice to a server with this fault. Returns everything that was printed.
async fn reported(fault: Option<Fault>, password: &str) -> String {
    let script = Script {
        auth: "PLAIN",
        ..Script::default()
    };
    let server = MailServer::start(match fault {
        Some(fault) => script.fault(fault),
        None => script,
    })
    .await;
    let url = format!("smtp://{USER}@{}", server.address());
    let mut settings = SmtpSettings::from_url(&url, Some(Secret::new(password.into()))).unwrap();
    settings.timeouts = quick(&server).timeouts;
    let ledger = MemoryLedger::new();
    let mut record = inserted("o1", "ann@example.com");
    let mut reported = format!("{settings:?}");
    for attempt in 1..3 {
        let smtp = Smtp::new(settings.clone()).unwrap();
        let from = "Shop <shop@example.com>".parse().unwrap();
        let letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
        write!(reported, "{letterhead:?}").unwrap();
        let (rules, rng) = (rules(OnAmbiguous::Resend), fastrand::Rng::new());
        let worker = Confirmation::new(ledger.clone(), smtp, letterhead, rules, rng);
        let context = Context::detached()
            .of_worker(&format!("worker-{attempt}"), Liveness::Dead)
            .of_attempt(attempt);
        if let Err(failure) = worker.handle(&record, &context).await {
            write!(reported, "{failure} {failure:?}").unwrap();
        }
        write!(reported, "{worker:?} {:?}", row(&ledger, "o1").await).unwrap();
        // A record that cannot be read is reported, too.
        record = inserted("o2", "ann at example");
    }
    reported
}

#[tokio::test]
async fn no_log_line_no_error_and_no_debug_output_holds_an_address_a_mail_or_a_credential() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        // The price of the order must not appear in the seconds.
        .without_time()
        .with_writer(log.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let words = "550 5.1.1 <ann@example.com> nobody of that name";
    let mut faults = vec![None];
    for step in [Step::Rcpt, Step::Data, Step::Dot] {
        faults.push(Some(Fault::once(step, Act::Say(words))));
        faults.push(Some(Fault::once(step, Act::Say("450 <ann@example.com>"))));
        faults.push(Some(Fault::once(step, Act::Close)));
        faults.push(Some(Fault::once(step, Act::Garbage)));
    }
    for fault in faults {
        let what = format!("{fault:?}");
        assert_silent(&what, &reported(fault, PASSWORD).await);
    }
    assert_silent("a wrong password", &reported(None, "correct mule").await);
    let text = log.text();
    assert!(
        text.contains("confirmed") && text.contains("AMBIGUOUS"),
        "{text}"
    );
    assert_silent("the log", &text);
}

#[cfg(feature = "secrets")]
#[tokio::test]
#[ignore = "needs LocalStack: run localstack/test.sh"]
async fn on_localstack_the_mail_servers_password_is_read_from_secrets_manager() {
    use crate::support::clients::{localstack_url, secrets};
    use crate::support::mail_server::PASSWORD;

    let url = localstack_url();
    let name = format!("smtp-{:016x}", fastrand::u64(..));
    let create = secrets(&url).create_secret().name(&name);
    let secret = create.secret_string(format!(r#"{{"password": "{PASSWORD}"}}"#));
    let arn = secret.send().await.unwrap().arn.unwrap();
    let script = Script {
        auth: "PLAIN",
        ..Script::default()
    };
    let mails = MailServer::start(script).await;
    let send = |secret: &str| {
        let mut command = crate::cli::start::on_aws(&url);
        command
            .args(["send-test", "--to", "ada@example.com"])
            .args(["--mail-from", "shop@example.com"])
            .args(["--smtp-url", &mails.url().replace("://", "://shop@")])
            .args(["--smtp-password-secret", secret]);
        command
    };
    let output = send(&arn).output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        crate::cli::start::text(&output.stderr)
    );
    mails.wait_accepted(1).await;
    let missing = send("no-such-secret").output().await.unwrap();
    assert!(
        crate::cli::start::complaint(&missing).contains("--smtp-password-secret no-such-secret")
    );
}
