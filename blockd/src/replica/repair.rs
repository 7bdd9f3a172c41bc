//! Writing bad blocks of a healthy replica anew, with what a peer holds.
//!
//! Only blocks that do not match their sums, or cannot be read, are written: the data first, then
//! the sum where that differs. A stop between leaves a block that does not match its sum, as
//! before; whatever a torn write leaves is found just so.

use ankole_proto::wire::rebuild::{LayerBlocks, WriteLayer};
use ankole_proto::{BlockNumber, ChunkNumber, Epoch, Extent, LayerId};
use std::io::IoSlice;

use super::read::as_index;
use super::rebuild::{check_body, present_runs};
use super::refusal::{LayerError, Medium};
use super::{Replica, State};
use crate::disk::{Disk, DiskFile};
use crate::layer::{BLOCK, MapRecord, PLACES};

/// A bad block and what is to stand in its place.
struct Anew<'a> {
    block: BlockNumber,
    data: &'a [u8],
    sum: u32,
    /// The stored sum is another.
    sum_differs: bool,
}

impl<D: Disk> Replica<D> {
    /// Writes the blocks of `extent` in one layer anew whose stored data is bad; `body` says what a
    /// healthy replica has there. The others are left alone. How many were bad. What is written to
    /// a sealed layer is durable on return.
    ///
    /// # Errors
    ///
    /// [`LayerError`].
    pub fn repair_layer(
        &mut self,
        epoch: Epoch,
        extent: Extent,
        body: &WriteLayer,
    ) -> Result<u64, LayerError> {
        self.admit(epoch)?;
        if self.state == State::Rebuilding {
            return Err(LayerError::Rebuilding);
        }
        let (layer, blocks) = (body.layer, &body.blocks);
        let chunk = self.chunk_of(layer, extent)?;
        check_body(chunk, extent, blocks)?;
        if layer == self.tree.head() {
            // What is read below is the file.
            self.write_sums_of(chunk)?;
        }
        let record = self.record(layer, chunk)?;
        if let Some((block, here)) = first_difference(&record, blocks, extent) {
            return Err(LayerError::Differs { layer, block, here });
        }
        let bad = self.bad_blocks(layer, blocks, extent)?;
        let mut in_place: Vec<&Anew<'_>> = bad.iter().collect();
        if layer != self.tree.head() && self.is_shared(layer)? {
            // What matches the stored sum is what the layer holds, for whoever shares it.
            in_place.retain(|anew| !anew.sum_differs);
        }
        self.write_anew(layer, &in_place)?;
        if in_place.len() < bad.len() {
            self.want_private(layer);
            return Err(LayerError::Shared(layer));
        }
        self.damages.mend(layer, extent.blocks());
        Ok(bad.len() as u64)
    }

    /// Those of the blocks that are bad here.
    fn bad_blocks<'a>(
        &mut self,
        layer: LayerId,
        blocks: &'a LayerBlocks,
        extent: Extent,
    ) -> Result<Vec<Anew<'a>>, Medium> {
        let mut bad = Vec::new();
        let mut rest: &[u8] = &blocks.data;
        let mut buffer = Vec::new();
        for run in present_runs(&blocks.present, extent) {
            let (now, later) = rest.split_at(as_index(run.bytes()));
            rest = later;
            let looked = match self.files.of(&self.disk, layer) {
                Ok(files) => files.bad_blocks(run, &mut buffer, &mut self.sums),
                Err(error) => Err(error),
            };
            let found = looked.map_err(|error| self.failed("reading checksums", error))?;
            for (block, _) in found {
                let at = as_index(block.raw() - run.first.raw());
                let data = now.get(at * BLOCK..(at + 1) * BLOCK).unwrap_or_default();
                let sum = ankole_proto::crc32c(data);
                let stored = self.sums.get(at * 4..at * 4 + 4);
                bad.push(Anew {
                    block,
                    data,
                    sum,
                    sum_differs: stored != Some(&sum.to_le_bytes()),
                });
            }
        }
        Ok(bad)
    }

    fn write_anew(&mut self, layer: LayerId, blocks: &[&Anew<'_>]) -> Result<(), Medium> {
        if blocks.is_empty() {
            return Ok(());
        }
        let files = match self.files.of(&self.disk, layer) {
            Ok(files) => files.clone(),
            Err(error) => return Err(self.failed("opening a layer", error)),
        };
        // A copy that is being made may have what was bad.
        self.privacy.abandon();
        let is_head = layer == self.tree.head();
        if is_head {
            self.dirty.data_changes((blocks.len() * BLOCK) as u64);
        }
        for anew in blocks {
            let written = files
                .image
                .write_at(&[IoSlice::new(anew.data)], anew.block.offset());
            written.map_err(|error| self.failed("repairing a block", error))?;
        }
        for anew in blocks.iter().filter(|anew| anew.sum_differs) {
            self.set_sum(layer, anew.block, anew.sum)?;
        }
        if is_head {
            return Ok(());
        }
        let synced = files.image.sync().and_then(|()| files.sums.sync());
        synced.map_err(|error| self.failed_for_good("a sync", error))
    }
}

/// Which block the frame tells otherwise than the replica's map, and what that says.
fn first_difference(
    record: &MapRecord,
    blocks: &LayerBlocks,
    extent: Extent,
) -> Option<(BlockNumber, &'static str)> {
    let zero = record.zero_without_data();
    let differing = extent.blocks().find(|block| {
        let place = block.in_chunk();
        debug_assert!(place < PLACES);
        record.present.contains(place) != blocks.present.contains(place)
            || zero.contains(place) != blocks.zero.contains(place)
    })?;
    let place = differing.in_chunk();
    let here = match (record.present.contains(place), zero.contains(place)) {
        (true, _) => "present",
        (false, true) => "zero",
        (false, false) => "absent",
    };
    debug_assert_eq!(differing.chunk(), ChunkNumber::at(extent.offset()));
    Some((differing, here))
}
