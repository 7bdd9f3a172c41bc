//! A snapshot on record.

use ankole_proto::{LayerId, SnapshotId, VolumeId, VolumeSize};

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
}

/// `Creating → Ready → Deleting → (gone)`; a creation that an engine refuses ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SnapshotState {
    /// Waits for an engine to seal the head.
    Creating,
    /// Sealed on every in-sync replica.
    Ready,
    /// Its layer is to be merged into the next newer one.
    Deleting,
}
