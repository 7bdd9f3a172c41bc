//! Blocks of one layer's image and their checksums.

use std::io::{self, IoSlice};
use std::ops::Range;

use ankole_proto::{BLOCK_BYTES, BlockNumber};
use serde::{Deserialize, Serialize};

use super::BLOCK;
use super::files::LayerFiles;
use crate::disk::{DiskFile, Sharing, read_exact_at};

const SUM_BYTES: usize = 4;

/// Blocks of a layer, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRun {
    /// The first.
    pub first: BlockNumber,
    /// How many.
    pub count: u64,
}

impl BlockRun {
    /// The place of its sums in the `.sum` file.
    const fn sums_at(self) -> u64 {
        self.first.raw() * SUM_BYTES as u64
    }

    /// The bytes that it takes.
    pub const fn bytes(self) -> u64 {
        self.count * BLOCK_BYTES
    }

    /// Where they are in the `.img` file, as in the volume.
    pub fn byte_range(self) -> Range<u64> {
        self.first.offset()..self.first.offset() + self.bytes()
    }

    /// Its blocks, in order.
    pub fn blocks(self) -> impl Iterator<Item = BlockNumber> {
        (self.first.raw()..self.end()).map(BlockNumber::from_raw)
    }

    /// The block behind its last.
    pub const fn end(self) -> u64 {
        self.first.raw() + self.count
    }
}

/// What is wrong with a bad block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Flaw {
    /// What the disk gives is not what was written.
    #[error("does not match its checksum")]
    Mismatch,
    /// The disk gives nothing.
    #[error("cannot be read")]
    Unreadable,
}

impl<F: DiskFile> LayerFiles<F> {
    /// Reads the blocks of a run and compares them with their sums; gives those that differ to
    /// `mismatch` with their bytes.
    ///
    /// # Errors
    ///
    /// What the system said, or `mismatch`.
    pub fn read_run<E: From<io::Error>>(
        &self,
        run: BlockRun,
        buffer: &mut [u8],
        scratch: &mut Vec<u8>,
        mut mismatch: impl FnMut(BlockNumber, u32) -> Result<(), E>,
    ) -> Result<(), E> {
        assert_eq!(buffer.len() as u64, run.bytes(), "{run:?}");
        read_exact_at(&self.image, buffer, run.first.offset())?;
        scratch.clear();
        scratch.resize(buffer.len() / BLOCK * SUM_BYTES, 0);
        read_exact_at(&self.sums, scratch, run.sums_at())?;
        let blocks = buffer
            .chunks_exact(BLOCK)
            .zip(scratch.chunks_exact(SUM_BYTES));
        for (number, (block, stated)) in (run.first.raw()..).zip(blocks) {
            let sum = ankole_proto::crc32c(block);
            if sum.to_le_bytes() != stated {
                mismatch(BlockNumber::from_raw(number), sum)?;
            }
        }
        Ok(())
    }

    /// Those blocks of a run that do not match their sums or cannot be read. `sums` holds the stored
    /// sums of the run then.
    ///
    /// # Errors
    ///
    /// What the system said of the sums.
    pub fn bad_blocks(
        &self,
        run: BlockRun,
        buffer: &mut Vec<u8>,
        sums: &mut Vec<u8>,
    ) -> io::Result<Vec<(BlockNumber, Flaw)>> {
        buffer.clear();
        buffer.resize(usize::try_from(run.bytes()).unwrap_or_default(), 0);
        let whole = read_exact_at(&self.image, buffer, run.first.offset()).is_ok();
        self.read_sums(run, sums)?;
        let blocks = buffer
            .chunks_exact_mut(BLOCK)
            .zip(sums.chunks_exact(SUM_BYTES));
        let mut bad = Vec::new();
        for (number, (block, stated)) in run.blocks().zip(blocks) {
            let readable = whole || read_exact_at(&self.image, block, number.offset()).is_ok();
            if !readable {
                bad.push((number, Flaw::Unreadable));
            } else if ankole_proto::crc32c(block).to_le_bytes() != stated {
                bad.push((number, Flaw::Mismatch));
            }
        }
        Ok(bad)
    }

    /// Writes whole blocks: `buffers` to the image, then their sums.
    ///
    /// # Errors
    ///
    /// What the system said; then any part may have been written.
    pub fn write_run(
        &self,
        first: BlockNumber,
        buffers: &[IoSlice<'_>],
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        scratch.clear();
        for buffer in buffers {
            for block in buffer.chunks_exact(BLOCK) {
                scratch.extend_from_slice(&ankole_proto::crc32c(block).to_le_bytes());
            }
        }
        self.image.write_at(buffers, first.offset())?;
        let sums_at = first.raw() * SUM_BYTES as u64;
        self.sums.write_at(&[IoSlice::new(scratch)], sums_at)
    }

    /// Copies a run, whose blocks are `data`, to another layer: by reference where the filesystem
    /// can, and with the sums that it has here, so that what is damaged on the way does not match
    /// there.
    ///
    /// # Errors
    ///
    /// What the system said; then any part may have been copied.
    pub fn copy_run(
        &self,
        run: BlockRun,
        data: &[u8],
        to: &Self,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.read_sums(run, scratch)?;
        if self.image.share_range(run.byte_range(), &to.image)? == Sharing::Unsupported {
            to.image
                .write_at(&[IoSlice::new(data)], run.first.offset())?;
        }
        to.write_sums(run.first, scratch)
    }

    /// Reads the stored sums of a run, as little-endian bytes.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn read_sums(&self, run: BlockRun, sums: &mut Vec<u8>) -> io::Result<()> {
        sums.clear();
        sums.resize(
            usize::try_from(run.count).unwrap_or_default() * SUM_BYTES,
            0,
        );
        read_exact_at(&self.sums, sums, run.sums_at())
    }

    /// Writes sums, little-endian bytes, from those of a block on.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn write_sums(&self, first: BlockNumber, sums: &[u8]) -> io::Result<()> {
        let at = first.raw() * SUM_BYTES as u64;
        self.sums.write_at(&[IoSlice::new(sums)], at)
    }

    /// Sets the sum of one block.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn write_sum(&self, block: BlockNumber, sum: u32) -> io::Result<()> {
        let at = block.raw() * SUM_BYTES as u64;
        self.sums.write_at(&[IoSlice::new(&sum.to_le_bytes())], at)
    }

    /// Makes the sums of a run those of what the image holds. After a write that failed half-way.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn resum_run(&self, run: BlockRun) -> io::Result<()> {
        let mut block = [0; BLOCK];
        for number in run.first.raw()..run.end() {
            let number = BlockNumber::from_raw(number);
            read_exact_at(&self.image, &mut block, number.offset())?;
            self.write_sum(number, ankole_proto::crc32c(&block))?;
        }
        Ok(())
    }
}
