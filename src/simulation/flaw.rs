//! Deliberate mistakes, one at a time, to show that the simulation notices each.

use crate::core::claim::ClaimRule;
use crate::core::fleet::rules::FleetRule;
use crate::core::pipeline::Rule as PipelineRule;

/// A rule of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A take does not check that the owner's heartbeat is still the one seen.
    TakeWithoutBeat,
    /// A take does not check that owner and epoch are still those seen.
    TakeWithoutEpoch,
    /// A worker whose trust lapsed continues without reading its lease rows again.
    NoReread,
    /// A consistent look that began before trust was restored counts.
    EarlyReread,
    /// A row is adopted though a newer epoch was seen or its epoch was given up.
    StaleAdopt,
    /// A worker is known by its name: a restarted one inherits, trusted from its first heartbeat.
    TrustingStart,
    /// Trust lasts longer than others wait.
    TrustTooLong,
    /// A checkpoint does not check owner and epoch.
    CheckpointWithoutEpoch,
    /// The checkpoint is one record ahead of what is finished.
    FrontierOffByOne,
    /// A child is read although its parent is not finished.
    ChildBeforeParent,
    /// A stream is read although an earlier one is not finished.
    StreamsAtOnce,
    /// A record that failed lets the next of its key go first.
    TurnLost,
    /// A dead letter is written although the lease is somebody else's.
    LetterWithoutLease,
    /// Nobody knows which keys are parked.
    ParkedForgotten,
    /// A gap is not written down.
    SilentGap,
    /// A shard is given away before its records in flight are done.
    HandOverTooEarly,
    /// An empty answer about children is believed, and no listing repairs it.
    ChildForgotten,
    /// A missing row is replaced at once, although a worker may still act on it.
    HealTooEarly,
    /// Rows are written in a format that not everybody in the fleet reads.
    FormatIgnored,
    /// A worker goes by its own clock.
    OwnClock,
    /// A mail is sent though somebody else's claim stands.
    ClaimIgnored,
    /// The claim of a dead worker counts as never made.
    DeadClaimIsFree,
    /// A reply that never came counts as a mail that was not accepted.
    NoReplyIsNoMail,
    /// A reply that never came counts as a mail that was accepted.
    NoReplyIsMail,
    /// A send that was dropped after its dot counts as never begun.
    BegunForgotten,
    /// An order in doubt is sent again as often as it takes.
    EndlessResend,
    /// The policy `park` is not asked.
    ParkIgnored,
    /// A later claim that ends definitely hides an earlier one that did not.
    DoubtForgotten,
    /// A mail that is sent again has a date of its own.
    FreshDate,
    /// A record whose order somebody else is at is finished.
    BusyIsDone,
    /// The ledger takes a row over whichever stands.
    SwapWithoutRevision,
}

impl Flaw {
    /// The rule of the fleet that it leaves out.
    pub(super) fn of_fleet(self) -> Option<FleetRule> {
        Some(match self {
            Self::NoReread => FleetRule::RereadAfterLapse,
            Self::EarlyReread => FleetRule::FreshLook,
            Self::StaleAdopt => FleetRule::NoStaleEpoch,
            Self::TrustingStart => FleetRule::NothingByName,
            Self::TrustTooLong => FleetRule::TrustMargin,
            Self::HandOverTooEarly => FleetRule::DrainFirst,
            Self::ChildForgotten => FleetRule::ListingRepairs,
            Self::HealTooEarly => FleetRule::PatientRepair,
            Self::FormatIgnored => FleetRule::FormatForAll,
            Self::StreamsAtOnce => FleetRule::OneStreamAtATime,
            Self::ChildBeforeParent => FleetRule::ParentFirst,
            _ => return None,
        })
    }

    /// The rule of the pipeline that it leaves out.
    pub(super) fn of_pipeline(self) -> Option<PipelineRule> {
        match self {
            Self::FrontierOffByOne => Some(PipelineRule::Contiguous),
            Self::TurnLost => Some(PipelineRule::Order),
            _ => None,
        }
    }

    /// Those of the sender, which a simulation with [`Scenario::mail`](super::Scenario::mail) notices.
    pub const OF_THE_SENDER: [Self; 11] = [
        Self::ClaimIgnored,
        Self::DeadClaimIsFree,
        Self::NoReplyIsNoMail,
        Self::NoReplyIsMail,
        Self::BegunForgotten,
        Self::EndlessResend,
        Self::ParkIgnored,
        Self::DoubtForgotten,
        Self::FreshDate,
        Self::BusyIsDone,
        Self::SwapWithoutRevision,
    ];

    /// Those of the fleet.
    pub const ALL: [Self; 20] = [
        Self::TakeWithoutBeat,
        Self::TakeWithoutEpoch,
        Self::NoReread,
        Self::EarlyReread,
        Self::StaleAdopt,
        Self::TrustingStart,
        Self::TrustTooLong,
        Self::CheckpointWithoutEpoch,
        Self::FrontierOffByOne,
        Self::ChildBeforeParent,
        Self::StreamsAtOnce,
        Self::TurnLost,
        Self::LetterWithoutLease,
        Self::ParkedForgotten,
        Self::SilentGap,
        Self::HandOverTooEarly,
        Self::ChildForgotten,
        Self::HealTooEarly,
        Self::FormatIgnored,
        Self::OwnClock,
    ];
}

impl Flaw {
    /// The rule of the once-only protocol that it leaves out, if it is one of those.
    pub(super) fn claim_rule(self) -> Option<ClaimRule> {
        Some(match self {
            Self::ClaimIgnored => ClaimRule::OwnClaim,
            Self::DeadClaimIsFree => ClaimRule::DeadClaimIsDoubt,
            Self::NoReplyIsNoMail => ClaimRule::NoAnswerIsNotNo,
            Self::NoReplyIsMail => ClaimRule::NoAnswerIsNotYes,
            Self::BegunForgotten => ClaimRule::SeenThrough,
            Self::EndlessResend => ClaimRule::OneResend,
            Self::ParkIgnored => ClaimRule::Park,
            Self::DoubtForgotten => ClaimRule::DoubtRemains,
            Self::FreshDate => ClaimRule::SameBytes,
            Self::BusyIsDone => ClaimRule::BusyIsNotDone,
            _ => return None,
        })
    }
}
