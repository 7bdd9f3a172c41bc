//! Snapshots of several volumes that are taken as one consistent cut: all become ready, or none
//! stays.
//!
//! ```text
//!          all have an engine       all hold            all have sealed
//!  Gather ───────────────────▶ Hold ─────────▶ Release ────────────────▶ (gone, all are ready)
//!    │ refused, too late,       │                 │
//!    │ a volume deleted         ▼                 │
//!    └──────────────────────▶ Undone ◀────────────┘
//! ```
//!
//! A group gathers first, so that no volume stands still while an engine is started for another
//! one. Until it is released nothing is sealed, so its tasks can be withdrawn at any time. Once it was
//! released an engine may have begun to seal: the tasks that are not done stay until an engine has
//! done or refused each, also when the group was undone meanwhile, and then the snapshot goes.

use std::collections::BTreeMap;

use ankole_proto::{SnapshotGroupId, SnapshotId, VolumeId};

/// The most volumes of a group: all of them stand still while the last one drains.
pub const GROUP_MEMBERS_MAX: usize = 64;

/// The most groups that are under way at a time (INV-12).
pub const GROUPS_MAX: usize = 64;

/// How many groups that were undone are remembered, for those who wait for the outcome (INV-12).
pub const UNDONE_MAX: usize = 64;

/// How long it may take until every volume has an engine: one without target is started for each
/// that is detached, which may have to wait for an old lease. With the next two below the time for
/// which a call waits, so that its caller is told.
pub const GROUP_GATHER_MS: u64 = 15_000;

/// How long until all of them hold; I/O stands still meanwhile. Below the limit of the engines,
/// which is theirs in case that no manager can be reached.
pub const GROUP_HOLD_MS: u64 = 6_000;

/// How long until all have sealed, which is quick for an engine that holds.
pub const GROUP_SEAL_MS: u64 = 7_000;

/// Snapshots that were asked for together and are not all taken, or were undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotGroup {
    /// Its id.
    pub id: SnapshotGroupId,
    /// The name of each snapshot.
    pub name: String,
    /// How far it is.
    pub stage: GroupStage,
    /// Since when, by the proposers' clocks.
    pub since_ms: u64,
    /// Its volumes; of one that was undone those whose task an engine may still have begun.
    pub members: BTreeMap<VolumeId, GroupMember>,
}

/// How far a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupStage {
    /// The volumes that have no engine get one.
    Gather,
    /// The engines drain, flush and hold.
    Hold,
    /// They seal.
    Release,
    /// It has failed.
    Undone {
        /// Why.
        reason: String,
    },
}

/// One volume of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMember {
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// The task that takes it.
    pub task: u64,
    /// Whether it is taken.
    pub sealed: bool,
}

impl SnapshotGroup {
    /// Whether its outcome is open.
    pub const fn is_open(&self) -> bool {
        !matches!(self.stage, GroupStage::Undone { .. })
    }

    /// Why it has failed, when it has.
    pub fn failure(&self) -> Option<&str> {
        match &self.stage {
            GroupStage::Undone { reason } => Some(reason),
            GroupStage::Gather | GroupStage::Hold | GroupStage::Release => None,
        }
    }

    /// Whether it takes too long.
    pub const fn is_late(&self, now_ms: u64) -> bool {
        let limit_ms = match self.stage {
            GroupStage::Gather => GROUP_GATHER_MS,
            GroupStage::Hold => GROUP_HOLD_MS,
            GroupStage::Release => GROUP_SEAL_MS,
            GroupStage::Undone { .. } => return false,
        };
        now_ms.saturating_sub(self.since_ms) > limit_ms
    }
}
