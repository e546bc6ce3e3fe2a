//! The group's row, the stream's listing, and the repair of the lease table.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::absences::Absences;
use super::events::{Command, Failed, Note, Outbox};
use super::holdings::Holdings;
use super::horizon::Horizon;
use super::identity::{Agreement, Differs};
use super::lineage::Tree;
use super::listed::Listed;
use super::listing::{FinishedListing, Listing};
use super::looks::Begun;
use super::repair::{Findings, Repair, begun_stream, group_row, to_the_millisecond};
use super::rows::GroupRow;
use super::rules::{FleetRule, FleetRules};
use super::shards::Shards;
use super::snapshot::{Reach, Unfit, Unreadable, View};
use super::validity::LOOKS_LAST;
use crate::core::Now;
use crate::core::shard::{Shard, ShardId};

/// Why nothing is read for a moment.
pub const NEXT_FOUND: &str = "the table's next stream is found, and is about to be read";

/// Why nothing is read where no listing says.
const NONE_LATER: &str = "every shard that is known of the table's streams is read to its end, and no \
    later stream is found yet";

/// A consistent look that began under trust.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    pub view: &'a View,
    pub reach: Reach,
    pub holdings: &'a Holdings,
    pub rules: &'a FleetRules,
    pub now: Now,
}

/// What is done for the whole group: of the workers that list, one does it.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub listing: Listing,
    pub agreement: Agreement,
    absences: Absences,
    /// The archived shards, as the last look at all rows saw them.
    archived: BTreeSet<ShardId>,
    /// The group's row, as it was when it was first seen, with the effects as last seen.
    pub group: Option<GroupRow>,
    /// The group row that I last asked to write.
    asked: Option<GroupRow>,
    /// It is being written.
    bootstrapping: bool,
    /// Rows are being repaired.
    repairing: bool,
    /// The group was bootstrapped by me: no shard ever had a row.
    fresh: bool,
    /// What the stream listed before that.
    before_bootstrap: Option<Vec<Shard>>,
    not_reading: Option<String>,
}

impl Upkeep {
    pub fn new(rules: &FleetRules, now: Duration) -> Self {
        Self {
            listing: Listing::new(now),
            agreement: Agreement::new(rules),
            absences: Absences::new(rules.lease_duration * LOOKS_LAST),
            archived: BTreeSet::new(),
            group: None,
            asked: None,
            bootstrapping: false,
            repairing: false,
            fresh: false,
            before_bootstrap: None,
            not_reading: None,
        }
    }

    /// How far a look at the leases has to reach: what is archived counts only beside a listing.
    pub fn reach(&self) -> Reach {
        if self.listing.known.is_some() {
            Reach::All
        } else {
            Reach::Current
        }
    }

    /// Whether no row is missing or being repaired.
    pub fn is_done(&self) -> bool {
        self.absences.is_empty() && !self.repairing
    }

    /// Lists the stream if that is due.
    pub fn begin_listing(
        &mut self,
        shards: &Shards,
        now: Duration,
        rules: &FleetRules,
        rng: &mut fastrand::Rng,
        out: &mut Outbox,
    ) {
        if self.listing.due(now) <= now {
            let mut ended = shards.ended();
            ended.extend(self.archived.iter().cloned());
            self.listing.begin(ended, now, rules, rng);
            let from = begun_stream(shards.known()).map(str::to_owned);
            out.push(Command::List(from));
        }
    }

    /// Elects the worker that lists the stream. It also removes the rows of dead workers.
    pub fn elect(&mut self, shards: &Shards, now: Duration, out: &mut Outbox) {
        let (view, members) = (&shards.snapshot.view, &shards.members);
        self.listing.elect(shards.live(), view, members.me());
        let dead = members.removable(view, now);
        if !dead.is_empty() && self.listing.is_mine() {
            out.push(Command::Repair(Box::new(Repair {
                dead,
                ..Repair::default()
            })));
        }
    }

    /// A look was answered. A consistent one shows whether the group's identity is this worker's.
    pub fn remember(
        &mut self,
        view: &View,
        begun: Begun,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), Differs> {
        if begun.reach == Reach::All {
            self.archived.clone_from(&view.archived);
            let newer = |row: &Unreadable| row.is_newer() && row.shard().is_some();
            self.listing.unread = view.unreadable.iter().any(newer);
        }
        if let Some(row) = view.group.as_ref().filter(|_| self.group.is_none()) {
            self.begins(row, out);
            self.group = Some(row.clone());
        }
        if !begun.consistent {
            return Ok(());
        }
        self.absences.see(view, now.elapsed);
        if let (Some(known), Some(row)) = (&mut self.group, &view.group) {
            known.effects.clone_from(&row.effects);
        }
        let group = view.group.as_ref();
        group.map_or(Ok(()), |row| {
            self.agreement.compare(&row.effects, now.time, out)
        })
    }

    /// The group's row was written or existed already: this is it, if the call succeeded. Returns whether
    /// this worker started the group.
    pub fn bootstrapped(
        &mut self,
        row: Option<GroupRow>,
        now: SystemTime,
        out: &mut Outbox,
    ) -> Result<bool, Differs> {
        self.bootstrapping = false;
        self.listing.first = false;
        let Some(row) = row else {
            return Ok(false);
        };
        let begins = self.begins(&row, out);
        let agrees = self.agreement.compare(&row.effects, now, out);
        self.group = Some(row);
        agrees.map(|()| begins)
    }

    /// The group's row was seen: in an answer, or in a look if the answer is lost or late. Returns whether
    /// this is the first time, and the row is mine.
    fn begins(&mut self, row: &GroupRow, out: &mut Outbox) -> bool {
        let begins = self.group.is_none() && self.asked.as_ref() == Some(row);
        if begins {
            out.note(Note::GroupBegins(row.initial));
            self.fresh = true;
        }
        begins
    }

    /// The listing was answered. Answers whether there is something to compare with the lease table.
    pub fn listed(
        &mut self,
        result: Result<Listed, Failed>,
        now: Duration,
        rules: &FleetRules,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let succeeded = result.is_ok();
        match result {
            Ok(listed) => self.listing.succeeded(listed, now),
            Err(Failed) => self.listing.failed(now, rules, rng),
        }
        succeeded
    }

    /// A consistent look under trust was answered.
    pub fn see(&mut self, look: &Look<'_>, out: &mut Outbox) {
        self.mind_streams(look.view, look.now.elapsed, out);
        self.repair(look, out);
    }

    /// If nothing is left to read, a later stream is looked for at once, and the log and the status say
    /// why nothing is read.
    fn mind_streams(&mut self, view: &View, now: Duration, out: &mut Outbox) {
        let idle = view.is_idle();
        self.listing.mind_idle(idle, now);
        let begun = begun_stream(view.leases.keys());
        let why_idle = if self.listing.is_later_than(begun) {
            NEXT_FOUND
        } else {
            NONE_LATER
        };
        let trouble = self.listing.trouble(idle);
        let trouble = trouble.or_else(|| idle.then(|| why_idle.to_owned()));
        if self.not_reading != trouble {
            self.not_reading.clone_from(&trouble);
            out.note(Note::NotReading(trouble));
        }
    }

    /// Repairs what is missing or damaged, and removes what is not needed any more.
    fn repair(&mut self, look: &Look<'_>, out: &mut Outbox) {
        let (view, now) = (look.view, look.now.elapsed);
        // A group row that is damaged is replaced; one of a newer format is not ours.
        let mut unreadable = view.unreadable.iter();
        let of_newer = unreadable.any(|row| row.is_group() && row.is_newer());
        if view.group.is_none() && !of_newer {
            // A look that began before the row was written compares nothing: without the group's row
            // nobody knows since when the group reads.
            if !self.bootstrapping {
                self.bootstrap(look, out);
            }
            return;
        }
        if self.repairing || look.reach != Reach::All {
            return;
        }
        let Some(known) = self.listing.known.take() else {
            return;
        };
        if known.is_old(now, look.rules) {
            self.listing.again_at(now);
            return;
        }
        let repair = self.compare(&known, look, out);
        if !repair.is_empty() {
            out.note(Note::Repairing {
                created: repair.create.len(),
                healed: repair.heal.len(),
                removed: repair.ended.len(),
            });
            self.repairing = true;
            out.push(Command::Repair(Box::new(repair)));
        }
    }

    /// The repair was made, or failed.
    pub fn repaired(&mut self) {
        self.repairing = false;
    }

    /// What a listing and a look make necessary together.
    fn compare(&mut self, known: &FinishedListing, look: &Look<'_>, out: &mut Outbox) -> Repair {
        let (view, rules, now) = (look.view, look.rules, look.now);
        for row in &view.unreadable {
            if let Unfit::Malformed { what } = &row.why {
                out.note(Note::MalformedRow(row.row.clone(), what.clone()));
            }
        }
        let at_start = std::mem::take(&mut self.fresh) && view.has_no_leases();
        let before = self.before_bootstrap.take().filter(|_| at_start);
        let ago = now.elapsed.saturating_sub(known.began);
        let findings = Findings {
            view,
            known,
            tree: Tree::new(&known.listed.shards, view, rules.left_out),
            horizon: Horizon {
                group: self.group.as_ref(),
                retention: rules.retention,
                now: now.time,
            },
            at_start,
            listed_at: to_the_millisecond(now.time.checked_sub(ago).unwrap_or(now.time)),
        };
        let mut due = findings.due(before.as_deref());
        due.extend(findings.damaged());
        let mut missing = self.absences.missing(&due, now.elapsed);
        if rules.left_out == Some(FleetRule::ListingRepairs) && !at_start {
            return Repair::default();
        }
        if at_start || rules.left_out == Some(FleetRule::PatientRepair) {
            missing.clone_from(&due);
        }
        if missing.len() < due.len() {
            // The rest has not been missing for long enough. An old listing must not bring back what
            // the stream has forgotten meanwhile, so the stream is listed again.
            let soon = now.elapsed + rules.lease_duration / 2;
            self.listing.again_at(soon);
        }
        let highest = |shard: Shard| {
            let highest = look.holdings.highest(&shard.id);
            (shard, highest)
        };
        findings.repair(missing.into_iter().map(highest).collect())
    }

    /// A group that starts with `latest` starts from what the stream lists: that listing comes
    /// first and the moment of the bootstrap after it, so that whatever a shard holds that had
    /// ended by then is older than the group.
    fn bootstrap(&mut self, look: &Look<'_>, out: &mut Outbox) {
        let is_new = self.group.is_none();
        if look.view.has_no_leases() && is_new && self.listing.known.is_none() {
            self.listing.first = true;
            return;
        }
        // Where a row is replaced, its moment lies before the listing.
        let known = self.listing.known.as_ref().filter(|_| is_new);
        self.before_bootstrap = known.map(|known| known.listed.shards.clone());
        let new = || group_row(look.rules, look.view, look.now.time);
        let row = self.group.clone().unwrap_or_else(new);
        self.asked = Some(row.clone());
        self.bootstrapping = true;
        out.push(Command::Bootstrap(row));
    }
}
