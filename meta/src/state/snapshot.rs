//! A snapshot on record.

use ankole_proto::{LayerId, SnapshotGroupId, SnapshotId, VolumeId, VolumeSize};

/// A user-visible name for a sealed layer of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its name, unique among the volume's snapshots that are not being deleted.
    pub name: String,
    /// Of which it is.
    pub volume: VolumeId,
    /// The layer sealed for it; `None` until an engine has done so.
    pub layer: Option<LayerId>,
    /// What it is.
    pub state: SnapshotState,
    /// When it was asked for.
    pub created_at_ms: u64,
    /// The volume's size then.
    pub size: VolumeSize,
    /// The cut through several volumes that it is a part of.
    pub group: Option<SnapshotGroupId>,
}

/// `Creating → Ready → Deleting → (gone)`; a creation that an engine refuses ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SnapshotState {
    /// Waits for an engine to seal the head, or for the other volumes of its group.
    Creating,
    /// Sealed on every in-sync replica.
    Ready,
    /// Its layer is to be merged into the next newer one.
    Deleting,
}
