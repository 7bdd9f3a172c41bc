//! The sums of blocks between memory and the `.sum` files.
//!
//! A sum of the head is kept in memory when its block is written, and goes to the file with the
//! next writeback, when its page has to go, and before the file is read or synced. A process that is killed
//! before leaves a block without its sum, which an unclean stop may anyhow: see `settle`. The space
//! in the file is taken when the block is written, so that a sum never meets a full disk.

use std::io;

use ankole_proto::geometry::CHUNK_BLOCKS;
use ankole_proto::{BlockNumber, ChunkNumber, LayerId};

use super::Replica;
use super::fault::is_full;
use super::refusal::Medium;
use crate::disk::Disk;
use crate::layer::{BlockRun, PLACES};

/// The parts of a run by chunk.
fn by_chunk(run: BlockRun) -> impl Iterator<Item = (ChunkNumber, BlockRun)> {
    let mut at = run.first.raw();
    std::iter::from_fn(move || {
        if at >= run.end() {
            return None;
        }
        let first = BlockNumber::from_raw(at);
        let chunk = first.chunk();
        let end = (chunk.first_block().raw() + CHUNK_BLOCKS).min(run.end());
        let part = BlockRun {
            first,
            count: end - at,
        };
        at = end;
        Some((chunk, part))
    })
}

impl<D: Disk> Replica<D> {
    /// Says where the newest copy of a block is, to the index and to what is known of its chunk: the
    /// two never differ. Whoever changes what the block holds sees to its sum.
    pub(super) fn set_newest(&mut self, block: BlockNumber, slot: u8) {
        self.index.set(block, slot);
        self.chunks.moved(block.chunk(), block.in_chunk(), slot);
    }

    /// Sees to it that there is a page for the chunk.
    pub(super) fn make_page(&mut self, chunk: ChunkNumber) -> Result<(), Medium> {
        if self.chunks.page(chunk).is_some() {
            return Ok(());
        }
        while self.chunks.is_full() {
            let Some(victim) = self.chunks.victim() else {
                break;
            };
            self.write_sums_of(victim)?;
            self.chunks.drop_page(victim);
        }
        self.chunks.make_page(chunk);
        Ok(())
    }

    /// Compares blocks, read from where the index says, with their sums; gives those that differ.
    pub(super) fn differing(
        &mut self,
        slot: u8,
        run: BlockRun,
        data: &[u8],
    ) -> Result<Vec<(BlockNumber, u32)>, Medium> {
        let mut differing = Vec::new();
        let mut blocks = data.chunks_exact(crate::layer::BLOCK);
        for (chunk, part) in by_chunk(run) {
            let mut learned = false;
            for (number, block) in (part.first.raw()..part.end()).zip(&mut blocks) {
                let (number, sum) = (BlockNumber::from_raw(number), ankole_proto::crc32c(block));
                let mut known = self.known_sum(number);
                if known.is_none() && !learned {
                    self.learn_sums(slot, chunk)?;
                    learned = true;
                    known = self.known_sum(number);
                }
                if known != Some(sum) {
                    differing.push((number, sum));
                }
            }
        }
        Ok(differing)
    }

    /// The slot and the sum of a block's newest copy, if they are in memory.
    pub(super) fn newest(&mut self, block: BlockNumber) -> Option<(u8, u32)> {
        self.chunks
            .page_mut(block.chunk())?
            .newest(block.in_chunk())
    }

    fn known_sum(&mut self, block: BlockNumber) -> Option<u32> {
        self.newest(block).map(|(_, sum)| sum)
    }

    /// Reads the sums of a chunk's blocks that are in a slot.
    fn learn_sums(&mut self, slot: u8, chunk: ChunkNumber) -> Result<(), Medium> {
        self.make_page(chunk)?;
        let Some(layer) = self.index.layer(slot) else {
            return Ok(());
        };
        let first = chunk.first_block();
        let size = self.size;
        let read = match self.files.in_slot(&self.disk, slot, layer) {
            Ok(files) => {
                // Of a head whose expansion was refused half-way some files are shorter than it says.
                let blocks = files.size.min(size).blocks();
                let count = CHUNK_BLOCKS.min(blocks.saturating_sub(first.raw()));
                files.read_sums(BlockRun { first, count }, &mut self.sums)
            }
            Err(error) => Err(error),
        };
        read.map_err(|error| self.failed("reading checksums", error))?;
        let Some(page) = self.chunks.page_mut(chunk) else {
            return Ok(());
        };
        let slots = self.index.slots_from(first, PLACES);
        for (place, (bytes, of)) in self.sums.chunks_exact(4).zip(slots).enumerate() {
            if let (true, Ok(bytes)) = (*of == slot && page.sum(place).is_none(), bytes.try_into())
            {
                page.learn(place, slot, u32::from_le_bytes(bytes));
            }
        }
        Ok(())
    }

    /// Takes space in the head's file for the sums of a run, where none was taken yet.
    pub(super) fn back_sums(&mut self, run: BlockRun, sums: &[u32]) -> Result<(), io::Error> {
        let mut rest = sums;
        for (chunk, part) in by_chunk(run) {
            let count = usize::try_from(part.count).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(count.min(rest.len()));
            rest = later;
            if !self.chunks.is_backed(chunk) {
                self.sums.clear();
                self.sums
                    .extend(now.iter().flat_map(|sum| sum.to_le_bytes()));
                self.files.head().write_sums(part.first, &self.sums)?;
                self.chunks.set_backed(chunk);
            }
        }
        Ok(())
    }

    /// Takes the sums of blocks that the head holds now.
    pub(super) fn keep_sums(&mut self, run: BlockRun, sums: &[u32]) {
        self.dirty.sum_changes += 1;
        let head = self.index.slot(self.tree.head());
        for (number, sum) in (run.first.raw()..).zip(sums) {
            let block = BlockNumber::from_raw(number);
            self.chunks
                .put_unwritten(block.chunk(), block.in_chunk(), head, *sum);
        }
    }

    /// Sees to it that there are pages for the chunks of a run.
    pub(super) fn make_pages(&mut self, run: BlockRun) -> Result<(), Medium> {
        by_chunk(run).try_for_each(|(chunk, _)| self.make_page(chunk))
    }

    /// Writes the head's sums of a chunk to the file, those that are not there.
    pub(super) fn write_sums_of(&mut self, chunk: ChunkNumber) -> Result<(), Medium> {
        let Some(page) = self.chunks.page(chunk) else {
            return Ok(());
        };
        if !page.has_unwritten() {
            return Ok(());
        }
        let head = self.files.head();
        let first = chunk.first_block().raw();
        let written = page.unwritten_runs().iter().try_for_each(|(place, bytes)| {
            head.write_sums(BlockNumber::from_raw(first + *place as u64), bytes)
        });
        written.map_err(|error| self.failed("writing checksums", error))?;
        self.dirty.sum_changes += 1;
        self.chunks.written(chunk);
        Ok(())
    }

    /// Writes the head's sums of at most so many chunks to the file; whether more are left.
    ///
    /// # Errors
    ///
    /// [`Medium`].
    pub fn write_sums(&mut self, chunks_max: usize) -> Result<bool, Medium> {
        for _ in 0..chunks_max {
            let Some(chunk) = self.chunks.next_unwritten() else {
                return Ok(false);
            };
            if let Err(error) = self.write_sums_of(chunk) {
                self.chunks.still_unwritten(chunk);
                return Err(error);
            }
        }
        Ok(self.chunks.has_unwritten())
    }

    /// Writes all of the head's sums to the file.
    pub(super) fn write_all_sums(&mut self) -> Result<(), Medium> {
        while self.write_sums(usize::MAX)? {}
        Ok(())
    }

    /// Sets the sum of a block that a layer holds, in its file and in memory.
    pub(super) fn set_sum(
        &mut self,
        layer: LayerId,
        block: BlockNumber,
        sum: u32,
    ) -> Result<(), Medium> {
        let written = match self.files.of(&self.disk, layer) {
            Ok(files) => files.write_sum(block, sum),
            Err(error) => Err(error),
        };
        written.map_err(|error| self.failed("writing a checksum", error))?;
        self.dirty.sum_changes += 1;
        if self.index.slot_of(block) == self.index.slot(layer)
            && let Some(page) = self.chunks.page_mut(block.chunk())
        {
            page.forget(block.in_chunk());
        }
        Ok(())
    }

    /// Writes what is not in the file of a chunk, and forgets the chunk.
    pub(super) fn forget_chunk(&mut self, chunk: ChunkNumber) -> Result<(), Medium> {
        self.write_sums_of(chunk)?;
        self.chunks.drop_page(chunk);
        Ok(())
    }

    /// After a write to the head that failed half-way: the sums of a run are those of what the
    /// image holds.
    pub(super) fn sum_anew(&mut self, run: BlockRun) -> Result<(), Medium> {
        for (chunk, _) in by_chunk(run) {
            self.forget_chunk(chunk)?;
        }
        match self.files.head().resum_run(run) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(Medium::NoSpace),
            Err(error) => Err(self.failed_for_good("writing a checksum", error)),
        }
    }
}
