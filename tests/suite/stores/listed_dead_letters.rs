//! How dead letters and parked keys are listed, in each store of them.

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters, Reason, Selection};

use crate::support::letters::{OnServer, at, close, id, letter, letter_of, listed, place, record};
use crate::support::server::on_each_store;

on_each_store! {
    MemoryDeadLetters::default(), OnServer::on, OnServer::letters;
    the_parked_keys_of_a_table_are_reported_with_their_letters,
    parked_keys_come_in_pages,
    a_listing_shows_what_is_selected,
    the_letters_of_a_key_are_listed_without_those_of_others,
}

async fn the_parked_keys_of_a_table_are_reported_with_their_letters(letters: impl DeadLetters) {
    let place = place();
    assert_eq!(letters.parked(&place).await.unwrap().keys, []);
    letters.park(&letter(&self::place(), "z", 1)).await.unwrap();
    for number in 1..=3 {
        letters.park(&letter(&place, "a", number)).await.unwrap();
    }
    let other = letter(&place, "b", 4);
    letters.park(&other).await.unwrap();
    let gone = letter(&place, "c", 5);
    letters.park(&gone).await.unwrap();
    close(&letters, &gone).await.unwrap();
    let parked = letters.parked(&place).await.unwrap().keys;
    let seen: Vec<_> = parked
        .iter()
        .map(|one| (one.keys.clone(), one.letters))
        .collect();
    assert_eq!(seen, [(record("a", 1).keys, 3), (record("b", 1).keys, 1)]);
    assert_eq!(parked[1].key, id(&other).key);
    assert_eq!(parked[1].since, at(3));
}

async fn parked_keys_come_in_pages(letters: impl DeadLetters) {
    let place = place();
    for n in 0..25 {
        letters
            .park(&letter(&place, &format!("key{n:02}"), 1))
            .await
            .unwrap();
    }
    let (mut seen, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = letters
            .parked_page(&place, from.as_deref(), 10)
            .await
            .unwrap();
        assert!(page.keys.len() <= 10);
        seen.extend(page.keys.into_iter().map(|parked| parked.key));
        pages += 1;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    seen.dedup();
    assert_eq!((seen.len(), pages), (25, 3));
}

async fn a_listing_shows_what_is_selected(letters: impl DeadLetters) {
    let place = place();
    let rejected = letter(&place, "a", 1);
    let rescued = letter_of(&place, record("b", 2), Reason::Rescued);
    let mut late = letter_of(&place, record("b", 3), Reason::Followed);
    late.envelope.written = at(100);
    let closed = letter(&place, "c", 4);
    for letter in [&rejected, &rescued, &late, &closed] {
        letters.park(letter).await.unwrap();
    }
    close(&letters, &closed).await.unwrap();
    let of_table = Selection {
        table: Some(place.at.table().to_owned()),
        ..Selection::default()
    };
    let numbers = async |which: Selection| -> Vec<String> {
        let all = listed(&letters, &which).await;
        let numbers = all.iter().map(|one| one.id.sequence_number.to_string());
        numbers.collect()
    };
    assert_eq!(numbers(of_table.clone()).await, ["1", "2", "3"]);
    let all = Selection {
        closed_too: true,
        ..of_table.clone()
    };
    assert_eq!(numbers(all).await, ["1", "2", "3", "4"]);
    let reasons = vec![Reason::Rejected, Reason::Followed];
    let by_reason = Selection {
        reasons,
        ..of_table.clone()
    };
    assert_eq!(numbers(by_reason).await, ["1", "3"]);
    for key in ["b", "id=b"] {
        let by_key = Selection {
            key: Some(key.to_owned()),
            ..of_table.clone()
        };
        assert_eq!(numbers(by_key).await, ["2", "3"]);
    }
    let old = Selection {
        written_until: Some(at(50)),
        ..of_table.clone()
    };
    assert_eq!(numbers(old).await, ["1", "2"]);
    let first = &listed(&letters, &of_table).await[0];
    assert_eq!(first, &rejected.envelope);
}

async fn the_letters_of_a_key_are_listed_without_those_of_others(letters: impl DeadLetters) {
    let place = place();
    let [first, second] = [7, 12].map(|number| letter(&place, "a", number));
    for one in [&second, &first, &letter(&place, "b", 8)] {
        letters.park(one).await.unwrap();
    }
    close(&letters, &first).await.unwrap();
    let of_key = letters.of_key(&place.at, &id(&first).key).await.unwrap();
    let reported: Vec<_> = of_key
        .iter()
        .map(|one| (one.id.clone(), one.open))
        .collect();
    assert_eq!(
        reported,
        [(id(&first).clone(), false), (id(&second).clone(), true)]
    );
}
