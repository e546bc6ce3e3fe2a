//! SIGTERM while a mail is being sent.

use std::time::{Duration, Instant};

use aftercommit::EffectName;
use aftercommit::internal::claim::State;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use tokio::time::{sleep, timeout};

use crate::fleet::process::{Process, Signal, command};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, id};

/// `--handover-timeout`, and what a busy machine takes to end.
const LIMIT: Duration = Duration::from_secs(30 + 10);

#[tokio::test]
async fn a_worker_that_is_stopped_waits_for_the_reply_to_its_mail_and_writes_it_down() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let late = Fault::once(Step::Dot, Act::Late(Duration::from_secs(2)));
    let mails = MailServer::start(Script::default().fault(late)).await;
    shop.place(0..1).await;
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Process::start(command(&shop, &mails, None, "one"), folder.path(), "one");
    let has_data = || mails.heard().iter().any(|(_, line)| line == "DATA");
    while !has_data() {
        sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    worker.signal(Signal::Stop).await;
    let ended = timeout(LIMIT, worker.ended()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    assert!(began.elapsed() > Duration::from_secs(1), "it did not wait");
    assert_eq!(mails.count(), 1);
    let row = shop
        .ledger()
        .read(&EffectKey::new(&EffectName::default(), &id(0)))
        .await;
    let row = row.unwrap().unwrap();
    assert_eq!((row.state, row.ambiguities), (State::Sent, 0));
}
