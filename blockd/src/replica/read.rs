//! Reading: one look-up, one pread and one comparison of sums for each run of blocks in a layer.

use ankole_proto::wire::DATA_BYTES_MAX;
use ankole_proto::{BLOCK_BYTES, BlockNumber, Epoch, Extent, LayerId};
use bytes::BytesMut;

use super::index::HOLE;
use super::refusal::{BlockError, ChecksumMismatch, DataError};
use super::{Replica, State};
use crate::disk::{Disk, append_exact_at, read_exact_at};
use crate::layer::{BLOCK, BlockRun, Flaw};

/// A length that fits in memory; lengths were bounded before they come here.
pub(super) fn as_index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl<D: Disk> Replica<D> {
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
        self.admit(epoch)?;
        if self.state == State::Rebuilding {
            return Err(DataError::Rebuilding);
        }
        if !self.size.contains(extent) || extent.length() > u64::from(DATA_BYTES_MAX) {
            return Err(DataError::OutOfRange);
        }
        let outer = extent.to_blocks_outward();
        let start = out.len();
        let blocks = BlockRun {
            first: BlockNumber::at(outer.offset()),
            count: outer.length() / BLOCK_BYTES,
        };
        if let Err(error) = self.append_blocks(blocks, out) {
            out.truncate(start);
            return Err(error.into());
        }
        let skip = as_index(extent.offset() - outer.offset());
        if skip > 0 {
            out.copy_within(start + skip.., start);
        }
        out.truncate(start + as_index(extent.length()));
        Ok(())
    }

    /// Appends blocks to `out`, through the index. After an error any part may have been appended.
    fn append_blocks(&mut self, blocks: BlockRun, out: &mut BytesMut) -> Result<(), BlockError> {
        out.reserve(as_index(blocks.bytes()));
        if blocks.count == 1 && self.append_known(blocks.first, out) {
            return Ok(());
        }
        let mut at = blocks.first;
        while at.raw() < blocks.end() {
            let run = BlockRun {
                first: at,
                count: self.index.same_slot(at, blocks.end()),
            };
            let slot = self.index.slot_of(at);
            match self.index.layer(slot) {
                Some(layer) => self.append_visible(slot, layer, run, out)?,
                None => out.resize(out.len() + as_index(run.bytes()), 0),
            }
            at = BlockNumber::from_raw(run.end());
        }
        Ok(())
    }

    /// Appends one block whose slot and sum are in memory, verified (INV-13); whether it did. One line
    /// of the processor's caches tells both, instead of one of the index and two of the sums. Whatever
    /// is amiss is left to [`Self::append_visible`].
    fn append_known(&mut self, block: BlockNumber, out: &mut BytesMut) -> bool {
        let Some((slot, sum)) = self.newest(block) else {
            return false;
        };
        let Some(files) = self.files.opened_in_slot(slot) else {
            return false;
        };
        let start = out.len();
        let read = append_exact_at(&files.image, out, BLOCK, block.offset());
        let is_good =
            read.is_ok() && ankole_proto::crc32c(out.get(start..).unwrap_or_default()) == sum;
        if !is_good {
            out.truncate(start);
        }
        is_good
    }

    /// Whether blocks of a layer that differ from their sums are summed anew: the sums of a head
    /// after an unclean stop, and all while a replica is being compared with a peer.
    pub fn is_unsettled(&self, layer: LayerId) -> bool {
        self.state == State::Rebuilding
            || self
                .descriptor
                .layer(layer)
                .is_some_and(|layer| layer.unsettled)
    }

    /// Appends blocks whose newest copies are in a slot's layer, and verifies them (INV-13).
    fn append_visible(
        &mut self,
        slot: u8,
        layer: LayerId,
        run: BlockRun,
        out: &mut BytesMut,
    ) -> Result<(), BlockError> {
        let (start, bytes) = (out.len(), as_index(run.bytes()));
        let read = match self.files.in_slot(&self.disk, slot, layer) {
            Ok(files) => append_exact_at(&files.image, out, bytes, run.first.offset()),
            Err(error) => return Err(self.failed("opening a layer", error).into()),
        };
        if let Err(error) = read {
            out.truncate(start);
            out.resize(start + bytes, 0);
            let buffer = out.get_mut(start..).unwrap_or_default();
            self.read_each(layer, run, buffer, error)?;
        }
        let data = out.get(start..).unwrap_or_default();
        let differing = self.differing(slot, run, data)?;
        self.take_differing(layer, differing)
    }

    /// A run could not be read: reads it block by block, to tell the one that cannot. That one is
    /// damaged like one that does not match its sum: a peer has it. Nobody relies on a replica that
    /// is being rebuilt; a file that is too short is no bad block.
    fn read_each(
        &mut self,
        layer: LayerId,
        run: BlockRun,
        buffer: &mut [u8],
        error: std::io::Error,
    ) -> Result<(), BlockError> {
        let is_short = error.kind() == std::io::ErrorKind::UnexpectedEof;
        if self.state == State::Rebuilding || is_short {
            return Err(self.failed("reading blocks", error).into());
        }
        let image = match self.files.of(&self.disk, layer) {
            Ok(files) => files.image.clone(),
            Err(error) => return Err(self.failed("opening a layer", error).into()),
        };
        for (block, data) in run.blocks().zip(buffer.chunks_exact_mut(BLOCK)) {
            if read_exact_at(&image, data, block.offset()).is_err() {
                let damage = ChecksumMismatch { layer, block };
                self.damages.find(damage, Flaw::Unreadable);
                return Err(damage.into());
            }
        }
        Ok(())
    }

    /// Reads blocks that a layer holds, and verifies them (INV-13); newest copies or not.
    pub(super) fn read_layer_run(
        &mut self,
        layer: LayerId,
        run: BlockRun,
        buffer: &mut [u8],
    ) -> Result<(), BlockError> {
        if layer == self.tree.head() {
            // What is read below is the file.
            self.write_sums_of(run.first.chunk())?;
        }
        let mut differing: Vec<(BlockNumber, u32)> = Vec::new();
        let read = match self.files.of(&self.disk, layer) {
            Ok(files) => files.read_run(run, buffer, &mut self.sums, |block, sum| {
                differing.push((block, sum));
                Ok::<_, std::io::Error>(())
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            self.read_each(layer, run, buffer, error)?;
            // It was not the data, or has passed.
            differing.clear();
            let read = match self.files.of(&self.disk, layer) {
                Ok(files) => files.read_run(run, buffer, &mut self.sums, |block, sum| {
                    differing.push((block, sum));
                    Ok::<_, std::io::Error>(())
                }),
                Err(error) => Err(error),
            };
            read.map_err(|error| self.failed("reading blocks", error))?;
        }
        self.take_differing(layer, differing)
    }

    /// What is to be done about blocks that differ from their sums.
    fn take_differing(
        &mut self,
        layer: LayerId,
        differing: Vec<(BlockNumber, u32)>,
    ) -> Result<(), BlockError> {
        let Some((block, _)) = differing.first().copied() else {
            return Ok(());
        };
        if !self.is_unsettled(layer) {
            for (block, _) in &differing {
                let block = *block;
                let damage = ChecksumMismatch { layer, block };
                self.damages.find(damage, Flaw::Mismatch);
            }
            return Err(ChecksumMismatch { layer, block }.into());
        }
        if layer != self.tree.head() && self.is_shared(layer)? {
            // The sums are another replica's too. A peer will say what the blocks are to be.
            return Ok(());
        }
        for (block, sum) in differing {
            self.set_sum(layer, block, sum)?;
            self.resummed_blocks += 1;
        }
        Ok(())
    }

    /// One block as it reads now; for writes of parts of it.
    pub(super) fn read_block(&mut self, block: BlockNumber) -> Result<[u8; BLOCK], BlockError> {
        let mut read = BytesMut::with_capacity(BLOCK);
        let one = BlockRun {
            first: block,
            count: 1,
        };
        self.append_blocks(one, &mut read)?;
        let mut bytes = [0; BLOCK];
        bytes.copy_from_slice(&read);
        Ok(bytes)
    }

    /// Whether the block reads as zeros for sure, without looking.
    pub(super) fn reads_as_hole(&self, block: BlockNumber) -> bool {
        self.state == State::Ready && self.index.slot_of(block) == HOLE
    }
}
