//! Unmapping: the map hides whole blocks at once, their space is given back after the next flush.

use ankole_proto::wire::RANGE_BYTES_MAX;
use ankole_proto::{BlockNumber, ChunkNumber, Epoch, Extent};

use super::index::HOLE;
use super::read::as_index;
use super::refusal::{BlockError, DataError, Medium};
use super::write::WholeBlock;
use super::{Mutation, Replica};
use crate::disk::Disk;
use crate::layer::PLACES;

impl<D: Disk> Replica<D> {
    /// Unmaps the extent: it reads as zeros from now on; its space is given back after the next
    /// flush. Blocks that it covers partly are written as zeros there, which may need space: all of it
    /// is done or, when the disk is full, nothing.
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
        self.admit(epoch)?;
        self.admit_mutation(extent, RANGE_BYTES_MAX, mutation)?;
        if extent.is_empty() {
            return Ok(());
        }
        let inner = extent.to_blocks_inward();
        let hidden: Vec<(ChunkNumber, Extent)> = inner
            .into_iter()
            .flat_map(Extent::chunks)
            .filter_map(|chunk| {
                let part = inner?.intersection(chunk.extent_in(self.size))?;
                Some((chunk, part))
            })
            .collect();
        // What needs space goes first: a full disk then refuses it all.
        for (chunk, part) in &hidden {
            self.back_record(*chunk, *part)?;
        }
        let (left_end, right_start) = match inner {
            Some(inner) => (inner.offset(), inner.end()),
            None => (extent.end(), extent.end()),
        };
        let mut parts = self.zeroed_parts(extent.offset(), left_end)?;
        parts.extend(self.zeroed_parts(right_start, extent.end())?);
        self.put_apart(&parts)?;
        for (chunk, part) in hidden {
            self.hide_blocks(chunk, part)?;
        }
        if self.vacated.is_full() {
            self.flush_now()?;
            self.settle_places()?;
        }
        Ok(())
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
        self.unmap(epoch, extent, mutation)
    }

    /// The blocks that the range covers in part, at most two, as they are to be: with zeros there.
    fn zeroed_parts(&mut self, start: u64, end: u64) -> Result<Vec<WholeBlock>, BlockError> {
        let mut parts = Vec::new();
        let mut at = start;
        while at < end {
            let block = BlockNumber::at(at);
            let stop = block.extent().end().min(end);
            if !self.reads_as_hole(block) {
                let mut data = self.read_block(block)?;
                let (from, to) = (at - block.offset(), stop - block.offset());
                if let Some(part) = data.get_mut(as_index(from)..as_index(to)) {
                    part.fill(0);
                }
                parts.push((block, data));
            }
            at = stop;
        }
        Ok(parts)
    }

    /// Takes space for the head's map record of a chunk of which this part is to be hidden, where none
    /// was taken yet.
    fn back_record(&mut self, chunk: ChunkNumber, part: Extent) -> Result<(), Medium> {
        if part.blocks().all(|block| self.reads_as_hole(block)) {
            return Ok(());
        }
        let head = self.tree.head();
        let record = self.record(head, chunk)?;
        if record.is_empty() {
            self.dirty.map_changes += 1;
            self.put_record(head, chunk, &record)?;
        }
        Ok(())
    }

    /// Hides whole blocks of one chunk.
    fn hide_blocks(&mut self, chunk: ChunkNumber, part: Extent) -> Result<(), Medium> {
        if part.blocks().all(|block| self.reads_as_hole(block)) {
            return Ok(());
        }
        let head = self.tree.head();
        let stands_on_layer = self.tree.parent(head).is_some();
        let copied = self
            .merge
            .as_ref()
            .is_some_and(|merge| merge.has_copied(head, chunk));
        let old = self.record(head, chunk)?;
        let mut new = old;
        for block in part.blocks() {
            if !self.reads_as_hole(block) {
                new.present.set(block.in_chunk(), false);
                if stands_on_layer {
                    new.zero.set(block.in_chunk(), true);
                }
            }
        }
        if new == old {
            return Ok(());
        }
        self.dirty.map_changes += 1;
        self.put_record(head, chunk, &new)?;
        self.index.recount(head, &old, &new);
        self.damages.mend(head, part.blocks());
        for block in part.blocks() {
            let place = block.in_chunk();
            debug_assert!(place < PLACES);
            if copied || (old.present.contains(place) && !new.present.contains(place)) {
                let blocks = block.raw()..block.raw() + 1;
                let dirty = &self.dirty;
                self.vacated
                    .hide(blocks, dirty.map_changes, dirty.map_planned);
            }
            self.set_newest(block, HOLE);
        }
        Ok(())
    }
}
