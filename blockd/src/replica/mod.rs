//! One full copy of a volume: a tree of layers, the index over the head's chain, and the rules by
//! which an engine may change them.
//!
//! Owns `replica.json`, the fence, the memory of mutations in flight and the order in which files
//! are written and synced. Promises INV-1 (only the greatest durable epoch is obeyed), INV-6
//! (sealed layers keep their contents), INV-7, INV-9, INV-10 (a failed sync faults the replica for
//! good), INV-13 and INV-14. Plain synchronous code over [`Disk`]: no clock, no thread, no lock;
//! the caller serialises calls, and runs the slow part of a flush ([`FlushPlan::run`]) without
//! holding the replica. The format is told in `docs/disk-format.md`.

use ankole_proto::wire::body::{LayerLink, Memory};
use ankole_proto::{Credential, Epoch, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};

use crate::disk::Disk;

pub mod refusal;
mod skeleton;

pub use refusal::{
    ChecksumMismatch, DataError, LayerError, Medium, OpenError, Refusal, TreeError, Unusable,
    WorkError,
};
pub use skeleton::*;

/// What a new replica is to be.
#[derive(Debug, Clone)]
pub struct ReplicaSpec {
    /// Its id.
    pub replica: ReplicaId,
    /// Of which volume.
    pub volume: VolumeId,
    /// How large.
    pub size: VolumeSize,
    /// The empty head to begin with.
    pub base_layer: LayerId,
    /// What opens it.
    pub credential: Credential,
}

/// Whether a replica can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Complete.
    Ready,
    /// Being made equal to a peer: takes writes, serves no read (INV-9).
    Rebuilding,
    /// Failed, for good.
    Faulted {
        /// Which file and why.
        reason: String,
    },
}

/// The place of a mutation in its engine's order, and what the engine says of those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// Its number.
    pub sequence: Sequence,
    /// Every mutation up to this one is complete on all replicas.
    pub watermark: Sequence,
}

/// What a layer takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerUsage {
    /// The layer and what it stands on.
    pub link: LayerLink,
    /// Bytes of the blocks it holds.
    pub used_bytes: u64,
    /// To be merged away as soon as it has at most one child.
    pub removing: bool,
}

/// What a step of background work did.
#[derive(Debug)]
pub enum Progress<D: Disk> {
    /// There is nothing to do.
    Idle,
    /// Call again; this many blocks were read or moved.
    Working {
        /// Since the last call.
        blocks: u64,
    },
    /// Run this without holding the replica, pass it to [`Replica::finish_flush`], call again.
    Sync(FlushPlan<D>),
}

#[allow(dead_code, reason = "used by the modules to come")]
struct Unused(Memory, Epoch);
