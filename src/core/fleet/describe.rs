//! Commands in words, as the scripts of `golden` show them.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use super::events::{Command, HandOver, Note, ShardStart};
use super::repair::Repair;
use super::rows::{GroupRow, LeaseRow};
use super::snapshot::{Consistency, Reach};
use super::terms::{Incarnation, Sighting};
use crate::core::position::Position;

/// The name that answers the call, if it needs an answer, and the command in words.
pub(super) fn describe(command: &Command) -> (Option<String>, String) {
    let named = |name: &str, line: String| (Some(name.to_owned()), line);
    match command {
        Command::Heartbeat(beat) => {
            let first = if beat.registered { "" } else { ", the first" };
            let draining = if beat.draining { ", draining" } else { "" };
            let unable = if beat.unable_to_list {
                ", unable to list"
            } else {
                ""
            };
            let number = beat.beat;
            named("beat", format!("beat {number}{first}{draining}{unable}"))
        }
        Command::Look(reach, consistency) => {
            let at = match reach {
                Reach::Workers => " at the heartbeats",
                Reach::Current => "",
                Reach::All => " at all rows",
            };
            let how = match consistency {
                Consistency::Strong => ", consistently",
                Consistency::Eventual => "",
            };
            named("look", format!("look{at}{how}"))
        }
        Command::Bootstrap(GroupRow { initial, .. }) => {
            named("bootstrap", format!("bootstrap from {initial:?}"))
        }
        Command::ChangeEffects { .. } => named("effects", "change the effects".to_owned()),
        Command::ShareEffects(_) => (None, "the group's effects have changed".to_owned()),
        Command::List(_) => named("list", "list".to_owned()),
        Command::Take(take) => {
            let from = match &take.from {
                None => String::new(),
                Some((owner, None)) => format!(" from {}", owner.worker()),
                Some((owner, Some(Sighting::Missing))) => {
                    format!(" from {}, which is gone", owner.worker())
                }
                Some((owner, Some(Sighting::Beat(beat)))) => {
                    format!(" from {}, still at beat {beat}", owner.worker())
                }
            };
            let (shard, seen, epoch) = (&take.shard, take.seen_epoch, take.epoch);
            let line = format!("take {shard}{from}: epoch {seen} -> {epoch}");
            (Some(format!("take {shard}")), line)
        }
        Command::HandOver(what) => {
            let HandOver { hold, position, .. } = &**what;
            let (shard, epoch) = (&hold.shard, hold.epoch);
            let at = match position {
                Position::Horizon => "the horizon",
                Position::After(number) => number.as_str(),
            };
            let line = format!(
                "hand {shard} under epoch {epoch} over to {} at {at}",
                to(what.to.as_ref())
            );
            (Some(format!("hand-over {shard}")), line)
        }
        Command::Repair(repair) => named("repair", describe_repair(repair)),
        Command::StartShard(start) => {
            let ShardStart { hold, .. } = &**start;
            (
                None,
                format!("start {} under epoch {}", hold.shard, hold.epoch),
            )
        }
        Command::Drain(shard) => (None, format!("drain {shard}")),
        Command::Abandon(shard) => (None, format!("abandon {shard}")),
        Command::Note(note) => (None, format!("note: {}", describe_note(note))),
        Command::Left => (None, "left".to_owned()),
    }
}

fn describe_repair(repair: &Repair) -> String {
    let mut line = "repair:".to_owned();
    let rows = |rows: &[LeaseRow]| {
        let rows = rows
            .iter()
            .map(|row| format!("{} {}", row.shard, row.epoch));
        rows.collect::<Vec<_>>().join(", ")
    };
    if !repair.create.is_empty() {
        write!(line, " create {}", rows(&repair.create)).unwrap();
    }
    if !repair.heal.is_empty() {
        write!(line, " heal {}", rows(&repair.heal)).unwrap();
    }
    for shard in &repair.archived {
        write!(line, " archive {shard}").unwrap();
    }
    for shard in &repair.ended {
        write!(line, " remove {shard}").unwrap();
    }
    for (name, _) in &repair.dead {
        write!(line, " remove worker {}", name.worker()).unwrap();
    }
    line
}

fn describe_note(note: &Note) -> String {
    match note {
        Note::HandingOver(shard, who) => format!("handing {shard} over to {}", to(who.as_ref())),
        Note::Took(shard, epoch, _) => format!("took {shard} under epoch {epoch}"),
        Note::Reborn(_) => "joining again".to_owned(),
        other => format!("{other:?}"),
    }
}

fn to(who: Option<&Incarnation>) -> &str {
    who.map_or("nobody", Incarnation::worker)
}
