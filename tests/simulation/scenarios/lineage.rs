//! Parents before children: scenarios 18, 20, 22, 25 to 31.

use aftercommit::internal::fleet::lineage::Tree;
use aftercommit::internal::shard::{Shard, ShardId};
use aftercommit::record::Position;
use aftercommit::record::SequenceNumber;
use aftercommit::stores::leases::{Checkpoint, InitialPosition, LeaseRow, View};

use super::calls::Tapped;
use super::stage::{Stage, eventually, pass, secs};
use super::taking::shard;

fn listed(id: usize, parent: Option<usize>) -> Shard {
    Shard {
        id: shard(id),
        parent: parent.map(shard),
    }
}

fn ids(shards: &[Shard]) -> Vec<ShardId> {
    shards.iter().map(|shard| shard.id.clone()).collect()
}

fn row(id: usize, parent: Option<usize>, checkpoint: Checkpoint) -> LeaseRow {
    LeaseRow {
        checkpoint,
        ..LeaseRow::new(shard(id), parent.map(shard), 1)
    }
}

fn at_horizon() -> Checkpoint {
    Checkpoint::At(Position::Horizon)
}

fn reading() -> Checkpoint {
    Checkpoint::At(Position::After(SequenceNumber::parse("1").unwrap()))
}

fn ended(children: &[usize]) -> Checkpoint {
    Checkpoint::End {
        children: children.iter().copied().map(shard).collect(),
    }
}

/// The shards that should have a row and have none.
fn due(listed: &[Shard], rows: &[LeaseRow]) -> Vec<ShardId> {
    ids(&Tree::new(listed, &view(rows), None).due())
}

/// The shards whose row nobody needs any more.
fn removable(listed: &[Shard], rows: &[LeaseRow]) -> Vec<ShardId> {
    Tree::new(listed, &view(rows), None).removable()
}

/// The shards that a fleet begins with that starts now.
fn leaves(listed: &[Shard]) -> Vec<ShardId> {
    ids(&Tree::new(listed, &View::default(), None).leaves())
}

fn view(rows: &[LeaseRow]) -> View {
    let rows = rows.iter().map(|row| (row.shard.clone(), row.clone()));
    View {
        leases: rows.collect(),
        ..View::default()
    }
}

/// Scenario 18.
#[tokio::test(start_paused = true)]
async fn a_child_waits_for_its_parent_and_starts_within_a_second_of_its_end() {
    let stage = Stage::new(1);
    let _one = stage.worker("one");
    let parent = stage.stream.open_shards()[0].clone();
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    stage.hand.shut();
    stage.commit("a", "last of the parent");
    eventually(secs(5), "the parent", || stage.hand.begun().len() == 1).await;
    let children = stage.stream.end(&parent, true);
    stage.commit("a", "first of the child");
    pass(secs(180)).await;
    assert_eq!(stage.hand.begun().len(), 1, "three listings later still");
    assert!(children.iter().all(|child| stage.row(child).is_none()));
    stage.hand.open();
    let waited = eventually(secs(5), "the child", || stage.hand.done().len() == 2).await;
    assert!(waited < secs(1), "{waited:?}");
    assert!(stage.row(&parent).unwrap().ended());
}

/// Whatever an owner of the parent wrote under its epoch is older than what a child's owner writes.
#[tokio::test(start_paused = true)]
async fn the_epoch_of_a_child_begins_above_its_parents() {
    let stage = Stage::new(1);
    let source = Tapped::new(&stage.stream);
    let parent = stage.stream.open_shards()[0].clone();
    for round in 0..4 {
        let worker = stage.worker(&format!("round {round}"));
        let name = format!("round {round}");
        eventually(secs(20), "the lease", || stage.owned_by(&name) == 1).await;
        worker.leave().await;
    }
    let above = stage.row(&parent).unwrap().epoch;
    assert!(above > 4, "it rises with every owner");
    let _last = stage.worker_on("last", source.clone(), stage.leases.clone());
    eventually(secs(20), "the lease", || stage.owned_by("last") == 1).await;

    // One that its parent's end finds, and one that a listing finds later.
    let children = stage.stream.end(&parent, true);
    eventually(secs(10), "both", || stage.owned_by("last") == 2).await;
    let epoch = |shard| stage.row(shard).unwrap().epoch;
    for child in &children {
        assert!(epoch(child) > epoch(&parent), "{child}");
    }
    let grandchild = stage.stream.end(&children[0], false).remove(0);
    stage.stream.hide(&grandchild, true);
    let ended = || stage.row(&children[0]).unwrap().ended();
    eventually(secs(120), "the end without a child", ended).await;
    stage.stream.hide(&grandchild, false);
    let found = || {
        stage
            .row(&grandchild)
            .is_some_and(|row| row.owner.is_some())
    };
    eventually(secs(180), "the hidden one", found).await;
    assert!(epoch(&grandchild) > epoch(&children[0]));
}

/// Scenario 19.
#[test]
fn an_ended_parent_stays_until_its_children_have_left_their_horizon() {
    let rows = |child| {
        [
            row(0, None, ended(&[1, 2])),
            row(1, Some(0), reading()),
            row(2, Some(0), child),
        ]
    };
    let child = [listed(1, Some(0))];
    assert_eq!(removable(&child, &rows(at_horizon())), []);
    assert_eq!(removable(&child, &rows(reading())), [shard(0)]);
    let still_listed = [listed(0, None)];
    assert_eq!(removable(&still_listed, &rows(reading())), []);
}

/// Scenario 20.
#[test]
fn an_ended_parent_stays_while_the_lease_of_one_of_its_children_is_missing() {
    let rows = [row(0, None, ended(&[1, 2])), row(1, Some(0), reading())];
    let listing = [listed(1, Some(0)), listed(2, Some(0))];
    assert_eq!(removable(&listing, &rows), []);
    assert_eq!(
        due(&listing, &rows),
        [shard(2)],
        "and the child is made up for"
    );
    // A child that was unknown when the parent ended counts, too.
    let untold = [row(0, None, ended(&[1])), rows[1].clone()];
    assert_eq!(removable(&listing, &untold), []);
}

/// Scenario 22.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_at_the_latest_begins_with_the_leaves_only() {
    let graph: [(usize, Option<usize>); 11] = [
        (0, None),
        (1, Some(0)),
        (2, Some(0)),
        (3, None),
        (4, None),
        (5, Some(1)),
        (6, Some(2)),
        (7, Some(3)),
        (8, Some(5)),
        (9, Some(6)),
        (10, Some(7)),
    ];
    let listing = graph.map(|(id, parent)| listed(id, parent));
    assert_eq!(leaves(&listing), [4, 8, 9, 10].map(shard));

    let mut stage = Stage::new(3);
    stage.settings.start = InitialPosition::Latest;
    for shard in &stage.stream.open_shards()[..2] {
        for child in stage.stream.end(shard, true) {
            stage.stream.end(&child, false);
        }
    }
    let leaves = stage.stream.open_shards();
    let _one = stage.worker("one");
    pass(secs(150)).await;
    let leased: Vec<_> = stage.view().leases.into_keys().collect();
    assert_eq!(leased, leaves, "and none of the others after any listing");
}

/// Scenario 25.
#[test]
fn a_shard_that_has_children_counts_as_closed_whatever_else_is_said_of_it() {
    let listing = [listed(0, None), listed(1, Some(0))];
    assert_eq!(leaves(&listing), [shard(1)]);
    assert_eq!(
        due(&listing, &[]),
        [shard(0)],
        "its end is left to reading it"
    );
    let reading_child = row(1, Some(0), reading());
    assert_eq!(due(&listing, &[reading_child]), []);
}

/// Scenario 26.
#[tokio::test(start_paused = true)]
async fn the_closed_shards_of_a_disabled_stream_are_read_to_their_end() {
    for start in [InitialPosition::TrimHorizon, InitialPosition::Latest] {
        let mut stage = Stage::new(2);
        stage.settings.start = start;
        let names = stage.commit_many("item", 30);
        for shard in stage.stream.open_shards() {
            stage.stream.close(&shard);
        }
        let _one = stage.worker("one");
        let all_ended = || {
            let leases = stage.view().leases;
            leases.len() == 2
                && leases
                    .values()
                    .all(aftercommit::stores::leases::LeaseRow::ended)
        };
        eventually(secs(60), "the end of both shards", all_ended).await;
        assert_eq!(stage.hand.sorted(), names, "{start:?}");
    }
}

/// Scenario 27.
#[tokio::test(start_paused = true)]
async fn a_child_that_becomes_visible_after_some_empty_answers_is_found() {
    let stage = Stage::new(1);
    let source = Tapped::new(&stage.stream);
    let _one = stage.worker_on("one", source.clone(), stage.leases.clone());
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    let parent = stage.stream.open_shards()[0].clone();
    let child = stage.stream.end(&parent, false).remove(0);
    stage.stream.hide(&child, true);
    eventually(secs(5), "two empty answers", || {
        source.count("children", Some(&parent)) == 2
    })
    .await;
    stage.stream.hide(&child, false);
    stage.commit("a", "in the child");
    eventually(secs(5), "the child", || stage.hand.done().len() == 1).await;
    assert_eq!(stage.hand.done()[0].shard, child);
    assert_eq!(
        stage.row(&parent).unwrap().checkpoint,
        Checkpoint::End {
            children: vec![child]
        }
    );
}

/// Scenario 28.
#[tokio::test(start_paused = true)]
async fn three_generations_are_read_from_the_horizon_one_after_another() {
    let stage = Stage::new(2);
    let mut names = Vec::new();
    let roots = stage.stream.open_shards();
    for (generation, parents) in [vec![], roots.clone(), vec![]].into_iter().enumerate() {
        let mut parents = parents;
        if generation == 2 {
            parents = vec![stage.stream.open_shards()[0].clone()];
        }
        for parent in parents {
            stage.stream.end(&parent, true);
        }
        for key in ["a", "b", "c", "d", "e", "f"] {
            let name = format!("{key}{generation}");
            stage.commit(key, &name);
            names.push(name);
        }
    }
    stage.hand.shut();
    let _one = stage.worker("one");
    pass(secs(90)).await;
    let first: Vec<_> = stage.view().leases.into_keys().collect();
    assert_eq!(first, roots, "a child's lease is not there before its time");
    stage.hand.open();
    eventually(secs(30), "all records", || stage.hand.done().len() == 18).await;
    assert_eq!(stage.view().leases.len(), 8);
    names.sort();
    assert_eq!(stage.hand.sorted(), names);
    for key in ["a", "b", "c", "d", "e", "f"] {
        let mut values = stage.hand.values();
        values.retain(|value| value.starts_with(key));
        assert_eq!(values, [0, 1, 2].map(|n| format!("{key}{n}")));
    }
}

/// Scenario 29.
#[test]
fn a_finished_lease_stays_while_listed_and_once_it_may_go_it_is_never_made_anew() {
    let grandchild = || row(2, Some(1), reading());
    let rows = [
        row(0, None, ended(&[1])),
        row(1, Some(0), ended(&[2])),
        grandchild(),
    ];
    let all = [listed(0, None), listed(1, Some(0)), listed(2, Some(1))];
    assert_eq!(removable(&all, &rows), []);
    assert_eq!(removable(&all[1..], &rows), [shard(0)], "not its child yet");
    let forgot_both = removable(&all[2..], &rows);
    assert_eq!(forgot_both, [shard(0), shard(1)]);
    // Whichever goes first, and even if the listing still names both.
    for left in [vec![rows[0].clone()], vec![rows[1].clone()], vec![]] {
        let rows: Vec<_> = left.into_iter().chain([grandchild()]).collect();
        assert_eq!(due(&all, &rows), []);
    }
}

/// Scenario 30.
#[tokio::test(start_paused = true)]
async fn a_child_that_appears_after_a_start_at_the_latest_is_read_from_its_horizon() {
    let mut stage = Stage::new(1);
    stage.settings.start = InitialPosition::Latest;
    stage.commit("a", "before the start");
    pass(secs(300)).await;
    let _one = stage.worker("one");
    eventually(secs(5), "the lease", || stage.owned_by("one") == 1).await;
    let parent = stage.stream.open_shards()[0].clone();
    let child = stage.stream.end(&parent, false).remove(0);
    stage.stream.hide(&child, true);
    stage.commit("a", "before it is visible");
    pass(secs(300)).await;
    stage.stream.hide(&child, false);
    stage.commit("a", "after it is visible");
    eventually(secs(120), "the child", || stage.hand.done().len() == 2).await;
    let values = stage.hand.values();
    assert_eq!(values, ["before it is visible", "after it is visible"]);
}

/// Scenario 31.
#[tokio::test(start_paused = true)]
async fn a_finished_shard_is_not_read_again_after_a_restart() {
    let stage = Stage::new(1);
    let one = stage.worker("one");
    stage.commit("a", "in the parent");
    let parent = stage.stream.open_shards()[0].clone();
    let child = stage.stream.end(&parent, false).remove(0);
    stage.commit("a", "in the child");
    eventually(secs(10), "both", || stage.hand.done().len() == 2).await;
    one.leave().await;

    let source = Tapped::new(&stage.stream);
    let _two = stage.worker_on("two", source.clone(), stage.leases.clone());
    stage.commit("a", "after the restart");
    eventually(secs(10), "going on", || stage.hand.done().len() == 3).await;
    pass(secs(150)).await;
    assert!(source.count("iterator", Some(&child)) > 0);
    assert_eq!(source.count("iterator", Some(&parent)), 0);
    assert_eq!(stage.hand.done().len(), 3);
}
