//! Effects and groups: two kinds of mail for one order never meet, and nobody performs another
//! group's effect without knowing.

use std::process::Output;

use aftercommit::EffectName;
use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::smtp::Smtp;
use aftercommit::confirmation::template::Templates;
use aftercommit::internal::claim::{OnAmbiguous, State};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aftercommit::{Context, RecordHandler};

use crate::cli::start::{complaint, on_tables, text};
use crate::fleet::process::{Process, command};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{MailServer, Script};
use crate::support::orders::{inserted, quick, rules};
use crate::support::shop::{Shop, id};

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {mail}"))
}

#[tokio::test]
async fn two_kinds_of_mail_for_one_order_differ_in_all_that_keeps_mails_apart() {
    let server = MailServer::start(Script::default()).await;
    let ledger = MemoryLedger::new();
    let record = inserted("o1", "ann@example.com");
    let effects = ["placed", "shipped"].map(|name| EffectName::new(name).unwrap());
    for effect in &effects {
        let from = "Shop <shop@example.com>".parse().unwrap();
        let letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
        let letterhead = letterhead.idempotency_header("Idempotency-Key").unwrap();
        let smtp = Smtp::new(quick(&server)).unwrap();
        let rules = rules(OnAmbiguous::Resend);
        let rng = fastrand::Rng::new();
        let handler = Confirmation::new(ledger.clone(), smtp, letterhead, rules, rng);
        let handler = handler.effect(effect.clone());
        handler.handle(&record, &Context::detached()).await.unwrap();
        let row = ledger.read(&EffectKey::new(effect, "o1")).await.unwrap();
        assert_eq!(row.unwrap().state, State::Sent, "{effect}");
    }
    let mails = server.accepted();
    let [placed, shipped] = &*mails else {
        panic!("{} mails", mails.len());
    };
    let (placed, shipped) = (placed.text(), shipped.text());
    for name in ["Message-ID:", "Idempotency-Key:"] {
        assert_ne!(header(&placed, name), header(&shipped, name));
    }
    assert_eq!(
        header(&placed, "Idempotency-Key:"),
        "Idempotency-Key: placed#o1"
    );
    let boundary = |mail: &str| {
        let (_, rest) = mail.split_once("boundary=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    assert_ne!(boundary(&placed), boundary(&shipped));
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    complaint(output)
}

#[tokio::test]
async fn a_group_is_refused_an_effect_or_settings_that_are_not_its_own() {
    let dynamodb = Embedded::start();
    let shop = Shop::open(dynamodb.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let folder = tempfile::tempdir().unwrap();
    shop.place([0]).await;
    let run = |group: &str, more: &[&str]| {
        let mut run = command(&shop, &mails, None, "one");
        run.args(["--group", group]).args(more);
        run
    };
    let mut placed = Process::start(run("placed", &["--effect", "mail"]), folder.path(), "one");
    mails.wait_accepted(1).await;
    placed.stop().await;

    let taken = run("shipped", &["--effect", "mail"])
        .output()
        .await
        .unwrap();
    let taken = refused(&taken);
    assert!(taken.contains("belongs to the group placed"), "{taken}");
    assert!(taken.contains("--join-effect"), "{taken}");

    let other_id = ["--effect", "mail", "--id", "name"];
    let differs = refused(&run("placed", &other_id).output().await.unwrap());
    assert!(
        differs.contains("id is \"name\" here and \"id\" in the group"),
        "{differs}"
    );
    assert!(differs.contains("--accept-new-identity"), "{differs}");

    for (flag, value, named) in [
        (
            "--only",
            "total > 0",
            "only is \"total > 0\" here and not set in the group",
        ),
        (
            "--filter",
            r#"{"eventName": ["INSERT"], "dynamodb": {"NewImage": {"status": {"S": ["PAID"]}}}}"#,
            "and \"{\\\"eventName\\\":[\\\"INSERT\\\"]}\" in the group",
        ),
    ] {
        let other = ["--effect", "mail", flag, value];
        let differs = refused(&run("placed", &other).output().await.unwrap());
        assert!(differs.contains(named), "{differs}");
    }

    let forgot = refused(&run("placed", &[]).output().await.unwrap());
    let named = "effect confirmation is not in the group, and effect mail of the group is not here";
    assert!(forgot.contains(named), "{forgot}");

    let joins = run("shipped", &["--effect", "mail", "--join-effect"]);
    let mut joined = Process::start(joins, folder.path(), "two");
    joined.stop().await;

    // Who asks later needs the group's name only, and finds no rows but those of orders.
    let mut asking = on_tables(&shop);
    asking.args(["ledger", "show", &id(0), "--group", "placed"]);
    let row = text(&asking.output().await.unwrap().stdout);
    assert!(row.contains("SENT") && row.contains("mail"), "{row}");
    let listed = shop.ledger().list(None, None).await.unwrap();
    assert_eq!(listed.entries.len(), 1);
}
