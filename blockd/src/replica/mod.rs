//! One full copy of a volume: a tree of layers, the index over the head's chain, and the rules by
//! which an engine may change them.
//!
//! Owns `replica.json`, the fence, the memory of mutations in flight and the order in which files
//! are written and synced. Promises INV-1 (only the greatest durable epoch is obeyed), INV-6
//! (sealed layers keep their contents), INV-7, INV-9, INV-10 (a failed sync faults the replica for
//! good), INV-13 and INV-14. Plain synchronous code over [`Disk`]: no clock, no thread, no lock;
//! the caller serialises calls, and runs the slow part of a flush ([`FlushPlan::run`]) without
//! holding the replica. The format is told in `docs/disk-format.md`.

use std::path::PathBuf;

use ankole_proto::wire::body::LayerLink;
use ankole_proto::{Credential, Sequence, VolumeSize};

use crate::disk::Disk;
use crate::layer::Tree;

mod access;
mod census;
mod chunk_cache;
mod clone;
mod contents;
mod create;
mod damages;
mod descriptor;
mod expand;
mod fault;
mod flush;
mod index;
mod load;
mod mark;
mod memory;
mod merge;
mod offline;
mod open;
mod open_files;
mod private;
mod read;
mod rebuild;
mod recover;
pub mod refusal;
mod repair;
mod scrub;
mod settle;
mod snapshot;
mod sums;
#[cfg(test)]
mod tests;
mod tree_change;
mod unmap;
mod vacated;
mod write;

pub use chunk_cache::CacheBudget;
pub use clone::{CloneError, CloneSpec};
pub use contents::{ContentsHasher, Hashed};
pub use create::{CreateError, ReplicaSpec, create, destroy};
pub use damages::{Damage, News};
#[cfg(test)]
pub(crate) use descriptor::FORMAT;
pub use descriptor::{Stop, StoredState};
pub use flush::{FlushPlan, WRITEBACK_CHUNKS_MAX};
pub use load::{LoadError, stored_id};
pub use mark::MarkPlan;
pub use offline::{
    DamagedBlock, ExportError, ExportRequest, Exported, InspectedLayer, Inspection, OnDamage,
    OnPartial, Unreadable, UnreadableRange, Verification, export, inspect, salvage, verify,
};
pub use refusal::{
    ChecksumMismatch, DataError, LayerError, Medium, OpenError, Refusal, TreeError, Unusable,
    WorkError,
};
pub use scrub::{DAMAGES_TOLD, ScrubReport};
pub use tree_change::Removed;

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

/// Whether an engine may use the replica now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Open,
    Closed,
}

/// Whether writes may take new space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allocation {
    Allowed,
    Refused,
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
    /// Of these, what is given back when the layer is merged away: blocks that the next newer layer
    /// decides itself. 0 while several layers stand on it.
    pub reclaimable_bytes: u64,
    /// To be merged away as soon as it has at most one child.
    pub removing: bool,
}

/// What a step of background work did.
#[derive(Debug)]
pub enum Progress<D: Disk> {
    /// There is nothing to do.
    Idle,
    /// Call again; about this many blocks were read or moved.
    Working {
        /// Since the last call.
        blocks: u64,
    },
    /// Run this without holding the replica, pass it to [`Replica::finish_flush`], call again.
    Sync(FlushPlan<D>),
}

/// A loaded replica.
pub struct Replica<D: Disk> {
    disk: D,
    directory: PathBuf,
    descriptor: descriptor::Descriptor,
    credential: Credential,
    tree: Tree,
    size: VolumeSize,
    state: State,
    session: Session,
    allocation: Allocation,
    memory: memory::Recollection,
    /// The present boot of the host; empty when it was not told.
    boot: String,
    index: index::Index,
    chunks: chunk_cache::ChunkCache,
    files: open_files::OpenFiles<D>,
    dirty: flush::Dirty,
    vacated: vacated::Vacated,
    merge: Option<merge::Merge>,
    settle: Option<settle::Settle>,
    privacy: private::Privacy<D>,
    /// Their names are gone, and somebody is to close them.
    removed: Vec<crate::layer::LayerFiles<D::File>>,
    damages: damages::Damages,
    scrub: scrub::Scrub,
    census: census::Census,
    /// Rebuilds begun since it was loaded.
    rebuilds_begun: u64,
    resummed_blocks: u64,
    /// Reused between calls: sums of a run.
    sums: Vec<u8>,
    /// Reused between calls: sums of what is written.
    block_sums: Vec<u32>,
}

impl<D: Disk> std::fmt::Debug for Replica<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.id())
            .field("epoch", &self.epoch())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
