use super::*;
use crate::core::fleet::snapshot::Unfit;
use crate::core::position::SequenceNumber;

const FIRST: &str = "2026-01-01T00:00:00.000";
const SECOND: &str = "2026-01-02T00:00:00.000";
const THIRD: &str = "2026-01-03T00:00:00.000";

fn id(label: &str, id: &str) -> ShardId {
    ShardId::of_stream(label, id)
}

fn root(label: &str, name: &str) -> Shard {
    Shard {
        id: id(label, name),
        parent: None,
    }
}

/// What a row says, if it can be read.
type At = Option<Checkpoint>;

#[expect(clippy::unnecessary_wraps, reason = "as a row that cannot be read")]
fn at_horizon() -> At {
    Some(Checkpoint::At(Position::Horizon))
}

fn reading() -> At {
    let number = SequenceNumber::parse("1").ok();
    number.map(|number| Checkpoint::At(Position::After(number)))
}

#[expect(clippy::unnecessary_wraps, reason = "as a row that cannot be read")]
fn ended() -> At {
    Some(Checkpoint::End {
        children: Vec::new(),
    })
}

fn view(rows: &[(ShardId, At)]) -> View {
    let mut view = View::default();
    for (id, at) in rows {
        match at.clone() {
            Some(checkpoint) => {
                let row = LeaseRow::new(id.clone(), None, 1);
                view.leases
                    .insert(id.clone(), LeaseRow { checkpoint, ..row });
            }
            None => view.unreadable.push(Unreadable {
                row: format!("shard#{id}"),
                why: Unfit::Newer { format: 9 },
            }),
        }
    }
    view
}

fn due(listed: &[Shard], rows: &[(ShardId, At)]) -> Vec<ShardId> {
    let view = view(rows);
    let due = Tree::new(listed, &view, None).due();
    due.into_iter().map(|shard| shard.id).collect()
}

fn removable(rows: &[(ShardId, At)]) -> Vec<ShardId> {
    Tree::new(&[], &view(rows), None).removable()
}

#[test]
fn a_later_stream_is_due_only_when_every_shard_of_the_earlier_ones_is_finished() {
    let listed = [root(FIRST, "a"), root(FIRST, "b"), root(SECOND, "c")];
    let (a, b, c) = (id(FIRST, "a"), id(FIRST, "b"), id(SECOND, "c"));
    assert_eq!(due(&listed, &[]), [a.clone(), b.clone()]);
    let half = [(a.clone(), ended()), (b.clone(), reading())];
    assert_eq!(due(&listed, &half), []);
    assert_eq!(
        due(&listed, &[(a.clone(), ended())]),
        std::slice::from_ref(&b)
    );
    let unreadable = [(a.clone(), ended()), (b.clone(), None)];
    assert_eq!(due(&listed, &unreadable), []);
    assert_eq!(due(&listed, &[(a, ended()), (b, ended())]), [c]);
}

#[test]
fn a_stream_that_is_gone_holds_the_next_one_up_only_while_a_row_of_it_is_unfinished() {
    let listed = [root(SECOND, "c")];
    let (a, c) = (id(FIRST, "a"), id(SECOND, "c"));
    assert_eq!(due(&listed, &[(a.clone(), reading())]), []);
    assert_eq!(due(&listed, &[(a, ended())]), std::slice::from_ref(&c));
    assert_eq!(due(&listed, &[]), [c]);
}

#[test]
fn streams_that_were_replaced_twice_are_read_in_turn() {
    let listed = [root(FIRST, "a"), root(SECOND, "b"), root(THIRD, "c")];
    let (a, b, c) = (id(FIRST, "a"), id(SECOND, "b"), id(THIRD, "c"));
    assert_eq!(
        due(&listed, &[(a.clone(), ended())]),
        std::slice::from_ref(&b)
    );
    let both = [(a, ended()), (b, ended())];
    assert_eq!(due(&listed, &both), [c]);
}

#[test]
fn a_stream_with_a_row_shows_that_the_earlier_ones_are_finished() {
    let listed = [root(FIRST, "a"), root(SECOND, "b"), root(SECOND, "c")];
    let rows = [(id(SECOND, "b"), at_horizon())];
    assert_eq!(due(&listed, &rows), [id(SECOND, "c")]);
}

#[test]
fn the_last_row_of_a_stream_stays_until_a_later_stream_is_read() {
    let (a, b) = (id(FIRST, "a"), id(SECOND, "b"));
    assert_eq!(removable(&[(a.clone(), ended())]), []);
    let begun = [(a.clone(), ended()), (b.clone(), at_horizon())];
    assert_eq!(removable(&begun), []);
    let read = [(a.clone(), ended()), (b, reading())];
    assert_eq!(removable(&read), [a]);
}

#[test]
fn a_fleet_that_starts_now_begins_with_the_leaves_of_the_newest_stream() {
    let child = Shard {
        id: id(SECOND, "c"),
        parent: Some(id(SECOND, "b")),
    };
    let listed = [root(FIRST, "a"), root(SECOND, "b"), child];
    let leaves = Tree::new(&listed, &View::default(), None).leaves();
    let leaves: Vec<_> = leaves.into_iter().map(|shard| shard.id).collect();
    assert_eq!(leaves, [id(SECOND, "c")]);
}
