use super::*;
use crate::core::fleet::rows::Checkpoint;

const LABELS: [&str; 3] = [
    "2026-01-01T00:00:00.000",
    "2026-01-02T00:00:00.000",
    "2026-01-03T00:00:00.000",
];
const DAY: Duration = Duration::from_hours(24);

fn at(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(490_000 + hours)
}

fn moment(hours: u64) -> Moment {
    Moment {
        now: at(hours),
        listed_at: at(hours),
        retention: DAY,
        bootstrapped: Some(at(0)),
        fresh: false,
        finished: None,
    }
}

fn listed(which: &[usize]) -> Vec<FoundStream> {
    let stream = |n: &usize| FoundStream {
        label: LABELS[*n].into(),
        created: None,
    };
    which.iter().map(stream).collect()
}

fn shard(n: usize) -> LeaseRow {
    LeaseRow::new(ShardId::of_stream(LABELS[n], "a"), None, 1)
}

fn row(n: usize, stage: StreamStage, hours: u64) -> StreamRow {
    StreamRow {
        label: LABELS[n].into(),
        stage,
        newest_at: at(hours),
    }
}

/// A view in which this stream is read to its end, and these rows stand.
fn view(read: usize, rows: &[StreamRow]) -> View {
    let mut ended = shard(read);
    ended.checkpoint = Checkpoint::End {
        children: Vec::new(),
    };
    let mut view = View::default();
    view.leases.insert(ended.shard.clone(), ended);
    for row in rows {
        view.streams.insert(row.label.clone(), row.clone());
    }
    view
}

fn gaps(writing: &Writing) -> Vec<&str> {
    writing.gaps.iter().map(|gap| gap.shard.as_str()).collect()
}

#[test]
fn a_stream_that_follows_a_listed_one_lost_nothing() {
    let view = view(0, &[row(0, StreamStage::Begun, 0)]);
    let next = writing(&view, &listed(&[0, 1]), &[shard(1)], &moment(30));
    assert_eq!(gaps(&next), [""; 0]);
    assert_eq!(
        next.rows,
        [
            row(0, StreamStage::Finished, 30),
            row(1, StreamStage::Begun, 30)
        ]
    );
}

#[test]
fn a_stream_that_was_seen_and_never_begun_is_lost_as_a_whole() {
    let view = view(
        0,
        &[
            row(0, StreamStage::Finished, 0),
            row(1, StreamStage::Seen, 2),
        ],
    );
    let next = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
    assert_eq!(gaps(&next), [format!("{}#{WHOLE_STREAM}", LABELS[1])]);
    assert_eq!(
        next.rows,
        [
            row(1, StreamStage::Finished, 20),
            row(2, StreamStage::Begun, 20)
        ]
    );
}

#[test]
fn a_stream_that_was_gone_before_it_was_known_to_be_read_to_its_end_may_have_lost_something() {
    let lost = [format!("{}#{WHOLE_STREAM}", LABELS[0])];
    let begun = view(0, &[row(0, StreamStage::Begun, 10)]);
    let next = writing(&begun, &listed(&[1]), &[shard(1)], &moment(20));
    assert_eq!(gaps(&next), lost);
    // Also while no later stream is there; and once.
    let alone = writing(&begun, &listed(&[]), &[], &moment(20));
    assert_eq!(gaps(&alone), lost);
    assert_eq!(alone.rows, [row(0, StreamStage::Finished, 20)]);
    let noted = view(0, &alone.rows);
    let again = writing(&noted, &listed(&[]), &[], &moment(20));
    assert_eq!(again, Writing::default());
    // An operator who deletes all of its leases does not hide it.
    let mut deleted = begun.clone();
    deleted.leases.clear();
    let next = writing(&deleted, &listed(&[1]), &[shard(1)], &moment(20));
    assert_eq!(gaps(&next), lost);
}

#[test]
fn a_stream_that_was_read_to_its_end_after_it_was_switched_off_lost_nothing() {
    let begun = view(0, &[row(0, StreamStage::Begun, 0)]);
    let ended = Moment {
        finished: Some(LABELS[0].to_owned()),
        ..moment(0)
    };
    let still_listed = writing(&begun, &listed(&[0]), &[], &ended);
    assert_eq!(still_listed.rows, [row(0, StreamStage::Finished, 0)]);
    let finished = view(0, &[row(0, StreamStage::Finished, 40)]);
    let next = writing(&finished, &listed(&[1]), &[shard(1)], &moment(50));
    assert_eq!(gaps(&next), [""; 0]);
}

#[test]
fn a_group_that_was_away_for_longer_than_a_stream_is_listed_may_have_missed_one() {
    let view = view(0, &[row(0, StreamStage::Finished, 0)]);
    let soon = writing(&view, &listed(&[2]), &[shard(2)], &moment(20));
    assert_eq!(gaps(&soon), [""; 0]);
    let late = writing(&view, &listed(&[2]), &[shard(2)], &moment(25));
    assert_eq!(gaps(&late), [format!("{}#{BEFORE_STREAM}", LABELS[2])]);
}

#[test]
fn streams_that_came_and_went_unseen_are_lost_however_late_the_next_one_is_begun() {
    let away = view(0, &[row(0, StreamStage::Finished, 0)]);
    let found = writing(&away, &listed(&[2]), &[], &moment(25));
    assert_eq!(gaps(&found), [format!("{}#{BEFORE_STREAM}", LABELS[2])]);
    let noted = view(
        0,
        &[
            row(0, StreamStage::Finished, 0),
            row(2, StreamStage::Seen, 25),
        ],
    );
    let begun = writing(&noted, &listed(&[2]), &[shard(2)], &moment(26));
    assert_eq!(gaps(&begun), [""; 0], "it is written down already");
}

#[test]
fn a_group_that_begins_has_lost_nothing_and_what_is_older_is_not_its_own() {
    let fresh = Moment {
        fresh: true,
        ..moment(30)
    };
    let first = writing(&View::default(), &listed(&[0, 1]), &[shard(1)], &fresh);
    assert_eq!(gaps(&first), [""; 0]);
    let rows = [
        row(0, StreamStage::Finished, 30),
        row(1, StreamStage::Begun, 30),
    ];
    assert_eq!(first.rows, rows);
}

#[test]
fn a_group_whose_row_and_leases_were_deleted_is_not_new() {
    let fresh = Moment {
        fresh: true,
        ..moment(20)
    };
    let mut deleted = view(0, &[row(0, StreamStage::Begun, 10)]);
    deleted.leases.clear();
    let next = writing(&deleted, &listed(&[1]), &[shard(1)], &fresh);
    assert_eq!(gaps(&next), [format!("{}#{WHOLE_STREAM}", LABELS[0])]);
}

#[test]
fn that_no_stream_is_later_is_written_down_once_an_hour() {
    let view = view(0, &[row(0, StreamStage::Finished, 10)]);
    let soon = Moment {
        listed_at: at(10) + Duration::from_mins(59),
        ..moment(10)
    };
    assert_eq!(writing(&view, &listed(&[0]), &[], &soon).rows, []);
    let later = writing(&view, &listed(&[]), &[], &moment(11));
    assert_eq!(later.rows, [row(0, StreamStage::Begun, 11)]);
}
