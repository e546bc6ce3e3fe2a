//! What a large fleet reads and writes while nothing happens, and how soon it acts when something does.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;

use super::super::Fleet;
use super::super::events::{Command, FleetEvent, Stopped};
use super::super::golden::{LEASE, now, rules};
use super::super::listed::{FoundStream, Listed};
use super::super::rows::{Checkpoint, LeaseRow, Report, WorkerRow};
use super::super::rules::FleetRules;
use super::super::snapshot::{Consistency, Reach, View};
use super::super::terms::{Hold, Incarnation};
use crate::core::position::{Position, SequenceNumber};
use crate::core::shard::{Shard, ShardId};
use crate::stores::leases::LeaseStore;
use crate::stores::leases::memory::MemoryLeases;
use crate::stores::leases::row::size;

const WORKERS: usize = 20;
const SHARDS: usize = 1_000;
/// A shard rolls over about every four hours, and is listed for a day.
const ENDED: usize = 7;
const STEP: Duration = Duration::from_millis(100);
const LABEL: &str = "2026-11-27T00:00:00.000";
const AT: &str = "confirmation#arn:aws:dynamodb:eu-central-1:123456789012:table/orders";

/// A partition bears 3,000 read units a second, and 1,000 write units.
///
/// Source: [Partitions](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html).
const MOST_READS: f64 = 3_000.0;
const MOST_WRITES: f64 = 1_000.0;

fn shard(line: usize, number: usize) -> ShardId {
    let id = format!("shardId-{:020}-{line:08x}", 1_790_000_000_000 + number);
    ShardId::of_stream(LABEL, &id)
}

/// The read units of a look at these rows. A unit is 4 KB, or half a unit for an eventual read. A page
/// has 1 MB.
fn read_units(view: &View, consistency: Consistency) -> f64 {
    let (mut units, mut page) = (0, 0);
    for row in size::of_rows(view, AT) {
        page += row;
        if page > 1_000_000 {
            (units, page) = (units + page.div_ceil(4_096), 0);
        }
    }
    let units = f64::from(u32::try_from(units + page.div_ceil(4_096)).unwrap());
    match consistency {
        Consistency::Strong => units,
        Consistency::Eventual => units / 2.0,
    }
}

struct Large {
    leases: MemoryLeases,
    fleet: Vec<Fleet>,
    elapsed: Duration,
    listed: Vec<Shard>,
    read: f64,
    written: f64,
}

impl Large {
    fn new() -> Self {
        let leases = MemoryLeases::new();
        let mut listed = Vec::new();
        let number = SequenceNumber::parse("123456789012345678901").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_hours(490_000);
        let report = Report {
            frontier_time: Some(time),
            caught_up_at: Some(time),
            finished: 123_456,
            reported_at: Some(time),
            ..Report::default()
        };
        leases.tamper(|view| {
            for (line, at) in (0..SHARDS).flat_map(|line| (0..=ENDED).map(move |at| (line, at))) {
                let id = shard(line, at);
                let parent = at.checked_sub(1).map(|before| shard(line, before));
                let children = vec![shard(line, at + 1)];
                let checkpoint = if at == ENDED {
                    Checkpoint::At(Position::After(number.clone()))
                } else {
                    Checkpoint::End { children }
                };
                let row = LeaseRow {
                    checkpoint,
                    report: report.clone(),
                    starts_at: Some(time),
                    ..LeaseRow::new(id.clone(), parent.clone(), 3)
                };
                view.leases.insert(id.clone(), row);
                listed.push(Shard { id, parent });
            }
        });
        let fleet = (0..WORKERS).map(|at| {
            let rules = FleetRules {
                few_rows: 100,
                ..rules(&format!("ip-10-0-1-{at:02}.eu-central-1.compute.internal"))
            };
            let rng = fastrand::Rng::with_seed(at as u64);
            Fleet::new(rules, at as u64, rng, Duration::ZERO)
        });
        Self {
            leases,
            fleet: fleet.collect(),
            elapsed: Duration::ZERO,
            listed,
            read: 0.0,
            written: 0.0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += STEP;
            for at in 0..self.fleet.len() {
                self.turn(at);
            }
        }
    }

    fn current(&self) -> View {
        let look = self.leases.look_at(Reach::Current, Consistency::Strong);
        look.now_or_never().unwrap().unwrap()
    }

    /// Runs until this holds. Returns how long it took.
    fn until(&mut self, holds: impl Fn(&View) -> bool) -> Duration {
        let began = self.elapsed;
        while !holds(&self.current()) {
            self.run(STEP);
        }
        self.elapsed.saturating_sub(began)
    }

    fn turn(&mut self, at: usize) {
        while let Some(command) = self.fleet[at].poll(now(self.elapsed)) {
            if let Some(event) = self.call(command) {
                self.fleet[at].handle(event, now(self.elapsed));
            }
        }
    }

    fn call(&mut self, command: Command) -> Option<FleetEvent> {
        let leases = self.leases.clone();
        let call = async {
            Some(match command {
                Command::Heartbeat(beat) => {
                    let row = WorkerRow {
                        incarnation: beat.incarnation,
                        beat: beat.beat,
                        draining: beat.draining,
                        unable_to_list: beat.unable_to_list,
                        lease_duration: LEASE,
                        version: "0.1.0".to_owned(),
                        reads: 1,
                        zone: Some("euc1-az1".to_owned()),
                        status_address: Some("10.0.1.23:9090".to_owned()),
                        trouble: None,
                        stuck: None,
                        effects: Vec::new(),
                        at: Some(now(self.elapsed).time),
                    };
                    self.written += 1.0;
                    if beat.registered {
                        FleetEvent::Heartbeat(Ok(leases.heartbeat(&row).await.unwrap()))
                    } else {
                        leases.register(&row).await.unwrap();
                        FleetEvent::Heartbeat(Ok(Some(())))
                    }
                }
                Command::Look(reach, consistency) => {
                    let view = leases.look_at(reach, consistency).await.unwrap();
                    self.read += read_units(&view, consistency);
                    FleetEvent::Snapshot(Ok(view.into()))
                }
                Command::Bootstrap(row) => {
                    FleetEvent::Bootstrapped(Ok(leases.bootstrap(row).await.unwrap()))
                }
                Command::List(_) => FleetEvent::Listed(Ok(Listed {
                    shards: self.listed.clone(),
                    streams: vec![FoundStream {
                        label: LABEL.into(),
                        created: None,
                    }],
                    trouble: None,
                })),
                Command::Take(take) => {
                    let row = leases.take(&take).await.unwrap();
                    FleetEvent::Took(take.shard, Ok(row.map(Box::new)))
                }
                Command::HandOver(what) => {
                    let (to, report) = (what.to.as_ref(), &what.report);
                    let given = leases.hand_over(&what.hold, to, &what.position, report);
                    given.await.unwrap();
                    FleetEvent::HandedOver(what.hold.shard)
                }
                Command::Repair(repair) => {
                    for shard in &repair.archived {
                        // A read and a transaction over two rows.
                        (self.read, self.written) = (self.read + 1.0, self.written + 4.0);
                        leases.archive(shard).await.unwrap();
                    }
                    for row in &repair.streams {
                        leases.note_stream(row).await.unwrap();
                    }
                    FleetEvent::Repaired(Ok(()))
                }
                Command::Drain(shard) => {
                    let drained = Stopped::Drained(Position::Horizon, Report::default());
                    FleetEvent::Stopped(shard, drained)
                }
                Command::Abandon(shard) => FleetEvent::Stopped(shard, Stopped::Abandoned),
                Command::StartShard(_) | Command::Note(_) => return None,
                other => panic!("{other:?}"),
            })
        };
        call.now_or_never().unwrap()
    }

    /// The first shard of this member ends, and this many children continue it.
    fn end_one(&mut self, at: usize, children: usize) {
        let me = self.fleet[at].me().clone();
        let view = self.leases.snapshot();
        let mine = |row: &&LeaseRow| row.owner.as_ref() == Some(&me);
        let row = view.leases.values().find(mine).unwrap();
        let (parent, epoch) = (row.shard.clone(), row.epoch);
        let child = |number| {
            let id = ShardId::new(format!("{parent}-{number}"));
            LeaseRow {
                owner: Some(me.clone()),
                ..LeaseRow::new(id, Some(parent.clone()), epoch + 2)
            }
        };
        let children: Vec<_> = (0..children).map(child).collect();
        let hold = Hold {
            shard: parent.clone(),
            owner: me.clone(),
            epoch,
        };
        let report = Report::default();
        let finished = self.leases.finish(&hold, &children, &report);
        finished.now_or_never().unwrap().unwrap().unwrap();
        let ended = FleetEvent::Stopped(parent, Stopped::Finished);
        self.fleet[at].handle(ended, now(self.elapsed));
    }

    /// The longest time within this span for which some shard had no owner.
    fn longest_pause(&mut self, time: Duration) -> Duration {
        let (mut pause, mut longest) = (Duration::ZERO, Duration::ZERO);
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.run(STEP);
            let is_held = |row: &LeaseRow| {
                let mut members = self.fleet.iter();
                let owner = members.find(|member| row.owner.as_ref() == Some(member.me()));
                owner.is_some_and(|member| member.lease(&row.shard, self.elapsed).is_some())
            };
            let view = self.current();
            let mut open = view.leases.values().filter(|row| !row.ended());
            pause = if open.all(is_held) {
                Duration::ZERO
            } else {
                pause + STEP
            };
            longest = longest.max(pause);
        }
        longest
    }
}

fn held(view: &View, by: &Incarnation) -> usize {
    let owners = view.leases.values().filter(|row| !row.ended());
    owners.filter(|row| row.owner.as_ref() == Some(by)).count()
}

#[test]
fn a_thousand_shards_and_twenty_workers_need_a_tenth_of_a_partition_and_still_act_at_once() {
    let mut large = Large::new();
    large.run(Duration::from_secs(40));
    let view = large.leases.snapshot();
    assert_eq!(view.archived.len(), SHARDS * ENDED, "all that ended");
    for member in &large.fleet {
        assert_eq!(held(&view, member.me()), SHARDS / WORKERS);
    }

    (large.read, large.written) = (0.0, 0.0);
    large.run(Duration::from_mins(1));
    let (read, written) = (large.read / 60.0, large.written / 60.0);
    println!("finished: {read:.0} read units and {written:.0} write units a second");
    assert!(read <= MOST_READS / 10.0, "{read} read units a second");
    assert!(
        written <= MOST_WRITES / 10.0,
        "{written} write units a second"
    );

    // After a split a worker has more than its share, and gives one away.
    for children in [1, 2, 2] {
        large.end_one(3, children);
        let pause = large.longest_pause(Duration::from_secs(15));
        println!("{children} children: {pause:?}");
        assert!(pause <= Duration::from_secs(1), "{children}: {pause:?}");
    }
    let view = large.leases.snapshot();
    let most = large.fleet.iter().map(|member| held(&view, member.me()));
    assert_eq!(most.max(), Some(SHARDS / WORKERS + 1));

    let dead = large.fleet.pop().unwrap().me().clone();
    let took = large.until(|view| held(view, &dead) == 0);
    assert!(
        took <= LEASE + Duration::from_secs(2),
        "failover takes {took:?}"
    );
    println!("failover: {took:?}");
}
