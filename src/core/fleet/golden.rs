//! Scripts of events and the resulting commands, in `golden/*.txt`. A line that begins with `>` is an
//! event; the lines below it are the member's commands and its leases. `UPDATE_GOLDEN=1` rewrites them:
//! read the difference.
//!
//! The script keeps a lease table. A look reads it, and a successful take, hand-over or repair changes
//! it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::describe::describe;
use super::events::{Command, Failed, FleetEvent, Stopped};
use super::listed::{FoundStream, Listed};
use super::repair::Repair;
use super::rows::{Checkpoint, InitialPosition, LeaseRow, Report, WorkerRow};
use super::rules::FleetRules;
use super::snapshot::{Unfit, Unreadable, View};
use super::terms::{Incarnation, Take};
use super::{Fleet, Now};
use crate::core::effects::GroupEffects;
use crate::core::golden;
use crate::core::position::{Position, SequenceNumber};
use crate::core::shard::{Shard, ShardId};

pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The rules of every script.
pub(super) fn rules(worker: &str) -> FleetRules {
    FleetRules {
        worker_id: worker.to_owned(),
        start: InitialPosition::TrimHorizon,
        effects: GroupEffects::default(),
        accepts_new_identity: false,
        lease_duration: LEASE,
        trust: LEASE.mul_f64(0.8),
        heartbeat_interval: Duration::from_secs(2),
        look_interval: Duration::from_secs(1),
        few_rows: 100,
        listing_interval: Duration::from_mins(1),
        handover_timeout: Duration::from_secs(30),
        call_timeout: Duration::from_secs(3),
        shortest_wait: Duration::from_millis(100),
        retention: Duration::from_hours(24),
        left_out: None,
    }
}

pub(super) fn now(elapsed: Duration) -> Now {
    let start = SystemTime::UNIX_EPOCH + Duration::from_hours(490_000);
    Now {
        elapsed,
        time: start + elapsed,
    }
}

/// A worker that beats.
pub(super) fn beating(incarnation: Incarnation, beat: u64) -> WorkerRow {
    WorkerRow {
        incarnation,
        beat,
        draining: false,
        unable_to_list: false,
        lease_duration: LEASE,
        version: String::new(),
        reads: 1,
        zone: None,
        status_address: None,
        trouble: None,
        stuck: None,
        effects: Vec::new(),
        at: None,
    }
}

struct Script {
    fleet: Fleet,
    table: View,
    elapsed: Duration,
    /// Commands that were polled and not answered yet.
    asked: BTreeMap<String, Command>,
    trusted: Option<Duration>,
    mine: Vec<String>,
}

/// 90s, 15m, 250ms.
fn duration(text: &str) -> Duration {
    let at = text.find(char::is_alphabetic).unwrap();
    let (number, unit) = (text[..at].parse().unwrap(), &text[at..]);
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_mins(number),
        _ => panic!("{text}"),
    }
}

/// The value of `name=value`.
fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let pair = |word: &&'a str| word.split_once('=').filter(|(n, _)| *n == name);
    words.iter().find_map(pair).map(|(_, value)| value)
}

fn number(words: &[&str], name: &str, otherwise: u64) -> u64 {
    value(words, name).map_or(otherwise, |text| text.parse().unwrap())
}

fn member(rules: FleetRules) -> Fleet {
    Fleet::new(rules, 1, fastrand::Rng::with_seed(1), Duration::ZERO)
}

impl Script {
    fn new() -> Self {
        Self {
            fleet: member(rules("me")),
            table: View::default(),
            elapsed: Duration::ZERO,
            asked: BTreeMap::new(),
            trusted: None,
            mine: Vec::new(),
        }
    }

    fn event(&mut self, line: &str, said: &mut String) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["wait", time] => self.elapsed += duration(time),
            ["worker", name, ..] => self.worker(name, &words),
            ["no-worker", name] => {
                let name = self.name(name);
                self.table.workers.remove(&name);
            }
            ["shard", id, ..] => self.shard(id, &words),
            ["no-shard", id] => {
                self.table.leases.remove(&ShardId::new(id));
            }
            ["damaged", row] => self.table.unreadable.push(Unreadable {
                row: row.to_owned(),
                why: Unfit::Malformed {
                    what: "epoch is missing".to_owned(),
                },
            }),
            ["many-rows"] => {
                let few_rows = 0;
                self.fleet = member(FleetRules {
                    few_rows,
                    ..rules("me")
                });
            }
            ["next"] => self.next(said),
            ["leave"] => self.give(FleetEvent::Leave),
            ["stopped", id, how] => self.give(FleetEvent::Stopped(ShardId::new(id), stopped(how))),
            [what, ..] => self.answer(what, &words),
            [] => {}
        }
        self.state(said);
    }

    fn give(&mut self, event: FleetEvent) {
        self.fleet.handle(event, now(self.elapsed));
    }

    fn name(&self, name: &str) -> Incarnation {
        if name == "me" {
            self.fleet.me().clone()
        } else {
            Incarnation::new(name, 1)
        }
    }

    fn worker(&mut self, name: &str, words: &[&str]) {
        let row = WorkerRow {
            draining: words.contains(&"draining"),
            unable_to_list: words.contains(&"unable-to-list"),
            reads: u32::try_from(number(words, "reads", 1)).unwrap(),
            ..beating(self.name(name), number(words, "beat", 1))
        };
        self.table.workers.insert(row.incarnation.clone(), row);
    }

    fn shard(&mut self, id: &str, words: &[&str]) {
        let owner = value(words, "owner").map(|name| self.name(name));
        let parent = value(words, "parent").map(ShardId::new);
        let row = LeaseRow::new(ShardId::new(id), parent, number(words, "epoch", 1));
        let end = Checkpoint::End { children: vec![] };
        let row = LeaseRow {
            owner,
            format: u32::try_from(number(words, "format", 1)).unwrap(),
            checkpoint: if words.contains(&"ended") {
                end
            } else {
                row.checkpoint.clone()
            },
            ..row
        };
        self.table.leases.insert(row.shard.clone(), row);
    }

    /// Answers a call: `what [shard] [failed|lost|gone]`.
    fn answer(&mut self, what: &str, words: &[&str]) {
        let failed = words.last() == Some(&"failed");
        let lost = ["lost", "gone"].contains(words.last().unwrap());
        let of_shard = ["take", "hand-over"].contains(&what);
        let name = if of_shard {
            format!("{what} {}", words[1])
        } else {
            what.to_owned()
        };
        let asked = self.asked.remove(&name);
        let asked = asked.unwrap_or_else(|| panic!("{name:?} was not asked for"));
        let done = |()| {
            if failed {
                Err(Failed)
            } else {
                Ok((!lost).then_some(()))
            }
        };
        let event = match asked {
            Command::Heartbeat(beat) => {
                if done(()) == Ok(Some(())) {
                    let mut row = beating(beat.incarnation.clone(), beat.beat);
                    row.draining = beat.draining;
                    self.table.workers.insert(beat.incarnation, row);
                }
                FleetEvent::Heartbeat(done(()))
            }
            Command::Look(..) if failed => FleetEvent::Snapshot(Err(Failed)),
            Command::Look(reach, _) => FleetEvent::Snapshot(Ok(Arc::new(self.table.within(reach)))),
            Command::Bootstrap(_) if failed => FleetEvent::Bootstrapped(Err(Failed)),
            Command::Bootstrap(row) => {
                let row = self.table.group.get_or_insert(row).clone();
                FleetEvent::Bootstrapped(if lost { Err(Failed) } else { Ok(row) })
            }
            Command::List(_) if failed => FleetEvent::Listed(Err(Failed)),
            Command::List(_) => FleetEvent::Listed(Ok(listed(&words[1..]))),
            Command::Take(take) => {
                let row = done(()).map(|done| done.map(|()| Box::new(self.take(&take))));
                FleetEvent::Took(take.shard, row)
            }
            Command::HandOver(what) => {
                if done(()) == Ok(Some(())) {
                    let row = self.table.leases.get_mut(&what.hold.shard).unwrap();
                    row.owner = what.to;
                    row.epoch += 1;
                }
                FleetEvent::HandedOver(what.hold.shard)
            }
            Command::Repair(repair) => {
                if !failed {
                    self.repair(*repair);
                }
                FleetEvent::Repaired(done(()).map(|_| ()))
            }
            other => panic!("{other:?}"),
        };
        self.give(event);
    }

    fn take(&mut self, take: &Take) -> LeaseRow {
        let row = self.table.leases.get_mut(&take.shard).unwrap();
        row.owner = Some(take.owner.clone());
        row.epoch = take.epoch;
        row.clone()
    }

    fn repair(&mut self, repair: Repair) {
        self.table.unreadable.clear();
        for row in repair.create.into_iter().chain(repair.heal) {
            self.table.leases.entry(row.shard.clone()).or_insert(row);
        }
        self.table.archived.extend(repair.archived);
        for shard in repair.ended {
            self.table.archived.remove(&shard);
            self.table.leases.remove(&shard);
        }
        for (name, _) in repair.dead {
            self.table.workers.remove(&name);
        }
    }

    fn next(&mut self, said: &mut String) {
        loop {
            let Some(command) = self.fleet.poll(now(self.elapsed)) else {
                let wake_at = self.fleet.wake_at(self.elapsed);
                let wait = wake_at.saturating_sub(self.elapsed);
                writeln!(said, "wait {wait:.1?}").unwrap();
                return;
            };
            let (name, line) = describe(&command);
            writeln!(said, "{line}").unwrap();
            if command == Command::Left {
                return;
            }
            if let Some(name) = name {
                self.asked.insert(name, command);
            }
        }
    }

    /// The changes in the member's trust and leases.
    fn state(&mut self, said: &mut String) {
        let trusted = self.fleet.validity().until();
        let trusted = trusted.filter(|until| self.elapsed < *until);
        if trusted != self.trusted {
            match trusted {
                Some(until) => writeln!(said, "= trusted until {until:?}").unwrap(),
                None => said.push_str("= not trusted\n"),
            }
            self.trusted = trusted;
        }
        let shards = self.table.leases.keys();
        let leases = shards.filter_map(|shard| self.fleet.lease(shard, self.elapsed));
        let mine = leases.map(|lease| format!("{} {}", lease.hold.shard, lease.hold.epoch));
        let mine: Vec<_> = mine.collect();
        if mine != self.mine {
            let all = if mine.is_empty() {
                "nothing".to_owned()
            } else {
                mine.join(", ")
            };
            writeln!(said, "= mine: {all}").unwrap();
            self.mine = mine;
        }
    }
}

/// `a b<a`: shards, with their parents.
fn listed(words: &[&str]) -> Listed {
    let shard = |word: &&str| {
        let (id, parent) = word.split_once('<').unzip();
        Shard {
            id: ShardId::new(id.unwrap_or(word)),
            parent: parent.map(ShardId::new),
        }
    };
    Listed {
        shards: words.iter().map(shard).collect(),
        streams: vec![FoundStream {
            label: "".into(),
            created: None,
        }],
        trouble: None,
    }
}

fn stopped(how: &str) -> Stopped {
    let position = Position::After(SequenceNumber::parse("700").unwrap());
    match how {
        "finished" => Stopped::Finished,
        "refused" => Stopped::Refused,
        "abandoned" => Stopped::Abandoned,
        "drained" => Stopped::Drained(position, Report::default()),
        "halted" => Stopped::Halted(position, Report::default()),
        _ => panic!("{how}"),
    }
}

#[test]
fn every_script_leads_to_the_commands_that_are_written_in_it() {
    golden::check("fleet/golden", 9, Script::new, Script::event);
}
