//! An open link: the requests that it owes an answer; and small sets of replicas.

use std::collections::BTreeMap;

use ankole_proto::{ReplicaId, Sequence};

use super::compare::LookId;
use super::event::LinkId;
use super::job::JobId;
use super::rebuild::ChunkKey;
use crate::volume::Moment;

/// Most replicas of a volume, lost ones that are not gone yet included.
pub(super) const SLOTS_MAX: u8 = 64;

/// A small number for a replica, free again once the replica has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u8);

/// A set of replicas, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotSet(u64);

impl SlotSet {
    pub(super) fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot.0;
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.0 &= !(1 << slot.0);
    }

    pub(super) fn contains(self, slot: Slot) -> bool {
        self.0 & (1 << slot.0) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds all of the other.
    pub(super) fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a request was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Mutation(Sequence),
    Read(JobId),
    Flush(JobId),
    /// Flush, Seal or Revert of the task in hand.
    Task,
    Ping,
    /// The last flush before Close.
    StopFlush,
    Close,
    BeginRebuild,
    /// Noting what a rebuild has made equal.
    MarkRebuilt,
    /// All that was copied goes to the target's disk.
    SyncRebuilt,
    FinishRebuild,
    /// One step of rewriting a damaged block.
    Repair(JobId),
    /// One step of copying a chunk to the target.
    Copy(CopyOf),
    /// The contents of a chunk, to be compared with the others'.
    Compare(LookId),
}

/// Whose rebuild a step of copying belongs to. A source may answer long after the target's link
/// broke and its rebuild began again over a new one: what it read then is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyOf {
    pub(super) target: ReplicaId,
    /// The target's link when it was asked.
    pub(super) over: LinkId,
    pub(super) key: ChunkKey,
}

impl Ask {
    /// Whether it syncs or changes the tree, which takes longer than a write.
    fn is_patient(self) -> bool {
        !matches!(self, Self::Mutation(_) | Self::Read(_) | Self::Ping)
    }
}

/// A request without answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owed {
    pub(super) ask: Ask,
    pub(super) sent: Moment,
}

/// An open link and the requests on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: LinkId,
    last_request: u64,
    /// In the order in which they were sent, as their ids grow.
    quick: BTreeMap<u64, Owed>,
    patient: BTreeMap<u64, Owed>,
    /// Nobody is given up for being late with these.
    idle: BTreeMap<u64, Owed>,
    pub(super) pinged: Moment,
}

impl Session {
    pub(super) fn new(link: LinkId, now: Moment) -> Self {
        Self {
            link,
            last_request: 0,
            quick: BTreeMap::new(),
            patient: BTreeMap::new(),
            idle: BTreeMap::new(),
            pinged: now,
        }
    }

    /// Takes out the request that a reply belongs to.
    pub(super) fn answer(&mut self, request_id: u64) -> Option<Owed> {
        self.quick
            .remove(&request_id)
            .or_else(|| self.patient.remove(&request_id))
            .or_else(|| self.idle.remove(&request_id))
    }

    pub(super) fn owed(&self) -> usize {
        self.quick.len() + self.patient.len() + self.idle.len()
    }

    /// When the oldest quick and the oldest patient request were sent.
    pub(super) fn oldest(&self) -> (Option<Moment>, Option<Moment>) {
        let first = |map: &BTreeMap<u64, Owed>| map.first_key_value().map(|(_, owed)| owed.sent);
        (first(&self.quick), first(&self.patient))
    }

    /// Notes a request; its id is new on this link.
    pub(super) fn add(&mut self, ask: Ask, now: Moment) -> u64 {
        self.last_request += 1;
        let owed = Owed { ask, sent: now };
        if matches!(ask, Ask::Compare(_)) {
            self.idle.insert(self.last_request, owed);
        } else if ask.is_patient() {
            self.patient.insert(self.last_request, owed);
        } else {
            self.quick.insert(self.last_request, owed);
        }
        self.last_request
    }
}
