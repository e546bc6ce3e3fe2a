//! What a redrive needs to know of its group, it reads in the ledger.

use std::time::Duration;

use aftercommit::EffectName;
use aftercommit::engine::Identity;
use aftercommit::internal::claim::State;
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::registration::Registration;
use aftercommit::stores::ledger::{EffectKey, Ledger as _};

use super::{Shop, lines};
use crate::cli::start::{complaint, text};

/// Registers the shop's group with these settings.
async fn register(shop: &Shop, identity: Identity) -> DynamoDbLedger {
    let retention = Duration::from_hours(24 * 401);
    let ledger = DynamoDbLedger::new(shop.client.clone(), "aftercommit-ledger", retention);
    let fleet = Registration {
        of: shop.at.at.clone(),
        effect: EffectName::default(),
        identity,
        join_effect: false,
        accept_new_identity: false,
    };
    ledger.register(&fleet).await.unwrap().unwrap();
    ledger
}

#[tokio::test]
async fn a_redrive_mails_no_order_that_its_group_does_not_confirm() {
    let not_before = Identity::default()
        .with("not-before", "2026-01-01")
        // 1970.
        .with("created-at", "total");
    // The letters that a worker without the effect leaves have passed no filter.
    let filtered = Identity::default().with(
        "filter",
        "{\"eventName\":[\"REMOVE\"]}\n{\"dynamodb\":{\"NewImage\":{\"currency\":{\"S\":[\"USD\"]}}}}",
    );
    for identity in [
        Identity::default().with("only", "currency == 'USD'"),
        not_before,
        filtered,
    ] {
        let shop = Shop::with_letters().await;
        register(&shop, identity).await;
        let reported = lines(&shop.redrive(&["--key", "1"]).await);
        assert!(reported[0].starts_with("1 letter redriven"), "{reported:?}");
        assert_eq!(shop.mail.count(), 0);
    }
}

#[tokio::test]
async fn a_redrive_mails_an_order_that_passes_one_filter_of_its_group() {
    let shop = Shop::with_letters().await;
    let filters = "{\"eventName\":[\"REMOVE\"]}\n{\"eventName\":[\"INSERT\"]}";
    register(&shop, Identity::default().with("filter", filters)).await;
    lines(&shop.redrive(&["--key", "1"]).await);
    assert_eq!(shop.mail.count(), 1);
}

/// Another id would be another effect key, and so a second mail for an order that was mailed.
#[tokio::test]
async fn a_redrive_takes_the_id_and_the_effect_from_its_group_and_refuses_a_flag_that_differs() {
    let shop = Shop::with_letters().await;
    let ledger = register(&shop, Identity::default().with("id", "email")).await;
    let one = ["--key", "1"];
    let other_id = [&one[..], &["--id", "id"]].concat();
    let refused = complaint(&shop.redrive(&other_id).await);
    assert!(
        refused.contains("takes the order's id from \"email\""),
        "{refused}"
    );
    let arguments = [&one[..], &["--effect", "mail"]].concat();
    let other = shop.redrive(&arguments);
    let other = text(&other.await.stderr);
    assert!(other.contains("no dead letter matches"), "{other}");
    assert!(shop.mail.accepted().is_empty());
    lines(&shop.redrive(&one).await);
    let key = EffectKey::new(&EffectName::default(), "ada@example.com");
    let row = ledger.read(&key).await.unwrap().unwrap();
    assert_eq!(row.state, State::Sent);
}
