//! Comparing and copying layers between replicas (section 6 of the design: rebuild).

use ankole_proto::wire::body::Memory;
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::{
    BeginRebuild, ChunkBitmap, ChunkDigest, LayerBlocks, WriteLayer,
};
use ankole_proto::{BlockNumber, ChunkNumber, Epoch, Extent, LayerId, VolumeSize};
use bytes::BytesMut;

use super::descriptor::{StoredCursor, StoredState};
use super::index::HOLE;
use super::load::ScanError;
use super::read::as_index;
use super::recover::punch_unmarked;
use super::refusal::{BlockError, LayerError, Medium, TreeError};
use super::{Allocation, Replica, State};
use crate::disk::{Disk, DiskFile};
use crate::layer::{BLOCK, BlockRun, LayerFiles, Lengths, MapRecord, PLACES, Tree};

impl<D: Disk> Replica<D> {
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
        self.admit(epoch)?;
        let chunk = ChunkNumber::at(extent.offset());
        let whole = chunk.extent_in(self.size);
        if whole.is_empty() {
            return Err(LayerError::OutOfRange);
        }
        if !self.tree.contains(layer) {
            return Err(LayerError::NoSuchLayer(layer));
        }
        let record = self.record(layer, chunk)?;
        let mut data = vec![0; record.present.count() * BLOCK];
        self.read_present(layer, &record, whole, &mut data)?;
        Ok(ChunkDigest {
            present: record.present,
            zero: record.zero_without_data(),
            data: *blake3::hash(&data).as_bytes(),
        })
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
        self.admit(epoch)?;
        if self.state == State::Rebuilding {
            return Err(LayerError::Rebuilding);
        }
        let chunk = self.chunk_of(layer, extent)?;
        let whole = self.record(layer, chunk)?;
        let mut record = MapRecord::default();
        for block in extent.blocks() {
            let place = block.in_chunk();
            record.present.set(place, whole.present.contains(place));
            record.zero.set(place, whole.zero.contains(place));
        }
        let mut data = BytesMut::zeroed(record.present.count() * BLOCK);
        self.read_present(layer, &record, extent, &mut data)?;
        Ok(LayerBlocks {
            present: record.present,
            zero: record.zero_without_data(),
            data: data.freeze(),
        })
    }

    /// The chunk of an extent that is whole blocks of one chunk of a layer of the tree.
    pub(super) fn chunk_of(
        &self,
        layer: LayerId,
        extent: Extent,
    ) -> Result<ChunkNumber, LayerError> {
        if !self.tree.contains(layer) {
            return Err(LayerError::NoSuchLayer(layer));
        }
        if !self.size.contains(extent) {
            return Err(LayerError::OutOfRange);
        }
        if extent.is_empty() || !extent.is_block_aligned() || extent.chunks().count() != 1 {
            return Err(LayerError::Malformed("not whole blocks of one chunk"));
        }
        Ok(ChunkNumber::at(extent.offset()))
    }

    /// Reads and verifies the present blocks of a part of a chunk, one behind the other.
    pub(super) fn read_present(
        &mut self,
        layer: LayerId,
        record: &MapRecord,
        part: Extent,
        buffer: &mut [u8],
    ) -> Result<(), BlockError> {
        let mut rest = buffer;
        for run in present_runs(&record.present, part) {
            let (now, later) = rest.split_at_mut(as_index(run.bytes()));
            self.read_layer_run(layer, run, now)?;
            rest = later;
        }
        Ok(())
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
        self.admit(epoch)?;
        if self.state != State::Rebuilding {
            return Err(LayerError::NotRebuilding);
        }
        let (layer, blocks) = (body.layer, &body.blocks);
        let chunk = self.chunk_of(layer, extent)?;
        check_body(chunk, extent, blocks)?;
        self.make_private(layer)?;
        let record = self.record(layer, chunk)?;
        let is_new = |block: BlockNumber| !record.present.contains(block.in_chunk());
        let mut written = extent
            .blocks()
            .filter(|block| blocks.present.contains(block.in_chunk()));
        if self.allocation == Allocation::Refused && written.any(is_new) {
            return Err(Medium::NoSpace.into());
        }
        self.forget_chunk(chunk)?;
        let old = self.record(layer, chunk)?;
        let mut new = old;
        for block in extent.blocks() {
            let place = block.in_chunk();
            new.present.set(place, blocks.present.contains(place));
            new.zero.set(place, blocks.zero.contains(place));
        }
        self.write_present(layer, blocks, extent)?;
        if new != old {
            self.put_record(layer, chunk, &new)?;
            if layer == self.tree.head() {
                self.dirty.map_changes += 1;
            }
        }
        self.index.recount(layer, &old, &new);
        self.drop_absent(layer, &old, &new, extent)?;
        self.look_up_again(chunk, extent)?;
        self.damages.mend(layer, extent.blocks());
        Ok(())
    }

    fn write_present(
        &mut self,
        layer: LayerId,
        blocks: &LayerBlocks,
        extent: Extent,
    ) -> Result<(), Medium> {
        let mut rest: &[u8] = &blocks.data;
        for run in present_runs(&blocks.present, extent) {
            let (now, later) = rest.split_at(as_index(run.bytes()));
            rest = later;
            let written = match self.files.of(&self.disk, layer) {
                Ok(files) => {
                    let buffer = std::io::IoSlice::new(now);
                    let written = files.write_run(run.first, &[buffer], &mut self.sums);
                    files.image.write_out(run.byte_range());
                    written
                }
                Err(error) => Err(error),
            };
            written.map_err(|error| self.failed("writing blocks", error))?;
            if layer == self.tree.head() {
                self.dirty.data_changes(run.bytes());
                self.dirty.sum_changes += 1;
                self.vacated.reuse(&(run.first.raw()..run.end()));
            }
        }
        Ok(())
    }

    /// Gives back the space of blocks that became absent. At once: nobody relies on a rebuilding
    /// replica after a crash.
    fn drop_absent(
        &mut self,
        layer: LayerId,
        old: &MapRecord,
        new: &MapRecord,
        extent: Extent,
    ) -> Result<(), Medium> {
        let mut gone = ChunkBitmap::default();
        for block in extent.blocks().map(BlockNumber::in_chunk) {
            gone.set(
                block,
                old.present.contains(block) && !new.present.contains(block),
            );
        }
        for run in present_runs(&gone, extent) {
            let punched = match self.files.of(&self.disk, layer) {
                Ok(files) => files.image.punch_hole(run.byte_range()),
                Err(error) => Err(error),
            };
            punched.map_err(|error| self.failed("punching a hole", error))?;
        }
        Ok(())
    }

    /// Finds the newest copies of the blocks of a part of a chunk anew, through the maps.
    fn look_up_again(&mut self, chunk: ChunkNumber, part: Extent) -> Result<(), Medium> {
        let mut open: Vec<BlockNumber> = part.blocks().collect();
        for layer in self.tree.chain() {
            if open.is_empty() {
                break;
            }
            let slot = self.index.slot(layer);
            let record = self.record(layer, chunk)?;
            open.retain(|block| {
                if record.present.contains(block.in_chunk()) {
                    self.set_newest(*block, slot);
                } else if record.zero.contains(block.in_chunk()) {
                    self.set_newest(*block, HOLE);
                }
                !record.decides(block.in_chunk())
            });
        }
        for block in open {
            self.set_newest(block, HOLE);
        }
        Ok(())
    }

    /// Makes the tree equal to the source's and marks the replica rebuilding, durably. Tells what an
    /// earlier rebuild has made equal.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn begin_rebuild(
        &mut self,
        epoch: Epoch,
        body: &BeginRebuild,
    ) -> Result<RebuildCursor, TreeError> {
        self.admit(epoch)?;
        let tree = Tree::from_links(&body.layers, body.head)
            .map_err(|_| TreeError::Conflict("the layers form no tree"))?;
        self.grow(body.size)?;
        self.sync_head()?;
        let missing = self.missing_layers(&tree);
        for (layer, size) in &missing {
            self.create_layer(*layer, *size)?;
        }
        let surplus: Vec<LayerId> = self
            .tree
            .layers()
            .filter(|layer| !tree.contains(*layer))
            .collect();
        if self.tree.contains(tree.head()) {
            // It was sealed here, and may be shared.
            self.make_private(tree.head())?;
        }
        let mut next = self.descriptor.clone();
        next.set_tree(&tree);
        for (layer, size) in missing {
            if let Some(entry) = next.layer_mut(layer) {
                entry.size = size;
            }
        }
        if let Some(entry) = next.layer_mut(tree.head()) {
            entry.size = self.size;
        }
        if next.check_sizes().is_err() {
            return Err(TreeError::Conflict(
                "a layer here is larger than what stands on it there",
            ));
        }
        let mut head = match self.files.of(&self.disk, tree.head()) {
            Ok(files) => files.clone(),
            Err(error) => return Err(self.failed_for_good("opening the head", error).into()),
        };
        if head.size < self.size {
            // It was sealed here, and is the head there. Should the process end before that is on
            // record, loading cuts it.
            head.grow(Lengths::of(self.size))
                .map_err(|error| self.failed("growing the head", error))?;
        }
        self.clear_unmarked(&head)?;
        next.state = StoredState::Rebuilding;
        let cursor = self.rebuilt_before(&tree);
        next.rebuilt = StoredCursor::of(&cursor);
        self.rebuilds_begun += 1;
        self.commit(next)?;
        self.tree = tree;
        self.state = State::Rebuilding;
        self.enter_head(head);
        for layer in surplus {
            self.remove_files(layer);
        }
        self.rebuild_index()?;
        Ok(cursor)
    }

    /// The layers of another tree that are not here, and how large to make them: as what stands on
    /// them, for a layer is never larger.
    fn missing_layers(&self, tree: &Tree) -> Vec<(LayerId, VolumeSize)> {
        let mut missing: Vec<(LayerId, VolumeSize)> = Vec::new();
        // Children first.
        for link in tree.links().into_iter().rev() {
            if self.tree.contains(link.layer) {
                continue;
            }
            let made = |layer| missing.iter().find(|(made, _)| *made == layer);
            let size_of = |layer| match made(layer) {
                Some((_, size)) => *size,
                None if layer == tree.head() => self.size,
                None => self.descriptor.size_of(layer),
            };
            let size = tree.children(link.layer).map(size_of).min();
            missing.push((link.layer, size.unwrap_or(self.size)));
        }
        missing
    }

    /// A merge that is given up may have left copies in a layer that is the head from now on. Once they
    /// were written over, a crash could show them again.
    fn clear_unmarked(&mut self, head: &LayerFiles<D::File>) -> Result<(), Medium> {
        let cleared = head
            .map
            .sync()
            .map_err(ScanError::from)
            .and_then(|()| punch_unmarked(head));
        match cleared {
            Ok(()) => Ok(()),
            Err(ScanError::Io(error)) => {
                Err(self.failed_for_good("clearing what was merged", error))
            }
            Err(ScanError::Record(chunk, error)) => Err(self.map_damaged(head.layer, chunk, error)),
        }
    }

    /// Syncs everything and marks the replica complete, durably.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub fn finish_rebuild(&mut self, epoch: Epoch) -> Result<(), TreeError> {
        self.admit(epoch)?;
        if self.state == State::Ready {
            return Ok(());
        }
        let sealed: Vec<LayerId> = self
            .tree
            .layers()
            .filter(|layer| *layer != self.tree.head())
            .collect();
        for layer in sealed {
            self.sync_sealed(layer)?;
        }
        self.sync_head()?;
        let mut next = self.descriptor.clone();
        next.state = StoredState::Ready;
        next.rebuilt = None;
        next.boot.clone_from(&self.boot);
        self.commit(next)?;
        self.state = State::Ready;
        if matches!(self.memory.kind(), Memory::Lost | Memory::Restarted) {
            self.memory.forget(false);
        }
        Ok(())
    }
}

/// Whether a body says something of the blocks of the extent, and of no others.
pub(super) fn check_body(
    chunk: ChunkNumber,
    extent: Extent,
    blocks: &LayerBlocks,
) -> Result<(), LayerError> {
    let outside = |block: usize| {
        let number = chunk.first_block().raw() + block as u64;
        let within = BlockNumber::from_raw(number).extent();
        !extent.overlaps(within) && (blocks.present.contains(block) || blocks.zero.contains(block))
    };
    if (0..PLACES).any(outside) {
        return Err(LayerError::Malformed("blocks outside the extent"));
    }
    if blocks.data.len() != blocks.present.count() * BLOCK {
        return Err(LayerError::Malformed(
            "data does not match the present blocks",
        ));
    }
    Ok(())
}

/// The runs of set blocks of a part of a chunk, in order.
pub(super) fn present_runs(bitmap: &ChunkBitmap, part: Extent) -> Vec<BlockRun> {
    let mut runs: Vec<BlockRun> = Vec::new();
    for block in part
        .blocks()
        .filter(|block| bitmap.contains(block.in_chunk()))
    {
        match runs.last_mut() {
            Some(run) if run.end() == block.raw() => run.count += 1,
            _ => runs.push(BlockRun {
                first: block,
                count: 1,
            }),
        }
    }
    runs
}
