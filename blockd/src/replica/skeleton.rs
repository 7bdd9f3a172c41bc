//! The signatures.
#![allow(clippy::unimplemented, unused_variables, reason = "bodies follow")]

use std::io;
use std::path::Path;

use ankole_proto::wire::body::{LayerLink, Memory, OpenRequest, Opened, Revert, Seal};
use ankole_proto::wire::rebuild::{BeginRebuild, ChunkDigest, LayerBlocks, WriteLayer};
use ankole_proto::{Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};
use bytes::BytesMut;

use super::*;
use crate::disk::Disk;

/// An open replica.
#[derive(Debug)]
pub struct Replica<D: Disk> {
    disk: D,
}

/// Files to be synced, and what that covers. Owns handles only: run it without the replica.
#[derive(Debug)]
pub struct FlushPlan<D: Disk> {
    files: Vec<D::File>,
}

/// Why a replica was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A replica stands there already.
    #[error("there is a replica already")]
    Exists,
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
}

/// Why a replica was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing, damaged or not ours.
    #[error("{file}: {reason}; delete this replica and let it be rebuilt from a peer")]
    BadFile {
        /// Which file, from the root of the disk.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed.
    #[error("{file}: cannot be read")]
    Io {
        /// Which file, from the root of the disk.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Creates a replica in `directory`, durably and at once: it is built in `directory` with the suffix
/// `.creating` and renamed. What an interrupted creation left there is removed first.
///
/// # Errors
///
/// [`CreateError`].
pub fn create<D: Disk>(disk: &D, directory: &Path, spec: &ReplicaSpec) -> Result<(), CreateError> {
    unimplemented!()
}

/// Removes a replica: `directory` is renamed with the suffix `.deleting` and then emptied. Repeated
/// after an interruption it goes on. Nobody may use the replica.
///
/// # Errors
///
/// What the system said.
pub fn destroy<D: Disk>(disk: &D, directory: &Path) -> io::Result<()> {
    unimplemented!()
}

impl<D: Disk> Replica<D> {
    /// Loads the replica in `directory`; after an unclean stop, repairs what it may have left.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: report the replica as faulted with this message.
    pub fn load(disk: &D, directory: &Path) -> Result<Self, LoadError> {
        unimplemented!()
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        unimplemented!()
    }

    /// Its volume.
    pub fn volume(&self) -> VolumeId {
        unimplemented!()
    }

    /// Its size.
    pub fn size(&self) -> VolumeSize {
        unimplemented!()
    }

    /// The greatest epoch it has made durable.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }

    /// Its writable layer.
    pub fn head(&self) -> LayerId {
        unimplemented!()
    }

    /// Every layer, a parent before its children.
    pub fn layers(&self) -> Vec<LayerLink> {
        unimplemented!()
    }

    /// Every layer with its use of space, in the same order.
    pub fn usage(&self) -> Vec<LayerUsage> {
        unimplemented!()
    }

    /// Bytes of all blocks that all layers hold.
    pub fn used_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Whether it can be used.
    pub fn state(&self) -> &State {
        unimplemented!()
    }

    /// What it remembers of mutations in flight.
    pub fn memory(&self) -> Memory {
        unimplemented!()
    }

    /// Head blocks whose sum was lost with an unclean stop and was made anew since this replica
    /// was loaded.
    pub fn resummed_blocks(&self) -> u64 {
        unimplemented!()
    }

    /// Whether writes may take new space. `false` (above the high-water mark): they are refused
    /// with `NoSpace`; overwrites, reads, unmaps and merges go on.
    pub fn allow_allocation(&mut self, allowed: bool) {
        unimplemented!()
    }

    /// Opens it for the engine of `request.epoch`: checks the request, makes the epoch durable,
    /// obeys it. `lease_remaining_ms` of the answer is 0: the caller owns the clock.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing has changed then, unless the disk failed.
    pub fn open(&mut self, request: &OpenRequest) -> Result<Opened, OpenError> {
        unimplemented!()
    }

    /// Ends the engine's use in order: everything is synced, nothing is in flight.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn close(&mut self, epoch: Epoch) -> Result<(), OpenError> {
        unimplemented!()
    }

    /// Appends the bytes of `extent` to `out`. On an error `out` is as before.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn read(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        out: &mut BytesMut,
    ) -> Result<(), DataError> {
        unimplemented!()
    }

    /// Writes `data` at `extent`; with `fua` it is durable on return.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn write(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        data: &[u8],
        mutation: Mutation,
        fua: bool,
    ) -> Result<(), DataError> {
        unimplemented!()
    }

    /// Unmaps the extent: it reads as zeros from now on; its space is given back after the next
    /// flush.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn unmap(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        mutation: Mutation,
    ) -> Result<(), DataError> {
        unimplemented!()
    }

    /// Zeroes the extent; the same as [`Self::unmap`].
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn write_zeroes(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        mutation: Mutation,
    ) -> Result<(), DataError> {
        unimplemented!()
    }

    /// Takes the watermark of a frame that is no mutation (Ping, Read, Flush…).
    ///
    /// # Errors
    ///
    /// [`Unusable`].
    pub fn note_watermark(&mut self, epoch: Epoch, watermark: Sequence) -> Result<(), Unusable> {
        unimplemented!()
    }

    /// What has to be synced for a flush of everything done until now.
    ///
    /// # Errors
    ///
    /// [`Unusable`].
    pub fn plan_flush(&mut self, epoch: Epoch) -> Result<FlushPlan<D>, Unusable> {
        unimplemented!()
    }

    /// What background writeback should sync, checksums included; `None` when nothing is dirty.
    pub fn plan_writeback(&mut self) -> Option<FlushPlan<D>> {
        unimplemented!()
    }

    /// Takes the result of a plan's run. A failed sync faults the replica for good (INV-10).
    ///
    /// # Errors
    ///
    /// [`DataError`]: the flush must not be acknowledged.
    pub fn finish_flush(
        &mut self,
        plan: FlushPlan<D>,
        result: io::Result<()>,
    ) -> Result<(), DataError> {
        unimplemented!()
    }

    /// Syncs and seals the head and puts an empty one on it. Idempotent.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn seal(&mut self, epoch: Epoch, seal: Seal) -> Result<(), TreeError> {
        unimplemented!()
    }

    /// Puts an empty head on a sealed layer and drops the old head. Idempotent.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn revert(&mut self, epoch: Epoch, revert: Revert) -> Result<(), TreeError> {
        unimplemented!()
    }

    /// Wishes a sealed layer away, durably; [`Self::merge_step`] does it. A layer that is gone
    /// already is `NoSuchLayer`.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn remove_layer(&mut self, layer: LayerId) -> Result<(), TreeError> {
        unimplemented!()
    }

    /// Moves at most about `budget_blocks` blocks of a layer that is to go away.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn merge_step(&mut self, budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        unimplemented!()
    }

    /// Compares at most about `budget_blocks` blocks of layers that an unclean stop left in doubt
    /// with their sums, and sums anew those that differ.
    ///
    /// # Errors
    ///
    /// [`WorkError`].
    pub fn settle_step(&mut self, budget_blocks: u64) -> Result<Progress<D>, WorkError> {
        unimplemented!()
    }

    /// The state of the chunk at `extent.offset()` of one layer.
    ///
    /// # Errors
    ///
    /// [`LayerError`].
    pub fn digest(
        &mut self,
        epoch: Epoch,
        layer: LayerId,
        extent: Extent,
    ) -> Result<ChunkDigest, LayerError> {
        unimplemented!()
    }

    /// Blocks of one layer; whole blocks of one chunk.
    ///
    /// # Errors
    ///
    /// [`LayerError`].
    pub fn read_layer(
        &mut self,
        epoch: Epoch,
        layer: LayerId,
        extent: Extent,
    ) -> Result<LayerBlocks, LayerError> {
        unimplemented!()
    }

    /// Sets the blocks of `extent` in one layer of a rebuilding replica to exactly this state.
    ///
    /// # Errors
    ///
    /// [`LayerError`].
    pub fn write_layer(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        body: &WriteLayer,
    ) -> Result<(), LayerError> {
        unimplemented!()
    }

    /// Makes the tree equal to the source's and marks the replica rebuilding, durably.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn begin_rebuild(&mut self, epoch: Epoch, body: &BeginRebuild) -> Result<(), TreeError> {
        unimplemented!()
    }

    /// Syncs everything and marks the replica complete, durably.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn finish_rebuild(&mut self, epoch: Epoch) -> Result<(), TreeError> {
        unimplemented!()
    }
}

impl<D: Disk> FlushPlan<D> {
    /// Syncs. Takes milliseconds: not under the replica's lock.
    ///
    /// # Errors
    ///
    /// What the system said; pass it to [`Replica::finish_flush`] either way.
    pub fn run(&self) -> io::Result<()> {
        unimplemented!()
    }
}
