use std::sync::Arc;

use super::*;
use crate::core::fleet::snapshot::View;

fn me() -> Incarnation {
    Incarnation::new("me", 1)
}

fn shard() -> ShardId {
    ShardId::new("a")
}

/// A look that saw this owner and epoch, or no row.
fn snapshot(row: Option<(&str, Epoch)>, began: u64, consistent: bool) -> Snapshot {
    let mut view = View::default();
    if let Some((owner, epoch)) = row {
        let row = LeaseRow {
            owner: Some(Incarnation::new(owner, 1)),
            ..LeaseRow::new(shard(), None, epoch)
        };
        view.leases.insert(shard(), row);
    }
    Snapshot {
        view: Arc::new(view),
        began: Duration::from_secs(began),
        consistent,
    }
}

fn holdings() -> Holdings {
    Holdings::new(Duration::from_mins(1), None)
}

fn see(holdings: &mut Holdings, snapshot: &Snapshot, trusted: bool) -> Vec<ShardId> {
    holdings.see(Sight {
        me: &me(),
        snapshot,
        trusted,
        now: snapshot.began,
    })
}

#[test]
fn without_trust_nothing_is_adopted() {
    let mut holdings = holdings();
    see(&mut holdings, &snapshot(Some(("me", 3)), 1, true), false);
    assert_eq!(holdings.owns(&shard()), None);
    see(&mut holdings, &snapshot(Some(("me", 3)), 2, true), true);
    assert_eq!(holdings.owns(&shard()), Some(3));
}

#[test]
fn an_eventual_look_gives_back_only_an_epoch_that_was_never_seen() {
    let mut holdings = holdings();
    holdings.heard(&shard(), 3);
    see(&mut holdings, &snapshot(Some(("me", 3)), 1, false), true);
    assert_eq!(holdings.owns(&shard()), None, "it may lag");
    see(&mut holdings, &snapshot(Some(("me", 4)), 2, false), true);
    assert_eq!(holdings.owns(&shard()), Some(4));
}

#[test]
fn no_epoch_is_adopted_that_is_lower_than_one_that_was_seen() {
    let mut holdings = holdings();
    see(&mut holdings, &snapshot(Some(("other", 9)), 1, true), true);
    see(&mut holdings, &snapshot(Some(("me", 8)), 2, true), true);
    assert_eq!(holdings.owns(&shard()), None);
    assert_eq!(holdings.gain(&shard(), 8, Duration::from_secs(3)), None);
    assert_eq!(holdings.highest(&shard()), 9);
}

#[test]
fn an_epoch_that_was_given_up_is_never_mine_again() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(1));
    holdings.give_up(&shard());
    holdings.gave_up(&shard());
    see(&mut holdings, &snapshot(Some(("me", 4)), 2, true), true);
    assert_eq!(holdings.owns(&shard()), None);
    assert_eq!(holdings.gain(&shard(), 4, Duration::from_secs(3)), None);
    see(&mut holdings, &snapshot(Some(("me", 5)), 4, true), true);
    assert_eq!(holdings.owns(&shard()), Some(5));
}

#[test]
fn a_look_that_began_before_a_take_was_answered_takes_nothing_away() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(2));
    let lost = see(&mut holdings, &snapshot(Some(("other", 3)), 1, true), true);
    assert_eq!(lost, []);
    assert_eq!(holdings.owns(&shard()), Some(4));
    let lost = see(&mut holdings, &snapshot(Some(("other", 5)), 3, true), true);
    assert_eq!(lost, [shard()]);
}

#[test]
fn only_a_consistent_look_shows_that_a_row_is_gone() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(1));
    assert_eq!(see(&mut holdings, &snapshot(None, 2, false), true), []);
    assert_eq!(
        see(&mut holdings, &snapshot(None, 3, true), true),
        [shard()]
    );
}

#[test]
fn a_refused_write_ends_the_epoch_under_which_it_was_made_and_no_other() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(1));
    holdings.lose(&shard(), 3);
    assert_eq!(holdings.owns(&shard()), Some(4));
    holdings.lose(&shard(), 4);
    assert_eq!(holdings.owns(&shard()), None);
}

#[test]
fn a_lapse_voids_everything() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(1));
    holdings.lapse();
    assert_eq!(holdings.owned().count(), 0);
}

#[test]
fn what_is_being_given_up_is_reported_when_a_look_shows_it_gone() {
    let mut holdings = holdings();
    holdings.gain(&shard(), 4, Duration::from_secs(1));
    holdings.give_up(&shard());
    let lost = see(&mut holdings, &snapshot(Some(("other", 5)), 2, true), true);
    assert_eq!(lost, [shard()]);
}

#[test]
fn a_shard_whose_child_has_a_row_is_not_mine_whatever_its_own_row_says() {
    let mut holdings = holdings();
    let alone = snapshot(Some(("me", 3)), 1, true);
    see(&mut holdings, &alone, true);
    assert_eq!(holdings.owns(&shard()), Some(3));
    let mut view = (*alone.view).clone();
    let child = LeaseRow::new(ShardId::new("b"), Some(shard()), 5);
    view.leases.insert(child.shard.clone(), child);
    let pages = Snapshot {
        view: Arc::new(view),
        began: Duration::from_secs(2),
        consistent: false,
    };
    assert_eq!(see(&mut holdings, &pages, true), [shard()]);
    assert_eq!(holdings.owns(&shard()), None);
    see(&mut holdings, &pages, true);
    assert_eq!(holdings.owns(&shard()), None, "nor is it adopted again");
}
