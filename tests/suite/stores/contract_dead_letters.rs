//! What all dead letters promise, run against each store of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{
    Attempt, Attempts, Coming, DeadLetters, Envelope, Fence, Letter, LetterOutcome, Reason,
    Selection, Written,
};
use futures_util::future::join_all;

use crate::support::letters::{
    OnServer, at, close, deed, id, is_parked, letter, letter_of, listed, next, place, record,
};
use crate::support::server::on_each_store;

on_each_store! {
    MemoryDeadLetters::default(), OnServer::on, OnServer::letters;
    a_letter_parks_its_key_and_is_read_as_it_was_written,
    a_letter_that_is_written_again_stays_one_letter,
    a_follower_comes_behind_a_parked_key_and_nowhere_else,
    letters_of_a_key_come_in_the_order_of_their_records,
    the_next_letter_after_another_is_found_in_any_state,
    a_key_is_parked_until_its_last_letter_is_closed,
    a_letter_is_closed_once,
    a_closed_letter_opens_again_when_its_record_fails_again,
    an_attempt_is_added_to_an_open_letter_only,
    a_letter_is_written_only_while_the_lease_is_held,
    many_letters_at_once_under_one_lease_are_each_written_or_answered,
    followers_and_closing_at_once_leave_no_key_parked_without_letters,
}

async fn a_letter_parks_its_key_and_is_read_as_it_was_written(letters: impl DeadLetters) {
    let letter = letter(&place(), "a", 7);
    assert!(!is_parked(&letters, &letter).await);
    assert_eq!(letters.read(id(&letter)).await.unwrap(), None);
    letters.park(&letter).await.unwrap();
    assert!(is_parked(&letters, &letter).await);
    assert_eq!(
        letters.read(id(&letter)).await.unwrap(),
        Some(letter.clone())
    );
    assert_eq!(next(&letters, &letter).await, Some(letter));
}

async fn a_letter_that_is_written_again_stays_one_letter(letters: impl DeadLetters) {
    let first = letter(&place(), "a", 7);
    letters.park(&first).await.unwrap();
    let again = Letter {
        envelope: Envelope {
            reason: Reason::Exhausted,
            ..first.envelope.clone()
        },
        ..first.clone()
    };
    letters.park(&again).await.unwrap();
    assert_eq!(letters.follow(&again).await.unwrap(), Some(()));
    assert_eq!(next(&letters, &first).await, Some(first.clone()));
    assert_eq!(close(&letters, &first).await, Some(()));
    assert!(!is_parked(&letters, &first).await);
}

async fn a_follower_comes_behind_a_parked_key_and_nowhere_else(letters: impl DeadLetters) {
    let place = place();
    let (first, follower) = (letter(&place, "a", 7), letter(&place, "a", 8));
    assert_eq!(letters.follow(&follower).await.unwrap(), None);
    assert_eq!(letters.read(id(&follower)).await.unwrap(), None);
    letters.park(&first).await.unwrap();
    let elsewhere = letter(&place, "b", 9);
    assert_eq!(letters.follow(&elsewhere).await.unwrap(), None);
    let other_table = letter(&self::place(), "a", 9);
    assert_eq!(letters.follow(&other_table).await.unwrap(), None);
    for _ in 0..2 {
        assert_eq!(letters.follow(&follower).await.unwrap(), Some(()));
    }
    close(&letters, &first).await.unwrap();
    assert!(is_parked(&letters, &first).await);
    close(&letters, &follower).await.unwrap();
    assert!(!is_parked(&letters, &first).await);
    let late = letter(&place, "a", 10);
    assert_eq!(letters.follow(&late).await.unwrap(), None);
}

async fn letters_of_a_key_come_in_the_order_of_their_records(letters: impl DeadLetters) {
    let place = place();
    let first = letter(&place, "a", 9);
    letters.park(&first).await.unwrap();
    for number in [1_000, 10, 99, 100, 12, 11] {
        letters
            .follow(&letter(&place, "a", number))
            .await
            .unwrap()
            .unwrap();
    }
    let mut order = Vec::new();
    while let Some(letter) = next(&letters, &first).await {
        order.push(id(&letter).sequence_number.to_string());
        close(&letters, &letter).await.unwrap();
    }
    assert_eq!(order, ["9", "10", "11", "12", "99", "100", "1000"]);
}

async fn the_next_letter_after_another_is_found_in_any_state(letters: impl DeadLetters) {
    let place = place();
    let all: Vec<_> = (1..=12).map(|n| letter(&place, "a", n * 3)).collect();
    for letter in &all[1..] {
        letters.park(letter).await.unwrap();
    }
    letters.park(&letter(&place, "b", 1000)).await.unwrap();
    for closed in &all[2..9] {
        close(&letters, closed).await.unwrap();
    }
    let behind = async |one: &Letter| letters.next_after(id(one)).await.unwrap();
    assert_eq!(
        behind(&all[0]).await.as_ref(),
        Some(&all[1]),
        "never written"
    );
    assert_eq!(behind(&all[1]).await.as_ref(), Some(&all[9]), "open");
    assert_eq!(behind(&all[4]).await.as_ref(), Some(&all[9]), "closed");
    assert_eq!(behind(&all[9]).await.as_ref(), Some(&all[10]));
    assert_eq!(behind(&all[11]).await, None, "the last of its key");
    let elsewhere = letter(&self::place(), "a", 1);
    assert_eq!(behind(&elsewhere).await, None);
}

async fn a_key_is_parked_until_its_last_letter_is_closed(letters: impl DeadLetters) {
    let place = place();
    let (first, second) = (letter(&place, "a", 7), letter(&place, "a", 8));
    letters.park(&first).await.unwrap();
    letters.park(&second).await.unwrap();
    let key = &id(&first).key;
    assert!(!letters.unpark_if_empty(&place, key).await.unwrap());
    // Not the oldest first: that is the operator's choice.
    let discarded = letters
        .close(id(&second), &deed(LetterOutcome::Discarded))
        .await;
    discarded.unwrap().unwrap();
    assert!(is_parked(&letters, &first).await);
    close(&letters, &first).await.unwrap();
    assert!(!is_parked(&letters, &first).await);
    assert!(letters.unpark_if_empty(&place, key).await.unwrap());
    assert_eq!(next(&letters, &first).await, None);
}

async fn a_letter_is_closed_once(letters: impl DeadLetters) {
    let letter = letter(&place(), "a", 7);
    assert_eq!(close(&letters, &letter).await, None);
    letters.park(&letter).await.unwrap();
    assert_eq!(close(&letters, &letter).await, Some(()));
    let again = letters
        .close(id(&letter), &deed(LetterOutcome::Discarded))
        .await;
    assert_eq!(again.unwrap(), None);
    let kept = letters.read(id(&letter)).await.unwrap().unwrap();
    assert!(!kept.envelope.open);
    assert_eq!(kept.envelope.deeds, [deed(LetterOutcome::Redriven)]);
    assert_eq!(kept.record, letter.record);
}

async fn a_closed_letter_opens_again_when_its_record_fails_again(letters: impl DeadLetters) {
    let first = letter(&place(), "a", 7);
    letters.park(&first).await.unwrap();
    close(&letters, &first).await.unwrap();
    let again = letter_of(&id(&first).at, record("a", 7), Reason::TooOld);
    letters.park(&again).await.unwrap();
    assert!(is_parked(&letters, &first).await);
    let open = next(&letters, &first).await.unwrap().envelope;
    assert_eq!((open.reason, open.open), (Reason::TooOld, true));
    assert_eq!(open.deeds, [deed(LetterOutcome::Redriven)]);
    close(&letters, &first).await.unwrap();
    let closed = letters.read(id(&first)).await.unwrap().unwrap();
    assert_eq!(closed.envelope.deeds.len(), 2);
}

async fn an_attempt_is_added_to_an_open_letter_only(letters: impl DeadLetters) {
    let letter = letter(&place(), "a", 7);
    let attempt = |n: u32| Attempt {
        at: at(20 + u64::from(n)),
        error: format!("{n}: {}", "ü".repeat(5_000)),
    };
    assert_eq!(letters.note(id(&letter), &attempt(0)).await.unwrap(), None);
    letters.park(&letter).await.unwrap();
    for n in 0..30 {
        assert_eq!(
            letters.note(id(&letter), &attempt(n)).await.unwrap(),
            Some(())
        );
    }
    let attempts = next(&letters, &letter).await.unwrap().envelope.attempts;
    assert_eq!(attempts.made(), 31);
    assert_eq!(attempts.last().count(), Attempts::KEPT);
    let last = attempts.last().next_back().unwrap();
    assert_eq!(last.at, at(49));
    assert!(last.error.starts_with("29: üü") && last.error.len() <= Attempts::LONGEST);
    close(&letters, &letter).await.unwrap();
    assert_eq!(letters.note(id(&letter), &attempt(1)).await.unwrap(), None);
}

/// With a lease in this process. One in a table is in the same transaction (`fencing`).
async fn a_letter_is_written_only_while_the_lease_is_held(letters: impl DeadLetters) {
    let held = Arc::new(AtomicBool::new(true));
    let is_held = held.clone();
    let fence = Fence::asked(move || is_held.load(Ordering::Relaxed));
    let (first, second) = (letter(&place(), "a", 7), letter(&place(), "b", 8));
    let park = async |letter| {
        letters
            .write(letter, Coming::First, Some(&fence))
            .await
            .unwrap()
    };
    let follow = async |letter| {
        letters
            .write(letter, Coming::Behind, Some(&fence))
            .await
            .unwrap()
    };
    assert_eq!(follow(&first).await, Written::KeyFree);
    assert_eq!(park(&first).await, Written::Done);
    held.store(false, Ordering::Relaxed);
    let later = letter(&id(&first).at, "a", 9);
    assert_eq!(follow(&later).await, Written::LeaseLost);
    assert_eq!(park(&second).await, Written::LeaseLost);
    assert!(!is_parked(&letters, &second).await);
    assert_eq!(letters.read(id(&later)).await.unwrap(), None);
}

async fn many_letters_at_once_under_one_lease_are_each_written_or_answered(
    letters: impl DeadLetters,
) {
    let place = place();
    let all: Vec<_> = (0..60)
        .map(|n| letter(&place, &format!("key-{n}"), n + 1))
        .collect();
    // One is open since an earlier attempt.
    letters.park(&all[7]).await.unwrap();
    let fence = Fence::asked(|| true);
    let write = |(n, letter)| {
        let coming = if n == 3 {
            Coming::Behind
        } else {
            Coming::First
        };
        letters.write(letter, coming, Some(&fence))
    };
    let written = join_all(all.iter().enumerate().map(write)).await;
    for (n, written) in written.into_iter().enumerate() {
        let expected = if n == 3 {
            Written::KeyFree
        } else {
            Written::Done
        };
        assert_eq!(written.unwrap(), expected, "letter {n}");
    }
    let parked = letters.parked(&place).await.unwrap().keys;
    assert_eq!(parked.len(), 59);
    assert!(parked.iter().all(|key| key.letters == 1));
}

async fn followers_and_closing_at_once_leave_no_key_parked_without_letters(
    letters: impl DeadLetters,
) {
    let place = place();
    let first = letter(&place, "a", 1);
    letters.park(&first).await.unwrap();
    let appending = async {
        let mut written = 0;
        for number in 2..20 {
            let letter = self::letter(&place, "a", number);
            // It is unknown how a failed write ended: it is repeated.
            let answer = loop {
                if let Ok(answer) = letters.follow(&letter).await {
                    break answer;
                }
            };
            written += u32::from(answer.is_some());
            tokio::task::yield_now().await;
        }
        written
    };
    let closing = async {
        let mut closed = 0;
        while let Ok(Some(letter)) = letters.next_of(&place, &id(&first).key).await {
            if let Ok(Some(())) = letters
                .close(id(&letter), &deed(LetterOutcome::Redriven))
                .await
            {
                closed += 1;
            }
        }
        closed
    };
    let (written, closed) = tokio::join!(appending, closing);
    let rest = listed(
        &letters,
        &Selection {
            table: Some(place.at.table().to_owned()),
            ..Selection::default()
        },
    )
    .await
    .len();
    assert_eq!(1 + written as usize, closed + rest);
    let parked = letters.parked(&place).await.unwrap().keys;
    let counted: u64 = parked.iter().map(|one| one.letters).sum();
    assert_eq!(counted, rest as u64);
}
