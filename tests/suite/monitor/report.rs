//! What the rows of a fleet mean to people.

use aftercommit::EffectName;
use aftercommit::engine::Identity;
use aftercommit::stores::leases::GroupEffects;
use aftercommit::{Group, GroupTable};
use std::time::{Duration, SystemTime};

use aftercommit::internal::progress::Beats;
use aftercommit::internal::shard::ShardId;
use aftercommit::monitor::{
    FindingKind, FleetStatus, ResolvedBy, ShardState, StatusVerdict, StreamStatus,
};
use aftercommit::record::{Position, SequenceNumber};
use aftercommit::stores::leases::{
    Checkpoint, GapResolution, GapRow, GroupRow, Incarnation, InitialPosition, LeaseRow, Report,
    View, WorkerRow,
};
use aftercommit::stores::ledger::Needed;
use tokio::time::Instant;

const DAY: Duration = Duration::from_hours(24);
const ARN: &str = "arn:aws:dynamodb:eu-central-1:0:table/orders/stream/2026-01-01T00:00:00.000";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn ago(seconds: u64) -> Option<SystemTime> {
    now().checked_sub(Duration::from_secs(seconds))
}

fn worker(name: &str, heartbeat: Option<u64>) -> WorkerRow {
    WorkerRow {
        incarnation: Incarnation::new(name, 7),
        beat: 1,
        draining: false,
        unable_to_list: false,
        lease_duration: Duration::from_secs(10),
        version: "0.1.0".to_owned(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: vec![EffectName::new("order-mail").unwrap()],
        at: heartbeat.and_then(ago),
    }
}

/// A shard of `one`, read up to 42, with everything finished.
fn quiet(name: &str) -> LeaseRow {
    let mut row = LeaseRow::new(ShardId::new(name), None, 3);
    row.owner = Some(Incarnation::new("one", 7));
    row.checkpoint = Checkpoint::At(Position::After(SequenceNumber::parse("42").unwrap()));
    row.report = Report {
        frontier_time: ago(3_000),
        caught_up_at: ago(2_000),
        reported_at: ago(2_000),
        ..Report::default()
    };
    row
}

fn place() -> GroupTable {
    GroupTable::new(Group::default(), ARN)
}

fn view(workers: Vec<WorkerRow>, leases: Vec<LeaseRow>) -> View {
    let workers = workers
        .into_iter()
        .map(|row| (row.incarnation.clone(), row));
    let leases = leases.into_iter().map(|row| (row.shard.clone(), row));
    View {
        group: Some(GroupRow {
            initial: InitialPosition::Latest,
            bootstrapped: ago(100_000).unwrap(),
            effects: GroupEffects::of([(
                EffectName::new("order-mail").unwrap(),
                Identity::default(),
            )]),
        }),
        workers: workers.collect(),
        leases: leases.collect(),
        ..View::default()
    }
}

/// As somebody sees the heartbeats who has watched for 20 s: those younger than a lease's duration
/// moved when they were written.
fn beats(view: &View) -> Beats {
    let (mut beats, end) = (Beats::default(), Instant::now());
    let mut before = view.clone();
    let age = |row: &WorkerRow| now().duration_since(row.at?).ok();
    for row in before.workers.values_mut() {
        let fresh = age(row).is_none_or(|age| age < row.lease_duration);
        row.beat -= u64::from(fresh);
    }
    beats.see(&before, end - Duration::from_secs(20));
    beats.see(view, end - Duration::from_secs(2));
    beats
}

fn status(view: &View) -> FleetStatus {
    let stream = StreamStatus::new(&place(), view, &beats(view), now(), DAY);
    FleetStatus::new(now(), vec![stream], None)
}

fn advice(view: &View) -> String {
    let status = status(view);
    assert_eq!(status.verdict, StatusVerdict::Attention, "{status:?}");
    assert_eq!(status.streams[0].verdict, StatusVerdict::Attention);
    status.advice.join("\n")
}

#[test]
fn a_quiet_shard_whose_owner_lives_is_caught_up() {
    let status = status(&view(vec![worker("one", Some(2))], vec![quiet("a")]));
    assert_eq!(
        (status.verdict, status.advice),
        (StatusVerdict::Well, vec![])
    );
    let stream = &status.streams[0];
    assert_eq!(stream.table, "orders");
    let shard = &stream.shards[0];
    assert_eq!(shard.state, ShardState::Reading);
    assert_eq!(shard.lag_seconds, Some(0.0));
    assert_eq!(shard.until_trim_seconds, Some(86_400.0));
    assert_eq!(stream.workers[0].shards, 1);
    assert_eq!(stream.workers[0].heartbeat_age_seconds, Some(2.0));
}

#[test]
fn a_shard_that_nobody_reads_may_hold_records_since_it_was_last_known_to_be_finished() {
    for workers in [vec![], vec![worker("one", Some(2_000))]] {
        let view = view(workers, vec![quiet("a")]);
        let shard = &status(&view).streams[0].shards[0];
        assert_eq!(shard.state, ShardState::Orphaned);
        assert_eq!(shard.lag_seconds, Some(2_000.0));
        assert_eq!(shard.until_trim_seconds, Some(84_400.0));
        assert!(advice(&view).contains("No worker is alive"));
    }
}

#[test]
fn a_shard_whose_task_is_stuck_may_hold_records_though_its_owner_lives() {
    let mut one = worker("one", Some(2));
    one.stuck = Some(ShardId::new("a"));
    let view = view(vec![one], vec![quiet("a"), quiet("b")]);
    let stream = &status(&view).streams[0];
    assert_eq!(stream.shards[0].state, ShardState::Reading);
    assert_eq!(stream.shards[0].lag_seconds, Some(2_000.0));
    assert_eq!(stream.shards[1].lag_seconds, Some(0.0));
    assert_eq!(stream.workers[0].stuck_shard.as_deref(), Some("a"));
    let advice = advice(&view);
    assert!(
        advice.contains("its task of shard a makes no progress"),
        "{advice}"
    );
}

#[test]
fn a_waiting_record_is_the_lag_and_its_error_is_reported() {
    let mut row = quiet("a");
    row.report.waiting_since = ago(1_000);
    row.report.last_error = Some("no route to the mail server".to_owned());
    let view = view(vec![worker("one", Some(2))], vec![row, quiet("b")]);
    let shards = &status(&view).streams[0].shards;
    assert_eq!(shards[0].lag_seconds, Some(1_000.0));
    assert_eq!(shards[1].lag_seconds, Some(0.0));
    let advice = advice(&view);
    assert!(advice.contains("Shard a is 16m 40s behind"), "{advice}");
    assert!(advice.contains("no route to the mail server"), "{advice}");
}

#[test]
fn what_an_older_owner_left_about_waiting_is_not_believed_once_later_records_are_finished() {
    let mut row = quiet("a");
    row.report.waiting_since = ago(5_000);
    let view = view(vec![worker("one", Some(2))], vec![row]);
    assert_eq!(status(&view).streams[0].shards[0].lag_seconds, Some(0.0));
}

#[test]
fn a_record_that_is_about_to_leave_the_stream_is_more_urgent_than_its_lag() {
    let mut row = quiet("a");
    row.report = Report {
        frontier_time: ago(80_000),
        waiting_since: ago(75_600),
        reported_at: ago(5),
        ..Report::default()
    };
    let advice = advice(&view(vec![worker("one", Some(2))], vec![row]));
    assert!(advice.contains("leaves the stream in 3h"), "{advice}");
    assert!(!advice.contains("behind"), "{advice}");
}

#[test]
fn a_parent_precedes_its_children_whatever_their_names() {
    let end = |child: &str| Checkpoint::End {
        children: vec![ShardId::new(child)],
    };
    let (mut z, mut m, mut a) = (quiet("z"), quiet("m"), quiet("a"));
    (z.checkpoint, m.checkpoint) = (end("m"), end("a"));
    (m.parent, a.parent) = (Some(ShardId::new("z")), Some(ShardId::new("m")));
    let status = status(&view(
        vec![worker("one", Some(1))],
        vec![a, m, z, quiet("b")],
    ));
    let shards = &status.streams[0].shards;
    let names: Vec<_> = shards.iter().map(|shard| &*shard.shard).collect();
    assert_eq!(names, ["b", "z", "m", "a"]);
    assert_eq!(shards[1].children, ["m"]);
    assert_eq!(shards[1].lag_seconds, None, "it has ended");
    assert_eq!(status.verdict, StatusVerdict::Well);
}

#[test]
fn a_gap_needs_attention_until_somebody_resolves_it_and_stays_listed() {
    let mut view = view(vec![worker("one", Some(2))], vec![quiet("a")]);
    let mut gap = GapRow {
        shard: ShardId::new("a"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: ago(3_600).unwrap(),
        resolved: None,
    };
    view.gaps = vec![gap.clone()];
    let reported = advice(&view);
    assert!(
        reported.contains("Records of shard a left the stream"),
        "{reported}"
    );
    assert!(
        reported.contains("aftercommit gaps resolve --shard a"),
        "{reported}"
    );
    gap.resolved = Some(GapResolution {
        by: "ada".to_owned(),
        at: ago(60).unwrap(),
        note: "mailed by hand".to_owned(),
    });
    view.gaps = vec![gap];
    let status = status(&view);
    assert_eq!(status.verdict, StatusVerdict::Well);
    let resolved = status.streams[0].gaps[0].resolved.as_ref();
    assert_eq!(resolved.unwrap().note, "mailed by hand");
}

#[test]
fn parked_keys_and_ambiguous_and_released_orders_need_attention_and_are_counted() {
    let view = view(vec![worker("one", Some(2))], vec![quiet("a")]);
    let reasons = [Some("rejected"), Some("rejected"), None];
    let stream = StreamStatus::new(&place(), &view, &beats(&view), now(), DAY).with_parked(reasons);
    assert_eq!(stream.parked_keys, Some(3));
    let needed = Needed {
        ambiguous: 1,
        resending: 7,
        released: 2,
    };
    let status = FleetStatus::new(now(), vec![stream], Some(needed));
    assert_eq!(status.verdict, StatusVerdict::Attention);
    assert!(status.advice[0].starts_with("It is unknown for one order"));
    assert!(status.advice[1].starts_with("An operator released 2 orders"));
    assert!(status.advice[2].starts_with("3 items wait behind a dead letter"));
    let in_hand = status.words(ResolvedBy::Workers);
    assert!(in_hand[0].starts_with("The workers perform the effect of 7 orders once more"));
}

#[test]
fn what_the_workers_resolve_by_themselves_is_listed_apart_and_is_not_well() {
    let silent = worker("two", Some(2_000));
    let view = view(vec![worker("one", Some(2)), silent], vec![quiet("a")]);
    let stream = || StreamStatus::new(&place(), &view, &beats(&view), now(), DAY);
    let rescued = stream().with_parked([Some("rescued"), Some("deferred")]);
    let status = FleetStatus::new(now(), vec![rescued], None);
    assert_eq!(status.verdict, StatusVerdict::Recovering);
    assert_eq!(status.advice, [""; 0]);
    let in_hand = status.words(ResolvedBy::Workers);
    assert!(in_hand[0].starts_with("Worker two/0000000000000007 fell silent"));
    assert!(in_hand[1].starts_with("2 items wait behind a rescued or deferred dead letter"));

    let mixed = stream().with_parked([Some("rescued"), Some("rejected")]);
    let status = FleetStatus::new(now(), vec![mixed], None);
    assert_eq!(status.verdict, StatusVerdict::Attention);
    let kinds: Vec<_> = status.findings.iter().map(|finding| finding.kind).collect();
    let expected = [
        FindingKind::Parked,
        FindingKind::WorkerSilent,
        FindingKind::Rescued,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn where_no_worker_lives_a_person_has_to_see_to_what_was_rescued() {
    let view = view(vec![worker("one", Some(2_000))], vec![quiet("a")]);
    let stream = StreamStatus::new(&place(), &view, &beats(&view), now(), DAY);
    let status = FleetStatus::new(now(), vec![stream.with_parked([Some("rescued")])], None);
    let by_person = status
        .findings
        .iter()
        .all(|one| one.by == ResolvedBy::Person);
    assert!(by_person, "{:?}", status.findings);
}

#[test]
fn a_loss_is_more_urgent_than_what_waits() {
    let mut row = quiet("a");
    row.report.waiting_since = ago(1_000);
    let mut view = view(vec![worker("one", Some(2))], vec![row]);
    view.gaps = vec![GapRow {
        shard: ShardId::new("a"),
        last_handled: None,
        last_handled_time: None,
        first_after: None,
        detected: ago(3_600).unwrap(),
        resolved: None,
    }];
    let stream = StreamStatus::new(&place(), &view, &beats(&view), now(), DAY);
    let status = FleetStatus::new(now(), vec![stream.with_parked([Some("rejected")])], None);
    let kinds: Vec<_> = status.findings.iter().map(|finding| finding.kind).collect();
    let expected = [FindingKind::Gap, FindingKind::Lag, FindingKind::Parked];
    assert_eq!(kinds, expected);
}

#[test]
fn a_worker_with_a_wrong_clock_is_alive_only_while_its_heartbeat_moves() {
    let mut one = worker("one", Some(2));
    let view = |one: &WorkerRow| view(vec![one.clone()], vec![quiet("a")]);
    let beats = beats(&view(&one));
    let alive =
        |view: &View| StreamStatus::new(&place(), view, &beats, now(), DAY).workers[0].alive;
    for written in [ago(9_000), now().checked_add(Duration::from_mins(150))] {
        one.at = written;
        assert_eq!(alive(&view(&one)), Some(true));
    }
    let mut stands = Beats::default();
    stands.see(&view(&one), Instant::now() - Duration::from_secs(4));
    let stands =
        |view: &View| StreamStatus::new(&place(), view, &stands, now(), DAY).workers[0].alive;
    assert_eq!(
        stands(&view(&one)),
        None,
        "it may be between two heartbeats"
    );
    let mut stood = Beats::default();
    stood.see(&view(&one), Instant::now() - Duration::from_secs(6));
    let stood = StreamStatus::new(&place(), &view(&one), &stood, now(), DAY);
    assert_eq!(stood.workers[0].alive, Some(false));
}

#[test]
fn a_worker_that_waits_for_its_mail_server_needs_attention_at_once_with_the_cause() {
    let mut one = worker("one", Some(2));
    one.trouble = Some("the handler's dependency is down: AUTH: 535".to_owned());
    let mut two = worker("two", Some(2));
    two.trouble.clone_from(&one.trouble);
    let advice = advice(&view(vec![one, two], vec![quiet("a")]));
    assert_eq!(
        advice,
        "Worker one/0000000000000007 and 1 more wait: the handler's dependency is down: AUTH: 535."
    );
}

#[test]
fn a_worker_that_lives_is_not_asked_for_where_the_stream_was_never_read() {
    let mut one = worker("one", Some(2));
    let never = |one: &WorkerRow| View {
        group: None,
        ..view(vec![one.clone()], vec![])
    };
    let reported = status(&never(&one));
    assert_eq!(reported.verdict, StatusVerdict::Unknown);
    assert!(reported.advice[0].contains("has joined and has not listed the stream yet"));
    one.trouble = Some("the stream cannot be read: no route".to_owned());
    let reported = status(&never(&one)).advice;
    let waits = "Worker one/0000000000000007 waits: the stream cannot be read: no route.";
    assert_eq!(reported, [waits]);
}

#[test]
fn a_stream_that_was_never_read_shows_nothing() {
    let status = status(&View::default());
    assert_eq!(status.verdict, StatusVerdict::Unknown);
    assert!(status.advice[0].contains("aftercommit run"));
}

#[test]
fn the_document_is_json_with_times_in_words_and_seconds_in_numbers() {
    let mut row = quiet("shardId-1");
    row.report.per_minute = 120;
    row.report.reported_at = Some(now());
    let view = view(vec![worker("one", Some(2))], vec![row]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&status(&view)).unwrap());
}
