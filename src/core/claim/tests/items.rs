//! The item that a row is about.

use super::*;

fn item(table: &str, key: &str, recipient: &str) -> ItemRef {
    ItemRef {
        table: table.into(),
        key: key.into(),
        recipient: Some(recipient.into()),
    }
}

#[test]
fn another_item_under_one_effect_key_is_neither_sent_nor_taken_for_sent() {
    let of = |nonce, item| Ask {
        item: Some(item),
        ..ask(nonce, OnAmbiguous::Resend)
    };
    let first = item("orders", "1", "ann");
    let Verdict::Claim(claimed) = claim(None, &of(1, first.clone()), Liveness::Dead) else {
        panic!("a new effect can be claimed");
    };
    let rows = [
        claimed.clone(),
        then(&claimed, &accepted(1)),
        then(&claimed, &deferred(1)),
        then(&claimed, &refused(1)),
        then(&claimed, &lost(1)),
    ];
    for row in &rows {
        let state = row.state;
        let verdict = |item| claim(Some(row), &of(2, item), Liveness::Dead);
        for other in [item("orders", "2", "ann"), item("archive", "1", "bob")] {
            assert_eq!(verdict(other), Verdict::Collision(first.clone()), "{state}");
        }
        // A later image of the item, with another recipient; and the item in another table.
        for same in [item("orders", "1", "bob"), item("archive", "1", "ann")] {
            assert!(!matches!(verdict(same), Verdict::Collision(_)), "{state}");
        }
    }
}

#[test]
fn a_row_without_an_item_takes_the_first_one_that_comes() {
    let retry = then(&claimed_by(None, 1), &deferred(1));
    let later = Ask {
        item: Some(item("orders", "1", "ann")),
        ..ask(2, OnAmbiguous::Resend)
    };
    let Verdict::Claim(entry) = claim(Some(&retry), &later, Liveness::Dead) else {
        panic!("a row without an item stands for none yet");
    };
    assert_eq!(entry.item, later.item);
}

#[test]
fn a_suppressed_effect_is_decided_again_by_the_next_record() {
    let reason = |reason: &str| Happened::Suppressed {
        reason: reason.into(),
    };
    let gone = transition(None, &reason("the order is gone"), at(0)).unwrap();
    let gone = gone.standing_for(Some(&item("orders", "1", "ann")));
    assert_eq!(
        then(&gone, &reason("the order is gone")),
        gone,
        "the same again"
    );
    let pending = then(&gone, &reason("status is PENDING"));
    assert_eq!((pending.state, pending.revision), (State::Suppressed, 2));
    let moved = Ask {
        item: Some(item("archive", "7", "bob")),
        ..ask(2, OnAmbiguous::Park)
    };
    let Verdict::Claim(entry) = claim(Some(&pending), &moved, Liveness::Dead) else {
        panic!("SUPPRESSED is not final");
    };
    assert_eq!(entry.item, moved.item);
    let kinds: Vec<_> = entry.history.steps().iter().map(|step| step.kind).collect();
    let expected = [
        StepKind::Suppressed,
        StepKind::Suppressed,
        StepKind::Moved,
        StepKind::Claimed,
    ];
    assert_eq!(kinds, expected);
}
