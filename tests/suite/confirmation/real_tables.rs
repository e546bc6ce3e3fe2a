//! Tables as shops have them: a sort key, items that are not orders, orders of long ago.

use std::time::Duration;

use aftercommit::EffectName;
use aftercommit::internal::claim::State;
use aftercommit::record::Position;
use aftercommit::stores::leases::{Checkpoint, Consistency, LeaseRow, LeaseStore as _};
use aftercommit::stores::ledger::{EffectKey, Ledger as _};
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::process::Command;

use crate::cli::send::composite;
use crate::cli::start::{on_shop, text};
use crate::fleet::process::{self, Process};
use crate::support::embedded::Embedded;
use crate::support::mail_server::{Act, Fault, MailServer, Script, Step};
use crate::support::shop::{Shop, address};

/// A shop whose orders are in a table of customers and their orders, with CUST#7's ORDER#1.
async fn single(server: &Embedded) -> Shop {
    let mut shop = Shop::open(server.url()).await;
    "single".clone_into(&mut shop.orders);
    composite(&shop, "single").await;
    shop
}

/// Writes another item of the customer.
async fn put(shop: &Shop, sort: &str, attributes: &[(&str, &str)]) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = shop.client.put_item().table_name(&shop.orders);
    let put = put.item("PK", text("CUST#7")).item("SK", text(sort));
    let put = attributes
        .iter()
        .fold(put, |put, (name, value)| put.item(*name, text(value)));
    put.send().await.unwrap();
}

/// Runs a worker until it has sent this many mails and has stopped.
async fn run(shop: &Shop, arguments: &[&str], mails: &MailServer, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::command(shop, mails, None, "one");
    command.args(arguments);
    let mut worker = Process::start(command, folder.path(), "one");
    mails.wait_accepted(count).await;
    worker.stop().await;
}

fn preview(shop: &Shop, arguments: &[&str]) -> Command {
    let mut command = on_shop(shop);
    command.arg("preview").args(arguments);
    command
}

#[tokio::test]
async fn each_order_of_a_customer_is_mailed_and_other_items_are_filtered() {
    let server = Embedded::start();
    let shop = single(&server).await;
    let mails = MailServer::start(Script::default()).await;
    put(&shop, "PROFILE", &[("email", &address(3))]).await;
    put(&shop, "ORDER#2", &[("email", &address(2))]).await;
    run(
        &shop,
        &["--only", "SK is startingwith('ORDER#')"],
        &mails,
        2,
    )
    .await;
    let mailed = mails.by_recipient();
    let mailed: Vec<_> = mailed.iter().map(|(to, count)| (&**to, *count)).collect();
    let (first, second) = (address(1), address(2));
    assert_eq!(mailed, [(&*first, 1), (&*second, 1)]);
    for id in ["CUST#7/ORDER#1", "CUST#7/ORDER#2"] {
        let row = shop
            .ledger()
            .read(&EffectKey::new(&EffectName::default(), id))
            .await;
        assert_eq!(row.unwrap().unwrap().state, State::Sent, "{id}");
    }
}

#[tokio::test]
async fn an_order_from_before_the_date_is_not_mailed_when_it_is_touched() {
    let server = Embedded::start();
    let shop = single(&server).await;
    let mails = MailServer::start(Script::default()).await;
    let placed = |email, at| [("email", email), ("status", "PAID"), ("placed", at)];
    let (old, new) = (address(8), address(9));
    put(&shop, "ORDER#8", &placed(&old, "2023-05-01")).await;
    put(&shop, "ORDER#9", &placed(&new, "2026-05-01")).await;
    let paid = r#"{"dynamodb": {"NewImage": {"status": {"S": ["PAID"]}}}}"#;
    let since = ["--not-before", "2026-01-01", "--created-at", "placed"];
    run(
        &shop,
        &[&["--filter", paid], &since[..]].concat(),
        &mails,
        1,
    )
    .await;
    assert_eq!(mails.by_recipient().into_keys().collect::<Vec<_>>(), [new]);
}

#[tokio::test]
async fn a_preview_of_a_table_says_what_its_items_become_and_which_fail_and_why() {
    let server = Embedded::start();
    let shop = single(&server).await;
    put(&shop, "ORDER#2", &[("mail", "ada@example.com")]).await;
    put(&shop, "PROFILE", &[]).await;
    let only = ["--only", "SK is startingwith('ORDER#')"];
    let output = preview(&shop, &only).output().await.unwrap();
    let reported = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{reported}");
    for expected in [
        "PK=CUST#7,SK=ORDER#1: order CUST#7/ORDER#1: Your order CUST#7/ORDER#1 is confirmed\n",
        "PK=CUST#7,SK=ORDER#2: FAILS: order CUST#7/ORDER#2: email, from the expression \"email\", is missing; ",
        "PK=CUST#7,SK=PROFILE: not an order to confirm",
        "3 items: 1 become mails, 1 are not orders, 1 fail\n",
    ] {
        assert!(
            reported.contains(expected),
            "{reported}\n  lacks: {expected}"
        );
    }
    let one = [
        "--key",
        "PK=CUST#7,SK=ORDER#2",
        "--email",
        "mail",
        "--id",
        "SK|replace('ORDER#', '')",
    ];
    let output = preview(&shop, &one).output().await.unwrap();
    let reported = text(&output.stdout);
    assert!(output.status.success(), "{reported}");
    assert!(
        reported.contains("order 2: Your order 2 is confirmed"),
        "{reported}"
    );
    let same = [&only[..], &["--id", "PK", "--email", "email or mail"]].concat();
    let reported = text(&preview(&shop, &same).output().await.unwrap().stdout);
    assert!(
        reported.contains("has the same order id, CUST#7, as PK=CUST#7,SK=ORDER#1"),
        "{reported}"
    );
}

#[tokio::test]
async fn a_preview_of_a_table_writes_each_mail_into_the_folder() {
    let server = Embedded::start();
    let shop = single(&server).await;
    put(&shop, "ORDER#2", &[("email", &address(2))]).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mails");
    let arguments = ["--out", out.to_str().unwrap(), "--id", "SK"];
    let output = preview(&shop, &arguments).output().await.unwrap();
    let reported = text(&output.stdout);
    assert!(
        output.status.success(),
        "{reported}{}",
        text(&output.stderr)
    );
    for name in ["1-ORDER_1", "2-ORDER_2"] {
        for ending in ["eml", "html", "txt"] {
            let path = out.join(format!("{name}.{ending}"));
            assert!(
                reported.contains(&format!("  {}\n", path.display())),
                "{reported}"
            );
            let mail = std::fs::read_to_string(path).unwrap();
            assert!(mail.contains(&name[2..].replace('_', "#")), "{mail}");
        }
    }
}

#[tokio::test]
async fn an_answer_goes_to_whom_the_order_names_and_an_odd_address_is_quoted_on_the_wire() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    let mails = MailServer::start(Script::default()).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let seller = [("email".to_owned(), text("tea@example.com"))];
    for (id, email, seller) in [
        ("1", "john..doe@example.com", Some(seller)),
        ("2", "\"jane.\"@example.com", None),
    ] {
        let put = shop.client.put_item().table_name(&shop.orders);
        let put = put.item("id", text(id)).item("email", text(email));
        let put = match seller {
            Some(seller) => put.item("seller", AttributeValue::M(seller.into())),
            None => put,
        };
        put.send().await.unwrap();
    }
    let answers = [
        "--reply-to",
        "shop@example.com",
        "--order-reply-to",
        "seller.email",
    ];
    run(&shop, &answers, &mails, 2).await;
    let mut answers: Vec<_> = mails
        .accepted()
        .iter()
        .map(|mail| (mail.to[0].clone(), mail.header("Reply-To").unwrap()))
        .collect();
    answers.sort();
    let expected = [
        ("jane.@example.com", "shop@example.com"),
        ("john..doe@example.com", "tea@example.com"),
    ];
    assert_eq!(
        answers,
        expected.map(|(to, answer)| (to.to_owned(), answer.to_owned()))
    );
    let heard = mails.heard();
    let said = |line: &str| heard.iter().any(|(_, heard)| heard.starts_with(line));
    assert!(said("RCPT TO:<\"john..doe\"@example.com>"), "{heard:?}");
    assert!(said("RCPT TO:<\"jane.\"@example.com>"), "{heard:?}");
}

/// Neither fleet sees the other's heartbeats: only the claim's deadline tells.
#[tokio::test]
async fn two_fleets_on_one_ledger_send_one_mail_however_slow_the_final_dot_is() {
    let server = Embedded::start();
    let shop = Shop::open(server.url()).await;
    // Much longer than a worker may be silent.
    let slow = Fault::always(Step::Dot, Act::Late(Duration::from_secs(5)));
    let mails = MailServer::start(Script::default().fault(slow)).await;
    let mut other = Shop::open(server.url()).await;
    for (of_other, of_shop) in [
        (&mut other.orders, &shop.orders),
        (&mut other.ledger, &shop.ledger),
        (&mut other.arn, &shop.arn),
    ] {
        of_other.clone_from(of_shop);
    }
    let folder = tempfile::tempdir().unwrap();
    shop.place(0..1).await;
    let start = |shop: &Shop, name| {
        let mut command = process::command(shop, &mails, None, name);
        command.args(["--lease-duration", "1s"]);
        Process::start(command, folder.path(), name)
    };
    let mut workers = [start(&shop, "one"), start(&other, "two")];
    for fleet in [&shop, &other] {
        let leases = fleet.lease_store();
        let done = async || {
            let view = leases.look(Consistency::Strong).await.unwrap();
            let reached =
                |row: &LeaseRow| matches!(row.checkpoint, Checkpoint::At(Position::After(_)));
            view.leases.values().any(reached)
        };
        while !done().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for worker in &mut workers {
        worker.stop().await;
    }
    let heard = mails.heard();
    let dots = heard.iter().filter(|(_, line)| line == "DATA").count();
    assert_eq!((mails.count(), dots), (1, 1), "{heard:?}");
    let row = &shop.rows(1).await[&0];
    assert_eq!((row.state, row.ambiguities), (State::Sent, 0));
}
