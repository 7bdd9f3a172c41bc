//! What a replica is, for those who ask.

use ankole_proto::wire::body::{LayerLink, Memory};
use ankole_proto::{BLOCK_BYTES, Epoch, LayerId, ReplicaId, VolumeId, VolumeSize};

use super::{Allocation, Replica, State};
use crate::disk::Disk;

impl<D: Disk> Replica<D> {
    /// Its id.
    pub const fn id(&self) -> ReplicaId {
        self.descriptor.replica
    }

    /// Its volume.
    pub const fn volume(&self) -> VolumeId {
        self.descriptor.volume
    }

    /// Its size.
    pub const fn size(&self) -> VolumeSize {
        self.size
    }

    /// The greatest epoch it has made durable.
    pub const fn epoch(&self) -> Epoch {
        self.descriptor.epoch
    }

    /// Its writable layer.
    pub const fn head(&self) -> LayerId {
        self.tree.head()
    }

    /// Every layer, a parent before its children.
    pub fn layers(&self) -> Vec<LayerLink> {
        self.tree.links()
    }

    /// Bytes of all blocks that all layers hold, those of layers that it shares with clones too:
    /// what the replica would take alone.
    pub fn used_bytes(&self) -> u64 {
        self.tree
            .layers()
            .map(|layer| self.index.present_blocks(layer) * BLOCK_BYTES)
            .sum()
    }

    /// Whether it can be used.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What it remembers of mutations in flight.
    pub const fn memory(&self) -> Memory {
        self.memory.kind()
    }

    /// Blocks whose sum was lost with an unclean stop and was made anew since this replica was
    /// loaded.
    pub const fn resummed_blocks(&self) -> u64 {
        self.resummed_blocks
    }

    /// Takes part in a budget for what is cached; until then the replica has one of its own.
    pub fn share_cache(&mut self, budget: &std::sync::Arc<super::CacheBudget>) {
        self.chunks.share(budget);
    }

    /// Whether writes may take new space. `false` (above the high-water mark): they are refused
    /// with `NoSpace`; overwrites, reads, unmaps and merges go on.
    pub const fn allow_allocation(&mut self, allowed: bool) {
        self.allocation = if allowed {
            Allocation::Allowed
        } else {
            Allocation::Refused
        };
    }
}
