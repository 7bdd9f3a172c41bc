//! Writing whole blocks to the head, and parts of blocks by way of whole ones.
//!
//! The image first, then the sums, then the map: a stop between two of them leaves either the old
//! state, or data that is there without its sum (made anew after an unclean stop). Blocks that the
//! head does not hold yet go before those it does, because only they can meet a full disk: a
//! refusal has then changed nothing.

use std::io::IoSlice;

use ankole_proto::geometry::CHUNK_BLOCKS;
use ankole_proto::wire::DATA_BYTES_MAX;
use ankole_proto::{BlockNumber, Epoch, Extent};

use super::fault::is_full;
use super::read::as_index;
use super::refusal::{BlockError, DataError, Medium};
use super::{Allocation, Mutation, Replica};
use crate::disk::{Disk, DiskFile};
use crate::layer::{BLOCK, BlockRun};

/// The sums of the blocks in these buffers, each of whole blocks.
fn sums_of<'a>(buffers: &'a [IoSlice<'_>]) -> impl Iterator<Item = u32> + use<'a> {
    buffers
        .iter()
        .flat_map(|buffer| buffer.chunks_exact(BLOCK))
        .map(ankole_proto::crc32c)
}

/// A block and all that it holds.
pub(super) type WholeBlock = (BlockNumber, [u8; BLOCK]);

impl<D: Disk> Replica<D> {
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
        self.admit(epoch)?;
        if data.len() as u64 != extent.length() {
            return Err(DataError::WrongLength);
        }
        self.admit_mutation(extent, DATA_BYTES_MAX, mutation)?;
        if extent.is_block_aligned() {
            self.put_blocks(BlockNumber::at(extent.offset()), &[IoSlice::new(data)])?;
        } else {
            self.write_parts(extent, data)?;
        }
        if fua {
            self.flush_now()?;
        }
        Ok(())
    }

    /// Checks the extent of a mutation and remembers it.
    pub(super) fn admit_mutation(
        &mut self,
        extent: Extent,
        bytes_max: u32,
        mutation: Mutation,
    ) -> Result<(), DataError> {
        if !self.size.contains(extent) || extent.length() > u64::from(bytes_max) {
            return Err(DataError::OutOfRange);
        }
        self.memory.advance(mutation.watermark);
        self.memory
            .note(mutation.sequence, extent)
            .map_err(|_| DataError::Overloaded)
    }

    /// Writes an extent that begins or ends within a block.
    pub(super) fn write_parts(&mut self, extent: Extent, data: &[u8]) -> Result<(), BlockError> {
        let outer = extent.to_blocks_outward();
        let first = BlockNumber::at(outer.offset());
        let skip = as_index(extent.offset() - outer.offset());
        if outer.length() == BLOCK as u64 {
            let mut block = self.read_block(first)?;
            if let Some(part) = block.get_mut(skip..skip + data.len()) {
                part.copy_from_slice(data);
            }
            return self.put_blocks(first, &[IoSlice::new(&block)]);
        }
        let (mut head, mut tail) = ([0; BLOCK], [0; BLOCK]);
        let (mut middle, mut buffers) = (data, Vec::with_capacity(3));
        if skip > 0 {
            head = self.read_block(first)?;
            let (part, rest) = middle.split_at(BLOCK - skip);
            head[skip..].copy_from_slice(part);
            middle = rest;
        }
        let over = middle.len() % BLOCK;
        if over > 0 {
            tail = self.read_block(BlockNumber::at(extent.end()))?;
            let (rest, part) = middle.split_at(middle.len() - over);
            tail[..over].copy_from_slice(part);
            middle = rest;
        }
        if skip > 0 {
            buffers.push(IoSlice::new(&head));
        }
        if !middle.is_empty() {
            buffers.push(IoSlice::new(middle));
        }
        if over > 0 {
            buffers.push(IoSlice::new(&tail));
        }
        self.put_blocks(first, &buffers)
    }

    /// Writes whole blocks to the head.
    pub(super) fn put_blocks(
        &mut self,
        first: BlockNumber,
        buffers: &[IoSlice<'_>],
    ) -> Result<(), BlockError> {
        let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let whole = BlockRun {
            first,
            count: (bytes / BLOCK) as u64,
        };
        if self.index.same_slot(first, whole.end()) == whole.count {
            let head = self.index.slot(self.tree.head());
            if self.index.slot_of(first) == head {
                self.overwrite(whole, buffers)?;
            } else {
                self.write_fresh(&[(whole, buffers)])?;
            }
            return Ok(());
        }
        let (fresh, held) = self.split_run(whole);
        let data: Vec<u8> = buffers
            .iter()
            .flat_map(|part| part.iter().copied())
            .collect();
        let part = |run: &BlockRun| {
            let start = as_index(run.first.offset() - first.offset());
            let bytes = data.get(start..start + as_index(run.bytes()));
            [IoSlice::new(bytes.unwrap_or_default())]
        };
        let fresh: Vec<_> = fresh.into_iter().map(|run| (run, part(&run))).collect();
        let fresh: Vec<_> = fresh
            .iter()
            .map(|(run, part)| (*run, part.as_slice()))
            .collect();
        if !fresh.is_empty() {
            self.write_fresh(&fresh)?;
        }
        for run in held {
            self.overwrite(run, &part(&run))?;
        }
        Ok(())
    }

    /// Writes single blocks, in ascending order, to the head.
    pub(super) fn put_apart(&mut self, blocks: &[WholeBlock]) -> Result<(), Medium> {
        let head = self.index.slot(self.tree.head());
        let buffers: Vec<(BlockRun, [IoSlice<'_>; 1])> = blocks
            .iter()
            .map(|(first, data)| {
                let run = BlockRun {
                    first: *first,
                    count: 1,
                };
                (run, [IoSlice::new(data)])
            })
            .collect();
        let (held, fresh): (Vec<_>, Vec<_>) = buffers
            .iter()
            .map(|(run, data)| (*run, data.as_slice()))
            .partition(|(run, _)| self.index.slot_of(run.first) == head);
        if !fresh.is_empty() {
            self.write_fresh(&fresh)?;
        }
        held.into_iter()
            .try_for_each(|(run, data)| self.overwrite(run, data))
    }

    /// The parts of a run that the head does not hold, and those that it does.
    fn split_run(&self, run: BlockRun) -> (Vec<BlockRun>, Vec<BlockRun>) {
        let head = self.index.slot(self.tree.head());
        let (mut fresh, mut held): (Vec<BlockRun>, Vec<BlockRun>) = (Vec::new(), Vec::new());
        let mut at = run.first;
        while at.raw() < run.end() {
            let part = BlockRun {
                first: at,
                count: self.index.same_slot(at, run.end()),
            };
            let kind = if self.index.slot_of(at) == head {
                &mut held
            } else {
                &mut fresh
            };
            match kind.last_mut() {
                Some(last) if last.end() == part.first.raw() => last.count += part.count,
                _ => kind.push(part),
            }
            at = BlockNumber::from_raw(part.end());
        }
        (fresh, held)
    }

    fn overwrite(&mut self, run: BlockRun, buffers: &[IoSlice<'_>]) -> Result<(), Medium> {
        let mut sums = std::mem::take(&mut self.block_sums);
        sums.clear();
        sums.extend(sums_of(buffers));
        let written = self.overwrite_with(run, buffers, &sums);
        self.block_sums = sums;
        written
    }

    fn overwrite_with(
        &mut self,
        run: BlockRun,
        buffers: &[IoSlice<'_>],
        sums: &[u32],
    ) -> Result<(), Medium> {
        self.make_pages(run)?;
        self.dirty.data_changes(run.bytes());
        let image = &self.files.head().image;
        let written = image
            .write_at(buffers, run.first.offset())
            .and_then(|()| self.back_sums(run, sums));
        let Err(error) = written else {
            self.keep_sums(run, sums);
            let head = self.tree.head();
            self.damages.mend(head, run.blocks());
            return Ok(());
        };
        // What was written of it has no sum yet.
        if is_full(&error) {
            self.sum_anew(run)?;
        }
        Err(self.failed("writing blocks", error))
    }

    /// Writes runs that the head does not hold yet: all of them or, when the disk is full, none.
    fn write_fresh(&mut self, runs: &[(BlockRun, &[IoSlice<'_>])]) -> Result<(), Medium> {
        if self.allocation == Allocation::Refused {
            return Err(Medium::NoSpace);
        }
        let places = |run: &BlockRun| run.first.raw()..run.end();
        let must_settle = |replica: &Self| {
            let planned = replica.dirty.map_covered();
            !replica.vacated.is_empty()
                && runs
                    .iter()
                    .any(|(run, _)| replica.vacated.must_settle(&places(run), planned))
        };
        if must_settle(self) {
            self.settle_places()?;
            if must_settle(self) {
                // There was no space to split an extent, and what is there must not be seen again.
                return Err(Medium::NoSpace);
            }
        }
        let mut sums = std::mem::take(&mut self.block_sums);
        sums.clear();
        for (run, buffers) in runs {
            self.make_pages(*run)?;
            sums.extend(sums_of(buffers));
        }
        let bytes = runs.iter().map(|(run, _)| run.bytes()).sum();
        self.dirty.data_changes(bytes);
        let mut rest = &sums[..];
        let written = runs.iter().try_for_each(|(run, buffers)| {
            let image = &self.files.head().image;
            image.write_at(buffers, run.first.offset())?;
            let (now, later) = rest.split_at(as_index(run.count));
            rest = later;
            self.back_sums(*run, now)
        });
        let mapped = match written {
            Ok(()) => self.map_fresh(runs),
            Err(error) => Err(self.failed("writing blocks", error)),
        };
        let mut rest = &sums[..];
        for (run, _) in runs {
            let (now, later) = rest.split_at(as_index(run.count));
            rest = later;
            if mapped.is_ok() {
                self.keep_sums(*run, now);
                self.vacated.reuse(&places(run));
            } else {
                let (now, planned) = (self.dirty.map_changes, self.dirty.map_planned);
                self.vacated.hide(places(run), now, planned);
                self.lose_copies(*run);
            }
        }
        self.block_sums = sums;
        mapped
    }

    /// Marks the blocks as present in the head: all of them or, when the disk is full, none.
    fn map_fresh(&mut self, runs: &[(BlockRun, &[IoSlice<'_>])]) -> Result<(), Medium> {
        let (Some((first, _)), Some((last, _))) = (runs.first(), runs.last()) else {
            return Ok(());
        };
        let head = self.tree.head();
        self.dirty.map_changes += 1;
        let mut done = Vec::new();
        let mut at = first.first.raw();
        while at < last.end() {
            let chunk = BlockNumber::from_raw(at).chunk();
            let end = (chunk.first_block().raw() + CHUNK_BLOCKS).min(last.end());
            if !runs
                .iter()
                .any(|(run, _)| run.first.raw() < end && run.end() > at)
            {
                at = end;
                continue;
            }
            let old = self.record(head, chunk)?;
            let (mut new, mut added) = (old, 0);
            for (run, _) in runs {
                for block in run.first.raw().max(at)..run.end().min(end) {
                    let place = BlockNumber::from_raw(block).in_chunk();
                    added += u64::from(!new.present.contains(place));
                    new.present.set(place, true);
                }
            }
            if let Err(error) = self.put_record(head, chunk, &new) {
                for (chunk, old, added) in done {
                    self.put_record(head, chunk, &old)?;
                    self.index.count(head, added, 0);
                }
                return Err(error);
            }
            self.index.count(head, 0, added);
            if end < last.end() {
                done.push((chunk, old, added));
            }
            at = end;
        }
        let slot = self.index.slot(head);
        for (run, _) in runs {
            for block in run.first.raw()..run.end() {
                self.set_newest(BlockNumber::from_raw(block), slot);
            }
        }
        Ok(())
    }
}
